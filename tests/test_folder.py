import hashlib
import json
import os
import shutil
import subprocess
from collections import Counter
from pathlib import Path

import pytest

from hashsearch.errors import InvalidImage, InvalidSource
from hashsearch.jobs.index.indexing import index_sources, require_images
from hashsearch.sources import locate, open_source
from hashsearch.sources.folder import Folder, ImageFile
from hashsearch.sources.loading import load_tiny_images
from tests.galleries import run


def test_a_folder_yields_its_images_in_order_with_labels(image_files):
    images = list(Folder(image_files))
    paths = [path for path in sorted(image_files.rglob("*")) if path.is_file()]
    assert [image.content for image in images] == paths
    assert [image.label for image in images] == [path.parent.name for path in paths]
    assert Folder(image_files).estimate() == len(paths)
    for image, path in zip(images, paths, strict=True):
        assert locate(str(image_files), image.place) == str(path)
        assert (image.size, image.mtime) == (path.stat().st_size, path.stat().st_mtime_ns)


def test_a_folder_passes_over_other_files_hidden_ones_and_links_that_lead_out(
    image_files, tmp_path
):
    picture = sorted(image_files.rglob("*.*"))[0]
    root = tmp_path / "root"
    (root / ".cache").mkdir(parents=True)
    (root / "sub").mkdir()
    for name in (
        "a.JPG",
        ".hidden.jpg",
        ".cache/b.jpg",
        "sub/c.jpeg",
        "notes.txt",
        "d.PDF",
        "plain",
    ):
        shutil.copy(picture, root / name)
    shutil.copy(picture, tmp_path / "outside.jpg")
    (root / "in.jpg").symlink_to(root / "a.JPG")
    (root / "out.jpg").symlink_to(tmp_path / "outside.jpg")
    (root / "gone.jpg").symlink_to(tmp_path / "nowhere.jpg")
    (root / "loop").symlink_to(root)
    source = Folder(root)
    assert [image.place for image in source] == ["/a.JPG", "/in.jpg", "/sub/c.jpeg"]
    assert [image.label for image in source] == [None, None, "sub"]
    assert source.passed_over == Counter({".txt": 1, ".pdf": 1, "": 1})
    assert source.remarks == [
        "passed over: 1 link to files that do not exist",
        "passed over: 1 link to folders; to include such a folder, name it as a source",
        "passed over: 1 link to image files outside the folder, which hashsearch index "
        "--follow-links includes (in Python, follow_links=True)",
    ]
    source = Folder(root, follow_links=True)
    assert [image.place for image in source] == ["/a.JPG", "/in.jpg", "/out.jpg", "/sub/c.jpeg"]
    assert len(source.remarks) == 2


def as_a_hub_caches_it(folder: Path, pictures: list[Path]) -> Path:
    """Lay a data set out as Hugging Face's hub does: links to files without suffixes."""
    snapshot = folder / "datasets--me--pictures" / "snapshots" / "5f0a"
    blobs = snapshot.parents[1] / "blobs"
    blobs.mkdir(parents=True)
    for picture in pictures:
        name = hashlib.sha256(picture.read_bytes()).hexdigest()
        shutil.copy(picture, blobs / name)
        link = snapshot / "train" / picture.parent.name / picture.name
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(os.path.relpath(blobs / name, link.parent))
    return snapshot


def test_a_hubs_cache_is_refused_with_the_way_to_take_it_and_taken_that_way(
    image_files, tmp_path, folders, empty_gallery
):
    pictures = sorted(image_files.rglob("*.*"))[::30]
    snapshot = as_a_hub_caches_it(tmp_path, pictures)
    with pytest.raises(InvalidSource, match=r"5f0a holds no image files; passed over: 10 links "):
        require_images(open_source(str(snapshot), folders))
    with pytest.raises(InvalidSource, match=r"no image that can be read; .*--follow-links"):
        load_tiny_images(open_source(str(snapshot), folders))
    source = open_source(str(snapshot), folders, follow_links=True)
    assert index_sources(empty_gallery, [source], workers=1).indexed == 10
    images = list(source)
    assert [image.label for image in images] == [path.parent.name for path in pictures]
    assert [image.content.read_bytes() for image in images] == [p.read_bytes() for p in pictures]
    assert source.remarks == []
    # The data set's own folder holds links and files.
    whole = open_source(str(snapshot.parents[1]), folders)
    assert [image.label for image in whole] == [path.parent.name for path in pictures]


