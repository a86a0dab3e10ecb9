"""What a training leaves beside its weights: figures, pictures and the log."""

import csv
import sys
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from hashsearch.models.storage import read_model
from tests.test_run import CONVOLUTIONAL, DENSE, train
from training.families.linear import LinearPreset
from training.retrieval import Question
from training.training_report import write_report


@pytest.fixture
def question(tiny_images) -> Question:
    """Labels that any pixels can find: whether an image is light."""
    light = np.where(tiny_images.mean(axis=(1, 2, 3)) > 120, "light", "dark")
    return Question("shade", tiny_images[:200], light[:200], tiny_images[200:], light[200:])


@pytest.mark.parametrize(
    "preset", [DENSE, CONVOLUTIONAL, LinearPreset(28)], ids=["dense", "convolutional", "linear"]
)
def test_a_report_stands_in_the_models_folder(tiny_images, question, tmp_path, preset):
    card = train(tiny_images, tmp_path / "model", preset, questions=[question])
    report = tmp_path / "model" / "report"
    page = (report / "README.md").read_text()
    for name, value in card.metrics.items():
        assert f"| {name} | {value} |" in page
    assert {"shade_codes_map_at_200", "shade_codes_knn_accuracy"} <= card.metrics.keys()
    assert ("shade_addresses_precision_at_1" in card.metrics) == (preset is CONVOLUTIONAL)
    pictures = {path.name for path in report.glob("*.png")}
    curves = set() if isinstance(preset, LinearPreset) else {"loss.png"}
    assert pictures == {"bits.png", "filters.png", "reconstructions.png"} | curves
    for name in pictures:
        assert f"]({name})" in page
        with Image.open(report / name) as picture:
            assert len(picture.convert("RGB").getcolors(2**24)) > 20
    read_model(tmp_path / "model")


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


def test_a_report_without_anything_measured_says_why(tmp_path):
    (tmp_path / "log.csv").write_text("stage,step,seconds,loss\n")
    write_report(tmp_path / "report", tmp_path / "log.csv", [], {}, {})
    page = (tmp_path / "report" / "README.md").read_text()
    assert "Nothing was measured: no labelled images were found" in page
    assert "|" not in page
