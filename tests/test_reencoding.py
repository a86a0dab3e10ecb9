"""Reencoding: moving a gallery to another model, and repairing codes."""

import shutil
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from numpy.testing import assert_array_equal

from hashsearch.errors import GalleryBusy, InvalidGallery
from hashsearch.gallery.gallery_folder import GalleryFolder
from hashsearch.jobs import reencoding
from hashsearch.jobs.adding import add_image
from hashsearch.jobs.compacting import compact
from hashsearch.jobs.index.indexing import index_sources
from hashsearch.jobs.reencoding import reencode
from hashsearch.jobs.verifying import verify
from hashsearch.models.card import read_card
from hashsearch.sources.folder import Folder
from tests.galleries import another_png, content, damage, has_no_litter, run, run_killed


@pytest.mark.parametrize(
    "point",
    [
        ("hashsearch.jobs.reencoding", "copy_model", "after", "1"),
        ("hashsearch.jobs.reencoding", "write_column", "before", "3"),
        ("hashsearch.gallery.shards", "_sync_and_close", "before", "4"),
        ("hashsearch.jobs.reencoding", "change_files", "after", "2"),
        ("hashsearch.jobs.reencoding", "next_generation", "after", "1"),
        ("hashsearch.jobs.reencoding", "_clean", "before", "1"),
    ],
)
def test_a_killed_reencoding_leaves_either_the_old_codes_or_the_new_ones(
    point, scattered, other_model_folder
):
    before = content(scattered)
    run_killed("reencode", other_model_folder, scattered, *point)
    reopened = GalleryFolder(scattered.folder)
    switched = point[1] == "_clean"
    assert (content(reopened) == before) is not switched
    assert verify(reopened, 300).findings == []
    reopened.close()
    reencode(scattered, other_model_folder)
    assert scattered.fingerprint == read_card(other_model_folder).fingerprint
    assert verify(scattered, 300).findings == []
    assert has_no_litter(scattered)
    assert len(list(scattered.folder.glob("model*"))) == 1


def test_a_killed_repair_is_completed_by_the_next(scattered):
    number = list(scattered.catalog.shard_rows())[2]
    before = content(scattered)
    damage(scattered.shard_folder(number) / "codes.npy")
    point = ("hashsearch.jobs.reencoding", "write_column", "after", "1")
    run_killed("reencode", scattered.model_folder, scattered, *point)
    assert len(verify(scattered, 0).findings) == 1
    reencode(scattered)
    assert verify(scattered, 300).findings == []
    assert content(scattered) == before
    assert has_no_litter(scattered)


def test_reencoding_gives_the_same_codes_as_indexing_again(
    gallery, other_model_folder, image_files, tmp_path, client, capsys
):
    before = {(key, uri, label, pixels) for key, uri, label, _, pixels in content(gallery)}
    assert run("gallery", "reencode", gallery.folder, "--model", other_model_folder) == 0
    assert "300 codes computed again, moved from model" in capsys.readouterr().out
    other = GalleryFolder.create(tmp_path / "other", other_model_folder)
    index_sources(other, [Folder(image_files)], workers=1)
    assert content(gallery) == content(other)
    assert {(key, uri, label, pixels) for key, uri, label, _, pixels in content(gallery)} == before
    assert gallery.fingerprint == other.fingerprint == read_card(gallery.model_folder).fingerprint
    other.close()
    # The running service reads the new codes beside, and then uses the new model.
    record = gallery.catalog.record(1)
    until = time.monotonic() + 30
    while client.get("/v1/gallery").json()["fingerprint"] != gallery.fingerprint:
        assert client.post("/v1/search", json={"id": 1}).status_code == 200
        assert time.monotonic() < until
        time.sleep(0.05)
    answer = client.post("/v1/search?k=1", content=Path(record.path).read_bytes()).json()
    assert [(hit["id"], hit["distance"]) for hit in answer["hits"]] == [(1, 0)]
    # Nothing of the former model is left.
    assert [path.name for path in gallery.folder.glob("model*")] == [gallery.model_folder.name]
    for number in gallery.catalog.shard_rows():
        assert len(list(gallery.shard_folder(number).glob("codes*"))) == 1
    assert verify(gallery, 300).findings == []
    assert GalleryFolder(gallery.folder).card().fingerprint == gallery.fingerprint


def test_a_continued_reencoding_encodes_only_what_is_missing(
    scattered, other_model_folder, monkeypatch
):
    wanted = sum(scattered.catalog.shard_rows().values())
    point = ("hashsearch.jobs.reencoding", "write_column", "before", "4")
    run_killed("reencode", other_model_folder, scattered, *point)
    shards = list(scattered.every_shard().values())
    # One of the three finished files is damaged: its checksum no longer matches its name.
    (staged,) = shards[1].folder.glob("codes-*")
    damage(staged)
    encoded = reencode(scattered, other_model_folder)
    assert encoded == wanted - shards[0].rows - shards[2].rows
    assert verify(scattered, 300).findings == []


@pytest.mark.parametrize("few", [0, 256])
def test_an_image_added_during_reencoding_gets_a_code_of_the_new_model(
    few, scattered, other_model_folder, monkeypatch
):
    encoder, original = scattered.encoder(), reencoding.write_column
    adder, added = GalleryFolder(scattered.folder), []

    def add_first(*arguments):
        if not added:
            added.append(add_image(adder, encoder, another_png())[0])
        return original(*arguments)

    monkeypatch.setattr(reencoding, "write_column", add_first)
    monkeypatch.setattr(reencoding, "_FEW_ROWS", few)
    reencode(scattered, other_model_folder)
    adder.close()
    tiny = scattered.pixels(added[0])
    assert_array_equal(scattered.code(added[0]), scattered.encoder().encode(tiny[np.newaxis])[0])
    assert verify(scattered, 1000).different == 0


def test_an_empty_gallery_is_moved_to_another_model(model_folder, other_model_folder, tmp_path):
    gallery = GalleryFolder.create(tmp_path / "g", model_folder)
    assert reencode(gallery, other_model_folder) == 0
    assert gallery.fingerprint == read_card(other_model_folder).fingerprint
    gallery.close()


def test_a_gallery_without_pixels_cannot_be_reencoded(
    model_folder, other_model_folder, image_files, tmp_path
):
    gallery = GalleryFolder.create(tmp_path / "g", model_folder, pixels=False)
    index_sources(gallery, [Folder(image_files)], workers=1)
    with pytest.raises(InvalidGallery, match="keeps no pixels to encode"):
        reencode(gallery, other_model_folder)
    gallery.close()


def test_a_gallery_can_be_opened_while_it_moves_to_another_model(gallery, other_model_folder):
    """Opening reads the fingerprint and then the card, and both may change in between."""
    stop, errors = threading.Event(), []

    def open_again_and_again() -> None:
        while not stop.is_set():
            try:
                one = GalleryFolder(gallery.folder)
                one.code(1)
                one.close()
            except Exception as error:
                errors.append(error)

    thread = threading.Thread(target=open_again_and_again)
    own = gallery.folder.parent / "own"
    shutil.copytree(gallery.model_folder, own)
    thread.start()
    for model in (other_model_folder, own) * 4:
        reencode(gallery, model)
    stop.set()
    thread.join()
    assert errors == []


def test_only_one_job_at_a_time_runs_on_a_gallery(gallery, other_model_folder):
    second = GalleryFolder(gallery.folder)
    with gallery.job_lock():
        for job in (compact, lambda g: reencode(g, other_model_folder)):
            with pytest.raises(GalleryBusy, match="another job is writing"):
                job(second)
    second.close()
