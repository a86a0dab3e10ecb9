"""Where images come from: one reader a file, and `open_source`, which chooses among them."""

import tarfile
from pathlib import Path

from hashsearch.errors import InvalidSource
from hashsearch.sources.archive import TarArchive
from hashsearch.sources.base import SPLITS, Source, SourceImage, locate
from hashsearch.sources.cifar import CifarBatches, cifar_in, holds_cifar_splits
from hashsearch.sources.datasets import (
    NAMES,
    WITH_TEST_SPLIT,
    DataFolders,
    dataset_at_hand,
    known_dataset,
)
from hashsearch.sources.folder import Folder

__all__ = [
    "DataFolders",
    "Source",
    "SourceImage",
    "dataset_at_hand",
    "known_dataset",
    "locate",
    "open_source",
    "open_test_split",
]


def open_source(spec: str, folders: DataFolders) -> Source:
    """Open a path whose kind is recognised, or a data set by its name.

    spec: `photos/`, `photos.tar.gz`, `cifar-10-batches-py`, `cifar10`; those
    with splits take `:train` or `:test` behind, and mean train without. A path
    that exists is preferred to a name.
    Raises InvalidSource, naming what was wanted, where nothing fits.
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
            f"{spec} does not exist; a folder, a tar archive, CIFAR's batches "
            f"or one of the names {', '.join(NAMES)} was wanted"
        )
    return source


def open_test_split(spec: str, folders: DataFolders) -> Source | None:
    """Open the test images of what `open_source` opens; None if it has none set apart.

    A spec that names a split of its own has none either. Raises InvalidSource as
    `open_source` does.
    """
    path = Path(spec)
    if path.is_dir() and not cifar_in(path):
        return None
    if path.is_file() and not cifar_in(path) and not holds_cifar_splits(path):
        return None
    if not path.exists() and spec not in WITH_TEST_SPLIT:
        return None
    return open_source(f"{spec}:test", folders)


def _open_path(path: Path, split: str | None) -> Source:
    if path.is_dir():
        if dataset := cifar_in(path):
            return CifarBatches(path, dataset, split or "train")
    elif not path.is_file() or not tarfile.is_tarfile(path):
        raise InvalidSource(
            f"{path} is neither a folder nor a tar archive; to index a picture, name its folder"
        )
    elif dataset := cifar_in(path):
        return CifarBatches(path, dataset, split or "train")
    elif holds_cifar_splits(path):
        return TarArchive(path, under=f"cifar10/{split or 'train'}/")
    if split:
        raise InvalidSource(f"{path} has no splits; {path} without :{split} means all of it")
    return Folder(path) if path.is_dir() else TarArchive(path)
