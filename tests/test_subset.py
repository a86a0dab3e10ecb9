"""Sets of positions, against Python's own sets."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.testing import assert_array_equal

from hashsearch.search.subset import common, of_mask, of_packed, of_positions, whole


@st.composite
def masks(draw):
    """Of few positions, which are held as a list, and of many."""
    size = draw(st.integers(0, 200))
    mask = np.zeros(size, bool)
    for position in draw(st.sets(st.integers(0, 199), max_size=8)):
        mask[position % size if size else 0 :][:1] = True
    return mask if draw(st.booleans()) else ~mask


def members(subset) -> set[int]:
    listed = subset.listed().tolist()
    assert listed == sorted(set(listed))
    assert subset.count == len(listed)
    every = np.arange(subset.size)
    assert_array_equal(subset.contains(every), subset.mask())
    assert_array_equal(every[subset.mask()], subset.listed())
    return set(listed)


@given(masks())
def test_a_subset_holds_the_positions_it_was_made_of(mask):
    wanted = set(np.flatnonzero(mask).tolist())
    assert members(of_mask(mask)) == wanted
    assert members(of_positions(np.flatnonzero(mask), len(mask))) == wanted
    assert members(whole(len(mask))) == set(range(len(mask)))


@given(masks(), st.integers(0, 210), st.integers(1, 40))
def test_the_first_positions_are_those_from_a_start_on(mask, start, most):
    wanted = [one for one in np.flatnonzero(mask).tolist() if one >= start][:most]
    for subset in (of_mask(mask), of_positions(np.flatnonzero(mask), len(mask))):
        assert subset.first(start, most).tolist() == wanted


@given(st.data())
def test_common_is_the_intersection(data):
    first = data.draw(masks())
    second = data.draw(arrays(bool, first.shape))
    both = common(of_mask(first), of_mask(second))
    assert members(both) == set(np.flatnonzero(first & second).tolist())
    assert members(common(None, of_mask(first))) == set(np.flatnonzero(first).tolist())
    assert common(None, None) is None


@given(st.data())
def test_changed_puts_in_and_takes_out(data):
    mask = data.draw(masks())
    positions = np.flatnonzero(data.draw(arrays(bool, mask.shape)))
    put_in = data.draw(arrays(bool, positions.shape))
    before = of_mask(mask)
    after = before.changed(positions, put_in)
    mask_after = mask.copy()
    mask_after[positions] = put_in
    assert members(after) == set(np.flatnonzero(mask_after).tolist())
    assert members(before) == set(np.flatnonzero(mask).tolist())  # the former set stays


@given(masks(), st.integers(0, 25), st.integers(0, 200))
def test_a_range_of_a_subset_holds_its_members_from_zero(mask, eighth, length):
    start = min(8 * eighth, len(mask) // 8 * 8)
    end = min(start + length, len(mask))
    for subset in (of_mask(mask), of_positions(np.flatnonzero(mask), len(mask))):
        part = subset.within(start, end)
        assert part.size == end - start
        assert members(part) == set(np.flatnonzero(mask[start:end]).tolist())


@given(masks(), st.booleans())
def test_a_packed_subset_is_the_same_again_and_takes_few_bytes(mask, is_large):
    if is_large:  # few members, or few that it lacks, in a large set
        mask = np.concatenate([mask, np.full(8000, mask[:1].any())])
    packed = of_mask(mask).packed()
    again = of_packed(packed)
    assert (again.size, members(again)) == (len(mask), members(of_mask(mask)))
    assert packed[2].nbytes <= (len(mask) + 7) // 8
    if is_large:
        assert packed[2].nbytes <= 4 * min(mask.sum(), (~mask).sum())
