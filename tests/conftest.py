"""Real images for every test: CIFAR-10 if HASHSEARCH_DATA has it, otherwise photographs."""

import io
import multiprocessing
import os
import re
import shutil
import socket
import tarfile
import time
from collections.abc import Iterator, Set
from contextlib import contextmanager
from dataclasses import replace
from functools import cache
from itertools import count, islice
from pathlib import Path
from threading import Event, Thread
from typing import Any, TypeVar

import numpy as np
import pytest
import skimage
import uvicorn
from fastapi.testclient import TestClient
from numpy.typing import NDArray
from PIL import Image

from hashsearch import pages
from hashsearch.closeness import Closeness
from hashsearch.evaluation import report as evaluation_report
from hashsearch.gallery.changes import Selection
from hashsearch.gallery.gallery_folder import GalleryFolder
from hashsearch.images import from_pixels
from hashsearch.jobs.adding import add_image
from hashsearch.jobs.index import committing, reading, workers
from hashsearch.jobs.index.indexing import index_sources
from hashsearch.jobs.removing import remove
from hashsearch.models.card import CARD_FILE, PRETRAINED, read_card
from hashsearch.retrieval.bases import IN_MEMORY, Bases
from hashsearch.retrieval.searcher import Searcher
from hashsearch.sources import DataFolders
from hashsearch.sources.archive import TarArchive
from hashsearch.sources.folder import Folder
from hashsearch.sources.samples import Samples
from service.app import create_app
from service.settings import Settings
from tests import forked
from tests.trainings import train
from training import job, training_report
from training.families.dense import DensePreset

T = TypeVar("T")

PHOTOGRAPHS = Path(skimage.__file__).parent / "data"
N_FILES = 300
KEY = "a-key-of-the-tests"
# Settings of a service that takes changes with this key.
WITH_KEY = {"api_keys": KEY}
# Trained in seconds; good enough to give similar pictures similar codes.
TINY_PRESET = DensePreset(
    widths=(3072, 128, 256), hidden="relu", steps=150, batch=64, learning_rate=2e-3
)


def cifar_archive() -> Path | None:
    """The data folder's archive of CIFAR-10 as JPEG files, or None if it has none."""
    data = os.environ.get("HASHSEARCH_DATA")
    path = Path(data) / "cifar10.tar.gz" if data else None
    return path if path is not None and path.is_file() else None


def is_of_a_bundled_model(fingerprint: str) -> bool:
    """Whether it is the bundled model's, or that of the one before, whose network is the same.

    Half an hour of benchmarks need not be repeated for other weights; what they wrote names the
    model.
    """
    text = (Path(__file__).parents[1] / "docs/experiments.md").read_text()
    (former,) = re.findall(r"is the former one \((\w{8})\)", text)
    return fingerprint[:8] in (read_card(PRETRAINED).fingerprint[:8], former)


# Modules that take minutes; last, one of them would run alone for the most part.
BEGUN_FIRST = ("test_page", "test_cluster_indexing", "test_cluster_search")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items.sort(key=lambda item: item.path.stem not in BEGUN_FIRST)


def pytest_report_header() -> str:
    if archive := cifar_archive():
        return f"images: CIFAR-10 from {archive}"
    return (
        "images: NO CIFAR-10 under HASHSEARCH_DATA, so crops of scikit-image's "
        "photographs stand in, and the tests of CIFAR-10's archive are skipped"
    )


@pytest.fixture(scope="session", autouse=True)
def workers_that_start_at_once() -> Iterator[None]:
    """Workers fork from a process that has imported what they need, which saves half a second each.

    Those of the commands that tests run in processes of their own start as they do for users.
    """
    multiprocessing.set_forkserver_preload([*forked.PRELOADED])
    forking = multiprocessing.get_context("forkserver")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(workers, "get_context", lambda _: forking)
        yield


@pytest.fixture(scope="session", autouse=True)
def plots_left_out() -> Iterator[None]:
    """Reports have blank plots, as drawing one takes longer than a tiny training."""
    with pytest.MonkeyPatch.context() as patch:
        for module in (training_report, evaluation_report):
            patch.setattr(module, "svg", lambda figure: pages.data_uri("image/svg+xml", b"<svg/>"))
        yield


@pytest.fixture
def plots(monkeypatch: pytest.MonkeyPatch) -> None:
    """Reports have their plots."""
    for module in (training_report, evaluation_report):
        monkeypatch.setattr(module, "svg", pages.svg)


