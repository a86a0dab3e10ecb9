"""Measure what it costs to search one million codes in parts, on a Ray cluster of this machine.

    python -m benchmarks.cluster [--publish]

The codes are those of CIFAR-10's test images, repeated, each time with random bits changed. All
parts are on this machine, so that more parts make no search faster: what is measured is what the
fan-out costs, and how soon a part whose process died is there again. --publish writes the table to
docs/cluster.md.
"""

import argparse
import os
import signal
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from benchmarks.machine import hardware, say
from benchmarks.quoting import replaced
from benchmarks.search.measure import single_ms
from hashsearch.distributed.cluster import cluster
from hashsearch.encoder import Encoder
from hashsearch.errors import PartMissing
from hashsearch.gallery.shards import MAX_ROWS, sha256_of_file
from hashsearch.models.card import PRETRAINED
from hashsearch.search import Block, Stored
from hashsearch.search.exact import ExactIndex
from hashsearch.sources import DataFolders, open_source
from hashsearch.sources.loading import load_tiny_images

if TYPE_CHECKING:
    from hashsearch.distributed.parted import PartedExactIndex

DOCS = Path(__file__).parents[1] / "docs/cluster.md"
PARTS = (1, 2, 4, 8, 16)
SIZE = 1_000_000
FEW = 1000  # codes of each part where the fan-out itself is measured
K = 10
KILLED = 5  # times
_SETTLES_S = 6.0  # in which former processes, and those that Ray keeps to spare, are quiet


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--publish", action="store_true", help="write the table to docs/cluster.md")
    options = parser.parse_args()
    tiny = load_tiny_images(open_source("cifar10:test", DataFolders.of_environment()))
    real = Encoder.load(PRETRAINED).encode(tiny)
    codes, queries = changed(real, SIZE, seed=0), changed(real, 200, seed=1)
    with tempfile.TemporaryDirectory(prefix="hashsearch-bench-") as folder, cluster():
        section = "\n".join(measured(codes, queries, stored(codes, Path(folder))))
        print(section, flush=True)
        if options.publish:
            page = replaced(DOCS.read_text(encoding="utf-8"), "benchmarks.cluster", section)
            DOCS.write_text(page, encoding="utf-8")


def changed(real: NDArray[np.uint8], size: int, seed: int) -> NDArray[np.uint8]:
    """Codes in which each bit of a real one is changed with a probability of a tenth."""
    random = np.random.default_rng(seed)
    codes = np.empty((size, real.shape[1]), np.uint8)
    for start in range(0, size, len(real)):
        some = codes[start : start + len(real)]
        flips = np.packbits(random.random((len(some), 8 * real.shape[1])) < 0.1, axis=1)
        some[:] = real[: len(some)] ^ flips
    return codes


def stored(codes: NDArray[np.uint8], folder: Path) -> list[Block]:
    """Blocks of codes in files, as a gallery has them."""
    blocks = []
    for start in range(0, len(codes), MAX_ROWS):
        values, path = codes[start : start + MAX_ROWS], folder / f"{start}.npy"
        np.save(path, values)
        positions = np.arange(start, start + len(values))
        blocks.append(
            Block(values, np.arange(len(values)), positions, Stored(path, sha256_of_file(path)))
        )
    return blocks


def measured(
    codes: NDArray[np.uint8], queries: NDArray[np.uint8], blocks: list[Block]
) -> Iterator[str]:
    """The lines of the section."""
    yield f"| parts | ms a search of {len(codes):,} codes | ms a search of {FEW:,} codes a part |"
    yield "| --- | --- | --- |"
    index = ExactIndex(codes)
    here = single_ms(lambda query: index.search(query[np.newaxis], K), queries)
    yield f"| none: the exact index in the process | {here:.1f} | |"
    for parts in PARTS:
        cells = [
            search_ms(codes[:rows], queries, blocks, parts) for rows in (len(codes), FEW * parts)
        ]
        say(f"{parts} parts: {cells}")
        yield f"| {parts} | {cells[0]:.1f} | {cells[1]:.1f} |"
    yield ""
    there = base_of(codes, blocks, 4)
    taken = [seconds_until_back(there, queries[:1], number % 4) for number in range(KILLED)]
    del there
    there = base_of(codes, blocks, 4, copies=2)
    worst = max(
        milliseconds_after_a_kill(there, queries[:1], part, copy)
        for part in range(4)
        for copy in range(2)
    )
    yield (
        f"A part of {len(codes) // 4:,} codes whose only process was killed was searched again "
        f"after {median(taken):.1f} s (median of {KILLED}; at most {max(taken):.1f} s). With two "
        f"replicas, the slowest search in the second after a kill took {worst:.0f} ms, whichever "
        "was killed."
    )
    yield ""
    yield (
        f"`python -m benchmarks.cluster --publish`, {hardware()}, {time.strftime('%Y-%m-%d')}; "
        "several processes on one machine are no faster than one"
    )


def search_ms(
    codes: NDArray[np.uint8], queries: NDArray[np.uint8], blocks: list[Block], parts: int
) -> float:
    """Median milliseconds of a search; the processes are let go at the end."""
    index = base_of(codes, blocks, parts)
    return single_ms(lambda query: index.search(query[np.newaxis], K), queries)


def base_of(
    codes: NDArray[np.uint8], blocks: list[Block], parts: int, copies: int = 1
) -> "PartedExactIndex":
    """Codes in parts on the cluster; the blocks hold them, and perhaps more after them."""
    from hashsearch.distributed.bases import ClusterBases
    from hashsearch.distributed.parted import PartedExactIndex

    n, some = len(codes), []
    for block in blocks:
        if block.positions[0] < n:
            chosen = slice(0, n - int(block.positions[0]))
            some.append(block._replace(rows=block.rows[chosen], positions=block.positions[chosen]))
    base = ClusterBases(parts, copies, partial=False).segment(np.arange(n), {"codes": some})
    index = base.indexes["codes"]
    assert isinstance(index, PartedExactIndex)
    time.sleep(_SETTLES_S)
    return index


def kill(index: "PartedExactIndex", part: int, copy: int = 0) -> None:
    """Kill the process that holds a copy of a part."""
    import ray

    actor = index.replicas._of_slice[part][copy].actor
    os.kill(ray.get(actor.__ray_call__.remote(lambda holder: os.getpid())), signal.SIGKILL)


def seconds_until_back(index: "PartedExactIndex", query: NDArray[np.uint8], part: int) -> float:
    """Seconds from the kill of a part's only process to the next answer."""
    kill(index, part)
    began = time.perf_counter()
    while True:
        try:
            index.search(query, K)
        except PartMissing:
            time.sleep(0.01)
        else:
            return time.perf_counter() - began


def milliseconds_after_a_kill(
    index: "PartedExactIndex", query: NDArray[np.uint8], part: int, copy: int
) -> float:
    """Milliseconds of the slowest search in the second after the kill of one of two copies."""
    while not all(one.is_up for one in index.replicas._of_slice[part]):
        time.sleep(0.1)
    kill(index, part, copy)
    until, slowest = time.perf_counter() + 1, 0.0
    while time.perf_counter() < until:
        began = time.perf_counter()
        index.search(query, K)
        slowest = max(slowest, time.perf_counter() - began)
    return 1000 * slowest


if __name__ == "__main__":
    main()
