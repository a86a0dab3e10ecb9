"""A tar archive of image files, plain or compressed, read as a stream."""

import os
import tarfile
import zlib
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from lzma import LZMAError
from pathlib import Path, PurePosixPath

from hashsearch.errors import ImageTooLarge, InvalidSource
from hashsearch.images import ACCEPTED_SUFFIXES, MAX_FILE_BYTES
from hashsearch.sources.base import SourceImage, encode_path
from hashsearch.sources.folder import printable

_MOST_COMPRESSION = 2**20  # bytes from one; bzip2 makes some 50,000 of it
_LAST_SECOND = 9e9  # in the year 2255; as nanoseconds, what 64 bits hold


class TarArchive:
    """Image files of a tar archive, in its order; a member's label is its folder's name.

    Nothing is ever extracted to disk, and links within the archive are left out.
    Of several members of one name the first counts: their names' hashes are kept
    while reading, some 60 bytes a member.
    under: keep only the members whose path begins with this folder.
    """

    def __init__(self, root: Path, under: str = ""):
        self.root = root.resolve()
        self.under = under
        self.passed_over: Counter[str] = Counter()

    def __iter__(self) -> Iterator[SourceImage]:
        self.passed_over.clear()
        seen: set[int] = set()
        with read_tar(self.root) as archive:
            for member in members(archive):
                path = PurePosixPath(member.name)
                if not member.isfile() or not member.name.startswith(self.under):
                    continue
                if path.name.startswith("."):
                    continue
                if path.suffix.lower() not in ACCEPTED_SUFFIXES:
                    self.passed_over[path.suffix.lower()] += 1
                    continue
                if hash(member.name) in seen:
                    continue
                seen.add(hash(member.name))
                yield SourceImage(
                    place="!/" + encode_path(member.name),
                    label=printable(path.parent.name) or None,
                    size=member.size,
                    mtime=mtime_ns(member),
                    content=_read_member(archive, member),
                )


@contextmanager
def read_tar(path: Path) -> Iterator[tarfile.TarFile]:
    """Open a tar archive as a stream; damage met anywhere raises InvalidSource."""
    try:
        with tarfile.open(path, "r|*") as archive:
            yield archive
    except (tarfile.TarError, EOFError, ValueError, zlib.error, LZMAError, OSError) as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise  # the disk's trouble, not the archive's
        raise InvalidSource(f"{path} is no tar archive, or a damaged one: {error}") from error


def members(archive: tarfile.TarFile) -> Iterator[tarfile.TarInfo]:
    """The members of a streamed archive, none of them remembered.

    Raises tarfile.ReadError at a size that no compression of the file could hold.
    """
    assert archive.name is not None
    most = (Path(os.fsdecode(archive.name)).stat().st_size + 1) * _MOST_COMPRESSION
    while (member := archive.next()) is not None:
        if member.size > most:
            raise tarfile.ReadError(f"a member claims {member.size:,} bytes")
        archive.members.clear()  # type: ignore[attr-defined]  # tarfile keeps 0.5 KB for each
        yield member


def mtime_ns(member: tarfile.TarInfo) -> int:
    """A member's time of change in nanoseconds; 0 if its header has none that is a time."""
    seconds = float(member.mtime)
    return int(seconds * 1e9) if abs(seconds) < _LAST_SECOND else 0


def _read_member(archive: tarfile.TarFile, member: tarfile.TarInfo) -> bytes | ImageTooLarge:
    if member.size > MAX_FILE_BYTES:
        return ImageTooLarge(
            f"the file has {member.size:,} bytes; at most {MAX_FILE_BYTES:,} are read"
        )
    stream = archive.extractfile(member)
    assert stream is not None, "a regular file has a stream"
    return stream.read()
