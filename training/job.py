"""A training job from images to a saved model."""

import shutil
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from hashsearch.errors import TrainingError
from hashsearch.models.card import PRETRAINED, Card
from hashsearch.models.folder import Saved, load_model, require_free, round_as_stored, save_model
from training.data import fit_standardization, sha256_of_images, split_off, without
from training.device import describe, has_bfloat16
from training.families import PRESETS
from training.families.base import Preset, Start, Work, settings_of
from training.measure import Describe, measure, seconds_to_measure
from training.report import write_report
from training.retrieval import Labelled
from training.run import Run
from training.targets import Targets, read_targets

HELD_OUT = 1000  # images kept from training, to measure reconstruction on
_TO_WRITE_S, _TO_WRITE_SHARE = 6.0, 0.02  # of a budget, kept for writing model and report
M = TypeVar("M", bound=nn.Module)


def train(
    name: str,
    preset: Preset[M],
    images: NDArray[np.uint8],
    out: Path,
    *,
    data: str,
    seed: int,
    device: str,
    minutes: float | None = None,
    started: float | None = None,
    resume: bool = False,
    start: Path | None = None,
    teacher: Path | None = None,
    questions: Sequence[Labelled] = (),
    withheld: NDArray[np.uint8] | None = None,
    baseline: bool = False,
) -> Card:
    """Train, measure, and save a model folder, a report in it.

    name: of the preset; images: (n, 32, 32, 3) uint8; data: what they are, for the card.
    minutes: the time from `started` (now, unless given; by time.monotonic()) until the model
    is saved, in place of the preset's numbers of steps. resume: go on with what
    `OUT.training` holds, if it holds something. start: a model folder whose weights, and
    standardisation of pixels, the training begins with, in place of random ones. teacher:
    a teacher's folder, whose targets are learnt. questions: to measure retrieval on; an
    image that is among their queries is not trained on, nor one of `withheld`. baseline:
    whether the report measures the bundled model beside this one.
    Raises InvalidModel if `out` exists or `start` or `teacher` cannot be read, and
    TrainingError if there are fewer images than a batch, the minutes are too few to
    measure and write in, the loss stops being a number or diverges, `start` or `teacher`
    does not suit the preset, or an unfinished training lies there that is not to be, or
    cannot be, resumed.
    """
    started = time.monotonic() if started is None else started
    require_free(out)
    begun, targets = require_suited(preset, start, teacher)
    torch.manual_seed(seed)
    seen = _without_queries(images, questions, withheld)
    taught = seen if targets is None else _with_targets(targets, seen)
    train_images, held_out = split_off(taught, HELD_OUT, np.random.default_rng(seed))
    _require_enough(preset, len(train_images), len(seen) - len(taught))
    recipe: dict[str, Any] = {
        "preset": name,
        "settings": settings_of(preset),
        "data": data,
        "images": len(train_images),
        "images_sha256": sha256_of_images(images),
        "left_out_as_queries": len(images) - len(seen),
        "questions": [asked.name for asked in questions],
        "seed": seed,
        "minutes_asked": minutes,
        "start": _origin(begun),
        "teacher": targets.teacher | {"targets_sha256": targets.sha256} if targets else None,
        "without_target": len(seen) - len(taught),
        "device": torch.device(device).type,
        "bfloat16": has_bfloat16(device),
    }
    run = Run(out, recipe, ("loss", *preset.terms), resume=resume, device=device)
    work = Work(run, train_images, seed, device, begun is not None, held_out, targets)
    model = _begin(preset, begun, train_images).to(device)
    if minutes is not None:
        closing = _seconds_to_close(preset, model, work, questions, baseline)
        run.deadline = _deadline(started, minutes, run.spent, closing)
    if resume and not run.resumed:
        print(f"nothing to resume in {run.folder}; this is a new training", file=sys.stderr)
    run.start()
    preset.learn(model, work)
    training = recipe | {
        **run.notes,
        "steps": run.steps,
        "minutes": round(run.seconds / 60, 2),
        "hardware": describe(device),
        "torch": torch.__version__,
    }
    return _close(preset, model, work, out, training, questions, baseline)


def require_suited(
    preset: Preset[Any], start: Path | None, teacher: Path | None
) -> tuple[Start | None, Targets | None]:
    """What a training starts from and learns from, checked. Raises as `train` does."""
    if teacher is not None and not preset.takes_targets:
        raise TrainingError(
            f"{teacher} was given as a teacher, but this preset learns from none; conv256 does"
        )
    return preset.start(start), None if teacher is None else read_targets(teacher)


