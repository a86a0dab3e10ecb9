"""Pack a small data folder, to carry to another machine for a training there.

    python -m training.pack --out FOLDER [--mebibytes 20] [--quality 75]

FOLDER holds cifar10.tar.gz, CIFAR-10's training images alone, and tinyimagenet32.tar.gz,
100 images of each class that no training sees, their files unchanged; then cifar100.tar.gz,
as many of CIFAR-100's training images as the limit leaves room for, recompressed. Where all
of them fit, tinyimagenet32.tar.gz is filled up with images of its other classes, recompressed
too. Images are chosen at even distances, so that every class is there. With
HASHSEARCH_DATA=FOLDER the data sets are found by their names. The same inputs, limit and
quality give the same bytes.
"""

import argparse
import gzip
import os
import shutil
import sys
import tarfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from io import BytesIO
from itertools import groupby
from pathlib import Path
from typing import TypeVar

from PIL import Image

from hashsearch.durable import sync_tree
from hashsearch.errors import HashSearchError, InvalidImage, TrainingError
from hashsearch.images import decode
from hashsearch.progress import progress_report
from hashsearch.sources import DataFolders, dataset_at_hand
from hashsearch.sources.archive import TarArchive
from hashsearch.sources.base import decode_path
from hashsearch.sources.loading import load_tiny_images
from training.questions import UNSEEN_CLASSES, questions

MEBIBYTES = 20
# CIFAR-10's own. With the bundled model, 10,000 recompressed images of CIFAR-100 find
# P@10 of .149 among 10,000 others, .151 as they are (the difference's standard error is
# .001); of quality 60 or 50 they find .146, of 30 .140.
QUALITY = 75
UNSEEN_IMAGES = 100  # of each class that no training sees
_BEST_QUALITY = 95  # Pillow's documentation advises against higher ones

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class ImageFile:
    """A member of an archive: its name there, its class, and its bytes."""

    name: str
    label: str
    data: bytes


@dataclass(frozen=True, slots=True)
class Archive:
    """`<name>.tar.gz`: the files in it, and its bytes."""

    name: str
    files: Sequence[ImageFile]
    data: bytes


def pack(
    folders: DataFolders, out: Path, *, limit_bytes: int, quality: int = QUALITY
) -> list[Archive]:
    """Write a data folder of at most `limit_bytes`, whole or not at all.

    quality: of recompressed images, 1 to 95 as Pillow counts. An image whose pixels are
    those of one of CIFAR-10's test images is left out where that split is at hand, an
    image that is to be recompressed also where they are those of an image that no training
    sees; and so is one that cannot be read.
    Raises TrainingError if `out` exists, the quality is out of range, an archive is not at hand,
    or the limit is too small for the images that are not recompressed.
    """
    if not 1 <= quality <= _BEST_QUALITY:
        raise TrainingError(f"a quality from 1 to {_BEST_QUALITY} was wanted; got {quality}")
    with _new_folder(out) as folder:
        archives = choose(folders, limit_bytes, quality)
        for archive in archives:
            (folder / f"{archive.name}.tar.gz").write_bytes(archive.data)
        assert sum(path.stat().st_size for path in folder.iterdir()) <= limit_bytes
    return archives


def choose(folders: DataFolders, limit_bytes: int, quality: int) -> list[Archive]:
    """What `pack` writes. An archive that has room for no image is not among them."""
    test = dataset_at_hand("cifar10", "test", folders)
    apart = {image.tobytes() for image in load_tiny_images(test)} if test else set()
    cifar10 = packed("cifar10", _files("cifar10", folders, apart))
    unseen, others = _parted(_files("tinyimagenet32", folders, apart))
    for asked in questions(folders):  # recompressed copies would not be known again
        apart |= {image.tobytes() for image in asked.withheld}
    others = [file for file in others if _is_new(file.data, apart)]
    tiny_imagenet = packed("tinyimagenet32", unseen)
    left = limit_bytes - len(cifar10.data) - len(tiny_imagenet.data)
    if left < 0:
        raise TrainingError(
            f"the images that are not recompressed take {limit_bytes - left:,} bytes; "
            f"{limit_bytes:,} are allowed"
        )
    candidates = recompressed(_files("cifar100", folders, apart), quality)
    cifar100 = filled("cifar100", [], candidates, left)
    if len(cifar100.files) == len(candidates):
        left = limit_bytes - len(cifar10.data) - len(cifar100.data)
        tiny_imagenet = filled("tinyimagenet32", unseen, recompressed(others, quality), left)
    return [archive for archive in (cifar10, tiny_imagenet, cifar100) if archive.files]


