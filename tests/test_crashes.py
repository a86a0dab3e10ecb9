"""After any crash, the gallery is as it was before or after a commit."""

import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from hashsearch.gallery import opening
from hashsearch.gallery.gallery_folder import GalleryFolder
from hashsearch.jobs.building import build_index
from hashsearch.jobs.compacting import compact
from hashsearch.jobs.index.indexing import index_sources
from hashsearch.jobs.reencoding import reencode
from hashsearch.sources.folder import Folder
from tests.galleries import another_png, can_mount, content

TESTS = Path(__file__).parent


@pytest.fixture
def empty(tmp_path, model_folder) -> Path:
    GalleryFolder.create(tmp_path / "empty", model_folder).close()
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


@pytest.mark.parametrize("kills", [15, pytest.param(1000, marks=pytest.mark.soak)])
def test_a_writer_killed_at_any_moment_neither_loses_nor_repeats_rows(kills, empty, tmp_path):
    (tmp_path / "scratch").mkdir()
    stats = run_script("die_writing", empty, tmp_path / "scratch", kills, 7)
    assert stats["kills"] == kills
    # The moments were hard ones: shards were half written, and galleries half full.
    assert stats["unfinished"] > kills // 5
    assert stats["least"] < stats["rows"]


@pytest.fixture
def events(monkeypatch) -> list[tuple[str, int, int]]:
    """Flushes and renames in their order: ("fsync", inode, size) and ("rename", inode, 0)."""
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
    return events


@pytest.mark.parametrize("job", ["index", "compact", "reencode", "build"])
def test_everything_is_on_the_disk_before_the_commit_that_names_it(
    job, scattered, other_model_folder, tmp_path, events, monkeypatch
):
    """A power cut may lose what was not flushed, so the order of flushes matters."""

    def trace(statement: str) -> None:
        if statement.startswith(
            ("INSERT INTO shards", "UPDATE shards", "INSERT OR REPLACE INTO settings")
        ):
            events.append(("name", 0, 0))
        elif statement == "COMMIT":
            events.append(("commit", 0, 0))

    (tmp_path / "picture").mkdir()
    (tmp_path / "picture" / "new.png").write_bytes(another_png())
    connect = opening.connect

    def traced(path, options=""):
        db = connect(path, options)
        db.set_trace_callback(trace)
        return db

    monkeypatch.setattr(opening, "connect", traced)
    before = {*scattered.folder.rglob("*")}
    events.clear()
    if job == "index":
        index_sources(scattered, [Folder(tmp_path / "picture")], workers=1)
    elif job == "compact":
        compact(scattered)
    elif job == "build":
        build_index(scattered, "ivf")
    else:
        reencode(scattered, other_model_folder)
    new = [path for path in scattered.folder.rglob("*") if path not in before]
    new = [path for path in new if not path.name.startswith("catalog")]  # SQLite's own
    assert len(new) >= 4
    committed = events.index(("commit", 0, 0), events.index(("name", 0, 0)))
    flushed = events[:committed]
    for path in new:
        status = path.stat()
        if path.is_file():
            assert ("fsync", status.st_ino, status.st_size) in flushed, f"all bytes of {path}"
        check_entry(path, flushed)


def check_entry(path: Path, flushed: list[tuple[str, int, int]]) -> None:
    """Check that the parent folder was flushed after a file or folder got its name."""
    inode, parent = path.stat().st_ino, path.parent.stat().st_ino
    renames = [n for n, (what, node, _) in enumerate(flushed) if (what, node) == ("rename", inode)]
    syncs = [n for n, (what, node, _) in enumerate(flushed) if (what, node) == ("fsync", inode)]
    named = max(renames, default=syncs[-1])
    assert any((what, node) == ("fsync", parent) for what, node, _ in flushed[named + 1 :]), path


def test_the_catalog_flushes_every_commit(empty, monkeypatch):
    """With WAL and synchronous FULL, SQLite promises that a commit survives a power cut."""
    gallery = GalleryFolder(empty)
    with gallery.catalog.transaction() as db:
        assert db.execute("PRAGMA journal_mode").fetchone() == ("wal",)
        assert db.execute("PRAGMA synchronous").fetchone() == (2,)
    gallery.close()


@pytest.mark.skipif(not can_mount(), reason="no file system can be mounted here")
def test_a_disk_that_is_full_at_any_moment_leaves_a_gallery_that_can_be_completed(
    image_files, model_folder, gallery_folder, tmp_path
):
    """A real file system that is too small, and grows a little each time."""
    (tmp_path / "disk").mkdir()
    namespace = ("unshare", "--map-root-user", "--mount")
    result = run_script("fill_disk", image_files, model_folder, tmp_path / "disk", prefix=namespace)
    assert result["full"] >= 3
    assert len(result["counts"]) >= 2, "each run committed something"
    unbroken = GalleryFolder(gallery_folder)
    expected = repr(sorted(content(unbroken), key=repr)).encode()
    unbroken.close()
    assert result["content"] == hashlib.sha256(expected).hexdigest()


@pytest.mark.skipif(not can_mount(), reason="no file system can be mounted here")
def test_an_addition_over_http_on_a_full_disk_is_whole_or_not_there(gallery_folder, tmp_path):
    (tmp_path / "disk").mkdir()
    namespace = ("unshare", "--map-root-user", "--mount")
    result = run_script("fill_disk_http", gallery_folder, tmp_path / "disk", prefix=namespace)
    assert result["answers"].pop("507 disk-full") >= 3
    assert set(result["answers"]) <= {"200 removed"}
    assert len(set(result["ids"])) == 25
    assert result["images"] == 325
    assert result["findings"] == []
    assert result["is_clean"]
