"""Galleries of earlier formats are read for ever: one of each format is saved here."""

import io
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from hashsearch.gallery.gallery_folder import GalleryFolder
from hashsearch.gallery.history import last_job
from hashsearch.jobs.index.indexing import index_sources
from hashsearch.retrieval.searcher import Searcher
from hashsearch.sources.folder import Folder
from tests.conftest import PHOTOGRAPHS
from tests.galleries import records

SAVED = Path(__file__).with_name("data")
VERSIONS = (1, 2, 3)
# The codes of a folder /photos with a crop of 32×32 and two photographs.
CROPS = {
    "a2d540558a5e71d516f6a9e5f96f4b1d4030e374a26e66bb54c5605186a70596",
    "229540558a4a51d71ef6e9e5eb674b0560303376826ee2bb54c560518287551e",
}
CODES = {
    "photos/space/astronaut.png": (
        "a2d540558a5a71d516e6ade5f96f4b1d4030e334aa6e62bb54c4605186a70596"
    ),
    "photos/space/rocket.jpg": "b2f540558a4f70f71f76a8e7e36f4b1d6c81f274123f34dbd48568d7c6d70d1e",
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
    assert found.pop("photos/cat%20fur.png") in CROPS  # of another part of the picture each
    assert found == CODES
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
    searcher = Searcher(gallery)
    query = searcher.query_by_image((PHOTOGRAPHS / "rocket.jpg").read_bytes())
    ranking = searcher.search(query, k=1)
    assert [hit.uri for hit in ranking.hits] == ["photos/space/rocket.jpg"]
    assert ranking.distances[0] <= 1  # another processor may round a logit near 0 differently
    assert searcher.search(query, "pixels", k=1).distances[0] == 0


def test_a_gallery_of_an_earlier_format_can_be_added_to(gallery, tmp_path):
    (tmp_path / "more").mkdir()
    shutil.copy(PHOTOGRAPHS / "coffee.png", tmp_path / "more")
    shutil.copy(PHOTOGRAPHS / "rocket.jpg", tmp_path / "more")
    summary = index_sources(gallery, [Folder(tmp_path / "more")], workers=1)
    assert (summary.indexed, summary.moved) == (1, 1)  # /photos is not on this machine
    assert np.unique(gallery.catalog.rows().shards).tolist() == [1, 2]


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
