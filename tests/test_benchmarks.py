"""What the benchmarks that choose the default's settings are made of."""

import sys
from dataclasses import replace

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose

from benchmarks import scale, supervised, training
from benchmarks.ablations import Training, row, trials
from benchmarks.depths import as_depths, deal
from benchmarks.quoting import replaced
from hashsearch.evaluation.tasks import LabelledImages
from hashsearch.models.convolutional import ENCODER, ConvolutionalAutoencoder
from tests.trainings import CONVOLUTIONAL
from training.data import fit_standardization
from training.families.base import Work
from training.families.convolutional import learn_views
from training.retrieval import Question
from training.run import Run
from training.transform_coding import fit_transform

PRESET = replace(CONVOLUTIONAL, steps=3)


def test_the_default_trial_is_the_defaults_training(tiny_images, tmp_path):
    training = Training(trials(PRESET)["the default"], tiny_images)
    torch.manual_seed(0)
    model = ConvolutionalAutoencoder(PRESET.widths, PRESET.blocks, PRESET.depths).channels_last()
    fit_standardization(model, tiny_images)
    run = Run(tmp_path / "model", {}, ("loss", *PRESET.terms), resume=False)
    learn_views(model, PRESET, Work(run, tiny_images, seed=0, device="cpu"))
    for step in range(PRESET.steps):
        assert training.take(step, PRESET.steps)
    theirs = model.state_dict()
    for name, ours in training.model.state_dict().items():
        if name.split(".")[0] in ENCODER:
            assert_allclose(ours, theirs[name], atol=1e-4, err_msg=name)


def test_a_trial_is_a_row_of_the_table(tiny_images):
    labels = np.array(["bright" if image.mean() > 110 else "dark" for image in tiny_images])
    question = Question("tests", tiny_images, labels, tiny_images[:40], labels[:40])
    fitted = ConvolutionalAutoencoder(PRESET.widths, PRESET.blocks, PRESET.depths)
    fit_standardization(fitted, tiny_images)
    fit_transform(fitted, tiny_images)
    every = trials(PRESET)
    for name in ("the default", "8 small crops", "reconstruction from all bits, 4"):
        text, point = row(every[name], question, 2, fitted.transform)
        _, called, _, *cells, psnr, _ = text.split("|")
        assert called.strip() == name
        assert all(0 < float(cell) <= 1 for cell in cells)
        assert len(cells) == 6
        assert psnr == f" {point[0]:.1f} dB "
        assert cells[-1].strip() == f"{point[1]:.3f}".removeprefix("0")
    lost = replace(every["the default"], preset=replace(PRESET, learning_rate=1e30))
    text, point = row(lost, question, 20, fitted.transform)
    assert "no number after" in text
    assert point is None


def test_every_bit_is_dealt_and_fewer_are_the_first_of_more(tiny_images):
    many = deal(tiny_images, 40)
    assert len(many) == 40
    assert deal(tiny_images, 12) == many[:12]
    depths = as_depths(many)
    assert sum(count * depth for count, depth in depths) == 40
    assert [depth for _, depth in depths] == sorted({depth for _, depth in depths}, reverse=True)
    assert as_depths([]) == ()


def test_a_component_of_more_variance_has_more_bits(tiny_images):
    """Of one shape of distribution: a bit takes away a share of what is left, so each
    doubling of the deviation earns about one more."""
    random = np.random.default_rng(0)
    deviations = np.array([40.0, 20.0, 10.0, 5.0])
    images = np.full((600, 32, 32, 3), 128, np.uint8)
    for number, deviation in enumerate(deviations):
        drawn = 128 + deviation * random.standard_normal((600, 1, 1, 1))
        images[:, number * 8 : number * 8 + 8] = drawn.round().clip(0, 255)
    held = np.bincount(deal(images, 10), minlength=4)
    assert held.tolist() == [4, 3, 2, 1]


def test_the_training_benchmark_times_teacher_and_student(monkeypatch, capsys):
    arguments = ["--device", "cpu", "--width", "2", "--batch", "64", "--seconds", "0.1"]
    monkeypatch.setattr(sys, "argv", ["training", *arguments])
    training.main()
    *_, teacher, student = capsys.readouterr().out.splitlines()
    # Thrice a view's own multiplications and additions; of the teacher a fourth time, and
    # 0.0016 for the covariances of 512 outputs.
    for line, least, most in ((teacher, 0.0055, 0.0075), (student, 0.28, 0.32)):
        _, _, speed, operations, _, share, _ = line.split("|")
        assert float(speed.replace(",", "")) > 0
        assert least < float(operations) < most
        assert 0 <= float(share.strip(" %")) < 100  # a busy machine has less than 1%


def test_the_page_on_scale_has_what_the_model_computes():
    page = scale.PAGE.read_text()
    assert replaced(page, "benchmarks.scale", scale.section()) == page


def test_the_model_gives_what_was_measured_where_it_was_measured():
    """Medians of docs/benchmarks.md, of ivf with the lists that were chosen."""
    for images, nprobe, measured_ms in ((10**6, 18, 0.0836), (10**7, 31, 0.260)):
        lists = scale.lists_for(images)
        compared = nprobe * images / lists
        ms = sum(
            scale.FIGURES[name].value * times
            for name, times in (("base_ms", 1), ("list_ms", lists), ("code_ms", compared))
        )
        assert ms == pytest.approx(measured_ms, rel=0.2)


def test_the_supervised_protocol_keeps_queries_and_what_is_learned_apart(
    tiny_images, image_files, monkeypatch
):
    monkeypatch.setattr(supervised, "_TRAINING", 6)
    monkeypatch.setattr(supervised, "_QUERIES", 4)
    labels = np.array([path.parent.name for path in sorted(image_files.rglob("*.*"), key=str)])
    odd = np.arange(len(labels)) % 2 == 1
    whole = LabelledImages(tiny_images, labels)
    learned, tasks = supervised.protocol(whole[~odd], whole[odd])
    kinds = len(np.unique(labels))
    assert set(np.unique(learned.labels, return_counts=True)[1]) == {6}
    contents = {bytes(image) for image in learned.images}
    for task, count in zip(tasks, (300 - 10 * kinds, 300 - 4 * kinds), strict=True):
        assert len(task.gallery) == count
        assert set(np.unique(task.queries.labels, return_counts=True)[1]) == {4}
        gallery = {bytes(image) for image in task.gallery.images}
        queries = {bytes(image) for image in task.queries.images}
        assert not queries & (gallery | contents)
        assert (contents <= gallery) == (task is tasks[1])
        assert contents & gallery == (contents if task is tasks[1] else set())
