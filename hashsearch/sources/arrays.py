"""Images in one array, in NumPy's own file format."""

import math
import warnings
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.lib.format import open_memmap
from numpy.typing import NDArray

from hashsearch.errors import ImageTooLarge, InvalidSource
from hashsearch.imagefiles.plain import require_few_pixels
from hashsearch.images import TINY_BYTES, TINY_SIDE
from hashsearch.sources.base import SourceImage

NPY_MAGIC = b"\x93NUMPY"

_BLOCK_BYTES = 4 * 2**20  # mapped at a time
_COMPARED_ROWS = 256  # at least, of arrays that have so many
# Read pixel by pixel, neighbouring pixels differ so many times as much as read by planes: in rows
# of planes from 1.10 times (below 1.25 in 0.5% of them), in five such rows from 1.44 times; in
# rows of pixels up to 1.20 times, in five up to 0.79 times. Measured on 13,200 images of CIFAR-10
# and tinyimagenet32, and photographs.
_CLEARLY_ROUGHER = 1.25


class NpyArray:
    """The rows of a `.npy` file, without labels.

    The array is of uint8: (n, height, width, 3) RGB, (n, height, width) grey, or (n, 3072),
    which is 32×32 RGB. Such rows are read pixel by pixel, or as planes of red, green and blue if
    neighbouring pixels are clearly more alike that way; `remarks` then says so.
    """

    def __init__(self, root: Path):
        self.root = root.resolve()
        self.passed_over: Counter[str] = Counter()
        self.is_whole = True
        self.is_folder = False
        self.remarks: list[str] = []

    def estimate(self) -> int | None:
        try:
            return len(_open_array(self.root))
        except InvalidSource:  # iterating raises it again
            return None

    def __iter__(self) -> Iterator[SourceImage]:
        self.remarks.clear()
        mtime = self.root.stat().st_mtime_ns
        array = _open_array(self.root)
        row_bytes = math.prod(array.shape[1:])  # np.prod wraps at 64 bits
        if refused := _why_not_read(array):
            for row in range(len(array)):
                yield SourceImage(f"#{row}", None, row_bytes, mtime, refused)
            return
        planes = array.ndim == 2 and _are_planes(_map_again(self.root, array))
        if planes:
            self.remarks.append(
                "its rows are read as planes of red, green and blue, as CIFAR's are, since that "
                "makes smoother pictures than pixel by pixel; an array (n, 32, 32, 3) is never "
                "read so"
            )
        step = max(1, _BLOCK_BYTES // row_bytes)
        for start in range(0, len(array), step):
            block = np.ascontiguousarray(_map_again(self.root, array)[start : start + step])
            for row, image in enumerate(_as_rgb(block, planes), start):
                yield SourceImage(f"#{row}", None, row_bytes, mtime, image)


def _open_array(path: Path) -> "np.memmap[tuple[int, ...], np.dtype[np.uint8]]":
    """Map an array of images. Raises InvalidSource if it is of another kind, or damaged."""
    try:
        with warnings.catch_warnings(
            action="ignore", category=UserWarning
        ):  # about files of Python 2
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
    if array.ndim == 3 and array.shape[2] in (3, 4):
        raise InvalidSource(
            f"{path} is one image, an array of uint8 {array.shape}; many were wanted, "
            "(n, height, width, 3)"
        )
    return array


def _why_not_read(array: NDArray[np.uint8]) -> ImageTooLarge | None:
    if array.ndim == 2:
        return None
    try:
        require_few_pixels(array.shape[2], array.shape[1])
    except ImageTooLarge as error:
        return error
    return None


def _map_again(
    path: Path, array: "np.memmap[tuple[int, ...], np.dtype[np.uint8]]"
) -> NDArray[np.uint8]:
    """Map the same array again, which releases the memory of the pages that were read."""
    order: Literal["C", "F"] = "C" if array.flags.c_contiguous else "F"
    mapped = np.memmap(path, np.uint8, "r", array.offset, array.shape, order)
    return mapped.view(np.ndarray)  # slices of a memmap cost microseconds each


def _are_planes(rows: NDArray[np.uint8]) -> bool:
    """Whether (n, 3072) rows are clearly smoother as planes of colours than pixel by pixel."""
    some = np.ascontiguousarray(rows[:: max(1, len(rows) // _COMPARED_ROWS)])
    by_pixel, by_plane = _by_pixel(some), _by_plane(some)
    for images, planes in ((by_pixel, False), (by_plane, True)):
        if (images == images[..., :1]).all():  # grey, which chance makes of no other layout
            return planes
    return _roughness(by_pixel) > _CLEARLY_ROUGHER * _roughness(by_plane)


def _roughness(images: NDArray[np.uint8]) -> float:
    """Mean absolute difference of neighbouring pixels in a channel, of (n, h, w, 3) images."""
    levels = images.astype(np.int16)
    return sum(float(np.abs(np.diff(levels, axis=axis)).mean()) for axis in (1, 2))


def _by_pixel(rows: NDArray[np.uint8]) -> NDArray[np.uint8]:
    return rows.reshape(-1, TINY_SIDE, TINY_SIDE, 3)


def _by_plane(rows: NDArray[np.uint8]) -> NDArray[np.uint8]:
    return rows.reshape(-1, 3, TINY_SIDE, TINY_SIDE).transpose(0, 2, 3, 1)


def _as_rgb(block: NDArray[np.uint8], planes: bool) -> NDArray[np.uint8]:
    """View images as (n, height, width, 3); planes of colours are copied."""
    if block.ndim == 2:
        return np.ascontiguousarray(_by_plane(block)) if planes else _by_pixel(block)
    if block.ndim == 3:
        return np.broadcast_to(block[..., None], (*block.shape, 3))
    return block
