"""Questions put to a gallery, and what bounds their answers."""

from pathlib import Path

import numpy as np
import pytest
from numpy.testing import assert_array_equal

from hashsearch.errors import CodeShapeError, InvalidImage, InvalidQuery, NotInGallery
from hashsearch.search.exact import ExactIndex
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


def test_the_ranking_by_code_is_the_exact_indexes_own(searcher):
    rows = searcher.gallery.catalog.rows()
    codes = searcher.gallery.column("codes", rows)
    query = searcher.query_by_image(Path(searcher.gallery.catalog.record(3).path).read_bytes())
    ids, distances = ExactIndex(rows.ids, codes, slices=1).search(query.code[np.newaxis], 10)
    ranking = searcher.search(query)
    assert_array_equal(ranking.ids, ids[0])
    assert_array_equal(ranking.distances, distances[0])


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


def test_a_picture_that_is_none_is_refused(searcher):
    with pytest.raises(InvalidImage):
        searcher.query_by_image(b"hello")


def test_an_unknown_id_is_refused(searcher):
    with pytest.raises(NotInGallery, match="no image with this id"):
        searcher.query_by_id(12345)
