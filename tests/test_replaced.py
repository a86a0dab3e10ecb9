"""Galleries whose folder is deleted, replaced by another gallery, or restored, while in use."""

import json
import shutil
import sqlite3
import subprocess
import sys
import threading
import urllib.error
import urllib.request
from itertools import count
from pathlib import Path

import pytest

import hashsearch as hs
from hashsearch import open_gallery
from hashsearch.encoder import Encoder
from hashsearch.errors import InvalidGallery
from hashsearch.gallery import opening
from hashsearch.gallery.gallery_folder import GalleryFolder
from hashsearch.inputs import tiny_image
from hashsearch.retrieval import live_searcher
from service import engine
from tests import forked
from tests.conftest import serving
from tests.galleries import ids, index, run
from tests.test_cli import service


@pytest.fixture(scope="module")
def other_folder(tmp_path_factory, other_model_folder, image_files) -> Path:
    """A gallery of 100 of the pictures, in another order, by another model. Not to be changed.

    Its generation is that of `gallery_folder`.
    """
    pictures = tmp_path_factory.mktemp("some") / "some"
    pictures.mkdir()
    for number, path in enumerate(sorted(image_files.rglob("*.*"))[:100]):
        shutil.copy(path, pictures / f"{999 - number}{path.suffix}")
    folder = tmp_path_factory.mktemp("other") / "gallery"
    gallery = GalleryFolder.create(folder, other_model_folder)
    index(gallery, pictures)
    gallery.close()
    return folder


@pytest.fixture
def folder(gallery_folder, tmp_path) -> Path:
    """A copy of the session's gallery, which nobody has open."""
    return Path(shutil.copytree(gallery_folder, tmp_path / "gallery"))


def rebuild(folder: Path, other: Path) -> None:
    shutil.rmtree(folder)
    shutil.copytree(other, folder)


def swap(folder: Path, other: Path) -> None:
    new = shutil.copytree(other, folder.with_name("new"))
    shutil.rmtree(folder.with_name("old"), ignore_errors=True)
    folder.rename(folder.with_name("old"))
    Path(new).rename(folder)


REPLACEMENTS = (rebuild, swap)


def test_both_galleries_have_the_same_generation(folder, other_folder):
    """So that nothing in the tests below is noticed by the generation alone."""
    first, second = GalleryFolder(folder), GalleryFolder(other_folder)
    assert first.catalog.generation() == second.catalog.generation()
    assert first.fingerprint != second.fingerprint
    first.close()
    second.close()


@pytest.mark.parametrize("replace", REPLACEMENTS)
def test_an_open_gallery_follows_what_replaces_it(
    replace, folder, other_folder, other_model_folder, image_files, photograph
):
    picture = min(image_files.rglob("*.*")).read_bytes()
    expected = Encoder.load(other_model_folder)
    with hs.open(other_folder) as other:
        hits, record = other.search(picture, k=5), other.get(7)
    with hs.open(folder) as gallery:
        assert gallery.search(picture, k=5) != hits
        replace(folder, other_folder)
        assert len(gallery) == 100
        assert gallery.search(picture, k=5) == hits
        assert gallery.get(7) == record
        with pytest.raises(hs.errors.NotInGallery):
            gallery.get(300)
        number = gallery.add(photograph)
        assert gallery.rank(photograph, k=1).hits[0].id == number
        assert [image.id for image in gallery][-1] == number
        (code,) = expected.encode(tiny_image(photograph)[None])
        stored = GalleryFolder(folder)
        assert (stored.code(number) == code).all()
        assert number in ids(stored)
        stored.close()


def test_a_deleted_gallery_says_so_until_it_is_back(folder, other_folder, photograph, tmp_path):
    with hs.open(folder) as gallery:
        assert len(gallery) == 300
        shutil.rmtree(folder)
        for use in (
            *(lambda: len(gallery), lambda: gallery.search(9), lambda: gallery.get(9)),
            *(lambda: list(gallery), lambda: gallery.index(tmp_path), gallery.failures),
            *(lambda: gallery.add(photograph), lambda: gallery.remove(label="cat")),
        ):
            with pytest.raises(InvalidGallery, match="gallery is gone: No such file"):
                use()
        assert not folder.exists()
        shutil.copytree(other_folder, folder)
        assert len(gallery) == 100


