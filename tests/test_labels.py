import shutil
from pathlib import Path

import numpy as np
import pytest

import hashsearch as hs
from hashsearch.errors import InvalidSource
from hashsearch.sources.archive import TarArchive
from hashsearch.sources.arrays import NpyArray
from hashsearch.sources.base import SourceImage, locate
from hashsearch.sources.folder import Folder
from hashsearch.sources.labels import LabelledSource, Labels
from hashsearch.sources.zipped import ZipArchive
from tests.test_archive import tar_of

ROOT = Path("/data/pictures")


def labels_of(folder, text: str | bytes) -> Labels:
    path = folder / "labels.csv"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return Labels(path)


def test_listed_images_have_the_listed_label_and_others_their_own(image_files, tmp_path):
    own = {image.place: image.label for image in Folder(image_files)}
    listed = sorted(own)[::3]
    rows = [f"{place[1:]},listed {number}" for number, place in enumerate(listed)]
    labels = labels_of(tmp_path, "\n".join(["path,label", *rows, "nowhere.jpg,lost"]))
    source = LabelledSource(Folder(image_files), labels)
    found = {image.place: image.label for image in source}
    expected = own | {place: f"listed {number}" for number, place in enumerate(listed)}
    assert found == expected
    assert labels.unused() == 1
    assert source.root == image_files
    assert source.estimate() == 300


@pytest.mark.parametrize("kind", [Folder, TarArchive, ZipArchive, NpyArray])
def test_paths_are_listed_as_commands_print_them(kind, image_files, tiny_images, tmp_path):
    files = {
        Folder: lambda: image_files,
        TarArchive: lambda: tar_of(image_files, tmp_path / "a.tar", "w"),
        ZipArchive: lambda: Path(shutil.make_archive(str(tmp_path / "a"), "zip", image_files)),
        NpyArray: lambda: saved(tmp_path / "a.npy", tiny_images),
    }
    path = files[kind]()
    printed = [locate(str(path), image.place) for image in kind(path)]
    ways = [printed]
    if kind is not Folder:  # `cat/1.jpg` of a folder `cat` would be two
        ways.append([name.removeprefix(f"{path.parent}/") for name in printed])
    for names in ways:
        rows = [f'"{name}",listed {number}' for number, name in enumerate(names)]
        labels = labels_of(tmp_path, "\n".join(["path,label", *rows]))
        found = [image.label for image in LabelledSource(kind(path), labels)]
        assert found == [f"listed {number}" for number in range(300)]
        assert labels.unused() == 0


def test_a_whole_path_tells_the_rows_of_two_files_apart(tiny_images, tmp_path):
    one, two = (saved(tmp_path / name, tiny_images[:2]) for name in ("one.npy", "two.npy"))
    labels = labels_of(tmp_path, f"path,label\n0,any\none.npy#0,one\n{two}#1,two\ntwo.npy#1,x\n")
    found = [[i.label for i in LabelledSource(NpyArray(p), labels)] for p in (one, two)]
    assert found == [["one", None], ["any", "two"]]
    assert labels.unused() == 0


def saved(path: Path, array: np.ndarray) -> Path:
    np.save(path, array)
    return path


def test_several_sources_may_share_their_labels(image_files, tmp_path):
    one, two = sorted(path for path in image_files.iterdir() if path.is_dir())[:2]
    names = [sorted(folder.iterdir())[0].name for folder in (one, two)]
    labels = labels_of(tmp_path, f"label,path\na,{names[0]}\nb,{names[1]}\nc,nowhere.jpg\n")
    first = [image.label for image in LabelledSource(Folder(one), labels)]
    assert labels.unused() == 2
    second = [image.label for image in LabelledSource(Folder(two), labels)]
    assert labels.unused() == 1
    assert (first.count("a"), second.count("b")) == (1, 1)


