"""Pack a small data folder for a training on another machine.

    python -m training.pack --out FOLDER [--mebibytes 20] [--quality 75]

FOLDER gets cifar10.tar.gz with CIFAR-10's training images and tinyimagenet32.tar.gz with
100 images of each class that is never trained on, both with unchanged files, and
cifar100.tar.gz with as many recompressed training images of CIFAR-100 as fit into the limit.
If all of them fit, recompressed images of tinyimagenet32's other classes fill the rest.
Images are chosen evenly spaced, so that every class is represented. With
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

from hashsearch.commands.console import open_report
from hashsearch.durable import sync_tree
from hashsearch.errors import HashSearchError, InvalidImage, TrainingError
from hashsearch.images import decode
from hashsearch.progress import progress_report, reports_opened_by
from hashsearch.sources import DataFolders, dataset_at_hand
from hashsearch.sources.archive import TarArchive
from hashsearch.sources.base import decode_path
from hashsearch.sources.loading import load_tiny_images
from hashsearch.wording import counted
from training.questions import UNSEEN_CLASSES, questions

MEBIBYTES = 20
# The quality of CIFAR-10's own files. With the bundled model, P@10 of 10,000 recompressed
# CIFAR-100 images among 10,000 others is .149; it is .151 for the originals (standard error
# of the difference .001), .146 for quality 60 or 50, and .140 for 30.
QUALITY = 75
UNSEEN_IMAGES = 100  # of each class that is never trained on
_BEST_QUALITY = 95  # Pillow's documentation advises against higher ones

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class PackedFile:
    """A member of an archive: its name there, its class, and its bytes."""

    name: str
    label: str
    data: bytes


@dataclass(frozen=True, slots=True)
class Archive:
    """`<name>.tar.gz`: its files and its bytes."""

    name: str
    files: Sequence[PackedFile]
    data: bytes


def pack(
    folders: DataFolders, out: Path, *, limit_bytes: int, quality: int = QUALITY
) -> list[Archive]:
    """Write a data folder of at most `limit_bytes`, completely or not at all.

    quality: JPEG quality of recompressed images, Pillow's 1 to 95. These images are left
    out: those that cannot be read; those with the pixels of a CIFAR-10 test image, if that
    split is available; and, of the images to recompress, those with the pixels of an image
    that is never trained on.
    Raises TrainingError if `out` exists, the quality is out of range, an archive is missing,
    or the limit is too small for the images that are not recompressed.
    """
    if not 1 <= quality <= _BEST_QUALITY:
        raise TrainingError(f"the quality must be from 1 to {_BEST_QUALITY}; got {quality}")
    with _new_folder(out) as folder:
        archives = choose(folders, limit_bytes, quality)
        for archive in archives:
            (folder / f"{archive.name}.tar.gz").write_bytes(archive.data)
        assert sum(path.stat().st_size for path in folder.iterdir()) <= limit_bytes
    return archives


def choose(folders: DataFolders, limit_bytes: int, quality: int) -> list[Archive]:
    """Make the archives that `pack` writes; one that no image fits into is omitted."""
    test = dataset_at_hand("cifar10", "test", folders)
    excluded = {image.tobytes() for image in load_tiny_images(test)} if test else set()
    cifar10 = packed("cifar10", _files("cifar10", folders, excluded))
    unseen, others = _split_classes(_files("tinyimagenet32", folders, excluded))
    for question in questions(folders):  # a training could not recognise recompressed copies
        excluded |= {image.tobytes() for image in question.withheld}
    others = [file for file in others if _is_allowed(file.data, excluded)]
    tiny_imagenet = packed("tinyimagenet32", unseen)
    left = limit_bytes - len(cifar10.data) - len(tiny_imagenet.data)
    if left < 0:
        raise TrainingError(
            f"the images that are not recompressed take {limit_bytes - left:,} bytes; "
            f"the limit is {limit_bytes:,}"
        )
    candidates = recompressed(_files("cifar100", folders, excluded), quality)
    cifar100 = filled("cifar100", [], candidates, left)
    if len(cifar100.files) == len(candidates):
        left = limit_bytes - len(cifar10.data) - len(cifar100.data)
        tiny_imagenet = filled("tinyimagenet32", unseen, recompressed(others, quality), left)
    return [archive for archive in (cifar10, tiny_imagenet, cifar100) if archive.files]


def packed(name: str, files: Sequence[PackedFile]) -> Archive:
    """Make a tar.gz archive with members sorted by name, without times and owners."""
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
    name: str, kept: Sequence[PackedFile], candidates: Sequence[PackedFile], limit_bytes: int
) -> Archive:
    """Add as many evenly spaced candidates as fit into an archive of `limit_bytes`."""
    fits, too_many = 0, len(candidates) + 1
    largest = packed(name, kept)
    while too_many - fits > 1:
        count = (fits + too_many) // 2
        archive = packed(name, [*kept, *evenly_spaced(candidates, count)])
        if len(archive.data) <= limit_bytes:
            fits, largest = count, archive
        else:
            too_many = count
    return largest


def evenly_spaced(items: Sequence[T], count: int) -> list[T]:
    """`count` evenly spaced items, starting with the first; all items if there are fewer."""
    count = min(count, len(items))
    return [items[number * len(items) // count] for number in range(count)]


def recompressed(files: Sequence[PackedFile], quality: int) -> list[PackedFile]:
    """The images as 32×32 JPEG files of this quality, under the same names."""
    return [replace(file, data=_jpeg(file.data, quality)) for file in files]


def _jpeg(data: bytes, quality: int) -> bytes:
    buffer = BytesIO()
    Image.fromarray(decode(data).tiny).save(buffer, "JPEG", quality=quality)
    return buffer.getvalue()


def _split_classes(files: Sequence[PackedFile]) -> tuple[list[PackedFile], list[PackedFile]]:
    """UNSEEN_IMAGES of each of UNSEEN_CLASSES, and all images of the other classes."""
    unseen: list[PackedFile] = []
    others: list[PackedFile] = []
    for label, group in groupby(files, lambda file: file.label):
        if label in UNSEEN_CLASSES:
            unseen += evenly_spaced(list(group), UNSEEN_IMAGES)
        else:
            others += group
    return unseen, others


def _files(name: str, folders: DataFolders, excluded: set[bytes]) -> list[PackedFile]:
    """A data set's training images, sorted by class and name, without the excluded ones."""
    source = dataset_at_hand(name, "train", folders)
    if not isinstance(source, TarArchive):
        raise TrainingError(
            f"{name}.tar.gz is neither in the HASHSEARCH_DATA folder nor in the cache"
        )
    files, left_out = [], 0
    with progress_report(f"reading {name}") as report:
        for image in source:
            if isinstance(image.content, bytes) and _is_allowed(image.content, excluded):
                path = decode_path(image.place.removeprefix("!/"))
                files.append(PackedFile(path, image.label or "", image.content))
            else:
                left_out += 1
            report.advance(1)
    if left_out:
        print(f"left out {counted(left_out, 'image')} of {source.root}", file=sys.stderr)
    return sorted(files, key=lambda file: (file.label, file.name))