def test_a_gallery_that_is_moved_away_and_back_is_the_same(folder, photograph):
    with hs.open(folder) as gallery:
        expected = gallery.search(9)
        folder.rename(folder.with_name("away"))
        with pytest.raises(InvalidGallery, match="is gone"):
            gallery.search(9)
        folder.with_name("away").rename(folder)
        assert gallery.search(9) == expected
        assert gallery.get(gallery.add(photograph)).width == 640


def test_what_replaces_a_gallery_may_be_damaged_at_first(folder, other_folder):
    with hs.open(folder) as gallery:
        rebuild(folder, other_folder)
        (folder / "catalog.sqlite").write_bytes(b"no catalog" * 1000)
        for _ in range(2):
            with pytest.raises(InvalidGallery, match="cannot be read"):
                len(gallery)
        rebuild(folder, other_folder)
        assert len(gallery) == 100


def test_ids_of_a_gallery_that_was_replaced_remove_nothing(folder, other_folder):
    with hs.open(folder) as gallery:
        rebuild(folder, other_folder)
        with pytest.raises(InvalidGallery, match="ids mean other images; nothing was removed"):
            gallery.remove(ids=[1])
        assert len(gallery) == 100
        assert gallery.remove(ids=[1]) == 1


def test_an_iteration_does_not_mix_two_galleries(folder, other_folder, monkeypatch):
    monkeypatch.setattr(open_gallery, "_BATCH", 10)
    with hs.open(folder) as gallery:
        images = iter(gallery)
        next(images)
        rebuild(folder, other_folder)
        with pytest.raises(InvalidGallery, match="was replaced by another while it was read"):
            list(images)


def test_a_gallery_that_may_only_be_read_is_followed_too(folder, other_folder, monkeypatch):
    monkeypatch.setattr(opening, "_can_write", lambda path: False)
    with hs.open(folder) as gallery:
        assert len(gallery.search(9, k=1000)) == 299
        for replace in REPLACEMENTS:
            replace(folder, other_folder)
            assert len(gallery.search(9, k=1000)) == 99
            assert len(gallery) == 100


def test_a_precision_is_followed_too(folder, model_folder, image_files, tmp_path):
    picture = min(image_files.rglob("*.*"))
    made = GalleryFolder.create(tmp_path / "bf", model_folder, precision="bfloat16")
    made.close()
    with hs.open(folder) as gallery:
        gallery.search(picture)
        rebuild(folder, tmp_path / "bf")
        expected = Encoder.load(model_folder, precision="bfloat16")
        number = gallery.add(picture)
        stored = GalleryFolder(folder)
        assert (stored.code(number) == expected.encode(stored.pixels(number)[None])[0]).all()
        stored.close()


@pytest.mark.parametrize("replaced", [False, True])
def test_a_job_does_not_write_to_a_gallery_that_is_deleted_meanwhile(
    replaced, folder, other_folder, image_files, photograph, tmp_path
):
    (tmp_path / "more").mkdir()
    (tmp_path / "more" / "rocket.jpg").write_bytes(photograph)

    asked = count()

    def delete() -> bool:
        if next(asked) == 0:  # before the first images
            return False
        # A commit of the job beside it may make files of SQLite's in a folder that is emptied.
        shutil.rmtree(folder.rename(folder.with_name("deleted")), ignore_errors=True)
        if replaced:
            shutil.copytree(other_folder, folder)
        return True

    with hs.open(folder) as gallery:
        with pytest.raises(InvalidGallery, match="deleted or replaced while images were added"):
            gallery.index(tmp_path / "more", workers=1, stop=delete)
        assert folder.exists() == replaced
    if replaced:
        assert run("gallery", "verify", folder) == 0


