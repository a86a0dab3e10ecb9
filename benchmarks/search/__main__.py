"""Measure how fast searches are, beside peers, in one table.

    python -m benchmarks.search [--large] [--publish] [--only PART…]

The first run encodes a million views of real images, which takes a quarter of an hour, and keeps
them in the user's cache.
"""

import argparse
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from importlib.metadata import version
from typing import NamedTuple

from benchmarks.machine import hardware, percent_of_others, say, seconds_of_others
from benchmarks.search import live, ours, peers
from benchmarks.search.codes import IMAGES, MILLION, more_rows, real_rows
from benchmarks.search.measure import Measured, timed
from benchmarks.search.report import Report, publish, to_markdown
from hashsearch.models.card import PRETRAINED, read_card
from hashsearch.sources import DataFolders

SIZES = (MILLION, 10 * MILLION)
LARGE = 80 * MILLION


class Part(NamedTuple):
    """A part of the table. sizes: numbers of rows, beside those asked for if `scales`."""

    measure: Callable[[ours.Given, int], Iterator[Measured]]
    sizes: tuple[int, ...] = ()
    scales: bool = True
    peer: bool = False


PARTS = {
    "reading": Part(ours.reading),
    "exact": Part(ours.exact),
    "filtered": Part(ours.filtered),
    "radius": Part(ours.within_radius),
    "multihash": Part(ours.multihash),
    "buckets": Part(ours.buckets, (100_000,)),
    "ivf": Part(ours.ivf),
    "pixels": Part(ours.pixels, (IMAGES,), scales=False),
    "live": Part(live.live, (MILLION,), scales=False),
    "faiss-flat": Part(peers.faiss_flat, peer=True),
    "faiss-selected": Part(peers.faiss_selected, peer=True),
    "faiss-ivf": Part(peers.faiss_ivf, peer=True),
    "duckdb": Part(peers.duckdb, (MILLION,), scales=False, peer=True),
    "usearch": Part(peers.usearch, (MILLION,), scales=False, peer=True),
    "faiss-hnsw": Part(peers.faiss_hnsw, (MILLION,), scales=False, peer=True),
}
_PACKAGES = ("numpy", "faiss-cpu", "usearch", "duckdb")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--large", action="store_true", help="measure 80 million rows too")
    parser.add_argument("--publish", action="store_true", help="write the table to docs/")
    parser.add_argument("--only", nargs="+", choices=PARTS, metavar="PART", default=list(PARTS))
    options = parser.parse_args()
    if options.publish and len(options.only) < len(PARTS):
        parser.error("only the whole table is published")
    sizes = (*SIZES, LARGE) if options.large else SIZES
    folders = DataFolders.of_environment()
    real = real_rows(folders, say)
    scales = any(PARTS[name].scales for name in options.only)
    rows = more_rows(real.gallery, max(sizes) if scales else MILLION)
    given = ours.Given(rows, real, folders)
    started, before = time.perf_counter(), seconds_of_others()
    results, part_seconds = run(given, options.only, sizes)
    seconds = time.perf_counter() - started
    report = Report(
        command=" ".join(["python -m benchmarks.search", *sys.argv[1:]]),
        date=time.strftime("%Y-%m-%d"),
        hardware=hardware(),
        others_percent=percent_of_others(before, seconds),
        versions={name: version(name) for name in _PACKAGES},
        fingerprint=read_card(PRETRAINED).fingerprint,
        seconds=seconds,
        part_seconds=part_seconds,
        results=results,
    )
    print(to_markdown(report))
    if options.publish:
        publish(report)


def run(
    given: ours.Given, names: Sequence[str], sizes: Sequence[int]
) -> tuple[list[Measured], dict[str, float]]:
    """Measure these parts, peers last, small sizes first; print what is found.

    Returns the results, and the seconds that each part took.
    """
    chosen = [
        (PARTS[name].peer, size, name)
        for name in names
        for size in (*PARTS[name].sizes, *(sizes if PARTS[name].scales else ()))
    ]
    results: list[Measured] = []
    part_seconds = {}
    for _, size, name in sorted(chosen, key=lambda part: part[:2]):
        found, seconds = timed(lambda: list(PARTS[name].measure(given, size)))  # noqa: B023
        results += (replace(one, part=name) for one in found)
        part_seconds[f"{name}, {size:,} rows"] = round(seconds, 1)
        say(f"{name}, {size:,} rows: {seconds:.1f} s")
        for one in found:
            say(f"  {one}")
    return results, part_seconds


if __name__ == "__main__":
    main()
