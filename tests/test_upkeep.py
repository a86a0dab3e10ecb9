"""A gallery's life after the job: add, remove, compact, verify, reencode, under readers."""

import hashlib
import itertools
import json
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from fastapi.testclient import TestClient
from numpy.testing import assert_array_equal

from hashsearch.cli import main
from hashsearch.errors import ArtifactMismatch, GalleryBusy, InvalidGallery, InvalidImage
from hashsearch.gallery import compacting, filling, reading, reencoding, removing
from hashsearch.gallery.additions import add_image
from hashsearch.gallery.changes import Selection
from hashsearch.gallery.compacting import compact
from hashsearch.gallery.folder import Gallery
from hashsearch.gallery.indexing import index_sources
from hashsearch.gallery.jobs import last_job
from hashsearch.gallery.queries import Searcher
from hashsearch.gallery.reencoding import reencode
from hashsearch.gallery.verifying import verify
from hashsearch.images import decode, encode_png
from hashsearch.models.card import read_card
from hashsearch.sources.folder import Folder
from service.app import create_app
from service.settings import Settings
from tests.test_indexing import content


@pytest.fixture
def gallery(gallery_folder, tmp_path):
    """A copy of the session's gallery, which the test may change."""
    shutil.copytree(gallery_folder, tmp_path / "gallery")
    opened = Gallery(tmp_path / "gallery")
    yield opened
    opened.close()


@pytest.fixture
def client(gallery):
    with TestClient(create_app(Settings(gallery=gallery.folder))) as opened:
        yield opened


def run(*arguments: object) -> int:
    return main([str(argument) for argument in arguments])


def ids(gallery: Gallery) -> list[int]:
    return gallery.catalog.rows().ids.tolist()


def served(client) -> int:
    return client.get("/v1/gallery").json()["images"]


def damage(path: Path) -> None:
    """Change one byte in the middle."""
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 0x10
    path.write_bytes(data)


# Removing


@pytest.mark.parametrize("by", ["id", "uri", "label", "shard"])
def test_images_are_removed_by_what_tells_them(by, gallery, client, capsys):
    records = gallery.catalog.records(ids(gallery))
    label = records[0].label
    chosen, arguments = {
        "id": ({records[3].id, records[7].id}, [records[3].id, records[7].id]),
        "uri": (
            {r.id for r in records if r.uri.startswith(f"pictures/{label}/0")},
            [f"pictures/{label}/0"],
        ),
        "label": ({r.id for r in records if r.label == label}, [label]),
        "shard": ({r.id for r in records}, [1]),
    }[by]
    assert run("gallery", "remove", gallery.folder, f"--{by}", *arguments) == 0
    assert set(ids(gallery)) == {r.id for r in records} - chosen
    assert f"{len(chosen):,} removed" in capsys.readouterr().out
    assert served(client) == 300 - len(chosen)
    for image_id in chosen:
        assert client.get(f"/v1/images/{image_id}/thumbnail").status_code == 404


def test_what_no_image_is_meant_by_removes_nothing_and_says_so(gallery, capsys):
    generation = gallery.catalog.generation()
    assert run("gallery", "remove", gallery.folder, "--label", "unicorn") == 1
    assert "no image of the gallery is told by this" in capsys.readouterr().err
    assert gallery.catalog.generation() == generation


def test_many_images_are_removed_a_part_at_a_time(gallery, monkeypatch):
    monkeypatch.setattr(removing, "_AT_ONCE", 7)
    assert removing.remove(gallery.catalog, Selection(shard=1)) == 300
    assert ids(gallery) == []


@pytest.mark.parametrize(
    "arguments", [("--uri", ""), ("--id", "-1"), ("--id", 10**30), ("--shard", "x"), ()]
)
def test_a_removal_that_makes_no_sense_is_refused(arguments, gallery, capsys):
    try:
        status = run("gallery", "remove", gallery.folder, *arguments)
    except SystemExit as stopped:  # as argparse does
        status = stopped.code
    assert status != 0
    assert len(capsys.readouterr().err) > 20
    assert gallery.catalog.count() == 300


def test_a_prefix_may_be_typed_as_a_path(gallery, image_files, tmp_path, photograph):
    (tmp_path / "my photos").mkdir()
    (tmp_path / "my photos" / "a%b é.jpg").write_bytes(photograph)
    index_sources(gallery, [Folder(tmp_path / "my photos")], workers=1)
    assert run("gallery", "remove", gallery.folder, "--uri", "my photos/") == 0
    assert gallery.catalog.count() == 300


