"""Indexing on a cluster gives the gallery that indexing on one machine gives."""

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from threading import Lock, Thread

import numpy as np
import psutil
import pytest

from hashsearch.cli import main
from hashsearch.distributed import executor
from hashsearch.distributed.executor import ClusterExecutor
from hashsearch.errors import ClusterError
from hashsearch.gallery.gallery_folder import GalleryFolder
from hashsearch.jobs.index import reading
from hashsearch.jobs.index.indexing import index_sources
from hashsearch.jobs.index.prepare import Prepared
from hashsearch.models.card import PRETRAINED
from hashsearch.sources.archive import TarArchive
from hashsearch.sources.base import SourceImage
from hashsearch.sources.folder import Folder
from tests.clusters import nodes
from tests.galleries import content, everything

DATA = os.environ.get("HASHSEARCH_DATA", "")


@pytest.fixture(scope="module")
def three_nodes():
    with nodes(3) as cluster:
        yield cluster


@pytest.fixture
def pictures(image_files, tmp_path):
    """60 pictures, of which the last is a copy of the first, and a file that is no picture."""
    folder = tmp_path / "pictures"
    folder.mkdir()
    chosen = sorted(path for path in image_files.rglob("*") if path.is_file())[::5]
    for number, path in enumerate(chosen[:59]):
        shutil.copy(path, folder / f"{number:03}{path.suffix}")
    shutil.copy(folder / f"000{chosen[0].suffix}", folder / f"999{chosen[0].suffix}")
    (folder / "broken.jpg").write_bytes(b"no picture")
    return folder


def new_gallery(folder: Path) -> GalleryFolder:
    return GalleryFolder.create(folder, PRETRAINED)


def on_the_cluster(gallery: GalleryFolder, *sources: object, workers: int | None = None):
    return index_sources(gallery, sources, workers=workers, executor=ClusterExecutor)


def failures(gallery: GalleryFolder) -> dict[str, str]:
    return {failure.uri: failure.reason for failure, _ in gallery.catalog.failures()}


class OutOfSight(Folder):
    """A folder that this process alone can see: by a descriptor that is open here."""

    def __iter__(self) -> Iterator[SourceImage]:
        opened = os.open(self.root, os.O_RDONLY)
        try:
            for image in super().__iter__():
                inside = image.content.relative_to(self.root)
                yield replace(image, content=Path(f"/proc/self/fd/{opened}") / inside)
        finally:
            self.opened = opened  # the images are read after the last one was named


class Deadly(bytes):
    """A file's bytes that kill the process that receives them, as the kernel may for memory."""

    def __reduce__(self):
        return die, ()


class Endless(bytes):
    """A file's bytes that the process that receives them never finishes."""

    def __reduce__(self):
        return time.sleep, (3600,)


def die():
    os.kill(os.getpid(), signal.SIGKILL)


class And:
    """A source, and two images after it that no worker survives."""

    def __init__(self, source: Folder):
        self.source = source

    def __getattr__(self, name):
        return getattr(self.source, name)

    def __iter__(self) -> Iterator[SourceImage]:
        yield from self.source
        yield SourceImage("/zz-deadly.jpg", None, 1, 0, Deadly())
        yield SourceImage("/zz-endless.jpg", None, 1, 0, Endless())


def test_a_cluster_makes_the_same_gallery(three_nodes, pictures, tmp_path, monkeypatch):
    """Ids, codes, pixels, thumbnails, duplicates and failures, from files and an archive."""
    archive = tmp_path / "more.tar"
    subprocess.run(["tar", "-cf", archive, "-C", pictures, "."], check=True)
    (pictures / "broken.png").write_bytes(b"no picture either")
    monkeypatch.setattr(reading, "CHUNK_IMAGES", 10)
    alone, spread = new_gallery(tmp_path / "alone"), new_gallery(tmp_path / "spread")
    here = index_sources(alone, [TarArchive(archive), Folder(pictures)], workers=1)
    there = on_the_cluster(spread, TarArchive(archive), Folder(pictures))
    assert replace(there, seconds=0) == replace(here, seconds=0)
    assert (there.indexed, there.duplicates, there.failed, there.remarks) == (59, 61, 3, [])
    assert everything(spread) == everything(alone)
    assert failures(spread) == failures(alone)


def test_what_a_node_cannot_see_is_sent_and_what_kills_a_worker_fails_alone(
    three_nodes, pictures, tmp_path, monkeypatch
):

    def limit(images) -> float:
        return 2.0 if any(image.place == "/zz-endless.jpg" for image in images) else 60.0

    monkeypatch.setattr(executor, "limit_s", limit)
    gallery = new_gallery(tmp_path / "gallery")
    summary = on_the_cluster(gallery, And(OutOfSight(pictures)), workers=1)
    assert (summary.indexed, summary.failed) == (59, 3)
    reasons = failures(gallery)
    assert reasons.keys() == {
        f"pictures/{name}.jpg" for name in ("broken", "zz-deadly", "zz-endless")
    }
    assert reasons["pictures/zz-deadly.jpg"].startswith("decoding it killed a process")
    assert reasons["pictures/zz-endless.jpg"].startswith("decoding it takes more than")
    alone = new_gallery(tmp_path / "alone")
    index_sources(alone, [Folder(pictures)], workers=1)
    assert content(gallery) == content(alone)


