"""Multi-index hashing, against exact search, however the costs are weighed."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_array_equal

from hashsearch.errors import CodeShapeError
from hashsearch.search import multihash
from hashsearch.search import subset as subsets
from hashsearch.search.exact import ExactIndex
from hashsearch.search.multihash import MultiHashIndex

# Whether tables answer: always, where few codes are looked up, or never where there are few codes.
WAYS = {
    "tables": {"_SECONDS_TO_SCAN": 1.0, "_SECONDS_TO_SCAN_LISTED": 1.0},
    "either": {"_SECONDS_TO_START": 0.0, "_SECONDS_TO_LOOK_UP": 1e-10},
    "scan": {},
}


def same(ours, wanted) -> None:
    for array, other in zip(ours, wanted, strict=True):
        assert array.dtype == other.dtype
        assert_array_equal(array, other)


def flipped(code: np.ndarray, bits: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Copies of a (32,) code with so many random bits flipped in each."""
    ranks = rng.random((len(bits), 256)).argsort(axis=1)
    return code ^ np.packbits(ranks < bits[:, np.newaxis], axis=1)


@st.composite
def code_sets(draw):
    """(n, 32) uint8: codes at all distances from a first one, with ties, or all equal."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    n = draw(st.sampled_from([0, 1, 2, 3, 30, 400]))
    farthest = draw(st.sampled_from([0, 3, 40, 256]))
    codes = flipped(
        rng.integers(0, 256, 32).astype(np.uint8), rng.integers(0, farthest + 1, n), rng
    )
    return codes[rng.integers(0, n, n)] if n and draw(st.booleans()) else codes


@pytest.mark.parametrize("way", WAYS)
@settings(deadline=None, max_examples=40)
@given(data=st.data())
def test_it_finds_what_exact_search_finds(way, data):
    codes = data.draw(code_sets())
    rng = np.random.default_rng(0)
    centre = codes[0] if len(codes) else np.zeros(32, np.uint8)
    queries = np.concatenate([flipped(centre, np.array([0, 2, 20]), rng), ~centre[np.newaxis]])
    share = data.draw(st.sampled_from([None, 0.0, 0.05, 0.5, 1.0]))
    subset = None if share is None else subsets.of_mask(rng.random(len(codes)) < share)
    radius = data.draw(st.integers(-1, 60) | st.integers(250, 260))
    k = data.draw(st.sampled_from([1, 5, 30, 450]))
    with pytest.MonkeyPatch.context() as patch:
        for name, value in WAYS[way].items():
            patch.setattr(multihash, name, value)
        exact = ExactIndex(codes)
        index = MultiHashIndex(codes, exact)
        same(index.search(queries, k, subset), exact.search(queries, k, subset))
        for query in queries:
            wanted = exact.search_radius(query, radius, subset)
            same(index.search_radius(query, radius, subset), wanted)


class CountedIndex(ExactIndex):
    """An exact index that counts how often it answers."""

    answers = 0

    def search(self, *arguments):
        self.answers += 1
        return super().search(*arguments)

    def search_radius(self, *arguments):
        self.answers += 1
        return super().search_radius(*arguments)


@pytest.fixture(scope="module")
def many() -> np.ndarray:
    """(1500000, 32) uint8: random codes; the first 100 lie at 0 to 40 bits from the last one."""
    rng = np.random.default_rng(3)
    codes = rng.integers(0, 256, (1_500_000, 32), np.uint8)
    codes[:100] = flipped(codes[-1], rng.integers(0, 41, 100), rng)
    return codes


def test_tables_answer_for_a_small_radius_and_a_scan_for_a_large_one(many):
    scans = ExactIndex(many)
    exact = CountedIndex(many)
    index = MultiHashIndex(many, exact)
    query = many[-1]
    for radius in range(20):
        same(index.search_radius(query, radius), scans.search_radius(query, radius))
    same(index.search(query[np.newaxis], 10), scans.search(query[np.newaxis], 10))
    most = subsets.of_mask(np.arange(len(many)) % 5 > 0)
    same(index.search_radius(query, 16, most), scans.search_radius(query, 16, most))
    assert exact.answers == 0

    few = subsets.of_positions(np.arange(0, 500, 5), len(many))
    same(index.search_radius(query, 16, few), scans.search_radius(query, 16, few))
    same(index.search_radius(query, 90), scans.search_radius(query, 90))
    far = np.stack([~query, query, ~query])  # one among others whose nearest are near
    same(index.search(far, 10), scans.search(far, 10))
    same(index.search(far[1:2], 5000), scans.search(far[1:2], 5000))
    assert exact.answers == 4


def test_a_scan_answers_where_all_codes_are_equal():
    codes = np.full((200_000, 32), 7, np.uint8)
    exact = CountedIndex(codes)
    index = MultiHashIndex(codes, exact)
    positions, distances = index.search_radius(codes[0], 0)
    assert_array_equal(positions, np.arange(len(codes)))
    assert not distances.any()
    assert index.search(codes[:1], 3)[0].tolist() == [[0, 1, 2]]
    assert exact.answers == 2
    assert len(index.search_radius(~codes[0], 8)[0]) == 0
    assert exact.answers == 2


def test_a_query_of_another_width_is_refused():
    codes = np.zeros((3, 32), np.uint8)
    index = MultiHashIndex(codes, ExactIndex(codes))
    with pytest.raises(CodeShapeError, match=r"shape \(n, 32\)"):
        index.search(codes[:, :31], 1)
    with pytest.raises(CodeShapeError, match=r"shape \(n, 32\)"):
        index.search_radius(codes[0, :31], 1)
