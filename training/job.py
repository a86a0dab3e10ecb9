"""A training job, from images to a saved model."""

import shutil
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from hashsearch.codes import pack_bits
from hashsearch.commands.output import escaped
from hashsearch.errors import TrainingError
from hashsearch.hardware import describe
from hashsearch.models.autoencoder import StoredModel
from hashsearch.models.card import PRETRAINED, Card, label_sets, model_folder, model_name
from hashsearch.models.storage import read_model, require_free, round_as_stored, save_model
from hashsearch.wording import counted
from training.closeness import (
    NEEDED,
    CodesOf,
    closeness_drawings,
    closeness_of,
    count_distances,
    seconds_to_count,
)
from training.data import (
    Examples,
    fit_standardization,
    occur_in,
    sha256_of_images,
)
from training.device import has_bfloat16
from training.families import PRESETS
from training.families.base import Preset, Start, Work, settings_of
from training.gain import Before, Gain, seen_questions
from training.labels import ClassLabels
from training.measure import Describe, describe_all, measure, seconds_to_measure
from training.retrieval import Question
from training.run import Run
from training.targets import Targets, read_targets
from training.training_report import notes_on, write_report

HELD_OUT = 1000  # images not trained on, for measuring reconstruction and closeness
# A tenth of these is HELD_OUT. Fitted to 257, 1,000, 10,000 and 39,000 images of CIFAR-10, 256
# principal components keep 91.8, 94.9, 96.2 and 96.3% of the variance of 2,000 others.
ENOUGH = 10_000
_TO_WRITE_S, _TO_WRITE_SHARE = 6.0, 0.02  # part of a budget kept for writing model and report
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
    questions: Sequence[Question] = (),
    withheld: NDArray[np.uint8] | None = None,
    baseline: bool = False,
    labels: ClassLabels | None = None,
    report_gain: Callable[[Gain], None] = lambda gain: None,
) -> Card:
    """Train and measure a model, and save it in a model folder that includes a report.

    name: of the preset; images: (n, 32, 32, 3) uint8; data: their description, for the card.
    minutes: time from `started` (a time.monotonic() time; now by default) until the model
    is saved; it replaces the preset's numbers of steps. resume: continue the training in
    `OUT.training`, if there is one. start: a model folder whose weights and pixel
    standardisation replace random initialisation. teacher: a teacher's folder; the model
    learns its targets. questions: retrieval tasks to measure; their `withheld` images and
    those in `withheld` are not trained on. baseline: whether the report also measures the
    bundled model. labels: of the images; only presets that learn labels use them. report_gain:
    is called, once the model is saved, with what it gained over `start`, or over the bundled model,
    if images with labels could be held out.
    Raises InvalidModel if `out` exists or `start` or `teacher` cannot be read, and
    TrainingError if there are fewer images than the preset needs, the minutes are too few for
    measuring and writing, the loss becomes NaN or infinite or diverges, `start` or
    `teacher` does not fit the preset, or an unfinished training exists and `resume` is
    false or it cannot be resumed.
    """
    started = time.monotonic() if started is None else started
    require_free(out)
    initial, targets = require_suited(preset, start, teacher)
    torch.manual_seed(seed)
    given = Examples(images, labels if preset.takes_labels else None)
    allowed = given[~_are_withheld(images, questions, withheld)]
    usable = allowed if targets is None else _with_targets(targets, allowed)
    if preset.takes_labels:
        usable = _with_learnable_labels(usable, len(images) - len(usable))
    examples, held_out = usable.split(HELD_OUT, np.random.default_rng(seed))
    _require_enough(preset, len(examples), len(allowed) - len(usable))
    seen = seen_questions(examples, held_out) if preset.takes_labels else []
    measured = [f"{one.name} ({one.meaning})" for one in (*seen, *questions)]
    withholding = (
        "queries, unseen classes and test images of CIFAR-10 are withheld from the training: "
        f"{len(images) - len(allowed):,} of {len(images):,} images"
        if questions or withheld is not None
        else "CIFAR-10 and tinyimagenet32 are not at hand, so nothing is withheld"
    )
    _say(f"measuring on {' and '.join(measured) or 'no labels'}; {withholding}")
    if usable.labels is not None:
        _say(f"learning labels of {usable.labels.summary()}")
    for warning in _warnings(preset, usable, seen, initial):
        _say(f"warning: {warning}")
    recipe: dict[str, Any] = {
        "preset": name,
        "settings": settings_of(preset),
        "data": data,
        "images": len(examples),
        "images_sha256": sha256_of_images(images),
        "left_out_as_queries": len(images) - len(allowed),
        "questions": [question.name for question in (*seen, *questions)],
        "seed": seed,
        "minutes_asked": minutes,
        "start": _origin(initial),
        "teacher": targets.teacher | {"targets_sha256": targets.sha256} if targets else None,
        "without_target": len(allowed) - len(usable),
        "device": torch.device(device).type,
        "bfloat16": has_bfloat16(device),
    }
    if examples.labels is not None:
        recipe["labels"] = examples.labels.about()
    run = Run(out, recipe, ("loss", *preset.terms), resume=resume, device=device)
    work = Work(
        run,
        examples.images,
        seed,
        device,
        begun=initial is not None,
        held_out=held_out.images,
        targets=targets,
        labels=examples.labels,
        held_labels=held_out.labels,
    )
    model = _initialised(preset, initial, examples.images).to(device)
    asked = _Asked(
        (*seen, *questions),
        baseline,
        Before.of(model_folder(start), seen, device) if seen else None,
    )
    if minutes is not None:
        run.deadline = _deadline(
            started, minutes, run.spent, _seconds_to_close(preset, model, work, asked)
        )
    if resume and not run.resumed:
        print(f"nothing to resume in {run.folder}; starting a new training", file=sys.stderr)
    preset.learn(model, work)
    training = recipe | {
        **run.notes,
        "steps": run.steps,
        "minutes": round(run.seconds / 60, 2),
        "hardware": describe(device),
        "torch": torch.__version__,
    }
    card, gain = _close(preset, model, work, out, training, asked)
    if gain is not None:
        report_gain(gain)
    return card


