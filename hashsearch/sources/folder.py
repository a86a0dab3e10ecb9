"""A folder of image files, with everything below it."""

import os
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from hashsearch.images import ACCEPTED_SUFFIXES
from hashsearch.sources.base import SourceImage, encode_path


class Folder:
    """Image files below a folder, by name; an image's label is its own folder's name.

    Files are chosen by suffix. Hidden files are left out; links to folders are
    not followed, nor links to files outside.
    """

    def __init__(self, root: Path):
        self.root = root.resolve()
        self.passed_over: Counter[str] = Counter()

    def __iter__(self) -> Iterator[SourceImage]:
        self.passed_over.clear()
        yield from self._walk(self.root)

    def _walk(self, folder: Path) -> Iterator[SourceImage]:
        with os.scandir(folder) as entries:
            ordered = sorted(entries, key=lambda entry: os.fsencode(entry.name))
        for entry in ordered:
            if entry.name.startswith("."):
                continue
            path = Path(entry.path)
            if entry.is_dir(follow_symlinks=False):
                yield from self._walk(path)
            elif path.suffix.lower() not in ACCEPTED_SUFFIXES:
                self.passed_over[path.suffix.lower()] += 1
            elif entry.is_file() and self._is_inside(entry):
                yield self._image(path, entry.stat())

    def _is_inside(self, entry: os.DirEntry[str]) -> bool:
        return not entry.is_symlink() or Path(entry.path).resolve().is_relative_to(self.root)

    def _image(self, path: Path, status: os.stat_result) -> SourceImage:
        return SourceImage(
            place="/" + encode_path(str(path.relative_to(self.root))),
            label=None if path.parent == self.root else printable(path.parent.name),
            size=status.st_size,
            mtime=status.st_mtime_ns,
            content=path,
        )


def printable(name: str) -> str:
    """A file name as valid text: bytes that are not UTF-8 become U+FFFD."""
    return os.fsencode(name).decode("utf-8", errors="replace")
