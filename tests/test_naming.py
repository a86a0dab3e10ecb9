"""One path, one place: folders that are indexed within others, in any order."""

import json
import shutil
from pathlib import Path

import pytest

import hashsearch as hs
from hashsearch.gallery.changes import Changes
from hashsearch.gallery.gallery_folder import GalleryFolder
from hashsearch.gallery.naming import Names
from hashsearch.gallery.records import FoundPlace
from hashsearch.jobs.index.indexing import index_sources
from hashsearch.jobs.relocating import relocate
from hashsearch.sources.folder import Folder, ImageFile
from hashsearch.sources.zipped import ZipArchive
from tests.galleries import another_png, index, records, run


@pytest.fixture
def album(tmp_path, image_files) -> Path:
    """Six real pictures, in a folder and in one within it, and a file that is no picture."""
    chosen = sorted(image_files.rglob("*.*"))[:6]
    for number, path in enumerate(chosen):
        target = tmp_path / "album" / ("" if number < 2 else "2019/sea" if number < 4 else "2019")
        target.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, target / path.name)
    (tmp_path / "album" / "2019" / "broken.jpg").write_bytes(b"broken")
    return tmp_path / "album"


def places(gallery: GalleryFolder) -> list[str]:
    found = gallery.catalog.places([record.id for record in records(gallery)])
    return sorted(place.path for some in found.values() for place in some)


def pictures(folder: Path) -> list[str]:
    return sorted(str(path) for path in folder.rglob("*.*") if path.name != "broken.jpg")


@pytest.mark.parametrize(
    "order",
    [("album", "album/2019"), ("album/2019", "album"), ("album/2019/sea", "album", "album/2019")],
)
def test_a_folder_within_another_has_one_place_for_each_file(order, empty_gallery, album):
    for folder in order:
        index(empty_gallery, album.parent / folder)
    ids = {record.id: record.uri for record in records(empty_gallery)}
    for folder in reversed(order):
        again = index(empty_gallery, album.parent / folder)
        assert (again.indexed, again.duplicates, again.moved, again.failed) == (0, 0, 0, 0)
    assert {record.id: record.uri for record in records(empty_gallery)} == ids
    assert places(empty_gallery) == pictures(album)
    assert empty_gallery.catalog.failure_count() == 1


def test_sources_of_one_command_have_one_place_for_each_file(empty_gallery, album):
    one = next((album / "2019" / "sea").iterdir())
    sources = [Folder(album / "2019"), ImageFile(one), Folder(album), Folder(album)]
    summary = index_sources(empty_gallery, sources, workers=1)
    assert (summary.indexed, summary.duplicates) == (6, 0)
    assert places(empty_gallery) == pictures(album)


def test_an_overwritten_file_leaves_nothing_behind(empty_gallery, album):
    index(empty_gallery, album)
    path = next((album / "2019" / "sea").iterdir())
    index(empty_gallery, album / "2019")
    path.write_bytes(another_png())
    index(empty_gallery, album)
    assert empty_gallery.catalog.count() == 6
    (record,) = [one for one in records(empty_gallery) if one.path == str(path)]
    path.unlink()
    for folder in (album / "2019", album):
        assert index(empty_gallery, folder).missing == 1
    assert (
        index_sources(empty_gallery, [Folder(album / "2019" / "sea")], workers=1, prune=True).pruned
        == 1
    )
    assert record.id not in {one.id for one in records(empty_gallery)}


def test_the_command_says_how_many_files_are_gone(empty_gallery, album, capsys):
    index(empty_gallery, album)
    shutil.rmtree(album / "2019" / "sea")
    arguments = ("index", album, "--gallery", empty_gallery.folder)
    assert run(*arguments) == 0
    assert (
        "gone: the files of 2 images; to remove the images: the same command with --prune"
    ) in capsys.readouterr().out
    assert run(*arguments, "--json") == 0
    assert json.loads(capsys.readouterr().out)["missing"] == 2
    assert run(*arguments, "--prune") == 0
    out = capsys.readouterr().out
    assert "gone" not in out
    assert "2 removed" in out


