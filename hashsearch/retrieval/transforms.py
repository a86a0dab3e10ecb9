"""Views of a query: an image is found if it is near to any of them."""

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from hashsearch.images import TINY_SIDE

# Chosen on held-out images (docs/experiments.md, "Which transforms help").
_SHIFTS = ((-2, 0), (2, 0), (0, -2), (0, 2))  # pixels to the right and down
_SIDES = (28, 36)  # of the central squares that are resized; 36 px reach beyond the image
_EDGE = (max(_SIDES) - TINY_SIDE) // 2
N_VIEWS = 2 * (1 + len(_SHIFTS) + len(_SIDES))


def views(tiny: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """The image, small shifts of it, its centre, and it with a margin; each with its mirror image.

    tiny: (32, 32, 3) uint8. Returns (N_VIEWS, 32, 32, 3) uint8: the image itself, its mirror
    image, then the others. The pixels of the edge are repeated beyond it.
    """
    framed = np.pad(tiny, ((_EDGE, _EDGE), (_EDGE, _EDGE), (0, 0)), "edge")
    found = [tiny]
    for right, down in _SHIFTS:
        top, left = _EDGE - down, _EDGE - right
        found.append(framed[top : top + TINY_SIDE, left : left + TINY_SIDE])
    picture = Image.fromarray(framed)
    for side in _SIDES:
        start = (len(framed) - side) // 2
        box = (start, start, start + side, start + side)
        square = picture.resize((TINY_SIDE, TINY_SIDE), Image.Resampling.BICUBIC, box)
        found.append(np.asarray(square))
    return np.stack([side for view in found for side in (view, view[:, ::-1])])


def by_least_distance(
    positions: NDArray[np.int64], distances: NDArray[np.int32]
) -> tuple[NDArray[np.int64], NDArray[np.int32]]:
    """Rank what was found for the views of a query by the least distance to any of them.

    positions, distances: (n_found,), in any order; a position may be in them several times.
    Returns each position once, with its least distance: nearest first, equal distances in order
    of position.
    """
    order = np.lexsort((positions, distances))
    positions, distances = positions[order], distances[order]
    first = np.sort(np.unique(positions, return_index=True)[1])
    return positions[first], distances[first]
