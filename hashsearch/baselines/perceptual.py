"""Baselines in common use: perceptual hashes, computed by their own libraries.

Both are made for finding copies of a picture, and from more than 32×32 pixels. Here they
get the tiny image, like every method.
"""

import math
from collections.abc import Callable
from importlib import import_module
from types import ModuleType

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from hashsearch.codes import pack_bits
from hashsearch.errors import MissingPackage
from hashsearch.extras import missing

PDQ_BITS = 256


def phash(n_bits: int) -> Callable[[NDArray[np.uint8]], NDArray[np.uint8]]:
    """pHash: the lowest frequencies of a grey picture's cosine transform, above their median.

    n_bits: a square number. Returns a function from (n, 32, 32, 3) uint8 tiny images to
    (n, n_bits / 8) uint8 packed codes. Raises MissingPackage.
    Source: Zauner 2010; the package ImageHash.
    """
    library, side = _library("imagehash", "ImageHash"), math.isqrt(n_bits)
    assert side * side == n_bits, n_bits

    def hashes(tiny: NDArray[np.uint8]) -> NDArray[np.uint8]:
        bits = np.empty((len(tiny), n_bits), np.uint8)
        for row, image in zip(bits, tiny, strict=True):
            row[:] = library.phash(Image.fromarray(image), hash_size=side).hash.ravel()
        return pack_bits(bits)

    return hashes


def pdq() -> Callable[[NDArray[np.uint8]], NDArray[np.uint8]]:
    """PDQ, which Meta uses to find copies of pictures on its platforms.

    Returns a function from (n, 32, 32, 3) uint8 tiny images to (n, 32) uint8 packed codes.
    Raises MissingPackage. Source: Davis and Rosen 2019; the package pdqhash.
    """
    library = _library("pdqhash", "pdqhash")

    def hashes(tiny: NDArray[np.uint8]) -> NDArray[np.uint8]:
        bits = np.empty((len(tiny), PDQ_BITS), np.uint8)
        for row, image in zip(bits, tiny, strict=True):
            row[:], _ = library.compute(np.ascontiguousarray(image))
        return pack_bits(bits)

    return hashes


def _library(module: str, package: str) -> ModuleType:
    try:
        return import_module(module)
    except ImportError as error:
        raise MissingPackage(missing(package, "this method needs the package")) from error