def test_a_change_does_not_make_the_catalog_of_a_deleted_gallery_again(folder, monkeypatch):
    gallery = GalleryFolder(folder)
    monkeypatch.setattr(gallery.catalog, "require_in_place", lambda: None)  # a moment too early
    (folder / "catalog.sqlite").unlink()
    with pytest.raises(sqlite3.OperationalError), gallery.catalog.transaction():
        pass
    gallery.close()
    assert not (folder / "catalog.sqlite").exists()


def test_a_commit_that_is_lost_with_its_gallery_is_an_error(folder, other_folder):
    gallery = GalleryFolder(folder)
    with pytest.raises(InvalidGallery, match="deleted or replaced"), gallery.catalog.transaction():
        rebuild(folder, other_folder)
    gallery.close()
    assert run("gallery", "verify", folder) == 0


# Restoring from a backup


def test_a_backup_that_is_moved_into_place_is_read(folder, tmp_path, photograph):
    backup = Path(shutil.copytree(folder, tmp_path / "backup"))
    with hs.open(folder) as gallery:
        number = gallery.add(photograph)
        assert len(gallery) == 301
        folder.rename(tmp_path / "lost")
        backup.rename(folder)
        assert len(gallery) == 300
        with pytest.raises(hs.errors.NotInGallery):
            gallery.get(number)
        assert gallery.add(photograph) == 301
    assert run("gallery", "verify", folder) == 0
    assert run("gallery", "verify", tmp_path / "lost") == 0


@pytest.mark.parametrize("way", ["in place", "by renaming"])
def test_a_program_that_reads_does_no_harm_to_a_backup_that_is_copied_over_its_gallery(
    way, folder, tmp_path, photograph
):
    """Its log of the lost state must not come into the restored catalog when it ends."""
    backup = Path(shutil.copytree(folder, tmp_path / "backup"))
    with hs.open(folder) as reader:
        assert len(reader) == 300
        add = "import sys, hashsearch as hs; hs.open(sys.argv[1]).add(sys.argv[2])"
        (tmp_path / "rocket.jpg").write_bytes(photograph)
        arguments = [sys.executable, "-c", add, folder, tmp_path / "rocket.jpg"]
        assert forked.run(arguments).returncode == 0
        assert len(reader) == 301
        for end in ("-wal", "-shm"):
            assert (folder / f"catalog.sqlite{end}").stat().st_size
            (folder / f"catalog.sqlite{end}").unlink()
        if way == "in place":
            subprocess.run(["cp", "-rp", f"{backup}/.", f"{folder}/"], check=True)
        else:
            shutil.copytree(backup, tmp_path / "new")
            (tmp_path / "new" / "catalog.sqlite").replace(folder / "catalog.sqlite")
            assert len(reader) == 300
    catalog = (backup / "catalog.sqlite").read_bytes()
    assert (folder / "catalog.sqlite").read_bytes() == catalog
    with hs.open(folder) as restored:
        assert len(restored) == 300
    assert run("gallery", "verify", folder) == 0


# The service


@pytest.mark.parametrize("replace", REPLACEMENTS)
def test_the_service_follows_what_replaces_its_gallery(
    replace, folder, other_folder, image_files, photograph
):
    picture = min(image_files.rglob("*.*")).read_bytes()
    with serving(other_folder) as client:
        expected = client.post("/v1/search?k=5", content=picture).json()["hits"]
        thumbnail = client.get("/v1/images/7/thumbnail")
    with serving(folder) as client:
        tag = {"If-None-Match": client.get("/v1/images/7/thumbnail").headers["etag"]}
        assert client.get("/v1/images/7/thumbnail", headers=tag).status_code == 304
        replace(folder, other_folder)
        now = client.get("/v1/images/7/thumbnail", headers=tag)
        assert (now.status_code, now.content) == (200, thumbnail.content)
        assert client.post("/v1/search?k=5", content=picture).json()["hits"] == expected
        assert client.get("/readyz").json()["images"] == 100
        assert client.get("/v1/gallery").json()["fingerprint"] == fingerprint(other_folder)
        assert client.get("/v1/images/300/thumbnail").status_code == 404
        with hs.open(folder) as writer:
            writer.add(photograph)
        assert client.get("/readyz").json()["images"] == 101


