"""Making files survive a power cut."""

import os
from pathlib import Path


def sync_folder(folder: Path) -> None:
    """Make the names in a folder durable."""
    _sync(folder)


def sync_tree(folder: Path) -> None:
    """Make a folder, and everything below it, durable."""
    for path in sorted(folder.rglob("*")):
        _sync(path)
    _sync(folder)


def write_whole(path: Path, text: str) -> None:
    """Write a file atomically and durably; an earlier one is replaced."""
    unfinished = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        unfinished.write_text(text, encoding="utf-8")
        _sync(unfinished)
        unfinished.replace(path)
    finally:
        unfinished.unlink(missing_ok=True)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
