"""Measure how fast a gallery of a million images is filled, and how fast it answers.

    python -m benchmarks.million [--rows 1000000] [--keep FOLDER] [--model M]

The images are augmented copies of CIFAR-10's: mirrored, moved by up to four pixels,
brighter or darker, so that no two are equal. They are written as a Tiny Images binary,
which `hashsearch index` and `hashsearch query` then use. Whole commands are timed, and
the memory of the job and its workers is measured.
"""

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import numpy as np
import psutil
from numpy.typing import NDArray

from hashsearch.commands.arguments import model
from hashsearch.hardware import describe
from hashsearch.images import TINY_BYTES
from hashsearch.models.card import PRETRAINED
from hashsearch.sources import DataFolders, open_source
from hashsearch.sources.loading import load_tiny_images

_BATCH = 10_000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--keep", type=Path, help="create the gallery here, and keep it")
    parser.add_argument("--model", type=model, default=PRETRAINED)
    options = parser.parse_args()
    folder = options.keep or Path(tempfile.mkdtemp(prefix="hashsearch-million-"))
    folder.mkdir(exist_ok=True)
    try:
        print(describe("cpu"), flush=True)
        binary = folder / "tiny_images.bin"
        if not binary.exists():
            write_binary(binary, options.rows)
        fill(binary, folder / "gallery", options.model)
        search(folder / "gallery")
    finally:
        if not options.keep:
            shutil.rmtree(folder)


def write_binary(path: Path, rows: int) -> None:
    """Write augmented copies of CIFAR-10's training images in the Tiny Images layout."""
    images = load_tiny_images(open_source("cifar10:train", DataFolders.of_environment()))
    unfinished = path.with_suffix(".unfinished")
    with unfinished.open("wb") as file:
        for start in range(0, rows, _BATCH):
            numbers = np.arange(start, min(start + _BATCH, rows))
            batch = augmented(images[numbers % len(images)], numbers)
            # Each colour plane is stored column by column.
            file.write(np.ascontiguousarray(batch.transpose(0, 3, 2, 1)).data)
    unfinished.rename(path)


def augmented(images: NDArray[np.uint8], numbers: NDArray[np.int64]) -> NDArray[np.uint8]:
    """Augment (n, 32, 32, 3) uint8 images; the first number is the random seed."""
    random = np.random.default_rng(int(numbers[0]))
    padded = np.pad(images, ((0, 0), (4, 4), (4, 4), (0, 0)), mode="reflect")
    tops, lefts = random.integers(0, 9, (2, len(images)))
    rows = tops[:, None, None] + np.arange(32)[None, :, None]
    columns = lefts[:, None, None] + np.arange(32)[None, None, :]
    moved = padded[np.arange(len(images))[:, None, None], rows, columns]
    flipped = random.random(len(images)) < 0.5
    moved[flipped] = moved[flipped, :, ::-1]
    scale = random.uniform(0.8, 1.2, (len(images), 1, 1, 1))
    return np.clip(moved * scale, 0, 255).astype(np.uint8)


def fill(binary: Path, gallery: Path, model: Path) -> None:
    """Index the binary, and print the speed and the memory of the job."""
    command = [sys.executable, "-m", "hashsearch.cli", "index", binary, "--gallery", gallery]
    job = subprocess.Popen([*command, "--model", model, "--json"], stdout=subprocess.PIPE)
    memory: list[tuple[float, int]] = []
    over = threading.Event()
    watch = threading.Thread(target=_watch, args=(psutil.Process(job.pid), memory, over))
    watch.start()
    out, _ = job.communicate()
    over.set()
    watch.join()
    if job.returncode:
        raise SystemExit(job.returncode)
    summary = json.loads(out)
    done = max(summary["indexed"], 1)
    rows = binary.stat().st_size // TINY_BYTES
    print(
        f"{rows:,} images, {summary['duplicates']:,} duplicates; {summary['indexed']:,} indexed at "
        f"{done / summary['seconds']:,.0f} images/s in {summary['seconds']:,.0f} s"
    )
    quarters = [memory[len(memory) * part // 4][1] / 1e6 for part in (1, 2, 3)]
    print(
        "memory of its own, MB, at a quarter, half and three quarters: "
        + ", ".join(f"{size:,.0f}" for size in quarters)
        + f"; at most {max(size for _, size in memory) / 1e6:,.0f}",
        flush=True,
    )


def _watch(process: psutil.Process, memory: list[tuple[float, int]], over: threading.Event) -> None:
    """Record the memory of a process and its children, without files that they map."""
    while not over.wait(0.5):
        try:
            family = [process, *process.children(recursive=True)]
            own = sum(one.memory_info().rss - one.memory_info().shared for one in family)
        except psutil.Error:
            continue
        memory.append((time.monotonic(), own))


def search(gallery: Path) -> None:
    """Time whole commands that open the gallery and search it, by code and by pixels."""
    for method in ("codes", "pixels"):
        for turn in ("first", "second"):
            started = time.perf_counter()
            done = subprocess.run(
                [sys.executable, "-m", "hashsearch.cli", "query", "1", "--gallery", gallery,
                 "--method", method, "--json"],
                stdout=subprocess.PIPE,
                check=True,
            )  # fmt: skip
            wall = time.perf_counter() - started
            answer = json.loads(done.stdout)
            print(
                f"hashsearch query by {method}, {turn}: {wall:.2f} s for the whole command, "
                f"of which the search took {answer['latency_ms']:,.0f} ms",
                flush=True,
            )


if __name__ == "__main__":
    main()
