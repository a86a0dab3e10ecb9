"""Index into a gallery on a disk that is too small, until the disk is large enough.

unshare --map-root-user --mount python fill_disk.py SOURCE MODEL FOLDER

FOLDER becomes a file system in memory that only this process sees. It grows step by
step, so that it is full at another moment of the job each time; after each failure the
gallery is opened and checked. Prints as JSON how often the disk was full, the numbers
of images after each failure, and a digest of the final content.
"""

import errno
import hashlib
import json
import multiprocessing
import sqlite3
import subprocess
import sys
from pathlib import Path

from hashsearch.gallery.gallery_folder import GalleryFolder
from hashsearch.jobs.index import committing, reading, workers
from hashsearch.jobs.index.indexing import index_sources
from hashsearch.jobs.verifying import verify
from hashsearch.sources.folder import Folder
from tests.die_writing import has_no_litter
from tests.galleries import content

_STEP = 320 * 1024


def mount(folder: Path, size: int, how: str = "size") -> None:
    options = f"remount,size={size}" if how == "remount" else f"size={size}"
    subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", folder], check=True)


def is_full(error: Exception) -> bool:
    if isinstance(error, OSError):
        return error.errno == errno.ENOSPC
    return "disk is full" in str(error) or "disk I/O error" in str(error)


def main(source: Path, model: Path, folder: Path) -> None:
    # Worker processes are forked, as each run of the job needs another.
    multiprocessing.set_forkserver_preload(["hashsearch.jobs.index.prepare"])
    workers.get_context = lambda _: multiprocessing.get_context("forkserver")
    committing.MAX_ROWS = 60
    reading.CHUNK_IMAGES = 20
    size = sum(path.stat().st_size for path in model.iterdir()) + 512 * 1024
    mount(folder, size)
    GalleryFolder.create(folder / "gallery", model).close()
    full, counts = 0, [0]
    while True:
        gallery = GalleryFolder(folder / "gallery")
        try:
            index_sources(gallery, [Folder(source)], workers=1)
        except (OSError, sqlite3.Error) as error:
            if not is_full(error):
                raise
            full += 1
        else:
            break
        finally:
            gallery.close()
        size += _STEP
        mount(folder, size, "remount")
        gallery = GalleryFolder(folder / "gallery")
        assert verify(gallery, 20).findings == []
        assert counts[-1] <= gallery.catalog.count(), "what was committed stays"
        counts.append(gallery.catalog.count())
        assert not any((gallery.folder / "unfinished").glob("job/*"))
        gallery.close()
    gallery = GalleryFolder(folder / "gallery")
    digest = hashlib.sha256(repr(sorted(content(gallery), key=repr)).encode()).hexdigest()
    assert has_no_litter(gallery.folder)
    print(json.dumps({"full": full, "counts": sorted(set(counts)), "content": digest}))


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))
