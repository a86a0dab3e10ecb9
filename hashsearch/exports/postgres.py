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
from dataclasses import replace

from hashsearch.errors import GalleryReadOnly
from hashsearch.exports.database import Stopped, Url, connected, notices
from hashsearch.exports.rows import CHUNK_ROWS, Chunk, changes_after, rows_after
from hashsearch.exports.state import State, require_model
from hashsearch.exports.table import DEFAULT_TABLE, Table, parsed_name
from hashsearch.exports.targets import INDEXES, NO_INDEX, ExportOptions, ExportSummary
from hashsearch.exports.vector_index import make_index
from hashsearch.gallery.gallery_folder import GalleryFolder
from hashsearch.gallery.marks import known_marks, mark_of_now
from hashsearch.progress import ProgressReport, progress_report


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
        table, is_complete = Table(connection, name, options.stop), False
        with table.lock(), notices(connection) as remarks:
            export = _Export(gallery, table, options)
            try:
                export.bring_up_to_date()
                kind, images = export.state.index, table.count()
                if kind != NO_INDEX and images:
                    make_index(connection, table.quoted, kind, images, options.stop)
                is_complete = True
            except Stopped:
                images = table.count()
    return ExportSummary(
        to=url.shown,
        table=table.shown,
        images=images,
        written=export.written,
        removed=export.removed,
        generation=export.state.generation,
        fingerprint=export.state.fingerprint,
        seconds=time.monotonic() - started,
        stopped=not is_complete,
        remarks=tuple(remarks),
    )


class _Export:
    """An export at work.

    state: what the table holds. written, removed: numbers of rows.
    """

    def __init__(self, gallery: GalleryFolder, table: Table, options: ExportOptions):
        """Make the table or check it, and decide whether its rows have to be compared."""
        self._gallery, self._catalog, self._table = gallery, gallery.catalog, table
        self._stop = options.stop
        new = State(
            gallery=_identity(gallery),
            fingerprint=gallery.fingerprint,
            precision=gallery.precision,
            generation=self._catalog.generation(),
            loaded=0,
            index=INDEXES[0],
            mark=mark_of_now(self._catalog),
        )
        self.state = table.prepare(new, options.index)
        if self.state.mark not in known_marks(self._catalog):
            self.state = replace(new, index=self.state.index)
        self.written = self.removed = 0

    def bring_up_to_date(self) -> None:
        """Write what changed until the table has all changes up to now. Raises Stopped.

        What is changed meanwhile may be left to the next export, so that this one comes to an end.
        """
        goal = self._catalog.generation()
        total = None if self.state.loaded is None else self._catalog.count()
        with progress_report("exporting", total) as report:
            while self.state.loaded is not None or self.state.generation < goal:
                if self.state.loaded is not None:
                    self._load(report)
                    goal = self._catalog.generation()  # rows may be newer than the state says
                self._follow(report, goal)

    def _load(self, report: ProgressReport) -> None:
        """Go through the images by id; of these, the table is to hold the rows alone."""
        while (after := self.state.loaded) is not None:
            chunk = self._read(rows_after, after)
            if chunk.followed_since > self.state.generation:
                self._begin(chunk)
                continue
            last = chunk.rows[-1].id if len(chunk.rows) == CHUNK_ROWS else None
            state = replace(self.state, loaded=last, mark=mark_of_now(self._catalog))
            with self._table.transaction():
                written = self._table.put(chunk.rows)
                removed = self._table.delete_others(after, last)
                self._table.record(state)
            self._committed(state, written, removed)
            report.advance(len(chunk.rows))

    def _follow(self, report: ProgressReport, goal: int) -> None:
        """Write changes by their generations, up to a generation or as far as they are known."""
        while self.state.generation < goal:
            chunk = self._read(changes_after, self.state.generation)
            is_known = chunk.followed_since <= self.state.generation < chunk.until
            if not is_known:
                self._begin(chunk)
                return
            state = replace(self.state, generation=chunk.until, mark=mark_of_now(self._catalog))
            with self._table.transaction():
                written = self._table.put(chunk.rows)
                removed = self._table.delete(chunk.removed)
                self._table.record(state)
            self._committed(state, written, removed)
            report.advance(len(chunk.rows))

    def _begin(self, chunk: Chunk) -> None:
        """Begin with the first image, since what was changed is not known any more."""
        mark = mark_of_now(self._catalog)
        state = replace(self.state, generation=chunk.generation, loaded=0, mark=mark)
        with self._table.transaction():
            self._table.record(state)
        self._committed(state)

    def _read(self, read: Callable[[GalleryFolder, int, int], Chunk], after: int) -> Chunk:
        """Read a chunk of the gallery. Raises Stopped, and ArtifactMismatch for another model's."""
        if self._stop():
            raise Stopped
        chunk = read(self._gallery, after, CHUNK_ROWS)
        require_model(self._table.shown, self.state, chunk.fingerprint)
        return chunk

    def _committed(self, state: State, written: int = 0, removed: int = 0) -> None:
        self.state = state
        self.written += written
        self.removed += removed


def _identity(gallery: GalleryFolder) -> str:
    try:
        return gallery.catalog.identity()
    except GalleryReadOnly as error:
        raise GalleryReadOnly(
            f"{gallery.folder} was made by an earlier version, and lacks the identity by which a "
            "database knows it; it cannot be written to, so export it once where it can"
        ) from error
