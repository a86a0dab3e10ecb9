"""A catalog's file: its connections, transactions, and states that readers see."""

import sqlite3
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from queue import Empty, LifoQueue
from typing import Any

from hashsearch.errors import GalleryReadOnly, InvalidGallery
from hashsearch.gallery.opening import WatchedFile, open_catalog

# May be read at a time: more than the service's threads for pictures and quick work together, so
# that none waits for another's. Opening them takes 5 ms.
_SNAPSHOTS = 48
_WAIT_S = 1.0  # for a snapshot's connection, before it is seen whether the catalog was closed


class CatalogFile:
    """An open SQLite file. Safe to share between threads.

    Each read by itself is one transaction; within `snapshot`, all reads of a thread are one.
    """

    def __init__(self, path: Path):
        self._path = path
        self._file, self._is_closed, self._has_written = WatchedFile(path), False, False
        self._lock, self._write_lock = threading.RLock(), threading.RLock()
        self._of_thread, self._idle = threading.local(), LifoQueue[sqlite3.Connection]()
        self._idle_lock = threading.Lock()
        self._open()

    def _open(self) -> None:
        try:
            self._opened = open_catalog(self._path)
            self._db = self._opened.connect()
            self._db.execute("PRAGMA user_version")  # opens the file
            if self._opened.stamp is None:
                self._open_for_snapshots()
        except (sqlite3.DatabaseError, OSError) as error:
            raise InvalidGallery(f"{self._path} cannot be read: {error}") from error

    def _open_for_snapshots(self) -> None:
        """Open the connections of snapshots.

        They are opened with the catalog, since a connection that is opened while the gallery is
        being deleted makes an empty log there, and the folder cannot be deleted then.
        """
        for _ in range(_SNAPSHOTS):
            db = self._opened.connect()
            db.execute("SELECT value FROM settings LIMIT 1").fetchall()  # opens the log too
            self._idle.put(db)

    def close(self) -> None:
        with self._write_lock, self._lock:  # in this order, as a transaction may read
            has_log = self._has_written and self.is_in_place()
            with self._idle_lock:
                self._is_closed = True
                while not self._idle.empty():
                    self._idle.get_nowait().close()
            self._close()
            if has_log:
                self._empty_log()

    def _close(self) -> None:
        self._db.close()
        self._opened.close()

    def _empty_log(self) -> None:
        """Move what is in the write-ahead log to the catalog, unless others have it open."""
        assert self._opened.connect_to_write is not None
        with suppress(sqlite3.Error), closing(self._opened.connect_to_write()) as db:
            db.execute("PRAGMA user_version")  # SQLite does it when the last connection is closed

    def is_in_place(self) -> bool:
        """Whether the catalog is open and its path still leads to it, and not to another gallery.

        What was read from several files of a gallery fits together if this is true afterwards.
        """
        return not self._is_closed and self._file.is_in_place()

    def require_in_place(self) -> None:
        """Raise InvalidGallery unless the catalog is in place."""
        if not self.is_in_place():
            raise InvalidGallery(f"{self._path.parent} was deleted or replaced while it was open")

    def require_writable(self) -> None:
        """Raise GalleryReadOnly if the catalog cannot be changed, InvalidGallery if it is gone."""
        self._connect_to_write()

    def _connect_to_write(self) -> Callable[[], sqlite3.Connection]:
        self.require_in_place()
        if self._opened.connect_to_write is None:
            raise GalleryReadOnly(
                f"{self._path.parent} cannot be written to, so it can be searched but not changed"
            )
        return self._opened.connect_to_write

    @contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        """Hold SQLite's write lock; commit at the end, or roll back on any error.

        Until the commit, the catalog's own methods return the former state.
        Raises GalleryReadOnly, and InvalidGallery if the gallery was deleted or replaced: a
        change that would be lost with it is an error.
        """
        connect_to_write = self._connect_to_write()
        self._has_written = True
        with self._write_lock, closing(connect_to_write()) as db:
            db.execute("BEGIN IMMEDIATE")
            try:
                self.require_in_place()
                yield db
                db.execute("COMMIT")
            except BaseException:
                if db.in_transaction:  # on a full disk, SQLite has ended it
                    db.execute("ROLLBACK")
                raise
            self.require_in_place()

    @contextmanager
    def snapshot(self) -> Iterator[None]:
        """Let all reads of this thread see one state, and wait for no other thread's reads.

        A catalog that cannot be written to is read as it is, since its state hardly ever changes.
        Raises InvalidGallery if the catalog is closed.
        """
        if self._opened.stamp is not None or self._snapshot_db() is not None:
            yield
            return
        db = self._idle_connection()
        try:
            db.execute("BEGIN")  # the state is that of the first read
            self._of_thread.db = db
            yield
        finally:
            self._of_thread.db = None
            with suppress(sqlite3.Error):
                db.execute("COMMIT")
            with self._idle_lock:
                if self._is_closed:
                    db.close()
                else:
                    self._idle.put(db)

    def _idle_connection(self) -> sqlite3.Connection:
        while not self._is_closed:
            with suppress(Empty):
                return self._idle.get(timeout=_WAIT_S)
        raise InvalidGallery(f"{self._path.parent} is closed")

    def _snapshot_db(self) -> sqlite3.Connection | None:
        db: sqlite3.Connection | None = getattr(self._of_thread, "db", None)
        return db

    def _rows(self, query: str, parameters: Sequence[Any] = ()) -> list[Any]:
        if (db := self._snapshot_db()) is not None:
            return db.execute(query, parameters).fetchall()
        with self._lock:
            while True:
                self._renew()
                try:
                    found = self._db.execute(query, parameters).fetchall()
                except sqlite3.DatabaseError:
                    if not self._opened.is_torn():
                        raise
                else:
                    if not self._opened.is_torn():
                        return found

    def _renew(self) -> None:
        """Open the catalog again if it was changed by another program, unseen by this one."""
        if self._opened.is_outdated():
            self.require_in_place()
            self._close()
            self._open()


def parts(values: Sequence[Any], size: int = 500) -> Iterator[Sequence[Any]]:
    """Cut values into parts within SQLite's limit of bound parameters (999 in old builds)."""
    for start in range(0, len(values), size):
        yield values[start : start + size]


def marks(values: Sequence[Any]) -> str:
    return ", ".join("?" * len(values))
