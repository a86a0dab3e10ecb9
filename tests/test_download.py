"""Fetching CIFAR-10, from a server of our own on this machine."""

import hashlib
import tarfile
import threading
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from hashsearch.errors import InvalidSource
from hashsearch.sources import DataFolders, datasets, open_source
from tests.test_archive import tar_of
from tests.test_cifar import python_batch


@pytest.fixture
def archive(tmp_path, tiny_images) -> bytes:
    """An archive of CIFAR-10's form, small."""
    folder = tmp_path / "cifar-10-batches-py"
    folder.mkdir()
    for name in (*(f"data_batch_{n}" for n in range(1, 6)), "test_batch"):
        (folder / name).write_bytes(python_batch(tiny_images[:10], list(range(10))))
    return tar_of(folder, tmp_path / "made.tar.gz").read_bytes()


@pytest.fixture
def server(archive, monkeypatch):
    """Serves `server.body` where CIFAR-10's authors serve their archive; counts requests."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            serving.requests += 1
            self.send_response(serving.status)
            self.send_header("Content-Length", str(len(archive)))
            self.end_headers()
            self.wfile.write(serving.body)

        def log_message(self, *_):
            pass

    serving = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    serving.body, serving.status, serving.requests = archive, 200, 0
    monkeypatch.setattr(datasets, "CIFAR_URL", f"http://127.0.0.1:{serving.server_port}")
    served = replace(datasets.DATASETS["cifar10"], sha256=hashlib.sha256(archive).hexdigest())
    monkeypatch.setitem(datasets.DATASETS, "cifar10", served)
    thread = threading.Thread(target=serving.serve_forever)
    thread.start()
    yield serving
    serving.shutdown()
    thread.join()
    serving.server_close()


def test_cifar10_is_downloaded_once_and_kept(server, tmp_path):
    folders = DataFolders(None, tmp_path / "cache")
    assert len(list(open_source("cifar10", folders))) == 50
    assert len(list(open_source("cifar10:test", folders))) == 10
    assert server.requests == 1
    assert [path.name for path in folders.cache.iterdir()] == ["cifar-10-python.tar.gz"]


@pytest.mark.parametrize("damage", ["another", "cut", "missing"])
def test_a_download_that_is_not_the_file_leaves_nothing(server, tmp_path, damage):
    folders = DataFolders(None, tmp_path / "cache")
    if damage == "another":
        server.body = server.body[:-1] + b"x"
    elif damage == "cut":
        server.body = server.body[:1000]
    else:
        server.status = 404
    with pytest.raises(InvalidSource, match=r"their download from .* failed"):
        open_source("cifar10", folders)
    assert list(folders.cache.iterdir()) == []


def test_a_network_that_is_not_there_is_reported(monkeypatch, tmp_path):
    monkeypatch.setattr(datasets, "CIFAR_URL", "http://127.0.0.1:9")
    with pytest.raises(InvalidSource, match=r"cifar-100-python.tar.gz failed \(ConnectionError\)"):
        open_source("cifar100", DataFolders(None, tmp_path / "cache"))
    with pytest.raises(InvalidSource, match=r"cifar-10-python.tar.gz failed \(ConnectionError\)"):
        open_source("cifar10", DataFolders(None, tmp_path / "cache"))


def test_test_images_that_are_neither_in_the_archive_nor_downloaded_are_named(
    monkeypatch, image_files, tmp_path
):
    monkeypatch.setattr(datasets, "CIFAR_URL", "http://127.0.0.1:9")
    picture = sorted(image_files.rglob("*.*"))[0]
    with tarfile.open(tmp_path / "cifar100.tar.gz", "w:gz") as archive:
        archive.add(picture, f"cifar100/train/cat/{picture.name}")
    folders = DataFolders(tmp_path, tmp_path / "cache")
    assert len(list(open_source("cifar100", folders))) == 1
    with pytest.raises(InvalidSource, match=r"^CIFAR-100's test images are neither under HASHS"):
        open_source("cifar100:test", folders)
