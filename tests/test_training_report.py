"""What a training leaves beside its weights: figures, pictures and the log."""

import base64
import csv
import re
import sys
from dataclasses import replace
from html import escape
from io import BytesIO

import numpy as np
import pytest
from PIL import Image

from hashsearch.models.storage import read_model
from tests.trainings import CONVOLUTIONAL, DENSE, train
from training.families.linear import LinearPreset
from training.retrieval import Question
from training.training_report import write_report

FOUND = "images of a query's class are found"


@pytest.fixture
def question(tiny_images) -> Question:
    """Labels that any pixels can find: whether an image is light."""
    light = np.where(tiny_images.mean(axis=(1, 2, 3)) > 120, "light", "dark")
    gallery, queries = (tiny_images[:200], light[:200]), (tiny_images[200:], light[200:])
    return Question("shade", *gallery, *queries, meaning="queries are 100 & the gallery is 200")


@pytest.mark.parametrize(
    "preset", [DENSE, CONVOLUTIONAL, LinearPreset(28)], ids=["dense", "convolutional", "linear"]
)
def test_a_report_stands_in_the_models_folder(tiny_images, question, plots, tmp_path, preset):
    card = train(tiny_images, tmp_path / "model", preset, questions=[question])
    report = tmp_path / "model" / "report"
    page = (report / "report.html").read_text()
    for name, value in card.metrics.items():
        assert f"<tr><td>{name}</td><td>{value}</td></tr>" in page
    assert {"shade_codes_map_at_200", "shade_codes_knn_accuracy"} <= card.metrics.keys()
    assert ("shade_addresses_precision_at_1" in card.metrics) == (preset is CONVOLUTIONAL)
    assert f"shade_… says how well {escape(FOUND)}: {escape(question.meaning)}." in page
    assert "reconstructions and bits are of 20 images held out of this training. Of so many" in page
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


def test_a_report_of_images_trained_on_does_not_call_them_held_out(tiny_images, tmp_path):
    """Of fewer than ten images none is held out."""
    few = replace(DENSE, batch=4, steps=2, pretraining=None)
    train(tiny_images[:9], tmp_path / "model", few)
    page = (tmp_path / "model/report/report.html").read_text()
    assert (
        "reconstructions and bits are of 9 of the images trained on, since of so few none" in page
    )
    assert "held out of" not in page


def test_the_correlation_of_bits_stands_beside_what_chance_gives(tiny_images, plots, tmp_path):
    """Of 20 pictures, independent bits have 0.18."""
    train(tiny_images[:200], tmp_path / "model", LinearPreset(28))
    page = (tmp_path / "model/report/report.html").read_text()
    assert "a mean_bit_imbalance of 0.0892 and a mean |r| of 0.183." in page
    (plot,) = re.findall(r'src="data:image/svg\+xml;base64,([^"]+)" alt="bits"', page)
    assert b"0.183 by chance, of 20 images" in base64.b64decode(plot)


def test_a_training_says_first_what_it_is_measured_on_and_what_is_withheld(
    tiny_images, question, tmp_path, capsys
):
    train(tiny_images, tmp_path / "model", LinearPreset(28), questions=[question])
    first = capsys.readouterr().err.splitlines()[0]
    assert first == (
        "measuring on shade (queries are 100 & the gallery is 200); queries, unseen classes and "
        "test images of CIFAR-10 are withheld from the training: 100 of 300 images"
    )
    train(tiny_images, tmp_path / "other", LinearPreset(28))
    error = capsys.readouterr().err
    assert error.startswith(
        "measuring on no labels; CIFAR-10 and tinyimagenet32 are not at hand, so nothing is "
        "withheld\n"
    )
    assert "hits have no word of closeness" in error
    assert "hits have no word" in (tmp_path / "other" / "report" / "report.html").read_text()


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
