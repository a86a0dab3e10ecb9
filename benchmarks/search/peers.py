"""Peers: other indexes of the same codes, with their usual settings."""

import time
from collections.abc import Callable, Iterator
from typing import Any

import faiss
import numpy as np
from numpy.typing import NDArray

from benchmarks.search.codes import MILLION
from benchmarks.search.measure import K, Measured, built, single_ms
from benchmarks.search.ours import PROBES, RADII, Given, Search, nearest
from hashsearch.codes import CODE_BITS
from hashsearch.hardware import usable_cores
from hashsearch.search import NO_DISTANCE

_LISTS = 4096  # of FAISS's inverted file; four times the square root of a million
_NEIGHBOURS = 32  # of each row in FAISS's graph
_EFFORTS = (32, 64, 128)  # neighbours that a graph keeps while it is searched
_BUILDING_S = 420  # after which no more rows are added to a graph
_AT_ONCE = 50_000  # rows that are added to a graph at once
_WORDS = 4  # of 64 bits, in a code


def faiss_flat(given: Given, size: int) -> Iterator[Measured]:
    faiss.omp_set_num_threads(usable_cores())
    index, *cost = built(lambda: _flat(given, size), size)
    yield nearest("flat", _faiss(index), given.held_out.codes, size, by="FAISS").costing(*cost)


def faiss_selected(given: Given, size: int) -> Iterator[Measured]:
    """A tenth of the rows, and the rows within a radius."""
    faiss.omp_set_num_threads(usable_cores())
    index = _flat(given, size)
    mask = np.zeros(size, bool)
    mask[np.random.default_rng(0).permutation(size)[: size // 10]] = True
    bits = np.packbits(mask, bitorder="little")
    search = _faiss(index, faiss.SearchParameters(sel=faiss.IDSelectorBitmap(bits)))
    what, radius = "flat, among a tenth of the rows", RADII[-1]
    yield nearest(what, search, given.held_out.codes, size, by="FAISS")
    ms = single_ms(
        lambda query: index.range_search(query[np.newaxis], radius + 1), given.copies.codes
    )
    yield Measured(size, f"flat, within {radius} bits", "FAISS", single_ms=ms)


def _flat(given: Given, size: int) -> faiss.IndexBinaryFlat:
    index = faiss.IndexBinaryFlat(CODE_BITS)
    index.add(given.rows(size).codes)
    return index


def faiss_ivf(given: Given, size: int) -> Iterator[Measured]:
    faiss.omp_set_num_threads(usable_cores())
    codes = given.rows(size).codes
    quantizer = faiss.IndexBinaryFlat(CODE_BITS)
    index = faiss.IndexBinaryIVF(quantizer, CODE_BITS, _LISTS)

    def fill() -> None:
        index.train(codes[:MILLION])
        index.add(codes)

    _, *cost = built(fill, size)
    for index.nprobe in PROBES:
        what = f"IVF, {index.nprobe} of {_LISTS:,} lists"
        tenth = given.tenth(size)
        measured = nearest(what, _faiss(index), given.held_out.codes, size, tenth, by="FAISS")
        yield measured.costing(*cost)


def faiss_hnsw(given: Given, size: int) -> Iterator[Measured]:
    faiss.omp_set_num_threads(usable_cores())
    index = faiss.IndexBinaryHNSW(CODE_BITS, _NEIGHBOURS)
    codes = given.rows(size).codes
    done, seconds, row_bytes = built(lambda: _fill(codes, lambda _, part: index.add(part)), size)
    for index.hnsw.efSearch in _EFFORTS:
        what = f"HNSW, {_NEIGHBOURS} neighbours, effort {index.hnsw.efSearch}"
        tenth = given.tenth(done)
        measured = nearest(what, _faiss(index), given.held_out.codes, done, tenth, by="FAISS")
        yield measured.costing(seconds, row_bytes * size / done)


def usearch(given: Given, size: int) -> Iterator[Measured]:
    from usearch.index import Index

    index = Index(ndim=CODE_BITS, metric="hamming", dtype="b1")
    codes, threads = given.rows(size).codes, usable_cores()
    done, seconds, row_bytes = built(
        lambda: _fill(codes, lambda ids, part: index.add(ids, part, threads=threads)), size
    )

    def search(queries: NDArray[np.uint8]) -> tuple[NDArray[np.int64], NDArray[np.int32]]:
        found = index.search(queries, K, threads=min(threads, len(queries)))
        shape = (len(queries), K)
        return found.keys.reshape(shape), found.distances.reshape(shape).astype(np.int32)

    for index.expansion_search in _EFFORTS[1:]:
        what = f"HNSW, {index.connectivity} neighbours, effort {index.expansion_search}"
        tenth = given.tenth(done)
        measured = nearest(what, search, given.held_out.codes, done, tenth, by="usearch")
        yield measured.costing(seconds, row_bytes * size / done)


def duckdb(given: Given, size: int) -> Iterator[Measured]:
    """The codes as four numbers of 64 bits; every row is compared."""
    from duckdb import connect

    database = connect(config={"threads": usable_cores()})
    words = given.rows(size).codes.view(np.uint64)
    names = [f"word{number}" for number in range(_WORDS)]
    columns = {name: words[:, number].copy() for number, name in enumerate(names)}
    columns["id"] = np.arange(size)
    database.register("columns", columns)
    _, *cost = built(lambda: database.execute("CREATE TABLE codes AS FROM columns"), size)
    database.unregister("columns")
    terms = " + ".join(f"bit_count(xor({name}, ?::UBIGINT))" for name in names)
    query = f"SELECT id, {terms} AS distance FROM codes ORDER BY distance, id LIMIT {K}"

    def search(code: NDArray[np.uint8]) -> list[Any]:
        return database.execute(query, code.view(np.uint64).tolist()).fetchall()

    tenth = given.tenth(size)
    for code, distance in zip(given.held_out.codes[:3], tenth, strict=False):
        assert search(code)[-1][1] == distance
    measured = Measured(
        size, "scan in SQL", "DuckDB", single_ms=single_ms(search, given.held_out.codes)
    )
    yield measured.costing(*cost)


def _faiss(index: Any, params: Any = None) -> Search:
    """Search one of FAISS's indexes of binary codes."""

    def search(queries: NDArray[np.uint8]) -> tuple[NDArray[np.int64], NDArray[np.int32]]:
        distances, positions = index.search(queries, K, params=params)
        distances[positions < 0] = NO_DISTANCE
        return positions, distances

    return search


def _fill(
    codes: NDArray[np.uint8], add: Callable[[NDArray[np.int64], NDArray[np.uint8]], object]
) -> int:
    """Add codes to a graph until the time for it is over; returns how many were added."""
    started = time.perf_counter()
    done = 0
    while done < len(codes) and (done == 0 or time.perf_counter() - started < _BUILDING_S):
        part = codes[done : done + _AT_ONCE]
        add(np.arange(done, done + len(part)), part)
        done += len(part)
    return done