def test_what_was_removed_comes_back_with_its_source(gallery, image_files):
    before = content(gallery)
    run("gallery", "remove", gallery.folder, "--id", *ids(gallery)[:10])
    summary = index_sources(gallery, [Folder(image_files)], workers=1)
    assert (summary.indexed, summary.unchanged) == (10, 290)
    assert content(gallery) == before


# Adding


def test_an_image_is_added_while_a_job_is_at_work(gallery, client, photograph):
    encoder = gallery.encoder()
    with gallery.job_lock():
        image_id, new = add_image(gallery, encoder, photograph, "rocket")
    assert new
    assert served(client) == 301
    decoded = decode(photograph, thumbnail=True)
    assert_array_equal(gallery.pixels(image_id), decoded.tiny)
    assert gallery.thumbnail(image_id) == decoded.thumbnail
    record = gallery.catalog.record(image_id)
    assert record.label == "rocket"
    assert record.uri == "+/" + hashlib.sha256(photograph).hexdigest()
    answer = client.post("/v1/search?k=1", content=photograph).json()
    assert [hit["id"] for hit in answer["hits"]] == [image_id]


def test_the_same_bytes_are_added_once(gallery, image_files):
    encoder = gallery.encoder()
    path = next(path for path in sorted(image_files.rglob("*.*")) if path.is_file())
    image_id, new = add_image(gallery, encoder, path.read_bytes())
    assert not new
    assert gallery.catalog.record(image_id).path == str(path)
    assert gallery.catalog.count() == 300


def test_what_is_no_image_is_not_added(gallery, photograph):
    for data in (b"", b"hello", photograph[:3000]):
        with pytest.raises(InvalidImage):
            add_image(gallery, gallery.encoder(), data)
    assert gallery.catalog.count() == 300
    assert gallery.catalog.failures() == []


def test_images_added_during_a_job_are_kept_beside_its_own(
    model_folder, image_files, tmp_path, monkeypatch
):
    """Another thread adds pictures of the same folder, from its end, while the job indexes it."""
    monkeypatch.setattr(filling, "MAX_ROWS", 30)
    for module in (reading, filling):
        monkeypatch.setattr(module, "CHUNK_IMAGES", 10)
    gallery = Gallery.create(tmp_path / "gallery", model_folder)
    adder = Gallery(tmp_path / "gallery")
    paths = sorted((path for path in image_files.rglob("*.*")), reverse=True)[:40]
    errors = []

    def add() -> None:
        try:
            for path in paths:
                add_image(adder, adder_encoder, path.read_bytes())
        except Exception as error:
            errors.append(error)

    adder_encoder = adder.encoder()
    thread = threading.Thread(target=add)
    thread.start()
    index_sources(gallery, [Folder(image_files)], workers=1)
    thread.join()
    assert errors == []
    keys = {key for key, *_ in content(gallery)}
    assert keys == {hashlib.sha256(p.read_bytes()).digest() for p in image_files.rglob("*.*")}
    assert gallery.catalog.count() == 300
    gallery.close()
    adder.close()


def test_codes_of_a_former_model_are_not_added(gallery, other_model_folder, photograph):
    encoder = gallery.encoder()
    reencode(gallery, other_model_folder)
    with pytest.raises(ArtifactMismatch, match="was moved from model"):
        add_image(gallery, encoder, photograph)
    assert gallery.catalog.count() == 300


# Compacting


@pytest.fixture
def scattered(model_folder, image_files, tmp_path, monkeypatch, photograph):
    """A gallery of small shards: 300 images and a photograph, of which 60 are removed."""
    monkeypatch.setattr(filling, "MAX_ROWS", 40)
    for module in (reading, filling):
        monkeypatch.setattr(module, "CHUNK_IMAGES", 20)
    gallery = Gallery.create(tmp_path / "scattered", model_folder)
    index_sources(gallery, [Folder(image_files)], workers=1)
    add_image(gallery, gallery.encoder(), photograph)
    run("gallery", "remove", gallery.folder, "--id", *ids(gallery)[0:300:5])
    yield gallery
    gallery.close()


