"""`train`: make a model."""

import argparse
from pathlib import Path

from hashsearch.commands.arguments import (
    SOURCES,
    Commands,
    add_command,
    minutes,
    model,
    whole,
)
from hashsearch.commands.output import shown
from hashsearch.errors import TrainingError
from hashsearch.models.card import A_MODEL
from hashsearch.sources import DataFolders, dataset_at_hand
from hashsearch.stopping import stop_on_sigterm


def add(commands: Commands) -> None:
    train = add_command(commands, "train", _train, "train a model")
    train.add_argument(
        "preset",
        metavar="PRESET",
        type=_preset,
        help="conv256, conv256-labelled, teacher or another",
    )
    train.add_argument(
        "--data", metavar="SRC", nargs="+", required=True, help=f"{SOURCES}, or a gallery"
    )
    train.add_argument(
        "--unlabelled",
        metavar="SRC",
        nargs="+",
        default=[],
        help="more sources, whose labels conv256-labelled does not learn",
    )
    train.add_argument("--out", metavar="MODEL", type=Path, required=True, help="a new folder")
    train.add_argument("--seed", type=whole, default=0)
    train.add_argument(
        "--minutes",
        metavar="M",
        type=minutes,
        help="time limit for the whole command, in place of the preset's steps",
    )
    train.add_argument("--resume", action="store_true", help="continue a training that was stopped")
    train.add_argument(
        "--from",
        dest="start",
        metavar="MODEL",
        type=model,
        help=f"start from this model's weights instead of random ones: {A_MODEL}",
    )
    train.add_argument(
        "--teacher", metavar="MODEL", type=model, help="learn from this teacher's targets"
    )
    train.add_argument("--device", help="cpu or cuda; by default CUDA if available")


def _preset(text: str) -> str:
    """Check a preset's name. Only `training` knows the names, and importing it needs torch."""
    from training.families import PRESETS

    if text not in PRESETS:
        raise argparse.ArgumentTypeError(f"must be one of {', '.join(PRESETS)}; got {text!r}")
    return text


def _train(options: argparse.Namespace) -> int:
    try:
        return _make_model(options)
    except KeyboardInterrupt:
        options.when_stopped = _when_stopped(options.out)
        raise


def _when_stopped(out: Path) -> str:
    from training.run import is_unfinished

    if out.exists():
        return f"stopped; {out} is complete"
    if is_unfinished(out):
        return "stopped; the same command with --resume continues"
    return "stopped; there is no checkpoint to resume"


def _make_model(options: argparse.Namespace) -> int:
    from hashsearch.models.storage import require_free
    from hashsearch.sources.loading import load_tiny_images
    from training.device import choose_device
    from training.families import PRESETS
    from training.job import require_suited, train
    from training.questions import questions
    from training.reading import read_examples, require_labels
    from training.run import require_none_unfinished

    for spec in (*options.data, *options.unlabelled):
        if spec.endswith(":test"):
            raise TrainingError(f"{spec} is for evaluation alone; train on another split")
    stop_on_sigterm()
    require_free(options.out)
    if not options.resume:
        require_none_unfinished(options.out)
    preset = PRESETS[options.preset]
    if options.unlabelled and not preset.takes_labels:
        raise TrainingError(
            f"{options.preset} learns no labels; name all sources with --data, not --unlabelled"
        )
    require_suited(preset, options.start, options.teacher)  # before images are read
    device = choose_device(options.device)
    folders = DataFolders.of_environment()
    examples = read_examples(options.data, options.unlabelled, folders)
    if preset.takes_labels:
        require_labels(examples, options.data)
    test = dataset_at_hand("cifar10", "test", folders)
    card = train(
        options.preset,
        preset,
        examples.images,
        options.out,
        data=" + ".join([*options.data, *options.unlabelled]),
        seed=options.seed,
        device=device,
        minutes=options.minutes,
        started=options.started,
        resume=options.resume,
        start=options.start,
        teacher=options.teacher,
        questions=questions(folders),
        withheld=load_tiny_images(test) if test else None,
        baseline=True,
        labels=examples.labels,
        report_gain=lambda gain: print(*map(shown, gain.lines()), sep="\n"),
    )
    metrics = [f"{name} {value}" for name, value in card.metrics.items()]
    print(", ".join([f"{options.out}: model {card.fingerprint[:12]}", *metrics]))
    return 0
