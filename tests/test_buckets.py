"""Buckets of addresses, against a loop over all addresses and against exact search."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_array_equal

from hashsearch.errors import CodeShapeError
from hashsearch.search import NO_DISTANCE, NO_POSITION
from hashsearch.search import subset as subsets
from hashsearch.search.buckets import BucketIndex
from hashsearch.search.exact import ExactIndex


def packed(numbers: list[int]) -> np.ndarray:
    """Numbers below 2^28 as a gallery stores addresses, written bit by bit."""
    digits = [[int(digit) for digit in f"{number:028b}0000"] for number in numbers]
    return np.packbits(np.array(digits, np.uint8).reshape(-1, 32), axis=1)


def near(number: int, numbers: list[int], radius: int) -> np.ndarray:
    """(n,) bool: which of the numbers differ from the first in at most so many bits."""
    return np.array([(number ^ other).bit_count() <= radius for other in numbers], bool)


@st.composite
def galleries(draw):
    """(numbers, codes): of many near addresses, or few, or any; few distinct codes, so many ties.

    Many addresses and a small radius make an index visit the ball's addresses, and otherwise it
    compares all.
    """
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    n = draw(st.sampled_from([0, 1, 2, 30, 4000]))
    bits = draw(st.sampled_from([[0], [3, 27], [0, 5, 9, 27], range(14, 28), range(28)]))
    numbers = sum((rng.integers(0, 2, n) << bit for bit in bits), np.zeros(n, np.int64))
    codes = np.zeros((n, 32), np.uint8)
    codes[:, ::9] = rng.choice([0, 1, 255], (n, 4))
    return numbers.tolist(), codes


def masks(n: int):
    """No subset, or one of few or of many positions."""
    share = st.sampled_from([0.0, 0.02, 0.5, 1.0])
    return st.none() | share.map(lambda kept: np.random.default_rng(n).random(n) < kept)


@settings(deadline=None, max_examples=100)
@given(st.data())
def test_the_nearest_are_found_among_all_codes_at_near_addresses(data):
    numbers, codes = data.draw(galleries())
    radius = data.draw(st.integers(0, 4) | st.just(28))
    index = BucketIndex(packed(numbers), codes, radius)
    number = data.draw(st.sampled_from([*numbers[:3], 0, 2**27 + 1]))
    candidates = near(number, numbers, radius)
    query = np.concatenate([packed([number])[0], np.full(32, 1, np.uint8)])
    assert_array_equal(index.candidates(query[:4]), np.flatnonzero(candidates))

    mask = data.draw(masks(len(numbers)))
    among = subsets.of_mask(candidates if mask is None else candidates & mask)
    subset = None if mask is None else subsets.of_mask(mask)
    exact, k = ExactIndex(codes), data.draw(st.sampled_from([1, 7, 5000]))
    found = index.search(query[np.newaxis], k, subset)
    assert [array.dtype for array in found] == [np.int64, np.int32]
    for ours, wanted in zip(found, exact.search(query[np.newaxis, 4:], k, among), strict=True):
        assert_array_equal(ours, wanted)
    within = data.draw(st.integers(0, 256))
    ours = index.search_radius(query, within, subset)
    for array, wanted in zip(ours, exact.search_radius(query[4:], within, among), strict=True):
        assert_array_equal(array, wanted)


def test_every_radius_of_the_look_up_finds_what_a_loop_finds():
    rng = np.random.default_rng(0)
    numbers = rng.integers(0, 2**28, 2000).tolist()
    codes = np.zeros((2000, 32), np.uint8)
    for radius in range(29):
        index = BucketIndex(packed(numbers), codes, radius)
        found = index.candidates(packed(numbers[7:8])[0])
        assert_array_equal(found, np.flatnonzero(near(numbers[7], numbers, radius)))
    assert len(found) == 2000  # at 28 bits all are near


def test_at_radius_28_it_is_the_exact_index():
    rng = np.random.default_rng(1)
    addresses, codes = (rng.integers(0, 256, (500, n)).astype(np.uint8) for n in (4, 32))
    index = BucketIndex(addresses, codes, 28)
    queries = np.concatenate([addresses[:20], ~codes[:20]], axis=1)
    found = index.search(queries, 600)
    for ours, wanted in zip(found, ExactIndex(codes).search(queries[:, 4:], 600), strict=True):
        assert_array_equal(ours, wanted)


def test_where_no_address_is_near_nothing_is_found():
    index = BucketIndex(packed([0, 0, 1]), np.zeros((3, 32), np.uint8), 1)
    query = np.concatenate([packed([2**28 - 1])[0], np.zeros(32, np.uint8)])
    positions, distances = index.search(np.stack([query, query * 0]), 4)
    assert positions.tolist() == [[NO_POSITION] * 4, [0, 1, 2, NO_POSITION]]
    assert distances[:, 3].tolist() == [NO_DISTANCE] * 2
    assert len(index.search_radius(query, 256)[0]) == 0
    assert len(index) == 3


def test_addresses_and_queries_of_another_width_are_refused():
    codes = np.zeros((2, 32), np.uint8)
    with pytest.raises(CodeShapeError, match=r"shape \(n, 4\)"):
        BucketIndex(codes[:, :3], codes, 2)
    index = BucketIndex(codes[:, :4], codes, 2)
    with pytest.raises(CodeShapeError, match=r"shape \(n, 36\)"):
        index.search(codes, 1)
    with pytest.raises(CodeShapeError, match=r"shape \(n, 36\)"):
        index.search_radius(codes[0], 1)
    with pytest.raises(CodeShapeError, match=r"shape \(n, 4\)"):
        index.candidates(codes[0])
