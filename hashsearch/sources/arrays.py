"""Images in one array, in NumPy's own file format."""

from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.lib.format import open_memmap
from numpy.typing import NDArray

from hashsearch.errors import InvalidSource
from hashsearch.images import TINY_BYTES, TINY_SIDE
from hashsearch.sources.base import SourceImage

NPY_MAGIC = b"\x93NUMPY"

_BLOCK_BYTES = 4 * 2**20  # mapped at a time


class NpyArray:
    """The rows of a `.npy` file, none of them with a label.

    The array is of uint8: (n, height, width, 3) RGB, (n, height, width) grey, or
    (n, 3072), which is 32×32 RGB row by row.
    """

    def __init__(self, root: Path):
        self.root = root.resolve()
        self.passed_over: Counter[str] = Counter()

    def estimate(self) -> int | None:
        try:
            return len(_open_array(self.root))
        except InvalidSource:  # which iterating tells
            return None

    def __iter__(self) -> Iterator[SourceImage]:
        mtime = self.root.stat().st_mtime_ns
        shape = _open_array(self.root).shape
        row_bytes = int(np.prod(shape[1:]))
        step = max(1, _BLOCK_BYTES // row_bytes)
        for start in range(0, shape[0], step):
            # Mapped anew, a block at a time: pages that were read do not stay with the process.
            block = np.ascontiguousarray(_open_array(self.root)[start : start + step])
            for row, image in enumerate(_as_rgb(block), start):
                yield SourceImage(f"#{row}", None, row_bytes, mtime, image)


def _open_array(path: Path) -> NDArray[np.uint8]:
    """Map an array of images. Raises InvalidSource if it is of another kind, or damaged."""
    try:
        array = open_memmap(path, mode="r")
    except OSError:
        raise
    except Exception as error:  # a header from outside can raise anything
        raise InvalidSource(f"{path} is no array of NumPy's, or a damaged one: {error}") from error
    kinds = {4: array.shape[3:] == (3,), 3: True, 2: array.shape[1:] == (TINY_BYTES,)}
    if array.dtype != np.uint8 or not kinds.get(array.ndim) or 0 in array.shape[1:]:
        raise InvalidSource(
            f"{path} is an array of {array.dtype} {array.shape}; images of uint8 were wanted, "
            "(n, height, width, 3), (n, height, width) or (n, 3072)"
        )
    return array.view(np.ndarray)  # slices of a memmap cost microseconds each


def _as_rgb(block: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """(n, height, width, 3), without a copy."""
    if block.ndim == 2:
        return block.reshape(-1, TINY_SIDE, TINY_SIDE, 3)
    if block.ndim == 3:
        return np.broadcast_to(block[..., None], (*block.shape, 3))
    return block