def _without_queries(
    images: NDArray[np.uint8], questions: Sequence[Labelled], withheld: NDArray[np.uint8] | None
) -> NDArray[np.uint8]:
    for asked in questions:
        images = without(images, asked.withheld)
    return images if withheld is None else without(images, withheld)


def _with_targets(targets: Targets, images: NDArray[np.uint8]) -> NDArray[np.uint8]:
    known = targets.known(images)
    if not known.all():
        unknown = np.count_nonzero(~known)
        print(f"the teacher has no target for {unknown:,} images; left out", file=sys.stderr)
    return images[known]


def _require_enough(preset: Preset[Any], count: int, without_target: int) -> None:
    if count < preset.images_needed:
        unknown = f" ({without_target} more have no target)" if without_target else ""
        raise TrainingError(
            f"{count} images are fewer than one batch of {preset.images_needed}{unknown}; "
            "more are needed"
        )


def _begin(preset: Preset[M], begun: Start | None, images: NDArray[np.uint8]) -> M:
    model = preset.build()
    if begun is None:
        fit_standardization(preset.saved(model), images)
    else:
        preset.take_up(model, begun)
    return model


def _origin(begun: Start | None) -> dict[str, Any] | None:
    """For the card: from which model a training began."""
    if begun is None:
        return None
    return {"fingerprint": begun.card.fingerprint, "training": begun.card.training}


def _deadline(started: float, minutes: float, spent: float, closing: float) -> float:
    """When the steps must be done. Raises TrainingError if there is no time for any."""
    budget = minutes * 60
    closing += _TO_WRITE_S + _TO_WRITE_SHARE * budget
    begun = time.monotonic() - started
    if begun + closing > budget:
        raise TrainingError(
            f"{minutes:g} minutes are too few: reading took {begun / 60:.1f} minutes, and "
            f"measuring and writing take about {closing / 60:.1f}"
        )
    return started + budget - spent - closing


def _seconds_to_close(
    preset: Preset[M], model: M, work: Work, questions: Sequence[Labelled], baseline: bool
) -> float:
    """About how long measuring will take, by a model that is not trained yet."""
    model.eval()
    spent = seconds_to_measure(_describe(preset, model), questions, work.device)
    spent += preset.seconds_to_finish(model, work)
    model.train()
    if baseline:
        spent += seconds_to_measure(_describe_bundled(work.device), questions, work.device)
    return spent


def _close(
    preset: Preset[M],
    model: M,
    work: Work,
    out: Path,
    training: Mapping[str, Any],
    questions: Sequence[Labelled],
    baseline: bool,
) -> Card:
    """Measure and save a trained model, and what lies beside its weights."""
    saved = preset.saved(model)
    _require_numbers(saved, "is not a number after the last step")
    round_as_stored(saved)
    _require_numbers(saved, "is too large for the 16 bits that it is stored in")
    model.eval()
    sample = work.held_out if len(work.held_out) else work.images[:HELD_OUT]
    metrics = preset.measure(model, sample)
    metrics |= measure(_describe(preset, model), questions, work.device)
    bundled = measure(_describe_bundled(work.device), questions, work.device) if baseline else {}
    beside = work.run.folder / "beside"
    shutil.rmtree(beside, ignore_errors=True)  # of a life that ended while writing it
    beside.mkdir()
    preset.finish(model, work, beside)
    write_report(beside / "report", work.run.log, preset.draw(model, sample), metrics, bundled)
    card = save_model(out, saved, training=training, metrics=metrics, beside=beside.iterdir())
    work.run.delete()
    return card


def _describe(preset: Preset[M], model: M) -> Describe:
    return lambda tiny: preset.describe(model, tiny)


def _describe_bundled(device: str) -> Describe:
    """Of the bundled model, which is always of conv256's family."""
    model, _ = load_model(PRETRAINED)
    return _describe(PRESETS["conv256"], model.to(device))


def _require_numbers(model: Saved, otherwise: str) -> None:
    """Raise TrainingError if a weight is not: the loss was that before the last step."""
    weights: Mapping[str, torch.Tensor] = model.state_dict()
    for name, part in weights.items():
        if not part.isfinite().all():
            raise TrainingError(f"{name} {otherwise}; no model was saved")
