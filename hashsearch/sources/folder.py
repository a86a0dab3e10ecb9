"""A folder of image files, with everything below it, and a single image file."""

import os
import stat
from collections import Counter
from collections.abc import Iterator
from pathlib import Path, PurePath

from hashsearch.errors import InvalidImage, InvalidSource
from hashsearch.images import ACCEPTED_SUFFIXES
from hashsearch.sources.base import SourceImage, decode_path, encode_path, pass_over
from hashsearch.wording import counted

_LINKS = {
    "files outside": "passed over: {} to image files outside the folder, which hashsearch index "
    "--follow-links includes (in Python, follow_links=True)",
    "folders": "passed over: {} to folders; to include such a folder, name it as a source",
    "nothing": "passed over: {} to files that do not exist",
}
# What may be a source by itself; the first suffix that fits is counted.
_SOURCES = (
    *(".tar.gz", ".tar.bz2", ".tar.xz", ".tar", ".tgz", ".tbz2", ".txz"),
    *(".zip", ".npy", ".parquet"),
)


class Folder:
    """Image files below a folder, by name; an image's label is its own folder's name.

    Files are chosen by suffix. Hidden files are left out; links to folders are
    not followed, nor, unless `follow_links`, links to files outside; both are
    counted in `remarks`. The names in one folder are held
    while it is read, some 60 bytes each: their order needs all of them.
    """

    def __init__(self, root: Path, follow_links: bool = False):
        self.root = root.resolve()
        self.follow_links = follow_links
        self.passed_over: Counter[str] = Counter()
        self.is_whole = True
        self.is_folder = True
        self.remarks: list[str] = []
        self._candidates: int | None = None
        self._links: Counter[str] = Counter()  # that were passed over, by what they lead to

    def estimate(self) -> int:
        """How many files have an image's suffix; the first call walks through the folder."""
        if self._candidates is None:
            self._candidates = _count_candidates(self.root)
        return self._candidates

    def __iter__(self) -> Iterator[SourceImage]:
        self.passed_over.clear()
        self.remarks.clear()
        self._links.clear()
        try:
            waiting = [(self.root, _names(self.root))]
        except OSError as error:
            raise InvalidSource(f"{self.root} cannot be read: {error.strerror}") from error
        while waiting:  # a stack, not recursion: folders may be nested a thousand deep
            folder, names = waiting[-1]
            if not names:
                waiting.pop()
                continue
            path = folder / os.fsdecode(names.pop())
            try:
                status = path.lstat()
                if stat.S_ISDIR(status.st_mode):
                    waiting.append((path, _names(path)))
                elif stat.S_ISLNK(status.st_mode) and os.path.isdir(path):  # noqa: PTH112  # never raises
                    self._links["folders"] += 1
                elif path.suffix.lower() not in ACCEPTED_SUFFIXES:
                    pass_over(self.passed_over, _suffix(path))
                elif found := self._file(path, status):
                    yield self._image(path, found)
            except OSError as error:  # the other entries can be read
                reason = InvalidImage(f"it cannot be read: {error.strerror}")
                yield SourceImage(self._place(path), None, 0, 0, reason)
        self.remarks += [
            _LINKS[to].format(counted(count, "link")) for to, count in self._links.items()
        ]
        if passed := [suffix for suffix in _SOURCES if suffix in self.passed_over]:
            self.remarks.append(
                f"{', '.join(passed)} files are passed over, unless they are named as sources"
            )

    def _file(self, path: Path, status: os.stat_result) -> os.stat_result | None:
        """The status of the file at a path; None if it is no file, or a link to one outside."""
        if stat.S_ISLNK(status.st_mode):
            try:
                status = path.stat()
            except FileNotFoundError:
                self._links["nothing"] += 1
                return None
            if not self.follow_links and not path.resolve().is_relative_to(self.root):
                self._links["files outside"] += 1
                return None
        return status if stat.S_ISREG(status.st_mode) else None

    def _image(self, path: Path, status: os.stat_result) -> SourceImage:
        place = self._place(path)
        return SourceImage(
            place=place,
            label=folder_label(place),
            size=status.st_size,
            mtime=status.st_mtime_ns,
            content=path,
        )

    def _place(self, path: Path) -> str:
        return "/" + encode_path(str(path.relative_to(self.root)))


class ImageFile:
    """One image file, with the place that it has in its folder, and without a label."""

    def __init__(self, path: Path):
        self.root = path.parent.resolve()
        self.passed_over: Counter[str] = Counter()
        self.is_whole = False
        self.is_folder = True
        self.remarks: list[str] = []
        self.path = self.root / path.name

    def estimate(self) -> int:
        return 1

    def __iter__(self) -> Iterator[SourceImage]:
        status = self.path.stat()
        place = "/" + encode_path(self.path.name)
        yield SourceImage(place, None, status.st_size, status.st_mtime_ns, self.path)


def _names(folder: Path) -> list[bytes]:
    """The names in a folder, without hidden ones, in descending order of their bytes.

    As bytes, a million of them take the least memory.
    """
    with os.scandir(folder) as entries:
        shown = [os.fsencode(entry.name) for entry in entries if not entry.name.startswith(".")]
    shown.sort(reverse=True)
    return shown


def _suffix(path: Path) -> str:
    name = path.name.lower()
    return next((suffix for suffix in _SOURCES if name.endswith(suffix)), PurePath(name).suffix)


def _count_candidates(root: Path) -> int:
    """How many files below a folder have an image's suffix; no file is opened."""
    count, waiting = 0, [os.fspath(root)]
    while waiting:
        try:
            with os.scandir(waiting.pop()) as entries:
                for entry in entries:
                    if entry.name.startswith("."):
                        continue
                    if entry.is_dir(follow_symlinks=False):
                        waiting.append(entry.path)
                    else:
                        count += PurePath(entry.name).suffix.lower() in ACCEPTED_SUFFIXES
        except OSError:
            continue  # iterating reports it
    return count


def folder_label(place: str) -> str | None:
    """The label of an image file in a folder: the name of the folder it lies in, below the root.

    place: as in SourceImage; None for one in an archive or a file of many.
    """
    folder = place.rpartition("/")[0].rpartition("/")[2]
    is_file = place.startswith("/") and "#" not in place and "!" not in place
    return printable(decode_path(folder)) if folder and is_file else None


def printable(name: str) -> str:
    """A file name as valid text: bytes that are not UTF-8 become U+FFFD."""
    return os.fsencode(name).decode("utf-8", errors="replace")
