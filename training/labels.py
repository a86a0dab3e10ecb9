"""The labels that a training learns: classes of one or several label sets, and their loss."""

import hashlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from hashsearch.errors import TrainingError
from hashsearch.wording import counted

UNLABELLED = -1
_FEW = 10  # images; a class of fewer teaches little
_NAMED, _LONG = 5, 40  # classes that a message names, and characters of a name, at most
_LEAST_HELD_OUT = 15  # images of a class, if it has four times as many
_TEMPERATURE = 0.1


@dataclass(frozen=True, slots=True)
class ClassLabels:
    """The class of each image, where it has one.

    classes: (label set, label) of each class; a set is named like its source. class_ids: (n,)
    int64 places in `classes`, UNLABELLED for an image without one.
    """

    classes: tuple[tuple[str, str], ...]
    class_ids: NDArray[np.int64]

    @classmethod
    def of_sets(cls, sets: Sequence[tuple[str, NDArray[np.str_]]]) -> "ClassLabels":
        """Of images in order: the name of each source and its images' labels, "" for none.

        A name that comes again is the same set.
        """
        pairs = [(name, str(label)) for name, labels in sets for label in labels]
        classes = sorted({pair for pair in pairs if pair[1]})
        ids = {pair: number for number, pair in enumerate(classes)}
        class_ids = [ids.get(pair, UNLABELLED) for pair in pairs]
        return cls(tuple(classes), np.array(class_ids, np.int64))

    def __getitem__(self, rows: NDArray[np.bool_] | NDArray[np.int64]) -> "ClassLabels":
        return ClassLabels(self.classes, self.class_ids[rows])

    def learnable(self) -> "ClassLabels":
        """The same labels with only the classes that images have.

        Raises TrainingError if no image has a label, or all images of a label set have one.
        """
        kept = np.unique(self.class_ids[self.known])
        classes = tuple(self.classes[number] for number in kept)
        if not classes:
            raise TrainingError("no image to train on has a label, and this preset learns labels")
        for name, count in Counter(name for name, _ in classes).items():
            if count == 1:
                (label,) = (label for other, label in classes if other == name)
                raise TrainingError(
                    f"{name}: all images to train on that have a label have the label {label!r}, "
                    "and one class teaches nothing; sort the images into folders by kind, or "
                    "give the source with --unlabelled"
                )
        places = np.full(len(self.classes) + 1, UNLABELLED)  # the last is UNLABELLED's
        places[kept] = np.arange(len(kept))
        return ClassLabels(classes, places[self.class_ids])

    @property
    def known(self) -> NDArray[np.bool_]:
        """(n,) bool: which images have a class."""
        return self.class_ids != UNLABELLED

    @property
    def names(self) -> list[str]:
        """Of the classes; where there are several sets, with the set's."""
        several = len(self.sets) > 1
        return [f"{name} {label}" if several else label for name, label in self.classes]

    @property
    def texts(self) -> NDArray[np.str_]:
        """(n,) text: the name of each image's class, "" without one."""
        return np.array([*self.names, ""])[self.class_ids]  # UNLABELLED is the last

    @property
    def sets(self) -> list[str]:
        """The names of the label sets, sorted."""
        return sorted({name for name, _ in self.classes})

    @property
    def set_ids(self) -> NDArray[np.int64]:
        """(n_classes,) int64: the place of each class's set in `sets`."""
        return np.searchsorted(self.sets, [name for name, _ in self.classes])

    def unlike(self) -> NDArray[np.bool_]:
        """(n, n): which pairs of images are of different classes, as far as is known.

        Classes of different sets may mean the same. An image without a class counts as unlike.
        """
        sets = np.append(self.set_ids, UNLABELLED)[self.class_ids]
        comparable = (sets[:, np.newaxis] == sets) & self.known
        differ = self.class_ids[:, np.newaxis] != self.class_ids
        unlike: NDArray[np.bool_] = comparable & differ | ~self.known[:, np.newaxis] | ~self.known
        return unlike

    def about(self) -> dict[str, Any]:
        """For the card: numbers of classes by set, of labelled images, and a digest of all."""
        digest = hashlib.sha256(repr(self.classes).encode() + self.class_ids.tobytes()).hexdigest()
        classes = dict(Counter(name for name, _ in self.classes))
        return {"classes": classes, "images": int(self.known.sum()), "sha256": digest}

    def tensor(self, device: str) -> Tensor:
        """(n,) int64 class ids, on the device."""
        return torch.from_numpy(self.class_ids).to(device)

    def turns(self) -> NDArray[np.int64]:
        """(n,) int64: how many images before it have an image's class, -1 without one."""
        turns = np.full(len(self.class_ids), -1)
        order = np.argsort(self.class_ids, kind="stable")
        ids = self.class_ids[order]
        turns[order] = np.arange(len(ids)) - np.searchsorted(ids, ids)
        turns[~self.known] = -1
        return turns

    def spared(self) -> NDArray[np.int64]:
        """(n,) int64: how many images an image's class can spare, to be held out.

        A tenth of its images or 15, whichever is more, but never more than a quarter; an image
        without a class has none to ask.
        """
        counts = np.bincount(self.class_ids[self.known], minlength=len(self.classes))
        of_each = np.minimum(counts // 4, np.maximum(_LEAST_HELD_OUT, counts // 10))
        spared: NDArray[np.int64] = np.append(of_each, 0)[self.class_ids]  # the last: UNLABELLED
        return spared

    def held_out(self, most: int) -> NDArray[np.bool_]:
        """(n,) bool: which images to hold out, at most `most`, as evenly by class as possible.

        Of a class no more than it can spare.
        """
        turns = self.turns()
        allowed = np.flatnonzero(self.known & (turns < self.spared()))
        chosen = np.zeros(len(self.class_ids), bool)
        chosen[allowed[np.argsort(turns[allowed], kind="stable")[:most]]] = True
        return chosen

    def summary(self) -> str:
        """What is to be learned, for people: numbers, and names of some classes."""
        without = int((~self.known).sum())
        return (
            f"{counted(int(self.known.sum()), 'image')} of {counted(len(self.classes), 'class')} "
            f"({_some(self.names)}), {without:,} without a label"
        )

    def warning(self) -> str | None:
        """A sentence about classes with too few images to learn from, if there are any.

        Classes without images are left to other sets.
        """
        counts = np.bincount(self.class_ids[self.known], minlength=len(self.classes))
        few = [name for name, n in zip(self.names, counts, strict=True) if 0 < n < _FEW]
        if not few:
            return None
        have = "has" if len(few) == 1 else "have"
        return (
            f"of {counted(int((counts > 0).sum()), 'class')}, {len(few):,} {have} fewer than "
            f"{_FEW} images, too few to learn from: {_some(few)}"
        )


def _some(names: Sequence[str]) -> str:
    """The first names, none of them long."""
    shown = [name if len(name) <= _LONG else f"{name[:_LONG]}…" for name in names[:_NAMED]]
    return ", ".join([*shown, "…"] if len(names) > _NAMED else shown)


class Proxies(nn.Module):
    """A direction for each class; images should be nearest to that of their own class.

    Only classes of one set are compared: an image of one set may show what another set calls
    by another name. Source: normalised softmax, Zhai and Wu 2019, arXiv:1811.12649.
    """

    def __init__(self, labels: ClassLabels, width: int, device: str):
        super().__init__()
        count = len(labels.classes)
        self.directions = nn.Parameter(torch.randn(count, width, device=device))
        self.sets = torch.from_numpy(labels.set_ids).to(device)

    def loss(self, class_ids: Tensor, outputs: Tensor) -> Tensor:
        """Mean cross-entropy, in nats, of the images that have a class; 0 if none has.

        class_ids: (n,) int64, UNLABELLED for none; outputs: (n, width) float.
        """
        similarities = F.normalize(outputs) @ F.normalize(self.directions).T
        known = class_ids != UNLABELLED
        wanted = class_ids.clamp(min=0)
        others = self.sets[wanted][:, None] != self.sets
        logits = (similarities / _TEMPERATURE).masked_fill(others, -torch.inf)
        losses = F.cross_entropy(logits, wanted, reduction="none")
        return (losses * known).sum() / known.sum().clamp(min=1)
