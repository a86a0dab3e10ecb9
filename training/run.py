"""A training job on disk: stages of steps that can be stopped at any step and resumed.

All randomness comes from the job's seed and the step number. So a checkpoint needs only
the weights and optimizers, and a job that was stopped and resumed ends with the same
weights as one that was not.
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
from hashsearch.stopping import stop_requested
from training.budget import Stateful, Update, affordable, load_in_place
from training.portable import has_portable, read_portable, write_portable
from training.schedule import DECAY

_CHECKPOINT, LOG, PORTABLE = "checkpoint.pt", "log.csv", "portable"
_CHECKPOINT_EVERY_S = 60.0
_CHECKPOINT_SHARE = 0.05  # largest share of the time spent on writing checkpoints
_PORTABLE_EVERY_S = 120.0
_READ_EVERY_S, _READ_EVERY = 1.0, 500  # most seconds and steps between two loss reads on a GPU
_LOG_ROWS = 1000  # per stage, at most
_STEADY = 0.5  # share of a stage's time after which its measured speed is trusted
# The plan comes from a few seconds. If these were slow, more steps are planned after this share.
_EARLY, _FASTER = 0.03, 1.2
_MIN_LEFT = 0.03  # fewest remaining steps, as a share of those taken, for the rate to fall
_ENTRIES = {  # of a checkpoint
    *("identity", "minutes", "steps", "seconds", "spent", "notes", "log_bytes"),
    *("stage", "step", "begun", "planned", "falling", "first", "parts"),
}
# Entries of a job's identity that may differ when a portable checkpoint is resumed.
_MACHINE_ENTRIES = {"device", "bfloat16"}
_DIVERGED = 10.0  # multiple of the first loss, or of `scale`


class Carried(Protocol):
    """A model that writes and loads a portable checkpoint, which holds only part of its state."""

    def portable(self) -> dict[str, Tensor]: ...
    def load_portable(self, tensors: dict[str, Tensor], /) -> None:
        """Raises TrainingError if the tensors do not fit the model."""


class Run:
    """The working folder of one training job, `MODEL.training` next to the future model.

    identity: entries that must be equal for the job to be resumed, such as preset, settings,
    data and seed. Its "minutes_asked" may change; a different number is a new budget.
    columns: names of the values that the steps report, for the log. device: runs the steps.
    Nothing is created before the first checkpoint is written; a log that the job continues
    is cut back to its checkpoint at once.
    Raises TrainingError if the folder holds an unfinished job and `resume` is false, or
    if that job is a different one.
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
        self.minutes = identity.get("minutes_asked")  # may differ in a resumed job
        rest = {name: value for name, value in identity.items() if name != "minutes_asked"}
        self.identity = json.dumps(rest, sort_keys=True)
        self.columns = columns
        self.deadline: float | None = None  # end of the last stage, by time.monotonic()
        self.steps: dict[str, int] = {}  # number of steps of each stage started so far
        self.seconds = 0.0  # spent on steps in all processes of the job
        self.spent = 0.0  # the part of `seconds` that counts against the present budget
        self.notes: dict[str, Any] = {}  # for the card: decisions of stages, and their speed
        self._on_gpu = torch.device(device).type == "cuda"
        self._has_log = False
        self._saved: dict[str, Any] | None = None
        self._carried: tuple[dict[str, Tensor], dict[str, Any]] | None = None
        if not resume:
            require_none_unfinished(out)
        self._open()

    def ensure_folder(self) -> None:
        """Create the folder with an empty log, unless the job has them."""
        if not self._has_log:
            self.folder.mkdir(parents=True, exist_ok=True)
            with self.log.open("w", newline="") as log:
                csv.writer(log).writerow(("stage", "step", "seconds", *self.columns))
            self._has_log = True

    @property
    def resumed(self) -> bool:
        """Whether a checkpoint of either kind was found and is yet to be loaded into a stage."""
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
        most: int | None = None,
    ) -> None:
        """Take those steps of a stage that no earlier process of the job has taken.

        parts: everything that the steps change; all of it is in the checkpoints. update:
        takes one step, given its number and the stage's progress from 0 to 1, and returns
        the measured values, including "loss". batch: images per step, for the progress
        report. If the run has a deadline, the number of steps is not `steps` but follows
        from the measured speed, so that they take `share` of the remaining time; a resumed
        stage keeps its number. The number is lowered if the steps take longer. most: steps that
        are taken at most, even if there is time for more. prepare:
        initialises the parts before the first step; a resumed stage loads them from its
        checkpoint instead. scale: the loss diverges if it exceeds ten times the first loss
        or ten times this, whichever is greater. carried: is also written as a portable
        checkpoint until the learning rate decays.
        Raises TrainingError if the loss is not finite or diverges, and KeyboardInterrupt,
        after writing a checkpoint, on a request to stop.
        """
        saved = self._saved
        if saved is not None and saved["stage"] != name:
            assert name in saved["steps"], "stages come in one order"
            return  # finished by an earlier process
        ends = None if self.deadline is None else _partial_deadline(self.deadline, share)
        stage = _Stage(name, parts, update, batch, scale, carried, ends, most)
        if saved is not None:
            for part, state in saved["parts"].items():
                load_in_place(parts[part], state)
            stage.restore(saved)
            self._saved = None
            if saved["minutes"] != self.minutes and ends is not None and not stage.falling:
                self._plan(stage, stage.step + affordable(parts, update, ends))
        else:
            if prepare is not None:
                prepare()
            self._load_carried(stage)
            fitting = steps if ends is None else stage.begun + affordable(parts, update, ends)
            self._plan(stage, max(fitting, stage.begun))
            self.ensure_folder()
            self._write(stage)
        self._take_steps(stage)

    def delete(self) -> None:
        """Delete the folder, after the model is saved."""
        shutil.rmtree(self.folder)

    def _plan(self, stage: "_Stage", steps: int) -> None:
        most = steps if stage.most is None else stage.most
        self.steps[stage.name] = stage.planned = min(steps, most)

    def _load_carried(self, stage: "_Stage") -> None:
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
                    self._write_portable(stage)  # for the last time
                    stage.falling = True
                measured = stage.update(stage.step, progress)
                stage.step += 1
                if stage.step < clock.next_read and not self._must_read(stage):
                    continue
                self._record(stage, {n: float(value) for n, value in measured.items()}, rows, clock)
                report.advance(
                    (stage.step - clock.last_read) * stage.batch, f"loss {stage.loss:.4f}"
                )
                clock.last_read = stage.step
                clock.next_read = stage.step + (clock.interval(stage.step) if self._on_gpu else 1)
                self._adjust_steps(stage, clock)
                report.total = (self.steps[stage.name] - clock.first) * stage.batch
                now = time.monotonic()
                if not stage.falling and (stop() or now - clock.portable_at > _PORTABLE_EVERY_S):
                    self._write_portable(stage)
                    clock.portable_at = time.monotonic()
                if self._done(stage) or stop() or now - clock.written_at > clock.pause:
                    speeds = self.notes.setdefault("images_per_second", {})
                    speeds[stage.name] = round(clock.speed(stage.step) * stage.batch, 1)
                    log.flush()
                    os.fsync(log.fileno())
                    clock.write(lambda: self._write(stage))
                    if stop():
                        raise KeyboardInterrupt
                clock.read_at = time.monotonic()
        if not stage.falling:
            self._write_portable(stage)  # too few steps to reach the decay

    def _progress(self, stage: "_Stage", step: int) -> float:
        return (step - stage.begun) / (self.steps[stage.name] - stage.begun)

    def _must_read(self, stage: "_Stage") -> bool:
        """Whether the loss is checked now: at the end, and before the last portable checkpoint."""
        decays = not stage.falling and self._progress(stage, stage.step) >= DECAY
        return decays or self._done(stage)

    def _done(self, stage: "_Stage") -> bool:
        return stage.step >= self.steps[stage.name]

    def _record(
        self, stage: "_Stage", values: dict[str, float], rows: Any, clock: "_Clock"
    ) -> None:
        """Count the time, check the loss, and write a row of the log at intervals."""
        assert values.keys() <= {*self.columns}, f"{values.keys()} are not in the log's columns"
        now = time.monotonic()
        self.seconds, self.spent = (s + now - clock.read_at for s in (self.seconds, self.spent))
        step = stage.step - 1
        stage.loss = values["loss"]
        stage.first = _require_sound(stage.loss, stage.first, stage.name, step, stage.scale)
        every = max(1, math.ceil(self.steps[stage.name] / _LOG_ROWS))
        if step % every < stage.step - clock.last_read or self._done(stage):
            row = (f"{values[c]:.6g}" if c in values else "" for c in self.columns)
            rows.writerow((stage.name, step, f"{self.seconds:.2f}", *row))

    def _adjust_steps(self, stage: "_Stage", clock: "_Clock") -> None:
        """Change the number of steps if they would end too late, or far too early, at this speed.

        At first the planned number can rise, unless the stage was resumed. Later the number can
        fall, and until `DECAY` rise again to the planned one. A few steps always remain, so
        that the learning rate can fall before the end.
        """
        if stage.ends is None:
            return
        now = time.monotonic()
        passed = (now - clock.started) / max(stage.ends - clock.started, 1e-9)
        fitting = stage.step + int(max(0.0, stage.ends - now) * clock.speed(stage.step))
        if passed < _STEADY:
            fresh = clock.first == stage.begun and not stage.falling
            if fresh and passed >= _EARLY and fitting > _FASTER * stage.planned:
                self._plan(stage, fitting)
            return
        least = stage.step + math.ceil(_MIN_LEFT * (stage.step - stage.begun))
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
            "identity": _portable_identity(self.identity),
            "stage": stage.name,
            "step": stage.step,
            "seconds": self.seconds,
        }
        write_portable(self.portable_folder, stage.carried.portable(), about)

    def _open(self) -> None:
        """Read the checkpoint of an earlier process, if there is one."""
        path = self.folder / _CHECKPOINT
        if path.exists():
            saved = self._read_exact(path)
            if saved["identity"] == self.identity:
                self.steps, self.notes = saved["steps"], saved["notes"]
                self.seconds = saved["seconds"]
                self.spent = saved["spent"] if saved["minutes"] == self.minutes else 0.0
                os.truncate(self.log, saved["log_bytes"])  # drop the rows of repeated steps
                self._saved, self._has_log = saved, True
                return
            if not has_portable(self.portable_folder):
                raise self._mismatch(json.loads(saved["identity"]), json.loads(self.identity))
        if has_portable(self.portable_folder):
            tensors, about = read_portable(self.portable_folder)
            ours, theirs = _portable_identity(self.identity), about.get("identity")
            if theirs != ours:
                raise self._mismatch(theirs if isinstance(theirs, dict) else {}, ours)
            step, seconds = about.get("step"), about.get("seconds")
            if type(step) is not int or step < 0 or type(seconds) is not float:
                raise TrainingError(f"{self.portable_folder} has no valid step and seconds")
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
            raise TrainingError(f"{path} is incomplete; delete the folder to start again")
        return saved

    def _mismatch(self, theirs: dict[str, Any], ours: dict[str, Any]) -> TrainingError:
        names = ", ".join(sorted(n for n in theirs | ours if theirs.get(n) != ours.get(n)))
        return TrainingError(f"{self.folder} holds another training: it differs in {names}")