def require_suited(
    preset: Preset[Any], start: Path | None, teacher: Path | None
) -> tuple[Start | None, Targets | None]:
    """Read and check the initial weights and the teacher's targets. Raises as `train` does."""
    if teacher is not None and not preset.takes_targets:
        raise TrainingError(
            f"this preset cannot learn from a teacher ({model_name(teacher)}); conv256 can"
        )
    return preset.start(start), None if teacher is None else read_targets(teacher)


def _are_withheld(
    images: NDArray[np.uint8], questions: Sequence[Question], withheld: NDArray[np.uint8] | None
) -> NDArray[np.bool_]:
    """(n,) bool: which images are asked of, or withheld otherwise."""
    parts = [question.withheld for question in questions]
    parts += [] if withheld is None else [withheld]
    return occur_in(images, np.concatenate([images[:0], *parts]))


def _with_targets(targets: Targets, examples: Examples) -> Examples:
    known = targets.known(examples.images)
    if not known.all():
        unknown = counted(int(np.count_nonzero(~known)), "image")
        print(f"left out {unknown} that the teacher has no target for", file=sys.stderr)
    return examples[known]


@dataclass(frozen=True, slots=True)
class _Asked:
    """What is measured at the end. before: to compare with, if labels are learned."""

    questions: Sequence[Question]
    baseline: bool
    before: Before | None


def _say(text: str) -> None:
    """Print to the standard error; names of labels and sources may hold control characters."""
    print(escaped(text), file=sys.stderr)


def _warnings(
    preset: Preset[Any], usable: Examples, seen: Sequence[Question], initial: Start | None
) -> Iterator[str]:
    tunes = preset.takes_labels and initial is not None
    if len(usable) < ENOUGH and not tunes:
        yield f"{counted(len(usable), 'image')} came; a good model needs at least {ENOUGH:,}"
    if usable.labels is None:
        return
    for own in usable.of_sets():
        if own.labels is not None and (warning := own.labels.warning()):
            yield warning
    if len(seen) < len(usable.labels.sets):
        yield (
            "too few images are held out, or left to search, for what is gained to be measured "
            + ("on all sources" if seen else "at all")
        )
    if seen and initial is not None and (learned := label_sets(initial.card.training)):
        yield (
            f"the initial model has learned labels of {', '.join(learned)}; if images that are "
            "held out now are among these, it finds them better than it would find others"
        )


def _with_learnable_labels(examples: Examples, left_out: int) -> Examples:
    """left_out: number of images that may not be trained on, for the error's message."""
    labels = ClassLabels.of_sets([]) if examples.labels is None else examples.labels
    try:
        return Examples(examples.images, labels.learnable())
    except TrainingError as error:
        if not left_out:
            raise
        why = "as they are searched for or have no target"
        raise TrainingError(
            f"{error}; {counted(left_out, 'image')} were left out, {why}"
        ) from error


