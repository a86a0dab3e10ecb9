"""HashSearch's own indexes: a function for each part of the table."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import cache, cached_property, partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.search.codes import IMAGES, RealRows, Rows, gallery_images, held_out_images
from benchmarks.search.measure import (
    K,
    Measured,
    batch_ms,
    built,
    reading_ms,
    recall,
    single_ms,
)
from hashsearch.codes import ADDRESS_BYTES
from hashsearch.search import NO_POSITION, Block
from hashsearch.search.buckets import BucketIndex
from hashsearch.search.exact import ExactIndex
from hashsearch.search.held_out import HeldOut
from hashsearch.search.ivf import IvfIndex, assign, choose_nprobe, lists_for, train
from hashsearch.search.lists import InvertedLists
from hashsearch.search.multihash import MultiHashIndex
from hashsearch.search.normalized import NormalizedIndex
from hashsearch.search.pixels import PixelIndex
from hashsearch.search.subset import of_positions
from hashsearch.sources import DataFolders
from hashsearch.wording import counted

RADII = (4, 8, 11)  # in bits of the code; 11 bits are within what copies differ in
ADDRESS_RADII = (1, 2, 3)  # in bits of the address
PROBES = (16, 32, 64, 128)
WANTED = 0.95  # recall that the lists to visit are chosen for
_SLOW = 128  # queries by pixels, which take as long as thousands by code

Search = Callable[[NDArray[np.uint8]], tuple[NDArray[np.int64], NDArray[np.int32]]]


class Given:
    """What is searched, and the queries, of which `held_out` and `copies` are as in RealRows."""

    def __init__(self, rows: Rows, real: RealRows, folders: DataFolders):
        """rows: as many as the largest size; a smaller one has the first of them."""
        self.held_out, self.copies = real.held_out, real.copies
        self._rows, self._folders = rows, folders
        self.tenth = cache(self._tenth)

    def rows(self, size: int) -> Rows:
        return Rows(*(column[:size] for column in self._rows))

    def _tenth(self, size: int) -> NDArray[np.int32]:
        """Distance of the tenth neighbour of each held-out query, (1,024,) int32."""
        return ExactIndex(self.rows(size).codes).search(self.held_out.codes, K)[1][:, -1]

    @cached_property
    def pixels(self) -> NDArray[np.uint8]:
        """(188,000, 3072) uint8."""
        return gallery_images(self._folders).reshape(IMAGES, -1)

    @cached_property
    def pixel_queries(self) -> NDArray[np.uint8]:
        """(128, 3072) uint8."""
        images = held_out_images(self._folders)[:_SLOW]
        return images.reshape(_SLOW, -1)


def nearest(
    what: str,
    search: Search,
    queries: NDArray[np.uint8],
    size: int,
    tenth: NDArray[np.int32] | None = None,
    by: str = "hashsearch",
) -> Measured:
    """Measure a search for the ten nearest rows.

    search: from (n, n_bytes) uint8 queries to (n, 10) positions and distances. tenth: see
    `recall`; None if the search is exact.
    """
    return Measured(
        size,
        what,
        by,
        single_ms=single_ms(lambda query: search(query[np.newaxis]), queries),
        batch_ms=batch_ms(search, queries),
        recall=None if tenth is None else recall(search(queries)[1], tenth),
    )


def reading(given: Given, size: int) -> Iterator[Measured]:
    codes = given.rows(size).codes
    ms = reading_ms(codes)
    speed = f"{codes.nbytes / ms / 1e6:.1f} GB/s"
    yield Measured(size, "sum of all codes", "NumPy", single_ms=ms, note=speed)


def exact(given: Given, size: int) -> Iterator[Measured]:
    codes = given.rows(size).codes
    index, *cost = built(lambda: ExactIndex(codes), size, codes.nbytes)
    search = partial(index.search, k=K)
    yield nearest("exact", search, given.held_out.codes, size).costing(*cost)


def filtered(given: Given, size: int) -> Iterator[Measured]:
    index = ExactIndex(given.rows(size).codes)
    mixed = np.random.default_rng(0).permutation(size)
    for words, chosen in (
        ("10 rows", mixed[:10]),
        ("a tenth of the rows", mixed[: size // 10]),
        ("nine tenths of the rows", mixed[size // 10 :]),
        ("all rows but 10", mixed[10:]),
    ):
        search = partial(index.search, k=K, subset=of_positions(np.sort(chosen), size))
        yield nearest(f"exact, among {words}", search, given.held_out.codes, size)


def within_radius(given: Given, size: int) -> Iterator[Measured]:
    index = ExactIndex(given.rows(size).codes)
    for radius in RADII:
        yield _within(
            f"exact, within {counted(radius, 'bit')}", index, radius, given.copies.codes, size
        )


def multihash(given: Given, size: int) -> Iterator[Measured]:
    codes = given.rows(size).codes
    exact = ExactIndex(codes)
    index, *cost = built(lambda: MultiHashIndex(codes, exact), size, codes.nbytes)
    for radius in RADII:
        measured = _within(
            f"multihash, within {counted(radius, 'bit')}", index, radius, given.copies.codes, size
        )
        yield measured.costing(*cost)
    search = partial(index.search, k=K)
    yield nearest("multihash", search, given.held_out.codes, size).costing(*cost)


def _within(what: str, index: Any, radius: int, queries: NDArray[np.uint8], size: int) -> Measured:
    """Measure a search for all rows within a radius, by one query at a time."""
    search = partial(index.search_radius, radius=radius)
    found = [len(search(query)[0]) for query in queries[:64]]
    note = f"{np.mean(found):.2f} found on average"
    return Measured(size, what, single_ms=single_ms(search, queries), note=note)


def buckets(given: Given, size: int) -> Iterator[Measured]:
    codes, addresses = given.rows(size)
    queries = np.concatenate([given.held_out.addresses, given.held_out.codes], axis=1)
    for radius in ADDRESS_RADII:
        index, *cost = built(
            lambda radius=radius: BucketIndex(addresses, codes, radius), size, codes.nbytes
        )
        search = partial(index.search, k=K)
        measured = nearest(
            f"buckets, within {counted(radius, 'bit')}", search, queries, size, given.tenth(size)
        )
        look_up = single_ms(index.candidates, queries[:, :ADDRESS_BYTES])
        found = [len(index.candidates(query)) for query in queries[:, :ADDRESS_BYTES]]
        note = (
            f"look-up {look_up:.3f} ms, ranking {measured.single_ms - look_up:.3f} ms; "
            f"{np.median(found):,.0f} candidates (median), {np.mean(found):,.0f} on average"
        )
        yield replace(measured, note=note).costing(*cost)


def ivf(given: Given, size: int) -> Iterator[Measured]:
    codes = given.rows(size).codes
    exact, n_lists = ExactIndex(codes), lists_for(size)

    def make() -> IvfIndex:
        centroids = train(codes, n_lists, seed=0)
        return IvfIndex(InvertedLists(codes, centroids, assign(codes, centroids), PROBES[0]), exact)

    index, *cost = built(make, size, codes.nbytes)
    # Half of the queries choose how many lists are visited, the others measure the recall.
    queries, tenth, half = given.held_out.codes, given.tenth(size), len(given.tenth(size)) // 2
    strangers = np.full(half, NO_POSITION)
    chosen = choose_nprobe(index.lists, exact, HeldOut(strangers, queries[:half], exact), WANTED)
    search = partial(index.search, k=K)
    for index.lists.nprobe in sorted({chosen, *PROBES}):
        what = f"ivf, {index.lists.nprobe} of {n_lists:,} lists"
        note = f"chosen for a recall of {WANTED} by other queries"
        measured = nearest(what, search, queries, size)
        found = recall(search(queries[half:])[1], tenth[half:])
        note = note if index.lists.nprobe == chosen else ""
        yield replace(measured, recall=found, note=note).costing(*cost)


def pixels(given: Given, size: int) -> Iterator[Measured]:
    rows = np.arange(size)
    block = Block(given.pixels, rows, rows)
    for name, kind in (("pixels", PixelIndex), ("normalized pixels", NormalizedIndex)):
        index, *cost = built(lambda kind=kind: kind([block]), size, given.pixels.nbytes)
        search = partial(index.search, k=K)
        yield nearest(name, search, given.pixel_queries, size).costing(*cost)
