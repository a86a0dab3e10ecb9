"""Run a job on a gallery, and kill it at one call of one function.

python kill_at.py JOB SUBJECT GALLERY MODULE OWNER.NAME before|after CALL

JOB: index (SUBJECT: a folder of pictures), compact (SUBJECT is ignored), reencode (SUBJECT: a
model) or build (SUBJECT: the kind of an index). CALL: number of the call, from 1.
"""

import importlib
import os
import signal
import sys
from operator import attrgetter
from pathlib import Path

from hashsearch.gallery.gallery_folder import GalleryFolder
from hashsearch.jobs.building import build_index
from hashsearch.jobs.compacting import compact
from hashsearch.jobs.index import committing, reading
from hashsearch.jobs.index.indexing import index_sources
from hashsearch.jobs.reencoding import reencode
from hashsearch.sources.folder import Folder


def kill_at(module: str, path: str, when: str, call: int) -> None:
    """Replace a function by one that kills this process before or after one of its calls."""
    owner_path, _, name = path.rpartition(".")
    owner = importlib.import_module(module)
    if owner_path:
        owner = attrgetter(owner_path)(owner)
    original = getattr(owner, name)
    calls = []

    def replaced(*arguments, **named):
        calls.append(1)
        if len(calls) == call and when == "before":
            os.kill(os.getpid(), signal.SIGKILL)
        result = original(*arguments, **named)
        if len(calls) == call:
            os.kill(os.getpid(), signal.SIGKILL)
        return result

    setattr(owner, name, replaced)


if __name__ == "__main__":
    job, subject, folder, module, path, when, call = sys.argv[1:]
    committing.MAX_ROWS = 100
    reading.CHUNK_IMAGES = 30
    kill_at(module, path, when, int(call))
    gallery = GalleryFolder(Path(folder))
    if job == "index":
        index_sources(gallery, [Folder(Path(subject))], workers=1)
    elif job == "compact":
        compact(gallery)
    elif job == "build":
        build_index(gallery, subject)
    else:
        reencode(gallery, Path(subject))
