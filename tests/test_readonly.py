"""Galleries on read-only disks and in folders of other users: searched, but not changed."""

import os
import shutil
import sqlite3
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

import hashsearch as hs
from hashsearch.errors import GalleryReadOnly, InvalidGallery
from hashsearch.gallery import catalog, opening
from hashsearch.gallery.gallery_folder import GalleryFolder
from hashsearch.gallery.history import last_job, start_job
from tests.galleries import can_mount, everything, ids
from tests.test_formats import saved_gallery

# Reads the gallery at argv[1] in every way, and tries to change it.
LOOK = """
import sys
import hashsearch as hs
from hashsearch.cli import main
from hashsearch.errors import ArtifactMismatch, GalleryReadOnly

folder, pictures = sys.argv[1:]
with hs.open(folder) as gallery:
    first = next(iter(gallery)).id
    print("images", len(gallery), [hit.id for hit in gallery.search(first, k=3)])
    for change in (lambda: gallery.remove(ids=[first]), lambda: gallery.index(pictures)):
        try:
            change()
        except (ArtifactMismatch, GalleryReadOnly):  # of earlier image rules, or read-only
            print("refused")
for command in ("info", "failures", "verify"):
    assert main(["gallery", command, folder]) == 0, command
"""


@pytest.fixture
def look(tmp_path, image_files):
    """Runs LOOK on a gallery that is mounted read-only, and returns the lines that it prints."""
    script, mount = tmp_path / "look.py", tmp_path / "readonly"
    script.write_text(LOOK)
    mount.mkdir()

    def run(folder: Path) -> list[str]:
        command = f"""
            mount --bind {folder} {mount}
            mount -o remount,ro,bind {mount}
            exec {sys.executable} {script} {mount} {image_files}
        """
        done = subprocess.run(
            ["unshare", "--map-root-user", "--mount", "sh", "-ec", textwrap.dedent(command)],
            capture_output=True,
            text=True,
            env=os.environ | {"PYTHONPATH": str(Path(__file__).parents[1])},
        )
        assert done.returncode == 0, done.stderr
        return done.stdout.splitlines()

    return run


def seen(gallery: GalleryFolder) -> str:
    """What LOOK prints of a gallery."""
    with hs.open(gallery.folder) as opened:
        first = ids(gallery)[0]
        return f"images {len(opened)} {[hit.id for hit in opened.search(first, k=3)]}"


needs_mount = pytest.mark.skipif(not can_mount(), reason="no file system can be mounted here")


@needs_mount
@pytest.mark.parametrize("state", ["closed", "being written", "copied without its index"])
def test_a_gallery_on_a_read_only_disk_is_searched_and_verified(state, gallery, look, tmp_path):
    """In the last two states, the last commit is in the write-ahead log alone."""
    folder = gallery.folder
    with hs.open(folder) as opened:
        opened.remove(ids=[1])
    expected = seen(gallery)
    if state == "closed":
        gallery.close()
    else:
        assert (folder / "catalog.sqlite-wal").stat().st_size
    if state == "copied without its index":
        folder = Path(shutil.copytree(folder, tmp_path / "snapshot"))
        (folder / "catalog.sqlite-shm").unlink()
    before = {path: path.read_bytes() for path in folder.glob("catalog*")}
    assert look(folder)[:3] == [expected, "refused", "refused"]
    if state != "being written":
        assert {path: path.read_bytes() for path in folder.glob("catalog*")} == before


@needs_mount
@pytest.mark.parametrize("version", [1, 2])
def test_a_gallery_of_an_earlier_format_is_read_where_it_cannot_be_upgraded(
    version, look, tmp_path
):
    folder = saved_gallery(version, tmp_path / "gallery")
    assert look(folder)[0].startswith("images 3 [")
    with sqlite3.connect(f"file:{folder}/catalog.sqlite?immutable=1", uri=True) as db:
        assert db.execute("PRAGMA user_version").fetchone() == (version,)
    db.close()


@pytest.fixture
def elsewhere() -> Iterator[Path]:
    """A folder that every user can read; pytest's own can be read by one."""
    with TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        yield Path(folder)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
def test_a_gallery_of_another_user_is_searched(gallery, elsewhere):
    shutil.copytree(gallery.folder, elsewhere / "gallery")
    gallery.close()
    os.seteuid(65534)
    try:
        with hs.open(elsewhere / "gallery") as opened:
            assert len(opened.search(1, k=3)) == 3
            with pytest.raises(GalleryReadOnly, match="can be searched but not changed"):
                opened.remove(ids=[1])
    finally:
        os.seteuid(0)


def without_rights(monkeypatch) -> None:
    """As if no catalog could be written to by those who open it from now on."""
    monkeypatch.setattr(opening, "_can_write", lambda path: False)


