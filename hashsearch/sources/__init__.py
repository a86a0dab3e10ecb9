"""Where images come from: one reader a file, one table of kinds, and `open_source`."""

import os
from pathlib import Path

from hashsearch.errors import InvalidSource
from hashsearch.sources.base import SPLITS, Source, SourceImage, locate
from hashsearch.sources.datasets import DATASETS, DataFolders, dataset_at_hand, known_dataset
from hashsearch.sources.kinds import kind_of, kinds_in_words, sources_in_words
from hashsearch.sources.labels import LabelledSource
from hashsearch.sources.unread import why_unread

__all__ = [
    "DataFolders",
    "LabelledSource",
    "Source",
    "SourceImage",
    "dataset_at_hand",
    "known_dataset",
    "locate",
    "open_source",
    "open_test_split",
]


def open_source(spec: str, folders: DataFolders, follow_links: bool = False) -> Source:
    """Open a path of a known kind, or a data set by its name.

    spec: `photos/`, `photos.tar.gz`, `cifar-10-batches-py`, `cifar10`. `:train` or
    `:test` after it names a split; without one, a source with splits opens its
    training images. A path that exists is preferred to a name. follow_links: open
    files outside a folder that links in it lead to.
    Raises InvalidSource if the spec is empty or names neither, and MissingPackage if reading
    this kind needs an extra that is not installed.
    """
    _require_name(spec)
    if os.path.exists(spec):  # noqa: PTH110  # never raises
        return _open_path(Path(spec), None, follow_links)
    name, colon, split = spec.rpartition(":")
    if not colon:
        name, split = spec, ""
    elif split not in SPLITS:
        raise InvalidSource(f"{spec} does not exist; a split is one of {', '.join(SPLITS)}")
    _require_name(name)
    if os.path.exists(name):  # noqa: PTH110
        return _open_path(Path(name), split, follow_links)
    source = known_dataset(name, split or "train", folders)
    if source is None:
        raise InvalidSource(f"{spec} does not exist; a source is {sources_in_words()}")
    return source


def open_test_split(spec: str, folders: DataFolders) -> Source | None:
    """Open the test images that belong to the training images of `open_source`.

    None if the source has no test images of its own, or if the spec names a split
    already. Raises InvalidSource as `open_source` does.
    """
    _require_name(spec)
    path = Path(spec)
    if os.path.exists(path):  # noqa: PTH110
        kind = kind_of(path)
        return kind.open_split(path, "test") if kind else None
    if spec in DATASETS and DATASETS[spec].has_test_split:
        return open_source(f"{spec}:test", folders)
    return None


def _require_name(spec: str) -> None:
    if not spec:  # it would mean the working folder
        raise InvalidSource(f"an empty path came; a source is {sources_in_words()}")


def _open_path(path: Path, split: str | None, follow_links: bool) -> Source:
    kind = kind_of(path)
    if kind is None:
        reason = why_unread(path) or "is not a source of images"
        raise InvalidSource(f"{path} {reason}; a source is {kinds_in_words()}")
    if split is None:
        return ((follow_links and kind.open_with_links) or kind.open)(path)
    source = kind.open_split(path, split)
    if source is None:
        raise InvalidSource(f"{path} has no {split} split; leave out :{split} to read all of it")
    return source
