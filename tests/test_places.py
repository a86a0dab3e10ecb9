"""Files that move, are copied, go, and are kept out: the places of a gallery's images."""

import json
import os
import shutil
import tarfile
from pathlib import Path
from unicodedata import normalize

import pytest

import hashsearch as hs
from hashsearch.errors import InvalidQuery, InvalidSource
from hashsearch.gallery.gallery_folder import GalleryFolder
from hashsearch.jobs.index.indexing import index_sources
from hashsearch.jobs.relocating import relocate
from hashsearch.sources import DataFolders, open_source
from hashsearch.sources.archive import TarArchive
from hashsearch.sources.folder import Folder, ImageFile
from tests.galleries import another_png, index, records, run

NO_FOLDERS = DataFolders(None, Path("/nonexistent"))


@pytest.fixture
def pictures(tmp_path, image_files) -> Path:
    """Eight real pictures in two folders, and a copy of the first in a third one."""
    chosen = sorted(image_files.rglob("*.*"))[:8]
    for number, path in enumerate(chosen):
        target = tmp_path / "pictures" / ("Urlaub" if number < 5 else "Urlaub 2024") / path.name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, target)
    (tmp_path / "pictures" / "copies").mkdir()
    shutil.copy(chosen[0], tmp_path / "pictures" / "copies" / "zz.jpg")
    return tmp_path / "pictures"


@pytest.fixture
def gallery(empty_gallery, pictures):
    index(empty_gallery, pictures)
    return empty_gallery


def shown(gallery: GalleryFolder, image_id: int) -> hs.ImageRecord:
    """The record as a search shows it."""
    with hs.open(gallery.folder) as opened:
        return opened.get(image_id)


def id_at(gallery: GalleryFolder, path: Path) -> int:
    (found,) = [
        image_id
        for image_id, places in gallery.catalog.places(
            [record.id for record in records(gallery)]
        ).items()
        if str(path) in {place.path for place in places}
    ]
    return found


def paths(gallery: GalleryFolder) -> set[str]:
    places = gallery.catalog.places([record.id for record in records(gallery)])
    return {place.path for found in places.values() for place in found}


def on_disk(*folders: Path) -> set[str]:
    return {str(path) for folder in folders for path in folder.rglob("*.*")}


# Moving


def test_a_renamed_file_is_the_same_image_at_its_new_path(gallery, pictures):
    old, new = next((pictures / "Urlaub 2024").iterdir()), pictures / "Urlaub" / "new.jpg"
    image_id, count = id_at(gallery, old), gallery.catalog.count()
    generation = gallery.catalog.generation()
    old.rename(new)
    summary = index(gallery, pictures)
    assert (summary.indexed, summary.moved, summary.duplicates) == (0, 1, 0)
    assert gallery.catalog.count() == count
    assert gallery.catalog.generation() > generation
    record = gallery.catalog.record(image_id)
    assert (record.path, record.label) == (str(new), "Urlaub")
    assert not shown(gallery, image_id).missing
    again = index(gallery, pictures)
    assert (again.moved, again.duplicates, again.unchanged) == (0, 0, 9)


def test_a_renamed_folder_moves_its_images_and_their_labels(gallery, pictures):
    before = {record.id for record in records(gallery)}
    (pictures / "Urlaub").rename(pictures / "Ferien")
    summary = index(gallery, pictures)
    assert (summary.indexed, summary.moved) == (0, 5)
    assert {record.id for record in records(gallery)} == before
    for record in records(gallery):
        assert Path(shown(gallery, record.id).path).exists()
    assert set(gallery.catalog.labels()) <= {"Ferien", "Urlaub 2024", "copies"}


def test_a_search_shows_the_copy_that_exists_before_and_after_indexing_again(
    gallery, pictures, capsys
):
    copy = pictures / "copies" / "zz.jpg"
    first = next(p for p in (pictures / "Urlaub").iterdir() if p.read_bytes() == copy.read_bytes())
    image_id = id_at(gallery, first)
    assert image_id == id_at(gallery, copy)
    first.unlink()
    for _ in range(2):
        assert run("query", copy, "--gallery", gallery.folder, "-k1") == 0
        out = capsys.readouterr().out
        assert str(copy) in out
        assert str(first) not in out
        record = shown(gallery, image_id)
        assert (record.path, record.label, record.missing) == (str(copy), "copies", False)
        index(gallery, pictures)
    copy.unlink()
    record = shown(gallery, image_id)
    assert record.missing
    with hs.open(gallery.folder) as opened:
        (hit,) = opened.search(gallery.code(image_id), k=1)
        assert (hit.id, hit.missing) == (image_id, True)
    assert run("query", gallery.code(image_id).tobytes().hex(), "--gallery", gallery.folder) == 0
    assert "(gone)" in capsys.readouterr().out.splitlines()[1]