def test_pruning_a_folder_prunes_the_sources_within_it(empty_gallery, album):
    index(empty_gallery, album / "2019" / "sea")
    index(empty_gallery, album)
    lost = next((album / "2019" / "sea").iterdir())
    for path in (lost, next(album.glob("*.*"))):
        path.unlink()
    summary = index_sources(empty_gallery, [Folder(album)], workers=1, prune=True)
    assert summary.pruned == 2
    assert places(empty_gallery) == pictures(album)
    assert empty_gallery.catalog.failure_count() == 1


@pytest.mark.parametrize("order", [("2019/sea", "."), (".", "2019/sea")])
def test_a_source_that_is_away_is_not_pruned_with_the_folder_that_holds_it(
    order, empty_gallery, album
):
    """As a disk in it that is not mounted, or an archive that was lent to somebody."""
    shutil.make_archive(str(album / "lent"), "zip", album)
    for folder in order:
        index(empty_gallery, album / folder)
    index_sources(empty_gallery, [ZipArchive(album / "lent.zip")], workers=1)
    before = places(empty_gallery)
    shutil.rmtree(album / "2019" / "sea")
    (album / "2019" / "sea").mkdir()
    (album / "2019" / "sea" / ".keep").touch()  # as some mount points have
    (album / "lent.zip").unlink()
    for prune in (False, True):
        summary = index_sources(empty_gallery, [Folder(album)], workers=1, prune=prune)
        assert (summary.pruned, summary.missing) == (0, 0)
        remark, _ = summary.remarks
        assert remark.startswith(
            f"{album}/2019/sea holds no image now, and the gallery keeps its 2 "
        )
    assert places(empty_gallery) == before


def test_a_source_is_not_away_while_a_source_within_it_holds_images(empty_gallery, album):
    for folder in ("2019/sea", "2019", "."):
        index(empty_gallery, album / folder)
    gone = sorted((album / "2019").glob("*.*"))
    for path in gone:
        path.unlink()
    assert index(empty_gallery, album).missing == 2
    summary = index_sources(empty_gallery, [Folder(album)], workers=1, prune=True)
    assert (summary.pruned, summary.remarks) == (2, [])
    assert places(empty_gallery) == pictures(album)


def test_indexing_one_file_says_nothing_about_sources_beside_it(empty_gallery, album):
    index(empty_gallery, album / "2019")
    next((album / "2019" / "sea").iterdir()).unlink()
    one = next(album.glob("*.*"))
    assert index_sources(empty_gallery, [ImageFile(one)], workers=1).remarks == []


def test_a_place_on_a_disk_that_is_away_is_not_forgotten_for_a_copy(empty_gallery, album):
    """Its image keeps its id and label when the copy goes."""
    copies, disk = album.parent / "copies", album / "2019" / "sea"
    copies.mkdir()
    index(empty_gallery, album)
    one = next(disk.iterdir())
    with hs.open(empty_gallery.folder) as opened:
        number = opened.add(one, label="mine")
    away = disk.rename(album.parent / "away")
    disk.mkdir()
    (disk / ".keep").touch()
    for name in ("b.jpg", "a.jpg"):
        shutil.copy(away / one.name, copies / name)
    shutil.copy(next((album / "2019").glob("*.*")), copies / "other.jpg")
    index(empty_gallery, copies)
    for name in ("a.jpg", "b.jpg"):
        (copies / name).unlink()
    index_sources(empty_gallery, [Folder(copies)], workers=1, prune=True)
    shutil.rmtree(disk)
    away.rename(disk)
    index(empty_gallery, album)
    record = empty_gallery.catalog.record(number)
    assert (record.path, record.label) == (str(one), "mine")


def test_a_source_whose_files_have_moved_is_not_called_away(empty_gallery, album):
    index(empty_gallery, album / "2019" / "sea")
    index(empty_gallery, album)
    (album / "2019" / "sea").rename(album / "2019" / "lake")
    for _ in range(2):
        assert index(empty_gallery, album).remarks == []