def everything(gallery: Gallery) -> list[tuple]:
    """What the gallery tells of every image, id by id."""
    return [
        (one, gallery.catalog.record(one).uri, gallery.code(one).tobytes(),
         gallery.pixels(one).tobytes(), gallery.thumbnail(one))
        for one in ids(gallery)
    ]  # fmt: skip


def test_compacting_changes_no_answer_and_gives_back_the_room(scattered):
    before, disk = everything(scattered), scattered.disk_bytes()
    assert len(scattered.catalog.shard_rows()) > 8
    summary = compact(scattered)
    assert everything(scattered) == before
    assert (summary.shards_after, summary.rows_dropped) == (1, 60)
    assert list(scattered.catalog.shard_rows().values()) == [241]
    assert scattered.disk_bytes()["pixels"] < disk["pixels"] - 60 * 3072
    folders = {path.name for path in (scattered.folder / "shards").iterdir()}
    assert folders == {str(number) for number in scattered.catalog.shard_rows()}
    assert verify(scattered, 241).findings == []
    assert last_job(scattered.catalog).kind == "compact"
    assert compact(scattered).rows_dropped == 0  # there is nothing left to do
    assert everything(scattered) == before


def test_what_compacting_gives_back_is_never_less_than_nothing(gallery, capsys):
    for command in (("remove", gallery.folder, "--id", 5, 9, 10**9), ("compact", gallery.folder)):
        assert run("gallery", *command) == 0
    told = capsys.readouterr()
    assert "1 of these ids are not in the gallery" in told.err
    assert "2 removed rows dropped, 6." in told.out  # kB: two of 3,072 bytes and their codes
    assert run("gallery", "compact", gallery.folder, "--json") == 0
    assert json.loads(capsys.readouterr().out)["bytes_freed"] == 0


def test_full_shards_are_left_as_they_are(scattered, monkeypatch):
    compact(scattered)
    (number,) = scattered.catalog.shard_rows()
    monkeypatch.setattr(compacting, "_SMALL", 200)
    add_image(scattered, scattered.encoder(), _another_png())
    compact(scattered)
    assert number in scattered.catalog.shard_rows()


def _another_png() -> bytes:
    return encode_png(np.full((40, 40, 3), 77, np.uint8))


def test_damaged_rows_are_not_copied_under_a_new_checksum(scattered):
    number = next(iter(scattered.catalog.shard_rows()))
    damage(scattered.shard_folder(number) / "pixels.npy")
    before = scattered.catalog.shard_rows()
    with pytest.raises(InvalidGallery, match=r"pixels\.npy is damaged"):
        compact(scattered)
    assert scattered.catalog.shard_rows() == before
    assert last_job(scattered.catalog).state == "failed"


def test_a_reader_from_before_goes_on_and_a_new_one_finds_all(scattered):
    searcher = Searcher(scattered)
    query = searcher.query_by_id(ids(scattered)[0])
    before = searcher.search(query, "pixels", k=50)
    compact(scattered)
    for one in (searcher, Searcher(scattered)):
        again = one.search(query, "pixels", k=50)
        assert_array_equal(again.ids, before.ids)
        assert_array_equal(again.distances, before.distances)


def test_answers_stay_right_while_shards_are_joined_and_recoded(
    scattered, other_model_folder, model_folder
):
    """Readers open the gallery and read images all the time; none meets an error."""
    expected = {one: scattered.catalog.record(one).uri for one in ids(scattered)}
    models = {read_card(folder).fingerprint for folder in (model_folder, other_model_folder)}
    stop, errors, opened = threading.Event(), [], []

    def read(number: int) -> None:
        mine = Gallery(scattered.folder)
        try:
            for turn in itertools.count():
                if stop.is_set():
                    break
                image_id = list(expected)[(turn * 7 + number) % len(expected)]
                assert mine.pixels(image_id) is not None
                mine.thumbnail(image_id)
                searcher = Searcher.with_model(mine)
                assert searcher.fingerprint in models
                query = searcher.query_by_id(image_id)
                assert_array_equal(searcher.encoder.encode(query.tiny[np.newaxis])[0], query.code)
                ranking = searcher.search(query, "codes", k=1000)
                assert {r.id: r.uri for r, _ in searcher.hits(ranking)} == {
                    one: uri for one, uri in expected.items() if one != image_id
                }
                opened.append(searcher.fingerprint)
        except BaseException as error:
            errors.append(error)
        finally:
            mine.close()

    threads = [threading.Thread(target=read, args=(number,)) for number in range(2)]
    for thread in threads:
        thread.start()
    compact(scattered)
    for model in (other_model_folder, model_folder, other_model_folder):
        reencode(scattered, model)
        wanted = len(opened) + 2
        while len(opened) < wanted and not errors:
            time.sleep(0.01)
    stop.set()
    for thread in threads:
        thread.join()
    assert errors == []
    assert set(opened) == models


