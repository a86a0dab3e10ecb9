"""How near an indexing job comes to what its parts allow, on every core of this machine.

Decoding, thumbnails and encoding are measured alone, each on all cores; a job that did
nothing else, and never waited, would take the sum of their times an image. Beside it, the
whole command, from its start to its end, as a person would run it:

    python -m benchmarks.indexing photographs [--copies 20000]
    python -m benchmarks.indexing cifar10
    python -m benchmarks.indexing thumbnails

The photographs are those of the data folder, copied until there are enough, each copy
with a number behind its last byte, so that no two files are alike.
"""

import argparse
import json
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from io import BytesIO
from itertools import islice
from multiprocessing import get_context
from pathlib import Path

import numpy as np
from PIL import Image

from hashsearch.cores import usable_cores
from hashsearch.encoder import Encoder
from hashsearch.gallery.encoding import EncodingPool
from hashsearch.gallery.prepare import prepare, start_worker
from hashsearch.images import THUMBNAIL_SIDE, TINY_SIDE, decode, thumbnail_of
from hashsearch.models.card import PRETRAINED
from hashsearch.sources import DataFolders, Source, open_source
from hashsearch.sources.base import SourceImage
from training.device import describe

CORES = usable_cores()
_SECONDS = 15.0  # how long each part is measured alone
_SAMPLE = 400  # images that it is measured on, over and over


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", choices=("photographs", "cifar10", "thumbnails"))
    parser.add_argument("--copies", type=int, default=20_000, help="how many photographs")
    options = parser.parse_args()
    folders = DataFolders.of_environment()
    assert folders.data is not None, "HASHSEARCH_DATA names the folder with photos/"
    photos = sorted((folders.data / "photos").iterdir())
    print(f"{describe('cpu')}, {CORES} cores\n")
    if options.what == "thumbnails":
        compare_thumbnails([path.read_bytes() for path in photos])
        return
    with scratch() as folder:
        if options.what == "photographs":
            copies = make_copies(photos, folder / "photographs", options.copies)
            compare([open_source(str(copies), folders)], [str(copies)], folder)
        else:
            names = ["cifar10:train", "cifar10:test"]
            compare([open_source(name, folders) for name in names], names, folder)


@contextmanager
def scratch() -> Iterator[Path]:
    folder = Path(tempfile.mkdtemp(prefix="hashsearch-bench-"))
    try:
        yield folder
    finally:
        shutil.rmtree(folder)


def make_copies(files: Sequence[Path], folder: Path, count: int) -> Path:
    """So many files, each with its number behind the last byte, which decoders pass over."""
    folder.mkdir()
    contents = [path.read_bytes() for path in files]
    for number in range(count):
        data = contents[number % len(contents)] + number.to_bytes(8, "big")
        (folder / f"{number:06}{files[number % len(files)].suffix}").write_bytes(data)
    return folder


def compare(sources: Sequence[Source], specs: Sequence[str], folder: Path) -> None:
    """Print what the parts allow, measured before and after the command, and what it reaches."""
    started = time.perf_counter()
    total = sum(1 for source in sources for _ in source)
    reading = total / (time.perf_counter() - started)
    sample = list(islice(sources[0], _SAMPLE))
    before = measure_parts(sample)
    command = [sys.executable, "-m", "hashsearch.cli", "index", *specs, "--json"]
    started = time.perf_counter()
    done = subprocess.run(
        [*command, "--gallery", folder / "gallery"], stdout=subprocess.PIPE, check=True
    )
    wall = time.perf_counter() - started
    after = measure_parts(sample)
    parts = {name: statistics.mean((rate, after[name])) for name, rate in before.items()}
    allowed = 1 / sum(1 / rate for rate in parts.values())
    print("| alone, on every core | images/s | before and after |\n| --- | --- | --- |")
    for name, rate in parts.items():
        print(f"| {name} | {rate:,.0f} | {before[name]:,.0f}, {after[name]:,.0f} |")
    print(f"| together, if nothing waited | {allowed:,.0f} | |")
    print(f"\nreading the source alone, one thread: {reading:,.0f} images/s")
    summary = json.loads(done.stdout)
    rate = summary["indexed"] / summary["seconds"]
    print(
        f"the command: {summary['indexed']:,} images in {wall:.1f} s, of which the job "
        f"{summary['seconds']:.1f} s: {rate:,.0f} images/s, {rate / allowed:.0%} of what is allowed"
    )


