"""Arguments that are paths: an empty one would mean the working folder."""

import os
import shutil
from pathlib import Path

import pytest

import hashsearch
from hashsearch.errors import HashSearchError, InvalidQuery, InvalidSource
from hashsearch.sources import open_source, open_test_split
from tests.galleries import run


@pytest.fixture
def in_a_gallery(gallery_folder, image_files, tmp_path, monkeypatch) -> Path:
    """The working folder is a gallery and holds images, so that an empty path would be taken."""
    shutil.copytree(gallery_folder, tmp_path / "here")
    shutil.copytree(image_files, tmp_path / "here" / "pictures")
    monkeypatch.chdir(tmp_path / "here")
    return tmp_path


@pytest.mark.parametrize(
    "command",
    [
        "index {} --gallery {tmp}/g",
        "index pictures {} --gallery {tmp}/g",
        "index :train --gallery {tmp}/g",
        "index pictures --gallery {}",
        "index pictures --gallery {tmp}/g --labels {}",
        "index pictures --gallery {tmp}/g --model {}",
        "query 1 --gallery {}",
        "query {} --gallery .",
        "eval --data {}",
        "eval --data pictures --model {}",
        "eval --data pictures --out {}",
        "train kh28 --data {} --out {tmp}/m",
        "train kh28 --data pictures --out {}",
        "train kh28 --data pictures --out {tmp}/m --from {}",
        "demo --no-serve --dataset {}",
        "serve --gallery {}",
        "serve",
        "gallery info {}",
        "gallery reencode . --model {}",
        "model info {}",
    ],
)
def test_an_empty_path_is_not_the_working_folder(command, in_a_gallery, monkeypatch, capsys):
    monkeypatch.setenv("HASHSEARCH_GALLERY", "")
    before = sorted(os.fspath(path) for path in in_a_gallery.rglob("*"))
    arguments = [part.format("", tmp=in_a_gallery) for part in command.split()]
    try:
        status = run(*arguments)
    except SystemExit as ended:  # argparse's way
        status = ended.code
    shown = capsys.readouterr()
    assert (status in (1, 2), shown.out) == (True, "")
    message = shown.err.splitlines()[-1]
    wanted = {
        "serve": "no gallery is named",
        "query {} --gallery .": " is neither an image file",
    }
    assert wanted.get(command, "an empty path came; ") in message
    after = sorted(os.fspath(path) for path in in_a_gallery.rglob("*"))
    assert [path for path in after if path not in before and "catalog" not in path] == []


def test_the_library_refuses_empty_paths_too(in_a_gallery, folders):
    for spec in ("", ":train", ":test"):
        with pytest.raises(InvalidSource, match="an empty path came; a source is "):
            open_source(spec, folders)
    with pytest.raises(InvalidSource, match="an empty path came; a source is "):
        open_test_split("", folders)
    with hashsearch.open(".") as gallery:
        for call in (
            lambda: gallery.index(""),
            lambda: gallery.index("pictures", labels=""),
            lambda: gallery.add(""),
            lambda: hashsearch.open(""),
            lambda: hashsearch.open(in_a_gallery / "new", create=True, model=""),
            lambda: hashsearch.load_model(""),
            lambda: hashsearch.encode(["pictures"], model=""),
        ):
            with pytest.raises(InvalidQuery, match="an empty path came"):
                call()
        with pytest.raises(HashSearchError, match="an empty path came"):
            gallery.search("")
    assert not (in_a_gallery / "new").exists()
