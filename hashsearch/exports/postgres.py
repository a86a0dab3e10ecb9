"""Exports to a table of PostgreSQL, which later exports bring up to date.

A first export goes through the images by id. Later ones read what was changed since, by the
generation of each image's last change. If that is not known any more, since `compact` deleted
rows of removed images or `reencode` made codes again, all rows are compared by id.

Each chunk is one transaction, which also records what the table holds now, so that a killed
export continues where it was.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass, replace

from hashsearch.errors import GalleryReadOnly
from hashsearch.exports.database import Url, connected, notices
from hashsearch.exports.rows import CHUNK_ROWS, Chunk, Row, changes_after, rows_after
from hashsearch.exports.summary import INDEXES, NO_INDEX, ExportSummary, Wish
from hashsearch.exports.table import DEFAULT_TABLE, State, Table, parsed_name
from hashsearch.exports.vector_index import make_index
from hashsearch.gallery.gallery_folder import GalleryFolder
from hashsearch.progress import progress_report

_NO_CHARACTER = "\N{REPLACEMENT CHARACTER}"  # for NUL, which PostgreSQL's text cannot hold


def export_to_postgres(gallery: GalleryFolder, to: str, wish: Wish) -> ExportSummary:
    """Make a table of a database hold what the gallery holds, or bring it up to date.

    Raises InvalidQuery if the URL or the table's name is none; ArtifactMismatch if the table is
    of another gallery or model, unless `wish.replace`; ExportError if it is no export, if
    another export writes to it, and for the database's errors; and GalleryReadOnly if the gallery
    has no identity yet and cannot be given one.
    """
    started = time.monotonic()
    url, name = Url(to), DEFAULT_TABLE if wish.table is None else wish.table
    parsed_name(name)
    with connected(url) as connection:
        table = Table(connection, name)
        with table.lock(), notices(connection) as remarks:
            done, is_complete = _export(gallery, table, wish)
            images = gallery.catalog.count()
            kind = done.state.index
            if is_complete and kind != NO_INDEX and images:
                is_complete = make_index(connection, table.quoted, kind, images, wish.stop)
    return ExportSummary(
        to=url.shown,
        table=table.shown,
        images=images,
        written=done.written,
        removed=done.removed,
        generation=done.state.generation,
        fingerprint=done.state.fingerprint,
        seconds=time.monotonic() - started,
        stopped=not is_complete,
        remarks=tuple(remarks),
    )


def _export(gallery: GalleryFolder, table: Table, wish: Wish) -> tuple["_Done", bool]:
    """Write the rows; returns what was done, and whether that is all."""
    new = State(
        gallery=_identity(gallery),
        fingerprint=gallery.fingerprint,
        precision=gallery.precision,
        generation=gallery.catalog.generation(),
        loaded=0,
        index=INDEXES[0],
    )
    done = _Done(table.prepare(new, index=wish.index, replace=wish.replace))
    return done, _bring_up_to_date(gallery, table, done, wish)


def _identity(gallery: GalleryFolder) -> str:
    try:
        return gallery.catalog.identity()
    except GalleryReadOnly as error:
        raise GalleryReadOnly(
            f"{gallery.folder} was made by an earlier version, and lacks the identity by which a "
            "database knows it; it cannot be written to, so export it once where it can"
        ) from error


@dataclass
class _Done:
    """What the table holds, and the numbers of rows that were written and removed."""

    state: State
    written: int = 0
    removed: int = 0


def _bring_up_to_date(gallery: GalleryFolder, table: Table, done: _Done, wish: Wish) -> bool:
    """Take steps until nothing is left; returns False if it was stopped."""
    total = None if done.state.loaded is None else gallery.catalog.count()
    with progress_report("exporting", total) as report:
        while not wish.stop():
            step = _next(gallery, done.state)
            table.require_model(done.state, step.fingerprint)
            if step.after == done.state:
                return True
            _take(table, step, done)
            report.advance(len(step.rows))
    return False


@dataclass(frozen=True, slots=True)
class _Step:
    """A part of an export.

    rows: what the table is to hold of some images, which are those of the rows that `held` reads,
    and of these rows. after: the state of the table then.
    """

    fingerprint: str
    rows: list[Row]
    held: Callable[[Table], list[Row]]
    after: State


def _next(gallery: GalleryFolder, state: State) -> _Step:
    """The next step; its state is the same if nothing is left to do."""
    if state.loaded is None:
        chunk = changes_after(gallery, state.generation, CHUNK_ROWS)
        step = _step_of_changes(chunk, state)
        is_known = chunk.until > state.generation or chunk.generation == state.generation
    else:
        chunk = rows_after(gallery, state.loaded, CHUNK_ROWS)
        step = _step_of_ids(chunk, state, state.loaded)
        is_known = True
    # A gallery of an earlier generation is a copy that was put back.
    if is_known and chunk.followed_since <= state.generation <= chunk.generation:
        return step
    start = replace(state, generation=chunk.generation, loaded=0)
    return _Step(chunk.fingerprint, [], lambda table: [], start)


def _step_of_changes(chunk: Chunk, state: State) -> _Step:
    ids = [*(row.id for row in chunk.rows), *chunk.removed]
    after = replace(state, generation=chunk.until)
    return _Step(chunk.fingerprint, chunk.rows, lambda table: table.rows_of(ids), after)


def _step_of_ids(chunk: Chunk, state: State, loaded: int) -> _Step:
    last = chunk.rows[-1].id if len(chunk.rows) == CHUNK_ROWS else None
    return _Step(
        chunk.fingerprint,
        chunk.rows,
        lambda table: table.rows_between(loaded, last),
        replace(state, loaded=last),
    )


def _take(table: Table, step: _Step, done: _Done) -> None:
    """Change what differs in the table, and its state, in one transaction."""
    wanted = {row.id: _storable(row) for row in step.rows}
    with table.transaction():
        held = {row.id: row for row in step.held(table)}
        outdated = [number for number, row in held.items() if wanted.get(number) != row]
        missing = [row for number, row in wanted.items() if held.get(number) != row]
        if outdated:
            table.delete(outdated)
        if missing:
            table.copy(missing)
        table.change_state(step.after)
    done.state = step.after
    done.written += len(missing)
    done.removed += sum(number not in wanted for number in outdated)


def _storable(row: Row) -> Row:
    if row.label is None or "\0" not in row.label:
        return row
    return row._replace(label=row.label.replace("\0", _NO_CHARACTER))
