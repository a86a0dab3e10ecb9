"""How near an indexing job comes to what its parts allow, on every core of this machine.

Decoding, thumbnails and encoding are measured alone, each on all cores; a job that did
nothing else, and never waited, would take the sum of their times an image. Beside it the
command, as a person would run it. It is held every few seconds while they are measured:

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
_SAMPLE = 4000  # images that it is measured on, over and over,
_FEW = 64  # and those whose pixels are at hand
_turns = count()  # of this process: each measurement goes on where the last one ended


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
    """Print what the parts allow, measured while the command is held, and what it reaches."""
    started = time.perf_counter()
    total = sum(1 for source in sources for _ in source)
    reading = total / (time.perf_counter() - started)
    command = [sys.executable, "-m", "hashsearch.cli", "index", *specs, "--json"]
    command += ["--gallery", str(folder / "gallery")]
    with Parts(list(islice(sources[0], _SAMPLE))) as parts:
        rates, summary, wall, held = run_with_pauses(command, parts.measure)
    print("| alone, on every core | images/s | least and most |\n| --- | --- | --- |")
    for name in rates[0]:
        seen = [rate[name] for rate in rates]
        mean = statistics.harmonic_mean(seen)
        print(f"| {name} | {mean:,.0f} | {min(seen):,.0f}, {max(seen):,.0f} |")
    allowed = 1 / statistics.mean(sum(1 / rate for rate in every.values()) for every in rates)
    print(f"| together, if nothing waited | {allowed:,.0f} | |")
    print(f"\nreading the source alone, one thread: {reading:,.0f} images/s")
    indexed = summary["indexed"]
    for name, seconds in (("job", summary["seconds"] - held), ("whole command", wall - held)):
        rate = indexed / seconds
        print(
            f"the {name}: {indexed:,} images in {seconds:.1f} s: "
            f"{rate:,.0f} images/s, {rate / allowed:.0%} of what is allowed"
        )


def run_with_pauses(
    command: Sequence[str], measure: Callable[[], dict[str, float]]
) -> tuple[list[dict[str, float]], dict[str, float], float, float]:
    """Run a command, and measure something else every few seconds while it is held.

    On a machine whose speed changes from minute to minute both then meet the same.
    Returns what was measured, the command's summary, how long it took, and how
    much of that it was held.
    """
    measured, held = [measure()], 0.0
    started = time.perf_counter()
    with subprocess.Popen(command, stdout=subprocess.PIPE) as job:
        while True:
            with suppress(subprocess.TimeoutExpired):
                job.wait(_BETWEEN_PAUSES)
                break
            began = time.perf_counter()
            with holding(psutil.Process(job.pid)) as is_at_work:
                if is_at_work:
                    measured.append(measure())
            held += time.perf_counter() - began
        wall = time.perf_counter() - started
        assert job.returncode == 0
        assert job.stdout is not None
        return [*measured, measure()], json.load(job.stdout), wall, held


@contextmanager
def holding(job: psutil.Process) -> Iterator[bool]:
    """Hold a job and its workers; whether it has some, as before it begins and when it ends."""
    stopped = []
    try:
        with suppress(psutil.NoSuchProcess):  # it may come to its end at that moment
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
    """The parts of the work, each ready to be measured alone on every core."""

    def __init__(self, sample: Sequence[SourceImage]):
        files = [
            image.content
            if isinstance(image.content, bytes)
            else Path(str(image.content)).read_bytes()
            for image in sample[:_FEW]
        ]
        self._sample, self._tiny = sample, np.stack([decode(data).tiny for data in files])
        self._squares = [square for square in map(_square, files) if square.width > TINY_SIDE]
        # Only some images may be large enough to have one.
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
        """Images a second of each."""
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
    time.sleep(0.5)  # so that every process gets one


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
    """What a thumbnail is made of: the centre square as decoded, at some 128 px or more."""
    with Image.open(BytesIO(data)) as image:
        image.draft(None, (THUMBNAIL_SIDE, THUMBNAIL_SIDE))
        side = min(image.size)
        left, top = (image.width - side) // 2, (image.height - side) // 2
        return image.convert("RGB").crop((left, top, left + side, top + side))


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