@pytest.fixture(scope="session")
def cifar10() -> Path:
    """The CIFAR-10 archive; tests that use this fixture are skipped without it."""
    archive = cifar_archive()
    if archive is None:
        pytest.skip("CIFAR-10's JPEG archive is not under HASHSEARCH_DATA")
    return archive


def part_of_cifar10(
    archive: Path, folder: Path, *, train: int, test: int, also: Set[str] = frozenset()
) -> Path:
    """A data folder with every `train`-th training and `test`-th test image of CIFAR-10.

    also: members of the archive to include in any case.
    """
    folder.mkdir()
    counts = {"train": count(), "test": count()}
    with (
        tarfile.open(archive) as whole,
        tarfile.open(folder / archive.name, "w:gz", compresslevel=1) as part,
    ):
        for member in whole:
            if member.isfile():
                split = member.name.split("/")[1]
                chosen = next(counts[split]) % {"train": train, "test": test}[split] == 0
                if chosen or member.name in also:
                    part.addfile(member, whole.extractfile(member))
    return folder


@pytest.fixture(scope="session")
def image_files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of 300 real 32×32 image files, in folders named by their labels."""
    folder = tmp_path_factory.mktemp("files") / "pictures"
    archive = cifar_archive()
    if archive is not None:
        # Every 30th of the test images: some of each class.
        chosen = islice(TarArchive(archive, under="cifar10/test/"), 0, None, 10_000 // N_FILES)
        files = [(f"{i.label}", i.content) for i in islice(chosen, N_FILES)]
    else:
        crops = (i for i in Samples() if isinstance(i.content, np.ndarray))
        chosen = islice(crops, 0, None, 14 * 300 // N_FILES)
        files = [(f"{i.label}", _png(from_pixels(i.content).tiny)) for i in chosen]
    for number, (label, data) in enumerate(files):
        (folder / label).mkdir(parents=True, exist_ok=True)
        suffix = "jpg" if data[:2] == b"\xff\xd8" else "png"
        (folder / label / f"{number:04}.{suffix}").write_bytes(data)
    return folder


def _png(array: NDArray[np.uint8]) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(array).save(buffer, "PNG")
    return buffer.getvalue()


@pytest.fixture(scope="session")
def tiny_images(image_files: Path) -> NDArray[np.uint8]:
    """(300, 32, 32, 3) uint8: the pixels of `image_files`, read by Pillow alone."""
    return np.stack(
        [
            np.asarray(Image.open(path).convert("RGB"))
            for path in sorted(image_files.rglob("*.*"), key=os.fspath)
        ]
    )


@pytest.fixture(scope="session")
def photograph() -> bytes:
    """A real photograph, a JPEG of 640×427 pixels."""
    return (PHOTOGRAPHS / "rocket.jpg").read_bytes()


def train_tiny(images: NDArray[np.uint8], folder: Path, seed: int) -> Path:
    job.train("tiny", TINY_PRESET, images, folder, data="tests", seed=seed, device="cpu")
    return folder


@pytest.fixture(scope="session")
def model_folder(tmp_path_factory: pytest.TempPathFactory, tiny_images: NDArray[np.uint8]) -> Path:
    """A real model, trained in seconds."""
    return train_tiny(tiny_images, tmp_path_factory.mktemp("model") / "tiny", seed=0)


@pytest.fixture(scope="session")
def other_model_folder(
    tmp_path_factory: pytest.TempPathFactory, tiny_images: NDArray[np.uint8]
) -> Path:
    """The same training with another seed: other weights and another fingerprint."""
    return train_tiny(tiny_images, tmp_path_factory.mktemp("model") / "other", seed=1)


@pytest.fixture(scope="session")
def gallery_folder(
    tmp_path_factory: pytest.TempPathFactory, model_folder: Path, image_files: Path
) -> Path:
    """A gallery of `image_files`. Tests must not change it."""
    folder = tmp_path_factory.mktemp("gallery") / "gallery"
    gallery = GalleryFolder.create(folder, model_folder)
    index_sources(gallery, [Folder(image_files)], workers=2)
    gallery.close()
    return folder


@pytest.fixture
def gallery(gallery_folder, tmp_path):
    """A copy of the session's gallery that the test may change."""
    shutil.copytree(gallery_folder, tmp_path / "gallery")
    opened = GalleryFolder(tmp_path / "gallery")
    yield opened
    opened.close()


CLOSENESS = Closeness(same=35, near=50, alike=60)


