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
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from io import BufferedReader
from pathlib import Path
from typing import IO, Any, BinaryIO, cast

from hashsearch.errors import InvalidSource

_MOST_HEADER_BYTES = 2**20  # of one member, long names and all
_MOST_BYTES = 2**40  # of a member; file systems seek no further than some 2**44
_LAST_SECOND = 9e9  # in the year 2255; as nanoseconds, what 64 bits hold
_MOST_ZEROS = 2**17  # blocks, 64 MB; a tape's records are filled up with fewer
_READ_BYTES = 2**16
_SKIPPED_BYTES = 2**22  # at a time; unpacking them from bz2 takes 0.1 s
_OPENERS: dict[bytes, Any] = {  # by the first bytes of a file
    b"\x1f\x8b": gzip.open,
    b"BZh": bz2.open,
    b"\xfd7zXZ": lzma.open,
    b"\x5d\x00\x00\x80": lzma.open,
}


_END = bytes(tarfile.BLOCKSIZE)  # what ends an archive, where the next header would be


class Stopped(Exception):
    """Reading was stopped, as the function `stop` asked."""


class TarReader:
    """The members of a tar archive, from the first to the last, once.

    Archives that follow one another in the file, as `cat a.tar b.tar` writes them,
    are read as one.
    """

    def __init__(self, packed: BinaryIO, unpacked: BufferedReader, stop: Callable[[], bool]):
        self._packed = packed
        self._file = _LimitedFile(unpacked, stop)
        self._archive: Any = tarfile.TarFile(fileobj=cast(Any, self._file))

    def members(self) -> Iterator[tarfile.TarInfo]:
        """Yield each member; ReadError where its headers are damaged, too long or lead back.

        Raises Stopped where `stop` returned True.
        """
        zeros = 0  # blocks of them since the last member; they end an archive and fill it up
        while zeros < _MOST_ZEROS:
            member = self._next()
            if member is None and self._file.last_read == _END:
                zeros += 1
                self._archive.offset += tarfile.BLOCKSIZE  # look for another archive behind it
                self._archive.pax_headers.clear()  # are those for all members of one archive
                continue
            if member is None and zeros and not any(self._file.last_read):
                return  # the file's end
            if member is None:
                what = "the bytes after its end are no header" if zeros else "a header is damaged"
                raise tarfile.ReadError(f"{what}, cut short or missing")
            zeros = 0
            # Two attributes that tarfile's documentation lacks. It keeps every member, 0.5 KB
            # each; and where a member ends is not in the member if that has holes.
            self._archive.members.clear()
            begin, end = self._file.tell(), self._archive.offset
            if member.size < 0 or not begin <= end <= begin + _MOST_BYTES:
                raise tarfile.ReadError(f"a member claims {member.size:,} bytes")
            if sum(map(len, self._archive.pax_headers.values())) > _MOST_HEADER_BYTES:
                raise tarfile.ReadError("its headers for all members are too long")
            yield member

    def open(self, member: tarfile.TarInfo) -> IO[bytes]:
        """A regular file of the archive, to be read before the next member is asked for."""
        stream: IO[bytes] | None = self._archive.extractfile(member)
        assert stream is not None, "a regular file has a stream"
        return stream

    def packed_bytes(self) -> int:
        """How many bytes of the archive's file were read so far."""
        return self._packed.tell()

    def _next(self) -> tarfile.TarInfo | None:
        self._file.left = _MOST_HEADER_BYTES
        member: tarfile.TarInfo | None = self._archive.next()
        self._file.left = math.inf
        return member


class _LimitedFile:
    """The file that tarfile reads from.

    left: how many bytes may still be read; above that, ReadError. last_read: what
    the last call of `read` returned.
    """

    def __init__(self, file: BufferedReader, stop: Callable[[], bool]):
        self.left: float = _MOST_HEADER_BYTES
        self.last_read = b""
        self.tell, self._seek, self._read = file.tell, file.seek, file.read
        self._stop = stop

    def seek(self, place: int) -> int:
        """A compressed file is unpacked up to the place. Raises Stopped."""
        for nearer in range(self.tell(), place, _SKIPPED_BYTES):
            if self._stop():
                raise Stopped
            self._seek(nearer)
        return self._seek(place)

    def read(self, size: int) -> bytes:
        self.left -= size
        if size < 0 or self.left < 0:
            raise tarfile.ReadError("a header is too long, or has a negative length")
        self.last_read = self._read(size)
        return self.last_read


@contextmanager
def read_tar(path: Path) -> Iterator[TarReader]:
    """Open a tar archive. Damage found while it is open raises InvalidSource."""
    with path.open("rb") as file, tar_in(file, path) as archive:
        yield archive


@contextmanager
def tar_in(
    file: BufferedReader, path: Path, stop: Callable[[], bool] = lambda: False
) -> Iterator[TarReader]:
    """Read the tar archive in an open file, which is closed afterwards.

    path: for messages. stop: asked between parts of at most 4 MB; Stopped is raised if it
    returns True. Damage found meanwhile raises InvalidSource.
    """
    try:
        with _unpacked(file) as unpacked:
            yield TarReader(file, unpacked, stop)
    except (InvalidSource, Stopped):
        raise
    except Exception as error:  # a header from outside can raise anything
        if isinstance(error, OSError) and error.errno is not None:
            raise  # an error of the disk, not of the archive
        reason = str(error) or type(error).__name__
        raise InvalidSource(f"{path} is no tar archive, or a damaged one: {reason}") from error


def is_tar(path: Path) -> bool:
    """Whether a file begins as a tar archive does."""
    try:
        with read_tar(path) as archive:
            next(archive.members(), None)
            return True
    except InvalidSource:
        return False


def mtime_ns(member: tarfile.TarInfo) -> int:
    """A member's time of change in nanoseconds; 0 if its header holds no valid time."""
    seconds = float(member.mtime)
    return int(seconds * 1e9) if abs(seconds) < _LAST_SECOND else 0


def _unpacked(file: BufferedReader) -> BufferedReader:
    start = file.peek(8)
    for magic, opener in _OPENERS.items():
        if start.startswith(magic):
            return BufferedReader(opener(file), _READ_BYTES)
    return file
