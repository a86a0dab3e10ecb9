"""The demonstration, from what is at hand to the printed search."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from hashsearch import demo
from hashsearch.gallery.gallery_folder import GalleryFolder
from hashsearch.sources import DataFolders, datasets


@pytest.fixture
def cache(tmp_path) -> Path:
    """A user's cache, empty."""
    return tmp_path / "cache"


def rows_of(printed: str) -> list[str]:
    """The lines of the printed table below its headings."""
    lines = printed.splitlines()
    start = next(number for number, line in enumerate(lines) if line.startswith("by codes"))
    return lines[start + 2 :]


def test_without_cifar10_or_network_the_samples_stand_in_and_that_is_said(
    cache, monkeypatch, capfd
):
    monkeypatch.setattr(datasets, "CIFAR_URL", "http://127.0.0.1:9")
    folders = DataFolders(None, cache)
    gallery, dataset = demo.build_demo(None, folders)
    assert dataset == "samples"
    said = [line for line in capfd.readouterr().err.splitlines() if "using crops" in line]
    assert len(said) == 1
    demo.show_search(gallery, dataset, folders)
    printed = capfd.readouterr().out
    assert printed.startswith("Searching 4,1")  # 14 photographs × 300 crops, less doubles
    assert len(rows_of(printed)) == 10


def test_a_second_demonstration_uses_what_the_first_one_made(cache, capfd):
    folders = DataFolders(None, cache)
    first, _ = demo.build_demo("samples", folders)
    generation = _generation(first)
    again, _ = demo.build_demo("samples", folders)
    assert again == first
    assert _generation(again) == generation


def test_a_folder_of_ones_own_is_searched_by_one_of_its_pictures(
    cache, image_files, monkeypatch, capfd
):
    folders = DataFolders(None, cache)
    monkeypatch.setattr(datasets, "_download_cifar", None)  # nobody asks for CIFAR-10
    gallery, dataset = demo.build_demo(str(image_files), folders)
    demo.show_search(gallery, dataset, folders)
    printed = capfd.readouterr().out
    assert printed.startswith(f"Searching 300 images for {image_files}/")
    assert len(rows_of(printed)) == 10


def test_a_folder_that_bears_a_data_sets_name_is_not_taken_for_it(cache, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("cifar10", "samples"):
        (tmp_path / name).mkdir()
    gallery, dataset = demo.build_demo("samples", DataFolders(None, cache))
    assert dataset == "samples"
    demo.show_search(gallery, dataset, DataFolders(None, cache))


def test_the_demonstration_starts_from_nothing_at_all(tmp_path):
    """The command as it is, with no data folder and an empty cache."""
    command = Path(sys.executable).with_name("hashsearch")
    environment = {**os.environ, "XDG_CACHE_HOME": str(tmp_path)}
    environment.pop("HASHSEARCH_DATA", None)
    done = subprocess.run(
        [command, "demo", "--no-serve", "--dataset", "samples"],
        env=environment,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    found = rows_of(done.stdout)
    # A crop's neighbours are other crops of its photograph far beyond chance, 1 in 14.
    assert sum("chelsea" in row[:40] for row in found) >= 3


def _generation(folder: Path) -> int:
    gallery = GalleryFolder(folder)
    try:
        return int(gallery.catalog.setting("generation"))
    finally:
        gallery.close()