def test_a_renamed_file_that_is_overwritten_leaves_nothing_behind(empty_gallery, album):
    index(empty_gallery, album)
    path = next((album / "2019" / "sea").iterdir())
    (record,) = [one for one in records(empty_gallery) if one.path == str(path)]
    renamed = path.rename(path.with_name("renamed.jpg"))
    assert index(empty_gallery, album).moved == 1
    assert places(empty_gallery) == pictures(album)
    renamed.write_bytes(another_png())
    summary = index(empty_gallery, album)
    assert (summary.indexed, summary.missing) == (1, 0)
    assert record.id not in {one.id for one in records(empty_gallery)}


def test_a_renamed_folder_leaves_no_missing_images(empty_gallery, album):
    index(empty_gallery, album)
    (album / "2019").rename(album / "2020")
    summary = index(empty_gallery, album)
    assert (summary.moved, summary.missing) == (4, 0)
    assert index(empty_gallery, album).missing == 0


def test_pruning_a_folder_within_another_prunes_only_it(empty_gallery, album):
    index(empty_gallery, album)
    next(album.glob("*.*")).unlink()
    shutil.rmtree(album / "2019" / "sea")
    summary = index_sources(empty_gallery, [Folder(album / "2019")], workers=1, prune=True)
    assert summary.pruned == 2
    assert len(places(empty_gallery)) == 4


def test_two_places_of_one_path_in_an_older_gallery_are_joined(empty_gallery, album):
    """Galleries of earlier versions have a place for each source that holds a file."""
    index(empty_gallery, album)
    catalog = empty_gallery.catalog
    inner = catalog.source_name(album / "2019")
    known = catalog.known_files([record.uri for record in records(empty_gallery)])
    second = [
        FoundPlace(file.key, inner + uri.removeprefix("album/2019"), "x", file.size, file.mtime)
        for uri, file in known.items()
        if uri.startswith("album/2019/")
    ]
    # At one of the paths, the older place has a content that was overwritten since.
    first, *_, last = second
    stale = FoundPlace(last.key, first.uri, "x", first.size + 1, first.mtime)
    empty_gallery.commit(Changes(found=[stale, *second[1:]]))
    assert len(places(empty_gallery)) == 10
    summary = index(empty_gallery, album)
    assert (summary.unchanged, summary.indexed) == (6, 0)
    assert places(empty_gallery) == pictures(album)
    assert catalog.uris_under("album/2019") == []


def test_a_source_that_moves_into_another_keeps_one_place_for_each_file(
    empty_gallery, album, tmp_path
):
    (album / "2019").rename(tmp_path / "2019")
    for folder in (album, tmp_path / "2019"):
        index(empty_gallery, folder)
    (tmp_path / "2019").rename(album / "2019")
    index(empty_gallery, album)
    assert relocate(empty_gallery, tmp_path / "2019", album / "2019").found == 4
    assert places(empty_gallery) == pictures(album)
    for folder in (album, album / "2019"):
        assert index(empty_gallery, folder).duplicates == 0
    assert places(empty_gallery) == pictures(album)
    assert empty_gallery.catalog.count() == 6


def test_a_relocation_to_where_the_files_were_found_keeps_their_labels(empty_gallery, album):
    (album / "2019").rename(album.parent / "old")
    index(empty_gallery, album.parent / "old")
    (album.parent / "old").rename(album / "new")
    index(empty_gallery, album)
    before = {record.path: record.label for record in records(empty_gallery)}
    assert relocate(empty_gallery, album.parent / "old", album / "new").found == 4
    assert {record.path: record.label for record in records(empty_gallery)} == before
    assert before[str(next((album / "new").glob("*.*")))] is not None


def test_a_label_by_the_folder_of_a_source_follows_its_relocation(empty_gallery, album):
    index(empty_gallery, album / "2019" / "sea")
    index(empty_gallery, album)
    (album / "2019" / "sea").rename(album / "2019" / "lake")
    assert relocate(empty_gallery, album / "2019" / "sea", album / "2019" / "lake").found == 2
    assert empty_gallery.catalog.labels() == {"2019": 2, "lake": 2}


