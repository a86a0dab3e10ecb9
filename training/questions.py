"""Labelled images that no training sees, on which trainings are compared.

Choices between trainings are made on these alone, so that CIFAR-10's test split stays
unopened until the choices are made.
"""

from collections import Counter
from collections.abc import Collection, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np

from hashsearch.sources import DataFolders, Source, SourceImage, dataset_at_hand
from hashsearch.sources.loading import load_labelled_images
from training.retrieval import Labelled

HELD_OUT_EVERY = 25  # 2,000 of CIFAR-10's 50,000 training images
UNSEEN_EVERY = 10  # 1,000 of the 10,000 images of UNSEEN_CLASSES
# Every tenth of tinyimagenet32's 200 WordNet ids in sorted order, from the first. They are
# written down because a data folder may hold the images of some classes alone.
UNSEEN_CLASSES = (
    "n01443537",
    "n01784675",
    "n02002724",
    "n02123045",
    "n02231487",
    "n02410509",
    "n02669723",
    "n02814533",
    "n02909870",
    "n03026506",
    "n03255030",
    "n03584254",
    "n03770439",
    "n03937543",
    "n04070727",
    "n04259630",
    "n04398044",
    "n04532670",
    "n07615774",
    "n07871810",
)


def questions(folders: DataFolders) -> list[Labelled]:
    """Read what is at hand of "heldout" and "unseen"; nothing is downloaded.

    heldout: every 25th of CIFAR-10's training images, in the source's order, is a query;
    the others are the gallery. unseen: of tinyimagenet32's images of UNSEEN_CLASSES, every
    tenth is a query. An image that cannot be read does not count.
    """
    found = []
    cifar10 = dataset_at_hand("cifar10", "train", folders)
    if cifar10 is not None:
        found.append(_parted("heldout", cifar10, HELD_OUT_EVERY))
    tiny_imagenet = dataset_at_hand("tinyimagenet32", "train", folders)
    if tiny_imagenet is not None:
        unseen = _OfClasses(tiny_imagenet, UNSEEN_CLASSES)
        if any(True for _ in unseen):
            found.append(replace(_parted("unseen", unseen, UNSEEN_EVERY), unseen=True))
    return found


def _parted(name: str, source: Source, every: int) -> Labelled:
    images, labels = load_labelled_images(source)
    asked = np.arange(len(images)) % every == 0
    return Labelled(name, images[~asked], labels[~asked], images[asked], labels[asked])


class _OfClasses:
    """The images of a source that have one of these labels, in its order."""

    def __init__(self, source: Source, labels: Collection[str]):
        self.root: Path = source.root
        self.passed_over: Counter[str] = source.passed_over
        self._source, self._labels = source, labels

    def estimate(self) -> int | None:
        return None

    def __iter__(self) -> Iterator[SourceImage]:
        return (image for image in self._source if image.label in self._labels)
