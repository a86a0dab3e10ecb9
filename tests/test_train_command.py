"""The command `train`: what it refuses at once, and what it says when it is stopped."""

import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import pytest
from PIL import Image

import hashsearch as hs
from hashsearch.gallery.gallery_folder import GalleryFolder
from hashsearch.models.card import PRETRAINED, read_card
from tests.forked import COMMAND, Forked
from tests.test_cli import error_of, run
from tests.trainings import LABELLED
from training.families import PRESETS

ROOT = Path(__file__).parents[1]
TRAINED_WITH_LABELS = PRESETS["conv256-labelled"]


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
        ("kh256-small", "training.reading.load_labelled_images", "no checkpoint", []),
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


@pytest.fixture
def labelled(monkeypatch, tmp_path_factory):
    """`conv256-labelled` with the network of the tests, and nothing to be measured on."""
    monkeypatch.setitem(PRESETS, "conv256-labelled", LABELLED)
    monkeypatch.delenv("HASHSEARCH_DATA", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))


def test_labels_that_cannot_be_learned_are_refused(labelled, image_files, tmp_path):
    kind = min(image_files.iterdir())
    shutil.copytree(kind, tmp_path / "one" / kind.name)
    command = ["train", "conv256-labelled", "--out", tmp_path / "m", "--data"]
    message = error_of(run(*command, tmp_path / "one"))
    assert f"one: all images to train on that have a label have the label '{kind.name}'" in message
    message = error_of(run(*command, kind))
    assert f"no image of {kind} has a label to learn; a label is the name of the" in message
    message = error_of(run(*command, kind, "--unlabelled", "cifar10:test"))
    assert "cifar10:test is for evaluation alone" in message
    command[1] = "conv256"
    message = error_of(run(*command, image_files, "--unlabelled", kind))
    assert "conv256 learns no labels; name all sources with --data" in message
    assert {path.name for path in tmp_path.iterdir()} == {"one"}


def test_a_training_with_labels_prints_what_they_gained_by_class(labelled, image_files, tmp_path):
    out = tmp_path / "m"
    done = run("train", "conv256-labelled", "--data", image_files, "--out", out)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    gain = read_card(out).training["gain"]
    assert lines[0].split() == ["P@10", "images", "before", "after", "gain"]
    kinds = {folder.name for folder in image_files.iterdir()}
    assert {line.split()[0] for line in lines[1 : len(kinds) + 1]} == kinds
    name, images, *found = lines[len(kinds) + 1].split()[:4]
    assert (name, images) == ("all", f"{gain['images']}")
    # The card has a digit more, which is rounded too.
    assert [*map(float, found)] == pytest.approx([gain["before"], gain["after"]], abs=6e-4)
    assert lines[-1].startswith(f"{out}: model ")
    assert "measuring on seen (queries are" in done.stderr


def test_a_gallery_is_trained_on_with_the_labels_that_it_keeps(labelled, image_files, tmp_path):
    table = tmp_path / "labels.csv"
    paths = sorted(image_files.rglob("*.*"))
    rows = [f"{path.relative_to(image_files)},kind {n % 3}" for n, path in enumerate(paths)]
    table.write_text("\n".join(["path,label", *rows]) + "\n")
    gallery, out = tmp_path / "gallery", tmp_path / "m"
    done = run("index", image_files, "--gallery", gallery, "--labels", table)
    assert done.returncode == 0, done.stderr
    with hs.open(gallery) as opened:
        assert opened.remove(ids=range(3, 301, 3)) == 100
    done = run("train", "conv256-labelled", "--data", gallery, "--out", out)
    assert done.returncode == 0, done.stderr
    assert "learning labels of 200 images of 2 classes (kind 0, kind 1), 0 without" in done.stderr
    assert read_card(out).training["labels"]["classes"] == {str(gallery): 2}
    assert {line.split("  ")[0] for line in done.stdout.splitlines()[1:3]} == {"kind 0", "kind 1"}


def test_galleries_that_nothing_can_be_learned_from_are_refused(labelled, image_files, tmp_path):
    with hs.open(tmp_path / "empty", create=True):
        pass
    with hs.open(tmp_path / "blind", create=True, pixels=False) as opened:
        opened.add(next(image_files.rglob("*.*")))
    shutil.copytree(Path(__file__).with_name("data") / "gallery-v1", tmp_path / "old")
    for name, why in {
        "empty": r"no image came from .*empty; images with labels are wanted",
        "blind": r"blind keeps no pixels, .*; name the source of its images, or index",
        "old": r"old was made by version 1 of the image rules, .*; index its pictures again",
    }.items():
        done = run("train", "conv256-labelled", "--data", tmp_path / name, "--out", tmp_path / "m")
        assert re.search(why, error_of(done))
    assert not (tmp_path / "m").exists()


def test_the_page_on_labels_leads_from_a_folder_to_a_gallery_of_another_model(
    labelled, image_files, tmp_path, monkeypatch
):
    """With a few steps: only the way is tested, not what is gained."""
    few = replace(TRAINED_WITH_LABELS, steps=2, decoder_steps=2, batch=32, decoder_batch=32)
    monkeypatch.setitem(PRESETS, "conv256-labelled", few)
    monkeypatch.chdir(tmp_path)
    for number, path in enumerate(sorted(image_files.rglob("*.*"))):
        folder = tmp_path / ("others" if number % 3 == 0 else "pictures") / path.parent.name
        folder.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, folder)
    page = (ROOT / "docs" / "labels.md").read_text()
    _, way = page.split("## From a folder to a better gallery")
    commands = re.findall(r"^hashsearch (.*)$", way.split("```")[1], re.MULTILINE)
    for command in commands:
        done = run(*shlex.split(command.replace("--minutes 4 ", "")))
        assert done.returncode == 0, (command, done.stderr)
        if command.startswith("eval"):
            assert "codes of mine" in done.stdout
            assert "codes of bundled" in done.stdout
    mine = read_card(tmp_path / "mine").fingerprint
    with closing(GalleryFolder(tmp_path / "gallery")) as gallery:
        assert gallery.fingerprint == mine != read_card(PRETRAINED).fingerprint


def test_sources_are_named_once_for_their_labels(labelled, image_files, tmp_path):
    """Under several names, one source is still one label set."""
    command = ["train", "conv256-labelled", "--data", image_files, f"{image_files}/", "--out"]
    done = run(*command, tmp_path / "m", "--unlabelled", image_files)
    assert "is named by --data and by --unlabelled; which is it?" in error_of(done)
    others = tmp_path / "others"
    others.mkdir()
    for number, path in enumerate(sorted(image_files.rglob("*.*"))[:40]):
        Image.open(path).transpose(Image.Transpose.FLIP_TOP_BOTTOM).save(others / f"{number}.png")
    done = run(*command, tmp_path / "m", "--unlabelled", others)
    assert done.returncode == 0, done.stderr
    training = read_card(tmp_path / "m").training
    kinds = len(list(image_files.iterdir()))
    assert training["labels"]["classes"] == {str(image_files): kinds}
    held_out = training["gain"]["images"]
    assert training["labels"]["images"] == 2 * (300 - held_out)
    assert training["images"] == 2 * (300 - held_out) + 40 - 4
