"""Folders for results that cannot be made or written to."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from hashsearch.durable import require_writable
from hashsearch.errors import NotWritable
from tests.galleries import can_mount
from tests.test_cli import error_of, run

COMMANDS = {
    "index": "index {pictures} --gallery {out}",
    "train": "train dense256-quick --data {pictures} --out {out}",
    "eval": "eval --data {pictures} --methods pixels --out {out}",
    "demo": "demo --dataset {pictures} --no-serve",
}


def test_a_folder_and_a_new_one_below_it_are_writable(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for folder in (tmp_path, tmp_path / "a" / "b", Path(), Path("a")):
        require_writable(folder)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("command", COMMANDS)
def test_results_below_a_file_are_refused_in_a_sentence(
    command, image_files, tmp_path, monkeypatch
):
    file = tmp_path / "file"
    file.touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(file))
    words = COMMANDS[command].format(pictures=image_files, out=file / "new" / "out").split()
    message = error_of(run(*words))
    assert message.endswith(f"cannot be made, since {file} is not a folder")


def test_a_folder_of_another_user_is_refused(tmp_path, monkeypatch):
    """As root writes everywhere, the system's answer is made here."""
    monkeypatch.setattr(os, "access", lambda path, mode: path != tmp_path)
    with pytest.raises(NotWritable, match=f"nothing can be written to {tmp_path}, which is on"):
        require_writable(tmp_path / "a" / "b")


@pytest.mark.skipif(not can_mount(), reason="no file system can be mounted here")
def test_a_gallery_on_a_read_only_disk_is_refused_in_a_sentence(image_files, tmp_path):
    (tmp_path / "disk").mkdir()
    new = tmp_path / "disk" / "new"
    index = f"exec {sys.executable} -m hashsearch.cli index {image_files} --gallery {new}"
    script = f"mount -t tmpfs -o ro tmpfs disk; {index}"
    done = subprocess.run(
        ["unshare", "--map-root-user", "--mount", "sh", "-ec", script],
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert error_of(done) == (
        f"nothing can be written to {tmp_path / 'disk'}, which is on a read-only disk or of "
        f"another user; name another folder than {new}"
    )
