"""Compaction, also while others read."""

import itertools
import json
import threading
import time

import numpy as np
import pytest
from numpy.testing import assert_array_equal

from hashsearch.errors import InvalidGallery
from hashsearch.gallery.gallery_folder import GalleryFolder
from hashsearch.gallery.history import last_job
from hashsearch.jobs import compacting
from hashsearch.jobs.adding import add_image
from hashsearch.jobs.compacting import compact
from hashsearch.jobs.reencoding import reencode
from hashsearch.jobs.verifying import verify
from hashsearch.models.card import read_card
from hashsearch.retrieval.live_searcher import LiveSearcher
from hashsearch.retrieval.searcher import Searcher
from tests.galleries import (
    another_png,
    damage,
    everything,
    has_no_litter,
    ids,
    run,
    run_killed,
)


def test_compacting_frees_space_and_changes_no_answer(scattered):
    before, disk = everything(scattered), scattered.disk_bytes()
    assert len(scattered.catalog.shard_rows()) > 8
    summary = compact(scattered)
    assert everything(scattered) == before
    assert (summary.shards_after, summary.rows_dropped) == (1, 60)
    assert list(scattered.catalog.shard_rows().values()) == [241]
    assert scattered.disk_bytes()["pixels"] < disk["pixels"] - 60 * 3072
    folders = {path.name for path in (scattered.folder / "shards").iterdir()}
    assert folders == {str(number) for number in scattered.catalog.shard_rows()}
    assert verify(scattered, 241).findings == []
    assert last_job(scattered.catalog).kind == "compact"
    assert compact(scattered).rows_dropped == 0  # there is nothing left to do
    assert everything(scattered) == before


def test_the_freed_space_is_that_of_the_removed_rows_and_never_negative(gallery, capsys):
    for command in (("remove", gallery.folder, "--id", 5, 9, 10**9), ("compact", gallery.folder)):
        assert run("gallery", *command) == 0
    output = capsys.readouterr()
    assert "not in the gallery: 1 of these ids" in output.err
    assert "2 removed rows dropped, 6." in output.out  # kB: two of 3,072 bytes and their codes
    assert run("gallery", "compact", gallery.folder, "--json") == 0
    assert json.loads(capsys.readouterr().out)["bytes_freed"] == 0


def test_full_shards_are_left_as_they_are(scattered, monkeypatch):
    compact(scattered)
    (number,) = scattered.catalog.shard_rows()
    monkeypatch.setattr(compacting, "_SMALL", 200)
    add_image(scattered, scattered.encoder(), another_png())
    compact(scattered)
    assert number in scattered.catalog.shard_rows()


def test_damaged_rows_are_not_copied_to_a_new_shard(scattered):
    number = next(iter(scattered.catalog.shard_rows()))
    damage(scattered.shard_folder(number) / "pixels.npy")
    before = scattered.catalog.shard_rows()
    with pytest.raises(InvalidGallery, match=r"pixels\.npy is damaged"):
        compact(scattered)
    assert scattered.catalog.shard_rows() == before
    assert last_job(scattered.catalog).state == "failed"


def test_searchers_from_before_and_after_compacting_give_the_same_answers(scattered):
    searcher = Searcher(scattered)
    query = searcher.query_by_id(ids(scattered)[0])
    before = searcher.search(query, "pixels", k=50)
    compact(scattered)
    for one in (searcher, Searcher(scattered)):
        again = one.search(query, "pixels", k=50)
        assert_array_equal(again.ids, before.ids)
        assert_array_equal(again.distances, before.distances)


def test_answers_stay_right_during_compacting_and_reencoding(
    scattered, other_model_folder, model_folder
):
    """Readers open the gallery and read images all the time, without any error."""
    expected = {one: scattered.catalog.record(one).uri for one in ids(scattered)}
    models = {read_card(folder).fingerprint for folder in (model_folder, other_model_folder)}
    stop, errors, opened = threading.Event(), [], []

    def read(number: int) -> None:
        mine = GalleryFolder(scattered.folder)
        live = LiveSearcher(mine, waits=number == 0)
        try:
            for turn in itertools.count():
                if stop.is_set():
                    break
                image_id = list(expected)[(turn * 7 + number) % len(expected)]
                assert mine.pixels(image_id) is not None
                mine.thumbnail(image_id)
                with live.searcher() as searcher:
                    assert searcher.fingerprint in models
                    query = searcher.query_by_id(image_id)
                    code = searcher.encoder.encode(query.tiny[np.newaxis])[0]
                    assert_array_equal(code, query.code)
                    ranking = searcher.search(query, "codes", k=1000)
                    assert {hit.id: hit.uri for hit in ranking.hits} == {
                        one: uri for one, uri in expected.items() if one != image_id
                    }
                    opened.append(searcher.fingerprint)
        except BaseException as error:
            errors.append(error)
        finally:
            mine.close()

    threads = [threading.Thread(target=read, args=(number,)) for number in range(2)]
    for thread in threads:
        thread.start()
    compact(scattered)
    for model in (other_model_folder, model_folder, other_model_folder):
        reencode(scattered, model)
        wanted = len(opened) + 2
        while len(opened) < wanted and not errors:
            time.sleep(0.01)
    stop.set()
    for thread in threads:
        thread.join()
    assert errors == []
    assert set(opened) == models


@pytest.mark.parametrize(
    "point",
    [
        ("hashsearch.gallery.shards", "ShardWriter.seal", "after", "1"),
        ("hashsearch.gallery.gallery_folder", "GalleryFolder.adopt", "after", "1"),
        ("hashsearch.jobs.compacting", "move_images", "after", "1"),
        ("hashsearch.jobs.compacting", "next_generation", "after", "1"),
        ("hashsearch.gallery.gallery_folder", "GalleryFolder.drop", "before", "1"),
        ("hashsearch.gallery.gallery_folder", "GalleryFolder.drop", "after", "3"),
    ],
)
def test_a_killed_compacting_loses_nothing_and_is_completed_by_the_next(point, scattered):
    before = everything(scattered)
    run_killed("compact", "-", scattered, *point)
    assert everything(scattered) == before
    assert verify(scattered, 0).findings == []
    compact(scattered)
    assert everything(scattered) == before
    assert len(scattered.catalog.shard_rows()) == 1
    assert has_no_litter(scattered)


def test_an_image_whose_shard_is_deleted_between_two_reads_is_read_where_it_lies_now(
    scattered, monkeypatch
):
    image_id = ids(scattered)[0]
    expected = scattered.pixels(image_id)
    record = scattered.catalog.record

    def compact_after(number):
        found = record(number)
        monkeypatch.undo()
        compact(scattered)
        return found

    monkeypatch.setattr(scattered.catalog, "record", compact_after)
    assert_array_equal(scattered.pixels(image_id), expected)