def _require_enough(preset: Preset[Any], count: int, without_target: int) -> None:
    needed = least = preset.images_needed
    if count < needed:
        part, share = (4, "up to a quarter") if preset.takes_labels else (10, "a tenth")
        while least - min(HELD_OUT, least // part) < needed:
            least += 1
        have = "has" if without_target == 1 else "have"
        unknown = f" ({without_target:,} more {have} no target)" if without_target else ""
        raise TrainingError(
            f"{counted(count, 'image')} to train on {'is' if count == 1 else 'are'} fewer than the "
            f"{needed:,} that this preset needs{unknown}; give at least {least:,}, since "
            f"{share} of them is held out, and {ENOUGH:,} for a good model"
        )


def _initialised(preset: Preset[M], initial: Start | None, images: NDArray[np.uint8]) -> M:
    model = preset.build()
    if initial is None:
        fit_standardization(preset.saved(model), images)
    else:
        preset.take_up(model, initial)
    return model


def _origin(initial: Start | None) -> dict[str, Any] | None:
    """The card's record of the model that a training started from."""
    if initial is None:
        return None
    return {"fingerprint": initial.card.fingerprint, "training": initial.card.training}


def _deadline(started: float, minutes: float, spent: float, closing: float) -> float:
    """Time by which the steps must end. Raises TrainingError if no time is left for steps."""
    budget = minutes * 60
    closing += _TO_WRITE_S + _TO_WRITE_SHARE * budget
    elapsed = time.monotonic() - started
    if elapsed + closing > budget:
        raise TrainingError(
            f"{minutes:g} of --minutes is too little: beginning took {elapsed / 60:.1f}, measuring "
            f"and writing take about {closing / 60:.1f}, and the training has to follow"
        )
    return started + budget - spent - closing


def _seconds_to_close(preset: Preset[M], model: M, work: Work, asked: _Asked) -> float:
    """Estimate the time for measuring and `finish`, with the model as it is before training."""
    model.eval()
    spent = seconds_to_measure(_describe(preset, model), asked.questions, work.device)
    spent += preset.seconds_to_finish(model, work)
    codes_of = _codes_of(preset, model, work)
    if codes_of is not None and len(work.held_out) >= NEEDED:
        spent += seconds_to_count(codes_of, work.held_out)
    if asked.before is not None:
        spent += seconds_to_measure(_describe(preset, model), asked.before.questions, work.device)
    model.train()
    if asked.baseline:
        spent += seconds_to_measure(_describe_bundled(work.device), asked.questions, work.device)
    return spent


def _close(
    preset: Preset[M],
    model: M,
    work: Work,
    out: Path,
    training: dict[str, Any],
    asked: _Asked,
) -> tuple[Card, Gain | None]:
    """Measure a trained model; save it with its report and what `finish` writes."""
    saved = preset.saved(model)
    _require_finite(saved, "is not finite after the last step")
    round_as_stored(saved)
    _require_finite(saved, "is too large for the 16 bits that it is stored in")
    model.eval()
    sample = work.held_out if len(work.held_out) else work.images[:HELD_OUT]
    metrics = preset.measure(model, sample)
    metrics |= measure(_describe(preset, model), asked.questions, work.device)
    bundled = {}
    if asked.baseline:
        bundled = measure(_describe_bundled(work.device), asked.questions, work.device)
    closeness, curves = None, []
    notes = notes_on(asked.questions, metrics, len(sample), bool(len(work.held_out)))
    codes_of = _codes_of(preset, model, work)
    if codes_of is not None and len(work.held_out) < NEEDED:
        note = (
            f"Fewer than {NEEDED} images are held out, too few to say what a distance means: hits "
            "have no word of closeness, and duplicates are asked for with a radius."
        )
        notes.append(note)
        print(f"warning: {note}", file=sys.stderr)
    elif codes_of is not None:
        unlike = None if work.held_labels is None else work.held_labels.unlike()
        distances = count_distances(codes_of, work.held_out, unlike=unlike)
        closeness = closeness_of(distances)
        curves = closeness_drawings(distances, closeness)
        if closeness is None:
            note = "Different pictures have equal codes, so hits have no word of closeness."
            notes.append(note)
            print(f"warning: {note}", file=sys.stderr)
        metrics["copies_found"] = round(distances.found, 4)
        notes.append(
            "copies_found is the share of recompressed and resized copies to which their own "
            "picture is nearest; where n pictures are equally near, 1/n of a copy counts."
        )
    gain = None
    if codes_of is not None and asked.before is not None:
        gain = asked.before.gain(codes_of)
        training["gain"] = gain.about()
    work.run.ensure_folder()  # a preset in closed form has no stage
    beside = work.run.folder / "beside"
    shutil.rmtree(beside, ignore_errors=True)  # left by a process that was killed while writing it
    beside.mkdir()
    preset.finish(model, work, beside)
    drawings = [*preset.draw(model, sample), *curves]
    write_report(beside / "report", work.run.log, drawings, metrics, bundled, training, notes, gain)
    card = save_model(
        out,
        saved,
        training=training,
        metrics=metrics,
        closeness=closeness,
        beside=beside.iterdir(),
    )
    work.run.delete()
    return card, gain


def _describe(preset: Preset[M], model: M) -> Describe:
    return lambda tiny: preset.describe(model, tiny)


def _codes_of(preset: Preset[M], model: M, work: Work) -> CodesOf | None:
    """The model's packed codes of images; None if it makes none."""
    describe = _describe(preset, model)

    def codes_of(tiny: NDArray[np.uint8]) -> NDArray[np.uint8]:
        return pack_bits(describe_all(describe, tiny, work.device)["codes"].cpu().numpy())

    return codes_of if "codes" in describe_all(describe, work.images[:1], work.device) else None


def _describe_bundled(device: str) -> Describe:
    """`describe` of the bundled model, by the preset that it was trained with."""
    model, card = read_model(PRETRAINED)
    return _describe(PRESETS[card.training["preset"]], model.to(device))


def _require_finite(model: StoredModel, problem: str) -> None:
    """Raise TrainingError if a weight is not finite; no loss was computed after the last step."""
    weights: Mapping[str, torch.Tensor] = model.state_dict()
    for name, part in weights.items():
        if not part.isfinite().all():
            raise TrainingError(f"{name} {problem}; no model was saved")
