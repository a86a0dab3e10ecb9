"""The exact index and the pixel baseline, each against a slow loop."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.testing import assert_array_equal

from hashsearch.encoder import Encoder
from hashsearch.errors import CodeShapeError
from hashsearch.search.exact import NO_DISTANCE, NO_ID, ExactIndex
from hashsearch.search.pixels import PixelBlock, PixelIndex


def ranked(distances: list[int], ids: np.ndarray) -> list[tuple[int, int]]:
    """(distance, id) pairs, nearest first, ties by id: the law both indexes obey."""
    return sorted(zip(distances, ids.tolist(), strict=True))


def hamming_loop(query: np.ndarray, codes: np.ndarray) -> list[int]:
    return [
        sum((int(a) ^ int(b)).bit_count() for a, b in zip(query, code, strict=True))
        for code in codes
    ]


def pairs(ids: np.ndarray, distances: np.ndarray) -> list[tuple[int, int]]:
    return list(zip(distances.tolist(), ids.tolist(), strict=True))


# Few distinct bytes, so that ties abound.
tied_codes = st.integers(1, 40).flatmap(
    lambda n: arrays(np.uint8, (n, 32), elements=st.sampled_from([0, 1, 255]))
)


@settings(deadline=None, max_examples=60)
@given(tied_codes, st.integers(1, 50), st.integers(1, 5), st.integers(0, 260))
def test_exact_search_is_the_slow_loop(codes, k, slices, radius):
    ids = np.arange(len(codes), dtype=np.int64) * 3 + 7  # ids have gaps
    index = ExactIndex(ids, codes, slices=slices)
    expected = ranked(hamming_loop(codes[0], codes), ids)
    found_ids, distances = index.search(codes[:1], k)
    assert found_ids.shape == distances.shape == (1, k)
    found = min(k, len(codes))
    assert pairs(found_ids[0, :found], distances[0, :found]) == expected[:found]
    assert (found_ids[0, found:] == NO_ID).all()
    assert (distances[0, found:] == NO_DISTANCE).all()
    within = [pair for pair in expected if pair[0] <= radius]
    assert pairs(*index.search_radius(codes[0], radius)) == within


def test_exact_search_on_real_codes_is_the_slow_loop(model_folder, tiny_images):
    codes = Encoder.load(model_folder).encode(tiny_images)
    ids = np.arange(1, len(codes) + 1, dtype=np.int64)
    index = ExactIndex(ids, codes)
    all_ids, all_distances = index.search(codes[:20], 25)
    assert (all_ids.dtype, all_distances.dtype) == (np.int64, np.int32)
    for row, query in enumerate(codes[:20]):
        expected = ranked(hamming_loop(query, codes), ids)
        assert pairs(all_ids[row], all_distances[row]) == expected[:25]


def test_equal_codes_come_in_id_order_over_all_slices():
    codes = np.full((1000, 32), 7, np.uint8)
    ids = np.arange(5000, 6000, dtype=np.int64)
    for slices in (1, 2, 7):
        found, distances = ExactIndex(ids, codes, slices).search(codes[:1], 600)
        assert_array_equal(found[0], ids[:600])
        assert not distances.any()


def test_an_empty_index_finds_nothing():
    index = ExactIndex(np.empty(0, np.int64), np.empty((0, 32), np.uint8))
    query = np.zeros(32, np.uint8)
    ids, distances = index.search(query[np.newaxis], 3)
    assert ids.tolist() == [[NO_ID] * 3]
    assert distances.tolist() == [[NO_DISTANCE] * 3]
    assert len(index.search_radius(query, 256)[0]) == 0


@pytest.mark.parametrize("width", [31, 33])
def test_a_query_of_another_width_is_refused(width):
    index = ExactIndex(np.array([1]), np.zeros((1, 32), np.uint8))
    query = np.zeros((1, width), np.uint8)
    with pytest.raises(CodeShapeError, match=r"shape \(n, 32\)"):
        index.search(query, 1)
    with pytest.raises(CodeShapeError):
        index.search_radius(query[0], 1)


def squared_loop(query: np.ndarray, images: np.ndarray) -> list[int]:
    return [
        sum((int(a) - int(b)) ** 2 for a, b in zip(query, image, strict=True)) for image in images
    ]


@pytest.fixture(scope="module")
def pixels(tiny_images):
    return tiny_images.reshape(len(tiny_images), -1)


def test_pixel_search_is_the_slow_loop(pixels):
    ids = np.arange(len(pixels), dtype=np.int64) + 10
    everything = PixelBlock(pixels, np.arange(len(pixels)), ids)
    index = PixelIndex([everything])
    query = pixels[5]
    expected = ranked(squared_loop(query, pixels), ids)
    found = index.search(pixels[[4, 5]], 12)
    assert pairs(*(part[1] for part in found)) == expected[:12]
    assert pairs(*(part[0] for part in index.search(query[np.newaxis], 10**6))) == expected
    radius = expected[30][0]
    assert pairs(*index.search_radius(query, radius)) == [p for p in expected if p[0] <= radius]


def test_pixel_search_over_blocks_skips_rows_that_do_not_count(pixels):
    """700 rows a block: more than one chunk; some removed; ids not in the order of rows."""
    repeated = np.concatenate([pixels, pixels, pixels])[:700]  # equal images, so ties
    rng = np.random.default_rng(0)
    blocks, expected = [], []
    for number in range(2):
        rows = np.sort(rng.choice(700, 500, replace=False))
        ids = rng.permutation(500).astype(np.int64) + 1000 * number
        blocks.append(PixelBlock(repeated, rows, ids))
        expected += list(zip(squared_loop(pixels[3], repeated[rows]), ids.tolist(), strict=True))
    found = PixelIndex(blocks).search(pixels[3:4], 40)
    assert pairs(*(part[0] for part in found)) == sorted(expected)[:40]


def test_the_greatest_distance_fits():
    black, white = np.zeros((1, 3072), np.uint8), np.full((1, 3072), 255, np.uint8)
    index = PixelIndex([PixelBlock(black, np.array([0]), np.array([1]))])
    assert index.search(white, 1)[1].tolist() == [[3072 * 255**2]]


def test_an_empty_pixel_index_finds_nothing():
    ids, distances = PixelIndex([]).search(np.zeros((1, 3072), np.uint8), 5)
    assert ids.shape == distances.shape == (1, 0)