def test_a_reader_without_rights_sees_what_others_commit(gallery, monkeypatch):
    with hs.open(gallery.folder) as writer, monkeypatch.context() as patched:
        gallery.close()
        without_rights(patched)
        with hs.open(gallery.folder) as reader:
            assert len(reader) == 300
            writer.remove(ids=[1, 2])
            assert len(reader.search(3, k=1000)) == 297
            assert len(reader) == 298
            writer.close()
            assert len(reader) == 298
            with pytest.raises(GalleryReadOnly, match="can be searched but not changed"):
                reader.remove(ids=[3])


def test_a_gallery_that_nobody_wrote_to_is_opened_again_once_somebody_does(gallery, monkeypatch):
    gallery.close()
    with monkeypatch.context() as patched:
        without_rights(patched)
        reader = hs.open(gallery.folder)
    assert len(reader) == 300
    with hs.open(gallery.folder) as writer:
        writer.remove(ids=[1, 2])
        assert len(reader.search(3, k=1000)) == 297
    reader.close()


def test_a_temporary_copy_is_deleted_when_the_gallery_is_closed(gallery, tmp_path, monkeypatch):
    expected = everything(gallery)
    with gallery.catalog.transaction() as db:
        db.execute("UPDATE images SET label = 'x' WHERE id = 1")
    snapshot = Path(shutil.copytree(gallery.folder, tmp_path / "snapshot"))
    (snapshot / "catalog.sqlite-shm").unlink()
    (tmp_path / "temporary").mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "temporary"))
    without_rights(monkeypatch)
    reader = GalleryFolder(snapshot)
    assert everything(reader) == expected
    assert reader.catalog.record(1).label == "x"
    assert list((tmp_path / "temporary").iterdir()) != []
    reader.close()
    assert list((tmp_path / "temporary").iterdir()) == []


@pytest.fixture
def snapshot(gallery, tmp_path, monkeypatch) -> Path:
    """A read-only copy of a gallery whose last commit is in a log that lacks its index."""
    with gallery.catalog.transaction() as db:
        db.execute("UPDATE images SET label = 'x' WHERE id = 1")
    folder = Path(shutil.copytree(gallery.folder, tmp_path / "snapshot"))
    (folder / "catalog.sqlite-shm").unlink()
    without_rights(monkeypatch)
    return folder


def test_a_catalog_is_not_read_from_a_copy_that_was_made_during_a_change(snapshot, monkeypatch):
    """Whatever was copied before a change and after it does not fit together."""
    copied, changes = shutil.copyfile, iter(range(2))

    def copy_and_change(source: Path, target: Path) -> None:
        copied(source, target)
        if (time := next(changes, None)) is not None:
            os.utime(source, ns=(0, time))

    monkeypatch.setattr(opening, "_RETRY_AFTER_S", 0.0)
    monkeypatch.setattr(shutil, "copyfile", copy_and_change)
    reader = GalleryFolder(snapshot)
    assert reader.catalog.record(1).label == "x"
    reader.close()
    changes = iter(range(10, 1000))
    with pytest.raises(InvalidGallery, match="is being written to all the time; try again later"):
        GalleryFolder(snapshot)


def test_a_copy_that_cannot_be_made_is_named(snapshot, tmp_path, monkeypatch):
    def full(source: Path, target: Path) -> None:
        target.write_bytes(b"a part")
        raise OSError(28, "No space left on device")

    (tmp_path / "temporary").mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "temporary"))
    monkeypatch.setattr(shutil, "copyfile", full)
    with pytest.raises(InvalidGallery, match=r"cannot be made in .*: No space left.*TMPDIR names"):
        GalleryFolder(snapshot)
    assert list((tmp_path / "temporary").iterdir()) == []


def test_the_last_job_is_read_from_the_catalog_as_it_is_now(gallery, monkeypatch):
    gallery.close()
    with monkeypatch.context() as patched:
        without_rights(patched)
        reader = GalleryFolder(gallery.folder)
    assert last_job(reader.catalog).kind == "index"
    writer = GalleryFolder(gallery.folder)
    start_job(writer.catalog, "compact")
    assert last_job(reader.catalog).kind == "compact"
    reader.close()
    writer.close()


def test_what_was_read_while_a_writer_began_is_read_again(gallery, monkeypatch):
    """Without a log, SQLite is told that nobody writes; a change under its hands goes unseen."""
    gallery.close()
    with monkeypatch.context() as patched:
        without_rights(patched)
        reader = GalleryFolder(gallery.folder)
    real, writers = catalog._places, []

    def removing(*arguments):
        if not writers:
            writers.append(hs.open(gallery.folder))
            found = [*real(*arguments)]
            writers[0].remove(ids=[1])
            return iter(found)
        return real(*arguments)

    monkeypatch.setattr(catalog, "_places", removing)
    rows = reader.catalog.rows()
    assert len(rows.ids) == 299
    assert rows.generation == reader.catalog.generation()
    reader.close()
    writers[0].close()
