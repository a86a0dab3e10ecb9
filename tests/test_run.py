"""A training that stops anywhere ends as one that never stopped."""

import os
import sys
import time
from dataclasses import replace

import numpy as np
import pytest
import torch

from hashsearch.errors import TrainingError
from hashsearch.models.storage import read_model
from hashsearch.models.transform import TransformAutoencoder
from tests.forked import Forked
from tests.trainings import (
    ANEW,
    CONVOLUTIONAL,
    DENSE,
    TRANSFORM,
    StopAfter,
    assert_same_weights,
    rows_of,
    split_off,
    train,
)
from training import budget, job, run
from training.components import principal_components
from training.data import fit_standardization
from training.device import generator
from training.families.linear import LinearPreset
from training.retrieval import Question
from training.step import Step


@pytest.mark.parametrize(
    ("preset", "steps"),
    [
        *((DENSE, steps) for steps in (1, 6, 8, 13)),
        *((CONVOLUTIONAL, steps) for steps in (1, 6, 10, 11, 13)),  # 10: before the code is made
        (TRANSFORM, 3),
    ],
)
def test_a_resumed_training_ends_with_the_weights_of_an_unbroken_one(
    unbroken, tiny_images, tmp_path, monkeypatch, preset, steps
):
    whole, card = unbroken(preset)
    with monkeypatch.context() as patched:
        StopAfter(patched, steps)
        with pytest.raises(KeyboardInterrupt):
            train(tiny_images, tmp_path / "broken", preset)
    assert not (tmp_path / "broken").exists()
    broken = train(tiny_images, tmp_path / "broken", preset, resume=True)
    assert_same_weights(whole, tmp_path / "broken")
    assert broken.fingerprint == card.fingerprint
    assert broken.metrics == card.metrics
    assert not (tmp_path / "broken.training").exists()


def test_a_killed_training_goes_on_to_the_same_weights_and_its_log_repeats_no_step(
    tiny_images, tmp_path, monkeypatch
):
    np.save(tmp_path / "images.npy", tiny_images)
    preset = replace(DENSE, steps=300, pretraining=None)
    program = f"""
import numpy as np
from pathlib import Path
from training import budget, job, run
from training.families.dense import DensePreset
run._CHECKPOINT_EVERY_S = 0.2
run._LOG_ROWS = 4000
job.train("t", {preset!r}, np.load("images.npy"), Path("model"),
    data="tests", seed=3, device="cpu", resume=True)
"""
    killed = Forked([sys.executable, "-c", program], cwd=tmp_path)
    checkpoint = tmp_path / "model.training" / "checkpoint.pt"
    try:
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            if checkpoint.exists() and torch.load(checkpoint, weights_only=True)["step"] > 20:
                break
            time.sleep(0.05)
    finally:
        killed.kill()
        killed.wait()
    taken = torch.load(checkpoint, weights_only=True)["step"]
    assert 20 < taken < 300
    monkeypatch.setattr(run, "_LOG_ROWS", 4000)
    train(tiny_images, tmp_path / "model", preset, resume=True)
    steps = [step for _, step, _ in rows_of(tmp_path / "model" / "report" / "log.csv")]
    assert steps == list(range(300))
    train(tiny_images, tmp_path / "unbroken", preset)
    assert_same_weights(tmp_path / "model", tmp_path / "unbroken")


def test_an_unfinished_training_is_not_overwritten(tiny_images, tmp_path, monkeypatch):
    with monkeypatch.context() as patched:
        StopAfter(patched, 3)
        with pytest.raises(KeyboardInterrupt):
            train(tiny_images, tmp_path / "model", DENSE)
    with pytest.raises(TrainingError, match="holds an unfinished training; use --resume"):
        train(tiny_images, tmp_path / "model", DENSE)
    other = replace(DENSE, learning_rate=1.0)
    with pytest.raises(TrainingError, match="another training: it differs in settings"):
        train(tiny_images, tmp_path / "model", other, resume=True)
    with pytest.raises(TrainingError, match="it differs in images, images_sha256"):
        train(tiny_images[:200], tmp_path / "model", DENSE, resume=True)


def test_resuming_where_there_is_nothing_begins_and_says_so(tiny_images, tmp_path, capsys):
    train(tiny_images, tmp_path / "model", DENSE, resume=True)
    wanted = f"nothing to resume in {tmp_path / 'model.training'}; starting a new training"
    assert wanted in capsys.readouterr().err.splitlines()


