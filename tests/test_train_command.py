"""The command `train`: what it refuses at once, and what it says when it is stopped."""

import signal
import subprocess
import sys
import time
from types import ModuleType

import pytest

from tests.forked import COMMAND, Forked
from tests.test_cli import error_of, run


def test_training_on_a_test_split_is_refused(tmp_path):
    done = run("train", "dense256-quick", "--data", "cifar10:test", "--out", tmp_path / "m")
    assert "cifar10:test is for evaluation alone" in error_of(done)


def test_training_over_an_existing_folder_is_refused_at_once(model_folder):
    done = run("train", "dense256-quick", "--data", "samples", "--out", model_folder)
    assert "already exists" in error_of(done)


def test_a_training_from_what_is_no_model_for_it_is_refused_at_once(model_folder, tmp_path):
    command = ["train", "conv256", "--data", "samples", "--out", tmp_path / "m", "--from"]
    assert "is no model folder" in error_of(run(*command, tmp_path / "nowhere"))
    assert "from which this preset cannot start" in error_of(run(*command, model_folder))
    assert not list(tmp_path.iterdir())


def test_an_interrupted_training_stops_at_a_checkpoint_and_says_how_to_go_on(
    image_files, tmp_path, tmp_path_factory, monkeypatch
):
    monkeypatch.delenv("HASHSEARCH_DATA", raising=False)  # nothing to be measured on
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
    command = [COMMAND, "train", "dense256-quick", "--data", image_files, "--out", tmp_path / "m"]
    checkpoint = tmp_path / "m.training" / "checkpoint.pt"
    with Forked(command, stderr=subprocess.PIPE, text=True) as job:
        deadline = time.monotonic() + 120
        while not checkpoint.exists() and job.poll() is None and time.monotonic() < deadline:
            time.sleep(0.05)
        begun = checkpoint.stat().st_mtime_ns
        job.send_signal(signal.SIGTERM)
        message = job.communicate(timeout=60)[1]
    assert job.returncode == 143, message
    assert "stopped; the same command with --resume continues" in message.splitlines()[-1]
    assert checkpoint.stat().st_mtime_ns >= begun
    assert not (tmp_path / "m").exists()

    done = run(*command[1:])
    assert "holds an unfinished training" in error_of(done)
    done = run(*command[1:], "--resume", "--seed", 1)
    assert done.returncode == 1
    assert "another training: it differs in" in done.stderr.splitlines()[-1]  # after the progress


def stop(*given, **named):
    raise KeyboardInterrupt


def test_a_command_stopped_while_its_arguments_are_checked_says_so(tmp_path, monkeypatch):
    module = ModuleType("training.families")
    module.__getattr__ = stop
    monkeypatch.setitem(sys.modules, "training.families", module)
    done = run("train", "pca256", "--data", "samples", "--out", tmp_path / "m")
    assert (done.returncode, done.stderr) == (130, "hashsearch: stopped\n")


@pytest.mark.parametrize(
    ("preset", "name", "message", "left"),
    [
        ("kh256-small", "hashsearch.sources.loading.load_tiny_images", "no checkpoint", []),
        ("kh256-small", "training.run.affordable", "no checkpoint", []),
        ("pca256", "training.families.linear.fit_linear", "no checkpoint", []),
        ("pca256", "training.run.Run.delete", "m is complete", ["m", "m.training"]),
    ],
)
def test_a_training_stopped_without_a_checkpoint_promises_none(
    tmp_path, tmp_path_factory, monkeypatch, image_files, preset, name, message, left
):
    """Before the first step, while its speed is measured, and where there are no steps."""
    monkeypatch.delenv("HASHSEARCH_DATA", raising=False)  # nothing to be measured on
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
    monkeypatch.setattr(name, stop)
    command = ["train", preset, "--data", image_files, "--minutes", 5, "--out", tmp_path / "m"]
    done = run(*command)
    assert done.returncode == 130
    line = done.stderr.splitlines()[-1]
    assert line.startswith("hashsearch: stopped")
    assert message in line
    assert "--resume" not in line
    assert sorted(path.name for path in tmp_path.iterdir()) == left


@pytest.mark.parametrize("device", ["tpu", "cuda:99", "nonsense"])
def test_a_device_that_is_not_there_is_told_before_anything_is_read(tmp_path, device):
    out = tmp_path / "m"
    done = run("train", "dense256-quick", "--data", "nowhere", "--out", out, "--device", device)
    assert f"device '{device}' is not available here" in error_of(done)
