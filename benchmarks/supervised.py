"""CIFAR-10 with 5,000 labels, the protocol of papers on supervised hashing.

    python -m benchmarks.supervised --out MODEL [--minutes 20] [--from MODEL]

500 training images of each class are given with their labels, of which a training holds out 50;
the others are not used. 100 test images of each class are queries. The gallery is the other
54,000 images, and in a second task the 5,000 as well: papers differ in this. Prints the code's
measures; "mAP" is over the whole ranking, as those papers define it. A model that is already
there is only measured.
"""

import argparse
from collections.abc import Sequence
from datetime import date
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from hashsearch.commands.arguments import minutes, model
from hashsearch.evaluation.evaluate import USUAL_KS, evaluate
from hashsearch.evaluation.measured import Model, methods_named
from hashsearch.evaluation.tasks import LabelledImages, Task
from hashsearch.sources import DataFolders, open_source
from hashsearch.sources.loading import load_labelled_images
from training.device import choose_device
from training.families import PRESETS
from training.job import train
from training.labels import ClassLabels
from training.run import is_unfinished

_TRAINING, _QUERIES = 500, 100  # of each class
_PRESET, _SEED, _BITS = "conv256-labelled", 0, 256


def main(arguments: Sequence[str] | None = None) -> None:
    assert __doc__ is not None
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--minutes", type=minutes)
    parser.add_argument("--out", metavar="MODEL", type=Path, required=True)
    parser.add_argument("--from", metavar="MODEL", type=model, dest="start")
    options = parser.parse_args(arguments)
    folders = DataFolders.of_environment()
    splits = (
        LabelledImages(*load_labelled_images(open_source(spec, folders)))
        for spec in ("cifar10", "cifar10:test")
    )
    learned, tasks = protocol(*splits)
    if not options.out.exists():
        train(
            _PRESET,
            PRESETS[_PRESET],
            learned.images,
            options.out,
            data=f"{len(learned):,} of cifar10",
            seed=_SEED,
            device=choose_device(None),
            minutes=options.minutes,
            resume=is_unfinished(options.out),
            start=options.start,
            withheld=tasks[0].queries.images,
            labels=ClassLabels.of_sets([("cifar10", learned.labels)]),
        )
    for task in tasks:
        (result,) = evaluate(
            task,
            methods_named("codes", [Model(options.out)], _BITS, _SEED),
            ks=[*USUAL_KS],
            seed=_SEED,
            environment={},
            date=f"{date.today()}",
            cache=folders.cache / "evaluation",
        )
        print(f"{task.name}, {len(task.gallery):,} images in the gallery:")
        for name, found in result.measures.items():
            print(f"  {name}: {found.value:.3f} [{found.low:.3f}, {found.high:.3f}]")


def protocol(train: LabelledImages, test: LabelledImages) -> tuple[LabelledImages, list[Task]]:
    """Draw the images to learn, and the two tasks, from CIFAR-10's two splits."""
    random = np.random.default_rng(_SEED)
    drawn = _of_each_label(train.labels, _TRAINING, random)
    asked = _of_each_label(test.labels, _QUERIES, random)
    learned, others = train[drawn], train[~drawn] + test[~asked]
    names = {"cifar10-1k-5k": others, "cifar10-1k-5k-59k": learned + others}
    return learned, [
        Task(name, gallery, test[asked], True, unlabelled=0, unanswerable=0)
        for name, gallery in names.items()
    ]


def _of_each_label(
    labels: NDArray[np.str_], count: int, random: np.random.Generator
) -> NDArray[np.bool_]:
    """(n,) bool: which images are drawn."""
    drawn = np.zeros(len(labels), bool)
    for label in np.unique(labels):
        drawn[random.choice(np.flatnonzero(labels == label), count, replace=False)] = True
    return drawn


if __name__ == "__main__":
    main()