def _is_allowed(data: bytes, excluded: set[bytes]) -> bool:
    """Whether a file can be read and its pixels are not excluded."""
    try:
        return decode(data).tiny.tobytes() not in excluded
    except InvalidImage:
        return False


@contextmanager
def _new_folder(out: Path) -> Iterator[Path]:
    """Yield a temporary folder; it is renamed to `out` at the end, or removed after an error."""
    if out.exists():
        raise TrainingError(f"{out} already exists; choose a new folder")
    folder = out.with_name(f".{out.name}.{os.getpid()}")
    folder.mkdir(parents=True)
    try:
        yield folder
        sync_tree(folder)
        folder.rename(out)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def main(arguments: Sequence[str] | None = None) -> int:
    """Pack the data sets in the HASHSEARCH_DATA folder or the cache; returns the exit status."""
    assert __doc__ is not None
    parser = argparse.ArgumentParser("training.pack", description=__doc__.splitlines()[0])
    parser.add_argument(
        "--out", metavar="FOLDER", type=Path, required=True, help="folder to create"
    )
    parser.add_argument(
        "--mebibytes", metavar="N", type=int, default=MEBIBYTES, help="largest size of all files"
    )
    parser.add_argument(
        "--quality", metavar="Q", type=int, default=QUALITY, help="JPEG quality, 1 to 95"
    )
    options = parser.parse_args(arguments)
    folders, limit_bytes = DataFolders.of_environment(), options.mebibytes * 2**20
    try:
        with reports_opened_by(open_report):
            archives = pack(folders, options.out, limit_bytes=limit_bytes, quality=options.quality)
    except (HashSearchError, OSError) as error:
        print(f"training.pack: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("training.pack: stopped", file=sys.stderr)
        return 130
    for archive in archives:
        path, n_bytes = options.out / f"{archive.name}.tar.gz", len(archive.data)
        print(f"{path}: {counted(len(archive.files), 'image')}, {n_bytes:,} bytes")
    return 0


if __name__ == "__main__":
    sys.exit(main())
