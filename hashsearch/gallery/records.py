"""What a catalog holds: images, places, files, failures, rows, and their changes."""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class NewImage:
    """An image to be inserted; its position in a list is its row in the shard.

    label_given: as of SourceImage.
    """

    key: bytes
    uri: str
    label: str | None
    width: int
    height: int
    size: int
    mtime: int
    label_given: bool = False


@dataclass(frozen=True, slots=True)
class FoundPlace:
    """A further place where an image's content was found.

    key: the image's. label_given: as of SourceImage. is_moved: whether the image's first place has
    another content now, or none.
    """

    key: bytes
    uri: str
    label: str | None
    size: int
    mtime: int
    label_given: bool = False
    is_moved: bool = False


@dataclass(frozen=True, slots=True)
class Place:
    """A place where an image's content was found.

    uri, path: as in ImageRecord. label: of the image while this is its first place.
    """

    uri: str
    path: str
    label: str | None


@dataclass(frozen=True, slots=True)
class KnownFile:
    """A file as the catalog recorded it.

    size: bytes; mtime: nanoseconds; key: SHA-256; label_given: whether a person gave the label to
    the image at this place; first: uri of its image's first place.
    """

    size: int
    mtime: int
    key: bytes
    label: str | None
    label_given: bool
    first: str


@dataclass(frozen=True, slots=True)
class Failure:
    """An image that could not be read, and why.

    path: as of ImageRecord; empty until the catalog gives it.
    """

    uri: str
    reason: str
    size: int
    mtime: int
    path: str = ""


@dataclass(frozen=True, slots=True)
class ImageRecord:
    """An image of a gallery.

    uri: the name of its source and the path within it, percent-encoded. path: the path of its
    file, not encoded. An image that was added as bytes has `+/` and their SHA-256 as its uri, and
    `<bytes with SHA-256 …>` as its path. label: None if it has none. width, height: of the
    original, in pixels. shard, row: the shard that holds its data, and the row within it.
    missing: whether no file of it exists any more.

    >>> gallery.get(1).id
    1
    """

    id: int
    uri: str
    path: str
    label: str | None
    width: int
    height: int
    shard: int
    row: int
    missing: bool = False


class StoredImage(NamedTuple):
    """An image as the catalog stores it: uri and label of its first place, and its row.

    key: SHA-256 of the content, 32 bytes. removed: 1 or 0.
    """

    id: int
    uri: str
    label: str | None
    key: bytes
    shard: int
    row: int
    removed: int


@dataclass(frozen=True, slots=True)
class Rows:
    """Rows of a gallery's images at one generation, ordered by id.

    ids, shards, rows: (n,) int64; image ids[i] is row rows[i] of shard shards[i].
    files: by shard number, its number of rows and the SHA-256 of its files by
    name. fingerprint: of the model that made the codes.
    """

    generation: int
    fingerprint: str
    files: dict[int, tuple[int, dict[str, str]]]
    ids: NDArray[np.int64]
    shards: NDArray[np.int64]
    rows: NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class RowChanges:
    """Changes of a gallery's images between two generations, of which `rows` has the later one.

    rows: of the images that were added, restored or changed; most changes, such as of a label, do
    not concern what is searched. removed: (n,) int64, ascending, ids of images that were removed.
    """

    rows: Rows
    removed: NDArray[np.int64]