def test_a_node_that_dies_costs_a_retry(three_nodes, image_files, tmp_path, monkeypatch):
    monkeypatch.setattr(reading, "CHUNK_IMAGES", 10)
    gallery, alone = new_gallery(tmp_path / "gallery"), new_gallery(tmp_path / "alone")
    doomed = next(iter(three_nodes.worker_nodes))
    killing, lost = Lock(), []
    ask, replace_lost = ClusterExecutor._ask, ClusterExecutor._replace

    def ask_and_kill(self, ready, images, probe=None):
        if ready.node.id == doomed.node_id and killing.acquire(blocking=False):
            three_nodes.remove_node(doomed, allow_graceful=False)
        return ask(self, ready, images, probe)

    def note(self, ready):
        lost.append(ready.node.id)
        replace_lost(self, ready)

    monkeypatch.setattr(ClusterExecutor, "_ask", ask_and_kill)
    monkeypatch.setattr(ClusterExecutor, "_replace", note)
    try:
        summary = on_the_cluster(gallery, Folder(image_files))
    finally:
        three_nodes.add_node()  # for other tests
    assert set(lost) == {doomed.node_id}
    assert (summary.indexed, summary.failed, summary.remarks) == (300, 0, [])
    index_sources(alone, [Folder(image_files)], workers=1)
    assert everything(gallery) == everything(alone)


def test_a_stopped_job_keeps_what_was_read_and_the_command_continues_it(
    three_nodes, image_files, tmp_path, monkeypatch, capsys
):
    monkeypatch.setattr(reading, "CHUNK_IMAGES", 10)
    gallery = new_gallery(tmp_path / "gallery")
    answers = iter([False, False, True])
    stopped = index_sources(
        gallery,
        [Folder(image_files)],
        workers=1,
        executor=ClusterExecutor,
        stop=lambda: next(answers, True),
    )
    assert stopped.stopped
    assert 0 < stopped.indexed < 300
    options = ["--gallery", str(gallery.folder), "--on", "ray", "--workers", "1"]
    assert main(["index", str(image_files), *options]) == 0
    assert f"{300 - stopped.indexed:,} new, {stopped.indexed} already" in capsys.readouterr().out


def test_differing_codes_of_a_node_are_counted(empty_gallery, image_files):
    """The codes of other processors may differ in a few bits; here one of each image does."""
    node = executor.Node("1", "10.0.0.7", "cuda", {})
    tiny = [np.full((32, 32, 3), level, np.uint8) for level in (0, 80, 160, 240)]
    columns = empty_gallery.encoder().columns(np.stack(tiny))
    columns["codes"][:, 5] ^= 1
    images = [
        Prepared(b"", one, 32, 32, None, {name: values[row] for name, values in columns.items()})
        for row, one in enumerate(tiny)
    ]
    running = ClusterExecutor(empty_gallery, 1)
    running._samples = {("1", "cuda"): (node, images)}
    (remark,) = running.remarks()
    assert remark == (
        "the GPU of 10.0.0.7 makes slightly different codes: 4 bits of 4 images differ from those "
        "that this machine makes"
    )


def test_nodes_with_other_software_are_not_used(three_nodes, image_files, tmp_path, monkeypatch):
    """They might decode a picture otherwise."""
    ours = executor.software() | {"pillow": "99"}
    monkeypatch.setattr(executor, "software", lambda: ours)
    gallery = new_gallery(tmp_path / "gallery")
    wanted = r"no room for this job: 127.0.0.1 is not used: it has pillow \d.*, and here is 99$"
    with pytest.raises(ClusterError, match=wanted):
        on_the_cluster(gallery, Folder(image_files), workers=1)
    assert len(gallery.catalog.rows().ids) == 0


@pytest.mark.soak
def test_all_of_cifar10_and_photographs_are_indexed_while_a_node_is_killed(
    three_nodes, cifar10, tmp_path
):
    sources = [TarArchive(cifar10), Folder(Path(DATA) / "photos")]
    alone, spread = new_gallery(tmp_path / "alone"), new_gallery(tmp_path / "spread")

    def kill() -> None:
        while spread.catalog.count() == 0:
            time.sleep(0.5)
        three_nodes.remove_node(next(iter(three_nodes.worker_nodes)), allow_graceful=False)

    Thread(target=kill, daemon=True).start()
    summary = on_the_cluster(spread, *sources)
    assert len(three_nodes.list_all_nodes()) == 2
    three_nodes.add_node()
    expected = index_sources(alone, sources)
    assert replace(summary, seconds=0) == replace(expected, seconds=0)
    assert summary.indexed == 60_000 + 200
    assert everything(spread) == everything(alone)


@pytest.mark.soak
def test_a_killed_command_leaves_no_process_and_is_completed(cifar10, tmp_path):
    """The command has a cluster of its own, which ends with it, however it ends."""
    gallery = tmp_path / "gallery"
    command = ["-m", "hashsearch.cli", "index", f"{cifar10}:test", "--gallery", gallery]
    with subprocess.Popen([sys.executable, *command, "--on", "ray"]) as job:
        catalog, shard = gallery / "catalog.sqlite", gallery / "unfinished"
        while not (catalog.exists() and any(path.is_dir() for path in shard.iterdir())):
            assert job.poll() is None
            time.sleep(0.1)
        children = psutil.Process(job.pid).children(recursive=True)
        job.kill()
    assert {"raylet", "gcs_server"} <= {one.name() for one in children}
    _, alive = psutil.wait_procs(children, timeout=300)  # Ray's agents take minutes to notice
    assert not alive
    done = subprocess.run(
        [sys.executable, *command, "--on", "ray"], stdout=subprocess.PIPE, text=True
    )
    assert done.returncode == 0
    assert "10,000 images" in done.stdout
