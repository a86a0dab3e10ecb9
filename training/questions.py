"""Labelled images for comparing trainings; the queries are never trained on.

Choices between trainings are made on these images alone, so that CIFAR-10's test split is
not used until the choices are made.
"""

from collections import Counter
from collections.abc import Collection, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np

from hashsearch.sources import DataFolders, Source, SourceImage, dataset_at_hand
from hashsearch.sources.loading import load_labelled_images
from training.retrieval import Question

HELD_OUT_EVERY = 25  # 2,000 of CIFAR-10's 50,000 training images
UNSEEN_EVERY = 10  # 1,000 of the 10,000 images of UNSEEN_CLASSES
# Every tenth of tinyimagenet32's 200 WordNet ids in sorted order, starting with the first.
# They are listed here because a data folder may hold only some of the classes.
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


def questions(folders: DataFolders) -> list[Question]:
    """Read the questions "heldout" and "unseen" if their data exist; nothing is downloaded.

    heldout: every 25th of CIFAR-10's training images, in the source's order, is a query;
    the others are the gallery. unseen: the same with every tenth of tinyimagenet32's images
    of UNSEEN_CLASSES. An unreadable image is not counted.
    """
    available = []
    cifar10 = dataset_at_hand("cifar10", "train", folders)
    if cifar10 is not None:
        heldout = _split("heldout", cifar10, HELD_OUT_EVERY)
        meaning = (
            f"queries are {len(heldout.queries):,} of CIFAR-10's training images, and the gallery "
            f"is its other {len(heldout.gallery):,}"
        )
        available.append(replace(heldout, meaning=meaning))
    tiny_imagenet = dataset_at_hand("tinyimagenet32", "train", folders)
    if tiny_imagenet is not None:
        unseen = _ClassSubset(tiny_imagenet, UNSEEN_CLASSES)
        if any(True for _ in unseen):
            question = _split("unseen", unseen, UNSEEN_EVERY)
            classes = len(np.unique(question.gallery_labels))
            meaning = (
                f"queries are {len(question.queries):,} images of {classes} classes of "
                "tinyimagenet32 that no training uses, and the gallery is the other "
                f"{len(question.gallery):,} of these classes"
            )
            available.append(replace(question, unseen=True, meaning=meaning))
    return available


def _split(name: str, source: Source, every: int) -> Question:
    images, labels = load_labelled_images(source)
    is_query = np.arange(len(images)) % every == 0
    return Question(name, images[~is_query], labels[~is_query], images[is_query], labels[is_query])


class _ClassSubset:
    """The images of a source with one of these labels, in the source's order."""

    def __init__(self, source: Source, labels: Collection[str]):
        self.root: Path = source.root
        self.passed_over: Counter[str] = source.passed_over
        self.is_whole = False
        self.is_folder = False
        self.remarks: list[str] = source.remarks
        self._source, self._labels = source, labels

    def estimate(self) -> int | None:
        return None

    def __iter__(self) -> Iterator[SourceImage]:
        return (image for image in self._source if image.label in self._labels)
