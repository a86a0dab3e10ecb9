"""Which part of a picture decides its code: the code's bits that change when a part is hidden.

Source: Zeiler and Fergus 2014, "Visualizing and Understanding Convolutional Networks", section
4.2. They hide parts behind a grey square and watch a classifier's output; here it is the code.
"""

import numpy as np
from numpy.typing import NDArray

from hashsearch.images import TINY_SIDE

WINDOW, STRIDE = 8, 4  # pixels
_STARTS = range(0, TINY_SIDE - WINDOW + 1, STRIDE)
PLACES = len(_STARTS)  # of the window in each direction
N_MASKED = PLACES**2


def masked(tiny: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Copies of an image, in each of which a window is filled with the image's mean colour.

    tiny: (32, 32, 3) uint8. Returns (N_MASKED, 32, 32, 3) uint8: window after window from the
    left to the right, row after row from the top.
    """
    copies = np.repeat(tiny[np.newaxis], N_MASKED, axis=0)
    mean = tiny.mean(axis=(0, 1)).round().astype(np.uint8)
    for number, (top, left) in enumerate((top, left) for top in _STARTS for left in _STARTS):
        copies[number, top : top + WINDOW, left : left + WINDOW] = mean
    return copies


def changed_bits(code: NDArray[np.uint8], codes: NDArray[np.uint8]) -> NDArray[np.int64]:
    """The number of bits that each window changes, (PLACES, PLACES) int64.

    code: (32,) uint8, the image's. codes: (N_MASKED, 32) uint8, of its masked copies.
    """
    return np.bitwise_count(codes ^ code).sum(axis=1, dtype=np.int64).reshape(PLACES, PLACES)


def occlusion_map(changed: NDArray[np.int64]) -> NDArray[np.uint8]:
    """A grey picture of `changed_bits`, (32, 32) uint8.

    A pixel's value is the mean of the windows that cover it, scaled so that the largest is 255; if
    no window changes a bit, all are 0.
    """
    sums, windows = np.zeros((2, TINY_SIDE, TINY_SIDE))
    for row, top in enumerate(_STARTS):
        for column, left in enumerate(_STARTS):
            part = slice(top, top + WINDOW), slice(left, left + WINDOW)
            sums[part] += changed[row, column]
            windows[part] += 1
    means = sums / windows
    return (means * (255 / max(means.max(), 1e-9))).round().astype(np.uint8)
