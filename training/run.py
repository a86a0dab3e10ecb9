"""A training job on disk: stages of steps that can be stopped anywhere and resumed.

What a job draws at random it draws from its seed and the number of the step, so
that a checkpoint holds weights and optimizers and nothing else, and a job that was
stopped ends with the weights of one that was not.
"""

import csv
import json
import math
import os
import pickle
import shutil
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any, Protocol

import torch
from torch import Tensor

from hashsearch.durable import sync_folder
from hashsearch.errors import TrainingError
from hashsearch.progress import progress_report
from training.portable import has_portable, read_portable, write_portable
from training.schedule import DECAY

_CHECKPOINT, LOG, PORTABLE = "checkpoint.pt", "log.csv", "portable"
_CHECKPOINT_EVERY_S = 60.0
_CHECKPOINT_SHARE = 0.05  # of the time at most, where they are large
_PORTABLE_EVERY_S = 120.0
_MEASURE_S = 6.0  # how long the speed is measured before a budget of time becomes steps
_MEASURE_SHARE = 0.1  # of a stage's time at most
_SPARE = 0.03  # of a stage's time, since the speed varies
_WARM_STEPS = 4  # before the speed is measured: on a GPU they capture the step
_READ_EVERY = 20  # steps on a GPU, which runs ahead meanwhile
_LOG_ROWS = 1000  # at most, a stage
# Of a checkpoint.
_ENTRIES = {
    *(
        "identity",
        "steps",
        "seconds",
        "notes",
        "stage",
        "step",
        "begun",
        "first",
        "log_bytes",
        "parts",
    )
}
# Of a job's identity, what may differ where a portable checkpoint is resumed.
_OF_THE_MACHINE = {"device", "bfloat16", "minutes_asked"}
_DIVERGED = 10.0

Update = Callable[[int, float], Mapping[str, Tensor | float]]


class Stateful(Protocol):
    """What a checkpoint keeps: a module, an optimizer."""

    def state_dict(self) -> dict[str, Any]: ...
    def load_state_dict(self, state_dict: dict[str, Any], /) -> Any: ...


class Portable(Protocol):
    """What a stage can be resumed from on another machine: less than all its state."""

    def portable(self) -> dict[str, Tensor]: ...
    def load_portable(self, tensors: dict[str, Tensor], /) -> None: ...


