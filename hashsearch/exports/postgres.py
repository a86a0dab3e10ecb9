"""Exports to a table of PostgreSQL, which later exports bring up to date.

A first export goes through the images by id. Later ones read what was changed since, by the
generation of each image's last change. All rows are compared by id if that is not known: `compact`
deleted rows of removed images, `reencode` made codes again, or the gallery was put back from a
copy.

Each chunk is one transaction, which also records what the table holds now, so that a killed
export continues where it was.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace

from hashsearch.errors import GalleryReadOnly
from hashsearch.exports.database import Url, connected, notices
from hashsearch.exports.marks import known_marks, mark_of_now
from hashsearch.exports.rows import CHUNK_ROWS, Row, changes_after, rows_after
from hashsearch.exports.summary import INDEXES, NO_INDEX, ExportOptions, ExportSummary
from hashsearch.exports.table import DEFAULT_TABLE, State, Table, parsed_name
from hashsearch.exports.vector_index import make_index
from hashsearch.gallery.gallery_folder import GalleryFolder
from hashsearch.progress import progress_report

_NO_CHARACTER = "\N{REPLACEMENT CHARACTER}"  # for NUL, which PostgreSQL's text cannot hold


def export_to_postgres(gallery: GalleryFolder, to: str, options: ExportOptions) -> ExportSummary:
    """Make a table of a database hold what the gallery holds, or bring it up to date.

    Raises InvalidQuery for a wrong URL or name of a table; ArtifactMismatch if the table is of
    another gallery or model; ExportError if it is no export, if another export writes to it, and
    for the database's errors; and GalleryReadOnly if the gallery has no identity yet and cannot be
    given one.
    """
    started = time.monotonic()
    url, name = Url(to), DEFAULT_TABLE if options.table is None else options.table
    parsed_name(name)
    with connected(url) as connection:
        table = Table(connection, name)
        with table.lock(), notices(connection) as remarks:
            progress, is_complete = _export(gallery, table, options)
            images, kind = table.count(), progress.state.index
            if is_complete and kind != NO_INDEX and images:
                is_complete = make_index(connection, table.quoted, kind, images, options.stop)
    return ExportSummary(
        to=url.shown,
        table=table.shown,
        images=images,
        written=progress.written,
        removed=progress.removed,
        generation=progress.state.generation,
        fingerprint=progress.state.fingerprint,
        seconds=time.monotonic() - started,
        stopped=not is_complete,
        remarks=tuple(remarks),
    )


def _identity(gallery: GalleryFolder) -> str:
    try:
        return gallery.catalog.identity()
    except GalleryReadOnly as error:
        raise GalleryReadOnly(
            f"{gallery.folder} was made by an earlier version, and lacks the identity by which a "
            "database knows it; it cannot be written to, so export it once where it can"
        ) from error


@dataclass
class _Progress:
    """What the table holds, and the numbers of rows that were written and removed."""

    state: State
    written: int = 0
    removed: int = 0


def _export(gallery: GalleryFolder, table: Table, options: ExportOptions) -> tuple[_Progress, bool]:
    """Write the rows; returns what was done, and whether that is all."""
    catalog = gallery.catalog
    new = State(
        gallery=_identity(gallery),
        fingerprint=gallery.fingerprint,
        precision=gallery.precision,
        generation=catalog.generation(),
        loaded=0,
        index=INDEXES[0],
        mark=mark_of_now(catalog),
    )
    state = table.prepare(new, options.index)
    if state.mark not in known_marks(catalog):
        state = replace(new, index=state.index)
    progress = _Progress(state)
    return progress, _bring_up_to_date(gallery, table, progress, options.stop)


def _bring_up_to_date(
    gallery: GalleryFolder, table: Table, progress: _Progress, stop: Callable[[], bool]
) -> bool:
    """Take steps until the table has all changes up to now; returns False if it was stopped.

    What is changed meanwhile may be left to the next export, so that this one comes to an end.
    """
    goal = gallery.catalog.generation()
    total = None if progress.state.loaded is None else gallery.catalog.count()
    with progress_report("exporting", total) as report:
        while not stop():
            state = progress.state
            if state.loaded is None and state.generation >= goal:
                return True
            step = _next(gallery, state)
            table.require_model(state, step.fingerprint)
            _apply(table, step, progress)
            report.advance(len(step.rows))
            if state.loaded is not None:  # rows were read that are newer than the state says
                goal = gallery.catalog.generation()
    return False


@dataclass(frozen=True, slots=True)
class _Step:
    """A part of an export.

    rows: what the table is to hold of some images, ordered by id. after: the state of the table
    then. removed: ids of rows to delete. among: the ids that follow the first up to the second, or
    all of them, of which the table is to hold these rows alone; None if it may hold others.
    """

    fingerprint: str
    rows: list[Row]
    after: State
    removed: list[int] = field(default_factory=list)
    among: tuple[int, int | None] | None = None


def _next(gallery: GalleryFolder, state: State) -> _Step:
    """The next step: images by id or by their changes, or the decision to begin with the first."""
    if state.loaded is not None:
        chunk = rows_after(gallery, state.loaded, CHUNK_ROWS)
        last = chunk.rows[-1].id if len(chunk.rows) == CHUNK_ROWS else None
        # The mark is of what was read, which may be newer than the state's generation.
        after = replace(state, loaded=last, mark=mark_of_now(gallery.catalog))
        among = (state.loaded, last)
        step = _Step(chunk.fingerprint, chunk.rows, after, among=among)
        is_known = True
    else:
        chunk = changes_after(gallery, state.generation, CHUNK_ROWS)
        after = replace(state, generation=chunk.until, mark=mark_of_now(gallery.catalog))
        step = _Step(chunk.fingerprint, chunk.rows, after, chunk.removed)
        is_known = chunk.until > state.generation
    if is_known and chunk.followed_since <= state.generation:
        return step
    mark = mark_of_now(gallery.catalog)
    start = replace(state, generation=chunk.generation, loaded=0, mark=mark)
    return _Step(chunk.fingerprint, [], start)


def _apply(table: Table, step: _Step, progress: _Progress) -> None:
    """Change what differs in the table, and its state, in one transaction."""
    written = removed = 0
    with table.transaction():
        if step.rows:
            written = table.put([_storable(row) for row in step.rows])
        if step.removed:
            removed += table.delete(step.removed)
        if step.among is not None:
            removed += table.delete_others(*step.among)
        table.change_state(step.after)
    progress.state = step.after
    progress.written += written
    progress.removed += removed


def _storable(row: Row) -> Row:
    if row.label is None or "\0" not in row.label:
        return row
    return row._replace(label=row.label.replace("\0", _NO_CHARACTER))