def killed(job: str, subject: object, gallery: Gallery, *point: str) -> None:
    """Run a job in a process that SIGKILL strikes at a point of it."""
    runner = Path(__file__).with_name("kill_at.py")
    done = subprocess.run(
        [sys.executable, runner, job, str(subject), gallery.folder, *point],
        capture_output=True,
        text=True,
    )
    assert done.returncode == -signal.SIGKILL, done.stderr


def has_no_litter(gallery: Gallery) -> bool:
    """Whether nothing lies in the folder that the catalog does not name."""
    shards = gallery.every_shard()
    named = {shard.folder / name for shard in shards.values() for name in shard.checksums}
    found = {path for path in (gallery.folder / "shards").rglob("*") if path.is_file()}
    return found == named and not any((gallery.folder / "unfinished").glob("job/*"))


@pytest.mark.parametrize(
    "point",
    [
        ("hashsearch.gallery.shards", "ShardWriter.seal", "after", "1"),
        ("hashsearch.gallery.folder", "Gallery.adopt", "after", "1"),
        ("hashsearch.gallery.compacting", "move_images", "after", "1"),
        ("hashsearch.gallery.compacting", "next_generation", "after", "1"),
        ("hashsearch.gallery.folder", "Gallery.drop", "before", "1"),
        ("hashsearch.gallery.folder", "Gallery.drop", "after", "3"),
    ],
)
def test_a_compacting_that_is_killed_anywhere_loses_nothing_and_goes_on(point, scattered):
    before = everything(scattered)
    killed("compact", "-", scattered, *point)
    assert everything(scattered) == before
    assert verify(scattered, 0).findings == []
    compact(scattered)
    assert everything(scattered) == before
    assert len(scattered.catalog.shard_rows()) == 1
    assert has_no_litter(scattered)


# Reencoding


@pytest.mark.parametrize(
    "point",
    [
        ("hashsearch.gallery.reencoding", "copy_model", "after", "1"),
        ("hashsearch.gallery.reencoding", "write_codes", "before", "3"),
        ("hashsearch.gallery.shards", "_sync_and_close", "before", "4"),
        ("hashsearch.gallery.reencoding", "change_codes", "after", "2"),
        ("hashsearch.gallery.reencoding", "next_generation", "after", "1"),
        ("hashsearch.gallery.reencoding", "_clean", "before", "1"),
    ],
)
def test_a_reencoding_that_is_killed_anywhere_leaves_old_codes_or_new_ones(
    point, scattered, other_model_folder
):
    before = content(scattered)
    killed("reencode", other_model_folder, scattered, *point)
    reopened = Gallery(scattered.folder)
    changed_over = point[1] == "_clean"
    assert (content(reopened) == before) is not changed_over
    assert verify(reopened, 300).findings == []
    reopened.close()
    reencode(scattered, other_model_folder)
    assert scattered.fingerprint == read_card(other_model_folder).fingerprint
    assert verify(scattered, 300).findings == []
    assert has_no_litter(scattered)
    assert len(list(scattered.folder.glob("model*"))) == 1


def test_a_mending_that_is_killed_goes_on_too(scattered):
    number = list(scattered.catalog.shard_rows())[2]
    before = content(scattered)
    damage(scattered.shard_folder(number) / "codes.npy")
    point = ("hashsearch.gallery.reencoding", "write_codes", "after", "1")
    killed("reencode", scattered.model_folder, scattered, *point)
    assert len(verify(scattered, 0).findings) == 1
    reencode(scattered)
    assert verify(scattered, 300).findings == []
    assert content(scattered) == before
    assert has_no_litter(scattered)


