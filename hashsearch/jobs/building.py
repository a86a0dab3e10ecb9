"""Building indexes of a gallery: learning what is costly to find, and measuring what they find."""

import time
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from hashsearch.errors import InvalidGallery, InvalidQuery
from hashsearch.gallery.built import BuiltIndex, drop, recorded_kinds, store
from hashsearch.gallery.changes import now
from hashsearch.gallery.gallery_folder import GalleryFolder
from hashsearch.gallery.history import JobRecord
from hashsearch.gallery.records import Rows
from hashsearch.models.card import BUNDLED, PRETRAINED, read_card
from hashsearch.progress import progress_report
from hashsearch.retrieval.kinds import KINDS, RECALL, Arrays, IndexKind, Learned
from hashsearch.search import Index
from hashsearch.search.exact import ExactIndex
from hashsearch.search.held_out import NEIGHBORS, HeldOut

_HELD_OUT = 2000  # images that stand as queries: half to choose parameters, half to measure
_TIMED_S = 1.0  # seconds that single queries are timed for
_TIMED = 200


def build_index(gallery: GalleryFolder, kind: str, recall: float = RECALL) -> BuiltIndex:
    """Build an index of a gallery's codes, measure it, and store what is costly to find.

    kind: a name of KINDS. recall: the wanted share of the ten nearest neighbours that exact search
    finds, above 0 and at most 1; images held out of the training choose the parameters, and others
    measure the recall that is recorded. An earlier index of the kind answers until the new one is
    stored; a killed job leaves the earlier one. Raises InvalidQuery if the kind or the recall is
    none, InvalidGallery if the gallery has fewer than two images or lacks a column that the kind
    needs, GalleryBusy if another job is running, and GalleryReadOnly.
    """
    row = _kind(kind)
    if not (isinstance(recall, int | float) and 0 < recall <= 1):
        raise InvalidQuery(f"a recall is a number above 0 and at most 1; got {recall!r}")
    with gallery.job_lock(), JobRecord(gallery.catalog, "build") as record:
        rows = gallery.catalog.rows()
        record.expected = len(rows.ids)
        columns = _columns(gallery, rows, kind)
        return _build(gallery, rows, kind, row, columns, recall)


def drop_index(gallery: GalleryFolder, kind: str) -> bool:
    """Forget a built index and delete its files; returns whether there was one.

    kind: also one whose record is damaged or that only a later version knows. Raises InvalidQuery
    if the kind is neither known nor recorded, GalleryBusy and GalleryReadOnly.
    """
    if kind not in recorded_kinds(gallery.catalog):
        _kind(kind)
    with gallery.job_lock():
        return drop(gallery.folder, gallery.catalog, kind)


def buildable(gallery: GalleryFolder) -> list[str]:
    """Names of the kinds of indexes that the gallery has the columns for."""
    return [name for name, column in lacking(gallery).items() if column is None]


def lacking(gallery: GalleryFolder) -> dict[str, str | None]:
    """For each kind of index, the first column that it needs and the gallery lacks, or None."""
    shards = gallery.every_shard().values()
    missing = {
        column
        for kind in KINDS.values()
        for column in kind.columns
        if not all(shard.file(column) for shard in shards)
    }
    return {
        name: next((column for column in kind.columns if column in missing), None)
        for name, kind in KINDS.items()
    }


def why_lacking(gallery: GalleryFolder, column: str) -> str:
    """Why a gallery lacks a column, and which command makes it, if any does."""
    if not gallery.keeps("pixels"):
        return "they are made from stored pixels, which the gallery does not keep either"
    card, bundled = gallery.card(), read_card(PRETRAINED)
    reencode = f"hashsearch gallery reencode {gallery.folder}"
    if column != "addresses" or card.address_bits:
        return f"{reencode} makes them"
    if bundled.address_bits and bundled.preprocessing == card.preprocessing:
        return (
            f"its model makes none, but the bundled one does: {reencode} --model {BUNDLED} "
            "makes them, and all codes by that model"
        )
    return "its model makes none"


