"""Run an indexing job that is killed at the second call of one function.

python kill_at.py SOURCE GALLERY MODULE OWNER.NAME before|after
"""

import importlib
import os
import signal
import sys
from operator import attrgetter
from pathlib import Path

from hashsearch.gallery import filling, reading
from hashsearch.gallery.folder import Gallery
from hashsearch.gallery.indexing import index_sources
from hashsearch.sources.folder import Folder


def kill_at(module: str, path: str, when: str) -> None:
    """Replace a function by one that kills this process before or after its second call."""
    owner_path, _, name = path.rpartition(".")
    owner = importlib.import_module(module)
    if owner_path:
        owner = attrgetter(owner_path)(owner)
    original = getattr(owner, name)
    calls = []

    def replaced(*arguments, **named):
        calls.append(1)
        if len(calls) == 2 and when == "before":
            os.kill(os.getpid(), signal.SIGKILL)
        result = original(*arguments, **named)
        if len(calls) == 2:
            os.kill(os.getpid(), signal.SIGKILL)
        return result

    setattr(owner, name, replaced)


if __name__ == "__main__":
    source, gallery, module, path, when = sys.argv[1:]
    filling.MAX_ROWS = 100
    reading.CHUNK_IMAGES = filling.CHUNK_IMAGES = 30
    kill_at(module, path, when)
    index_sources(Gallery(Path(gallery)), [Folder(Path(source))], workers=1)
