"""Conditions on the catalog: how often and at what cost they are read."""

import threading
import time
import tracemalloc
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import pytest
from numpy.testing import assert_array_equal

from hashsearch.gallery.catalog import Catalog
from hashsearch.gallery.catalog_places import at_or_below
from hashsearch.retrieval.filters import Filter, FilteredRows
from service.lanes import Lanes
from service.settings import Settings
from tests.conftest import open_searcher, serving

ROWS = 20_000


@pytest.fixture
def catalog(tmp_path):
    """A catalog of ROWS images `a/1` to `a/<ROWS>`, each tenth with a further place `a/copy/…`."""
    catalog = Catalog.create(tmp_path / "catalog.sqlite", {})
    numbers = range(1, ROWS + 1)
    with catalog.transaction() as db:
        db.execute("INSERT INTO shards VALUES (1, ?, '{}')", (ROWS,))
        db.executemany(
            "INSERT INTO images (key, uri, label, width, height, size, mtime, shard, row) "
            "VALUES (?, ?, ?, 1, 1, 1, 1, 1, ?)",
            ((str(n).encode(), f"a/{n}", str(n % 3), n - 1) for n in numbers),
        )
        db.executemany(
            "INSERT INTO places (image, uri, size, mtime) VALUES (?, ?, 1, 1)",
            ((n, f"a/copy/{n}") for n in numbers[::10]),
        )
    yield catalog
    catalog.close()


def test_many_ids_are_read_in_little_memory(catalog):
    where, values = at_or_below("uri", "a")
    expected = [row[0] for row in catalog._rows("SELECT id FROM images ORDER BY id")]
    tracemalloc.start()
    found = catalog.ids_matching(where, values)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert_array_equal(found, expected)
    assert found.dtype == np.int64
    assert peak < 40 * ROWS  # a tuple and a number for each id take 100 bytes
    none = catalog.ids_matching("label = ?", ["none"])
    assert (none.tolist(), none.dtype) == ([], np.int64)


def test_an_image_with_several_places_below_a_prefix_is_chosen_once(catalog, gallery_folder):
    live = open_searcher(gallery_folder).state.live
    few = replace(live, segments=live.segments[:1])
    (chosen,) = FilteredRows().subsets(Filter(uri_prefixes=("a", "a/copy")), few, 0, catalog)
    assert chosen is not None
    assert chosen.count == len(few.base.ids)  # all of them are in the catalog too
    assert_array_equal(chosen.listed(), np.arange(len(few.base.ids)))
    (copies,) = FilteredRows().subsets(Filter(uri_prefixes=("a/copy",)), few, 0, catalog)
    assert_array_equal(few.base.ids[copies.listed()] % 10, 1)


@pytest.mark.parametrize("chosen_by", [Filter(label="1"), Filter(uri_prefixes=("a/copy",))])
def test_a_condition_that_many_ask_for_at_once_is_read_once(
    chosen_by, catalog, gallery_folder, monkeypatch
):
    live = open_searcher(gallery_folder).state.live
    alone = FilteredRows().subsets(chosen_by, live, 0, catalog)
    read, queries, asked = Catalog.ids_matching, [], threading.Barrier(8)

    def slow(catalog, where, values, since=None):
        queries.append(where)
        time.sleep(0.1)  # the others ask meanwhile
        return read(catalog, where, values, since)

    monkeypatch.setattr(Catalog, "ids_matching", slow)
    rows = FilteredRows()

    def ask(_):
        asked.wait(30)
        with catalog.snapshot():
            return rows.subsets(chosen_by, live, 0, catalog)

    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(ask, range(8)))
    assert len(queries) == len(set(queries))
    for answer in answers:
        for subset, expected in zip(answer, alone, strict=True):
            assert_array_equal(subset.listed(), expected.listed())


def test_a_state_is_there_for_each_thread_of_quick_work_while_pictures_hold_theirs(
    gallery_folder,
):
    lanes = Lanes(Settings(gallery=gallery_folder))
    threads = lanes.quick.threads + lanes.pictures.threads + 1  # one for /readyz
    lanes.close()
    catalog = open_searcher(gallery_folder).gallery.catalog
    all_have_one = threading.Barrier(threads)

    def hold(_):
        with catalog.snapshot():
            catalog.generation()
            all_have_one.wait(10)

    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(hold, range(threads)))


@pytest.mark.parametrize("query", ["label=1", "uri_prefix=images", "label=1&uri_prefix=images"])
def test_lists_by_a_filter_that_is_being_read_keep_nothing_else_waiting(
    query, gallery_folder, monkeypatch
):
    go_on, read = threading.Event(), Catalog.ids_matching

    def slow(catalog, where, values, since=None):
        assert go_on.wait(30)
        return read(catalog, where, values, since)

    monkeypatch.setattr(Catalog, "ids_matching", slow)
    with serving(gallery_folder, queue=20) as client, ThreadPoolExecutor(20) as pool:
        lists = [pool.submit(client.get, f"/v1/images?{query}") for _ in range(20)]
        deadline = time.monotonic() + 30
        while client.app.state.lanes.searches.size < 20 and time.monotonic() < deadline:
            time.sleep(0.01)
        for number in range(1, 10):
            assert client.post("/v1/search", json={"id": number}).status_code == 200
            assert client.get("/v1/images?limit=1").status_code == 200
            assert client.get("/readyz").status_code == 200
        assert client.get(f"/v1/images?{query}").json()["code"] == "busy"
        go_on.set()
        assert {call.result().status_code for call in lists} == {200}