@pytest.mark.soak  # counts the steps of seconds, so it needs a machine without other work
def test_minutes_fix_the_steps_at_the_start_and_a_resumed_training_keeps_them(
    tiny_images, tmp_path, monkeypatch
):
    monkeypatch.setattr(job, "_TO_WRITE_S", 0.0)
    for share in ("_EARLY", "_STEADY"):  # the machine is busy, but the plan is kept
        monkeypatch.setattr(run, share, 2.0)
    preset = replace(CONVOLUTIONAL, steps=10**9, decoder_steps=10**9)
    with monkeypatch.context() as patched:
        StopAfter(patched, 3)
        with pytest.raises(KeyboardInterrupt):
            train(tiny_images, tmp_path / "model", preset, minutes=0.1)
    saved = torch.load(tmp_path / "model.training" / "checkpoint.pt", weights_only=True)
    card = train(tiny_images, tmp_path / "model", preset, minutes=0.1, resume=True)
    assert card.training["steps"]["views"] == saved["steps"]["views"]
    assert 3 < card.training["steps"]["views"] < 10_000
    assert set(card.training["steps"]) == {"views", "decoder"}


@pytest.mark.soak  # counts the steps of seconds, so it needs a machine without other work
def test_measuring_the_speed_leaves_no_trace(tiny_images, tmp_path, monkeypatch):
    monkeypatch.setattr(job, "_TO_WRITE_S", 0.0)
    for share in ("_EARLY", "_STEADY"):  # the machine is busy, but the plan is kept
        monkeypatch.setattr(run, share, 2.0)
    preset = replace(CONVOLUTIONAL, decoder_steps=1)
    card = train(tiny_images, tmp_path / "measured", preset, minutes=0.05)
    counted = replace(
        preset,
        steps=card.training["steps"]["views"],
        decoder_steps=card.training["steps"]["decoder"],
    )
    train(tiny_images, tmp_path / "counted", counted)
    assert_same_weights(tmp_path / "measured", tmp_path / "counted")


def test_a_damaged_checkpoint_is_refused_with_a_sentence(tiny_images, tmp_path):
    (tmp_path / "model.training").mkdir()
    checkpoint = tmp_path / "model.training" / "checkpoint.pt"
    checkpoint.write_bytes(b"not a checkpoint")
    with pytest.raises(TrainingError, match=r"checkpoint\.pt cannot be read"):
        train(tiny_images, tmp_path / "model", DENSE, resume=True)
    for other in ([1, 2], {"step": 3}):
        torch.save(other, checkpoint)
        with pytest.raises(TrainingError, match=r"checkpoint\.pt (cannot be read|is incomplete)"):
            train(tiny_images, tmp_path / "model", DENSE, resume=True)


def test_a_log_that_lost_rows_is_refused(tiny_images, tmp_path, monkeypatch):
    with monkeypatch.context() as patched:
        StopAfter(patched, 3)
        with pytest.raises(KeyboardInterrupt):
            train(tiny_images, tmp_path / "model", DENSE)
    log = tmp_path / "model.training" / "log.csv"
    os.truncate(log, log.stat().st_size - 5)
    with pytest.raises(TrainingError, match="is incomplete"):
        train(tiny_images, tmp_path / "model", DENSE, resume=True)


@pytest.mark.parametrize(
    ("first", "preset", "steps"),
    [
        (DENSE, DENSE, 3),
        (CONVOLUTIONAL, CONVOLUTIONAL, 3),
        (CONVOLUTIONAL, ANEW, 1),
        (CONVOLUTIONAL, ANEW, 3),
        (TRANSFORM, TRANSFORM, 3),
    ],
    ids=["dense", "convolutional", "remade-1", "remade-3", "transform"],
)
def test_a_training_from_a_model_that_stopped_ends_as_an_unbroken_one(
    unbroken, tiny_images, tmp_path, monkeypatch, first, preset, steps
):
    start, _ = unbroken(first)
    whole, _ = unbroken(preset, start=start)
    with monkeypatch.context() as patched:
        StopAfter(patched, steps)
        with pytest.raises(KeyboardInterrupt):
            train(tiny_images, tmp_path / "broken", preset, start=start)
    train(tiny_images, tmp_path / "broken", preset, start=start, resume=True)
    assert_same_weights(whole, tmp_path / "broken")


