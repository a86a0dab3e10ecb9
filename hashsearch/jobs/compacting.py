"""Joining small shards, and deleting the rows of removed images."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hashsearch.gallery.changes import drop_shard, insert_shard, move_images, next_generation
from hashsearch.gallery.gallery_folder import GalleryFolder
from hashsearch.gallery.history import JobRecord
from hashsearch.gallery.shards import MAX_ROWS, Shard, ShardWriter
from hashsearch.progress import progress_report

_SMALL = MAX_ROWS // 2  # rows; a shard of fewer is joined to others
_MOST_SHARDS = 500  # joined at once; every build of SQLite takes as many parameters
_CHUNK_ROWS = 4096


@dataclass(frozen=True, slots=True)
class CompactSummary:
    """Number of shards before and after, and of deleted rows of removed images."""

    shards_before: int
    shards_after: int
    rows_dropped: int


def compact(gallery: GalleryFolder) -> CompactSummary:
    """Rewrite small shards, and shards with removed images, as fewer and larger ones.

    One transaction replaces a group of old shards by a new one. A killed job leaves
    old and new shards, all readable, and the next job continues. Raises GalleryBusy
    if another job is running, and InvalidGallery if a shard to copy is damaged.
    """
    counts = {"indexed": 0}
    with gallery.job_lock(), JobRecord(gallery.catalog, "compact", counts=lambda: counts) as record:
        shards, live = gallery.every_shard(), gallery.catalog.live_rows()
        groups = list(_groups(shards, live))
        record.expected = sum(live.get(number, 0) for group in groups for number in group)
        with progress_report("compacting", record.expected) as report:
            for group in groups:
                rows = _join(gallery, group)
                counts["indexed"] += rows
                report.advance(rows)
        after = gallery.catalog.shard_rows()
    before = sum(shard.rows for shard in shards.values())
    return CompactSummary(len(shards), len(after), before - sum(after.values()))


def _groups(shards: Mapping[int, Shard], live: Mapping[int, int]) -> Iterator[list[int]]:
    """Groups of shards to rewrite as one shard each; the order of rows stays.

    The shards of a group have the same columns. live: number of images by shard.
    """
    group: list[int] = []
    rows = 0

    def is_worth_it() -> bool:
        # A small shard alone, without removed rows, stays as it is.
        return len(group) > 1 or any(live.get(number, 0) < shards[number].rows for number in group)

    for number, shard in sorted(shards.items()):
        kept = live.get(number, 0)
        if kept == shard.rows >= _SMALL:
            continue
        full = rows + kept > MAX_ROWS or len(group) == _MOST_SHARDS
        if full or (group and shard.columns != shards[group[0]].columns):
            if is_worth_it():
                yield group
            group, rows = [], 0
        group.append(number)
        rows += kept
    if is_worth_it():
        yield group


def _join(gallery: GalleryFolder, group: list[int]) -> int:
    """Write the images of these shards to a new one; returns their number."""
    rows = gallery.catalog.rows(group)
    columns = gallery.shard(group[0]).columns
    writer = gallery.new_shard(columns) if len(rows.ids) else None
    ids: list[int] = []
    try:
        for shard, positions in gallery.shards(rows):
            assert writer is not None, "there are rows"
            shard.require_whole()
            ids += rows.ids[positions].tolist()
            _copy(shard, rows.rows[positions], writer)
        checksums = writer.seal() if writer is not None else {}
    except BaseException:
        if writer is not None:
            writer.discard()
        raise
    with gallery.catalog.transaction() as db:
        if writer is not None:
            number = insert_shard(db, writer.rows, checksums)
            gallery.adopt(writer.folder, number)
            move_images(db, ids, number)
        for old in group:
            drop_shard(db, old)
        next_generation(db)
    for old in group:
        gallery.drop(old)
    return len(rows.ids)


def _copy(shard: Shard, rows: NDArray[np.int64], writer: ShardWriter) -> None:
    columns = {name: shard.column(name) for name in writer.columns}
    for start in range(0, len(rows), _CHUNK_ROWS):
        part = rows[start : start + _CHUNK_ROWS]
        writer.append(
            {name: column[part] for name, column in columns.items()},
            [shard.thumbnail(int(row)) for row in part],
        )
