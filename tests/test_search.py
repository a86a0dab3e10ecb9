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
from hashsearch.search import subset as subsets
from hashsearch.search.exact import ExactIndex
from hashsearch.search.normalized import CONTRAST, NormalizedIndex
from hashsearch.search.pixels import PixelIndex


def ranked(distances: list[int], subset: np.ndarray | None = None) -> list[tuple[int, int]]:
    """(distance, position) pairs, nearest first, ties by position: the law both indexes obey."""
    pairs = sorted((distance, position) for position, distance in enumerate(distances))
    return [pair for pair in pairs if subset is None or subset[pair[1]]]


def hamming_loop(query: np.ndarray, codes: np.ndarray) -> list[int]:
    return [
        sum((int(a) ^ int(b)).bit_count() for a, b in zip(query, code, strict=True))
        for code in codes
    ]


def pairs(positions: np.ndarray, distances: np.ndarray) -> list[tuple[int, int]]:
    return list(zip(distances.tolist(), positions.tolist(), strict=True))


def check(index, query: np.ndarray, k: int, radius: int, slow: list[int], subset) -> None:
    """Compare both kinds of search with the slow loop's distances. subset: a mask, or None."""
    expected = ranked(slow, subset)
    subset = None if subset is None else subsets.of_mask(subset)
    positions, distances = index.search(query[np.newaxis], k, subset)
    assert positions.shape == distances.shape == (1, k)
    assert (positions.dtype, distances.dtype) == (np.int64, np.int32)
    found = min(k, len(expected))
    assert pairs(positions[0, :found], distances[0, :found]) == expected[:found]
    assert (positions[0, found:] == NO_POSITION).all()
    assert (distances[0, found:] == NO_DISTANCE).all()
    within = [pair for pair in expected if pair[0] <= radius]
    assert pairs(*index.search_radius(query, radius, subset)) == within


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
    codes, subset = drawn
    index = ExactIndex(codes, slices=slices)
    check(index, codes[0], k, radius, hamming_loop(codes[0], codes), subset)


def test_exact_search_on_real_codes_is_the_slow_loop(model_folder, tiny_images):
    codes = Encoder.load(model_folder).encode(tiny_images)
    index = ExactIndex(codes)
    positions, distances = index.search(codes[:20], 25)
    for row, query in enumerate(codes[:20]):
        expected = ranked(hamming_loop(query, codes))
        assert pairs(positions[row], distances[row]) == expected[:25]
        every_third = np.arange(len(codes)) % 3 == row % 3
        check(index, query, 25, expected[40][0], hamming_loop(query, codes), every_third)


