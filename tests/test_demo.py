"""The demonstration: the choice of data, the gallery and the printed search."""

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from hashsearch import demo
from hashsearch.gallery.gallery_folder import GalleryFolder
from hashsearch.sources import DataFolders, datasets, samples
from tests import forked


@pytest.fixture
def cache(tmp_path) -> Path:
    """An empty user's cache."""
    return tmp_path / "cache"


@pytest.fixture(scope="module", autouse=True)
def fewer_crops() -> Iterator[None]:
    """Of each photograph, in this process."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(samples, "CROPS", {"train": 60, "test": 20})
        yield


@pytest.fixture(scope="module")
def first(tmp_path_factory) -> tuple[Path, DataFolders]:
    """The gallery of a first demonstration of the samples, and the folders that it was given."""
    folders = DataFolders(None, tmp_path_factory.mktemp("demo") / "cache")
    return demo.build_demo("samples", folders)[0], folders


def rows_of(printed: str) -> list[str]:
    """The lines of the printed table below its headings."""
    lines = printed.splitlines()
    start = next(number for number, line in enumerate(lines) if line.startswith("by codes"))
    rows = lines[start + 2 :]
    return rows[: rows.index("")]


def test_without_cifar10_and_network_the_samples_are_used_with_a_note(cache, monkeypatch, capfd):
    monkeypatch.setattr(datasets, "CIFAR_URL", "http://127.0.0.1:9")
    folders = DataFolders(None, cache)
    gallery, dataset = demo.build_demo(None, folders)
    assert dataset == "samples"
    notes = [line for line in capfd.readouterr().err.splitlines() if "sample photographs" in line]
    assert len(notes) == 1
    demo.show_search(gallery, dataset, folders)
    printed = capfd.readouterr().out
    assert "default model, bundled, which has learned no labels. The model\ngeneral has:" in printed
    assert printed.startswith("Searching 854 ")  # 14 photographs, and 60 crops of each
    assert len(rows_of(printed)) == 10


def test_a_second_demonstration_uses_the_gallery_of_the_first(first):
    gallery, folders = first
    generation = _generation(gallery)
    again, _ = demo.build_demo("samples", folders)
    assert again == gallery
    assert _generation(again) == generation


def test_a_users_folder_is_searched_by_one_of_its_pictures(cache, image_files, monkeypatch, capfd):
    folders = DataFolders(None, cache)
    monkeypatch.setattr(datasets, "_download_cifar", None)  # CIFAR-10 must not be fetched
    gallery, dataset = demo.build_demo(str(image_files), folders)
    demo.show_search(gallery, dataset, folders)
    printed = capfd.readouterr().out
    assert printed.startswith(f"Searching 300 images for {image_files}/")
    assert len(rows_of(printed)) == 10


def test_a_folder_with_the_name_of_a_data_set_is_not_used_instead_of_it(
    first, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    for name in ("cifar10", "samples"):
        (tmp_path / name).mkdir()
    gallery, folders = first
    assert demo.build_demo("samples", folders) == (gallery, "samples")
    demo.show_search(gallery, "samples", folders)


def test_the_demonstration_runs_without_data_and_cache(tmp_path):
    """The command itself, with no data folder and an empty cache, and fewer crops too."""
    program = (
        "import sys; from hashsearch.cli import main; from hashsearch.sources import samples\n"
        f"samples.CROPS |= {samples.CROPS}\n"
        "sys.exit(main())"
    )
    environment = {**os.environ, "XDG_CACHE_HOME": str(tmp_path)}
    environment.pop("HASHSEARCH_DATA", None)
    arguments = ["demo", "--no-serve", "--dataset", "samples"]
    done = forked.run([sys.executable, "-c", program, *arguments], env=environment)
    assert done.returncode == 0, done.stderr
    found = rows_of(done.stdout)
    # Neighbours are crops of the same photograph far more often than by chance, 1 in 14.
    assert sum("chelsea" in row[:40] for row in found) >= 3


def _generation(folder: Path) -> int:
    gallery = GalleryFolder(folder)
    try:
        return int(gallery.catalog.setting("generation"))
    finally:
        gallery.close()
