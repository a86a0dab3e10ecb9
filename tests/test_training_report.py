"""What a training leaves beside its weights: figures, pictures and the log."""

import base64
import csv
import re
import sys
from dataclasses import replace
from io import BytesIO

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
    page = (report / "report.html").read_text()
    for name, value in card.metrics.items():
        assert f"<tr><td>{name}</td><td>{value}</td></tr>" in page
    assert {"shade_codes_map_at_200", "shade_codes_knn_accuracy"} <= card.metrics.keys()
    assert ("shade_addresses_precision_at_1" in card.metrics) == (preset is CONVOLUTIONAL)
    assert {path.name for path in report.iterdir()} == {"log.csv", "report.html"}
    assert not re.search(r'(src|href)="(?!data:|#)', page)  # it needs nothing beside it
    images = re.findall(r'src="data:image/([a-z+]+);base64,([^"]+)" alt="(\w+)"', page)
    curves = set() if isinstance(preset, LinearPreset) else {("svg+xml", "loss")}
    assert {(kind, name) for kind, _, name in images} == {
        ("png", "reconstructions"),
        ("png", "filters"),
        ("svg+xml", "bits"),
    } | curves
    for kind, content, _ in images:
        data = base64.b64decode(content)
        if kind == "png":
            with Image.open(BytesIO(data)) as picture:
                assert len(picture.convert("RGB").getcolors(2**24)) > 20
        else:
            assert b"prefers-color-scheme: dark" in data
            assert b"currentColor" in data
            assert b"#000000" not in data  # invisible on a dark page
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
    page = (report / "report.html").read_text()
    assert "Plots need matplotlib" in page
    assert re.findall(r'alt="(\w+)"', page) == ["reconstructions", "filters"]


def test_a_report_without_anything_measured_says_why(tmp_path):
    (tmp_path / "log.csv").write_text("stage,step,seconds,loss\n")
    training = {"preset": "<pca>", "data": "a & b", "images": 2000, "seed": 7, "steps": {}}
    training |= {"minutes": 0.5, "hardware": "a machine", "torch": "2"}
    write_report(tmp_path / "report", tmp_path / "log.csv", [], {}, {}, training)
    page = (tmp_path / "report" / "report.html").read_text()
    assert "Nothing was measured: no labelled images were found" in page
    assert "<table" not in page
    assert "<h1>Training of &lt;pca&gt;</h1>" in page
    assert "Trained on 2,000 images of a &amp; b, with seed 7: 0 steps in 0.5 minutes" in page
