"""The rows that are searched: codes of real images, and more rows made from them.

One million rows are codes and addresses of views: each image as it is, then augmented copies of
it. They are kept in the user's cache in parts, so that an interrupted run goes on. A larger set
repeats these rows, each changed by measured flips: the bits in which two views of an image
differ.
"""

import os
from collections import deque
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from benchmarks.million import augmented
from hashsearch.codes import CODE_BYTES
from hashsearch.durable import sync_folder
from hashsearch.encoder import Encoder
from hashsearch.evaluation.robustness import CHANGES
from hashsearch.hardware import usable_cores
from hashsearch.jobs.index.encoding import EncodingPool
from hashsearch.models.card import PRETRAINED, read_card
from hashsearch.sources import DataFolders, open_source
from hashsearch.sources.loading import load_tiny_images

SOURCES = ("cifar10:train", "tinyimagenet32", "cifar100")
IMAGES = 188_000  # that many images of these sources have views in the gallery
HELD_OUT = "cifar10:test"  # the gallery has no view of its images
MILLION = 1_000_000
QUERIES = 1024  # of each kind
_PART = 20_000  # rows of a part, encoded in half a minute or less
_AT_ONCE = 500  # images that a thread encodes before it takes more
_FORMAT = "views-1"  # changes if other views are made


class Rows(NamedTuple):
    """Rows of a gallery. codes: (n, 32) uint8. addresses: (n, 4) uint8."""

    codes: NDArray[np.uint8]
    addresses: NDArray[np.uint8]


class RealRows(NamedTuple):
    """What was encoded from real images.

    gallery: one million rows; row i is a view of image i % 188,000, and the first 188,000 are the
    images as they are. held_out: queries of which the gallery has no view. copies: queries that
    are JPEG copies of images in the gallery.
    """

    gallery: Rows
    held_out: Rows
    copies: Rows


def gallery_images(folders: DataFolders) -> NDArray[np.uint8]:
    """The images whose views are the gallery, (188,000, 32, 32, 3) uint8."""
    images = np.concatenate([load_tiny_images(open_source(name, folders)) for name in SOURCES])
    if len(images) < IMAGES:
        raise SystemExit(f"{', '.join(SOURCES)} have {len(images):,} images; {IMAGES:,} are needed")
    return images[:IMAGES]


def held_out_images(folders: DataFolders) -> NDArray[np.uint8]:
    """Images that are queries, (1,024, 32, 32, 3) uint8."""
    images = load_tiny_images(open_source(HELD_OUT, folders))
    return images[np.random.default_rng(0).permutation(len(images))[:QUERIES]]


def real_rows(folders: DataFolders, say: Callable[[str], None]) -> RealRows:
    """Read what earlier runs kept, and encode what is missing (a quarter of an hour for all)."""
    kept = folders.cache / "benchmarks" / f"{_FORMAT}-{read_card(PRETRAINED).fingerprint[:12]}"
    kept.mkdir(parents=True, exist_ok=True)
    images = cache(lambda: gallery_images(folders))
    with EncodingPool(lambda: Encoder.load(PRETRAINED), usable_cores()) as pool:

        def part(name: str, views: Callable[[], NDArray[np.uint8]]) -> Rows:
            path = kept / f"{name}.npy"
            if not path.exists():
                _write(path, _encoded(pool, views()))
                say(f"encoded {path}")
            return Rows(*np.split(np.load(path, allow_pickle=False), [CODE_BYTES], axis=1))

        def rows(start: int) -> Rows:
            numbers = np.arange(start, min(start + _PART, MILLION))
            return part(f"rows-{start}", lambda: _views(images(), numbers))

        held_out = part("held-out", lambda: held_out_images(folders))
        copies = part("copies", lambda: _copies(images()))
        parts = [rows(start) for start in range(0, MILLION, _PART)]
    gallery = Rows(*(np.concatenate(column) for column in zip(*parts, strict=True)))
    return RealRows(gallery, held_out, copies)


def _views(images: NDArray[np.uint8], numbers: NDArray[np.int64]) -> NDArray[np.uint8]:
    """The views of these numbers, (n, 32, 32, 3) uint8; the first ones are the images."""
    chosen = images[numbers % IMAGES]
    return np.where((numbers < IMAGES)[:, None, None, None], chosen, augmented(chosen, numbers))


def _copies(images: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Copies of random images, compressed once more: (1,024, 32, 32, 3) uint8."""
    drawn = images[np.random.default_rng(1).choice(IMAGES, QUERIES, replace=False)]
    compressed = CHANGES["JPEG, quality 60"]
    return np.stack([np.asarray(compressed(Image.fromarray(image))) for image in drawn])


def _encoded(pool: EncodingPool, images: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Codes, then addresses, of images: (n, 36) uint8."""
    waiting = deque(
        pool.submit(images[start : start + _AT_ONCE]) for start in range(0, len(images), _AT_ONCE)
    )
    found = (future.result() for future in waiting)
    return np.concatenate(
        [np.concatenate([each["codes"], each["addresses"]], axis=1) for each in found]
    )


def _write(path: Path, values: NDArray[np.uint8]) -> None:
    """Write an array whole or not at all; another process may write the same one."""
    unfinished = path.with_name(f"{path.name}.{os.getpid()}")
    with unfinished.open("wb") as file:
        np.save(file, values, allow_pickle=False)
        file.flush()
        os.fsync(file.fileno())
    unfinished.replace(path)
    sync_folder(path.parent)


def more_rows(gallery: Rows, size: int) -> Rows:
    """The gallery's rows, repeated until there are `size`, each repetition with flips of its own.

    A flip is what two views of a random image differ in: all bits of code and address at once.
    Returns the gallery itself if it has so many rows.
    """
    if size <= len(gallery.codes):
        return Rows(gallery.codes[:size], gallery.addresses[:size])
    made = Rows(*(np.empty((size, column.shape[1]), np.uint8) for column in gallery))
    views = len(gallery.codes) // IMAGES
    for start in range(0, size, len(gallery.codes)):
        end = min(start + len(gallery.codes), size)
        random = np.random.default_rng(start)
        image = random.integers(0, IMAGES, end - start)
        first = random.integers(0, views, end - start)
        second = (first + random.integers(1, views, end - start)) % views
        for column, rows in zip(made, gallery, strict=True):
            column[start:end] = rows[: end - start]
            if start:
                flips = rows[first * IMAGES + image] ^ rows[second * IMAGES + image]
                column[start:end] ^= flips
    return made
