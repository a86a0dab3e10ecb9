"""A gallery or model of earlier image rules is still searched, but takes no picture of today's."""

import json
import shutil
import sqlite3
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
from numpy.testing import assert_array_equal

import hashsearch
from hashsearch.errors import ArtifactMismatch, InvalidQuery
from hashsearch.gallery.gallery_folder import GalleryFolder
from hashsearch.images import PREPROCESSING
from hashsearch.jobs.compacting import compact
from hashsearch.jobs.reencoding import reencode
from hashsearch.jobs.verifying import verify
from hashsearch.models.card import copy_model, fingerprint, read_card
from hashsearch.models.storage import read_model
from tests.conftest import KEY, PHOTOGRAPHS, TINY_PRESET, WITH_KEY, serving
from tests.galleries import run
from tests.test_formats import CODES
from training import closeness

AGAIN = r"version 1 of the image rules, and pictures are decoded by version 2; .*again"
PHOTOGRAPH = PHOTOGRAPHS / "rocket.jpg"


@pytest.fixture
def old(tmp_path) -> Path:
    """A gallery of rules 1, with three images."""
    saved = Path(__file__).with_name("data") / "gallery-v1"
    return Path(shutil.copytree(saved, tmp_path / "old"))


@pytest.fixture
def old_model(model_folder, tmp_path) -> Path:
    """A model like today's, but of rules 1."""
    folder = tmp_path / "old-model"
    copy_model(model_folder, folder)
    weights = read_model(model_folder)[0].state_dict()
    card = json.loads((folder / "card.json").read_text())
    card["preprocessing"] = "1"
    card["fingerprint"] = fingerprint(card["kind"], card["architecture"], weights, "1")
    (folder / "card.json").write_text(json.dumps(card))
    return folder


def test_the_rules_are_part_of_a_models_fingerprint(model_folder, old_model):
    assert read_card(model_folder).preprocessing == PREPROCESSING == "2"
    model, card = read_model(old_model)
    assert card.preprocessing == "1"
    assert card.fingerprint != read_card(model_folder).fingerprint
    for name, part in read_model(model_folder)[0].state_dict().items():
        assert_array_equal(part, model.state_dict()[name])


def test_a_gallery_of_earlier_rules_is_searched_by_id_and_by_code(old, capsys):
    with hashsearch.open(old) as gallery:
        first, second, third = (int(code, 16) for code in CODES.values())
        nearest = [(1, (first ^ third).bit_count()), (2, (second ^ third).bit_count())]
        nearest.sort(key=lambda pair: pair[1])
        assert [(hit.id, hit.distance) for hit in gallery.search(3)] == nearest
        code = list(CODES.values())[2]
        assert [(hit.id, hit.distance) for hit in gallery.search(code)] == [(3, 0), *nearest]
        assert gallery.search(3, method="pixels", k=1)[0].distance > 0
        assert gallery.reconstruct(3).shape == (32, 32, 3)
    assert run("query", "3", "--gallery", old) == 0
    assert run("gallery", "info", old) == 0
    assert "dense, 256 bits, cfaf7dd682a1" in capsys.readouterr().out


def test_a_gallery_of_earlier_rules_is_verified_compacted_and_encoded_again(old):
    gallery = GalleryFolder(old)
    assert verify(gallery, 3).findings == []
    before = gallery.column("codes", gallery.catalog.rows())
    reencode(gallery)
    after = gallery.column("codes", gallery.catalog.rows())
    assert np.bitwise_count(before ^ after).sum(axis=1).max() <= 8  # another processor's rounding
    with hashsearch.open(old) as opened:
        assert opened.remove(ids=[1]) == 1
    compact(gallery)
    assert gallery.catalog.rows().ids.tolist() == [2, 3]
    gallery.close()


def test_no_picture_is_looked_for_in_a_gallery_of_earlier_rules(old, capsys):
    pixels = np.zeros((32, 32, 3), np.uint8)
    with hashsearch.open(old) as gallery:
        for picture in (PHOTOGRAPH, str(PHOTOGRAPH), PHOTOGRAPH.read_bytes(), pixels):
            for method in ("codes", "pixels"):
                with pytest.raises(InvalidQuery, match=AGAIN):
                    gallery.search(picture, method=method)
    assert run("query", PHOTOGRAPH, "--gallery", old) == 1
    assert "search by id or code, or index its pictures again" in capsys.readouterr().err


