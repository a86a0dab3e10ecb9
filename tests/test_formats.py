"""Galleries of earlier formats are read for ever: one of each format is saved here."""

import io
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from hashsearch.gallery.gallery_folder import GalleryFolder
from hashsearch.jobs.index.indexing import index_sources
from hashsearch.retrieval.searcher import Searcher
from hashsearch.sources.folder import Folder
from tests.conftest import PHOTOGRAPHS

SAVED = Path(__file__).with_name("data")
# The codes of a folder /photos with a crop of 32×32 and two photographs.
CODES = {
    "photos/cat%20fur.png": "a2d540558a5e71d516f6a9e5f96f4b1d4030e374a26e66bb54c5605186a70596",
    "photos/space/astronaut.png": (
        "a2d540558a5a71d516e6ade5f96f4b1d4030e334aa6e62bb54c4605186a70596"
    ),
    "photos/space/rocket.jpg": "b2f540558a4f70f71f76a8e7e36f4b1d6c81f274123f34dbd48568d7c6d70d1e",
}


@pytest.fixture
def gallery(tmp_path):
    shutil.copytree(SAVED / "gallery-v1", tmp_path / "gallery")
    opened = GalleryFolder(tmp_path / "gallery")
    yield opened
    opened.close()


def test_a_gallery_of_format_1_holds_what_was_indexed(gallery):
    rows = gallery.catalog.rows()
    records = gallery.catalog.records(rows.ids.tolist())
    codes = gallery.column("codes", rows)
    assert {r.uri: c.tobytes().hex() for r, c in zip(records, codes, strict=True)} == CODES
    assert [(r.path, r.label, r.width, r.height) for r in records] == [
        ("/photos/cat fur.png", None, 32, 32),
        ("/photos/space/astronaut.png", "space", 512, 512),
        ("/photos/space/rocket.jpg", "space", 640, 427),
    ]
    assert gallery.thumbnail(1) is None
    for image_id in (2, 3):
        with Image.open(io.BytesIO(gallery.thumbnail(image_id))) as thumbnail:
            assert thumbnail.size == (128, 128)


def test_todays_decoder_and_encoder_agree_with_format_1(gallery):
    searcher = Searcher(gallery)
    query = searcher.query_by_image((PHOTOGRAPHS / "rocket.jpg").read_bytes())
    ranking = searcher.search(query, k=1)
    assert ranking.ids.tolist() == [3]
    assert ranking.distances[0] <= 1  # another processor may round a logit near 0 differently
    assert searcher.search(query, "pixels", k=1).distances[0] == 0


def test_a_gallery_of_format_1_can_be_added_to(gallery, tmp_path):
    (tmp_path / "more").mkdir()
    shutil.copy(PHOTOGRAPHS / "coffee.png", tmp_path / "more")
    shutil.copy(PHOTOGRAPHS / "rocket.jpg", tmp_path / "more")
    summary = index_sources(gallery, [Folder(tmp_path / "more")], workers=1)
    assert (summary.indexed, summary.duplicates) == (1, 1)
    assert np.unique(gallery.catalog.rows().shards).tolist() == [1, 2]
