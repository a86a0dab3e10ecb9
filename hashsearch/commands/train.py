"""`train`: make a model."""

import argparse
from pathlib import Path

from hashsearch.commands.arguments import (
    SOURCES,
    Commands,
    add_command,
    minutes,
    stop_on_sigterm,
    whole,
)
from hashsearch.errors import TrainingError
from hashsearch.sources import DataFolders, dataset_at_hand, open_source


def add(commands: Commands) -> None:
    from training.presets import PRESETS

    train = add_command(commands, "train", _train, "train a model")
    train.set_defaults(when_stopped="stopped; the same command with --resume goes on")
    train.add_argument("preset", metavar="PRESET", choices=PRESETS, help=", ".join(PRESETS))
    train.add_argument("--data", metavar="SRC", nargs="+", required=True, help=SOURCES)
    train.add_argument("--out", metavar="MODEL", type=Path, required=True, help="a new folder")
    train.add_argument("--seed", type=whole, default=0)
    train.add_argument(
        "--minutes", metavar="M", type=minutes, help="train about so long, not the preset's steps"
    )
    train.add_argument("--resume", action="store_true", help="go on with a training that stopped")
    train.add_argument(
        "--from",
        dest="start",
        metavar="MODEL",
        type=Path,
        help="start from this model's weights, not from random ones",
    )
    train.add_argument("--device", help="cpu or cuda; CUDA where there is one")


def _train(options: argparse.Namespace) -> int:
    import numpy as np

    from hashsearch.models.folder import require_free
    from hashsearch.sources.loading import load_labelled_images, load_tiny_images
    from training.device import choose_device
    from training.job import load_start, train
    from training.presets import PRESETS
    from training.retrieval import Labelled
    from training.run import require_none_unfinished

    for spec in options.data:
        if spec.endswith(":test"):
            raise TrainingError(f"{spec} is for evaluation alone; train on another split")
    stop_on_sigterm()
    require_free(options.out)
    if not options.resume:
        require_none_unfinished(options.out)
    load_start(PRESETS[options.preset], options.start)  # refused before images are read
    device = choose_device(options.device)
    folders = DataFolders.of_environment()
    specs = dict.fromkeys(options.data)  # each once, however much it weighs
    read = {spec: load_tiny_images(open_source(spec, folders)) for spec in specs}
    images = np.concatenate([read[spec] for spec in options.data])
    gallery, queries = (dataset_at_hand("cifar10", split, folders) for split in ("train", "test"))
    labelled = None
    if gallery and queries:
        labelled = Labelled(
            "cifar10", *load_labelled_images(gallery), *load_labelled_images(queries)
        )
    card = train(
        options.preset,
        PRESETS[options.preset],
        images,
        options.out,
        data=" + ".join(options.data),
        seed=options.seed,
        device=device,
        minutes=options.minutes,
        resume=options.resume,
        start=options.start,
        labelled=labelled,
    )
    print(f"{options.out}: model {card.fingerprint[:12]}, {_metrics(card.metrics)}")
    return 0


def _metrics(metrics: dict[str, float]) -> str:
    return ", ".join(f"{name} {value}" for name, value in metrics.items())
