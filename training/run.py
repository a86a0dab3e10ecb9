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
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor

from hashsearch.durable import sync_folder
from hashsearch.errors import TrainingError
from hashsearch.progress import progress_report
from training.budget import Stateful, Update, affordable, load_in_place
from training.portable import has_portable, read_portable, write_portable
from training.schedule import DECAY
from training.stopping import stop_requested

_CHECKPOINT, LOG, PORTABLE = "checkpoint.pt", "log.csv", "portable"
_CHECKPOINT_EVERY_S = 60.0
_CHECKPOINT_SHARE = 0.05  # of the time at most, where they are large
_PORTABLE_EVERY_S = 120.0
_READ_EVERY_S, _READ_EVERY = 1.0, 500  # seconds and steps at most on a GPU, which runs ahead
_LOG_ROWS = 1000  # at most, a stage
_STEADY = 0.5  # share of a stage's time after which its speed is relied on
_LEAST_LEFT = 0.03  # of the steps taken, for the rate to fall when time is up
_ENTRIES = {  # of a checkpoint
    *("identity", "minutes", "steps", "seconds", "spent", "notes", "log_bytes"),
    *("stage", "step", "begun", "planned", "falling", "first", "parts"),
}
# Of a job's identity, what may differ where a portable checkpoint is resumed.
_OF_THE_MACHINE = {"device", "bfloat16"}
_DIVERGED = 10.0


class Carried(Protocol):
    """What a portable checkpoint is made of, and resumed from: less than all the state."""

    def portable(self) -> dict[str, Tensor]: ...
    def load_portable(self, tensors: dict[str, Tensor], /) -> None:
        """Raises TrainingError if the tensors are of another model."""