def test_a_label_by_the_folder_of_a_source_follows_a_part_of_its_files(empty_gallery, album):
    index(empty_gallery, album / "2019" / "sea")
    index(empty_gallery, album)
    one, _ = (album / "2019" / "sea").iterdir()
    (album / "2019" / "lake").mkdir()
    one.rename(album / "2019" / "lake" / one.name)
    done = relocate(empty_gallery, album / "2019" / "sea", album / "2019" / "lake")
    assert (done.found, done.kept) == (1, 1)
    assert empty_gallery.catalog.labels() == {"2019": 2, "lake": 1, "sea": 1}


def test_a_picture_added_as_bytes_is_shown_by_its_file_once_that_is_found(empty_gallery, album):
    one, other = list((album / "2019" / "sea").iterdir())
    with hs.open(empty_gallery.folder) as opened:
        ids = [opened.add(path.read_bytes(), label="mine") for path in (one, other)]
        opened.add(other)
        index(empty_gallery, album)
        assert [opened.paths(number) for number in ids] == [[str(one)], [str(other)]]
        assert {opened.get(number).label for number in ids} == {"mine"}


def test_an_added_file_and_its_folder_have_one_place(empty_gallery, album):
    path = next((album / "2019" / "sea").iterdir())
    with hs.open(empty_gallery.folder) as opened:
        image_id = opened.add(path)
        index(empty_gallery, album)
        assert opened.paths(image_id) == [str(path)]
    assert places(empty_gallery) == pictures(album)


@pytest.mark.parametrize("order", [("album/2019", "album"), ("album", "album/2019")])
def test_labels_do_not_depend_on_the_order(order, empty_gallery, album):
    one = next((album / "2019" / "sea").iterdir())
    for source in (ImageFile(one), *(Folder(album.parent / name) for name in order)):
        index_sources(empty_gallery, [source], workers=1)
    found = {record.path: record.label for record in records(empty_gallery)}
    for path, label in found.items():
        folder = Path(path).parent
        assert label == (None if folder == album else folder.name)
    generation = empty_gallery.catalog.generation()
    index(empty_gallery, album)
    assert empty_gallery.catalog.generation() == generation


def test_excluded_images_that_stay_are_counted_whatever_their_source(empty_gallery, album):
    index(empty_gallery, album / "2019")
    with hs.open(empty_gallery.folder) as opened:
        summary = opened.index(album, exclude=["/2019/sea/"], workers=1)
        assert summary.excluded == 2
        assert any("2 images of the gallery match the patterns" in one for one in summary.remarks)


def test_info_names_no_source_that_holds_nothing(empty_gallery, album, capsys):
    index(empty_gallery, album)
    assert run("gallery", "remove", empty_gallery.folder, "--uri", album, "--yes") == 0
    capsys.readouterr()
    assert run("gallery", "info", empty_gallery.folder, "--json") == 0
    assert json.loads(capsys.readouterr().out)["sources"] == {"album": str(album)}  # a failure
    (album / "2019" / "broken.jpg").unlink()
    with hs.open(empty_gallery.folder) as opened:
        opened.index(album, exclude=["*"], workers=1)
    assert run("gallery", "info", empty_gallery.folder, "--json") == 0
    assert json.loads(capsys.readouterr().out)["sources"] == {}


def test_names_give_a_uri_and_take_it_back():
    names = Names("album", [("/2019/sea", "sea~2"), ("/2019", "2019")])
    for place, uri in (
        ("/2019/sea/a.jpg", "sea~2/a.jpg"),
        ("/2019/a.jpg", "2019/a.jpg"),
        ("/2019.jpg", "album/2019.jpg"),
        ("/2019b/a.jpg", "album/2019b/a.jpg"),
    ):
        assert names.uri(place) == uri
        assert names.place(uri) == place
    assert names.place("album2/a.jpg") is None
    assert names.place("2018/a.jpg") is None
