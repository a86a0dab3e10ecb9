"""A training job from images to a saved model."""

import shutil
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
from training.measure import measure, seconds_to_measure
from training.report import write_report
from training.retrieval import Labelled
from training.run import Run
from training.targets import Targets, read_targets

HELD_OUT = 1000  # images kept from training, to measure reconstruction on
COLUMNS = (
    *("loss", "invariance", "rate", "contrast", "variance", "covariance"),
    *("cosine", "features", "head", "code", "address"),
)
_TO_WRITE_S = 5.0  # to write model and report, beside 2% of a budget
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
    Raises InvalidModel if `out` exists or `start` cannot be read, and TrainingError
    if there are fewer images than a batch, the loss stops being a number or
    diverges, `start` or `teacher` does not suit the preset, or an unfinished training lies
    there that is not to be, or cannot be, resumed.
    """
    started = time.monotonic() if started is None else started
    require_free(out)
    begun = preset.start(start)
    torch.manual_seed(seed)
    seen = _without_queries(images, questions, withheld)
    train_images, held_out = split_off(seen, HELD_OUT, np.random.default_rng(seed))
    train_images, targets = _with_targets(preset, teacher, train_images)
    if len(train_images) < preset.images_needed:
        raise TrainingError(
            f"{len(train_images)} images are fewer than one batch of {preset.images_needed}; "
            "more are needed"
        )
    recipe: dict[str, Any] = {
        "preset": name,
        "settings": settings_of(preset),
        "data": data,
        "images": len(train_images),
        "images_sha256": sha256_of_images(images),
        "left_out_as_queries": len(images) - len(seen),
        "seed": seed,
        "minutes_asked": minutes,
        "start": _origin(begun),
        "teacher": targets.teacher if targets else None,
        "device": torch.device(device).type,
        "bfloat16": has_bfloat16(device),
    }
    run = Run(out, recipe, COLUMNS, resume=resume, device=device)
    model = _begin(preset, begun, train_images).to(device)
    if minutes is not None:
        more = len(train_images) * preset.views_at_the_end
        end = started + minutes * 60 - run.seconds
        run.deadline = end - _seconds_to_close(preset, model, questions, device, more, baseline)
        run.deadline -= _TO_WRITE_S + 0.02 * minutes * 60
    work = Work(run, train_images, seed, device, begun is not None, targets)
    preset.learn(model, work)
    training = recipe | {
        **run.notes,
        "steps": run.steps,
        "minutes": round(run.seconds / 60, 2),
        "hardware": describe(device),
        "torch": torch.__version__,
    }
    saved = preset.saved(model)
    _require_numbers(saved, "is not a number after the last step")
    round_as_stored(saved)
    _require_numbers(saved, "is too large for the 16 bits that it is stored in")
    model.eval()
    sample = held_out if len(held_out) else train_images[:HELD_OUT]
    metrics = preset.measure(model, sample)
    metrics |= measure(lambda tiny: preset.describe(model, tiny), questions, device)
    others = _bundled(questions, device) if baseline else {}
    beside = run.folder / "beside"
    shutil.rmtree(beside, ignore_errors=True)  # of a life that ended while writing it
    beside.mkdir()
    preset.finish(model, work, beside)
    write_report(beside / "report", run.log, preset.draw(model, sample), metrics, others)
    card = save_model(out, saved, training=training, metrics=metrics, beside=beside.iterdir())
    run.delete()
    return card


def _without_queries(
    images: NDArray[np.uint8], questions: Sequence[Labelled], withheld: NDArray[np.uint8] | None
) -> NDArray[np.uint8]:
    for asked in questions:
        images = without(images, asked.withheld)
    return images if withheld is None else without(images, withheld)


def _with_targets(
    preset: Preset[Any], teacher: Path | None, images: NDArray[np.uint8]
) -> tuple[NDArray[np.uint8], Targets | None]:
    """The images that the teacher has targets for; all, where there is no teacher."""
    if teacher is None:
        return images, None
    if not preset.takes_targets:
        raise TrainingError("this preset learns from no teacher; conv256 does")
    targets, known = read_targets(teacher, images)
    return images[known], targets


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


def _seconds_to_close(
    preset: Preset[M],
    model: M,
    questions: Sequence[Labelled],
    device: str,
    more: int,
    baseline: bool,
) -> float:
    """About how long measuring will take, on a model that is not trained yet."""
    model.eval()
    spent = seconds_to_measure(
        lambda tiny: preset.describe(model, tiny), questions, device, more=more
    )
    model.train()
    if baseline:
        bundled, _ = load_model(PRETRAINED)
        spent += seconds_to_measure(_of_bundled(bundled.to(device)), questions, device)
    return spent


def _bundled(questions: Sequence[Labelled], device: str) -> dict[str, float]:
    bundled, _ = load_model(PRETRAINED)
    return measure(_of_bundled(bundled.to(device)), questions, device)


def _of_bundled(model: nn.Module) -> Any:
    return lambda tiny: PRESETS["conv256"].describe(model, tiny)


def _require_numbers(model: Saved, otherwise: str) -> None:
    """Since the loss tells of every step but the last."""
    weights: Mapping[str, torch.Tensor] = model.state_dict()
    for name, part in weights.items():
        if not part.isfinite().all():
            raise TrainingError(f"{name} {otherwise}; no model was saved")
