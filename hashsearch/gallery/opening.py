"""Opening a catalog's file, also on a disk or in a folder that cannot be written to.

SQLite cannot open a catalog there by itself, since it would make files beside it (WAL).
"""

import os
import shutil
import sqlite3
import time
from collections.abc import Callable
from contextlib import closing, suppress
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from hashsearch.errors import InvalidGallery
from hashsearch.gallery.schema import bring_up_to_date, is_current

_BUSY_TIMEOUT_S = 30  # how long a writer waits for another's transaction
_COPY_TRIES = 5
_RETRY_AFTER_S = 0.2


@dataclass(frozen=True, slots=True)
class Opened:
    """A catalog's file that can be connected to.

    path: the file as it was named. connect: makes a connection that reads. connect_to_write: makes
    one for changes; None if they are not possible. stamp: if the connections do not see later
    changes by other programs, the state of the files when they were opened. copy: the temporary
    folder of a copy.
    """

    path: Path
    connect: Callable[[], sqlite3.Connection]
    connect_to_write: Callable[[], sqlite3.Connection] | None = None
    stamp: tuple[int, ...] | None = None
    copy: "TemporaryDirectory[str] | None" = None

    def is_outdated(self) -> bool:
        """Whether another program changed the catalog, which these connections do not show."""
        return self.stamp is not None and self.stamp != _stamp(self.path)

    def is_torn(self) -> bool:
        """Whether another program may have changed the file under the hands of a reader."""
        return self.copy is None and self.is_outdated()

    def close(self) -> None:
        """Delete the copy if there is one; call it after closing the connections."""
        if self.copy is not None:
            self.copy.cleanup()


class WatchedFile:
    """An open catalog's file, compared with what is at its path now.

    While the file is open, no other file can get its inode number.
    """

    def __init__(self, path: Path):
        self._path = path.absolute()
        self._identity = self._now()  # None for a file that is gone already

    def is_in_place(self) -> bool:
        """Whether the path leads to the same file. Takes one call of the system."""
        return self._identity is not None and self._identity == self._now()

    def _now(self) -> tuple[int, int] | None:
        try:
            status = self._path.stat()
        except OSError:
            return None
        return status.st_dev, status.st_ino


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

    Connections that read never write to the file, also when they are closed, so that they cannot
    damage one that has replaced it. Where it cannot be written to, it is read in place. A
    temporary copy is read instead if it is of an earlier format, or if it has a write-ahead log
    without the index that only a writer can make. Raises InvalidGallery, sqlite3.DatabaseError
    and OSError.
    """
    path = path.absolute()  # the working folder may change later
    if _can_write(path) and _can_write(path.parent):
        with closing(connect(path)) as db:
            bring_up_to_date(db, str(path))
        # Neither mode makes a file where a gallery was deleted.
        return Opened(path, lambda: connect(path, "mode=ro"), lambda: connect(path, "mode=rw"))
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
    copy = Path(folder.name) / path.name
    try:
        stamp = _copy_files(path, copy)
        with closing(connect(copy)) as db:
            bring_up_to_date(db, str(path))
    except (OSError, sqlite3.OperationalError) as error:
        folder.cleanup()
        raise InvalidGallery(
            f"{path} can be read only from a copy, which cannot be made in {folder.name}: "
            f"{getattr(error, 'strerror', None) or error}; "
            "the environment variable TMPDIR names another place for it"
        ) from error
    except BaseException:
        folder.cleanup()
        raise
    return Opened(path, lambda: connect(copy), stamp=stamp, copy=folder)


def _copy_files(path: Path, copy: Path) -> tuple[int, ...]:
    """Copy a catalog and its log while nobody writes to them; returns their stamp.

    Raises InvalidGallery if somebody writes to them all the time.
    """
    for _ in range(_COPY_TRIES):
        stamp = _stamp(path)
        for end in ("", "-wal"):
            _beside(copy, end).unlink(missing_ok=True)
            with suppress(FileNotFoundError):  # there may be no log
                shutil.copyfile(_beside(path, end), _beside(copy, end))
        if stamp == _stamp(path):
            return stamp
        time.sleep(_RETRY_AFTER_S)
    raise InvalidGallery(f"{path} is being written to all the time; try again later")


def _can_write(path: Path) -> bool:
    return os.access(path, os.W_OK, effective_ids=os.access in os.supports_effective_ids)


def _beside(path: Path, end: str) -> Path:
    return path.with_name(path.name + end)


def _stamp(path: Path) -> tuple[int, ...]:
    """Sizes and times of a catalog's file and its log."""
    stamp = []
    for file in (path, _beside(path, "-wal")):
        with suppress(FileNotFoundError):
            status = file.stat()
            stamp += [status.st_size, status.st_mtime_ns]
    return tuple(stamp)


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0
