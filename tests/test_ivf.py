"""FAISS's inverted file of codes, against exact search."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.testing import assert_array_equal

from hashsearch.encoder import Encoder
from hashsearch.errors import CodeShapeError, InvalidGallery
from hashsearch.progress import reported_to
from hashsearch.search import NO_DISTANCE, NO_POSITION
from hashsearch.search import subset as subsets
from hashsearch.search.exact import ExactIndex, hamming_distances
from hashsearch.search.held_out import HeldOut
from hashsearch.search.ivf import (
    IvfIndex,
    assign,
    choose_nprobe,
    lists_for,
    require_lists,
    train,
)
from hashsearch.search.lists import InvertedLists


class Unused(ExactIndex):
    """An exact index that may not be asked."""

    def search(self, queries, k, subset=None):
        raise AssertionError("the lists can answer this")

    def search_radius(self, query, radius, subset=None):
        raise AssertionError("the lists can answer this")


def ivf(codes: np.ndarray, n_lists: int, nprobe: int, exact: ExactIndex | None = None) -> IvfIndex:
    centroids = train(codes, n_lists, seed=0)
    lists = assign(codes, centroids)
    return IvfIndex(InvertedLists(codes, centroids, lists, nprobe), exact or ExactIndex(codes))


@pytest.fixture(scope="module")
def codes(model_folder, tiny_images):
    """Real codes of 300 images and of their mirror images."""
    both = np.concatenate([tiny_images, tiny_images[:, :, ::-1]])
    return Encoder.load(model_folder).encode(both)


# Few distinct bytes, so that ties abound, also more than the index has spare neighbours for.
tied = st.integers(60, 150).flatmap(
    lambda n: st.tuples(
        arrays(np.uint8, (n, 32), elements=st.sampled_from([0, 1, 255])),
        st.lists(st.integers(0, n - 1), max_size=30, unique=True),
    )
)


@settings(deadline=None, max_examples=100)
@given(tied, st.integers(1, 10), st.integers(1, 9), st.integers(0, 260))
def test_visiting_all_lists_finds_what_exact_search_finds(drawn, k, n_lists, radius):
    """Also with a few positions left out; exact search is not even asked."""
    codes, removed = drawn
    exact = ExactIndex(codes)
    index = ivf(codes, n_lists, n_lists, Unused(codes))
    mask = np.ones(len(codes), bool)
    mask[removed] = False
    for subset in (None, subsets.of_mask(mask)):
        for found, expected in zip(
            index.search(codes[:7], k, subset), exact.search(codes[:7], k, subset), strict=True
        ):
            assert_array_equal(found, expected)
            assert found.dtype == expected.dtype
        for found, expected in zip(
            index.search_radius(codes[0], radius, subset),
            exact.search_radius(codes[0], radius, subset),
            strict=True,
        ):
            assert_array_equal(found, expected)
            assert found.dtype == expected.dtype


@settings(deadline=None, max_examples=50)
@given(arrays(np.uint8, st.tuples(st.integers(1, 40), st.just(32))), st.integers(1, 60), st.data())
def test_a_query_has_as_many_answers_as_exact_search_gives(codes, k, data):
    """Any number of lists visited, k beyond the gallery, any subset; one row, all codes equal."""
    n_lists = data.draw(st.integers(1, len(codes)))
    index = ivf(codes, n_lists, data.draw(st.integers(1, n_lists)))
    subset = subsets.of_mask(data.draw(arrays(np.bool_, len(codes))))
    positions, distances = index.search(codes[:3], k, subset)
    assert positions.shape == distances.shape == (len(codes[:3]), k)
    found = positions != NO_POSITION
    assert (found.sum(axis=1) == min(k, subset.count)).all()
    assert (distances[~found] == NO_DISTANCE).all()
    assert subset.contains(positions[found]).all()


def test_only_the_visited_lists_are_compared(codes):
    """Against a loop over the lists whose centroids are nearest to a query."""
    centroids = train(codes, 20, seed=0)
    lists = assign(codes, centroids)
    assert_array_equal(lists, hamming_distances(codes, centroids).argmin(axis=1))
    index = IvfIndex(InvertedLists(codes, centroids, lists, 4), Unused(codes))
    for query in codes[::25]:
        to_lists = hamming_distances(query[np.newaxis], centroids)[0]
        visited = np.argsort(to_lists, kind="stable")[:4]
        candidates = np.flatnonzero(np.isin(lists, visited))
        far = hamming_distances(query[np.newaxis], codes[candidates])[0]
        expected = candidates[np.argsort(far, kind="stable")][:10]
        assert_array_equal(index.search(query[np.newaxis], 10)[0][0], expected)
        within = candidates[far <= 70]
        assert_array_equal(np.sort(index.search_radius(query, 70)[0]), within)


def test_single_queries_and_batches_have_the_same_answers_each_time(codes):
    index = ivf(codes, 16, 3)
    positions, distances = index.search(codes, 10)
    for row, query in enumerate(codes[::40]):
        for found, expected in zip(
            index.search(query[np.newaxis], 10), (positions, distances), strict=True
        ):
            assert_array_equal(found[0], expected[40 * row])
    assert index.search(codes[:0], 10)[0].shape == (0, 10)


def test_a_subset_that_leaves_out_much_is_searched_exactly(codes):
    index, exact = ivf(codes, 16, 1), ExactIndex(codes)
    third = subsets.of_mask(np.arange(len(codes)) % 3 == 0)
    for found, expected in zip(
        (*index.search(codes[:9], 12, third), *index.search_radius(codes[1], 90, third)),
        (*exact.search(codes[:9], 12, third), *exact.search_radius(codes[1], 90, third)),
        strict=True,
    ):
        assert_array_equal(found, expected)


def test_a_query_of_another_width_is_refused(codes):
    index = ivf(codes, 4, 1)
    with pytest.raises(CodeShapeError):
        index.search(codes[:1, :31], 1)
    with pytest.raises(CodeShapeError):
        index.search_radius(codes[0, :31], 1)


def test_training_is_deterministic_and_reports_progress(codes):
    seen = []
    with reported_to(lambda what, done, total: seen.append((what, done, total))):
        first = train(codes, 16, seed=3)
    assert ("training", 512, 512) in seen
    assert_array_equal(first, train(codes, 16, seed=3))
    assert (first != train(codes, 16, seed=4)).any()


def test_a_centroid_has_the_bits_that_most_of_its_codes_have(codes):
    """Training on all codes with one list needs no iteration: it is the majority of all."""
    (centroid,) = train(codes[:32], 1, seed=0)
    bits = np.unpackbits(codes[:32], axis=1)
    assert_array_equal(np.unpackbits(centroid), bits.mean(axis=0) > 0.5)


def test_recall_counts_neighbours_at_the_distance_of_the_exact_tenth(codes):
    """Against a loop, with one list visited, so that much is missed."""
    index = ivf(codes, 24, 1)
    positions = np.arange(0, len(codes), 20)
    held_out = HeldOut(positions, codes[positions], ExactIndex(codes))
    for position, recall in zip(positions, held_out.recall(index), strict=True):
        distances = np.bitwise_count(codes ^ codes[position]).sum(axis=1, dtype=int)
        tenth = np.sort(np.delete(distances, position))[9]
        found = index.search(codes[position][np.newaxis], 11)[0][0]
        others = [distances[one] for one in found if one != position][:10]
        assert recall == sum(distance <= tenth for distance in others) / 10
    assert held_out.recall(ExactIndex(codes)).tolist() == [1.0] * len(positions)


def test_recall_is_of_all_neighbours_where_there_are_fewer_than_ten(codes):
    few = codes[:4]
    held_out = HeldOut(np.arange(4), few, ExactIndex(few))
    assert held_out.recall(ExactIndex(few)).tolist() == [1.0] * 4


@pytest.mark.parametrize("wanted", [0.3, 0.9, 1.0])
def test_the_fewest_lists_with_the_wanted_recall_are_chosen(codes, wanted):
    index = ivf(codes, 24, 1)
    positions = np.arange(0, len(codes), 6)
    held_out = HeldOut(positions, codes[positions], ExactIndex(codes))

    def margin(nprobe: int) -> float:
        index.lists.nprobe = nprobe
        recall = held_out.recall(index)
        return recall.mean() - recall.std() / np.sqrt(len(recall)) - wanted

    chosen = choose_nprobe(index.lists, ExactIndex(codes), held_out, wanted)
    assert chosen == 24 or margin(chosen) >= 0
    assert chosen == 1 or margin(chosen - 1) < 0


def test_the_number_of_lists_grows_with_the_root_of_the_number_of_codes():
    assert [lists_for(n) for n in (1, 7, 100, 10**6, 10**7, 10**10)] == [
        1, 1, 8, 1024, 4096, 65535,
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("centroids", "lists", "nprobe"),
    [
        (np.zeros((2, 31), np.uint8), np.zeros(3, np.int32), 1),
        (np.zeros((2, 32), np.int8), np.zeros(3, np.int32), 1),
        (np.zeros(64, np.uint8), np.zeros(3, np.int32), 1),
        (np.array(7, np.uint8), np.zeros(3, np.int32), 1),
        (np.zeros((2, 32), np.uint8), np.zeros(4, np.int32), 1),
        (np.zeros((2, 32), np.uint8), np.full(3, 2, np.int32), 1),
        (np.zeros((2, 32), np.uint8), np.full(3, -2, np.int32), 1),
        (np.zeros((2, 32), np.uint8), np.zeros(3), 1),
        (np.zeros((2, 32), np.uint8), np.zeros(3, np.int32), 0),
        (np.zeros((2, 32), np.uint8), np.zeros(3, np.int32), 3),
    ],
)
def test_stored_lists_that_do_not_fit_are_refused(centroids, lists, nprobe):
    with pytest.raises(
        InvalidGallery, match="build it again: hashsearch gallery build G --kind ivf"
    ):
        require_lists(3, centroids, lists, nprobe)


def test_removed_images_do_not_end_the_search_by_lists():
    """A hundred of 5,000 positions are left out, among them the nearest."""
    rng = np.random.default_rng(0)
    codes = rng.integers(0, 256, (5000, 32), np.uint8)
    exact = ExactIndex(codes)
    centroids = train(codes, 8, seed=0)
    index = IvfIndex(InvertedLists(codes, centroids, assign(codes, centroids), 8), exact)
    nearest = exact.search(codes[:1], 60)[0][0]
    mask = np.ones(5000, bool)
    mask[nearest] = False
    mask[rng.choice(5000, 40)] = False
    subset = subsets.of_mask(mask)
    expected = exact.search(codes[:1], 20, subset)
    exact.search = None  # not asked
    for found, wanted in zip(index.search(codes[:1], 20, subset), expected, strict=True):
        assert_array_equal(found, wanted)
