"""Opening a catalog's file, also on a disk or in a folder that cannot be written to.

SQLite cannot open a catalog there by itself, since it would make files beside it (WAL).
"""

import os
import shutil
import sqlite3
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from hashsearch.gallery.schema import bring_up_to_date, is_current

_BUSY_TIMEOUT_S = 30  # how long a writer waits for another's transaction
_COPY_TRIES = 5


@dataclass(frozen=True, slots=True)
class Opened:
    """A catalog's file that can be connected to.

    path: the file as it was named. connect: makes a connection. is_writable: whether changes are
    possible. stamp: if the connections do not see later changes by other programs, the state of
    the files when they were opened. copy: the temporary folder of a copy.
    """

    path: Path
    connect: Callable[[], sqlite3.Connection]
    is_writable: bool = False
    stamp: tuple[int, ...] | None = None
    copy: "TemporaryDirectory[str] | None" = None

    def is_outdated(self) -> bool:
        """Whether another program changed the catalog, which these connections do not show."""
        return self.stamp is not None and self.stamp != _stamp(self.path)

    def close(self) -> None:
        """Delete the copy if there is one; call it after closing the connections."""
        if self.copy is not None:
            self.copy.cleanup()


def connect(path: Path, options: str = "") -> sqlite3.Connection:
    """Connect to an SQLite file. options: parameters of its URI, such as "mode=ro"."""
    db = sqlite3.connect(
        f"{path.absolute().as_uri()}?{options}",
        uri=True,
        timeout=_BUSY_TIMEOUT_S,
        isolation_level=None,
        check_same_thread=False,
    )
    db.execute("PRAGMA synchronous = FULL")
    db.execute("PRAGMA foreign_keys = ON")
    return db


def open_catalog(path: Path) -> Opened:
    """Open a catalog in the best way that is possible, in the current format.

    Where it cannot be written to, it is read in place. A temporary copy is read instead if it is
    of an earlier format, or if it has a write-ahead log without the index that only a writer can
    make. Raises InvalidGallery and sqlite3.DatabaseError.
    """
    if _can_write(path) and _can_write(path.parent):
        with closing(connect(path)) as db:
            bring_up_to_date(db, str(path))
        return Opened(path, lambda: connect(path), is_writable=True)
    stamp = _stamp(path)
    log, index = _beside(path, "-wal"), _beside(path, "-shm")
    if not _size(log):  # nothing but the catalog itself, which nobody writes to now
        options, seen = "immutable=1", stamp
    elif index.exists():
        options, seen = "mode=ro", None
    else:
        return _copied(path)
    with closing(connect(path, options)) as db:
        if not is_current(db, str(path)):
            return _copied(path)
    return Opened(path, lambda: connect(path, options), stamp=seen)


def _copied(path: Path) -> Opened:
    """Open a temporary copy of a catalog and its log, in the current format."""
    folder = TemporaryDirectory(prefix="hashsearch-")
    try:
        copy = Path(folder.name) / path.name
        for _ in range(_COPY_TRIES):  # in case that a writer is at work
            stamp = _stamp(path)
            for end in ("", "-wal"):
                if _beside(path, end).exists():
                    shutil.copyfile(_beside(path, end), _beside(copy, end))
            if stamp == _stamp(path):
                break
        with closing(connect(copy)) as db:
            bring_up_to_date(db, str(path))
    except BaseException:
        folder.cleanup()
        raise
    return Opened(path, lambda: connect(copy), stamp=stamp, copy=folder)


def _can_write(path: Path) -> bool:
    return os.access(path, os.W_OK, effective_ids=os.access in os.supports_effective_ids)


def _beside(path: Path, end: str) -> Path:
    return path.with_name(path.name + end)


def _stamp(path: Path) -> tuple[int, ...]:
    """Sizes and times of a catalog's file and its log."""
    files = (path, _beside(path, "-wal"))
    return tuple(
        number
        for status in (file.stat() for file in files if file.exists())
        for number in (status.st_size, status.st_mtime_ns)
    )


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0