class _Stage:
    """The state of a stage: its progress and the time by which it must end."""

    def __init__(
        self,
        name: str,
        parts: Mapping[str, Stateful],
        update: Update,
        batch: int,
        scale: float,
        carried: Carried | None,
        ends: float | None,
        most: int | None,
    ):
        self.name, self.parts, self.update = name, parts, update
        self.batch, self.scale, self.carried, self.ends = batch, scale, carried, ends
        self.most = most
        self.step = self.begun = 0  # begun: 0, or the portable checkpoint's step
        self.planned = 0  # steps
        self.falling = False  # whether the rate decays; no portable checkpoint is written then
        self.first: float | None = None  # loss
        self.loss = math.nan

    def restore(self, saved: Mapping[str, Any]) -> None:
        """Set the stage's state from a checkpoint."""
        self.step, self.begun, self.planned = (saved[n] for n in ("step", "begun", "planned"))
        self.falling, self.first = saved["falling"], saved["first"]


class _Clock:
    """Times of a stage's start, loss reads and checkpoints in this process.

    first, last_read, next_read: steps with which this process started, and at which the loss
    was last read and is read next. pause: seconds between checkpoints.
    """

    def __init__(self, step: int) -> None:
        self.started = self.read_at = self.written_at = self.portable_at = time.monotonic()
        self.first = self.last_read = step
        self.next_read = step + 1
        self.pause = _CHECKPOINT_EVERY_S

    def speed(self, step: int) -> float:
        """Steps per second of this process, given the stage's step count."""
        return (step - self.first) / max(time.monotonic() - self.started, 1e-9)

    def interval(self, step: int) -> int:
        """Number of steps to take before the next loss is read."""
        return max(1, min(_READ_EVERY, int(self.speed(step) * _READ_EVERY_S)))

    def write(self, checkpoint: Callable[[], None]) -> None:
        """Write a checkpoint; after a slow one the pause grows, to limit the share of the time."""
        started = time.monotonic()
        checkpoint()
        self.written_at = time.monotonic()
        self.pause = max(self.pause, (self.written_at - started) / _CHECKPOINT_SHARE)


