"""What a training leaves beside its weights: figures, pictures and the log."""

import csv
import sys
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from hashsearch.evaluation.tiers import Tiers
from hashsearch.models.folder import load_model
from tests.test_run import CONVOLUTIONAL, DENSE, train
from training.presets import LinearPreset
from training.retrieval import Labelled, retrieval_by_bits, retrieval_by_pixels


@pytest.fixture
def labelled(tiny_images) -> Labelled:
    """Labels that any pixels can find: whether an image is light."""
    light = np.where(tiny_images.mean(axis=(1, 2, 3)) > 120, "light", "dark")
    return Labelled("shade", tiny_images[:200], light[:200], tiny_images[200:], light[200:])


def slow(labelled, distances):
    """The same measures, query by query, the relevant images' tiers found by sorting."""
    measured = []
    for row, label in zip(np.array(distances), labelled.query_labels, strict=True):
        relevant = labelled.gallery_labels == label
        order = np.argsort(~relevant, kind="stable")
        tiers = Tiers.of_distances(row[order].astype(np.float32), slice(0, relevant.sum()))
        first, tenth = tiers.found_at(np.array([1, 10]))[0] / (1, 10)
        measured.append([first, tenth, tiers.average_precision_at(200)[0][0]])
    names = ("precision_at_1", "precision_at_10", "map_at_200")
    return dict(zip(names, np.mean(measured, axis=0).tolist(), strict=True))


@pytest.mark.parametrize("n_bits", [3, 28, 256])
def test_ranking_by_bits_is_that_of_a_sort(labelled, n_bits):
    random = np.random.default_rng(n_bits)
    gallery = random.integers(0, 2, (200, n_bits), np.uint8)
    queries = random.integers(0, 2, (len(labelled.queries), n_bits), np.uint8)
    distances = (gallery[np.newaxis] != queries[:, np.newaxis]).sum(axis=2)
    found = retrieval_by_bits(labelled, gallery, queries)
    assert found == pytest.approx(slow(labelled, distances), abs=1e-4)


def test_ranking_by_pixels_is_that_of_a_sort(labelled):
    gallery = labelled.gallery.reshape(200, -1).astype(np.int64)
    queries = labelled.queries.reshape(len(labelled.queries), -1).astype(np.int64)
    distances = np.array([np.square(gallery - query).sum(axis=1) for query in queries])
    assert retrieval_by_pixels(labelled) == pytest.approx(slow(labelled, distances), abs=1e-4)


@pytest.mark.parametrize(
    "preset", [DENSE, CONVOLUTIONAL, LinearPreset(28)], ids=["dense", "convolutional", "linear"]
)
def test_a_report_stands_in_the_models_folder(tiny_images, labelled, tmp_path, preset):
    card = train(tiny_images, tmp_path / "model", preset, labelled=labelled)
    report = tmp_path / "model" / "report"
    page = (report / "README.md").read_text()
    for name, value in card.metrics.items():
        assert f"| {name} | {value} |" in page
    assert {"shade_codes_map_at_200", "shade_pixels_precision_at_10"} <= card.metrics.keys()
    assert ("shade_addresses_precision_at_1" in card.metrics) == (preset is CONVOLUTIONAL)
    pictures = {path.name for path in report.glob("*.png")}
    curves = set() if isinstance(preset, LinearPreset) else {"loss.png"}
    assert pictures == {"bits.png", "filters.png", "reconstructions.png"} | curves
    for name in pictures:
        assert f"]({name})" in page
        with Image.open(report / name) as picture:
            assert len(picture.convert("RGB").getcolors(2**24)) > 20
    load_model(tmp_path / "model")


def test_the_log_has_a_row_for_each_step_of_each_stage(tiny_images, tmp_path):
    train(tiny_images, tmp_path / "model", DENSE)
    with (tmp_path / "model/report/log.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    layers = [f"layer {n} of 3" for n in (1, 2, 3)]
    expected = [(stage, str(step)) for stage in layers for step in range(6)]
    expected += [("reconstruction", str(step)) for step in range(12)]
    assert [(row["stage"], row["step"]) for row in rows] == expected
    assert all(float(row["loss"]) > 0 for row in rows)


def test_without_matplotlib_the_report_says_what_it_lacks(tiny_images, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    train(tiny_images, tmp_path / "model", replace(DENSE, pretraining=None))
    report = tmp_path / "model" / "report"
    assert "Plots need matplotlib" in (report / "README.md").read_text()
    assert {path.name for path in report.glob("*.png")} == {"filters.png", "reconstructions.png"}
