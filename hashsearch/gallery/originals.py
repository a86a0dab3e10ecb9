"""The file that an image of a gallery came from, opened so that it can be handed out."""

import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from hashlib import sha256
from io import SEEK_CUR, SEEK_END, SEEK_SET, BufferedReader, BytesIO, RawIOBase
from pathlib import Path, PurePosixPath
from re import split
from typing import Any, BinaryIO

from hashsearch.errors import (
    InvalidImage,
    InvalidSource,
    MissingPackage,
    NotInGallery,
    OriginalMissing,
)
from hashsearch.extras import HEIC_SUFFIXES
from hashsearch.gallery.gallery_folder import GalleryFolder
from hashsearch.imagefiles import MediaType, media_type_of
from hashsearch.images import ACCEPTED_SUFFIXES, MAX_FILE_BYTES
from hashsearch.sources.base import added_path, decode_path, split_uri
from hashsearch.sources.beneath import open_beneath
from hashsearch.sources.within import read_within

_BLOCK_BYTES = 2**18
_START_BYTES = 4096  # of a file, by which its format is known
_MOST_NAME = 200  # characters; a member of a tar archive may have a name of a megabyte

_GONE = "the file of this image is gone"
_CHANGED = "the file of this image has changed since it was indexed"


@dataclass(frozen=True, slots=True)
class Original:
    """The original file of an image, to be closed after use; also a context manager.

    file: at its beginning, and seekable. Reading it gives the bytes whose SHA-256 is the image's
    key; it raises OriginalMissing if another program has changed the file meanwhile. size: in
    bytes. media_type: by its first bytes. name: the file's own, without folders, with the suffix
    of an image file; of printable characters alone, at most 200, without `/` and `\\`.
    """

    file: BinaryIO
    size: int
    media_type: MediaType
    name: str

    def close(self) -> None:
        self.file.close()

    def __enter__(self) -> "Original":
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()


def open_original(
    gallery: GalleryFolder, image_id: int, stop: Callable[[], bool] = lambda: False
) -> Original:
    """Open the original file of an image: a file, a member of an archive, or a row of Parquet.

    The image's places are tried in order; the first that still has the image's bytes, by their
    SHA-256, is taken. The catalog's uris are not trusted: only regular files beneath the folder of
    their source are opened, and only image files of at most MAX_FILE_BYTES are returned. Links are
    followed within that folder only, also in a gallery that was indexed with --follow-links.

    A file of its own is hashed and read by one descriptor. A member or row is read into memory; a
    tar archive is read from its beginning, which takes long if it is large and compressed, and a
    Parquet file from the beginning of a row group. stop: asked meanwhile, between parts of some
    megabytes; if it returns True, OriginalMissing is raised.

    Raises NotInGallery; and OriginalMissing if no place has these bytes any more, or if the image
    never had a file: it was added as bytes, or it is a row of an array. The message names no path;
    of several places, it gives the reason of the first.
    """
    key = gallery.catalog.key(image_id)
    roots = gallery.catalog.sources()
    reasons = []
    for place in gallery.catalog.places([image_id]).get(image_id, ()):
        try:
            return _original_at(place.uri, roots, key, stop)
        except OriginalMissing as error:
            reasons.append(error)
    if not reasons:  # another program has just removed the image
        raise NotInGallery("the gallery holds no image with this id")
    raise reasons[0]


def is_within_file(gallery: GalleryFolder, image_id: int) -> bool:
    """Whether a place of an image is in an archive or a Parquet file, so that it takes memory."""
    places = gallery.catalog.places([image_id]).get(image_id, ())
    return any("!" in place.uri or "#" in place.uri for place in places)


def _original_at(
    uri: str, roots: Mapping[str, Path], key: bytes, stop: Callable[[], bool]
) -> Original:
    """Open the image file at a uri. Raises OriginalMissing unless its bytes have this key."""
    source, place = split_uri(uri)
    if source not in roots:
        added = added_path(uri) is not None
        raise OriginalMissing("this image was added as bytes, without a file" if added else _GONE)
    root, within = roots[source], split("[!#]", place, maxsplit=1)[0]
    inside = place.removeprefix(within)
    folder, path = (root, decode_path(within[1:])) if within else (root.parent, root.name)
    with _reported(), ExitStack() as opened:
        file = opened.enter_context(open_beneath(folder, path))
        if inside:
            data = _read_within(file, Path(path), inside, stop)
            content: BinaryIO = BytesIO(data)
            found = sha256(data).digest()
        else:
            size = os.fstat(file.fileno()).st_size
            if size > MAX_FILE_BYTES:
                raise OriginalMissing(
                    f"the file of this image has {size:,} bytes; "
                    f"at most {MAX_FILE_BYTES:,} are read"
                )
            unchanged = _Unchanged(file, size)
            content = opened.enter_context(BufferedReader(unchanged))
            found = unchanged.key
        if found != key:
            raise OriginalMissing(_CHANGED)
        media_type = media_type_of(content.read(_START_BYTES))
        if media_type is None:
            raise OriginalMissing("the file of this image does not begin as an image file does")
        size = content.seek(0, SEEK_END)
        content.seek(0)
        if not inside:
            opened.pop_all()  # closing the content closes the file
        return Original(content, size, media_type, _name(path, inside, media_type))


