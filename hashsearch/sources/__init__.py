"""Where images come from: one reader a file, and `open_source`, which chooses among them."""

from pathlib import Path

from hashsearch.errors import InvalidSource
from hashsearch.images import ACCEPTED_SUFFIXES
from hashsearch.sources.archive import TarArchive
from hashsearch.sources.arrays import NPY_MAGIC, NpyArray
from hashsearch.sources.base import SPLITS, Source, SourceImage, locate
from hashsearch.sources.cifar import CifarBatches, cifar_in
from hashsearch.sources.datasets import (
    NAMES,
    WITH_TEST_SPLIT,
    DataFolders,
    dataset_at_hand,
    jpeg_archive_in,
    known_dataset,
    open_jpeg_split,
)
from hashsearch.sources.folder import Folder, ImageFile
from hashsearch.sources.labels import Labelled
from hashsearch.sources.parquet import PARQUET_MAGIC, ParquetImages
from hashsearch.sources.tarball import is_tar
from hashsearch.sources.tinyimages import TinyImagesFile, is_tiny_images
from hashsearch.sources.zipped import ZIP_MAGIC, ZipArchive

__all__ = [
    "DataFolders",
    "Labelled",
    "Source",
    "SourceImage",
    "dataset_at_hand",
    "known_dataset",
    "locate",
    "open_source",
    "open_test_split",
]

_KINDS = (
    "a folder, an image file, a tar or zip archive, CIFAR's batches, an .npy array, "
    "a Parquet file or tiny_images.bin"
)


def open_source(spec: str, folders: DataFolders) -> Source:
    """Open a path whose kind is recognised, or a data set by its name.

    spec: `photos/`, `photos.tar.gz`, `cifar-10-batches-py`, `cifar10`; those
    with splits take `:train` or `:test` behind, and mean train without. A path
    that exists is preferred to a name.
    Raises InvalidSource, naming what was wanted, where nothing fits, and
    MissingPackage where an extra is wanted for it.
    """
    if Path(spec).exists():
        return _open_path(Path(spec), None)
    name, colon, split = spec.rpartition(":")
    if not colon:
        name, split = spec, ""
    elif split not in SPLITS:
        raise InvalidSource(f"{spec} does not exist; a split is one of {', '.join(SPLITS)}")
    if Path(name).exists():
        return _open_path(Path(name), split)
    source = known_dataset(name, split or "train", folders)
    if source is None:
        raise InvalidSource(
            f"{spec} does not exist; {_KINDS}, or one of the names {', '.join(NAMES)} was wanted"
        )
    return source


def open_test_split(spec: str, folders: DataFolders) -> Source | None:
    """Open the test images of what `open_source` opens; None if it has none set apart.

    A spec that names a split of its own has none either. Raises InvalidSource as
    `open_source` does.
    """
    path = Path(spec)
    if path.exists():
        return _open_split(path, "test")
    return open_source(f"{spec}:test", folders) if spec in WITH_TEST_SPLIT else None


def _open_path(path: Path, split: str | None) -> Source:
    if source := _open_split(path, split or "train"):
        return source
    if split:
        raise InvalidSource(f"{path} has no {split} split; leave out :{split} to read all of it")
    if path.is_dir():
        return Folder(path)
    if source := _open_file(path):
        return source
    raise InvalidSource(f"{path} is not {_KINDS}")


def _open_split(path: Path, split: str) -> Source | None:
    """Open a split of what has splits; None of what has none."""
    if not path.is_dir() and not _is_tar(path):
        return None
    if dataset := cifar_in(path):
        return CifarBatches(path, dataset, split)
    if not path.is_dir() and (name := jpeg_archive_in(path)):
        return open_jpeg_split(path, name, split)
    return None


def _open_file(path: Path) -> Source | None:
    """Open a file by its first bytes, or else by its name; None if by neither."""
    if not path.is_file():  # a pipe would never end
        return None
    if is_tiny_images(path):
        return TinyImagesFile(path)
    with path.open("rb") as file:
        magic = file.read(8)
    suffix = path.suffix.lower()
    if magic.startswith(NPY_MAGIC) or suffix == ".npy":
        return NpyArray(path)
    if magic.startswith(PARQUET_MAGIC) or suffix == ".parquet":
        return ParquetImages(path)
    if magic.startswith(ZIP_MAGIC) or suffix == ".zip":
        return ZipArchive(path)
    if suffix in ACCEPTED_SUFFIXES:
        return ImageFile(path)
    return TarArchive(path) if _is_tar(path) else None


def _is_tar(path: Path) -> bool:
    return path.is_file() and is_tar(path)