def test_followed_links_lead_to_files_alone_so_that_no_walk_is_endless(image_files, tmp_path):
    picture = sorted(image_files.rglob("*.*"))[0]
    root = tmp_path / "root"
    (root / "sub").mkdir(parents=True)
    for link, target in (("up", root), ("sub/top.jpg", root), ("sub/out", tmp_path)):
        (root / link).symlink_to(target)
    (root / "pipe.jpg").symlink_to("/dev/zero")
    (root / "loop.jpg").symlink_to("loop.jpg")
    (root / "a.jpg").symlink_to(os.path.relpath(picture, root))
    source = Folder(root, follow_links=True)
    image, loop = source
    assert (image.place, image.size) == ("/a.jpg", picture.stat().st_size)
    assert str(loop.content) == "it cannot be read: Too many levels of symbolic links"
    assert source.remarks == [
        "passed over: 3 links to folders; to include such a folder, name it as a source"
    ]


def test_sources_within_a_folder_are_named(image_files, tmp_path):
    shutil.copytree(image_files, tmp_path / "pictures")
    (tmp_path / "train.parquet").write_bytes(b"PAR1")
    source = Folder(tmp_path)
    assert len(list(source)) == 300
    assert source.remarks == [".parquet files are passed over, unless they are named as sources"]
    list(source)
    assert len(source.remarks) == 1


def make_nested(folder: Path, names: list[str]) -> int:
    """Make folders within each other, however long their path; returns the last, opened."""
    here = os.open(folder, os.O_RDONLY)
    for name in names:
        os.mkdir(name, dir_fd=here)
        below = os.open(name, os.O_RDONLY, dir_fd=here)
        os.close(here)
        here = below
    return here


def test_one_entrys_trouble_is_not_the_folders(image_files, tmp_path):
    """A link to itself, and folders so deep that their path is too long for the system."""
    picture = sorted(image_files.rglob("*.*"))[0]
    (tmp_path / "a.jpg").symlink_to(tmp_path / "a.jpg")
    os.close(make_nested(tmp_path, ["d" * 200] * 25))
    shutil.copy(picture, tmp_path / "e.jpg")
    loop, deep, image = Folder(tmp_path)
    subprocess.run(["rm", "-r", tmp_path / ("d" * 200)], check=True)
    assert (image.place, image.content) == ("/e.jpg", tmp_path / "e.jpg")
    assert loop.place == "/a.jpg"
    assert deep.place.startswith("/" + "d" * 200 + "/")
    for failed, reason in (
        (loop, "Too many levels of symbolic links"),
        (deep, "File name too long"),
    ):
        assert isinstance(failed.content, InvalidImage)
        assert str(failed.content) == f"it cannot be read: {reason}"


def test_a_folder_that_cannot_be_listed_is_a_failure_of_its_own(image_files, tmp_path, monkeypatch):
    shutil.copytree(image_files, tmp_path / "pictures")
    closed = next(path for path in (tmp_path / "pictures").iterdir() if path.is_dir())
    scandir = os.scandir

    def refuse(path):
        if Path(path) == closed:
            raise PermissionError(13, "Permission denied")
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refuse)
    images = list(Folder(tmp_path / "pictures"))
    (failed,) = [image for image in images if isinstance(image.content, InvalidImage)]
    assert failed.place == f"/{closed.name}"
    assert str(failed.content) == "it cannot be read: Permission denied"
    monkeypatch.undo()
    assert len(images) == 1 + 300 - len(list(closed.iterdir()))


