"""Exact search by codes and by pixels, each against a slow loop."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.testing import assert_array_equal

from hashsearch.encoder import Encoder
from hashsearch.errors import CodeShapeError
from hashsearch.search import NO_DISTANCE, NO_POSITION, Block
from hashsearch.search.exact import ExactIndex
from hashsearch.search.pixels import PixelIndex


def ranked(distances: list[int], selection: np.ndarray | None = None) -> list[tuple[int, int]]:
    """(distance, position) pairs, nearest first, ties by position: the law both indexes obey."""
    pairs = sorted((distance, position) for position, distance in enumerate(distances))
    return [pair for pair in pairs if selection is None or selection[pair[1]]]


def hamming_loop(query: np.ndarray, codes: np.ndarray) -> list[int]:
    return [
        sum((int(a) ^ int(b)).bit_count() for a, b in zip(query, code, strict=True))
        for code in codes
    ]


def pairs(positions: np.ndarray, distances: np.ndarray) -> list[tuple[int, int]]:
    return list(zip(distances.tolist(), positions.tolist(), strict=True))


def check(index, query: np.ndarray, k: int, radius: int, slow: list[int], selection) -> None:
    """Compare both kinds of search with the slow loop's distances."""
    expected = ranked(slow, selection)
    positions, distances = index.search(query[np.newaxis], k, selection)
    assert positions.shape == distances.shape == (1, k)
    assert (positions.dtype, distances.dtype) == (np.int64, np.int32)
    found = min(k, len(expected))
    assert pairs(positions[0, :found], distances[0, :found]) == expected[:found]
    assert (positions[0, found:] == NO_POSITION).all()
    assert (distances[0, found:] == NO_DISTANCE).all()
    within = [pair for pair in expected if pair[0] <= radius]
    assert pairs(*index.search_radius(query, radius, selection)) == within


# Few distinct bytes, so that ties abound.
tied_codes = st.integers(1, 40).flatmap(
    lambda n: st.tuples(
        arrays(np.uint8, (n, 32), elements=st.sampled_from([0, 1, 255])),
        st.none() | arrays(np.bool_, n),
    )
)


@settings(deadline=None, max_examples=100)
@given(tied_codes, st.integers(1, 50), st.integers(1, 5), st.integers(0, 260))
def test_exact_search_is_the_slow_loop(drawn, k, slices, radius):
    codes, selection = drawn
    index = ExactIndex(codes, slices=slices)
    check(index, codes[0], k, radius, hamming_loop(codes[0], codes), selection)


def test_exact_search_on_real_codes_is_the_slow_loop(model_folder, tiny_images):
    codes = Encoder.load(model_folder).encode(tiny_images)
    index = ExactIndex(codes)
    positions, distances = index.search(codes[:20], 25)
    for row, query in enumerate(codes[:20]):
        expected = ranked(hamming_loop(query, codes))
        assert pairs(positions[row], distances[row]) == expected[:25]
        every_third = np.arange(len(codes)) % 3 == row % 3
        check(index, query, 25, expected[40][0], hamming_loop(query, codes), every_third)


def test_equal_codes_come_in_order_of_position_over_all_slices():
    codes = np.full((1000, 32), 7, np.uint8)
    for slices in (1, 2, 7):
        found, distances = ExactIndex(codes, slices).search(codes[:1], 600)
        assert_array_equal(found[0], np.arange(600))
        assert not distances.any()


def test_an_empty_index_finds_nothing():
    check(ExactIndex(np.empty((0, 32), np.uint8)), np.zeros(32, np.uint8), 3, 256, [], None)


@pytest.mark.parametrize("width", [31, 33])
def test_a_query_of_another_width_is_refused(width):
    index = ExactIndex(np.zeros((1, 32), np.uint8))
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
    rows = np.arange(len(pixels))
    index = PixelIndex([Block(pixels, rows, rows)])
    slow = squared_loop(pixels[5], pixels)
    for selection in (None, rows % 4 == 1, rows < 0):
        for k in (12, 1000):
            check(index, pixels[5], k, ranked(slow)[30][0], slow, selection)


def test_pixel_search_over_blocks_skips_rows_that_do_not_belong(pixels):
    """700 rows a block, more than one chunk; some are unused; positions are in no order."""
    repeated = np.concatenate([pixels, pixels, pixels])[:700]  # equal images, so ties
    rng = np.random.default_rng(0)
    order = rng.permutation(1000)
    blocks, slow = [], [0] * 1000
    for number in range(2):
        rows = np.sort(rng.choice(700, 500, replace=False))
        positions = order[500 * number : 500 * (number + 1)]
        blocks.append(Block(repeated, rows, positions))
        for position, distance in zip(
            positions.tolist(), squared_loop(pixels[3], repeated[rows]), strict=True
        ):
            slow[position] = distance
    for selection in (None, rng.random(1000) < 0.3):
        check(PixelIndex(blocks), pixels[3], 40, ranked(slow)[60][0], slow, selection)


def test_the_largest_distance_fits():
    black, white = np.zeros((1, 3072), np.uint8), np.full((1, 3072), 255, np.uint8)
    index = PixelIndex([Block(black, np.array([0]), np.array([0]))])
    assert index.search(white, 1)[1].tolist() == [[3072 * 255**2]]


def test_an_empty_pixel_index_finds_nothing():
    check(PixelIndex([]), np.zeros(3072, np.uint8), 5, 10**9, [], None)