def measure_parts(sample: Sequence[SourceImage]) -> dict[str, float]:
    """Images a second of each part of the work, alone on every core."""
    files = [
        image.content if isinstance(image.content, bytes) else Path(str(image.content)).read_bytes()
        for image in sample
    ]
    parts = {
        "read, identify and decode": on_every_core(_decode, sample),
        "encode": _encoding(np.stack([decode(data).tiny for data in files])),
    }
    squares = [square for square in map(_square, files) if square.width > TINY_SIDE]
    if squares:
        # Only some images may be large enough to have one.
        parts["thumbnails"] = on_every_core(_thumbnail, squares) * len(files) / len(squares)
    return parts


def on_every_core(work: Callable[[object], object], items: Sequence[object]) -> float:
    """Images a second when every core works through the items, over and over."""
    with ProcessPoolExecutor(CORES, get_context("spawn"), start_worker) as pool:
        list(pool.map(_warm, range(CORES)))
        rates = [pool.submit(_rate, work, items) for _ in range(CORES)]
        return sum(future.result() for future in rates)


def _warm(_: int) -> None:
    time.sleep(0.5)  # so that every process gets one


def _rate(work: Callable[[object], object], items: Sequence[object]) -> float:
    done, started = 0, time.perf_counter()
    while (elapsed := time.perf_counter() - started) < _SECONDS:
        work(items[done % len(items)])
        done += 1
    return done / elapsed


def _decode(image: SourceImage) -> None:
    prepare([image], thumbnails=False)


def _thumbnail(square: Image.Image) -> None:
    thumbnail_of(square)


def _square(data: bytes) -> Image.Image:
    """What a thumbnail is made of: the centre square as decoded, at some 128 px or more."""
    with Image.open(BytesIO(data)) as image:
        image.draft(None, (THUMBNAIL_SIDE, THUMBNAIL_SIDE))
        side = min(image.size)
        left, top = (image.width - side) // 2, (image.height - side) // 2
        return image.convert("RGB").crop((left, top, left + side, top + side))


def _encoding(tiny: np.ndarray) -> float:
    with EncodingPool(Encoder.load(PRETRAINED), CORES) as pool:
        [future.result() for future in [pool.submit(tiny[:64]) for _ in range(CORES)]]
        done, started = 0, time.perf_counter()
        while time.perf_counter() - started < _SECONDS:
            for future in [pool.submit(tiny[:256]) for _ in range(2 * CORES)]:
                done += len(future.result())
        return done / (time.perf_counter() - started)


def compare_thumbnails(files: Sequence[bytes]) -> None:
    """Encoders and settings of a thumbnail: time, bytes, and how near it is to its original."""
    shrunk = [
        _square(data).resize((THUMBNAIL_SIDE, THUMBNAIL_SIDE), Image.Resampling.BOX)
        for data in files
    ]
    print("| thumbnails of 128 px | ms | bytes | PSNR, dB |\n| --- | --- | --- | --- |")
    for name, settings in (
        ("JPEG, quality 75", {"format": "JPEG", "quality": 75}),
        ("JPEG, quality 80", {"format": "JPEG", "quality": 80}),
        ("JPEG, quality 85", {"format": "JPEG", "quality": 85}),
        ("JPEG, quality 80, optimised", {"format": "JPEG", "quality": 80, "optimize": True}),
        ("JPEG, quality 80, colour whole", {"format": "JPEG", "quality": 80, "subsampling": 0}),
        ("WebP, quality 80, method 0", {"format": "WEBP", "quality": 80, "method": 0}),
        ("WebP, quality 80, method 4", {"format": "WEBP", "quality": 80, "method": 4}),
        ("WebP, quality 75, method 2", {"format": "WEBP", "quality": 75, "method": 2}),
        ("AVIF, quality 60, speed 10", {"format": "AVIF", "quality": 60, "speed": 10}),
        ("PNG", {"format": "PNG"}),
    ):
        times, sizes, errors = [], [], []
        for image in shrunk:
            buffer = BytesIO()
            started = time.perf_counter()
            image.save(buffer, **settings)
            times.append(time.perf_counter() - started)
            sizes.append(buffer.tell())
            difference = np.asarray(Image.open(buffer).convert("RGB"), float) - np.asarray(image)
            errors.append(np.square(difference).mean())
        psnr = 10 * np.log10(255**2 / max(np.mean(errors), 1e-9))
        print(
            f"| {name} | {1000 * statistics.median(times):.2f} | "
            f"{statistics.mean(sizes):,.0f} | {psnr:.1f} |"
        )


if __name__ == "__main__":
    main()
