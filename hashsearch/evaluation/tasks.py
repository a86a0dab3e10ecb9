"""Tasks to measure methods on: labelled images, split into queries and a gallery."""

import hashlib
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from hashsearch.errors import EvaluationError
from hashsearch.wording import counted

if TYPE_CHECKING:
    from hashsearch.gallery.gallery_folder import GalleryFolder

MOST_DRAWN = 1000  # queries drawn from images that come without a test split


@dataclass(frozen=True)
class LabelledImages:
    """images: (n, 32, 32, 3) uint8; labels: (n,) text, empty where there is none."""

    images: NDArray[np.uint8]
    labels: NDArray[np.str_]

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, rows: NDArray[np.int64] | NDArray[np.bool_]) -> "LabelledImages":
        return LabelledImages(self.images[rows], self.labels[rows])

    def __add__(self, others: "LabelledImages") -> "LabelledImages":
        """These images, then the others."""
        return LabelledImages(
            np.concatenate((self.images, others.images)),
            np.concatenate((self.labels, others.labels)),
        )


def images_of_gallery(gallery: "GalleryFolder") -> LabelledImages:
    """The images of a gallery, in its order. Raises EvaluationError if it keeps no pixels."""
    rows = gallery.catalog.rows()
    pixels = gallery.column("pixels", rows)
    if pixels is None:
        raise EvaluationError(
            f"{gallery.folder} keeps no pixels, without which nothing is measured or learned; name "
            "the source of its images, or index that into a new gallery"
        )
    labels = {image.id: image.label for image in gallery.catalog.records(rows.ids.tolist())}
    return LabelledImages(
        pixels.reshape(-1, 32, 32, 3), np.array([labels.get(i) or "" for i in rows.ids.tolist()])
    )


@dataclass(frozen=True)
class Task:
    """Queries, the gallery to search, and a name that says which they are.

    The gallery images that have a query's label are relevant to it; every query has some.
    name: the data's name, the numbers of queries and gallery images, and the seed if it is not
    0 and queries were drawn. set_apart: whether the queries come from a test split.
    unlabelled: number of images left out because they have no label. unanswerable: number of
    queries left out because no gallery image has their label.
    """

    name: str
    gallery: LabelledImages
    queries: LabelledImages
    set_apart: bool
    unlabelled: int
    unanswerable: int

    @cached_property
    def digest(self) -> str:
        """SHA-256 over all images and labels, in order."""
        found = hashlib.sha256()
        for part in (self.gallery, self.queries):
            found.update(part.images.tobytes())
            found.update("\0".join(part.labels.tolist()).encode())
        return found.hexdigest()


def split_task(
    data: str,
    images: LabelledImages,
    test: LabelledImages | None,
    *,
    n_queries: int | None,
    pooled: bool,
    seed: int,
    advice: str = "",
) -> Task:
    """Split labelled images into queries and a gallery.

    data: the name of the data. With test images, these are the queries and `images` is the
    gallery. Without, queries are drawn from `images`, at most half of each label's, and the
    others are the gallery. n_queries: how many to draw at random, as evenly by label as
    possible; None for all test images, or for a tenth of `images`, at most MOST_DRAWN. pooled:
    test images that are not drawn join the gallery. Images without a label are left out, and
    so are queries whose label no gallery image has. advice: how to give labels, for messages.
    Raises EvaluationError if n_queries cannot be drawn, if fewer than two labels are left, or
    if `pooled` has nothing to pool.
    """
    given = len(images) + (len(test) if test is not None else 0)
    images = _labelled(data, images, advice)
    if pooled and (test is None or n_queries is None):
        raise EvaluationError(
            "--pool lets test images that are not drawn join the gallery; it needs --queries, and "
            f"data with a test split, which {data} has{' not' if test is None else ''}"
        )
    if test is None:
        if n_queries is None:
            _, counts = np.unique(images.labels, return_counts=True)
            n_queries = max(1, min(MOST_DRAWN, len(images) // 10, int((counts // 2).sum())))
        drawn = _drawn(images.labels, n_queries, seed, share=0.5)
        gallery, queries, random = images[~drawn], images[drawn], True
    else:
        test = _labelled(data, test, advice)
        drawn = np.ones(len(test), bool)
        random = n_queries is not None and n_queries != len(test)
        if n_queries is not None:
            drawn = _drawn(test.labels, n_queries, seed, share=1)
        gallery, queries = images, test[drawn]
        if pooled:
            gallery = images + test[~drawn]
    if len(labels := np.unique(gallery.labels)) < 2:
        raise EvaluationError(
            f"{data}: all images to find have one label, {labels[0]}, so every answer is right"
            + (advice and f"; {advice}")
        )
    known = np.isin(queries.labels, gallery.labels)
    if not known.any():
        raise EvaluationError(f"{data}: no image to find has the label of any query")
    queries, unanswerable = queries[known], int((~known).sum())
    name = f"{data}-{_short(len(queries))}-{_short(len(gallery))}"
    name = f"{name}-seed{seed}" if random and seed else name
    unlabelled = given - len(images) - (len(test) if test is not None else 0)
    return Task(name, gallery, queries, test is not None, unlabelled, unanswerable)


def _labelled(data: str, images: LabelledImages, advice: str) -> LabelledImages:
    found = images[images.labels != ""]
    if not len(found):
        raise EvaluationError(
            f"{data}: none of {counted(len(images), 'image')} has a label, without which "
            "nothing can be measured" + (advice and f"; {advice}")
        )
    return found


def _drawn(labels: NDArray[np.str_], count: int, seed: int, share: float) -> NDArray[np.bool_]:
    """Which images are drawn: equally many of each label, until its share is used up."""
    random = np.random.default_rng(seed)
    order = random.permutation(len(labels))
    # An image's turn is its place among the images of its label; lower turns are drawn first.
    shuffled = labels[order]
    turns = np.empty(len(labels), np.int64)
    for label in np.unique(labels):
        own = np.flatnonzero(shuffled == label)
        turns[own] = np.arange(len(own))
        turns[own[int(len(own) * share) :]] = len(labels)  # never
    most = int((turns < len(labels)).sum())
    if count > most:
        raise EvaluationError(
            f"{'1 query was' if count == 1 else f'{count:,} queries were'} asked for; "
            f"of {counted(len(labels), 'image')} {most:,} can be drawn, "
            f"{'all' if share == 1 else 'at most half'} of each label"
        )
    drawn = np.zeros(len(labels), bool)
    drawn[order[np.argsort(turns, kind="stable")[:count]]] = True
    return drawn


def _short(number: int) -> str:
    return f"{number // 1000}k" if number % 1000 == 0 else str(number)