def test_reencoding_gives_the_codes_that_indexing_anew_would(
    gallery, other_model_folder, image_files, tmp_path, client, capsys
):
    before = {(key, uri, label, pixels) for key, uri, label, _, pixels in content(gallery)}
    assert run("gallery", "reencode", gallery.folder, "--model", other_model_folder) == 0
    assert "300 codes made anew, from model" in capsys.readouterr().out
    anew = Gallery.create(tmp_path / "anew", other_model_folder)
    index_sources(anew, [Folder(image_files)], workers=1)
    assert content(gallery) == content(anew)
    assert {(key, uri, label, pixels) for key, uri, label, _, pixels in content(gallery)} == before
    assert gallery.fingerprint == anew.fingerprint == read_card(gallery.model_folder).fingerprint
    anew.close()
    # The running service has the new model, and ranks by it.
    record = gallery.catalog.record(1)
    answer = client.post("/v1/search?k=1", content=Path(record.path).read_bytes()).json()
    assert [(hit["id"], hit["distance"]) for hit in answer["hits"]] == [(1, 0)]
    assert client.get("/v1/gallery").json()["fingerprint"] == gallery.fingerprint
    # Nothing of the former model is left, and the gallery can be added to.
    assert [path.name for path in gallery.folder.glob("model*")] == [gallery.model_folder.name]
    for number in gallery.catalog.shard_rows():
        assert len(list(gallery.shard_folder(number).glob("codes*"))) == 1
    assert verify(gallery, 300).findings == []
    assert Gallery(gallery.folder).card().fingerprint == gallery.fingerprint


def test_a_reencoding_that_goes_on_makes_what_was_not_made(
    scattered, other_model_folder, monkeypatch
):
    wanted = sum(scattered.catalog.shard_rows().values())
    point = ("hashsearch.gallery.reencoding", "write_codes", "before", "4")
    killed("reencode", other_model_folder, scattered, *point)
    shards = list(scattered.every_shard().values())
    # One of the three that were made is damaged since: its name tells.
    (staged,) = shards[1].folder.glob("codes-*")
    damage(staged)
    encoded = reencode(scattered, other_model_folder)
    assert encoded == wanted - shards[0].rows - shards[2].rows
    assert verify(scattered, 300).findings == []


@pytest.mark.parametrize("few", [0, 256])
def test_an_image_added_during_the_reencoding_gets_a_code_of_the_new_model(
    few, scattered, other_model_folder, monkeypatch
):
    encoder, original = scattered.encoder(), reencoding.write_codes
    adder, added = Gallery(scattered.folder), []

    def add_first(*arguments):
        if not added:
            added.append(add_image(adder, encoder, _another_png())[0])
        return original(*arguments)

    monkeypatch.setattr(reencoding, "write_codes", add_first)
    monkeypatch.setattr(reencoding, "_FEW_ROWS", few)
    reencode(scattered, other_model_folder)
    adder.close()
    tiny = scattered.pixels(added[0])
    assert_array_equal(scattered.code(added[0]), scattered.encoder().encode(tiny[np.newaxis])[0])
    assert verify(scattered, 1000).different == 0


def test_a_gallery_without_pixels_cannot_be_reencoded(
    model_folder, other_model_folder, image_files, tmp_path
):
    gallery = Gallery.create(tmp_path / "g", model_folder, pixels=False)
    index_sources(gallery, [Folder(image_files)], workers=1)
    with pytest.raises(InvalidGallery, match="keeps no pixels to make codes of"):
        reencode(gallery, other_model_folder)
    gallery.close()


def test_a_gallery_is_opened_while_it_is_moved_to_another_model(gallery, other_model_folder):
    """Its fingerprint and its card are read one after the other, and both change at once."""
    stop, errors = threading.Event(), []

    def open_again_and_again() -> None:
        while not stop.is_set():
            try:
                one = Gallery(gallery.folder)
                one.code(1)
                one.close()
            except Exception as error:
                errors.append(error)

    thread = threading.Thread(target=open_again_and_again)
    own = gallery.folder.parent / "own"
    shutil.copytree(gallery.model_folder, own)
    thread.start()
    for model in (other_model_folder, own) * 4:
        reencode(gallery, model)
    stop.set()
    thread.join()
    assert errors == []


def test_jobs_of_every_kind_keep_each_other_out(gallery, other_model_folder):
    second = Gallery(gallery.folder)
    with gallery.job_lock():
        for job in (compact, lambda g: reencode(g, other_model_folder)):
            with pytest.raises(GalleryBusy, match="another job is writing"):
                job(second)
    second.close()


# Verifying


