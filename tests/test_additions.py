"""Adding single images, also while a job runs."""

import hashlib
import threading

import pytest
from numpy.testing import assert_array_equal

from hashsearch.encoder import Encoder
from hashsearch.errors import ArtifactMismatch, InvalidImage
from hashsearch.gallery.gallery_folder import GalleryFolder
from hashsearch.images import decode
from hashsearch.jobs.adding import add_image
from hashsearch.jobs.index import committing, reading
from hashsearch.jobs.index.indexing import index_sources
from hashsearch.jobs.reencoding import reencode
from hashsearch.models.storage import read_model
from hashsearch.sources.folder import Folder
from tests.galleries import content, served


def test_an_image_is_added_while_a_job_runs(gallery, client, photograph):
    encoder = gallery.encoder()
    with gallery.job_lock():
        image_id, new = add_image(gallery, encoder, photograph, "rocket")
    assert new
    assert served(client) == 301
    decoded = decode(photograph, thumbnail=True)
    assert_array_equal(gallery.pixels(image_id), decoded.tiny)
    assert gallery.thumbnail(image_id) == decoded.thumbnail
    record = gallery.catalog.record(image_id)
    assert record.label == "rocket"
    assert record.uri == "+/" + hashlib.sha256(photograph).hexdigest()
    answer = client.post("/v1/search?k=1", content=photograph).json()
    assert [hit["id"] for hit in answer["hits"]] == [image_id]


def test_the_same_bytes_are_added_once(gallery, image_files):
    encoder = gallery.encoder()
    path = next(path for path in sorted(image_files.rglob("*.*")) if path.is_file())
    image_id, new = add_image(gallery, encoder, path.read_bytes())
    assert not new
    assert gallery.catalog.record(image_id).path == str(path)
    assert gallery.catalog.count() == 300


def test_bytes_that_are_not_an_image_are_not_added(gallery, photograph):
    for data in (b"", b"hello", photograph[:3000]):
        with pytest.raises(InvalidImage):
            add_image(gallery, gallery.encoder(), data)
    assert gallery.catalog.count() == 300
    assert gallery.catalog.failures() == []


def test_images_added_during_a_job_are_kept_and_stored_once(
    model_folder, image_files, tmp_path, monkeypatch
):
    """Another thread adds the last pictures of the folder that the job indexes."""
    monkeypatch.setattr(committing, "MAX_ROWS", 30)
    monkeypatch.setattr(reading, "CHUNK_IMAGES", 10)
    gallery = GalleryFolder.create(tmp_path / "gallery", model_folder)
    adder = GalleryFolder(tmp_path / "gallery")
    paths = sorted((path for path in image_files.rglob("*.*")), reverse=True)[:40]
    errors = []

    def add() -> None:
        try:
            for path in paths:
                add_image(adder, adder_encoder, path.read_bytes())
        except Exception as error:
            errors.append(error)

    adder_encoder = adder.encoder()
    thread = threading.Thread(target=add)
    thread.start()
    index_sources(gallery, [Folder(image_files)], workers=1)
    thread.join()
    assert errors == []
    keys = {key for key, *_ in content(gallery)}
    assert keys == {hashlib.sha256(p.read_bytes()).digest() for p in image_files.rglob("*.*")}
    assert gallery.catalog.count() == 300
    gallery.close()
    adder.close()


def test_codes_of_the_former_model_are_not_added(gallery, other_model_folder, photograph):
    encoder = gallery.encoder()
    reencode(gallery, other_model_folder)
    with pytest.raises(ArtifactMismatch, match=f"the encoder is model {encoder.fingerprint[:12]};"):
        add_image(gallery, encoder, photograph)
    assert gallery.catalog.count() == 300


def test_a_code_is_not_added_if_the_gallery_moves_to_another_model_meanwhile(
    gallery, other_model_folder, photograph
):
    encoder = gallery.encoder()
    encode = encoder.encode

    def encode_slowly(tiny):
        codes = encode(tiny)
        reencode(gallery, other_model_folder)
        return codes

    encoder.encode = encode_slowly
    with pytest.raises(ArtifactMismatch, match="the codes were made by model"):
        add_image(gallery, encoder, photograph)
    assert gallery.catalog.count() == 300


def test_an_encoder_that_was_not_loaded_from_a_folder_adds_nothing(
    gallery, other_model_folder, photograph
):
    model, _ = read_model(other_model_folder)
    with pytest.raises(ArtifactMismatch, match="the encoder was not loaded from a model folder"):
        add_image(gallery, Encoder(model), photograph)
    assert gallery.catalog.count() == 300