def repair_of(folder: Path, kind: str) -> str:
    """The command that repairs what is stored of an index in a gallery's folder."""
    build = f"hashsearch gallery build {folder} --kind {kind}"
    if kind not in KINDS:
        return f"{build} --drop, which deletes it; this version of hashsearch cannot build it"
    return build


def _kind(name: str) -> IndexKind:
    if name not in KINDS:
        raise InvalidQuery(f"there is no index {name!r}; there are {', '.join(KINDS)}")
    return KINDS[name]


def _columns(gallery: GalleryFolder, rows: Rows, kind: str) -> dict[str, NDArray[np.uint8]]:
    if len(rows.ids) < 2:
        raise InvalidGallery(
            f"{gallery.folder} holds fewer than the two images that an index is built of"
        )
    columns = {}
    for name in {"codes": None, **dict.fromkeys(KINDS[kind].columns)}:
        column = gallery.column(name, rows)
        if column is None:
            raise InvalidGallery(
                f"{gallery.folder} lacks {name}, which the index {kind} needs; "
                + why_lacking(gallery, name)
            )
        columns[name] = column
    return columns


def _build(
    gallery: GalleryFolder,
    rows: Rows,
    kind: str,
    row: IndexKind,
    columns: dict[str, NDArray[np.uint8]],
    wanted: float,
) -> BuiltIndex:
    started = time.perf_counter()
    exact = ExactIndex(columns["codes"])
    order = np.random.default_rng(0).permutation(len(rows.ids))
    half = max(1, min(_HELD_OUT, len(order) // 4) // 2)
    # A gallery of a few images is trained on all of them.
    training = order[2 * half :] if len(order) > 2 * half else order
    learned = Learned({})
    if row.learn is not None:
        choosing = _held_out(row, columns, order[:half], exact)
        learned = row.learn(columns, training, choosing, exact, wanted)
    stored = {**learned.arrays, **learned.by_image}
    index = row.build(columns, stored, learned.parameters, exact)
    build_seconds = time.perf_counter() - started
    measuring = _held_out(row, columns, order[half : 2 * half], exact)
    with progress_report("measuring", half, "queries") as report:
        recall = float(measuring.recall(index).mean())
        report.advance(half)
    built = BuiltIndex(
        kind=kind,
        fingerprint=rows.fingerprint,
        generation=rows.generation,
        images=len(rows.ids),
        time=now(),
        parameters=dict(learned.parameters),
        wanted_recall=wanted,
        recall=recall,
        query_ms=_milliseconds(index, measuring.queries, row.radius),
        exact_ms=_milliseconds(exact, measuring.codes, row.radius),
        image_bytes=index.nbytes / len(rows.ids),
        build_seconds=build_seconds,
        files={},
        by_image=[],
    )
    return store(gallery.folder, gallery.catalog, built, rows.ids, learned.arrays, learned.by_image)


def _held_out(
    kind: IndexKind, columns: Arrays, positions: NDArray[np.int64], exact: ExactIndex
) -> HeldOut:
    queries = np.concatenate([columns[name][positions] for name in kind.columns], axis=1)
    return HeldOut(positions, columns["codes"][positions], exact, queries)


def _milliseconds(index: Index, queries: NDArray[np.uint8], radius: int | None) -> float:
    """Median time of single queries for ten neighbours, or for all within a radius."""
    spans: list[float] = []
    began = time.perf_counter()
    for query in queries[:_TIMED]:
        started = time.perf_counter()
        if radius is None:
            index.search(query[np.newaxis], NEIGHBORS)
        else:
            index.search_radius(query, radius)
        spans.append(time.perf_counter() - started)
        if time.perf_counter() - began > _TIMED_S:
            break
    return 1000 * float(np.median(spans))
