"""Codes that are linked: within a radius of each other, directly or through other codes.

Exact, and much faster than comparing all pairs where the radius is small. If the bits are cut
into r + t parts, two codes that differ in r bits are equal in at least t parts; so only codes
that share t parts are compared (Norouzi, Punjani and Fleet 2012, multi-index hashing). Where
that would take longer than comparing all pairs, all pairs are compared. Codes that are known to
be linked already are never compared, so a cluster of near-equal codes costs little.
"""

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import combinations, pairwise
from math import comb
from threading import Lock
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from hashsearch.codes import CODE_BITS, CODE_BYTES, require_code_bytes
from hashsearch.hardware import usable_cores
from hashsearch.progress import progress_report
from hashsearch.search.exact import hamming_distances

_SAMPLE = 20_000  # codes by which a plan is chosen
_MOST_SHARED = 4  # parts that codes share in a plan; more would take too many tables
_TRIED = 8  # tables of a plan that are tried on the sample
# Measured on an AMD EPYC core with AVX-512; only their ratios matter.
_SECONDS_TO_SORT = 150e-9  # a code into a table
_SECONDS_TO_CHECK = 12e-9  # a pair of codes that share parts
_SECONDS_TO_SCAN = 1e-9  # a pair, where many codes are compared with many
_BLOCK_PAIRS = 2**20  # pairs compared at once, which bounds the memory
_ROWS, _COLUMNS = 512, 4096  # codes compared at once with each other
_SCANNED = 1024  # buckets of more codes are scanned


