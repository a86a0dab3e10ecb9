"""What distances mean, compared with slow counts and with pictures that people call copies."""

import json
import shutil
from io import BytesIO
from itertools import combinations

import numpy as np
import pytest
from PIL import Image, ImageOps

from hashsearch.closeness import MEANINGS, Closeness
from hashsearch.encoder import Encoder
from hashsearch.images import decode
from hashsearch.models.card import PRETRAINED_MODELS, read_card
from hashsearch.models.storage import read_model
from tests.conftest import PHOTOGRAPHS
from tests.trainings import DENSE, train
from training import closeness, job
from training.closeness import Distances, closeness_of, count_distances, main
from training.families.linear import LinearPreset
from training.labels import ClassLabels


@pytest.mark.parametrize(
    ("distance", "word"),
    [
        (0, "same"),
        (12, "same"),
        (13, "near"),
        (43, "near"),
        (44, "alike"),
        (51, "alike"),
        (52, "far"),
        (256, "far"),
    ],
)
def test_thresholds_are_inclusive(distance, word):
    assert Closeness(same=12, near=43, alike=51).word(distance) == word
    assert word in MEANINGS


def counts(*distances):
    return np.bincount(distances, minlength=257)


def test_the_thresholds_are_the_quantiles_of_the_definition():
    copies = counts(*[3] * 95, *[9] * 5)
    crops = counts(*[20] * 94, 31, *[80] * 5)
    unlike = counts(*[40] * 2, *[41] * 1, *[100] * 29_997)  # 2 of 30,000 within 40, 3 within 41
    found = closeness_of(Distances(copies, crops, unlike, unlike, 1.0))
    assert found == Closeness(same=3, near=31, alike=99)
    unlike = counts(*[40] * 2, *[41] * 2, *[100] * 29_996)
    found = closeness_of(Distances(copies, crops, unlike, unlike, 1.0))
    assert found == Closeness(same=3, near=31, alike=40)


def test_no_word_reaches_farther_than_unlike_pictures_allow():
    far, unlike = counts(*[90] * 100), counts(*[60] * 20_000)
    near = counts(*[30] * 100)
    assert closeness_of(Distances(near, far, unlike, unlike, 1.0)) == Closeness(30, 59, 59)
    assert closeness_of(Distances(far, near, unlike, unlike, 1.0)) == Closeness(59, 59, 59)


def test_copies_differ_from_other_pictures_of_their_kind():
    """Which lie nearer than pictures of other kinds do."""
    crops, copies = counts(*[55] * 100), counts(*[8] * 100)
    pairs, unlike = counts(*[40] * 20, *[100] * 99_980), counts(*[100] * 90_000)
    assert closeness_of(Distances(copies, crops, pairs, unlike, 1.0)) == Closeness(8, 39, 99)


def test_where_few_pairs_are_known_to_be_unlike_all_pairs_count(tiny_images, monkeypatch):
    tiny, unlike = (
        tiny_images[:12],
        ClassLabels.of_sets([("", np.array([*"aabbccddeeff"]))]).unlike(),
    )
    monkeypatch.setattr(closeness, "UNLIKE", 60)
    assert count_distances(codes_of, tiny, unlike=unlike).unlike.sum() == 66 - 6
    monkeypatch.setattr(closeness, "UNLIKE", 61)
    few = count_distances(codes_of, tiny, unlike=unlike)
    assert few.unlike.tolist() == few.pairs.tolist()


def test_copies_are_not_found_among_pictures_of_equal_codes(tiny_images):
    equal = np.repeat(np.arange(4, dtype=np.uint8), 5)[:, np.newaxis]

    def class_of(tiny):
        """As of a model whose codes are class numbers; copies keep the class."""
        same = [
            np.argmin(np.abs(tiny_images[:20] - one.astype(int)).sum((1, 2, 3))) for one in tiny
        ]
        return equal[same]

    found = count_distances(class_of, tiny_images[:20])
    assert found.copies[0] == found.copies.sum()
    assert found.found == pytest.approx(1 / 5)


def test_nothing_is_said_where_unlike_pictures_have_equal_codes_or_are_few():
    near = counts(*[30] * 100)
    assert closeness_of(Distances(near, near, *[counts(*[0] * 20_000)] * 2, 1.0)) is None
    assert closeness_of(Distances(near, near, *[counts(*[60] * 9_999)] * 2, 1.0)) is None


def codes_of(tiny):
    return np.packbits(tiny.reshape(len(tiny), -1)[:, :256] > 120, axis=1)