def test_a_file_that_replaces_another_by_its_move_keeps_only_its_own_image(gallery, pictures):
    one, other = sorted((pictures / "Urlaub 2024").iterdir())[:2]
    image_id, lost = id_at(gallery, one), id_at(gallery, other)
    one.replace(other)
    summary = index(gallery, pictures)
    assert (summary.indexed, summary.moved) == (0, 1)
    assert gallery.catalog.record(image_id).path == str(other)
    assert lost not in {record.id for record in records(gallery)}


def test_an_added_copy_is_known_under_both_paths(gallery, pictures, tmp_path):
    original = next((pictures / "Urlaub 2024").iterdir())
    shutil.copy(original, tmp_path / "elsewhere.jpg")
    with hs.open(gallery.folder) as opened:
        image_id = opened.add(tmp_path / "elsewhere.jpg")
        assert opened.paths(image_id) == [str(original), str(tmp_path / "elsewhere.jpg")]
        assert opened.get(image_id).label == "Urlaub 2024"
        original.unlink()
        assert opened.get(image_id).label is None


@pytest.mark.parametrize("label", [5, 1.5, b"cat", ["cat"]])
def test_a_label_that_is_no_text_is_refused(label, gallery, pictures):
    with hs.open(gallery.folder) as opened:
        with pytest.raises(InvalidQuery, match="came as a label; text was wanted"):
            opened.add(next((pictures / "Urlaub").iterdir()), label=label)
        with pytest.raises(InvalidQuery, match="came as labels; a CSV file's path was wanted"):
            opened.index(pictures, labels={"a.jpg": "cat"})


# Pruning


def test_without_prune_what_is_gone_stays(gallery, pictures):
    shutil.rmtree(pictures / "Urlaub 2024")
    assert index(gallery, pictures).pruned == 0
    assert gallery.catalog.count() == 8


def test_prune_removes_what_is_gone_and_nothing_else(gallery, pictures):
    shutil.rmtree(pictures / "Urlaub 2024")
    copy = pictures / "copies" / "zz.jpg"
    first = next(p for p in (pictures / "Urlaub").iterdir() if p.read_bytes() == copy.read_bytes())
    first.unlink()
    summary = index_sources(gallery, [Folder(pictures)], workers=1, prune=True)
    assert summary.pruned == 3
    assert gallery.catalog.count() == 5
    assert paths(gallery) == on_disk(pictures)
    assert gallery.catalog.record(id_at(gallery, copy)).label == "copies"


@pytest.mark.parametrize("harm", ["missing", "empty"])
def test_prune_removes_nothing_if_the_source_itself_is_missing(harm, gallery, pictures):
    shutil.rmtree(pictures)
    if harm == "empty":  # a mount point that is not mounted
        pictures.mkdir()
    assert run("index", pictures, "--gallery", gallery.folder, "--prune") == 1
    assert gallery.catalog.count() == 8


def test_prune_of_one_file_or_of_another_source_removes_nothing(gallery, pictures, tmp_path):
    one = next((pictures / "Urlaub").iterdir())
    shutil.rmtree(pictures / "Urlaub 2024")
    (tmp_path / "other").mkdir()
    shutil.copy(one, tmp_path / "other")
    sources = [ImageFile(one), Folder(tmp_path / "other")]
    assert index_sources(gallery, sources, workers=1, prune=True).pruned == 0
    assert gallery.catalog.count() == 8


def test_prune_removes_nothing_if_the_source_yields_nothing(gallery, pictures):
    """As when its disk is unmounted after the command's first look."""
    shutil.rmtree(pictures)
    pictures.mkdir()
    assert index_sources(gallery, [Folder(pictures)], workers=1, prune=True).pruned == 0
    assert gallery.catalog.count() == 8


def test_prune_removes_nothing_after_a_stop(gallery, pictures):
    shutil.rmtree(pictures / "Urlaub 2024")
    summary = index_sources(gallery, [Folder(pictures)], workers=1, prune=True, stop=lambda: True)
    assert (summary.stopped, summary.pruned) == (True, 0)


