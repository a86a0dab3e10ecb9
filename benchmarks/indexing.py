"""Compare the speed of an indexing job with the limit that its parts set.

    python -m benchmarks.indexing photographs [--copies 20000]
    python -m benchmarks.indexing cifar10
    python -m benchmarks.indexing thumbnails

Decoding, thumbnails and encoding are measured alone, each on all cores; a job that did
nothing else, and never waited, would take the sum of their times for each image. The
command is run as a user runs it, and paused every few seconds for these measurements.

The photographs of the data folder are copied until there are enough; a number is
appended to each copy, so that no two files are equal.
"""

import argparse
import json
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager, suppress
from io import BytesIO
from itertools import count, islice
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import psutil
from PIL import Image

from hashsearch.encoder import Encoder
from hashsearch.hardware import describe, usable_cores
from hashsearch.images import THUMBNAIL_SIDE, TINY_SIDE, decode, quiet_pillow, thumbnail_of
from hashsearch.jobs.index.encoding import EncodingPool
from hashsearch.jobs.index.prepare import prepare
from hashsearch.models.card import PRETRAINED
from hashsearch.sources import DataFolders, Source, open_source
from hashsearch.sources.base import SourceImage

CORES = usable_cores()
_SECONDS = 1.5  # how long each part is measured alone
_BETWEEN_PAUSES = 5.0
_SAMPLE = 4000  # images that decoding is measured on, again and again
_FEW = 64  # images that encoding and thumbnails are measured on
_turns = count()  # of this process: each measurement continues where the last one ended


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
    """Write `count` copies, each with its number appended, which decoders ignore."""
    folder.mkdir()
    contents = [path.read_bytes() for path in files]
    for number in range(count):
        data = contents[number % len(contents)] + number.to_bytes(8, "big")
        (folder / f"{number:06}{files[number % len(files)].suffix}").write_bytes(data)
    return folder


def compare(sources: Sequence[Source], specs: Sequence[str], folder: Path) -> None:
    """Print the limit that the parts set, measured in pauses of the command, and its speed."""
    started = time.perf_counter()
    total = sum(1 for source in sources for _ in source)
    reading = total / (time.perf_counter() - started)
    command = [sys.executable, "-m", "hashsearch.cli", "index", *specs, "--json"]
    command += ["--gallery", str(folder / "gallery")]
    with Parts(list(islice(sources[0], _SAMPLE))) as parts:
        rates, summary, wall, paused = run_with_pauses(command, parts.measure)
    print("| alone, on every core | images/s | least and most |\n| --- | --- | --- |")
    for name in rates[0]:
        measured = [rate[name] for rate in rates]
        mean = statistics.harmonic_mean(measured)
        print(f"| {name} | {mean:,.0f} | {min(measured):,.0f}, {max(measured):,.0f} |")
    limit = 1 / statistics.mean(sum(1 / rate for rate in every.values()) for every in rates)
    print(f"| together, if nothing waited | {limit:,.0f} | |")
    print(f"\nreading the source alone, one thread: {reading:,.0f} images/s")
    indexed = summary["indexed"]
    for name, seconds in (("job", summary["seconds"] - paused), ("whole command", wall - paused)):
        rate = indexed / seconds
        print(
            f"the {name}: {indexed:,} images in {seconds:.1f} s: "
            f"{rate:,.0f} images/s, {rate / limit:.0%} of the limit"
        )


def run_with_pauses(
    command: Sequence[str], measure: Callable[[], dict[str, float]]
) -> tuple[list[dict[str, float]], dict[str, float], float, float]:
    """Run a command, and pause it every few seconds to measure something else.

    Thus both meet the same changes of the machine's speed. Returns the measurements, the
    command's summary, and the seconds it took and was paused.
    """
    measured, paused = [measure()], 0.0
    started = time.perf_counter()
    with subprocess.Popen(command, stdout=subprocess.PIPE) as job:
        while True:
            with suppress(subprocess.TimeoutExpired):
                job.wait(_BETWEEN_PAUSES)
                break
            began = time.perf_counter()
            with pausing(psutil.Process(job.pid)) as has_workers:
                if has_workers:
                    measured.append(measure())
            paused += time.perf_counter() - began
        wall = time.perf_counter() - started
        assert job.returncode == 0
        assert job.stdout is not None
        return [*measured, measure()], json.load(job.stdout), wall, paused