@pytest.mark.parametrize(
    ("place", "path"),
    [
        ("/cat/1.jpg", "cat/1.jpg"),
        ("/cat/1.jpg", "./cat/1.jpg"),
        ("!/./cat/1.jpg", "cat/1.jpg"),
        ("!/pictures/%C3%A9%20%23.png", "pictures/é #.png"),
        ("#7", "7"),
        ("/data_batch_1#7", "data_batch_1#7"),
        ("/%21a.jpg", "!a.jpg"),
        ("/%231.jpg", "#1.jpg"),
        ("!/%231.jpg", "#1.jpg"),
    ],
)
def test_a_path_is_what_an_image_is_called_within_its_source(place, path, tmp_path):
    labels = labels_of(tmp_path, f"path,label\n{path},cat\n")
    assert labels.labelled(SourceImage(place, "dog", 0, 0, b""), ROOT).label == "cat"
    assert labels.labelled(SourceImage("/other.jpg", "dog", 0, 0, b""), ROOT).label == "dog"
    assert labels.unused() == 0


def test_a_file_name_that_is_not_utf8_is_no_obstacle(tmp_path):
    labels = labels_of(tmp_path, "path,label\na.jpg,cat\n")
    assert labels.labelled(SourceImage("/caf%E9.jpg", "dog", 0, 0, b""), ROOT).label == "dog"


def test_members_of_an_archive_are_listed_by_their_names(image_files, tmp_path):
    archive = tar_of(image_files, tmp_path / "a.tar", "w")
    name = next(iter(TarArchive(archive))).place.removeprefix("!/")
    labels = labels_of(tmp_path, f"path,label\n{name},listed\n")
    found = [image.label for image in LabelledSource(TarArchive(archive), labels)]
    assert found[0] == "listed" != found[1]


@pytest.mark.parametrize(
    ("text", "label"),
    [
        ("path,label\r\na.jpg,cat\r\n", "cat"),
        ("\ufeffpath,label\na.jpg,cat\n", "cat"),
        ("id,label,path\n1,cat,a.jpg\n\n", "cat"),
        ('path,label\na.jpg,"tabby, ""grey""\ncat"\n', 'tabby, "grey"\ncat'),
        ("path,label\na.jpg,\n", None),
        ("path,label\na.jpg,cat\na.jpg,cat\n", "cat"),
        ("path,label\n", "own"),
    ],
)
def test_a_csv_file_is_read_as_spreadsheets_write_it(text, label, tmp_path):
    assert (
        labels_of(tmp_path, text).labelled(SourceImage("/a.jpg", "own", 0, 0, b""), ROOT).label
        == label
    )


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (b"", "line 1: no columns came; path and label were wanted"),
        (b"name,label\na.jpg,cat\n", "line 1: the columns name, label came; path and label were"),
        (b"path,label\na.jpg,cat\n\xff\xfe.jpg,cat\n", "line 3: this is not UTF-8"),
        (b"path,label\nb.jpg,caf\xe9\n", "line 2: this is not UTF-8"),
        (b"\xff\xfep\0a\0t\0h\0", "line 1: this is not UTF-8"),
        (
            b"path,label\na.jpg,cat\nb.jpg,cat\na.jpg,dog\n",
            "line 4: a.jpg has the label dog, and cat on a line above",
        ),
        (b"path,label\na.jpg\n", "line 2: 1 field came; 2 were wanted"),
        (b'path,label\na.jpg,"' + b"x" * 200_000 + b'"\n', "line 2: field larger than"),
    ],
)
def test_another_file_is_refused_with_the_line(text, message, tmp_path):
    with pytest.raises(InvalidSource, match=r"labels\.csv, ") as caught:
        labels_of(tmp_path, text)
    assert message in str(caught.value)


def test_a_missing_file_is_reported(tmp_path):
    with pytest.raises(InvalidSource, match=r"labels\.csv cannot be read: No such file"):
        Labels(tmp_path / "labels.csv")


# Labels that a person gave, in a gallery


@pytest.fixture
def album(tmp_path, image_files, empty_gallery):
    """Three pictures in the folder `a`, indexed; the first is given the label `mine`."""
    folder = tmp_path / "album" / "a"
    folder.mkdir(parents=True)
    for number, path in enumerate(sorted(image_files.rglob("*.*"))[:3]):
        shutil.copy(path, folder / f"{number}.jpg")
    with hs.open(empty_gallery.folder) as opened:
        relabel(opened, folder.parent, "a/0.jpg,mine")
        yield opened, folder.parent


