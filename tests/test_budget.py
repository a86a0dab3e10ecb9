"""A stage that ends in time, by a clock of the test's own."""

import math
import os
import signal
from types import SimpleNamespace

import numpy as np
import pytest

from hashsearch.commands import console
from hashsearch.progress import reports_opened_by
from tests.trainings import rows_of
from training import budget, run


class Slow:
    """A stage whose steps take a while, by a clock of its own."""

    def __init__(self, monkeypatch):
        self.now, self.progress = 0.0, []
        clock = SimpleNamespace(monotonic=lambda: self.now)
        monkeypatch.setattr(run, "time", clock)
        monkeypatch.setattr(budget, "time", clock)

    def state_dict(self):
        return {}

    def load_state_dict(self, state):
        pass

    def job(self, identity, folder, resume=False):
        return run.Run(folder / "model", identity, ("loss",), resume=resume)

    def steps_of(self, job, seconds, *, minutes, **options):
        """A stage of so many minutes, whose steps take `seconds(taken, progress)`."""
        job.deadline = self.now + minutes * 60 - job.spent

        def update(step, progress):
            self.now += seconds(len(self.progress), progress)
            self.progress.append(progress)
            return {"loss": 1.0}

        job.stage("some", {"slow": self}, update, batch=1, steps=10**9, **options)
        return job.steps["some"], self.progress[-job.steps["some"] :]

    def take(self, folder, seconds, *, minutes=1, identity=None, **options):
        job = self.job(identity or {}, folder)
        return self.steps_of(job, seconds, minutes=minutes, **options)


def test_a_stage_takes_the_steps_that_fit(tmp_path, monkeypatch):
    slow = Slow(monkeypatch)
    steps, progress = slow.take(tmp_path, lambda taken, progress: 0.1)
    assert 0.93 * 600 < steps + 65 < 600  # so many were taken to measure the speed
    assert 57 < slow.now <= 60
    assert progress == pytest.approx(np.arange(steps) / steps)


def test_a_stage_that_becomes_slower_takes_fewer_steps_and_is_done_in_time(tmp_path, monkeypatch):
    slow = Slow(monkeypatch)
    steps, progress = slow.take(tmp_path, lambda taken, progress: 0.4 if progress > 0.3 else 0.1)
    assert 200 < steps < 400
    assert 59 < slow.now < 62
    assert progress[-1] > 0.95  # its rate has fallen


def test_a_stage_says_how_many_steps_there_will_be_as_far_as_is_known(
    tmp_path, monkeypatch, capsys
):
    monkeypatch.setattr(console, "_LINE_EVERY_S", 0.0)
    slow = Slow(monkeypatch)
    with reports_opened_by(console.open_report):
        steps, _ = slow.take(tmp_path, lambda taken, progress: 0.4 if progress > 0.3 else 0.1)
    totals = [int(line.split()[3]) for line in capsys.readouterr().err.splitlines()]
    assert totals[0] > 500
    assert totals[-1] == steps < 400


@pytest.mark.parametrize(("seconds", "apart"), [(0.5, 2), (0.05, 20), (0.0005, 500)])
def test_on_a_gpu_the_loss_is_read_once_a_second_or_every_500_steps(
    tmp_path, monkeypatch, seconds, apart
):
    slow, read = Slow(monkeypatch), []

    class Loss:
        def __init__(self, step):
            self.step = step

        def __float__(self):
            read.append(self.step)
            return 1.0

    def update(step, progress):
        slow.now += seconds
        return {"loss": Loss(step)}

    job = run.Run(tmp_path / "model", {}, ("loss",), resume=False, device="cuda")
    job.stage("some", {"slow": slow}, update, batch=1, steps=5999)
    assert read[-1] == 5998
    assert 4499 in read  # the last one before the rate falls, and a portable checkpoint is left
    assert np.median(np.diff(read)) == pytest.approx(apart, abs=1)
    rows = [step for _, step, _ in rows_of(job.log)]
    assert rows[-1] == 5998
    assert set(rows) <= set(read)
    assert min(1000, len(read)) / 2 < len(rows) <= 1001


def test_one_slow_step_at_the_start_lowers_next_to_nothing(tmp_path, monkeypatch):
    slow = Slow(monkeypatch)
    steps, _ = slow.take(tmp_path, lambda taken, progress: 2.0 if taken == 90 else 0.1)
    assert steps > 0.9 * 530


def test_a_stage_whose_time_is_up_still_ends_with_a_falling_rate(tmp_path, monkeypatch):
    """As on a machine that was held: a few steps more are taken."""
    slow = Slow(monkeypatch)
    _, progress = slow.take(tmp_path, lambda taken, progress: 100.0 if taken == 300 else 0.1)
    assert sum(part > 0.9 for part in progress) > 5
    assert progress[-1] > 0.99
    assert slow.now < 60 + 100


def test_a_stage_that_was_slow_while_its_speed_was_measured_takes_more_steps(tmp_path, monkeypatch):
    slow = Slow(monkeypatch)
    steps, progress = slow.take(tmp_path, lambda taken, progress: 1.0 if slow.now < 10 else 0.1)
    assert 350 < steps < 500
    assert 50 < slow.now <= 61
    assert progress[-1] > 0.99


def test_a_stage_takes_no_more_steps_than_its_most(tmp_path, monkeypatch):
    """Not even if it seemed slow at first, and more fit."""
    slow = Slow(monkeypatch)

    def seconds(taken, progress):
        return 1.0 if slow.now < 10 else 0.1

    steps, progress = slow.take(tmp_path, seconds, most=200)
    assert steps == 200
    assert progress[-1] > 0.99
    assert slow.now < 45


def test_a_stage_has_its_share_of_the_time(tmp_path, monkeypatch):
    slow = Slow(monkeypatch)
    slow.take(tmp_path, lambda taken, progress: 0.1, share=0.25)
    assert 14 < slow.now <= 15


@pytest.mark.parametrize(("minutes", "least", "most"), [(1, 480, 600), (3, 1800, 2200)])
def test_a_resumed_stage_keeps_its_plan_and_another_number_of_minutes_is_a_new_one(
    tmp_path, monkeypatch, minutes, least, most
):
    """Stopped after half a minute of one, in which it had become slow for a while."""
    slow = Slow(monkeypatch)

    def seconds(taken, progress):
        if slow.now > 30:
            slow.now = -math.inf  # only once
            os.kill(os.getpid(), signal.SIGINT)
        return 0.3 if 15 < slow.now < 20 else 0.1

    with pytest.raises(KeyboardInterrupt):
        slow.take(tmp_path, seconds, identity={"minutes_asked": 1})
    slow.now = 0.0
    job = slow.job({"minutes_asked": minutes}, tmp_path, resume=True)
    assert job.spent == pytest.approx(23 if minutes == 1 else 0, abs=2)
    steps, _ = slow.steps_of(job, lambda taken, progress: 0.1, minutes=minutes)
    assert least < steps < most