def _read_within(file: BufferedReader, path: Path, inside: str, stop: Callable[[], bool]) -> bytes:
    """Read a member of an archive, or a row of Parquet. Raises OriginalMissing, and OSError."""
    try:
        content = read_within(file, path, inside, stop)
    except MissingPackage as error:
        raise OriginalMissing(str(error)) from error
    except InvalidSource as error:  # its message names the path
        raise OriginalMissing("the archive of this image is damaged, or another file") from error
    if isinstance(content, InvalidImage):
        raise OriginalMissing(f"this image cannot be given as a file: {content}") from content
    if content is None and stop():
        raise OriginalMissing("this image lies too far back in its archive to be read in time")
    if content is None:
        raise OriginalMissing("this image is no longer in its archive")
    return content


@contextmanager
def _reported() -> Iterator[None]:
    """Raise OriginalMissing, without the path, for what the file system raises."""
    try:
        yield
    except (FileNotFoundError, NotADirectoryError, ValueError) as error:  # a zero byte
        raise OriginalMissing(_GONE) from error
    except OSError as error:
        raise OriginalMissing(
            f"the file of this image cannot be read: {error.strerror or 'it is damaged'}"
        ) from error


class _Unchanged(RawIOBase):
    """A file that gives the bytes that were hashed when it was opened, or OriginalMissing.

    The SHA-256 of each block is kept, and compared when the block is read: a program may write
    into a file that is open. key: SHA-256 of all.
    """

    def __init__(self, file: BinaryIO, size: int):
        self._file, self._size = file, size
        self._at = 0
        self._number, self._block = -1, b""  # of the block that was read last
        self._digests: list[bytes] = []
        whole = sha256()
        for number in range(-(-size // _BLOCK_BYTES)):
            block = self._read_block(number)
            whole.update(block)
            self._digests.append(sha256(block).digest())
        self.key = whole.digest()

    def _read_block(self, number: int) -> bytes:
        start = number * _BLOCK_BYTES
        self._file.seek(start)
        return self._file.read(min(_BLOCK_BYTES, self._size - start))

    def readinto(self, buffer: Any) -> int:
        if self._at >= self._size:
            return 0
        number, skipped = divmod(self._at, _BLOCK_BYTES)
        if number != self._number:
            block = self._read_block(number)
            if sha256(block).digest() != self._digests[number]:
                raise OriginalMissing(_CHANGED)
            self._number, self._block = number, block
        part = self._block[skipped : skipped + len(buffer)]
        buffer[: len(part)] = part
        self._at += len(part)
        if skipped + len(part) == len(self._block):  # it is not kept while the client is awaited
            self._number, self._block = -1, b""
        return len(part)

    def seek(self, offset: int, whence: int = SEEK_SET) -> int:
        at = offset + {SEEK_SET: 0, SEEK_CUR: self._at, SEEK_END: self._size}[whence]
        if at < 0:
            raise ValueError(f"a file has no position {at}")
        self._at = at
        return at

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def close(self) -> None:
        self._file.close()
        super().close()


def _name(path: str, inside: str, media_type: MediaType) -> str:
    """A name for a download. path: of the file; inside: where the image is in it, or empty."""
    file = PurePosixPath(path)
    name = PurePosixPath(decode_path(inside[1:])).name if inside else file.name
    if inside.startswith("#"):  # the name is the number of a row
        name = f"{file.stem}-{name}"
    suffix = PurePosixPath(name).suffix
    stem = name.removesuffix(suffix)
    if suffix.lower() not in ACCEPTED_SUFFIXES | HEIC_SUFFIXES:
        stem, suffix = name, "." + media_type.name.partition("/")[2]
    shown = "".join(one if one.isprintable() and one not in "/\\" else "_" for one in stem)
    return shown[: _MOST_NAME - len(suffix)] + suffix
