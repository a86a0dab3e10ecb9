"""What labels gained: how well images of each class are found, before a training and after it."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hashsearch.codes import unpack_bits
from hashsearch.columns import aligned
from hashsearch.encoder import Encoder
from hashsearch.models.card import model_name
from hashsearch.wording import counted
from training.closeness import CodesOf
from training.data import Examples
from training.retrieval import Question, precision_at_10_by_bits

SEEN = "seen"  # questions on classes whose labels are learned begin with it
_GALLERY = 20_000  # images of a label set that are searched, at most
_LEAST = 10  # images that can be searched, and values that have a confidence interval
_SHOWN = 20  # classes, at most


@dataclass(frozen=True, slots=True)
class ClassGain:
    """A class: its held-out images, and their mean precision at 10 before and after."""

    name: str
    images: int
    before: float
    after: float

    @property
    def gained(self) -> float:
        return self.after - self.before


@dataclass(frozen=True, slots=True)
class Gain:
    """What a training gained over another model, on held-out images.

    model: name of the other one. rows: of the classes, those that gained most first. whole: of
    all images. margin: of what they gained, half the width of its 95% confidence interval; None
    of fewer than ten images.
    """

    model: str
    rows: tuple[ClassGain, ...]
    whole: ClassGain
    margin: float | None

    def about(self) -> dict[str, Any]:
        """For the card."""
        return {
            "over": self.model,
            "images": self.whole.images,
            "before": round(self.whole.before, 4),
            "after": round(self.whole.after, 4),
            "margin": self.margin and round(self.margin, 4),
        }

    def lines(self) -> Iterator[str]:
        """A table for people; of many classes, those that gained most and least."""
        rows = self.rows
        if len(rows) > _SHOWN:
            rows = (*rows[: _SHOWN // 2], *rows[-_SHOWN // 2 :])
        cells = [["P@10", "images", "before", "after", "gain"]]
        cells += [_cells(row) for row in (*rows, self.whole)]
        cells[-1][-1] += "" if self.margin is None else f" ± {self.margin:.3f}"
        lines = aligned(cells, "<>>><")
        yield from lines[:-1]
        if len(rows) < len(self.rows):
            yield f"({counted(len(self.rows) - len(rows), 'class')} between them not shown)"
        yield lines[-1]
        if self.margin is None or abs(self.whole.gained) <= self.margin:
            images = counted(self.whole.images, "image")
            yield f"{images} cannot tell whether this model is better than {self.model}"
        elif self.whole.gained < 0:
            yield f"{self.model} finds these images better"


def _cells(row: ClassGain) -> list[str]:
    precisions = f"{row.before:.3f}", f"{row.after:.3f}", f"{row.gained:+.3f}"
    return [row.name, f"{row.images:,}", *precisions]


@dataclass(frozen=True, slots=True)
class Before:
    """How well a model finds held-out images before a training, to compare with later.

    model: its name. precisions: (n_queries,) float64 for each question, see
    `precision_at_10_by_bits`. device: where distances are computed.
    """

    model: str
    device: str
    questions: Sequence[Question]
    precisions: Sequence[NDArray[np.float64]]

    @classmethod
    def of(cls, folder: Path, questions: Sequence[Question], device: str) -> "Before":
        """Measure the model in a folder. Raises InvalidModel if it cannot be read."""
        encode = Encoder.load(folder, device=device).encode
        return cls(model_name(folder), device, questions, _precisions(questions, encode, device))

    def gain(self, codes_of: CodesOf) -> Gain:
        """Measure the trained model, and compare."""
        before = np.concatenate(self.precisions)
        after = np.concatenate(_precisions(self.questions, codes_of, self.device))
        labels = np.concatenate([question.query_labels for question in self.questions])

        def row(name: str, chosen: NDArray[np.bool_]) -> ClassGain:
            return ClassGain(
                name, int(chosen.sum()), float(before[chosen].mean()), float(after[chosen].mean())
            )

        rows = (row(str(label), labels == label) for label in np.unique(labels))
        return Gain(
            self.model,
            tuple(sorted(rows, key=lambda one: -one.gained)),
            row("all", np.ones(len(labels), bool)),
            _margin(after - before),
        )


def _margin(gains: NDArray[np.float64]) -> float | None:
    """Half the width of the 95% confidence interval of the mean, of at least ten values.

    By Student's t distribution, of whose quantile these are the first terms (Cornish-Fisher);
    from ten values on, four digits are right.
    """
    if len(gains) < _LEAST:
        return None
    inverse = 1 / (len(gains) - 1)
    quantile = 1.95996 + 2.37227 * inverse + 2.8225 * inverse**2 + 2.5558 * inverse**3
    return float(quantile * np.std(gains, ddof=1) / math.sqrt(len(gains)))


def _precisions(
    questions: Sequence[Question], codes_of: CodesOf, device: str
) -> list[NDArray[np.float64]]:
    found = []
    for question in questions:
        parts = (codes_of(images) for images in (question.gallery, question.queries))
        gallery, queries = (unpack_bits(codes, 8 * codes.shape[1]) for codes in parts)
        found.append(precision_at_10_by_bits(question, gallery, queries, device))
    return found


def seen_questions(examples: Examples, held_out: Examples) -> list[Question]:
    """Held-out images, searched for among the images of their label set that are trained on.

    A question for each set; none for a set with fewer than ten images to search, or from which
    no image is held out.
    """
    questions = []
    for name, gallery, queries in _by_set(examples, held_out):
        if len(gallery) < _LEAST or not len(queries):
            continue
        assert gallery.labels is not None
        assert queries.labels is not None
        several = len(gallery.labels.sets) > 1
        classes = counted(len(np.unique(gallery.labels.class_ids)), "class")
        whose = f" of {name}" if several else ""
        meaning = (
            f"queries are {counted(len(queries), 'image')} held out of {classes}{whose} whose "
            f"labels are learned, and the gallery is {len(gallery):,} of the images trained on"
        )
        questions.append(
            Question(
                f"{SEEN}_{_short(name, gallery.labels.sets)}" if several else SEEN,
                *(gallery.images, gallery.labels.texts),
                *(queries.images, queries.labels.texts),
                meaning=meaning,
            )
        )
    return questions


def _short(name: str, names: Sequence[str]) -> str:
    """A source's last part, if no other source ends with it."""
    short = PurePath(name).name or name
    return short if sum(PurePath(other).name == short for other in names) == 1 else name


def _by_set(examples: Examples, held_out: Examples) -> Iterator[tuple[str, Examples, Examples]]:
    """Each label set's name, its images to search and its queries, without copies.

    A query's class has images to search.
    """
    assert examples.labels is not None
    parts = zip(examples.of_sets(), held_out.of_sets(), strict=True)
    for name, (searched, queries) in zip(examples.labels.sets, parts, strict=True):
        assert searched.labels is not None
        assert queries.labels is not None
        found = np.isin(queries.labels.class_ids, searched.labels.class_ids)
        first = np.argsort(searched.labels.turns(), kind="stable")[:_GALLERY]
        yield name, searched[first], queries[found]
