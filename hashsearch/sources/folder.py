"""A folder of image files, with everything below it."""

import os
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from hashsearch.errors import InvalidImage, InvalidSource
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
        try:
            waiting = _entries(self.root)
        except OSError as error:
            raise InvalidSource(f"{self.root} cannot be read: {error.strerror}") from error
        while waiting:  # a stack, not recursion: folders may be nested a thousand deep
            entry = waiting.pop()
            try:
                if entry.is_dir(follow_symlinks=False):
                    waiting += _entries(Path(entry.path))
                elif Path(entry.name).suffix.lower() not in ACCEPTED_SUFFIXES:
                    self.passed_over[Path(entry.name).suffix.lower()] += 1
                elif entry.is_file() and self._is_inside(entry):
                    yield self._image(Path(entry.path), entry.stat())
            except OSError as error:  # one entry's trouble is not the folder's
                place = self._place(Path(entry.path))
                reason = InvalidImage(f"it cannot be read: {error.strerror}")
                yield SourceImage(place, None, 0, 0, reason)

    def _is_inside(self, entry: os.DirEntry[str]) -> bool:
        return not entry.is_symlink() or Path(entry.path).resolve().is_relative_to(self.root)

    def _image(self, path: Path, status: os.stat_result) -> SourceImage:
        return SourceImage(
            place=self._place(path),
            label=None if path.parent == self.root else printable(path.parent.name),
            size=status.st_size,
            mtime=status.st_mtime_ns,
            content=path,
        )

    def _place(self, path: Path) -> str:
        return "/" + encode_path(str(path.relative_to(self.root)))


def _entries(folder: Path) -> list[os.DirEntry[str]]:
    """What a folder holds, hidden things left out, the first by name at the end."""
    with os.scandir(folder) as entries:
        shown = [entry for entry in entries if not entry.name.startswith(".")]
    return sorted(shown, key=lambda entry: os.fsencode(entry.name), reverse=True)


def printable(name: str) -> str:
    """A file name as valid text: bytes that are not UTF-8 become U+FFFD."""
    return os.fsencode(name).decode("utf-8", errors="replace")