def test_the_linear_autoencoder_is_principal_component_analysis(tiny_images, tmp_path):
    train(tiny_images, tmp_path / "model", LinearPreset(bits=256))
    model, _ = read_model(tmp_path / "model")
    images, _ = split_off(tiny_images, job.HELD_OUT, 3)
    flat = images.reshape(len(images), -1).astype(float)
    centred = (flat - flat.mean(axis=0)) / (flat - flat.mean(axis=0)).std()
    _, _, components = np.linalg.svd(centred, full_matrices=False)
    found = model.encoder[0].weight.numpy()
    cosines = np.abs((found[:20] * components[:20]).sum(axis=1))
    np.testing.assert_allclose(cosines, 1, atol=1e-3)  # a component's sign is free

    projected = centred @ found.T
    decoded = np.where(projected >= 0, 1, -1) * np.abs(projected).mean(axis=0) @ found
    bits = torch.from_numpy((projected >= 0).astype(np.float32))
    np.testing.assert_allclose(model.decoder(bits).numpy(), decoded, atol=1e-3)


def test_components_are_those_of_numpy_however_few_the_images(tiny_images):
    model = TransformAutoencoder(((32, 8),), width=8)
    fit_standardization(model, tiny_images)
    many = np.concatenate([tiny_images] * 4)  # 1,200, with the same mean and components
    found = [principal_components(model, images, 20) for images in (tiny_images, many)]
    flat = model.standardize(torch.from_numpy(tiny_images)).double().numpy()
    _, _, components = np.linalg.svd(flat - flat.mean(axis=0), full_matrices=False)
    for mean, ours in found:
        np.testing.assert_allclose(mean, flat.mean(axis=0), atol=1e-5)
        cosines = np.abs((ours.numpy() * components[:20]).sum(axis=1))
        np.testing.assert_allclose(cosines, 1, atol=1e-4)  # a component's sign is free


def test_what_diverging_means_depends_on_the_scale_of_the_loss():
    assert run._require_sound(0.5, 0.02, "some", 1, scale=1.0) == 0.02
    with pytest.raises(TrainingError, match=r"loss became 0\.5 at step 1, from 0\.02"):
        run._require_sound(0.5, 0.02, "some", 1, scale=0.0)


@pytest.mark.parametrize("preset", [CONVOLUTIONAL, TRANSFORM], ids=["decoder", "reconstruction"])
def test_errors_of_pictures_diverge_from_where_they_began(
    tiny_images, tmp_path, monkeypatch, preset
):
    scales = {}
    sound = run._require_sound

    def noted(loss, first, stage, step, scale):
        scales[stage] = scale
        return sound(loss, first, stage, step, scale)

    monkeypatch.setattr(run, "_require_sound", noted)
    train(tiny_images, tmp_path / "model", preset)
    pictures = {"decoder", "reconstruction"} & set(scales)
    assert pictures
    assert all(scale == (stage not in pictures) for stage, scale in scales.items())


def test_a_budget_too_small_for_measuring_and_writing_is_refused(tiny_images, tmp_path):
    labels = np.array(["some"] * 150)
    question = Question("some", tiny_images[:150], labels, tiny_images[150:], labels)
    with pytest.raises(
        TrainingError, match=r"0.01 of --minutes is too little: beginning took 0.0, measuring and"
    ):
        train(tiny_images, tmp_path / "model", CONVOLUTIONAL, minutes=0.01, questions=[question])
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("preset", [DENSE, CONVOLUTIONAL], ids=["dense", "convolutional"])
def test_a_resumed_training_goes_on_with_the_very_rates_that_its_steps_read(
    tiny_images, tmp_path, monkeypatch, preset
):
    """A captured step reads no other tensor."""
    with monkeypatch.context() as patched:
        StopAfter(patched, 20 if preset is DENSE else 3)
        with pytest.raises(KeyboardInterrupt):
            train(tiny_images, tmp_path / "model", preset)
    load, made = budget.load_in_place, []

    def watched(part, state):
        before = [id(group["lr"]) for group in getattr(part, "param_groups", [])]
        load(part, state)
        made.extend(before)
        assert [id(group["lr"]) for group in getattr(part, "param_groups", [])] == before

    monkeypatch.setattr(run, "load_in_place", watched)
    train(tiny_images, tmp_path / "model", preset, resume=True)
    assert made


def test_what_a_step_draws_depends_on_its_number_and_the_seed():
    def compute(rows, random):
        return {"loss": torch.rand((), generator=random) + rows.sum()}

    rows = torch.arange(3)
    take, other = Step(compute, "cpu", 1, 2), Step(compute, "cpu", 1, 3)
    drawn = [take(step, rows)["loss"].item() for step in (0, 1, 0)]
    assert drawn[0] == drawn[2] != drawn[1]
    assert other(0, rows)["loss"].item() != drawn[0]
    assert drawn[0] == pytest.approx(3 + torch.rand((), generator=generator("cpu", 1, 2, 0)).item())