def test_pairs_of_one_label_are_not_counted_as_unlike(tiny_images, monkeypatch):
    monkeypatch.setattr(closeness, "UNLIKE", 60)
    tiny = tiny_images[:12]
    labels = np.array(["cat", "dog", "", "", "cat", "cat", *"abcdef"])
    bits = tiny.reshape(12, -1)[:, :256] > 120
    wanted = np.zeros(257, int)
    for a, b in combinations(range(12), 2):
        if labels[a] != labels[b] or not labels[a]:
            wanted[(bits[a] != bits[b]).sum()] += 1
    found = count_distances(codes_of, tiny, unlike=ClassLabels.of_sets([("", labels)]).unlike())
    assert found.unlike.tolist() == wanted.tolist()
    assert found.unlike.sum() == 66 - 3
    assert found.pairs.sum() == 66
    assert found.copies.sum() == 12 * len(closeness.COPIES)
    nearest = []
    for way in closeness.COPIES:
        for row in range(12):
            copy = codes_of(decode(way(closeness.enlarged(tiny[row]))).tiny[np.newaxis])
            distances = [(np.unpackbits(copy) != one).sum() for one in bits]
            if distances[row] == min(distances):
                nearest.append(1 / distances.count(min(distances)))
            else:
                nearest.append(0)
    assert found.found == pytest.approx(np.mean(nearest))


def bytes_of(picture, **options):
    buffer = BytesIO()
    picture.save(buffer, "JPEG", **options)
    return buffer.getvalue()


@pytest.mark.parametrize("name", PRETRAINED_MODELS)
def test_the_words_of_the_models_hold_for_photographs(name):
    """Photographs that the thresholds were not measured on, changed in other ways than there."""
    folder = PRETRAINED_MODELS[name]
    encoder, closeness = Encoder.load(folder), read_card(folder).closeness
    names = ("astronaut.png", "coffee.png", "rocket.jpg", "chelsea.png", "ihc.png")
    words = {"copy": [], "mirrored": [], "unlike": []}
    pictures = [Image.open(PHOTOGRAPHS / name).convert("RGB") for name in names]
    files = [bytes_of(picture, quality=97) for picture in pictures]
    half = [bytes_of(picture.reduce(2), quality=80) for picture in pictures]
    mirrored = [bytes_of(ImageOps.mirror(picture)) for picture in pictures]
    codes, halves, mirrors = (
        encoder.encode(np.stack([decode(data).tiny for data in part]))
        for part in (files, half, mirrored)
    )

    def word(one, other):
        return closeness.word(int(np.unpackbits(one ^ other).sum()))

    words["copy"] = [word(*pair) for pair in zip(codes, halves, strict=True)]
    words["mirrored"] = [word(*pair) for pair in zip(codes, mirrors, strict=True)]
    words["unlike"] = [word(*pair) for pair in combinations(codes, 2)]
    assert words["copy"].count("same") >= 4
    # `near` holds for 95 in 100 of crops and mirror images together; one of these five is `far`.
    assert words["mirrored"].count("far") <= (name == "general")
    assert set(words["unlike"]) == {"far"}


def test_a_training_writes_closeness_and_its_curves(tiny_images, plots, tmp_path, monkeypatch):
    monkeypatch.setattr(job, "NEEDED", 30)
    monkeypatch.setattr(closeness, "UNLIKE", 100)
    card = train(tiny_images, tmp_path / "model", LinearPreset(28))
    assert card.closeness is not None
    assert card.closeness.alike < 28
    assert read_card(tmp_path / "model").closeness == card.closeness
    page = (tmp_path / "model" / "report" / "report.html").read_text()
    assert 'alt="closeness"' in page


def test_too_few_held_out_pictures_leave_closeness_out(tiny_images, tmp_path):
    assert train(tiny_images, tmp_path / "model", DENSE).closeness is None


def test_the_command_writes_on_the_card_alone(model_folder, image_files, tmp_path, capsys):
    shutil.copytree(model_folder, tmp_path / "model")
    before = json.loads((tmp_path / "model" / "card.json").read_text())
    figure = tmp_path / "curves.svg"
    data = ["--data", str(image_files), "--figure", str(figure)]
    assert main([str(tmp_path / "model"), *data, "--write"]) == 0
    after = json.loads((tmp_path / "model" / "card.json").read_text())
    assert str(after["closeness"]["same"]) in capsys.readouterr().out
    assert after.pop("closeness") != before.pop("closeness")
    assert after == before
    read_model(tmp_path / "model")
    assert figure.read_text().startswith("<?xml")


def test_the_command_needs_enough_pictures(tmp_path, capsys):
    shutil.copy(PHOTOGRAPHS / "coffee.png", tmp_path)
    assert main(["--data", str(tmp_path)]) == 1
    assert "150 readable pictures are needed, not 1" in capsys.readouterr().err