def packed(name: str, files: Sequence[ImageFile]) -> Archive:
    """Make a tar.gz archive, its members in order of their names, without times and owners."""
    buffer = BytesIO()
    with (
        gzip.GzipFile("", "wb", fileobj=buffer, mtime=0) as stream,
        tarfile.open(fileobj=stream, mode="w") as archive,
    ):
        for file in sorted(files, key=lambda file: file.name):
            member = tarfile.TarInfo(file.name)
            member.size = len(file.data)
            archive.addfile(member, BytesIO(file.data))
    return Archive(name, files, buffer.getvalue())


def filled(
    name: str, kept: Sequence[ImageFile], candidates: Sequence[ImageFile], limit_bytes: int
) -> Archive:
    """Add as many candidates, at even distances, as an archive of `limit_bytes` has room for."""
    fits, too_many = 0, len(candidates) + 1
    found = packed(name, kept)
    while too_many - fits > 1:
        count = (fits + too_many) // 2
        archive = packed(name, [*kept, *evenly_spaced(candidates, count)])
        if len(archive.data) <= limit_bytes:
            fits, found = count, archive
        else:
            too_many = count
    return found


def evenly_spaced(items: Sequence[T], count: int) -> list[T]:
    """`count` of the items at even distances, from the first on; all where there are fewer."""
    count = min(count, len(items))
    return [items[number * len(items) // count] for number in range(count)]


def recompressed(files: Sequence[ImageFile], quality: int) -> list[ImageFile]:
    """The images as 32×32 JPEG files of another quality, under the same names."""
    return [replace(file, data=_jpeg(file.data, quality)) for file in files]


def _jpeg(data: bytes, quality: int) -> bytes:
    buffer = BytesIO()
    Image.fromarray(decode(data).tiny).save(buffer, "JPEG", quality=quality)
    return buffer.getvalue()


def _parted(files: Sequence[ImageFile]) -> tuple[list[ImageFile], list[ImageFile]]:
    """UNSEEN_IMAGES of each class that no training sees, and all images of the other classes."""
    unseen: list[ImageFile] = []
    others: list[ImageFile] = []
    for label, group in groupby(files, lambda file: file.label):
        if label in UNSEEN_CLASSES:
            unseen += evenly_spaced(list(group), UNSEEN_IMAGES)
        else:
            others += group
    return unseen, others


def _files(name: str, folders: DataFolders, apart: set[bytes]) -> list[ImageFile]:
    """A data set's training images in order of their classes and names, test images left out."""
    source = dataset_at_hand(name, "train", folders)
    if not isinstance(source, TarArchive):
        raise TrainingError(
            f"{name}.tar.gz is neither in HASHSEARCH_DATA's folder nor in the cache"
        )
    files, left_out = [], 0
    with progress_report(f"reading {name}") as report:
        for image in source:
            if isinstance(image.content, bytes) and _is_new(image.content, apart):
                path = decode_path(image.place.removeprefix("!/"))
                files.append(ImageFile(path, image.label or "", image.content))
            else:
                left_out += 1
            report.advance(1)
    if left_out:
        print(f"{left_out:,} images of {source.root} are left out", file=sys.stderr)
    return sorted(files, key=lambda file: (file.label, file.name))


def _is_new(data: bytes, apart: set[bytes]) -> bool:
    """Whether a file can be read, and its pixels are not among those."""
    try:
        return decode(data).tiny.tobytes() not in apart
    except InvalidImage:
        return False


@contextmanager
def _new_folder(out: Path) -> Iterator[Path]:
    """A folder to write in; it is renamed to `out` at the end, and removed after an error."""
    if out.exists():
        raise TrainingError(f"{out} already exists; a data folder is packed under a new name")
    folder = out.with_name(f".{out.name}.{os.getpid()}")
    folder.mkdir(parents=True)
    try:
        yield folder
        sync_tree(folder)
        folder.rename(out)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def main(arguments: Sequence[str] | None = None) -> int:
    """Pack what HASHSEARCH_DATA's folder or the cache holds; returns the exit status."""
    assert __doc__ is not None
    parser = argparse.ArgumentParser("training.pack", description=__doc__.splitlines()[0])
    parser.add_argument("--out", metavar="FOLDER", type=Path, required=True, help="a new folder")
    parser.add_argument(
        "--mebibytes", metavar="N", type=int, default=MEBIBYTES, help="of all files, at most"
    )
    parser.add_argument(
        "--quality", metavar="Q", type=int, default=QUALITY, help="of recompressed images"
    )
    options = parser.parse_args(arguments)
    folders, limit_bytes = DataFolders.of_environment(), options.mebibytes * 2**20
    try:
        archives = pack(folders, options.out, limit_bytes=limit_bytes, quality=options.quality)
    except (HashSearchError, OSError) as error:
        print(f"training.pack: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("training.pack: stopped", file=sys.stderr)
        return 130
    for archive in archives:
        path, n_bytes = options.out / f"{archive.name}.tar.gz", len(archive.data)
        print(f"{path}: {len(archive.files):,} images, {n_bytes:,} bytes")
    return 0


if __name__ == "__main__":
    sys.exit(main())
