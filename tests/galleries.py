"""Helpers that several tests of galleries share."""

import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
from fastapi.testclient import TestClient

from hashsearch.cli import main
from hashsearch.gallery.gallery_folder import GalleryFolder
from hashsearch.gallery.records import ImageRecord
from hashsearch.images import encode_png
from hashsearch.jobs.index.indexing import IndexSummary, index_sources
from hashsearch.sources.folder import Folder
from tests import forked


def run(*arguments: object) -> int:
    return main([str(argument) for argument in arguments])


def index(gallery: GalleryFolder, folder: Path, workers: int = 1) -> IndexSummary:
    return index_sources(gallery, [Folder(folder)], workers=workers)


def served(client: TestClient) -> int:
    """Number of images that a service reports."""
    return int(client.get("/v1/gallery").json()["images"])


def ids(gallery: GalleryFolder) -> list[int]:
    return gallery.catalog.rows().ids.tolist()


def records(gallery: GalleryFolder) -> list[ImageRecord]:
    return gallery.catalog.records(ids(gallery))


def content(gallery: GalleryFolder) -> set[tuple]:
    """What a gallery holds, without ids: (key, uri, label, code, pixels)."""
    rows = gallery.catalog.rows()
    records = gallery.catalog.records(rows.ids.tolist())
    known = gallery.catalog.known_files([record.uri for record in records])
    codes, pixels = gallery.column("codes", rows), gallery.column("pixels", rows)
    return {
        (known[record.uri].key, record.uri, record.label, code.tobytes(), values.tobytes())
        for record, code, values in zip(records, codes, pixels, strict=True)
    }


def everything(gallery: GalleryFolder) -> list[tuple]:
    """(id, uri, code, pixels, thumbnail) of every image, in id order."""
    return [
        (one, gallery.catalog.record(one).uri, gallery.code(one).tobytes(),
         gallery.pixels(one).tobytes(), gallery.thumbnail(one))
        for one in ids(gallery)
    ]  # fmt: skip


def another_png() -> bytes:
    return encode_png(np.full((40, 40, 3), 77, np.uint8))


def damage(path: Path) -> None:
    """Change one byte in the middle of a file."""
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 0x10
    path.write_bytes(data)


def run_killed(job: str, subject: object, gallery: GalleryFolder, *point: str) -> None:
    """Run a job in a process that kills itself with SIGKILL at a point of the job."""
    runner = Path(__file__).with_name("kill_at.py")
    done = forked.run([sys.executable, runner, job, str(subject), gallery.folder, *point])
    assert done.returncode == -signal.SIGKILL, done.stderr


def has_no_litter(gallery: GalleryFolder) -> bool:
    """Whether the folder holds no files of shards or jobs that the catalog does not name."""
    shards = gallery.every_shard()
    named = {shard.folder / name for shard in shards.values() for name in shard.checksums}
    found = {path for path in (gallery.folder / "shards").rglob("*") if path.is_file()}
    return found == named and not any((gallery.folder / "unfinished").glob("job/*"))


def can_mount() -> bool:
    """Whether a process may mount file systems of its own here."""
    if shutil.which("unshare") is None:
        return False
    command = ["unshare", "--map-root-user", "--mount", "mount", "-t", "tmpfs", "tmpfs", "/mnt"]
    return subprocess.run(command, capture_output=True).returncode == 0
