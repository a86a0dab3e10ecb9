"""Adding images, also while a job runs."""

import errno
import hashlib
import threading
from concurrent.futures import ThreadPoolExecutor
from itertools import zip_longest

import numpy as np
import pytest
from numpy.testing import assert_array_equal

from hashsearch.encoder import Encoder
from hashsearch.errors import ArtifactMismatch, GalleryBusy, InvalidImage
from hashsearch.gallery.changes import Selection
from hashsearch.gallery.gallery_folder import GalleryFolder
from hashsearch.gallery.shards import ShardWriter
from hashsearch.images import decode
from hashsearch.jobs.adding import Addition, add_image, add_images
from hashsearch.jobs.index import committing, reading
from hashsearch.jobs.index.indexing import index_sources
from hashsearch.jobs.index.prepare import prepare
from hashsearch.jobs.reencoding import reencode
from hashsearch.jobs.removing import remove
from hashsearch.jobs.verifying import verify
from hashsearch.models.storage import read_model
from hashsearch.sources.base import SourceImage
from hashsearch.sources.folder import Folder
from tests.conftest import KEY, WITH_KEY, serving
from tests.galleries import another_png, content, served


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


def additions_of(*images, labels=()):
    """The images, decoded, to be added as bytes."""
    prepared = prepare([SourceImage("", None, len(one), 0, one) for one in images])
    return [
        Addition(one, len(data), label=label)
        for one, data, label in zip_longest(prepared, images, labels)
    ]


def add_together(gallery, *images, labels=()):
    encoder = gallery.encoder()
    return add_images(
        gallery,
        encoder.fingerprint,
        additions_of(*images, labels=labels),
        lambda some: encoder.columns(np.stack([one.tiny for one in some])),
    )


def test_several_images_are_added_in_one_shard_and_one_commit(gallery, image_files, photograph):
    known = sorted(path for path in image_files.rglob("*.*") if path.is_file())[5].read_bytes()
    generation, shards = gallery.catalog.generation(), len(gallery.catalog.shard_rows())
    added = add_together(
        gallery, photograph, known, another_png(), photograph, labels=("rocket", "known", None, "r")
    )
    assert added == [(301, True), (6, False), (302, True), (301, False)]
    assert gallery.catalog.generation() == generation + 1
    assert len(gallery.catalog.shard_rows()) == shards + 1
    labels = [gallery.catalog.record(one).label for one in (301, 6, 302)]
    assert labels == ["r", "known", None]
    encoder = gallery.encoder()
    for number, data in ((301, photograph), (302, another_png())):
        tiny = decode(data).tiny
        assert_array_equal(gallery.pixels(number), tiny)
        assert_array_equal(gallery.code(number), encoder.columns(tiny[np.newaxis])["codes"][0])
    assert verify(gallery, 400).findings == []


@pytest.fixture
def removing(monkeypatch):
    """Another program, which removes an image with a key right after each of some commits."""
    left = []

    def start(key: bytes, times: int) -> None:
        left.extend([key] * times)

    commit = GalleryFolder.commit

    def commit_and_remove(gallery, *arguments):
        commit(gallery, *arguments)
        if left:
            ((number, _),) = gallery.catalog.images_of_keys([left.pop()]).values()
            remove(gallery.catalog, Selection(ids=[number]))

    monkeypatch.setattr(GalleryFolder, "commit", commit_and_remove)
    return start


def test_an_image_that_is_removed_while_it_is_added_is_added_again(
    gallery, image_files, photograph, removing
):
    known = sorted(path for path in image_files.rglob("*.*") if path.is_file())[5].read_bytes()
    for data, labels in ((photograph, ("rocket",)), (known, ("known",))):
        key = hashlib.sha256(data).digest()
        removing(key, 2)
        ((number, _),) = add_together(gallery, data, labels=labels)
        assert gallery.catalog.images_of_keys([key])[key][0] == number
        assert gallery.catalog.record(number).label == labels[0]
    assert (gallery.catalog.count(), verify(gallery, 400).findings) == (301, [])
    removing(hashlib.sha256(photograph).digest(), 100)
    with pytest.raises(GalleryBusy, match="removes the images while they are added; try again"):
        add_together(gallery, photograph, labels=("rocket",))


def test_a_client_is_not_answered_that_its_new_image_is_unknown(gallery, photograph, monkeypatch):
    left = [None] * 2

    def add_and_remove(folder, *arguments):
        added = add_images(folder, *arguments)
        if left:
            left.pop()
            remove(folder.catalog, Selection(ids=[added[0][0]]))
        return added

    monkeypatch.setattr("service.writing.add_images", add_and_remove)
    with serving(gallery.folder, **WITH_KEY) as client:
        client.headers["Authorization"] = f"Bearer {KEY}"
        answer = client.post("/v1/images", content=photograph)
        assert answer.status_code == 200
        (image,) = answer.json()["images"]
        assert image["is_new"]
        assert gallery.catalog.record(image["id"]).id == image["id"]
        left += [None] * 100
        answer = client.post("/v1/images", content=another_png())
        assert (answer.status_code, answer.json()["code"]) == (503, "gallery-busy")


def test_the_same_bytes_added_by_many_threads_at_once_are_new_once(gallery, photograph):
    encoder = gallery.encoder()
    start = threading.Barrier(16)

    def add(number):
        start.wait()
        return add_image(gallery, encoder, photograph, f"label {number}")

    with ThreadPoolExecutor(16) as pool:
        added = list(pool.map(add, range(16)))
    assert {image_id for image_id, _ in added} == {301}
    assert sum(new for _, new in added) == 1
    assert gallery.catalog.count() == 301


def test_a_shard_that_cannot_be_written_leaves_nothing(gallery, photograph, monkeypatch):
    def fail(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(ShardWriter, "seal", fail)
    with pytest.raises(OSError, match="No space left"):
        add_together(gallery, photograph, another_png())
    assert not any((gallery.folder / "unfinished" / "additions").iterdir())
    assert gallery.catalog.count() == 300
    monkeypatch.undo()
    assert add_together(gallery, photograph) == [(301, True)]