def test_the_service_answers_ids_and_codes_of_earlier_rules_alone(old):
    with serving(old, **WITH_KEY) as client:
        client.headers |= {"Authorization": f"Bearer {KEY}"}
        found = client.post("/v1/search", json={"id": 3})
        assert found.status_code == 200
        code = found.json()["code"]
        assert client.post("/v1/search", json={"code": code}).json()["hits"][0]["distance"] == 0
        assert client.post("/v1/compare", json={"id": 3}).status_code == 200
        for path in ("/v1/search", "/v1/compare", "/v1/images"):
            refused = client.post(path, content=PHOTOGRAPH.read_bytes())
            assert (refused.status_code, refused.json()["code"]) == (422, "invalid-query")
            assert "index its pictures again into a new gallery" in refused.json()["detail"]


def test_no_picture_is_added_to_a_gallery_of_earlier_rules(old, tmp_path, capsys):
    (tmp_path / "more").mkdir()
    shutil.copy(PHOTOGRAPH, tmp_path / "more")
    with hashsearch.open(old) as gallery:
        with pytest.raises(ArtifactMismatch, match=AGAIN):
            gallery.index(tmp_path / "more")
        with pytest.raises(ArtifactMismatch, match=AGAIN):
            gallery.add(PHOTOGRAPH)
        assert len(gallery) == 3
    assert run("index", tmp_path / "more", "--gallery", old) == 1
    assert f"{old} was made by version 1" in capsys.readouterr().err


def test_a_gallery_keeps_the_rules_of_its_pixels(old, gallery, model_folder, old_model):
    former = GalleryFolder(old)
    with pytest.raises(ArtifactMismatch, match=r"keeps pixels of version 1 .* for version 2"):
        reencode(former, model_folder)
    with pytest.raises(ArtifactMismatch, match=r"keeps pixels of version 2 .* for version 1"):
        reencode(gallery, old_model)
    assert former.fingerprint == read_card(old / "model").fingerprint
    reencode(former, old_model)  # of the same rules
    assert former.fingerprint == read_card(old_model).fingerprint
    former.close()


def test_a_model_of_earlier_rules_encodes_no_picture(old_model, tmp_path, capsys):
    pixels = [np.zeros((32, 32, 3), np.uint8)]
    for model in (old_model, hashsearch.load_model(old_model)):
        with pytest.raises(ArtifactMismatch, match=AGAIN):
            hashsearch.encode(pixels, model)
    assert hashsearch.load_model(old_model).encode(np.stack(pixels)).shape == (1, 32)
    with pytest.raises(ArtifactMismatch, match=AGAIN):
        hashsearch.open(tmp_path / "new", create=True, model=old_model)
    assert not (tmp_path / "new").exists()
    assert run("eval", "--data", "samples", "--model", old_model, "--methods", "codes") == 1
    assert "train it again, or name a gallery that it made" in capsys.readouterr().err
    assert run("model", "info", old_model) == 0


def test_a_training_that_starts_from_a_model_of_earlier_rules_says_so(
    old_model, model_folder, caplog
):
    assert TINY_PRESET.start(model_folder) is not None
    assert not caplog.records
    assert TINY_PRESET.start(old_model) is not None
    assert "was made by version 1 of the image rules" in caplog.text


def test_the_gallery_of_a_model_of_earlier_rules_is_measured(old, capsys):
    with closing(sqlite3.connect(old / "catalog.sqlite")) as catalog, catalog:
        catalog.execute("UPDATE images SET label = id % 2")  # more than one label
    assert run("eval", "--data", old, "--queries", "1", "--methods", "codes", "--json") == 0
    (result,) = json.loads(capsys.readouterr().out)["results"]
    assert result["title"] == "model's codes"


def test_closeness_of_a_model_of_earlier_rules_is_not_measured(old_model, capsys):
    before = (old_model / "card.json").read_bytes()
    assert closeness.main([str(old_model), "--data", "samples", "--write"]) == 1
    assert "was made by version 1 of the image rules" in capsys.readouterr().err
    assert (old_model / "card.json").read_bytes() == before
