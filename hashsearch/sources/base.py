"""What every source of images yields, and how an image is named within it."""

import math
import os
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import Protocol
from urllib.parse import quote, unquote_to_bytes

import numpy as np
from numpy.typing import NDArray

from hashsearch.errors import InvalidImage
from hashsearch.extras import heic_hint

SPLITS = ("train", "test")

_LIMIT = 2**63  # SQLite stores integers from -2**63 to 2**63 - 1
_MOST_KINDS = 20
_MOST_SUFFIX = 9  # characters, the dot among them


@dataclass(frozen=True, slots=True)
class SourceImage:
    """One image of a source, not yet decoded.

    place: where it is within the source, percent-encoded: `/a/b.jpg` in a
    folder, `!/a/b.jpg` in an archive, either followed by `#<row>` in a file of
    many. The image's uri is the source's name followed by this.
    label: None if the source gives none. label_given: whether a person gave the label, also if
    it is None, to this image; it then stays whatever happens to the file.
    size, mtime: of the file, in bytes and nanoseconds, as signed 64-bit numbers,
    which are all that a catalog stores: a larger size becomes the largest, and a
    date after 2262 is wrapped, so that different dates remain different.
    content: the file to read, its bytes, its pixels as (height, width, 3)
    uint8 RGB, or the reason why it cannot be read.
    """

    place: str
    label: str | None
    size: int
    mtime: int
    content: Path | bytes | NDArray[np.uint8] | InvalidImage
    label_given: bool = False

    def __post_init__(self) -> None:
        if not (0 <= self.size < _LIMIT and -_LIMIT <= self.mtime < _LIMIT):
            object.__setattr__(self, "size", min(self.size, _LIMIT - 1))
            object.__setattr__(self, "mtime", (self.mtime + _LIMIT) % (2 * _LIMIT) - _LIMIT)


class Source(Protocol):
    """A folder, an archive or a file of images.

    Iterating yields the images in an order that repeats, so that the first of
    two equal images is the same one in every run.
    """

    root: Path
    """The source's absolute path."""
    passed_over: Counter[str]
    """How many files of other kinds were met so far, by suffix; see `pass_over`."""
    is_whole: bool
    """Whether it yields every image under its root, so that one it does not yield is gone."""
    is_folder: bool
    """Whether its root is a folder, and its places the paths of image files in it."""
    remarks: list[str]
    """What else was passed over, in sentences; complete when an iteration has ended."""

    def __iter__(self) -> Iterator[SourceImage]: ...

    def estimate(self) -> int | None:
        """About how many images it yields in all, as far as is known now; None if unknown.

        May walk through a folder at the first call. Another thread may iterate meanwhile.
        """
        ...


def pass_over(passed_over: Counter[str], suffix: str) -> None:
    """Count a file of another kind; numbers, long suffixes and many of them are "others"."""
    known = suffix in passed_over or len(passed_over) < _MOST_KINDS
    if not known or len(suffix) > _MOST_SUFFIX or suffix[1:].isdigit():
        suffix = "others"
    passed_over[suffix] += 1


def nothing_in(source: Source, what: str) -> str:
    """A sentence that says what a source holds instead of images, after an iteration."""
    kinds = ", ".join(f"{count} {suffix}" for suffix, count in source.passed_over.items())
    found = f"{source.root} holds no {what}" + (f" (but {kinds})" if kinds else "")
    return "; ".join(filter(None, [found, *source.remarks, heic_hint(source.passed_over)]))


def is_hidden(path: PurePath) -> bool:
    """Whether a path within a source, or a folder above it, has a hidden file's name."""
    return any(part.startswith(".") and part != ".." for part in path.parts)


def valid_text(text: str) -> str:
    """A label as text that UTF-8 can hold: halves of surrogate pairs become `?`."""
    return text.encode("utf-8", "replace").decode()


def label_of_number(number: int | float) -> str | None:
    """A class's number as text, `3` for 3.0; None if it is infinite or no number."""
    if isinstance(number, float):
        if not math.isfinite(number):
            return None
        number = int(number) if number.is_integer() else number
    return str(number)


def encode_path(path: str) -> str:
    """Percent-encode a relative path, bytes that are not UTF-8 included."""
    return quote(os.fsencode(path), safe="/")


def decode_path(encoded: str) -> str:
    """The inverse of `encode_path`, as a name that the file system takes."""
    return os.fsdecode(unquote_to_bytes(encoded))


def split_uri(uri: str) -> tuple[str, str]:
    """The name of a uri's source, and the place within it."""
    end = _END_OF_NAME.search(uri)
    at = len(uri) if end is None else end.start()
    return uri[:at], uri[at:]


_END_OF_NAME = re.compile("[/!#]")


_ADDED = "+"  # in uris, instead of a source's name, which has no plus sign
_ADDED_PATH = "<bytes with SHA-256 {}>"


def added_uri(key: str) -> str:
    """The uri of an image that was added as bytes. key: their SHA-256 in hexadecimal."""
    return f"{_ADDED}/{key}"


def added_path(uri: str) -> str | None:
    """What is shown as the path of an image that was added as bytes; None for other uris."""
    name, place = split_uri(uri)
    return _ADDED_PATH.format(place.removeprefix("/")) if name == _ADDED else None


def uri_of_added_path(path: str) -> str | None:
    """The inverse of `added_path`; None for other paths."""
    found = re.fullmatch(_ADDED_PATH.format("([0-9a-f]{64})"), path)
    return added_uri(found[1]) if found else None


def file_at(root: Path, place: str) -> Path:
    """The file that holds an image: its own, an archive, or a file of many images."""
    within = re.split("[!#]", place, maxsplit=1)[0]
    return root / decode_path(within.removeprefix("/")) if within else root


def is_gone(path: Path) -> bool:
    """Whether there is no such file or folder; False if that cannot be found out."""
    try:
        path.stat()
    except (FileNotFoundError, NotADirectoryError, ValueError):  # ValueError: a zero byte
        return True
    except OSError:
        return False
    return False


def locate(root: str, place: str) -> str:
    """Name an image for a person: by the path of its file, if it has a file of its own.

    root: the source's absolute path; place: as in SourceImage. An image in
    an archive or a file of many is named by that file, followed by `!/` or `#`.
    """
    path, hash_sign, row = place.partition("#")
    separator = "!" if path.startswith("!") else ""
    return f"{root}{separator}{decode_path(path.removeprefix('!'))}{hash_sign}{row}"
