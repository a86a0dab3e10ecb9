"""The gallery that is served: the search benchmark's million rows, with labels, kept on disk."""

import shutil
from collections.abc import Callable
from pathlib import Path

from benchmarks.search.codes import IMAGES, MILLION, SOURCES, real_rows
from benchmarks.search.live import write_gallery
from hashsearch.models.card import PRETRAINED, read_card
from hashsearch.sources import DataFolders, open_source

_FORMAT = "gallery-1"  # changes if another gallery is written


def kept_gallery(folders: DataFolders, say: Callable[[str], None]) -> Path:
    """The folder of the gallery, which the first run writes to the user's cache."""
    kept = folders.cache / "benchmarks" / f"{_FORMAT}-{read_card(PRETRAINED).fingerprint[:12]}"
    gallery, unfinished = kept / "gallery", kept / "unfinished"
    if not gallery.exists():
        shutil.rmtree(unfinished, ignore_errors=True)
        kept.mkdir(parents=True, exist_ok=True)
        rows = real_rows(folders, say).gallery
        labels = [image.label for name in SOURCES for image in open_source(name, folders)]
        write_gallery(unfinished, rows, labels[:IMAGES])
        unfinished.rename(gallery)
        say(f"wrote {MILLION:,} rows to {gallery}")
    return gallery
