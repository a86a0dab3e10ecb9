"""Which part of a picture decides its code, by a slow loop."""

import numpy as np
from numpy.testing import assert_array_equal

import hashsearch as hs
from hashsearch.retrieval.occlusion import N_MASKED, changed_bits, masked, occlusion_map


def test_each_copy_has_one_window_of_the_mean_colour(tiny_images):
    tiny = tiny_images[5]
    mean = [round(float(tiny[..., channel].mean())) for channel in range(3)]
    copies = masked(tiny)
    assert copies.shape == (N_MASKED, 32, 32, 3) == (49, 32, 32, 3)
    for number, copy in enumerate(copies):
        top, left = 4 * (number // 7), 4 * (number % 7)
        expected = tiny.copy()
        expected[top : top + 8, left : left + 8] = mean
        assert_array_equal(copy, expected)


def test_the_map_is_the_mean_of_the_windows_that_cover_a_pixel(tiny_images):
    tiny = tiny_images[5]
    code, *codes = hs.encode(np.stack([tiny, *masked(tiny)]))
    changed = changed_bits(code, np.stack(codes))
    assert changed.shape == (7, 7)
    number = int.from_bytes(code.tobytes())
    loop = [(number ^ int.from_bytes(one.tobytes())).bit_count() for one in codes]
    assert changed.ravel().tolist() == loop
    assert changed.max() > changed.min()
    means = np.zeros((32, 32))
    for y in range(32):
        for x in range(32):
            covering = [
                changed[row, column]
                for row in range(7)
                for column in range(7)
                if 4 * row <= y < 4 * row + 8 and 4 * column <= x < 4 * column + 8
            ]
            means[y, x] = sum(covering) / len(covering)
    picture = occlusion_map(changed)
    assert (picture.dtype, picture.max()) == (np.uint8, 255)
    assert_array_equal(picture, np.rint(means * 255 / means.max()))


def test_a_picture_of_one_colour_has_a_black_map():
    tiny = np.full((32, 32, 3), 77, np.uint8)
    code = np.zeros(32, np.uint8)
    assert (masked(tiny) == tiny).all()
    assert not occlusion_map(changed_bits(code, np.zeros((N_MASKED, 32), np.uint8))).any()