def test_folders_may_be_nested_deeper_than_python_recurses(image_files, tmp_path):
    picture = sorted(image_files.rglob("*.*"))[0].read_bytes()
    bottom = make_nested(tmp_path, ["d"] * 1100)
    with os.fdopen(os.open("x.jpg", os.O_CREAT | os.O_WRONLY, dir_fd=bottom), "wb") as file:
        file.write(picture)
    os.close(bottom)
    (image,) = Folder(tmp_path)
    content = image.content.read_bytes()
    subprocess.run(["rm", "-r", tmp_path / "d"], check=True)  # Python's own rmtree recurses
    assert (image.place, content) == ("/d" * 1100 + "/x.jpg", picture)


def test_a_file_name_that_is_not_utf8_is_no_obstacle(image_files, tmp_path):
    picture = sorted(image_files.rglob("*.*"))[0]
    folder = tmp_path / os.fsdecode(b"caf\xe9")
    folder.mkdir()
    shutil.copy(picture, folder / os.fsdecode(b"\xff\xfe.jpg"))
    (image,) = Folder(tmp_path)
    assert image.place == "/caf%E9/%FF%FE.jpg"
    assert image.label == "caf\ufffd"
    assert Path(locate(str(tmp_path), image.place)).read_bytes() == picture.read_bytes()


def test_the_order_is_that_of_the_names_bytes_folders_among_files(image_files, tmp_path):
    picture = sorted(image_files.rglob("*.*"))[0]
    names = [
        "a",
        "a-b.jpg",
        "a.jpg",
        "a0.jpg",
        os.fsdecode(b"\xe9.jpg"),
        "\u65e5.jpg",
        "\U0001f600.jpg",
    ]
    for name in names:
        if name == "a":
            (tmp_path / name).mkdir()
            name = "a/z.jpg"
        shutil.copy(picture, tmp_path / name)
    found = [os.fsencode(image.content) for image in Folder(tmp_path)]
    by_bytes = sorted([os.fsencode(name) for name in names])
    expected = [name.replace(b"a", b"a/z.jpg") if name == b"a" else name for name in by_bytes]
    assert found == [os.fsencode(tmp_path) + b"/" + name for name in expected]


def test_the_estimate_of_a_folder_counts_names_of_images_without_looking(image_files, tmp_path):
    picture = sorted(image_files.rglob("*.*"))[0]
    (tmp_path / ".hidden").mkdir()
    (tmp_path / "sub").mkdir()
    for name in ("a.jpg", "sub/b.PNG", ".hidden/c.jpg", ".d.jpg", "notes.txt"):
        shutil.copy(picture, tmp_path / name)
    (tmp_path / "gone.jpg").symlink_to(tmp_path / "nowhere.jpg")
    source = Folder(tmp_path)
    assert source.estimate() == 3
    assert len(list(source)) == 2
    assert source.passed_over == Counter({".txt": 1})


def test_an_image_file_alone_is_named_as_its_folder_names_it(image_files, tmp_path):
    path = sorted(image_files.rglob("*.*"))[7]
    (image,) = ImageFile(path)
    assert ImageFile(path).estimate() == 1
    assert ImageFile(path).root == path.parent
    (same,) = [other for other in Folder(path.parent) if other.content == path]
    assert image == same


def test_the_command_follows_links_and_says_which_it_does_not(
    image_files, model_folder, tmp_path, capsys
):
    pictures = sorted(image_files.rglob("*.*"))[::60]
    snapshot = as_a_hub_caches_it(tmp_path, pictures)
    shutil.copy(pictures[0], snapshot / "a.jpg")
    command = ("index", snapshot, "--gallery", tmp_path / "g", "--model", model_folder)
    assert run(*command, "--json") == 0
    shown = capsys.readouterr()
    summary = json.loads(shown.out)
    assert summary["indexed"] == 1
    (remark,) = summary["remarks"]
    assert remark.startswith(f"{snapshot}: passed over: 5 links to image files outside the folder")
    assert run(*command) == 0
    shown = capsys.readouterr()
    assert shown.err == f"{remark}\n"
    assert "passed over" not in shown.out
    assert run(*command, "--follow-links", "--json") == 0
    summary = json.loads(capsys.readouterr().out)
    assert (summary["total"], summary["remarks"]) == (5, [])
