"""The folders and archives that a gallery's images lie in, by their uris."""

import re
from dataclasses import dataclass
from urllib.parse import unquote

from hashsearch.gallery.catalog import Catalog

_SEPARATORS = "!#/"  # what may follow a part of a uri, in SQLite's order
_LAST = "\U0010ffff"  # follows every character of a uri


@dataclass(frozen=True, slots=True)
class UriFolder:
    """A folder, an archive, or a file of many images.

    prefix: its uri, percent-encoded. name: its last part, for people. images: number of images
    with a place in it, at any depth. end: a text that follows the uris in it, and precedes those of
    the next folder beside it.
    """

    prefix: str
    name: str
    images: int
    end: str


def folders_in(catalog: Catalog, prefix: str, after: str, most: int) -> list[UriFolder]:
    """The folders directly in another, in order of uri; images themselves are left out.

    prefix: the other's uri; an empty one stands for the gallery, in which the sources are. after:
    the `end` of a folder, after which those that are returned begin; at first an empty text.
    """
    found: list[UriFolder] = []
    inners = [prefix + mark for mark in ("!/", "#", "/")] if prefix else [""]
    for inner in inners:
        start = max(inner, after)
        while len(found) < most:
            uri = catalog.first_in_a_folder(start, inner + _LAST, len(inner))
            if uri is None:
                break
            part = re.split(f"[{_SEPARATORS}]", uri[len(inner) :], maxsplit=1)[0]
            folder = inner + part
            separator = uri[len(folder)]
            start = folder + chr(ord(separator) + 1)
            earlier = _SEPARATORS[: _SEPARATORS.index(separator)]
            if not any(catalog.count_between(*_range(folder, mark)) for mark in earlier):
                images = images_in(catalog, folder)
                found.append(UriFolder(folder, unquote(part), images, start))
    return found


def images_in(catalog: Catalog, prefix: str) -> int:
    """Number of images with a place in a folder, at any depth; an empty prefix: of all images."""
    if not prefix:
        return catalog.count()
    return catalog.count_between(*(edge for mark in _SEPARATORS for edge in _range(prefix, mark)))


def _range(folder: str, mark: str) -> tuple[str, str]:
    """The texts between which the uris lie that go on with a mark."""
    return folder + mark, folder + chr(ord(mark) + 1)