def is_unfinished(out: Path) -> bool:
    """Whether an unfinished training of this model left a checkpoint of either kind."""
    folder = _folder(out)
    return (folder / _CHECKPOINT).exists() or has_portable(folder / PORTABLE)


def require_none_unfinished(out: Path) -> None:
    """Raise TrainingError if an unfinished training of this model exists."""
    if is_unfinished(out):
        raise TrainingError(
            f"{_folder(out)} holds an unfinished training; use --resume to continue it or delete "
            "the folder"
        )


def _folder(out: Path) -> Path:
    return out.with_name(f"{out.name}.training")


def _portable_identity(identity: str) -> dict[str, Any]:
    entries = json.loads(identity).items()
    return {name: value for name, value in entries if name not in _MACHINE_ENTRIES}


def _partial_deadline(deadline: float, share: float) -> float:
    """The time at which this share of the time left until the deadline has passed."""
    now = time.monotonic()
    return now + max(0.0, deadline - now) * share


def _require_sound(loss: float, first: float | None, stage: str, step: int, scale: float) -> float:
    first = loss if first is None else first
    if not math.isfinite(loss) or loss > _DIVERGED * max(scale, abs(first)):
        raise TrainingError(
            f"{stage}: the loss became {loss:.4g} at step {step}, from {first:.4g} at the first "
            "step; no model was saved"
        )
    return first
