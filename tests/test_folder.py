import os
import shutil
import subprocess
from collections import Counter
from pathlib import Path

from hashsearch.errors import InvalidImage
from hashsearch.sources import locate
from hashsearch.sources.folder import Folder, ImageFile


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
    assert source.passed_over == Counter({".txt": 1, ".pdf": 1, "": 2})


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
