"""Processes that are forked from one that has used the library."""

import ast
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[1]
START = """
import os, signal, sys
import hashsearch as hs
import torch

folder, picture = sys.argv[1:]
torch.set_num_threads(2)  # with one, nothing would hang

def in_a_forked_process(use):
    sys.stdout.flush()
    child = os.fork()
    if child == 0:
        signal.alarm(60)  # ends a child that hangs
        print(use(), flush=True)
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0
"""


def printed(script: str, *arguments: object) -> list[Any]:
    """The values that a script prints, one a line."""
    done = subprocess.run(
        [sys.executable, "-c", START + script, *map(str, arguments)],
        capture_output=True,
        text=True,
        env=os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "2"},
    )
    assert done.returncode == 0, done.stderr
    return [ast.literal_eval(line) for line in done.stdout.splitlines()]


@pytest.fixture(scope="module")
def picture(image_files) -> Path:
    return min(image_files.rglob("*.*"))


@pytest.mark.parametrize(
    "load", ["model = hs.load_model(folder)", "hs.load_model(); model = folder"]
)
def test_a_forked_process_encodes_and_decodes_as_its_parent(load, model_folder, picture):
    """In the second case the parent only loads another model, which starts threads as well."""
    script = f"""
{load}
def use():
    codes = hs.encode([picture] * 20, model)
    loaded = hs.load_model(model) if isinstance(model, str) else model
    return codes.tolist(), loaded.reconstruct(codes).tolist()

in_a_forked_process(use)
print(use())
in_a_forked_process(use)
"""
    first, parent, second = printed(script, model_folder, picture)
    assert first == parent == second


def test_a_process_is_known_as_forked_before_a_model_is_loaded(model_folder, picture):
    """Its parent has used PyTorch's threads for something else."""
    script = """
torch.randn(500, 500) @ torch.randn(500, 500)

def use():
    return hs.encode([picture] * 20, folder).tolist()

in_a_forked_process(use)
print(use())
"""
    child, parent = printed(script, model_folder, picture)
    assert child == parent


def test_a_gallery_that_was_opened_before_a_fork_says_so(gallery, picture):
    script = """
gallery = hs.open(folder)
searched = gallery.search(9)

def use():
    found = []
    for call in (
        *(lambda: len(gallery), lambda: gallery.search(9), lambda: gallery.search(picture)),
        *(lambda: 9 in gallery, lambda: list(gallery), lambda: gallery.remove(ids=[1])),
    ):
        try:
            found.append(call())
        except hs.errors.InvalidGallery as error:
            found.append(str(error))
    gallery.close()
    return found

in_a_forked_process(use)
assert gallery.search(9) == searched and len(gallery) == 300
"""
    (found,) = printed(script, gallery.folder, picture)
    assert found == [
        f"{gallery.folder} was opened before this process was forked; open it after the fork"
    ] * len(found)
    assert len(found) == 6


def test_a_forked_process_opens_galleries_of_its_own(gallery, picture):
    script = """
hs.load_model()

def use():
    with hs.open(folder) as gallery:
        return [hit.id for hit in gallery.search(picture)]

in_a_forked_process(use)
print(use())
"""
    child, parent = printed(script, gallery.folder, picture)
    assert child == parent
    assert len(child) == 10