def relabel(gallery: hs.Gallery, folder: Path, *rows: str) -> hs.IndexSummary:
    listed = folder.parent / "labels.csv"
    listed.write_text("\n".join(["path,label", *rows]))
    return gallery.index(folder, labels=listed, workers=1)


def labels_by_name(gallery: hs.Gallery) -> dict[str, str | None]:
    return {record.path.rpartition("/")[2]: record.label for record in gallery}


def test_a_given_label_outlives_the_moves_of_its_file(album):
    gallery, folder = album
    assert labels_by_name(gallery) == {"0.jpg": "mine", "1.jpg": "a", "2.jpg": "a"}
    (folder / "a" / "0.jpg").rename(folder / "a" / "new.jpg")
    assert gallery.index(folder, workers=1).moved == 1
    assert labels_by_name(gallery) == {"new.jpg": "mine", "1.jpg": "a", "2.jpg": "a"}
    (folder / "a").rename(folder / "b")
    assert gallery.index(folder, workers=1).moved == 3
    assert labels_by_name(gallery) == {"new.jpg": "mine", "1.jpg": "b", "2.jpg": "b"}


def test_a_given_label_stays_with_the_copy_that_is_left(album):
    gallery, folder = album
    (folder / "z").mkdir()
    shutil.copy(folder / "a" / "0.jpg", folder / "z" / "copy.jpg")
    assert gallery.index(folder, workers=1).duplicates == 1
    (folder / "a" / "0.jpg").unlink()
    assert labels_by_name(gallery)["copy.jpg"] == "mine"  # the first place is still `a/0.jpg`
    gallery.index(folder, workers=1, prune=True)
    assert labels_by_name(gallery)["copy.jpg"] == "mine"


def test_a_label_of_a_file_that_is_not_listed_any_more_stays(album):
    gallery, folder = album
    relabel(gallery, folder, "a/1.jpg,yours")
    assert labels_by_name(gallery) == {"0.jpg": "mine", "1.jpg": "yours", "2.jpg": "a"}
    relabel(gallery, folder, "a/0.jpg,", "a/1.jpg,a")
    assert labels_by_name(gallery) == {"0.jpg": None, "1.jpg": "a", "2.jpg": "a"}
    (folder / "a" / "0.jpg").rename(folder / "a" / "new.jpg")
    gallery.index(folder, workers=1)
    assert labels_by_name(gallery)["new.jpg"] is None


def test_of_labels_given_to_equal_files_that_of_the_first_place_counts(album):
    gallery, folder = album
    shutil.copy(folder / "a" / "0.jpg", folder / "a" / "copy.jpg")
    for _ in range(2):
        relabel(gallery, folder, "a/0.jpg,one", "a/copy.jpg,two")
        assert labels_by_name(gallery)["0.jpg"] == "one"
    shutil.copy(folder / "a" / "1.jpg", folder / "a" / "zz.jpg")
    relabel(gallery, folder, "a/zz.jpg,three")
    assert labels_by_name(gallery)["1.jpg"] == "three"
    relabel(gallery, folder, "a/zz.jpg,four")
    assert labels_by_name(gallery)["1.jpg"] == "four"
    before = list(gallery)
    for _ in range(2):
        generation = catalog_of(gallery).generation()
        relabel(gallery, folder, "a/0.jpg,one", "a/copy.jpg,two", "a/zz.jpg,four")
    assert list(gallery) == before
    assert catalog_of(gallery).generation() == generation


def catalog_of(gallery: hs.Gallery):
    return gallery._storage.catalog


def test_a_label_that_comes_with_a_known_picture_is_taken(album):
    gallery, folder = album
    path = folder / "a" / "1.jpg"
    image_id = gallery.add(path.read_bytes(), label="bytes")
    assert labels_by_name(gallery)["1.jpg"] == "bytes"
    shutil.copy(path, folder.parent / "elsewhere.jpg")
    assert gallery.add(folder.parent / "elsewhere.jpg", label="path") == image_id
    assert gallery.get(image_id).label == "path"
    assert gallery.add(path.read_bytes()) == image_id
    path.unlink()
    gallery.index(folder, workers=1, prune=True)
    assert gallery.get(image_id).label == "path"
