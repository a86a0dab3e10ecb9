"""A tar archive of image files, plain or compressed, read forward."""

import re
import tarfile
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from io import BufferedReader
from pathlib import Path, PurePosixPath

from hashsearch.errors import ImageTooLarge, InvalidImage
from hashsearch.images import ACCEPTED_SUFFIXES, MAX_FILE_BYTES
from hashsearch.sources.base import SourceImage, encode_path, is_hidden, pass_over
from hashsearch.sources.folder import printable
from hashsearch.sources.tarball import Stopped, TarReader, mtime_ns, read_tar, tar_in
from hashsearch.sources.webdataset import NOTES, Member, label_of_note, labelled, samples

# An absolute path, a drive's letter, or a part that is `..`.
_OUTSIDE = re.compile(r"^[/\\]|^[A-Za-z]:|(?:^|[/\\])\.\.(?:[/\\]|$)")
_ENOUGH_TO_ESTIMATE = 2**20  # bytes of the archive


class TarArchive:
    """Image files of a tar archive, in its order.

    A member's label is its folder's name; in WebDataset's layout, its sample's
    label. Hidden files and folders, and links, are left out; of several members of
    one name the first counts. Nothing is ever extracted to disk.
    under: keep only the members whose path begins with this folder. at_most: how many
    images it has there at most, for the estimate, since those of a split end before
    the archive does.
    """

    def __init__(self, root: Path, under: str = "", at_most: int | None = None):
        self.root = root.resolve()
        self.under = under
        self.passed_over: Counter[str] = Counter()
        self.is_whole = not under
        self.is_folder = False
        self.remarks: list[str] = []
        self._count: int | None = None  # known once all of it was read
        self._at_most = at_most
        self._begin = 0  # the archive's bytes before the first image
        self._so_far = (0, 0)  # images, and the bytes of the archive up to the last one

    def estimate(self) -> int | None:
        images, read = self._so_far
        begin = self._begin
        if self._count is not None or read - begin < _ENOUGH_TO_ESTIMATE:
            return self._count
        estimated = round(images * (self.root.stat().st_size - begin) / (read - begin))
        return estimated if self._at_most is None else min(estimated, self._at_most)

    def __iter__(self) -> Iterator[SourceImage]:
        self.passed_over.clear()
        self._begin, self._so_far = 0, (0, 0)
        for sample in samples(self._members()):
            if all(member.image is None for member in sample.members):
                for member in sample.members:
                    pass_over(self.passed_over, member.suffix)
            yield from labelled(sample)
        self._count = self._so_far[0]

    def _members(self) -> Iterator[Member]:
        """Yield the images, and the notes that may hold their labels."""
        count = 0
        seen: set[int] = set()  # hashes of names: 80 bytes each, however long the names are
        with read_tar(self.root) as archive:
            for info in archive.members():
                path = PurePosixPath(info.name)  # without a `./` at its beginning
                if not info.isfile() or not str(path).startswith(self.under) or is_hidden(path):
                    continue
                suffix = path.suffix.lower()
                stem = info.name.removesuffix(path.suffix)
                if suffix in NOTES and not info.issparse():
                    label = label_of_note(suffix, archive.open(info))
                    yield Member(stem, suffix, label=label)
                elif suffix not in ACCEPTED_SUFFIXES:
                    pass_over(self.passed_over, suffix)
                elif hash(info.name) not in seen:
                    seen.add(hash(info.name))
                    count += 1
                    if count == 1:
                        self._begin = archive.packed_bytes()
                    self._so_far = (count, archive.packed_bytes())
                    yield Member(stem, suffix, _image(archive, info, path))


def image_in_tar(
    file: BufferedReader, path: Path, name: str, stop: Callable[[], bool]
) -> bytes | InvalidImage | None:
    """Read the first file of this name in an open tar archive; as `Container.read`."""
    with suppress(Stopped), tar_in(file, path, stop) as archive:
        for info in archive.members():
            if stop():
                break
            if info.isfile() and info.name == name:
                return _content(archive, info)
    return None


def _image(archive: TarReader, info: tarfile.TarInfo, path: PurePosixPath) -> SourceImage:
    return SourceImage(
        place="!/" + encode_path(info.name),
        label=printable(path.parent.name) or None,
        size=info.size,
        mtime=mtime_ns(info),
        content=_content(archive, info),
    )


def _content(archive: TarReader, info: tarfile.TarInfo) -> bytes | InvalidImage:
    if info.issparse():  # a few bytes that stand for any number of zeros
        return InvalidImage("it is stored as a file with holes")
    return why_not_read(info.name, info.size) or archive.open(info).read()


def why_not_read(name: str, size: int) -> InvalidImage | None:
    """The reason to refuse a member by its name or its size in bytes; None if there is none."""
    if _OUTSIDE.search(name):
        return InvalidImage("its name points outside the archive")
    if size > MAX_FILE_BYTES:
        return ImageTooLarge(f"the file has {size:,} bytes; at most {MAX_FILE_BYTES:,} are read")
    return None
