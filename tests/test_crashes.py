"""Whatever happens to a job, the gallery is as it was before or after a commit."""

import hashlib
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from hashsearch.gallery import catalog
from hashsearch.gallery.catalog import NewImage
from hashsearch.gallery.folder import Gallery
from tests.galleries import content

TESTS = Path(__file__).parent


@pytest.fixture
def empty(tmp_path, model_folder) -> Path:
    Gallery.create(tmp_path / "empty", model_folder).close()
    return tmp_path / "empty"


def run_script(name: str, *arguments: object, prefix: tuple[str, ...] = ()) -> dict:
    done = subprocess.run(
        [*prefix, sys.executable, "-m", f"tests.{name}", *map(str, arguments)],
        capture_output=True,
        text=True,
        cwd=TESTS.parent,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.parametrize("kills", [50, pytest.param(1000, marks=pytest.mark.soak)])
def test_a_writer_killed_at_any_moment_loses_nothing_and_doubles_nothing(kills, empty, tmp_path):
    (tmp_path / "scratch").mkdir()
    met = run_script("die_writing", empty, tmp_path / "scratch", kills, 7)
    assert met["kills"] == kills
    # The moments were such as to hurt: shards half written, galleries half full.
    assert met["unfinished"] > kills // 5
    assert met["least"] < met["rows"]


def test_everything_is_on_the_disk_before_the_commit_that_names_it(empty, monkeypatch):
    """What a power cut could take is what was not flushed; here is the order of it all."""
    events: list[tuple[str, int, int]] = []
    fsync, replace = os.fsync, os.replace

    def recording_fsync(descriptor):
        status = os.fstat(descriptor)
        fsync(descriptor)
        events.append(("fsync", status.st_ino, status.st_size))

    def recording_replace(source, target, **named):
        replace(source, target, **named)
        events.append(("rename", Path(target).stat().st_ino, 0))

    monkeypatch.setattr(os, "fsync", recording_fsync)
    monkeypatch.setattr(os, "replace", recording_replace)
    monkeypatch.setattr(os, "rename", recording_replace)
    gallery = Gallery(empty)
    gallery.catalog._writing.set_trace_callback(
        lambda statement: events.append(("commit", 0, 0)) if statement == "COMMIT" else None
    )
    with gallery.job_lock():
        events.clear()
        writer = gallery.new_shard()
        rows = {"codes": np.ones((9, 32), np.uint8), "pixels": np.ones((9, 3072), np.uint8)}
        writer.append(rows, [b"thumbnail"] * 9)
        images = [NewImage(bytes([n]) * 32, f"a#{n}", None, 32, 32, 1, 1) for n in range(9)]
        gallery.commit(writer, images)
    shard = gallery.shard_folder(1)
    files = {(path.stat().st_ino, path.stat().st_size) for path in shard.iterdir()}
    assert len(files) == 4
    renamed, committed = (
        events.index(("rename", shard.stat().st_ino, 0)),
        events.index(("commit", 0, 0)),
    )
    flushed = [(inode, size) for what, inode, size in events[:renamed] if what == "fsync"]
    assert files <= set(flushed), "every file, with all its bytes, before the shard gets its name"
    last_file = max(flushed.index(file) for file in files)
    folder_at = [inode for inode, _ in flushed].index(shard.stat().st_ino)
    assert folder_at > last_file
    shards_at = [
        number
        for number, (what, inode, _) in enumerate(events)
        if what == "fsync" and inode == shard.parent.stat().st_ino
    ]
    assert renamed < shards_at[0] < committed
    gallery.close()


def test_the_catalog_flushes_every_commit(empty, monkeypatch):
    """SQLite's own promise: with WAL and synchronous FULL, a commit outlives a power cut."""
    gallery = Gallery(empty)
    for db in (gallery.catalog._writing, catalog._connect(empty / "catalog.sqlite")):
        assert db.execute("PRAGMA journal_mode").fetchone() == ("wal",)
        assert db.execute("PRAGMA synchronous").fetchone() == (2,)
    gallery.close()


def can_mount() -> bool:
    """Whether a process may have file systems of its own here."""
    if shutil.which("unshare") is None:
        return False
    command = ["unshare", "--map-root-user", "--mount", "mount", "-t", "tmpfs", "tmpfs", "/mnt"]
    return subprocess.run(command, capture_output=True).returncode == 0


@pytest.mark.skipif(not can_mount(), reason="no file system can be mounted here")
def test_a_disk_that_is_full_at_any_moment_leaves_a_gallery_that_can_be_completed(
    image_files, model_folder, gallery_folder, tmp_path
):
    """A real disk, of some 100 KB too little, then a little more each time."""
    (tmp_path / "disk").mkdir()
    namespace = ("unshare", "--map-root-user", "--mount")
    met = run_script("fill_disk", image_files, model_folder, tmp_path / "disk", prefix=namespace)
    assert met["full"] >= 3
    assert len(met["counts"]) >= 2, "some of it was committed each time"
    unbroken = Gallery(gallery_folder)
    expected = repr(sorted(content(unbroken), key=repr)).encode()
    unbroken.close()
    assert met["content"] == hashlib.sha256(expected).hexdigest()