class Run:
    """The working folder of one training job, `MODEL.training` beside the model to be.

    identity: what must be the same for the job to be resumed: preset, settings, data and
    seed; and "minutes_asked", another number of which is a new budget. columns: names of
    what the steps report, for the log. device: where the steps are taken.
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
        self.portable_folder = self.folder / PORTABLE
        self.log = self.folder / LOG
        self.minutes = identity.get("minutes_asked")  # may change when the job is resumed
        rest = {name: value for name, value in identity.items() if name != "minutes_asked"}
        self.identity = json.dumps(rest, sort_keys=True)
        self.columns = columns
        self.deadline: float | None = None  # of the last stage, by time.monotonic()
        self.steps: dict[str, int] = {}  # of each stage that was begun
        self.seconds = 0.0  # spent on steps, over all the job's lives
        self.spent = 0.0  # of them, of this budget of minutes
        self.notes: dict[str, Any] = {}  # for the card: what a stage decided, and how fast it was
        self._runs_ahead = torch.device(device).type == "cuda"
        self._saved: dict[str, Any] | None = None
        self._carried: tuple[dict[str, Tensor], dict[str, Any]] | None = None
        if not resume:
            require_none_unfinished(out)
        self._open()

    def start(self) -> None:
        """Make the folder, with an empty log, unless the job goes on from a checkpoint."""
        if self._saved is None:
            self.folder.mkdir(parents=True, exist_ok=True)
            with self.log.open("w", newline="") as log:
                csv.writer(log).writerow(("stage", "step", "seconds", *self.columns))

    @property
    def resumed(self) -> bool:
        """Whether a checkpoint of either kind was found and has still to be taken up."""
        return self._saved is not None or self._carried is not None

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
        carried: Carried | None = None,
    ) -> None:
        """Take a stage's steps, those that an earlier life of the job has not taken.

        parts: what the steps change; all of it is in the checkpoints. update: takes one
        step, given its number and the stage's progress from 0 to 1, and returns what it
        measured, "loss" among it. batch: images a step, for the progress. Where the run
        has a deadline, the measured speed fixes the number of steps in place of `steps`,
        so that they take `share` of the time that is left; a resumed stage keeps its
        number. It is lowered should they take longer. prepare: fills parts before the
        first step; a resumed stage has them from its checkpoint. scale: a loss diverges
        beyond ten times the first one, or ten times this where that is more. carried:
        what is also written as a portable checkpoint, up to the decay of the rate.
        Raises TrainingError when the loss is no number or diverges, and
        KeyboardInterrupt, after a checkpoint, when asked to stop.
        """
        saved = self._saved
        if saved is not None and saved["stage"] != name:
            assert name in saved["steps"], "stages come in one order"
            return  # done, in an earlier life
        ends = None if self.deadline is None else _later(self.deadline, share)
        stage = _Stage(name, parts, update, batch, scale, carried, ends)
        if saved is not None:
            for part, state in saved["parts"].items():
                load_in_place(parts[part], state)
            stage.go_on_from(saved)
            self._saved = None
            if saved["minutes"] != self.minutes and ends is not None and not stage.falling:
                self._plan(stage, stage.step + affordable(parts, update, ends))
        else:
            if prepare is not None:
                prepare()
            self._take_up_carried(stage)
            fitting = steps if ends is None else stage.begun + affordable(parts, update, ends)
            self._plan(stage, max(fitting, stage.begun))
            self._write(stage)
        self._take_steps(stage)

    def delete(self) -> None:
        """The job is done and its model saved."""
        shutil.rmtree(self.folder)

    def _plan(self, stage: "_Stage", steps: int) -> None:
        self.steps[stage.name] = stage.planned = steps

    def _take_up_carried(self, stage: "_Stage") -> None:
        if stage.carried is not None and self._carried is not None:
            tensors, about = self._carried
            stage.carried.load_portable(tensors)
            stage.step = stage.begun = about["step"]
            self.seconds, self._carried = about["seconds"], None

    def _take_steps(self, stage: "_Stage") -> None:
        images = (self.steps[stage.name] - stage.step) * stage.batch
        with (
            stop_requested() as stop,
            progress_report(stage.name, images) as report,
            self.log.open("a", newline="") as log,
        ):
            rows, clock = csv.writer(log), _Clock(stage.step)
            while stage.step < self.steps[stage.name]:
                progress = self._progress(stage, stage.step)
                if progress >= DECAY and not stage.falling:
                    self._write_portable(stage)  # the last one
                    stage.falling = True
                measured = stage.update(stage.step, progress)
                stage.step += 1
                if stage.step < clock.reads and not self._done(stage):
                    continue
                self._note(stage, {n: float(value) for n, value in measured.items()}, rows, clock)
                report.advance(
                    (stage.step - clock.reported) * stage.batch, f"loss {stage.loss:.4f}"
                )
                clock.reported = stage.step
                clock.reads = stage.step + (clock.ahead(stage.step) if self._runs_ahead else 1)
                self._keep_to_time(stage, clock)
                report.total = (self.steps[stage.name] - clock.resumed) * stage.batch
                now = time.monotonic()
                if not stage.falling and (stop() or now - clock.portable > _PORTABLE_EVERY_S):
                    self._write_portable(stage)
                    clock.portable = time.monotonic()
                if self._done(stage) or stop() or now - clock.written > clock.pause:
                    speeds = self.notes.setdefault("images_per_second", {})
                    speeds[stage.name] = round(clock.speed(stage.step) * stage.batch, 1)
                    log.flush()
                    os.fsync(log.fileno())
                    clock.write(lambda: self._write(stage))
                    if stop():
                        raise KeyboardInterrupt
                clock.read = time.monotonic()
        if not stage.falling:
            self._write_portable(stage)  # there were too few steps for the rate to fall

    def _progress(self, stage: "_Stage", step: int) -> float:
        return (step - stage.begun) / (self.steps[stage.name] - stage.begun)

    def _done(self, stage: "_Stage") -> bool:
        return stage.step >= self.steps[stage.name]

    def _note(self, stage: "_Stage", values: dict[str, float], rows: Any, clock: "_Clock") -> None:
        """Count the time, check the loss, and write a row of the log now and then."""
        assert values.keys() <= {*self.columns}, f"{values.keys()} are not in the log's columns"
        now = time.monotonic()
        self.seconds, self.spent = (s + now - clock.read for s in (self.seconds, self.spent))
        step = stage.step - 1
        stage.loss = values["loss"]
        stage.first = _require_sound(stage.loss, stage.first, stage.name, step, stage.scale)
        every = max(1, self.steps[stage.name] // _LOG_ROWS)
        if step % every < stage.step - clock.reported or self._done(stage):
            row = (f"{values[c]:.6g}" if c in values else "" for c in self.columns)
            rows.writerow((stage.name, step, f"{self.seconds:.2f}", *row))

    def _keep_to_time(self, stage: "_Stage", clock: "_Clock") -> None:
        """Lower the number of steps if at this speed they end too late.

        It rises again, up to the plan, until `DECAY`. A few steps are left in any case, so
        that the rate falls before the end.
        """
        now = time.monotonic()
        if stage.ends is None or now - clock.began < _STEADY * (stage.ends - clock.began):
            return
        fitting = stage.step + int(max(0.0, stage.ends - now) * clock.speed(stage.step))
        least = stage.step + math.ceil(_LEAST_LEFT * (stage.step - stage.begun))
        most = self.steps[stage.name] if stage.falling else stage.planned
        self.steps[stage.name] = min(most, max(fitting, least))

    def _write(self, stage: "_Stage") -> None:
        temporary = self.folder / f".{_CHECKPOINT}"
        with temporary.open("wb") as file:
            torch.save(
                {
                    "identity": self.identity,
                    "minutes": self.minutes,
                    "steps": self.steps,
                    "seconds": self.seconds,
                    "spent": self.spent,
                    "notes": self.notes,
                    "stage": stage.name,
                    "step": stage.step,
                    "begun": stage.begun,
                    "planned": stage.planned,
                    "falling": stage.falling,
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
        if stage.carried is None:
            return
        about = {
            "identity": _carried_part(self.identity),
            "stage": stage.name,
            "step": stage.step,
            "seconds": self.seconds,
        }
        write_portable(self.portable_folder, stage.carried.portable(), about)

    def _open(self) -> None:
        """Read the checkpoint of an earlier life."""
        path = self.folder / _CHECKPOINT
        if path.exists():
            saved = self._read_exact(path)
            if saved["identity"] == self.identity:
                self.steps, self.notes = saved["steps"], saved["notes"]
                self.seconds = saved["seconds"]
                self.spent = saved["spent"] if saved["minutes"] == self.minutes else 0.0
                os.truncate(self.log, saved["log_bytes"])  # rows of steps that are taken again
                self._saved = saved
                return
            if not has_portable(self.portable_folder):
                raise self._another(json.loads(saved["identity"]), json.loads(self.identity))
        if has_portable(self.portable_folder):
            tensors, about = read_portable(self.portable_folder)
            ours, theirs = _carried_part(self.identity), about.get("identity")
            if theirs != ours:
                raise self._another(theirs if isinstance(theirs, dict) else {}, ours)
            step, seconds = about.get("step"), about.get("seconds")
            if type(step) is not int or step < 0 or type(seconds) is not float:
                raise TrainingError(f"{self.portable_folder} does not say after which step it is")
            self._carried = tensors, about

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
        carried: Carried | None,
        ends: float | None,
    ):
        self.name, self.parts, self.update = name, parts, update
        self.batch, self.scale, self.carried, self.ends = batch, scale, carried, ends
        self.step = self.begun = 0  # begun: the first step since a portable checkpoint
        self.planned = 0  # steps
        self.falling = False  # whether the rate is, so that what is carried is left as it was
        self.first: float | None = None  # loss
        self.loss = math.nan

    def go_on_from(self, saved: Mapping[str, Any]) -> None:
        """Take up what a checkpoint says of the stage."""
        self.step, self.begun, self.planned = (saved[n] for n in ("step", "begun", "planned"))
        self.falling, self.first = saved["falling"], saved["first"]


class _Clock:
    """Times at which a stage began, was read and was written, in one life of the job."""

    def __init__(self, step: int) -> None:
        self.began = self.read = self.written = self.portable = time.monotonic()
        self.resumed = self.reported = step  # the step that this life began with, and the last read
        self.reads = step + 1  # the step whose loss is read next
        self.pause = _CHECKPOINT_EVERY_S

    def speed(self, step: int) -> float:
        """Steps a second in this life, now that so many were taken in all."""
        return (step - self.resumed) / max(time.monotonic() - self.began, 1e-9)

    def ahead(self, step: int) -> int:
        """How many steps to take before the next loss is read."""
        return max(1, min(_READ_EVERY, int(self.speed(step) * _READ_EVERY_S)))

    def write(self, checkpoint: Callable[[], None]) -> None:
        """Write one; the next comes so much later that writing takes little of the time."""
        asked = time.monotonic()
        checkpoint()
        self.written = time.monotonic()
        self.pause = max(self.pause, (self.written - asked) / _CHECKPOINT_SHARE)


def is_unfinished(out: Path) -> bool:
    """Whether a training of this model left a checkpoint, of either kind, to go on from."""
    folder = _folder(out)
    return (folder / _CHECKPOINT).exists() or has_portable(folder / PORTABLE)


def require_none_unfinished(out: Path) -> None:
    """Raise TrainingError if a training of this model was begun and not finished."""
    if is_unfinished(out):
        raise TrainingError(
            f"{_folder(out)} holds an unfinished training; --resume goes on with it, or delete "
            "the folder"
        )


def _folder(out: Path) -> Path:
    return out.with_name(f"{out.name}.training")


def _carried_part(identity: str) -> dict[str, Any]:
    entries = json.loads(identity).items()
    return {name: value for name, value in entries if name not in _OF_THE_MACHINE}


def _later(deadline: float, share: float) -> float:
    """The time at which this share of what is left until the deadline has passed."""
    now = time.monotonic()
    return now + max(0.0, deadline - now) * share


def _require_sound(loss: float, first: float | None, stage: str, step: int, scale: float) -> float:
    first = loss if first is None else first
    if not math.isfinite(loss) or loss > _DIVERGED * max(scale, abs(first)):
        raise TrainingError(
            f"{stage}: the loss became {loss:.4g} at step {step}, from {first:.4g} at the first; "
            "no model was saved"
        )
    return first
