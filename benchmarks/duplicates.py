"""Measure how fast `hashsearch gallery duplicates` is.

    python -m benchmarks.duplicates [--rows N] [--codes FILE.npy …] [--radius R …]

A gallery of codes alone is made, and whole commands on it are timed. The codes are those of all
images of CIFAR-10, or what --codes names, (n, 32) uint8 each. If more rows are wanted, the others
are copies of them with random bits flipped, as many as differ between a photograph and its
recompressed and resized copies: of 200 photographs in HASHSEARCH_DATA, each saved as JPEG in
qualities 90, 75 and 50, and at half the width and height.
"""

import argparse
import io
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

import hashsearch
from hashsearch.gallery.changes import Changes
from hashsearch.gallery.gallery_folder import GalleryFolder
from hashsearch.gallery.records import NewImage
from hashsearch.gallery.shards import MAX_ROWS
from hashsearch.hardware import describe
from hashsearch.models.card import PRETRAINED
from hashsearch.sources import DataFolders, open_source
from hashsearch.sources.loading import load_tiny_images


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int)
    parser.add_argument("--codes", type=Path, nargs="+")
    parser.add_argument("--radius", type=int, nargs="+", default=[0, 12, 16])
    options = parser.parse_args()
    print(describe("cpu"), flush=True)
    codes = real_codes(options.codes)
    if options.rows is not None:
        codes = with_copies(codes, options.rows)
    with tempfile.TemporaryDirectory(prefix="hashsearch-duplicates-") as folder:
        gallery = Path(folder) / "gallery"
        fill(gallery, codes)
        for radius in options.radius:
            measure(gallery, radius)


def real_codes(files: list[Path] | None) -> NDArray[np.uint8]:
    if files:
        return np.concatenate([np.load(path, allow_pickle=False) for path in files])
    folders = DataFolders.of_environment()
    images = [
        load_tiny_images(open_source(f"cifar10:{split}", folders)) for split in ("train", "test")
    ]
    return hashsearch.encode(np.concatenate(images))


def with_copies(codes: NDArray[np.uint8], rows: int) -> NDArray[np.uint8]:
    """The codes, followed by copies of them with flipped bits until there are `rows`."""
    random = np.random.default_rng(0)
    flipped = random.choice(flips_of_copies(), rows)
    flipped[: len(codes)] = 0
    found = codes[np.arange(rows) % len(codes)].copy()
    for start in range(0, rows, MAX_ROWS):
        part = slice(start, start + MAX_ROWS)
        ranks = random.random((len(found[part]), 256)).argsort(axis=1)
        found[part] ^= np.packbits(ranks < flipped[part, np.newaxis], axis=1)
    return found


def flips_of_copies() -> NDArray[np.int64]:
    """Distances between photographs and their recompressed and resized copies."""
    photographs = sorted((Path(os.environ["HASHSEARCH_DATA"]) / "photos").glob("*.jpg"))
    originals = hashsearch.encode(photographs)
    found = []
    for scale, quality in ((1, 90), (1, 75), (1, 50), (2, 90)):
        copies = []
        for path in photographs:
            with Image.open(path) as opened:
                image = opened.convert("RGB").reduce(scale)
            buffer = io.BytesIO()
            image.save(buffer, "JPEG", quality=quality)
            copies.append(buffer.getvalue())
        found.append(np.bitwise_count(hashsearch.encode(copies) ^ originals).sum(axis=1, dtype=int))
    flips = np.concatenate(found)
    print(f"copies lie at {np.percentile(flips, [0, 50, 95, 100])} bits: least, median, 95%, most")
    return flips


def fill(folder: Path, codes: NDArray[np.uint8]) -> None:
    """Make a gallery of these codes, of images that have no files."""
    gallery = GalleryFolder.create(folder, PRETRAINED, pixels=False, thumbnails=False)
    for start in range(0, len(codes), MAX_ROWS):
        part = codes[start : start + MAX_ROWS]
        writer = gallery.new_shard(["codes"])
        writer.append({"codes": part}, [None] * len(part))
        images = [
            NewImage(number.to_bytes(32), f"made/{number}.jpg", None, 32, 32, 1000, number)
            for number in range(start, start + len(part))
        ]
        gallery.commit(Changes(images=images), writer, gallery.fingerprint)
    gallery.close()


def measure(gallery: Path, radius: int) -> None:
    """Time the whole command, and print how many files in how many groups it finds."""
    command = [sys.executable, "-m", "hashsearch.cli", "gallery", "duplicates", gallery]
    started = time.perf_counter()
    done = subprocess.run(
        [*command, "--radius", str(radius), "--csv"], stdout=subprocess.PIPE, check=True, text=True
    )
    seconds = time.perf_counter() - started
    rows = done.stdout.splitlines()[1:]
    groups = rows[-1].split(",")[0] if rows else 0
    memory = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1e6
    print(
        f"radius {radius}: {seconds:.1f} s; {len(rows):,} files in {int(groups):,} groups; "
        f"at most {memory:.2f} GB of memory by now",
        flush=True,
    )


if __name__ == "__main__":
    main()