@contextmanager
def pausing(job: psutil.Process) -> Iterator[bool]:
    """Pause a job and its workers. Yields whether it has workers: not at its start and end."""
    stopped = []
    try:
        with suppress(psutil.NoSuchProcess):  # it may end at that moment
            children = job.children()
            workers = [child for child in children if "spawn_main" in " ".join(child.cmdline())]
            for process in (job, *workers):
                process.suspend()
                stopped.append(process)
        yield len(stopped) > 1
    finally:
        for process in stopped:
            with suppress(psutil.NoSuchProcess):
                process.resume()


class Parts:
    """The parts of the work, ready to be measured one by one on every core."""

    def __init__(self, sample: Sequence[SourceImage]):
        files = [
            image.content
            if isinstance(image.content, bytes)
            else Path(str(image.content)).read_bytes()
            for image in sample[:_FEW]
        ]
        self._sample, self._tiny = sample, np.stack([decode(data).tiny for data in files])
        self._squares = [square for square in map(_square, files) if square.width > TINY_SIDE]
        # Not every image may be large enough to have a thumbnail.
        self._with_thumbnail = len(self._squares) / len(files)
        self._workers = ProcessPoolExecutor(CORES, get_context("spawn"), quiet_pillow)
        self._encoders = EncodingPool(lambda: Encoder.load(PRETRAINED), CORES)

    def __enter__(self) -> "Parts":
        list(self._workers.map(_warm, range(CORES)))
        self._encode()
        return self

    def __exit__(self, *exception: object) -> None:
        self._workers.shutdown()
        self._encoders.__exit__()

    def measure(self) -> dict[str, float]:
        """Measure the images per second of each part."""
        rates = {
            "read, identify and decode": self._on_every_core(_decode, self._sample),
            "encode": self._encode(),
        }
        if self._squares:
            thumbnails = self._on_every_core(_thumbnail, self._squares)
            rates["thumbnails"] = thumbnails / self._with_thumbnail
        return rates

    def _on_every_core(self, work: Callable[[object], object], items: Sequence[object]) -> float:
        starts = [len(items) * core // CORES for core in range(CORES)]
        turned = [[*items[start:], *items[:start]] for start in starts]
        rates = [self._workers.submit(_rate, work, each) for each in turned]
        return sum(future.result() for future in rates)

    def _encode(self) -> float:
        waiting = deque(self._encoders.submit(self._tiny) for _ in range(2 * CORES))
        done, started = 0, time.perf_counter()
        while (elapsed := time.perf_counter() - started) < _SECONDS:
            done += len(waiting.popleft().result())
            waiting.append(self._encoders.submit(self._tiny))
        for future in waiting:
            future.result()
        return done / elapsed


def _warm(_: int) -> None:
    time.sleep(0.5)  # so that every process gets one task


def _rate(work: Callable[[object], object], items: Sequence[object]) -> float:
    done, started = 0, time.perf_counter()
    while (elapsed := time.perf_counter() - started) < _SECONDS:
        work(items[next(_turns) % len(items)])
        done += 1
    return done / elapsed


def _decode(image: SourceImage) -> None:
    prepare([image], thumbnails=False)


def _thumbnail(square: Image.Image) -> None:
    thumbnail_of(square)


def _square(data: bytes) -> Image.Image:
    """The centre square as decoded, about 128 px or more: the input of a thumbnail."""
    with Image.open(BytesIO(data)) as image:
        image.draft(None, (THUMBNAIL_SIDE, THUMBNAIL_SIDE))
        side = min(image.size)
        left, top = (image.width - side) // 2, (image.height - side) // 2
        return image.convert("RGB").crop((left, top, left + side, top + side))


def compare_thumbnails(files: Sequence[bytes]) -> None:
    """Print time, bytes and likeness to the original for several formats of thumbnails."""
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
