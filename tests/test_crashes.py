"""Whatever happens to a job, the gallery is as it was before or after a commit."""

import hashlib
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from hashsearch.gallery import catalog
from hashsearch.gallery.gallery_folder import GalleryFolder
from hashsearch.jobs.compacting import compact
from hashsearch.jobs.index.indexing import index_sources
from hashsearch.jobs.reencoding import reencode
from hashsearch.sources.folder import Folder
from tests.galleries import another_png, content

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


@pytest.mark.parametrize("kills", [50, pytest.param(1000, marks=pytest.mark.soak)])
def test_a_writer_killed_at_any_moment_loses_nothing_and_doubles_nothing(kills, empty, tmp_path):
    (tmp_path / "scratch").mkdir()
    met = run_script("die_writing", empty, tmp_path / "scratch", kills, 7)
    assert met["kills"] == kills
    # The moments were such as to hurt: shards half written, galleries half full.
    assert met["unfinished"] > kills // 5
    assert met["least"] < met["rows"]


@pytest.fixture
def events(monkeypatch) -> list[tuple[str, int, int]]:
    """What reaches the disk, in its order: ("fsync", inode, size) and ("rename", inode, 0)."""
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


@pytest.mark.parametrize("job", ["index", "compact", "reencode"])
def test_everything_is_on_the_disk_before_the_commit_that_names_it(
    job, scattered, other_model_folder, tmp_path, events
):
    """What a power cut could take is what was not flushed; here is the order of it all."""

    def trace(statement: str) -> None:
        if statement.startswith(("INSERT INTO shards", "UPDATE shards")):
            events.append(("name", 0, 0))
        elif statement == "COMMIT":
            events.append(("commit", 0, 0))

    (tmp_path / "picture").mkdir()
    (tmp_path / "picture" / "new.png").write_bytes(another_png())
    scattered.catalog._writing.set_trace_callback(trace)
    before = {*scattered.folder.rglob("*")}
    events.clear()
    if job == "index":
        index_sources(scattered, [Folder(tmp_path / "picture")], workers=1)
    elif job == "compact":
        compact(scattered)
    else:
        reencode(scattered, other_model_folder)
    made = [path for path in scattered.folder.rglob("*") if path not in before]
    made = [path for path in made if not path.name.startswith("catalog")]  # SQLite's own
    assert len(made) >= 4
    committed = events.index(("commit", 0, 0), events.index(("name", 0, 0)))
    flushed = events[:committed]
    for path in made:
        status = path.stat()
        if path.is_file():
            assert ("fsync", status.st_ino, status.st_size) in flushed, f"all bytes of {path}"
        check_entry(path, flushed)


def check_entry(path: Path, flushed: list[tuple[str, int, int]]) -> None:
    """After a file or folder got its name, the folder that holds it was flushed."""
    inode, parent = path.stat().st_ino, path.parent.stat().st_ino
    renames = [n for n, (what, node, _) in enumerate(flushed) if (what, node) == ("rename", inode)]
    syncs = [n for n, (what, node, _) in enumerate(flushed) if (what, node) == ("fsync", inode)]
    named = max(renames, default=syncs[-1])
    assert any((what, node) == ("fsync", parent) for what, node, _ in flushed[named + 1 :]), path


def test_the_catalog_flushes_every_commit(empty, monkeypatch):
    """SQLite's own promise: with WAL and synchronous FULL, a commit outlives a power cut."""
    gallery = GalleryFolder(empty)
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
    unbroken = GalleryFolder(gallery_folder)
    expected = repr(sorted(content(unbroken), key=repr)).encode()
    unbroken.close()
    assert met["content"] == hashlib.sha256(expected).hexdigest()