@settings(deadline=None, max_examples=100)
@given(st.data())
def test_exact_search_of_any_subset_is_the_slow_loop(data):
    """Few positions, all but few and all but many are searched in different ways."""
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32 - 1)))
    codes = rng.choice(np.array([0, 1, 255], np.uint8), (data.draw(st.integers(80, 400)), 32))
    codes[:, 2:] = 0
    chosen = data.draw(st.sampled_from([0, 1, 3, len(codes) // 2, len(codes) - 3, len(codes)]))
    mask = np.zeros(len(codes), bool)
    mask[rng.choice(len(codes), chosen, replace=False)] = True
    index = ExactIndex(codes, slices=data.draw(st.integers(1, 3)))
    query = codes[data.draw(st.integers(0, 79))]
    check(index, query, data.draw(st.integers(1, 90)), 9, hamming_loop(query, codes), mask)


@settings(deadline=None, max_examples=50)
@given(tied_codes, st.lists(st.integers(-3, 3), min_size=1, max_size=4), st.integers(1, 50))
def test_combined_search_ranks_by_the_weighted_sum_of_distances(drawn, weights, k):
    codes, mask = drawn
    queries = codes[np.arange(len(weights)) % len(codes)]
    each = [hamming_loop(query, codes) for query in queries]
    sums = [sum(w * d for w, d in zip(weights, of, strict=True)) for of in zip(*each, strict=True)]
    subset = None if mask is None else subsets.of_mask(mask)
    found = ExactIndex(codes).search_combined(queries, np.array(weights, np.int32), k, subset)
    assert_combined(found, ranked(sums, mask)[:k])


def assert_combined(found, expected: list[tuple[int, int]]) -> None:
    """Check a combined search's answer. expected: (sum, position) pairs; nothing is padded."""
    assert [of.dtype for of in found] == [np.int64, np.int64]
    assert pairs(*found) == expected


def test_combined_sums_of_codes_fit_beyond_32_bits():
    """The three codes lie 256, 8 and 0 bits from each of the two examples."""
    codes = np.zeros((3, 32), np.uint8)
    codes[0], codes[1, 0] = 255, 255
    zeros = np.zeros((2, 32), np.uint8)
    for weight in (10**7, -(10**7)):
        found = ExactIndex(codes).search_combined(zeros, np.full(2, weight, np.int32), 5)
        assert_combined(found, ranked([512 * weight, 16 * weight, 0]))


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
    for subset in (None, rows % 4 == 1, rows < 0):
        for k in (12, 1000):
            check(index, pixels[5], k, ranked(slow)[30][0], slow, subset)


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
    for subset in (None, rng.random(1000) < 0.3):
        check(PixelIndex(blocks), pixels[3], 40, ranked(slow)[60][0], slow, subset)


def test_pixel_search_tells_distances_apart_that_float32_does_not():
    """Large distances that differ by one, more of them than are found at once."""
    rng = np.random.default_rng(1)
    pixels = np.full((5000, 3072), 255, np.uint8)
    pixels[:, 0] = 251 + rng.integers(0, 5, 5000)
    query = np.zeros(3072, np.uint8)
    rows = np.arange(5000)
    slow = (pixels.astype(np.int64) ** 2).sum(axis=1).tolist()
    index = PixelIndex([Block(pixels, rows, rows)])
    for mask in (None, rows % 3 > 0, rows % 50 == 0):
        check(index, query, 20, sorted(slow)[500], slow, mask)
        check(index, query, 5000, 0, slow, mask)


def normalized_loop(query: np.ndarray, images: np.ndarray) -> list[int]:
    def brought(image):
        values = image.astype(np.longdouble)
        return (values - values.mean()) * CONTRAST / max(values.std(), 1)

    ours = brought(query)
    return [int(np.rint(np.square(ours - brought(image)).sum())) for image in images]


def test_normalized_search_is_the_slow_loop(pixels):
    images = np.concatenate([pixels, np.full((1, 3072), 9, np.uint8), pixels[:5] // 2])
    rows = np.arange(len(images))
    index = NormalizedIndex([Block(images, rows, rows)])
    for query in (images[5], images[-6], np.arange(3072).astype(np.uint8)):
        slow = normalized_loop(query, images)
        for mask in (None, rows % 4 == 1, rows < 0):
            check(index, query, 12, ranked(slow)[30][0], slow, mask)
    fainter = (images[7] // 2 + 60)[np.newaxis]  # nearly the same picture to this index
    assert index.search(fainter, 1)[0][0, 0] == 7
    check(NormalizedIndex([]), images[0], 5, 10**9, [], None)


@pytest.mark.parametrize("weights", [(1, 1, -1), (-1, -1, -1), (1, -1, 0), (3, 2, 1)])
@pytest.mark.parametrize(
    ("index", "loop"), [(PixelIndex, squared_loop), (NormalizedIndex, normalized_loop)]
)
def test_combined_search_of_pixels_is_the_slow_loop(pixels, index, loop, weights):
    rows = np.arange(len(pixels))
    weights = np.array(weights, np.int32)
    each = [loop(query, pixels) for query in pixels[:3]]
    sums = [
        sum(w * d for w, d in zip(weights.tolist(), of, strict=True))
        for of in zip(*each, strict=True)
    ]
    built = index([Block(pixels, rows, rows)])
    for mask in (None, rows % 5 == 0, rows < 0):
        subset = None if mask is None else subsets.of_mask(mask)
        for k in (30, 1000):
            found = built.search_combined(pixels[:3], weights, k, subset)
            assert_combined(found, ranked(sums, mask)[:k])


@pytest.mark.parametrize("n_examples", [11, 200])
@pytest.mark.parametrize("weight", [1, -1])
def test_combined_sums_of_pixels_fit_beyond_32_bits(n_examples, weight):
    """Black lies 3072 × 255² from each white example; 11 times that is more than 2³¹."""
    images = np.repeat(np.array([[0], [255], [254]], np.uint8), 3072, axis=1)
    rows = np.arange(3)
    index = PixelIndex([Block(images, rows, rows)])
    white = np.full((n_examples, 3072), 255, np.uint8)
    found = index.search_combined(white, np.full(n_examples, weight, np.int32), 5)
    times = 3072 * n_examples * weight
    assert_combined(found, ranked([times * 255**2, 0, times]))


@pytest.mark.parametrize("weight", [1, -1])
def test_combined_sums_of_normalized_pixels_fit_beyond_32_bits(weight):
    """Stripes lie 128 grey levels from their negative in every value, and 64 from plain grey."""
    stripes = np.tile(np.array([0, 255], np.uint8), 1536)
    images = np.stack([stripes, 255 - stripes, np.full(3072, 9, np.uint8)])
    rows = np.arange(3)
    index = NormalizedIndex([Block(images, rows, rows)])
    examples = np.repeat(images[1:2], 100, axis=0)
    found = index.search_combined(examples, np.full(100, weight, np.int32), 5)
    times = 3072 * 100 * weight
    assert_combined(found, ranked([times * 128**2, 0, times * 64**2]))


def test_the_largest_distance_fits():
    black, white = np.zeros((1, 3072), np.uint8), np.full((1, 3072), 255, np.uint8)
    index = PixelIndex([Block(black, np.array([0]), np.array([0]))])
    assert index.search(white, 1)[1].tolist() == [[3072 * 255**2]]


def test_an_empty_pixel_index_finds_nothing():
    check(PixelIndex([]), np.zeros(3072, np.uint8), 5, 10**9, [], None)


@settings(deadline=None, max_examples=100)
@given(tied_codes, st.integers(1, 3), st.sampled_from([None, 1, 3]))
def test_distances_are_counted_as_a_slow_loop_counts_them(codes_and_subset, queries, slices):
    codes, mask = codes_and_subset
    loops = [hamming_loop(query, codes) for query in codes[:queries]]
    least = [min(each) for each in zip(*loops, strict=True)]
    chosen = [one for at, one in enumerate(least) if mask is None or mask[at]]
    subset = None if mask is None else subsets.of_mask(mask)
    counts = ExactIndex(codes, slices).distance_counts(codes[:queries], subset)
    assert (counts.shape, counts.dtype) == ((257,), np.int64)
    assert counts.tolist() == [chosen.count(distance) for distance in range(257)]


def test_distances_are_counted_over_several_blocks_and_slices():
    many = np.random.default_rng(0).integers(0, 256, (3 * 2**16 + 5, 32), np.uint8)
    expected = np.bitwise_count(many ^ many[0]).sum(axis=1)
    rows = np.random.default_rng(0).permutation(len(many))
    for few in (rows[:1000], rows[:100_000], None):
        subset = None if few is None else subsets.of_positions(np.sort(few), len(many))
        chosen = expected if few is None else expected[few]
        counts = ExactIndex(many).distance_counts(many[:1], subset)
        assert_array_equal(counts, [(chosen == distance).sum() for distance in range(257)])


def test_a_count_of_distances_refuses_codes_of_another_width():
    with pytest.raises(CodeShapeError):
        ExactIndex(np.zeros((5, 32), np.uint8)).distance_counts(np.zeros((1, 31), np.uint8))
