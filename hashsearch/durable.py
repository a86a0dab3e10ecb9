"""Writing folders and files: where it is possible, and so that they survive a power cut."""

import os
from pathlib import Path

from hashsearch.errors import NotWritable


def require_writable(folder: Path) -> None:
    """Raise NotWritable unless files can be written to a folder, or a new folder can be made."""
    there = folder.absolute()
    while not os.path.exists(there):  # noqa: PTH110  # never raises
        there = there.parent
    if not there.is_dir():
        raise NotWritable(f"{folder} cannot be made, since {there} is not a folder")
    if not os.access(there, os.W_OK | os.X_OK):
        raise NotWritable(
            f"nothing can be written to {there}, which is on a read-only disk or of another user; "
            f"name another folder than {folder}"
        )


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