def tar_of_folder(path: Path, folder: Path, leave_out: str = "none") -> None:
    with tarfile.open(path, "w") as archive:
        for file in sorted(folder.rglob("*.*")):
            if leave_out not in file.parts:
                archive.add(file, file.relative_to(folder))


def test_prune_removes_members_that_an_archive_no_longer_has(empty_gallery, pictures, tmp_path):
    archive = tmp_path / "a.tar"
    tar_of_folder(archive, pictures)
    index_sources(empty_gallery, [TarArchive(archive)], workers=1)
    assert empty_gallery.catalog.count() == 8
    tar_of_folder(archive, pictures, leave_out="Urlaub")
    part = [TarArchive(archive, under="Urlaub 2024/")]
    assert index_sources(empty_gallery, part, workers=1, prune=True).pruned == 0
    whole = archive.read_bytes()
    archive.write_bytes(whole[: len(whole) // 4])  # cut short, so what it held is unknown
    with pytest.raises(InvalidSource):
        index_sources(empty_gallery, [TarArchive(archive)], workers=1, prune=True)
    assert empty_gallery.catalog.count() == 8
    archive.write_bytes(whole)
    summary = index_sources(empty_gallery, [TarArchive(archive)], workers=1, prune=True)
    assert summary.pruned == 4  # the fifth has a copy
    assert empty_gallery.catalog.count() == 4


def test_a_folder_that_cannot_be_read_is_not_pruned(gallery, pictures, monkeypatch):
    """As root reads everything, the disk's error is made here."""
    unreadable = pictures / "Urlaub"
    scandir = os.scandir

    def failing(path):
        if path == unreadable:
            raise PermissionError(13, "Permission denied")
        return scandir(path)

    monkeypatch.setattr(os, "scandir", failing)
    summary = index_sources(gallery, [Folder(pictures)], workers=1, prune=True)
    assert (summary.failed, summary.pruned) == (1, 0)
    assert gallery.catalog.count() == 8


# Excluding


def test_excluded_paths_are_left_out_now_and_later(pictures, tmp_path, model_folder, capsys):
    g = tmp_path / "g"
    arguments = ("index", pictures, "--gallery", g, "--model", model_folder)
    assert run(*arguments, "--exclude", "Urlaub 2024/", "--exclude", "zz.*") == 0
    assert "5 images; 5 new, 0 already there, 0 duplicates, 0 failed, 4 excluded" in (
        capsys.readouterr().out
    )
    assert run("index", pictures, "--gallery", g) == 0
    assert "5 images; 0 new, 5 already there" in capsys.readouterr().out
    assert run("gallery", "info", g) == 0
    assert "Urlaub 2024/, zz.*" in capsys.readouterr().out
    assert run("index", pictures, "--gallery", g, "--include", "Urlaub 2024/") == 0
    assert "8 images; 3 new" in capsys.readouterr().out
    assert run("index", pictures, "--gallery", g, "--include", "*.png") == 1
    assert "'*.png' is not excluded; excluded are: 'zz.*'" in capsys.readouterr().err


def test_removed_images_stay_out_if_they_are_excluded(gallery, pictures):
    (pictures / "Urlaub 2024" / "broken.jpg").write_bytes(b"broken")
    index(gallery, pictures)
    assert gallery.catalog.failure_count() == 1
    assert run("gallery", "remove", gallery.folder, "--uri", pictures / "Urlaub 2024") == 0
    with hs.open(gallery.folder) as opened:
        summary = opened.index(pictures, exclude=["Urlaub 2024"], workers=1)
        assert (len(opened), summary.excluded, opened.failures()) == (5, 4, [])


def test_a_pattern_that_matches_nothing_is_remembered_with_a_remark(pictures, gallery, capsys):
    with hs.open(gallery.folder) as opened:
        for patterns, unmatched in (
            (["Urlub", "zx.*", "!zy*"], ["Urlub", "zx.*", "!zy*"]),
            (["Urlub", "*.none"], ["Urlub", "*.none"]),
            ([], []),
        ):
            assert opened.index(pictures, exclude=patterns, workers=1).remarks == [
                f"no path matches {one!r}, which the gallery remembers; --include forgets it"
                for one in unmatched
            ]
    arguments = ("index", pictures, pictures / "Urlaub", "--gallery", gallery.folder)
    capsys.readouterr()
    assert run(*arguments, "--exclude", "/Urlaub/", "--exclude", "nix/", "--json") == 0
    shown = capsys.readouterr()
    remarks = json.loads(shown.out)["remarks"]
    assert [remark.split(",")[0] for remark in remarks[:-1]] == ["no path matches 'nix/'"]
    assert run(*arguments, "--exclude", "nix/") == 0
    assert "no path matches 'nix/', which" in capsys.readouterr().err


def test_the_images_that_match_a_new_pattern_and_stay_are_counted(pictures, gallery, tmp_path):
    tar_of_folder(tmp_path / "a.tar", pictures / "Urlaub")
    with hs.open(gallery.folder) as opened:
        opened.index(tmp_path / "a.tar", workers=1)  # further places of the same images
        kept = next((pictures / "Urlaub").iterdir())
        wanted = [one.id for one in opened if Path(one.path).parent == pictures / "Urlaub"]
        assert len(wanted) == 5
        for patterns, number in ((["/Urlaub/"], "5 images"), ([f"!{kept.name}"], "4 images")):
            (remark,) = opened.index(pictures, exclude=patterns, workers=1).remarks
            assert remark.startswith(f"{number} of the gallery match the patterns and stay; ")
        assert len(opened) == 8
        opened.remove(ids=wanted)
        assert opened.index(pictures, exclude=["/Urlaub"], workers=1).remarks == []


@pytest.mark.parametrize(("stored", "typed"), [("NFD", "NFC"), ("NFC", "NFD")])
def test_a_pattern_matches_accented_names_however_they_are_composed(
    stored, typed, pictures, gallery, tmp_path
):
    """macOS stores names decomposed, and most keyboards type letters composed."""
    folder = tmp_path / normalize(stored, "Müllers Fête")
    shutil.copytree(pictures / "Urlaub", folder / normalize(stored, "Ångström"))
    assert folder.name != normalize(typed, folder.name)
    with hs.open(gallery.folder) as opened:
        summary = opened.index(folder, exclude=[normalize(typed, "Ångström/")], workers=1)
        assert (summary.excluded, summary.indexed, summary.remarks) == (5, 0, [])
        assert opened.index(folder, workers=1).excluded == 5


def test_members_of_archives_are_excluded_and_not_pruned(empty_gallery, pictures, tmp_path):
    tar_of_folder(tmp_path / "a.tar", pictures)
    source = open_source(str(tmp_path / "a.tar"), NO_FOLDERS)
    index_sources(empty_gallery, [source], workers=1)
    empty_gallery.change_excludes(["/Urlaub"], [])
    summary = index_sources(empty_gallery, [source], workers=1, prune=True)
    assert (summary.excluded, summary.pruned) == (5, 0)


@pytest.mark.parametrize("pattern", ["", " ", "#x", "!"])
def test_what_is_no_pattern_is_refused_and_not_remembered(pattern, gallery, pictures):
    with hs.open(gallery.folder) as opened:
        with pytest.raises(InvalidSource):
            opened.index(pictures, exclude=["*.gif", pattern])
        with pytest.raises(InvalidQuery, match="exclude is a list of patterns; got 'Urlaub'"):
            opened.index(pictures, exclude="Urlaub")
    assert gallery.catalog.excludes() == []


def test_patterns_apply_in_the_order_in_which_they_were_added(pictures, tmp_path, model_folder):
    """As in a .gitignore file, the last one that matches decides."""
    names = sorted(path.name for path in pictures.rglob("*.*"))
    kept = names[0]
    with hs.open(tmp_path / "g", create=True, model=model_folder) as gallery:
        assert gallery.index(pictures, exclude=["*", f"!{kept}"], workers=1).indexed == 1
        assert (
            gallery.index(pictures, exclude=["*"], workers=1).unchanged == 1
        )  # remembered already
    opened = GalleryFolder(tmp_path / "g")
    assert opened.catalog.excludes() == ["*", f"!{kept}"]
    opened.close()


def test_a_pattern_that_is_no_text_is_refused(pictures, gallery, capsys):
    arguments = ("index", pictures, "--gallery", gallery.folder)
    assert run(*arguments, "--exclude", os.fsdecode(b"caf\xe9*")) == 1
    assert "is not valid UTF-8; in a pattern, ? stands for any character" in capsys.readouterr().err


# Removing


@pytest.mark.parametrize(
    "named",
    ["uri", "path", "relative", "trailing slash", "within a link"],
)
def test_a_folder_is_removed_by_any_of_its_names(named, gallery, pictures, monkeypatch):
    monkeypatch.chdir(pictures.parent)
    Path("link").symlink_to(pictures)
    name = {
        "uri": "pictures/Urlaub",
        "path": pictures / "Urlaub",
        "relative": "./pictures/Urlaub",
        "trailing slash": f"{pictures}/Urlaub/",
        "within a link": "link/Urlaub",
    }[named]
    assert run("gallery", "remove", gallery.folder, "--uri", name) == 0
    # The images of `Urlaub 2024`, and the copy of one of those removed.
    assert paths(gallery) == on_disk(pictures / "Urlaub 2024", pictures / "copies")
    assert gallery.catalog.count() == 4


def test_every_printed_path_can_be_removed(empty_gallery, pictures, tmp_path, capsys):
    strange = pictures / "Urlaub" / "50% #1 ü!.jpg"
    next((pictures / "Urlaub").iterdir()).rename(strange)
    tar_of_folder(tmp_path / "a.tar", pictures, leave_out="copies")
    shutil.rmtree(pictures / "Urlaub 2024")
    sources = [Folder(pictures), TarArchive(tmp_path / "a.tar")]
    index_sources(empty_gallery, sources, workers=1)
    for record in records(empty_gallery):
        for place in empty_gallery.catalog.places([record.id])[record.id]:
            assert run("gallery", "remove", empty_gallery.folder, "--uri", place.path) == 0
        assert record.id not in {one.id for one in records(empty_gallery)}
    assert empty_gallery.catalog.count() == 0


def test_removing_a_place_keeps_the_image_at_its_other_place(gallery, pictures, capsys):
    copy = pictures / "copies" / "zz.jpg"
    image_id = id_at(gallery, copy)
    first = gallery.catalog.record(image_id).path
    with hs.open(gallery.folder) as opened:
        assert opened.remove(uri_prefix=str(Path(first).parent)) == 4
        assert opened.paths(image_id) == [first] if first == str(copy) else [str(copy)]
    assert run("gallery", "remove", gallery.folder, "--uri", copy) == 0
    assert "1 removed" in capsys.readouterr().out


def test_a_dry_run_removes_nothing(gallery, pictures, capsys):
    target = pictures / "Urlaub 2024"
    assert run("gallery", "remove", gallery.folder, "--uri", target, "--dry-run") == 0
    out = capsys.readouterr().out
    assert "3 images would be removed" in out
    assert all(str(path) in out for path in target.iterdir())
    assert run("gallery", "remove", gallery.folder, "--label", "Urlaub", "--dry-run", "--json") == 0
    assert json.loads(capsys.readouterr().out)["selected"] == 5
    assert gallery.catalog.count() == 8


def test_a_dry_run_names_the_images_that_would_be_kept(gallery, pictures, capsys):
    """The copy is of one of the five pictures; with it, six places are in the two folders."""
    target = pictures / "Urlaub"
    assert run("gallery", "remove", gallery.folder, "--uri", target, "--dry-run") == 0
    out = capsys.readouterr().out
    assert "4 images would be removed\n1 image would be kept, found elsewhere too\n" in out
    named = {line.strip() for line in out.splitlines()[2:]}
    kept = {line.removesuffix(" (its image is kept)") for line in named if line.endswith(")")}
    elsewhere = {path.read_bytes() for path in pictures.rglob("*.*") if target not in path.parents}
    wanted = {str(path) for path in target.iterdir() if path.read_bytes() in elsewhere}
    assert (kept, len(kept)) == (wanted, 1)
    assert run("gallery", "remove", gallery.folder, "--uri", target, "--dry-run", "--json") == 0
    found = json.loads(capsys.readouterr().out)
    assert set(found["kept_paths"]) == kept
    assert set(found["paths"]) == {line for line in named if not line.endswith(")")}
    assert set(found["paths"]) | kept == {str(path) for path in target.iterdir()}
    arguments = ("gallery", "remove", gallery.folder, "--uri", pictures, "--dry-run", "--json")
    assert run(*arguments) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["selected"], found["kept"]) == (8, 0)
    assert (set(found["paths"]), found["kept_paths"]) == (on_disk(pictures), [])


def test_a_folder_above_sources_names_all_of_them(gallery, pictures, tmp_path, monkeypatch):
    (tmp_path / "more").mkdir()
    shutil.copy(next((pictures / "Urlaub").iterdir()), tmp_path / "more")
    index(gallery, tmp_path / "more")
    monkeypatch.chdir(tmp_path)
    with hs.open(gallery.folder) as opened:
        assert opened.remove(uri_prefix=".") == 8


def test_a_name_of_two_things_is_refused(gallery, pictures, tmp_path, monkeypatch, capsys):
    """`pictures` names the source, and a folder of another source in the working folder."""
    other = tmp_path / "elsewhere" / "pictures"
    other.mkdir(parents=True)
    (other / "a.png").write_bytes(another_png())
    index(gallery, other)
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert run("gallery", "remove", gallery.folder, "--uri", "pictures") == 1
    message = f"'pictures' may mean {pictures} and {other}; give the whole path of one of them"
    assert message in capsys.readouterr().err
    assert run("gallery", "remove", gallery.folder, "--uri", "./pictures/a.png") == 0
    assert run("gallery", "remove", gallery.folder, "--uri", "pictures/Urlaub 2024") == 0
    assert gallery.catalog.count() == 5


def test_a_label_of_a_name_that_is_not_utf8_is_removed(gallery, pictures):
    folder = Path(os.fsdecode(os.fsencode(pictures) + b"/caf\xe9"))
    folder.mkdir()
    (folder / "a.png").write_bytes(another_png())
    index(gallery, pictures)
    assert run("gallery", "remove", gallery.folder, "--label", folder.name) == 0
    assert gallery.catalog.count() == 8


def test_an_image_added_from_an_indexed_folder_is_unchanged_there(gallery, pictures):
    path = pictures / "Urlaub" / "new.png"
    path.write_bytes(another_png())
    with hs.open(gallery.folder) as opened:
        image_id = opened.add(path, label="new")
        assert opened.paths(image_id) == [str(path)]
    assert list(gallery.catalog.sources().values()) == [pictures]
    summary = index(gallery, pictures)
    assert (summary.unchanged, summary.duplicates) == (10, 0)
    assert gallery.catalog.record(image_id).label == "new"


# Relocating


def test_a_moved_source_is_found_at_its_new_path(gallery, pictures, tmp_path):
    before = {record.id for record in records(gallery)}
    pictures.rename(tmp_path / "photos")
    assert relocate(gallery, pictures, tmp_path / "photos").found == 9
    assert paths(gallery) == on_disk(tmp_path / "photos")
    summary = index(gallery, tmp_path / "photos")
    assert (summary.unchanged, summary.indexed, summary.moved) == (9, 0, 0)
    assert {record.id for record in records(gallery)} == before


def test_a_folder_above_and_a_folder_within_a_source_are_relocated(gallery, pictures, tmp_path):
    (tmp_path / "disk").mkdir()
    pictures.rename(tmp_path / "disk" / "pictures")
    shutil.move(tmp_path / "disk", tmp_path / "mount")
    assert relocate(gallery, pictures, tmp_path / "mount" / "pictures").found == 9
    root = tmp_path / "mount" / "pictures"
    (root / "Urlaub").rename(root / "Ferien")
    assert relocate(gallery, root / "Urlaub", root / "Ferien").found == 5
    (root / "Urlaub 2024").rename(tmp_path / "2024")
    assert relocate(gallery, root / "Urlaub 2024", tmp_path / "2024").found == 3
    assert paths(gallery) == on_disk(root, tmp_path / "2024")
    assert index(gallery, tmp_path / "2024").unchanged == 3
    shutil.move(tmp_path / "mount", tmp_path / "again")
    assert relocate(gallery, tmp_path / "mount", tmp_path / "again").found == 6
    assert paths(gallery) == on_disk(tmp_path / "again", tmp_path / "2024")


def test_a_relocation_to_a_place_that_was_indexed_joins_both(gallery, pictures, tmp_path):
    pictures.rename(tmp_path / "photos")
    index(gallery, tmp_path / "photos")
    assert relocate(gallery, pictures, tmp_path / "photos").found == 9
    assert paths(gallery) == on_disk(tmp_path / "photos")
    assert gallery.catalog.count() == 8


def test_failures_are_relocated_too(gallery, pictures):
    (pictures / "Urlaub" / "broken.jpg").write_bytes(b"broken")
    assert index(gallery, pictures).failed == 1
    (pictures / "Urlaub").rename(pictures / "Ferien")
    assert relocate(gallery, pictures / "Urlaub", pictures / "Ferien").found == 5
    ((failure, _),) = gallery.catalog.failures()
    assert failure.path == str(pictures / "Ferien" / "broken.jpg")
    summary = index(gallery, pictures)
    assert (summary.unchanged, summary.skipped) == (9, 1)


def test_files_that_moved_into_an_indexed_folder_within_a_source_are_found_unchanged(
    gallery, pictures, tmp_path
):
    """Of two sources that hold the new place, the inner one records it."""
    inner, outer = tmp_path / "outer" / "inner", tmp_path / "outer"
    inner.mkdir(parents=True)
    (inner / "a.png").write_bytes(another_png())
    index(gallery, outer)
    index(gallery, inner)
    for path in (pictures / "Urlaub 2024").iterdir():
        path.rename(inner / path.name)
    assert relocate(gallery, pictures / "Urlaub 2024", inner).found == 3
    assert index(gallery, inner).unchanged == 4


def test_folders_that_changed_places_lose_no_image(gallery, pictures, tmp_path):
    """While the folder that lies at the new path is not relocated itself, this is refused."""
    before = {record.id for record in records(gallery)}
    one, other, aside = pictures / "Urlaub", pictures / "Urlaub 2024", tmp_path / "aside"
    for folder in (one, other):  # three names that both folders have
        for number, path in enumerate(sorted(folder.iterdir())[:3]):
            path.rename(folder / f"{number}.jpg")
    index_sources(gallery, [Folder(pictures)], workers=1, prune=True)
    other.rename(aside)
    one.rename(other)
    with pytest.raises(InvalidSource, match=r"another image was indexed at .*Urlaub 2024/"):
        relocate(gallery, one, other)
    assert relocate(gallery, other, aside).found == 3
    assert relocate(gallery, one, other).found == 5
    assert index(gallery, pictures).unchanged == 6
    assert {record.id for record in records(gallery)} == before
    assert paths(gallery) == on_disk(pictures, aside)


def test_a_relocation_to_where_the_files_are_not_is_refused(gallery, pictures, tmp_path):
    before = paths(gallery)
    (tmp_path / "empty").mkdir()
    with pytest.raises(InvalidSource, match="are still there; relocate records what was moved"):
        relocate(gallery, pictures / "Urlaub", pictures / "Urlaub 2024")
    (pictures / "Urlaub").rename(pictures / "Ferien")
    for wrong in (tmp_path / "empty", pictures / "Urlaub 2024", pictures):
        with pytest.raises(InvalidSource, match=r"no file of .*Urlaub is at"):
            relocate(gallery, pictures / "Urlaub", wrong)
    assert paths(gallery) == before
    assert relocate(gallery, pictures / "Urlaub", pictures / "Ferien").found == 5


def test_files_that_stayed_behind_are_not_relocated(gallery, pictures, capsys):
    old, new = pictures / "Urlaub", pictures / "Ferien"
    stayed, removed, *moved = sorted(old.iterdir())
    new.mkdir()
    for path in moved:
        path.rename(new / path.name)
    removed.unlink()
    arguments = ("gallery", "relocate", gallery.folder, old, new)
    before = paths(gallery)
    assert run(*arguments, "--dry-run") == 0
    assert "3 files would be relocated" in capsys.readouterr().out
    assert paths(gallery) == before
    assert run(*arguments, "--json") == 0
    counts = {"relocated": 3, "missing": 1, "kept": 1}
    assert json.loads(capsys.readouterr().out) == counts
    assert paths(gallery) == on_disk(pictures) | {str(new / removed.name)}
    assert run(*arguments) == 1
    assert "are still there; relocate records what was moved" in capsys.readouterr().err
    stayed.unlink()
    assert index(gallery, pictures).missing == 1  # `copies` has the other


def test_a_file_keeps_its_place_where_another_images_file_is_at_the_new_path(
    gallery, pictures, tmp_path
):
    """`a.jpg` of one folder was not moved onto the `a.jpg` of another, but deleted."""
    one, other = pictures / "Urlaub", pictures / "Urlaub 2024"
    first = sorted(one.iterdir())[0]
    first.rename(one / "a.jpg")
    sorted(other.iterdir())[0].rename(other / "a.jpg")
    index_sources(gallery, [Folder(pictures)], workers=1, prune=True)
    before = {record.id for record in records(gallery)}
    lost, there = id_at(gallery, one / "a.jpg"), id_at(gallery, other / "a.jpg")
    (one / "a.jpg").unlink()
    for path in list(one.iterdir()):
        path.rename(other / path.name)
    done = relocate(gallery, one, other)
    assert (done.found, done.missing, done.kept) == (4, 0, 1)
    assert {record.id for record in records(gallery)} == before
    assert id_at(gallery, one / "a.jpg") == lost
    assert id_at(gallery, other / "a.jpg") == there


def test_the_reason_of_a_refused_relocation_is_true(gallery, pictures):
    one, other = pictures / "Urlaub", pictures / "Urlaub 2024"
    for folder in (one, other):
        for number, path in enumerate(sorted(folder.iterdir())[:3]):
            path.rename(folder / f"{number}.jpg")
    for path in one.iterdir():
        if len(path.stem) > 1:
            path.unlink()
    index_sources(gallery, [Folder(pictures)], workers=1, prune=True)
    shutil.rmtree(one)
    with pytest.raises(InvalidSource, match=r"files at .*2024 are other images than those of .*b$"):
        relocate(gallery, one, other)
    with pytest.raises(InvalidSource, match=r"no file of .*Urlaub is at .*copies; name the path"):
        relocate(gallery, one, pictures / "copies")


def test_links_are_relocated_by_their_own_paths(empty_gallery, pictures, tmp_path):
    (tmp_path / "album").mkdir()
    link = tmp_path / "album" / "link.jpg"
    link.symlink_to(next((pictures / "Urlaub").iterdir()))
    (tmp_path / "to album").symlink_to(tmp_path / "album")
    source = Folder(tmp_path / "to album", follow_links=True)
    index_sources(empty_gallery, [source], workers=1)
    renamed = link.rename(link.with_name("other.jpg"))
    assert relocate(empty_gallery, link, renamed).found == 1
    assert paths(empty_gallery) == {str(renamed)}
    (tmp_path / "album").rename(tmp_path / "moved")
    assert relocate(empty_gallery, tmp_path / "to album", tmp_path / "moved").found == 1
    assert paths(empty_gallery) == {str(tmp_path / "moved" / "other.jpg")}
    assert len(empty_gallery.catalog.sources()) == 1


def test_failures_that_moved_are_relocated_and_those_that_stayed_are_not(gallery, pictures):
    old, new = pictures / "Urlaub", pictures / "Ferien"
    for name in ("moved.jpg", "stayed.jpg"):
        (old / name).write_bytes(b"broken")
    index(gallery, pictures)
    new.mkdir()
    for path in sorted(old.iterdir())[:3]:
        path.rename(new / path.name)
    (old / "moved.jpg").rename(new / "moved.jpg")
    relocate(gallery, old, new)
    failed = {failure.path for failure, _ in gallery.catalog.failures()}
    assert failed == {str(new / "moved.jpg"), str(old / "stayed.jpg")}


def test_labels_by_folders_follow_a_relocated_folder(gallery, pictures):
    given = next((pictures / "Urlaub").iterdir())
    with hs.open(gallery.folder) as opened:
        opened.add(given, label="given")
    (pictures / "Urlaub").rename(pictures / "Ferien")
    relocate(gallery, pictures / "Urlaub", pictures / "Ferien")
    labels = {record.path: record.label for record in records(gallery)}
    for path in (pictures / "Ferien").iterdir():
        assert labels[str(path)] == ("given" if path.name == given.name else "Ferien")


def test_an_impossible_relocation_changes_nothing(gallery, pictures, tmp_path):
    before = paths(gallery)
    for old, new, reason in (
        (pictures, tmp_path / "nowhere", "does not exist"),
        (tmp_path / "nowhere", pictures, "no image of .* lies at"),
        (pictures, pictures / "Urlaub", "lies in"),
        (pictures, pictures, "came as the former path and as the new one"),
    ):
        with pytest.raises(InvalidSource, match=reason):
            relocate(gallery, old, new)
    with hs.open(gallery.folder) as opened, pytest.raises(InvalidQuery):
        opened.relocate("", pictures)
    assert paths(gallery) == before
