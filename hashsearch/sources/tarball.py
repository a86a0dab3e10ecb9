"""Tar archives from anywhere, plain or compressed, read forward without trusting their headers.

Python's tarfile takes a damaged header for the archive's end, reads headers of
any size into memory, and as a stream knows only the first part of a compressed
file that was written in several.
"""

import bz2
import gzip
import lzma
import math
import tarfile
from collections.abc import Iterator
from contextlib import contextmanager
from io import BufferedReader
from pathlib import Path
from typing import IO, Any, BinaryIO, cast

from hashsearch.errors import InvalidSource

_MOST_HEADER_BYTES = 2**20  # of one member, long names and all
_MOST_BYTES = 2**40  # of a member; file systems seek no further than some 2**44
_LAST_SECOND = 9e9  # in the year 2255; as nanoseconds, what 64 bits hold
_READ_BYTES = 2**16
_OPENERS: dict[bytes, Any] = {  # by the first bytes of a file
    b"\x1f\x8b": gzip.open,
    b"BZh": bz2.open,
    b"\xfd7zXZ": lzma.open,
    b"\x5d\x00\x00\x80": lzma.open,
}


@contextmanager
def read_tar(path: Path) -> Iterator[tuple[tarfile.TarFile, BinaryIO]]:
    """Open a tar archive, and the file that it is read from.

    Damage met anywhere raises InvalidSource.
    """
    try:
        with (
            path.open("rb") as file,
            _unpacked(file) as unpacked,
            _Tar(path, fileobj=cast(Any, _Forward(unpacked)), tarinfo=_Header) as archive,
        ):
            yield archive, file
    except InvalidSource:
        raise
    except Exception as error:  # a header from outside can raise anything
        if isinstance(error, OSError) and error.errno is not None:
            raise  # the disk's trouble, not the archive's
        reason = str(error) or type(error).__name__
        raise InvalidSource(f"{path} is no tar archive, or a damaged one: {reason}") from error


def is_tar(path: Path) -> bool:
    """Whether a file begins as a tar archive does."""
    try:
        with read_tar(path):
            return True
    except InvalidSource:
        return False


def members(archive: tarfile.TarFile) -> Iterator[tarfile.TarInfo]:
    """The members of an archive, none of them remembered."""
    while (member := archive.next()) is not None:
        archive.members.clear()  # type: ignore[attr-defined]  # tarfile keeps 0.5 KB for each
        yield member


def mtime_ns(member: tarfile.TarInfo) -> int:
    """A member's time of change in nanoseconds; 0 if its header has none that is a time."""
    seconds = float(member.mtime)
    return int(seconds * 1e9) if abs(seconds) < _LAST_SECOND else 0


def stream_of(archive: tarfile.TarFile, member: tarfile.TarInfo) -> IO[bytes]:
    """A regular file of an archive, to be read before the next member is asked for."""
    stream = archive.extractfile(member)
    assert stream is not None, "a regular file has a stream"
    return stream


def _unpacked(file: BufferedReader) -> BufferedReader:
    start = file.peek(8)
    for magic, opener in _OPENERS.items():
        if start.startswith(magic):
            return BufferedReader(opener(file), _READ_BYTES)
    return file


class _Forward:
    """A file to read from, of which headers get no more than they may have."""

    def __init__(self, file: BufferedReader):
        self.left: float = math.inf
        self.tell, self.seek, self._read = file.tell, file.seek, file.read

    def read(self, size: int) -> bytes:
        self.left -= size
        if size < 0 or self.left < 0:
            raise tarfile.ReadError("a header is too long, or shorter than nothing")
        return self._read(size)


class _Header(tarfile.TarInfo):
    """A header that is damaged, cut short or missing is an error; only zeros end an archive."""

    @classmethod
    def fromtarfile(cls, tarfile_: tarfile.TarFile) -> "_Header":
        try:
            return super().fromtarfile(tarfile_)
        except tarfile.EOFHeaderError:  # type: ignore[attr-defined]
            raise
        except tarfile.HeaderError as error:
            raise tarfile.ReadError(str(error)) from error


class _Tar(tarfile.TarFile):
    fileobj: _Forward  # type: ignore[assignment]
    offset: int  # where the next header begins
    pax_headers: dict[str, str]  # those for all that follows

    def next(self) -> tarfile.TarInfo | None:
        """The next member; ReadError where its headers take too much or lead back."""
        self.fileobj.left = _MOST_HEADER_BYTES
        member = super().next()
        self.fileobj.left = math.inf
        if member is None:
            return None
        begin = self.fileobj.tell()
        if member.size < 0 or not begin <= self.offset <= begin + _MOST_BYTES:
            raise tarfile.ReadError(f"a member claims {member.size:,} bytes")
        if sum(map(len, self.pax_headers.values())) > _MOST_HEADER_BYTES:
            raise tarfile.ReadError("its headers for all members are too long")
        return member