class Run:
    """The working folder of one training job, `MODEL.training` beside the model to be.

    identity: what must be the same for the job to be resumed: preset, settings, data,
    seed, budget. columns: names of what the steps report, for the log. device: where
    the steps are taken.
    Raises TrainingError if an unfinished job lies there and `resume` is false,
    or if it is another job.
    """

    def __init__(
        self,
        out: Path,
        identity: Mapping[str, Any],
        columns: tuple[str, ...],
        *,
        resume: bool,
        device: str = "cpu",
    ):
        self.folder = _folder(out)
        self.identity = json.dumps(identity, sort_keys=True)
        self.columns = columns
        self.deadline: float | None = None  # of the last stage, by time.monotonic()
        self.steps: dict[str, int] = {}  # of each stage that was begun
        self.seconds = 0.0  # spent on steps, over all the job's lives
        self.notes: dict[str, str] = {}  # what a stage decided, for the card
        self._read_every = _READ_EVERY if torch.device(device).type == "cuda" else 1
        self._saved: dict[str, Any] | None = None
        self._portable: tuple[dict[str, Tensor], dict[str, Any]] | None = None
        if not resume:
            require_none_unfinished(out)
        if not self._open():
            self.folder.mkdir(parents=True, exist_ok=True)
            with self.log.open("w", newline="") as log:
                csv.writer(log).writerow(("stage", "step", "seconds", *columns))

    @property
    def log(self) -> Path:
        return self.folder / LOG

    @property
    def portable(self) -> Path:
        """The folder of the portable checkpoint, if the job has one."""
        return self.folder / PORTABLE

    def stage(
        self,
        name: str,
        parts: Mapping[str, Stateful],
        update: Update,
        *,
        batch: int,
        steps: int,
        share: float = 1.0,
        prepare: Callable[[], None] | None = None,
        scale: float = 1.0,
        portable: Portable | None = None,
    ) -> None:
        """Take a stage's steps, those that an earlier life of the job has not taken.

        parts: what the steps change; all of it is in the checkpoints. update: takes one
        step, given its number and the stage's progress from 0 to 1, and returns what it
        measured, "loss" among it. batch: images a step, for the progress. Where the run
        has a deadline, the measured speed fixes the number of steps in place of `steps`,
        so that they take `share` of the time that is left; a resumed stage keeps its
        number. It is lowered should they take longer. prepare: fills parts before the
        first step; a resumed stage has them from its checkpoint. scale: a loss diverges
        beyond ten times the first one, or ten times this where that is more. portable:
        what is also written as a portable checkpoint, up to the decay of the rate.
        Raises TrainingError when the loss is no number or diverges, and
        KeyboardInterrupt, after a checkpoint, when asked to stop.
        """
        saved = self._saved
        if saved is not None and saved["stage"] != name:
            assert name in saved["steps"], "stages come in one order"
            return  # done, in an earlier life
        ends = None if self.deadline is None else _later(self.deadline, share)
        stage = _Stage(name, parts, update, batch, scale, portable, ends)
        if saved is not None:
            for part, state in saved["parts"].items():
                parts[part].load_state_dict(state)
            stage.step, stage.begun, stage.first = (saved[n] for n in ("step", "begun", "first"))
            self._saved = None
        else:
            if prepare is not None:
                prepare()
            if portable is not None and self._portable is not None:
                tensors, about = self._portable
                portable.load_portable(tensors)
                stage.step = stage.begun = about["step"]
                self.seconds, self._portable = about["seconds"], None
            fitting = steps if ends is None else stage.begun + _affordable(parts, update, ends)
            self.steps[name] = max(fitting, stage.begun)
            self._write(stage)
        self._go(stage)

    def delete(self) -> None:
        """The job is done and its model saved."""
        shutil.rmtree(self.folder)

    def _go(self, stage: "_Stage") -> None:
        written = portable = began = time.monotonic()
        pause, started_at = _CHECKPOINT_EVERY_S, stage.step
        decaying = stage.step > stage.begun and self._progress(stage, stage.step - 1) >= DECAY
        images = (self.steps[stage.name] - stage.step) * stage.batch
        with (
            _stop_requested() as stop,
            progress_report(stage.name, images) as report,
            self.log.open("a", newline="") as log,
        ):
            rows, reported, read = csv.writer(log), stage.step, began
            while stage.step < self.steps[stage.name]:
                steps, step = self.steps[stage.name], stage.step
                progress = self._progress(stage, step)
                if stage.portable is not None and progress >= DECAY and not decaying:
                    self._write_portable(stage)  # the last one
                decaying = progress >= DECAY
                measured = stage.update(step, progress)
                stage.step += 1
                if stage.step % self._read_every and stage.step != steps:
                    continue
                values = {name: float(value) for name, value in measured.items()}
                now = time.monotonic()
                self.seconds, read = self.seconds + now - read, now
                stage.require_sound(values["loss"])
                every = max(self._read_every, steps // _LOG_ROWS)
                if step % every < self._read_every or stage.step == steps:
                    row = (f"{values[c]:.6g}" if c in values else "" for c in self.columns)
                    rows.writerow((stage.name, step, f"{self.seconds:.2f}", *row))
                report.advance((stage.step - reported) * stage.batch, f"loss {values['loss']:.4f}")
                reported = stage.step
                self._keep_to_time(stage, (stage.step - started_at) / max(now - began, 1e-9))
                due = stop() or now - portable > _PORTABLE_EVERY_S
                if stage.portable is not None and due and not decaying:
                    self._write_portable(stage)
                    portable = time.monotonic()
                if stage.step >= self.steps[stage.name] or stop() or now - written > pause:
                    log.flush()
                    os.fsync(log.fileno())
                    asked = time.monotonic()
                    self._write(stage)
                    written = time.monotonic()
                    pause = max(pause, (written - asked) / _CHECKPOINT_SHARE)
                    if stop():
                        raise KeyboardInterrupt
                read = time.monotonic()
        if stage.portable is not None and not decaying:
            self._write_portable(stage)  # too few steps for a decay

    def _progress(self, stage: "_Stage", step: int) -> float:
        return (step - stage.begun) / (self.steps[stage.name] - stage.begun)

    def _keep_to_time(self, stage: "_Stage", speed: float) -> None:
        """Lower the number of steps if at this speed, in steps a second, they end too late."""
        if stage.ends is None:
            return
        fitting = stage.step + int(max(0.0, stage.ends - time.monotonic()) * speed)
        self.steps[stage.name] = max(stage.step, min(self.steps[stage.name], fitting))

    def _write(self, stage: "_Stage") -> None:
        temporary = self.folder / f".{_CHECKPOINT}"
        with temporary.open("wb") as file:
            torch.save(
                {
                    "identity": self.identity,
                    "steps": self.steps,
                    "seconds": self.seconds,
                    "notes": self.notes,
                    "stage": stage.name,
                    "step": stage.step,
                    "begun": stage.begun,
                    "first": stage.first,
                    "log_bytes": self.log.stat().st_size,
                    "parts": {name: part.state_dict() for name, part in stage.parts.items()},
                },
                file,
            )
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(self.folder / _CHECKPOINT)
        sync_folder(self.folder)

    def _write_portable(self, stage: "_Stage") -> None:
        assert stage.portable is not None
        about = {
            "identity": _portable_part(self.identity),
            "stage": stage.name,
            "step": stage.step,
            "seconds": self.seconds,
        }
        write_portable(self.portable, stage.portable.portable(), about)

    def _open(self) -> bool:
        """Read what an earlier life left; whether its log goes on."""
        path = self.folder / _CHECKPOINT
        if path.exists():
            saved = self._read_exact(path)
            if saved["identity"] == self.identity:
                self.steps, self.seconds = saved["steps"], saved["seconds"]
                self.notes = saved["notes"]
                os.truncate(self.log, saved["log_bytes"])  # rows of steps that are taken again
                self._saved = saved
                return True
            theirs = saved["identity"]
            if not has_portable(self.portable):
                raise self._another(json.loads(theirs), json.loads(self.identity))
        if not has_portable(self.portable):
            return False
        tensors, about = read_portable(self.portable)
        ours = _portable_part(self.identity)
        if about.get("identity") != ours:
            raise self._another(about.get("identity") or {}, ours)
        self._portable = tensors, about
        return False

    def _read_exact(self, path: Path) -> dict[str, Any]:
        try:
            saved: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
            whole = saved.keys() == _ENTRIES and self.log.stat().st_size >= saved["log_bytes"]
        except (OSError, RuntimeError, EOFError, AttributeError, pickle.UnpicklingError) as error:
            raise TrainingError(
                f"{path} cannot be read; delete the folder to start again"
            ) from error
        if not whole:
            raise TrainingError(f"{path} is not whole; delete the folder to start again")
        return saved

    def _another(self, theirs: dict[str, Any], ours: dict[str, Any]) -> TrainingError:
        odd = ", ".join(sorted(n for n in theirs | ours if theirs.get(n) != ours.get(n)))
        return TrainingError(f"{self.folder} holds another training: it differs in {odd}")


class _Stage:
    """A stage at work: how far it is, and until when it may run."""

    def __init__(
        self,
        name: str,
        parts: Mapping[str, Stateful],
        update: Update,
        batch: int,
        scale: float,
        portable: Portable | None,
        ends: float | None,
    ):
        self.name, self.parts, self.update = name, parts, update
        self.batch, self.scale, self.portable, self.ends = batch, scale, portable, ends
        self.step = self.begun = 0  # begun: the first step since a portable checkpoint
        self.first: float | None = None  # loss

    def require_sound(self, loss: float) -> None:
        self.first = _require_sound(loss, self.first, self.name, self.step - 1, self.scale)


def require_none_unfinished(out: Path) -> None:
    """Raise TrainingError if a training of this model was begun and not finished."""
    folder = _folder(out)
    if (folder / _CHECKPOINT).exists() or has_portable(folder / PORTABLE):
        raise TrainingError(
            f"{folder} holds an unfinished training; --resume goes on with it, or delete the folder"
        )


def _folder(out: Path) -> Path:
    return out.with_name(f"{out.name}.training")


def _portable_part(identity: str) -> dict[str, Any]:
    entries = json.loads(identity).items()
    return {name: value for name, value in entries if name not in _OF_THE_MACHINE}


def _later(deadline: float, share: float) -> float:
    """The time at which this share of what is left until the deadline has passed."""
    now = time.monotonic()
    return now + max(0.0, deadline - now) * share


def _affordable(parts: Mapping[str, Stateful], update: Update, ends: float) -> int:
    """How many steps fit, by the speed of some that are taken and taken back."""
    before = {name: _cloned(part.state_dict()) for name, part in parts.items()}
    left = max(0.0, ends - time.monotonic())
    for step in range(_WARM_STEPS):
        float(update(step, 0.0)["loss"])
        if time.monotonic() > ends - left / 2:
            break  # a step takes a good part of the time
    taken, started = 0, time.monotonic()
    while (spent := time.monotonic() - started) < min(
        _MEASURE_S, left * _MEASURE_SHARE
    ) or not taken:
        for _ in range(4):
            measured = update(taken, 0.0)
            taken += 1
        float(measured["loss"])  # waits for the device
    for name, part in parts.items():
        _restore(part.state_dict(), before[name])
    return max(1, int((ends - time.monotonic()) * (1 - _SPARE) * taken / spent))


def _tensors(state: Any, path: str = "") -> Iterator[tuple[str, Tensor]]:
    """All tensors of nested dictionaries and lists, with where each is."""
    if isinstance(state, Tensor):
        yield path, state
    elif isinstance(state, dict | list | tuple):
        entries = state.items() if isinstance(state, dict) else enumerate(state)
        for name, value in entries:
            yield from _tensors(value, f"{path}/{name}")


def _cloned(state: dict[str, Any]) -> dict[str, Tensor]:
    return {path: part.clone() for path, part in _tensors(state)}


def _restore(state: dict[str, Any], before: Mapping[str, Tensor]) -> None:
    """Undo changes in place, since a captured step goes on with these very tensors.

    What an optimizer has made since is set to zero, as it would be made.
    """
    with torch.no_grad():
        for path, part in _tensors(state):
            if path in before:
                part.copy_(before[path])
            else:
                part.zero_()


def _require_sound(loss: float, first: float | None, stage: str, step: int, scale: float) -> float:
    first = loss if first is None else first
    if not math.isfinite(loss) or loss > _DIVERGED * max(scale, abs(first)):
        raise TrainingError(
            f"{stage}: the loss became {loss:.4g} at step {step}, from {first:.4g} at the first; "
            "no model was saved"
        )
    return first


@contextmanager
def _stop_requested() -> Iterator[Callable[[], bool]]:
    """Turn the first Ctrl-C or SIGTERM into a question answered yes; a second one acts at once."""
    asked = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield asked.is_set  # signals are not ours to handle
        return
    handled = (signal.SIGINT, signal.SIGTERM)
    before = {number: signal.getsignal(number) for number in handled}

    def restore() -> None:
        for number, handler in before.items():
            signal.signal(number, handler)

    def ask(number: int, frame: FrameType | None) -> None:
        asked.set()
        restore()

    for number in handled:
        signal.signal(number, ask)
    try:
        yield asked.is_set
    finally:
        restore()