def test_a_whole_gallery_is_found_whole(gallery, capsys):
    assert run("gallery", "verify", gallery.folder) == 0
    out = capsys.readouterr().out
    assert "are as they were committed; of 256 codes made anew, none differs" in out


@pytest.mark.parametrize("name", ["codes.npy", "pixels.npy", "thumbnails.bin"])
@pytest.mark.parametrize("how", ["changed", "missing"])
def test_a_damaged_file_is_told_and_mended_by_what_verify_says(
    name, how, scattered, image_files, capsys
):
    number, size = list(scattered.catalog.shard_rows().items())[-1]  # that of the photograph
    path = scattered.shard_folder(number) / name
    before = {one[1:] for one in everything(scattered)}
    damage(path) if how == "changed" else path.unlink()
    assert run("gallery", "verify", scattered.folder) == 1
    told = capsys.readouterr().out
    state = "differs from what was committed" if how == "changed" else "is missing"
    assert f"{path} {state} ({size:,} images)" in told
    if name == "codes.npy":
        assert f"hashsearch gallery reencode {scattered.folder}" in told
        assert run("gallery", "reencode", scattered.folder) == 0
        assert f"{size:,} codes made anew, by its own model" in capsys.readouterr().out
        assert {one[1:] for one in everything(scattered)} == before
    else:
        assert f"hashsearch gallery remove {scattered.folder} --shard {number}" in told
        assert run("gallery", "remove", scattered.folder, "--shard", number) == 0
        assert scattered.catalog.count() == 241 - size
        assert run("gallery", "verify", scattered.folder) == 1
        assert f"hashsearch gallery compact {scattered.folder}" in capsys.readouterr().out
        assert run("gallery", "compact", scattered.folder) == 0
    assert run("gallery", "verify", scattered.folder) == 0


def test_codes_that_the_model_does_not_make_are_told(gallery, capsys):
    """As after a restore of another gallery's shards, checksums and all."""
    path = gallery.shard_folder(1) / "codes.npy"
    codes = np.load(path)
    np.save(path, codes[::-1].copy())
    with gallery.catalog.transaction() as db:
        (text,) = db.execute("SELECT checksums FROM shards").fetchone()
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
        checksums = json.dumps(json.loads(text) | {"codes.npy": digest})
        db.execute("UPDATE shards SET checksums = ?", (checksums,))
    assert run("gallery", "verify", gallery.folder, "--json") == 1
    told = json.loads(capsys.readouterr().out)
    assert (told["encoded"], len(told["findings"])) == (256, 1)
    assert told["different"] > 200
    assert "codes made anew differ from those kept" in told["findings"][0]["what"]
    assert told["findings"][0]["mend"] == f"hashsearch gallery reencode {gallery.folder}"
    assert run("gallery", "reencode", gallery.folder) == 0
    assert run("gallery", "verify", gallery.folder) == 0


def test_a_damaged_model_is_told(gallery, capsys):
    damage(gallery.model_folder / "weights.safetensors")
    assert run("gallery", "verify", gallery.folder) == 1
    assert f"copy model {gallery.fingerprint[:12]} to" in capsys.readouterr().out


def test_a_catalog_whose_rows_make_no_sense_is_told(gallery):
    with gallery.catalog.transaction() as db:
        db.execute("UPDATE images SET row = 5000 WHERE id = 7")
        db.execute("UPDATE images SET row = 0 WHERE id = 9")
    whats = [finding.what for finding in verify(gallery, 0).findings]
    assert whats == [
        "the catalog names 1 rows that no shard has",
        "the catalog names 1 rows for more than one image",
    ]


# Telling


def test_info_tells_of_everything_in_ten_lines(scattered, image_files, capsys):
    assert run("gallery", "info", scattered.folder) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 10
    text = "\n".join(lines)
    for part in (
        "241, and 60 rows of removed ones, for compact to clear",
        str(image_files),
        "keeping codes and pixels and thumbnails",
        "dense, 256 bits, " + scattered.fingerprint[:12],
        "index, done, 300 indexed",
    ):
        assert part in text


def test_info_of_an_empty_gallery(model_folder, tmp_path, capsys):
    Gallery.create(tmp_path / "g", model_folder).close()
    assert run("gallery", "info", tmp_path / "g") == 0
    assert capsys.readouterr().out.count("none") == 3  # labels, sources, jobs
