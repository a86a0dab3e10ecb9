"""A training job on disk: stages of steps that can be stopped anywhere and gone on with.

What a job draws at random it draws from its seed and the number of the step,
so that a checkpoint holds weights and optimizers and nothing else, and a job
that was stopped ends with the weights of one that was not.
"""

import copy
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

from hashsearch.durable import sync_folder
from hashsearch.errors import TrainingError
from hashsearch.progress import progress_report

_CHECKPOINT, LOG = "checkpoint.pt", "log.csv"
_CHECKPOINT_EVERY_S = 60.0
_CHECKPOINT_SHARE = 0.05  # of the time at most, where they are large
_MEASURE_S = 6.0  # how long the speed is measured before a budget of minutes becomes steps
_LOG_ROWS = 1000  # at most, a stage
# Of a checkpoint.
_ENTRIES = {"identity", "steps", "seconds", "stage", "step", "first", "log_bytes", "parts"}
_DIVERGED = 10.0


class Stateful(Protocol):
    """What a checkpoint keeps: a module, an optimizer."""

    def state_dict(self) -> dict[str, Any]: ...
    def load_state_dict(self, state_dict: dict[str, Any], /) -> Any: ...


class Run:
    """The working folder of one training job, `MODEL.training` beside the model to be.

    identity: what must be the same for the job to go on: preset, settings, data,
    seed, budget. columns: names of what the steps report, for the log.
    Raises TrainingError if an unfinished job lies there and `resume` is false,
    or if it is another job.
    """

    def __init__(
        self, out: Path, identity: Mapping[str, Any], columns: tuple[str, ...], *, resume: bool
    ):
        self.folder = _folder(out)
        self.identity = json.dumps(identity, sort_keys=True)
        self.columns = columns
        self.steps: dict[str, int] = {}  # of each stage that was begun
        self.seconds = 0.0  # spent on steps, over all the job's lives
        self._saved: dict[str, Any] | None = None
        if not resume:
            require_none_unfinished(out)
        if (self.folder / _CHECKPOINT).exists():
            self._open()
        else:
            self.folder.mkdir(parents=True, exist_ok=True)
            with self.log.open("w", newline="") as log:
                csv.writer(log).writerow(("stage", "step", "seconds", *columns))

    @property
    def log(self) -> Path:
        return self.folder / LOG

    def stage(
        self,
        name: str,
        parts: Mapping[str, Stateful],
        update: Callable[[int, int], dict[str, float]],
        *,
        batch: int,
        steps: int,
        minutes: float | None = None,
        prepare: Callable[[], None] | None = None,
        scale: float = 1.0,
    ) -> None:
        """Take a stage's steps, those that an earlier life of the job has not taken.

        parts: what the steps change; all of it is in the checkpoints. update:
        takes one step, given its number and how many there will be, and returns
        what it measured, "loss" among it. batch: images a step, for the progress.
        minutes: fixes the number of steps by the measured speed, in place of
        `steps`; a stage gone on with keeps its number. prepare: fills parts before
        the first step; a stage gone on with has them from its checkpoint. scale: a
        loss diverges beyond ten times the first one, or ten times this where that is more.
        Raises TrainingError when the loss is no number or diverges, and
        KeyboardInterrupt, after a checkpoint, when asked to stop.
        """
        saved = self._saved
        if saved is not None and saved["stage"] != name:
            assert name in saved["steps"], "stages come in one order"
            return  # done, in an earlier life
        step, first = 0, None
        if saved is not None:
            for part, state in saved["parts"].items():
                parts[part].load_state_dict(state)
            step, first = saved["step"], saved["first"]
            self._saved = None
        else:
            if prepare is not None:
                prepare()
            if minutes is not None:
                steps = _affordable(parts, update, minutes)
            self.steps[name] = steps
            self._write(name, step, first, parts)
        self._go(name, step, first, parts, update, batch, scale)

    def delete(self) -> None:
        """The job is done and its model saved."""
        shutil.rmtree(self.folder)

    def _go(
        self,
        name: str,
        step: int,
        first: float | None,
        parts: Mapping[str, Stateful],
        update: Callable[[int, int], dict[str, float]],
        batch: int,
        scale: float,
    ) -> None:
        steps = self.steps[name]
        log_every = max(1, steps // _LOG_ROWS)
        written, pause = time.monotonic(), _CHECKPOINT_EVERY_S
        with (
            _stop_requested() as stop,
            progress_report(name, (steps - step) * batch) as report,
            self.log.open("a", newline="") as log,
        ):
            rows = csv.writer(log)
            while step < steps:
                started = time.monotonic()
                measured = update(step, steps)
                self.seconds += time.monotonic() - started
                first = _require_sound(measured["loss"], first, name, step, scale)
                if step % log_every == 0 or step == steps - 1:
                    values = (f"{measured[c]:.6g}" if c in measured else "" for c in self.columns)
                    rows.writerow((name, step, f"{self.seconds:.2f}", *values))
                step += 1
                report.advance(batch, f"loss {measured['loss']:.4f}")
                if step == steps or stop() or time.monotonic() - written > pause:
                    log.flush()
                    os.fsync(log.fileno())
                    began = time.monotonic()
                    self._write(name, step, first, parts)
                    written = time.monotonic()
                    pause = max(pause, (written - began) / _CHECKPOINT_SHARE)
                    if stop():
                        raise KeyboardInterrupt

    def _write(
        self, stage: str, step: int, first: float | None, parts: Mapping[str, Stateful]
    ) -> None:
        temporary = self.folder / f".{_CHECKPOINT}"
        with temporary.open("wb") as file:
            torch.save(
                {
                    "identity": self.identity,
                    "steps": self.steps,
                    "seconds": self.seconds,
                    "stage": stage,
                    "step": step,
                    "first": first,
                    "log_bytes": self.log.stat().st_size,
                    "parts": {name: part.state_dict() for name, part in parts.items()},
                },
                file,
            )
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(self.folder / _CHECKPOINT)
        sync_folder(self.folder)

    def _open(self) -> None:
        path = self.folder / _CHECKPOINT
        try:
            saved = torch.load(path, map_location="cpu", weights_only=True)
            whole = saved.keys() == _ENTRIES and self.log.stat().st_size >= saved["log_bytes"]
        except (OSError, RuntimeError, EOFError, AttributeError, pickle.UnpicklingError) as error:
            raise TrainingError(
                f"{path} cannot be read; delete the folder to begin anew"
            ) from error
        if not whole:
            raise TrainingError(f"{path} is no whole checkpoint; delete the folder to begin anew")
        if saved["identity"] != self.identity:
            theirs, ours = json.loads(saved["identity"]), json.loads(self.identity)
            odd = ", ".join(sorted(n for n in theirs | ours if theirs.get(n) != ours.get(n)))
            raise TrainingError(f"{self.folder} holds another training: it differs in {odd}")
        self.steps, self.seconds = saved["steps"], saved["seconds"]
        os.truncate(self.log, saved["log_bytes"])  # rows of steps that will be taken again
        self._saved = saved


def require_none_unfinished(out: Path) -> None:
    """Raise TrainingError if a training of this model was begun and not finished."""
    if (_folder(out) / _CHECKPOINT).exists():
        raise TrainingError(
            f"{_folder(out)} holds an unfinished training; "
            "--resume goes on with it, or delete the folder"
        )


def _folder(out: Path) -> Path:
    return out.with_name(f"{out.name}.training")


def _affordable(
    parts: Mapping[str, Stateful],
    update: Callable[[int, int], dict[str, float]],
    minutes: float,
) -> int:
    """How many steps fit, by the speed of some that are taken and taken back."""
    before = {name: copy.deepcopy(part.state_dict()) for name, part in parts.items()}
    update(0, 1000)  # the first one is slow: memory is laid out
    taken, started = 0, time.monotonic()
    while (spent := time.monotonic() - started) < min(_MEASURE_S, minutes * 6):
        update(taken, 1000)
        taken += 1
    for name, part in parts.items():
        part.load_state_dict(before[name])
    return max(1, int((minutes * 60 - spent) * taken / spent))


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