@dataclass(frozen=True, slots=True)
class _Plan:
    """How codes are compared: by tables of the codes that share parts.

    parts: the bits of each part. shared: how many parts the codes of a table share.
    """

    parts: list[NDArray[np.int64]]
    shared: int

    @property
    def tables(self) -> list[tuple[int, ...]]:
        """The numbers of the parts that the codes of each table share."""
        return list(combinations(range(len(self.parts)), self.shared))

    def keys(self, codes: NDArray[np.uint8]) -> Callable[[tuple[int, ...]], NDArray[np.uint64]]:
        """A function from a table to its keys, (n,) uint64: the parts that it is made of.

        Of long parts, only as many bits are taken as fit into a key together.
        """
        width = min(64 // self.shared, max(map(len, self.parts)))
        values = [part_values(codes, part[:width]) for part in self.parts]

        def of_table(table: tuple[int, ...]) -> NDArray[np.uint64]:
            key = np.zeros(len(codes), np.uint64)
            for number in table:
                key <<= np.uint64(width)
                key |= values[number]
            return key

        return of_table


def linked(codes: NDArray[np.uint8], radius: int, threads: int | None = None) -> NDArray[np.int64]:
    """Find which codes are linked, each within an inclusive radius in bits of the next.

    codes: (n, 32) uint8; with equal codes it is right, but faster without. threads: one for each
    core by default. Returns (n,) int64: for each code the lowest position of a code that it is
    linked with. Needs about 100 + 4 × radius bytes of memory a code, and 100 MB for each thread.
    Raises CodeShapeError.
    """
    require_code_bytes(codes, CODE_BYTES)
    links = _Links(np.ascontiguousarray(codes), radius)
    plan = _plan(links.codes, radius)
    pool = ThreadPoolExecutor(threads or usable_cores())
    try:
        # FAISS's kernel runs in one thread for each of ours.
        with progress_report("comparing codes", len(codes), "codes") as report:
            if plan is None:
                steps = links.scan(np.arange(len(codes)), pool.map)
            else:
                keys = plan.keys(links.codes)
                compared = pool.map(lambda table: links.compare(keys(table)), plan.tables)
                steps = _shares(compared, len(plan.tables), len(codes))
            for done in steps:
                report.advance(done)
    finally:
        pool.shutdown(cancel_futures=True)
    return links.labels()


def pair_distances(
    words: NDArray[np.uint64], left: NDArray[np.int64], right: NDArray[np.int64]
) -> NDArray[np.uint16]:
    """Hamming distances of codes at pairs of positions.

    words: (n, 4) uint64. left, right: (n_pairs,). Returns (n_pairs,) uint16.
    """
    total = np.zeros(len(left), np.uint16)
    for word in words.T:
        total += np.bitwise_count(word[left] ^ word[right])
    return total


def pairs_in_blocks(
    starts: NDArray[np.int64], ends: NDArray[np.int64]
) -> Iterator[tuple[NDArray[np.int64], NDArray[np.int64]]]:
    """Pair every position i with all positions from starts[i] to ends[i], that one excluded.

    Yields (left, right), two (n_pairs,) int64 arrays, in blocks of about a million pairs.
    """
    counts = np.maximum(ends - starts, 0)
    before = np.concatenate([[0], np.cumsum(counts)])
    cuts = np.searchsorted(before, np.arange(0, before[-1] + _BLOCK_PAIRS, _BLOCK_PAIRS))
    for first, last in pairwise(cuts):
        last = min(last, len(counts))
        left = np.repeat(np.arange(first, last), counts[first:last])
        offsets = np.arange(before[first], before[last]) - before[left]
        yield left, starts[left] + offsets


class _Links:
    """Links found so far: a forest whose roots stand for sets of linked codes."""

    def __init__(self, codes: NDArray[np.uint8], radius: int):
        self.codes = codes
        self._words = codes.view(np.uint64)
        self._radius = radius
        self._parents = np.arange(len(codes))
        self._lock = Lock()

    def labels(self) -> NDArray[np.int64]:
        """The lowest position that each code is linked with, as far as is known by now."""
        with self._lock:
            self._parents = self._roots(self._parents)
            return self._parents.copy()

    def compare(self, keys: NDArray[np.uint64]) -> None:
        """Compare all codes with equal keys, (n,) uint64."""
        order = np.argsort(keys)
        bucket = _numbered(keys[order])
        sizes = np.bincount(bucket)
        crowded = sizes[bucket] > 1
        order, bucket = order[crowded], bucket[crowded]
        # Linked codes of a bucket go together, so that each is compared with those that follow.
        combined = bucket * len(keys) + self.labels()[order]
        again = np.argsort(combined)
        order, bucket, combined = order[again], bucket[again], combined[again]
        starts, ends = _run_ends(combined), _run_ends(bucket)
        large = sizes[bucket] > _SCANNED
        for number in np.unique(bucket[large]).tolist():
            first, last = np.searchsorted(bucket, (number, number + 1))
            for _ in self.scan(order[first:last], map):
                pass
        ends[large] = 0
        words = self._words[order]
        for left, right in pairs_in_blocks(starts, ends):
            near = np.bitwise_count(words[left, 0] ^ words[right, 0]) <= self._radius
            left, right = left[near], right[near]
            near = pair_distances(words, left, right) <= self._radius
            self._join(order[left[near]], order[right[near]])

    def scan(self, items: NDArray[np.int64], run: Callable[..., Any]) -> Iterator[int]:
        """Compare all codes at some positions. run: as `map`. Yields how many more are done."""
        labels: NDArray[np.int64] | None = None
        while len(items):
            if labels is None:
                labels = self.labels()[items]
                order = np.argsort(labels, kind="stable")
                items, labels = items[order], labels[order]
            rows = items[:_ROWS]
            others = items[np.searchsorted(labels, labels[0], "right") :]
            if len(others) == 0:  # all are linked
                yield len(items)
                return
            blocks = (others[at : at + _COLUMNS] for at in range(0, len(others), _COLUMNS))
            joined = list(run(lambda block, rows=rows: self._scan_block(rows, block), blocks))
            items, labels = items[_ROWS:], None if any(joined) else labels[_ROWS:]
            yield len(rows)

    def _scan_block(self, rows: NDArray[np.int64], columns: NDArray[np.int64]) -> bool:
        near = hamming_distances(self.codes[rows], self.codes[columns]) <= self._radius
        left, right = np.divmod(np.flatnonzero(near), len(columns))
        return self._join(rows[left], columns[right])

    def _join(self, left: NDArray[np.int64], right: NDArray[np.int64]) -> bool:
        """Record that codes at pairs of positions are linked; returns whether that was new."""
        with self._lock:
            left, right = self._roots(left), self._roots(right)
            new = left != right
            if not new.any():
                return False
            ends = np.concatenate([left[new], right[new]])
            names, nodes = np.unique(ends, return_inverse=True)
            edges = (np.ones(len(ends) // 2, bool), tuple(nodes.reshape(2, -1)))
            graph = coo_array(edges, shape=(len(names), len(names)))
            _, sets = connected_components(graph, directed=False)
            _, lowest = np.unique(sets, return_index=True)  # names are sorted
            self._parents[names] = names[lowest[sets]]
            return True

    def _roots(self, positions: NDArray[np.int64]) -> NDArray[np.int64]:
        while True:
            above = self._parents[positions]
            if np.array_equal(above, positions):
                return positions
            positions = above


def _plan(codes: NDArray[np.uint8], radius: int) -> _Plan | None:
    """Choose what takes the least time, by a sample of the codes; None: compare all pairs."""
    random = np.random.default_rng(0)
    sample = sampled(codes, random)
    pairs = len(codes) * (len(codes) - 1) / 2
    best, least = None, pairs * _SECONDS_TO_SCAN
    for shared in range(1, _MOST_SHARED + 1):
        tables = comb(radius + shared, shared)
        if radius + shared > CODE_BITS or tables * len(codes) * _SECONDS_TO_SORT >= least:
            break
        plan = _Plan(dealt(sample, radius + shared), shared)
        chosen = random.choice(tables, min(tables, _TRIED), replace=False)
        keys, all_tables = plan.keys(sample), plan.tables
        sharing = float(np.mean([_share_of_pairs(keys(all_tables[n])) for n in chosen]))
        each = len(codes) * _SECONDS_TO_SORT + pairs * sharing * _SECONDS_TO_CHECK
        if tables * each < least:
            best, least = plan, tables * each
    return best


def sampled(codes: NDArray[np.uint8], random: np.random.Generator) -> NDArray[np.uint8]:
    """At most 20,000 of the codes, in their order."""
    if len(codes) <= _SAMPLE:
        return codes
    return codes[np.sort(random.choice(len(codes), _SAMPLE, replace=False))]


def dealt(sample: NDArray[np.uint8], number: int) -> list[NDArray[np.int64]]:
    """Deal the bits into parts, so that the bits of a part say different things.

    Correlated bits in one part would let many codes share it. Each bit, the most balanced ones
    first, goes to the part with which it is correlated least among those with the fewest bits.
    sample: (n, n_bytes) uint8 codes. Returns the numbers of each part's bits, bit 0 being the
    highest of byte 0; no part has more than one bit more than another.
    """
    bits = np.unpackbits(sample, axis=1).astype(np.float32)
    bits -= bits.mean(axis=0)
    deviations = bits.std(axis=0)
    covariance = bits.T @ bits / len(bits)
    correlation = covariance / np.maximum(np.outer(deviations, deviations), 1e-9)
    parts: list[list[int]] = [[] for _ in range(number)]
    for bit in np.argsort(-deviations, kind="stable").tolist():
        fewest = min(map(len, parts))
        open_parts = [part for part in parts if len(part) == fewest]
        alike = [float((correlation[bit, part] ** 2).sum()) for part in open_parts]
        open_parts[int(np.argmin(alike))].append(bit)
    return [np.array(part) for part in parts]


def part_values(codes: NDArray[np.uint8], part: NDArray[np.int64]) -> NDArray[Any]:
    """The bits of a part as a number for each code: (n,) uint32 or uint64."""
    value: NDArray[Any] = np.zeros(len(codes), np.uint32 if len(part) <= 32 else np.uint64)
    for bit in part.tolist():
        value = value << 1 | (codes[:, bit // 8] >> (7 - bit % 8) & 1)
    return value


def _share_of_pairs(keys: NDArray[np.uint64]) -> float:
    """Share of all pairs whose keys are equal."""
    sizes = np.unique(keys, return_counts=True)[1].astype(float)
    return float((sizes * (sizes - 1)).sum() / max(len(keys) * (len(keys) - 1), 1))


def _numbered(values: NDArray[Any]) -> NDArray[np.int64]:
    """Number the runs of equal values from 0."""
    return np.concatenate([[0], np.cumsum(values[1:] != values[:-1])])[: len(values)]


def _run_ends(values: NDArray[np.int64]) -> NDArray[np.int64]:
    """For each position, where the run of equal values that it is in ends, exclusive."""
    lasts = np.append(np.flatnonzero(values[1:] != values[:-1]) + 1, len(values))
    return lasts[_numbered(values)]


def _shares(steps: Iterable[None], number: int, total: int) -> Iterator[int]:
    """Yield each step's share of a total, as the steps are done."""
    for step, _ in enumerate(steps):
        yield total * (step + 1) // number - total * step // number
