"""A tar archive of image files, plain or compressed, read as a stream."""

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


class TarArchive:
    """Image files of a tar archive, in its order; a member's label is its folder's name.

    Nothing is ever extracted to disk, and links within the archive are left out.
    under: keep only the members whose path begins with this folder.
    """

    def __init__(self, root: Path, under: str = ""):
        self.root = root.resolve()
        self.under = under
        self.passed_over: Counter[str] = Counter()

    def __iter__(self) -> Iterator[SourceImage]:
        self.passed_over.clear()
        with read_tar(self.root) as archive:
            for member in archive:
                path = PurePosixPath(member.name)
                if not member.isfile() or not member.name.startswith(self.under):
                    continue
                if path.name.startswith("."):
                    continue
                if path.suffix.lower() not in ACCEPTED_SUFFIXES:
                    self.passed_over[path.suffix.lower()] += 1
                    continue
                yield SourceImage(
                    place="!/" + encode_path(member.name),
                    label=printable(path.parent.name) or None,
                    size=member.size,
                    mtime=int(member.mtime * 1e9),
                    content=_read_member(archive, member),
                )


@contextmanager
def read_tar(path: Path) -> Iterator[tarfile.TarFile]:
    """Open a tar archive as a stream; damage met anywhere raises InvalidSource."""
    try:
        with tarfile.open(path, "r|*") as archive:
            yield archive
    except (tarfile.TarError, EOFError, zlib.error, LZMAError, OSError) as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise  # the disk's trouble, not the archive's
        raise InvalidSource(f"{path} is no tar archive, or a damaged one: {error}") from error


def _read_member(archive: tarfile.TarFile, member: tarfile.TarInfo) -> bytes | ImageTooLarge:
    if member.size > MAX_FILE_BYTES:
        return ImageTooLarge(
            f"the file has {member.size:,} bytes; at most {MAX_FILE_BYTES:,} are read"
        )
    stream = archive.extractfile(member)
    assert stream is not None, "a regular file has a stream"
    return stream.read()
