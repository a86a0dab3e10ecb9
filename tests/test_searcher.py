"""Queries of a gallery, and the limits of their answers."""

from pathlib import Path

import numpy as np
import pytest
from numpy.testing import assert_array_equal

from hashsearch.errors import CodeShapeError, InvalidImage, InvalidQuery, NotInGallery
from hashsearch.gallery.changes import Selection
from hashsearch.jobs.removing import remove
from hashsearch.retrieval.searcher import Searcher
from tests.conftest import open_searcher


@pytest.fixture(scope="module")
def searcher(gallery_folder):
    return open_searcher(gallery_folder)


def test_an_image_of_the_gallery_finds_itself_at_distance_zero(searcher):
    record = searcher.gallery.catalog.record(9)
    query = searcher.query_by_image(Path(record.path).read_bytes())
    for method in ("codes", "pixels"):
        ranking = searcher.search(query, method, k=5)
        assert ranking.distances[0] == 0
        assert 9 in ranking.ids[ranking.distances == 0]


def test_a_query_by_id_leaves_itself_out(searcher):
    query = searcher.query_by_id(9)
    for method in ("codes", "pixels"):
        ids = searcher.search(query, method, k=10**6).ids
        assert sorted(ids.tolist()) == [one for one in range(1, 301) if one != 9]


def test_k_and_radius_bound_the_answer_together(searcher):
    query = searcher.query_by_id(9)
    for method in ("codes", "pixels"):
        everything = searcher.search(query, method, k=299)
        radius = int(everything.distances[20])
        within = everything.ids[everything.distances <= radius]
        assert_array_equal(searcher.search(query, method, radius=radius).ids, within)
        assert_array_equal(searcher.search(query, method, k=5, radius=radius).ids, within[:5])
        capped = searcher.search(query, method, radius=radius, cap=7)
        assert_array_equal(capped.ids, within[:7])
        assert capped.truncated
        assert not searcher.search(query, method, radius=radius, cap=len(within)).truncated
    assert len(searcher.search(query).ids) == 10


def test_ranking_by_code_orders_by_differing_bits_then_by_id(searcher):
    rows = searcher.gallery.catalog.rows()
    codes = searcher.gallery.column("codes", rows)
    query = searcher.query_by_image(Path(searcher.gallery.catalog.record(3).path).read_bytes())
    distances = np.bitwise_count(codes ^ query.code).sum(axis=1)
    order = np.lexsort((rows.ids, distances))[:10]
    ranking = searcher.search(query)
    assert_array_equal(ranking.ids, rows.ids[order])
    assert_array_equal(ranking.distances, distances[order])


def test_a_hit_by_code_says_what_its_distance_means(searcher, measured_gallery_folder):
    measured = open_searcher(measured_gallery_folder)
    by_id = measured.query_by_id(9)
    by_image = measured.query_by_image(Path(measured.gallery.catalog.record(9).path).read_bytes())
    for query in (by_id, by_image, measured.query_by_code(by_id.code)):
        hits = measured.search(query, k=300).hits
        for hit in hits:  # the thresholds are inclusive
            farther = sum(hit.distance > limit for limit in (35, 50, 60))
            assert hit.closeness == ("same", "near", "alike", "far")[farther]
        assert {hit.closeness for hit in hits} >= {"near", "alike", "far"}
        assert {hit.closeness for hit in searcher.search(query, k=300).hits} == {None}
    assert {hit.closeness for hit in measured.search(by_id, "pixels", k=300).hits} == {None}


@pytest.mark.parametrize("k", [0, -1])
def test_k_below_one_is_refused(searcher, k):
    with pytest.raises(InvalidQuery, match=f"k is at least 1; got {k}"):
        searcher.search(searcher.query_by_id(1), k=k)


def test_a_negative_radius_is_refused(searcher):
    with pytest.raises(InvalidQuery, match="a radius is at least 0; got -1"):
        searcher.search(searcher.query_by_id(1), radius=-1)


def test_a_query_by_code_has_no_pixels(searcher):
    query = searcher.query_by_code(searcher.query_by_id(4).code)
    assert searcher.search(query, k=1).distances[0] == 0
    with pytest.raises(InvalidQuery, match="a query by code has no pixels"):
        searcher.search(query, "pixels")


def test_a_code_of_31_bytes_is_refused(searcher):
    with pytest.raises(CodeShapeError):
        searcher.query_by_code(np.zeros(31, np.uint8))


def test_bytes_that_are_not_a_picture_are_refused(searcher):
    with pytest.raises(InvalidImage):
        searcher.query_by_image(b"hello")


def test_an_unknown_method_is_refused(searcher):
    with pytest.raises(
        InvalidQuery, match="no method 'scent'; there are codes, pixels, normalized"
    ):
        searcher.search(searcher.query_by_id(1), "scent")


def test_removed_images_make_room_for_the_next_nearest(gallery):
    searcher = Searcher(gallery)
    query = searcher.query_by_id(9)
    nearest = {name: searcher.search(query, name, k=40).ids for name in searcher.methods}
    remove(gallery.catalog, Selection(ids=nearest["codes"][:35].tolist()))
    for name, before in nearest.items():
        kept = before[~np.isin(before, nearest["codes"][:35])]
        found = searcher.search(query, name, k=20)
        assert len(found.hits) == 20
        assert_array_equal(found.ids[: len(kept)], kept[:20])
        assert_array_equal(found.ids, Searcher(gallery).search(query, name, k=20).ids)
    assert len(searcher.search(query, k=10**6).hits) == 300 - 35 - 1


def test_an_unknown_id_is_refused(searcher):
    with pytest.raises(NotInGallery, match="no image with this id"):
        searcher.query_by_id(12345)


def test_counts_of_distances_agree_with_a_search_for_all_others(searcher):
    query = searcher.query_by_id(9)
    distances = searcher.search(query, k=300).distances
    counts = searcher.distance_counts(query)
    assert counts.tolist() == [(distances == distance).sum() for distance in range(257)]
    assert counts.sum() == 299
    with pytest.raises(InvalidQuery, match="distances are counted by the method codes alone"):
        searcher.distance_counts(query, method="pixels")