@pytest.fixture(scope="session")
def measured_gallery_folder(tmp_path_factory: pytest.TempPathFactory, gallery_folder: Path) -> Path:
    """The session's gallery, with CLOSENESS on its model's card. Tests must not change it."""
    folder = tmp_path_factory.mktemp("measured") / "gallery"
    shutil.copytree(gallery_folder, folder)
    card = replace(read_card(folder / "model"), closeness=CLOSENESS)
    (folder / "model" / CARD_FILE).write_text(card.to_json(), encoding="utf-8")
    return folder


@pytest.fixture
def empty_gallery(model_folder, tmp_path):
    opened = GalleryFolder.create(tmp_path / "gallery", model_folder)
    yield opened
    opened.close()


@contextmanager
def serving(folder: Path, bases: Bases = IN_MEMORY, **settings: Any) -> Iterator[TestClient]:
    """A client of a service that serves a gallery, once it is loaded."""
    app = create_app(Settings(gallery=folder, **settings), bases=bases)
    with TestClient(app) as client:
        deadline = time.monotonic() + 60
        while client.get("/readyz").status_code == 503 and time.monotonic() < deadline:
            time.sleep(0.01)
        yield client


@contextmanager
def listening(folder: Path, **settings: Any) -> Iterator[str]:
    """The address of a service that serves a gallery on a socket, once it is loaded."""
    loaded = Event()
    app = create_app(Settings(gallery=folder, **settings), when_loaded=lambda error: loaded.set())
    server = uvicorn.Server(uvicorn.Config(app, log_config=None))
    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = Thread(target=server.run, kwargs={"sockets": [listener]})
        thread.start()
        try:
            assert loaded.wait(60)
            yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        finally:
            server.should_exit = True
            thread.join()


@pytest.fixture
def client(gallery):
    """A client of a service that serves `gallery`."""
    with serving(gallery.folder) as opened:
        yield opened


@pytest.fixture
def scattered(model_folder, image_files, tmp_path, monkeypatch, photograph):
    """A gallery of small shards: 300 images, of which 60 are removed, and a photograph."""
    monkeypatch.setattr(committing, "MAX_ROWS", 40)
    monkeypatch.setattr(reading, "CHUNK_IMAGES", 20)
    gallery = GalleryFolder.create(tmp_path / "scattered", model_folder)
    index_sources(gallery, [Folder(image_files)], workers=1)
    add_image(gallery, gallery.encoder(), photograph)
    remove(gallery.catalog, Selection(ids=gallery.catalog.rows().ids[:300:5].tolist()))
    yield gallery
    gallery.close()


@pytest.fixture
def folders(tmp_path: Path) -> DataFolders:
    """The data folder of the test run, and an empty cache."""
    archive = cifar_archive()
    return DataFolders(archive.parent if archive else None, tmp_path / "cache")


def open_searcher(folder: Path) -> Searcher:
    """A searcher of a gallery folder that does not change."""
    gallery = GalleryFolder(folder)
    return Searcher(gallery)


@pytest.fixture(scope="module")
def browser():
    """A real Chromium, for a module: until it ends, Playwright's loop runs in this thread."""
    from tests.browsing import started_browser  # which few tests need

    with started_browser() as started:
        yield started


@pytest.fixture(scope="module")
def unbroken(tiny_images, tmp_path_factory):
    """Trains without a stop, once for the same arguments; returns the folder and the card."""

    @cache
    def trained(preset, **options):
        folder = tmp_path_factory.mktemp("unbroken") / "model"
        return folder, train(tiny_images, folder, preset, **options)

    return trained


@pytest.fixture(scope="session")
def server():
    """A real PostgreSQL server with pgvector."""
    from tests.postgres import running_server  # which few tests need

    with running_server() as started:
        yield started


@pytest.fixture
def database(server) -> str:
    """The name of a database of the test's own."""
    return server.new_database()


@pytest.fixture
def query(server, database):
    """A function that executes SQL in the test's database."""
    return lambda statement: server.execute(statement, database)


@pytest.fixture
def export(server, database, gallery):
    """A function that exports `gallery` to the test's database."""
    from hashsearch.exports.postgres import export_to_postgres
    from hashsearch.exports.targets import ExportOptions

    def call(to=None, stop=lambda: False, of=gallery, table=None, index="none"):
        options = ExportOptions(False, table, index, stop)
        return export_to_postgres(of, to or server.url(database), options)

    return call
