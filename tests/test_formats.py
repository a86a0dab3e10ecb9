"""Galleries of earlier formats are read for ever: one of each format is saved here."""

import io
import json
import shutil
import sqlite3
from pathlib import Path

import numpy as np
import pytest
from numpy.testing import assert_array_equal
from PIL import Image
from safetensors.torch import load_file

from hashsearch.gallery.gallery_folder import GalleryFolder
from hashsearch.gallery.history import last_job
from hashsearch.images import PREPROCESSING, decode
from hashsearch.jobs.index.indexing import index_sources
from hashsearch.models.card import fingerprint
from hashsearch.sources.folder import Folder
from tests.conftest import PHOTOGRAPHS
from tests.galleries import records

SAVED = Path(__file__).with_name("data")
VERSIONS = (1, 2, 3)
# The codes of a folder /photos with a crop of 32×32 and two photographs.
CODES = {
    "photos/cat%20fur.png": "a2d540558a5e71d516f6a9e5f96f4b1d4030e374a26e66bb54c5605186a70596",
    "photos/space/astronaut.png": (
        "a2d540558a5a71d516e6ade5f96f4b1d4030e334aa6e62bb54c4605186a70596"
    ),
    "photos/space/rocket.jpg": "b2f540558a4f70f71f76a8e7e36f4b1d6c81f274123f34dbd48568d7c6d70d1e",
}
# In the galleries of later formats, the crop is another part of the picture.
LATER_CROP = {
    "photos/cat%20fur.png": "229540558a4a51d71ef6e9e5eb674b0560303376826ee2bb54c560518287551e"
}


def saved_gallery(version: int, folder: Path) -> Path:
    """A copy of the saved gallery of a catalog format; all have the same model."""
    shutil.copytree(SAVED / f"gallery-v{version}", folder)
    if version > 1:
        shutil.copytree(SAVED / "gallery-v1" / "model", folder / "model")
    return folder


@pytest.fixture(params=VERSIONS)
def gallery(tmp_path, request):
    opened = GalleryFolder(saved_gallery(request.param, tmp_path / "gallery"))
    yield opened
    opened.close()


def test_a_gallery_of_an_earlier_format_holds_what_was_indexed(gallery):
    rows = gallery.catalog.rows()
    images = gallery.catalog.records(rows.ids.tolist())
    codes = gallery.column("codes", rows)
    found = {r.uri: c.tobytes().hex() for r, c in zip(images, codes, strict=True)}
    assert found in (CODES, CODES | LATER_CROP)
    assert [(r.path, r.label, r.width, r.height) for r in images] == [
        ("/photos/cat fur.png", None, 32, 32),
        ("/photos/space/astronaut.png", "space", 512, 512),
        ("/photos/space/rocket.jpg", "space", 640, 427),
    ]
    assert gallery.thumbnail(1) is None
    for record in images[1:]:
        with Image.open(io.BytesIO(gallery.thumbnail(record.id))) as thumbnail:
            assert thumbnail.size == (128, 128)


def test_todays_decoder_and_encoder_agree_with_earlier_formats(gallery):
    """The image rules changed for rare kinds of files alone."""
    (rocket,) = [record.id for record in records(gallery) if record.uri.endswith("rocket.jpg")]
    pixels = gallery.pixels(rocket)
    assert_array_equal(decode((PHOTOGRAPHS / "rocket.jpg").read_bytes()).tiny, pixels)
    code = gallery.encoder().encode(pixels[np.newaxis])[0]
    # Another processor may round a logit near 0 differently.
    assert np.bitwise_count(code ^ gallery.code(rocket)).sum() <= 1


def as_of_todays_rules(folder: Path) -> None:
    """Let a saved gallery's model, and so the gallery, be of today's image rules."""
    path = folder / "model" / "card.json"
    card = json.loads(path.read_text())
    weights = load_file(folder / "model" / "weights.safetensors")
    card["preprocessing"] = PREPROCESSING
    card["fingerprint"] = fingerprint(card["kind"], card["architecture"], weights, PREPROCESSING)
    path.write_text(json.dumps(card))
    with sqlite3.connect(folder / "catalog.sqlite") as db:
        db.execute(
            "UPDATE settings SET value = ? WHERE name = 'fingerprint'", (card["fingerprint"],)
        )
    db.close()


@pytest.mark.parametrize("version", VERSIONS)
def test_a_gallery_of_an_earlier_format_can_be_added_to(version, tmp_path):
    folder = saved_gallery(version, tmp_path / "gallery")
    as_of_todays_rules(folder)
    (tmp_path / "more").mkdir()
    shutil.copy(PHOTOGRAPHS / "coffee.png", tmp_path / "more")
    shutil.copy(PHOTOGRAPHS / "rocket.jpg", tmp_path / "more")
    opened = GalleryFolder(folder)
    summary = index_sources(opened, [Folder(tmp_path / "more")], workers=1)
    assert (summary.indexed, summary.moved) == (1, 1)  # /photos is not on this machine
    assert np.unique(opened.catalog.rows().shards).tolist() == [1, 2]
    opened.close()


@pytest.mark.parametrize("version", [2, 3])
def test_failures_and_jobs_of_later_formats_are_kept(version, tmp_path):
    opened = GalleryFolder(saved_gallery(version, tmp_path / "gallery"))
    ((failure, _),) = opened.catalog.failures()
    assert failure.uri == "photos/broken.jpg"
    job = last_job(opened.catalog)
    counted = {"indexed": 4, "duplicates": 1} if version == 2 else {"unchanged": 4, "excluded": 1}
    assert job.state == "done"
    assert counted.items() <= job.counts.items()
    opened.close()


def test_places_and_excludes_of_format_3_are_kept(tmp_path):
    opened = GalleryFolder(saved_gallery(3, tmp_path / "gallery"))
    (rocket,) = [r.id for r in records(opened) if r.uri.endswith("rocket.jpg")]
    assert [place.path for place in opened.catalog.places([rocket])[rocket]] == [
        "/photos/space/rocket.jpg",
        "/photos/zz copy.jpg",
    ]
    assert opened.catalog.excludes() == ["removed.png"]
    opened.close()
