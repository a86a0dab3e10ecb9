"""Compare an indexing job on a Ray cluster of this machine with the job's own processes.

    python -m benchmarks.cluster_indexing

Both index the test images of CIFAR-10 in turns, with as many workers, and so do both with the
data folder's photographs, each copied until there are enough. On one machine a cluster can be no
faster; what it costs is its own work: images and results are sent between processes.
"""

import pickle
import statistics
import tempfile
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from hashlib import sha256
from itertools import count, islice
from pathlib import Path
from typing import Any

import numpy as np
import ray

from benchmarks.machine import hardware
from hashsearch.distributed.cluster import cluster
from hashsearch.distributed.executor import ClusterExecutor
from hashsearch.distributed.node import Model, NodeWorker, read_here
from hashsearch.gallery.gallery_folder import GalleryFolder
from hashsearch.jobs.index.executing import Columns, LocalExecutor, StartExecutor
from hashsearch.jobs.index.indexing import index_sources
from hashsearch.jobs.index.prepare import Prepared
from hashsearch.jobs.index.workers import Results
from hashsearch.models.card import CARD_FILE, PRETRAINED, WEIGHTS_FILE
from hashsearch.sources import DataFolders, Source, open_source
from hashsearch.sources.base import SourceImage
from hashsearch.sources.folder import ImageFile

_ROUNDS = 3
_PHOTOGRAPHS = 2000
_SENT = 200  # images whose bytes are counted
_COMMITTED = 2 * 65_536  # images of the job without workers
_THUMBNAIL = bytes(4500)  # about as large as a photograph's


def main() -> None:
    folders = DataFolders.of_environment()
    assert folders.data is not None, "HASHSEARCH_DATA names the folder with cifar10 and photos/"
    print(hardware())
    with tempfile.TemporaryDirectory() as scratch, cluster():
        copies = Path(scratch) / "photographs"
        _copy(folders.data / "photos", copies)
        for name, spec in (("CIFAR-10", "cifar10:test"), ("photographs", str(copies))):
            source = open_source(spec, folders)
            asked, answered = _bytes_sent(source)
            print(
                f"{name}: {asked:,.0f} bytes an image are sent if a node cannot see the files, "
                f"{answered:,.0f} come back"
            )
            seconds: dict[str, list[float]] = {"own processes": [], "cluster": []}
            for turn in range(_ROUNDS):
                for way, executor in (
                    ("own processes", LocalExecutor),
                    ("cluster", ClusterExecutor),
                ):
                    folder = Path(scratch) / f"{name}-{way}-{turn}"
                    seconds[way].append(_seconds(folder, source, executor))
            own, spread = (statistics.median(each) for each in seconds.values())
            print(
                f"{name}: own processes {own:.1f} s, cluster {spread:.1f} s, "
                f"{spread / own:.2f} times as long"
            )
        print(
            f"the job can take {_ceiling(Path(scratch) / 'ceiling'):,.0f} images a second, "
            "if any number of workers prepares and encodes them"
        )


def _copy(photos: Path, copies: Path) -> None:
    """Photographs with a number appended to each, so that no two are equal."""
    copies.mkdir()
    originals = [(path.suffix, path.read_bytes()) for path in sorted(photos.iterdir())]
    numbers = count()
    for number in islice(numbers, _PHOTOGRAPHS):
        suffix, data = originals[number % len(originals)]
        (copies / f"{number:05}{suffix}").write_bytes(data + b"%d" % number)


def _seconds(folder: Path, source: Source, executor: StartExecutor) -> float:
    """Seconds of a job, with the start of its workers, but not of a cluster."""
    gallery = GalleryFolder.create(folder, PRETRAINED)
    started = time.perf_counter()
    index_sources(gallery, [source], executor=executor)
    gallery.close()
    return time.perf_counter() - started


def _ceiling(folder: Path) -> float:
    """Images a second that the job decides about and commits, once they are prepared."""
    gallery = GalleryFolder.create(folder, PRETRAINED)
    started = time.perf_counter()
    index_sources(gallery, [_Numbered(folder)], executor=_Prepared)
    seconds = time.perf_counter() - started
    gallery.close()
    return _COMMITTED / seconds


class _Numbered(ImageFile):
    """A source of images that have nothing but a place of their own."""

    def __iter__(self) -> Iterator[SourceImage]:
        for number in range(_COMMITTED):
            yield SourceImage(f"/{number}.jpg", None, 100_000, 0, self.path)


class _Prepared(LocalExecutor):
    """An executor that has prepared and encoded everything already."""

    def __enter__(self) -> "LocalExecutor":
        random = np.random.default_rng(0)
        self._tiny = random.integers(0, 256, (32, 32, 3), np.uint8)
        self._columns = {
            "codes": random.integers(0, 256, 32, np.uint8),
            "addresses": np.zeros(4, np.uint8),
        }
        return self

    def submit(self, images: list[SourceImage]) -> Any:
        return images

    def result(self, pending: Any) -> Results:
        return [
            Prepared(sha256(one.place.encode()).digest(), self._tiny, 500, 400, _THUMBNAIL)
            for one in pending
        ]

    def encode(self, new: Sequence[Prepared]) -> Future[Columns]:
        done: Future[Columns] = Future()
        done.set_result({k: np.stack([v for _ in new]) for k, v in self._columns.items()})
        return done


def _bytes_sent(source: Source) -> Sequence[float]:
    """Mean bytes of an image that a node cannot see, and of what it answers."""
    files = {name: (PRETRAINED / name).read_bytes() for name in (WEIGHTS_FILE, CARD_FILE)}
    worker = ray.remote(NodeWorker).remote(Model(files, "float32"), thumbnails=True)
    images = [read_here(image) for image in islice(source, _SENT)]
    results = ray.get(worker.run.remote(images)).results
    return [len(pickle.dumps(each, 5)) / len(images) for each in (images, results)]


if __name__ == "__main__":
    main()