def test_while_another_gallery_takes_long_to_load_the_service_says_so(
    folder, other_folder, monkeypatch
):
    may_read, read = threading.Event(), live_searcher.read_state

    def slow(*arguments):
        may_read.wait()
        return read(*arguments)

    monkeypatch.setattr(engine, "_OPENING_S", 0.1)
    with serving(folder) as client:
        monkeypatch.setattr(live_searcher, "read_state", slow)
        swap(folder, other_folder)
        for _ in range(2):
            refused = client.post("/v1/search", json={"id": 1})
            assert (refused.status_code, refused.json()["code"]) == (503, "gallery-loading")
            assert (
                refused.json()["detail"] == "another gallery is being loaded; try again in a moment"
            )
            assert refused.headers["Retry-After"] == "2"
        may_read.set()
        monkeypatch.setattr(engine, "_OPENING_S", 30)
        assert client.post("/v1/search", json={"id": 1}).status_code == 200
        assert client.get("/readyz").json()["images"] == 100


def fingerprint(folder: Path) -> str:
    return json.loads((folder / "model" / "card.json").read_text())["fingerprint"]


def test_a_service_without_its_gallery_is_not_ready_until_it_is_back(folder, other_folder):
    with serving(folder) as client:
        shutil.rmtree(folder)
        for answer in (
            *(client.get("/readyz"), client.get("/v1/gallery"), client.get("/")),
            *(client.post("/v1/search", json={"id": 1}), client.get("/v1/images/1/thumbnail")),
        ):
            assert (answer.status_code, answer.json()["code"]) == (503, "gallery-unavailable")
            assert int(answer.headers["retry-after"]) > 0
            assert str(folder) not in answer.text
        assert client.get("/livez").status_code == 200
        shutil.copytree(other_folder, folder)
        assert client.get("/readyz").json()["images"] == 100


def ask(port: int, body: bytes) -> tuple[int, bytes]:
    address = f"http://127.0.0.1:{port}/v1/search?k=3"
    try:
        with urllib.request.urlopen(urllib.request.Request(address, body), timeout=60) as answer:
            return answer.status, answer.read()
    except urllib.error.HTTPError as error:
        return error.code, error.read()


def test_a_busy_server_answers_from_one_gallery_or_the_other(
    folder, gallery_folder, other_folder, image_files
):
    """Its gallery is swapped and rebuilt again and again while clients search all the time."""
    picture = min(image_files.rglob("*.*")).read_bytes()
    answers: list[tuple[int, bytes]] = []
    over = threading.Event()

    def search(port: int) -> None:
        while not over.is_set():
            answers.append(ask(port, picture))

    with service(folder) as (_, port):
        first = hits(ask(port, picture))
        clients = [threading.Thread(target=search, args=(port,)) for _ in range(4)]
        for client in clients:
            client.start()
        try:
            for other in (other_folder, gallery_folder) * 3:
                swap(folder, other)
                expected = hits(ask(port, picture))
                assert (expected == first) == (other == gallery_folder)
            rebuild(folder, other_folder)
            second = hits(ask(port, picture))
        finally:
            over.set()
            for client in clients:
                client.join()
    assert {code for code, _ in answers} <= {200, 503}
    found = [hits(answer) for answer in answers if answer[0] == 200]
    assert first != second
    assert all(one in (first, second) for one in found)
    assert first in found
    assert second in found


def hits(answer: tuple[int, bytes]) -> list:
    code, body = answer
    assert code == 200, body
    return json.loads(body)["hits"]
