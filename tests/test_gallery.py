"""The gallery folder: its shards, its catalog, and reading from it."""

import hashlib
import io
import json
import shutil
import sqlite3
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import psutil
import pytest
from filelock import FileLock
from numpy.testing import assert_array_equal
from PIL import Image

from hashsearch.errors import (
    ArtifactMismatch,
    GalleryBusy,
    InvalidGallery,
    InvalidModel,
    NotInGallery,
)
from hashsearch.gallery.catalog import Catalog
from hashsearch.gallery.changes import Changes
from hashsearch.gallery.gallery_folder import GalleryFolder
from hashsearch.gallery.records import Failure, NewImage
from hashsearch.gallery.shards import Shard, ShardWriter, sha256_of_file
from hashsearch.images import decode
from hashsearch.models.card import copy_model
from hashsearch.retrieval.ranking import Query
from hashsearch.retrieval.searcher import Searcher


def remove(gallery: GalleryFolder, image_id: int) -> None:
    with gallery.catalog.transaction() as db:
        db.execute("UPDATE images SET removed = 1 WHERE id = ?", (image_id,))


# Shards


def write_shard(folder: Path, rows: int, columns=("codes", "addresses", "pixels")) -> dict:
    rng = np.random.default_rng(rows)
    widths = {"codes": 32, "addresses": 4, "pixels": 3072}
    data = {name: rng.integers(0, 256, (rows, widths[name]), np.uint8) for name in columns}
    thumbnails = [bytes([n % 256]) * (n % 5) or None for n in range(rows)]
    writer = ShardWriter(folder, frozenset(columns), thumbnails=True)
    for start in range(0, rows, 7):
        part = {name: values[start : start + 7] for name, values in data.items()}
        writer.append(part, thumbnails[start : start + 7])
    return {"data": data, "thumbnails": thumbnails, "checksums": writer.seal()}


@pytest.mark.parametrize("rows", [1, 7, 100])
def test_a_shard_holds_what_was_written_in_plain_npy_files(tmp_path, rows):
    written = write_shard(tmp_path / "s", rows)
    shard = Shard(tmp_path / "s", rows, written["checksums"])
    for name, values in written["data"].items():
        assert_array_equal(shard.column(name), values)
        assert_array_equal(np.load(tmp_path / "s" / f"{name}.npy"), values)
    assert [shard.thumbnail(row) for row in range(rows)] == written["thumbnails"]


def test_a_shards_checksums_are_sha256_of_its_files(tmp_path):
    checksums = write_shard(tmp_path / "s", 20)["checksums"]
    assert set(checksums) == {
        "addresses.npy", "codes.npy", "pixels.npy", "thumbnail_offsets.npy", "thumbnails.bin"
    }  # fmt: skip
    for name, checksum in checksums.items():
        assert hashlib.sha256((tmp_path / "s" / name).read_bytes()).hexdigest() == checksum
        assert sha256_of_file(tmp_path / "s" / name) == checksum


def test_columns_that_are_not_kept_are_absent(tmp_path):
    checksums = write_shard(tmp_path / "s", 5, columns=("codes",))["checksums"]
    shard = Shard(tmp_path / "s", 5, checksums)
    assert shard.file("codes") == "codes.npy"
    assert shard.file("pixels") is None


@pytest.mark.parametrize("content", [b"", b"\x93NUMPY", b"x" * 500, b"PK\x05\x06" + bytes(18)])
def test_a_damaged_column_is_refused(tmp_path, content):
    checksums = write_shard(tmp_path / "s", 5)["checksums"]
    (tmp_path / "s" / "codes.npy").write_bytes(content)
    with pytest.raises(InvalidGallery, match=r"codes\.npy is missing or damaged"):
        Shard(tmp_path / "s", 5, checksums).column("codes")


def test_a_column_of_another_shape_or_of_pickles_is_refused(tmp_path):
    checksums = write_shard(tmp_path / "s", 5)["checksums"]
    np.save(tmp_path / "s" / "codes.npy", np.zeros((4, 32), np.uint8))
    with pytest.raises(InvalidGallery, match=r"\(5, 32\) uint8 was wanted"):
        Shard(tmp_path / "s", 5, checksums).column("codes")
    np.save(tmp_path / "s" / "codes.npy", np.array([{}], object), allow_pickle=True)
    with pytest.raises(InvalidGallery, match="damaged"):
        Shard(tmp_path / "s", 5, checksums).column("codes")


@pytest.mark.parametrize("offsets", [np.zeros(3, np.uint64), np.array([9] * 5 + [2**40], "<u8")])
def test_impossible_thumbnail_offsets_are_refused(tmp_path, offsets):
    checksums = write_shard(tmp_path / "s", 5)["checksums"]
    np.save(tmp_path / "s" / "thumbnail_offsets.npy", offsets)
    with pytest.raises(InvalidGallery, match=r"thumbnail_offsets\.npy"):
        Shard(tmp_path / "s", 5, checksums).thumbnail(4)


@pytest.mark.parametrize("change", ["row = row + 1000", "shard = shard + 7"])
def test_a_catalog_that_names_rows_that_no_shard_has_is_refused(gallery, change):
    with sqlite3.connect(gallery.folder / "catalog.sqlite") as db:
        db.execute(f"UPDATE images SET {change} WHERE id = 300")
    db.close()
    with pytest.raises(InvalidGallery, match="the catalog names rows that no shard has"):
        Searcher(gallery)


def test_a_discarded_shard_leaves_nothing(tmp_path):
    writer = ShardWriter(tmp_path / "s", frozenset({"codes"}), thumbnails=True)
    writer.append({"codes": np.zeros((3, 32), np.uint8)}, [b"x", None, b"y"])
    writer.discard()
    assert list(tmp_path.iterdir()) == []


def test_a_shard_whose_folder_is_deleted_while_it_is_begun_leaves_no_file_open(
    tmp_path, monkeypatch
):
    descriptors = psutil.Process().num_fds()
    opened = Path.open

    def delete_then_open(path: Path, mode: str):
        if path.name == "pixels.npy":
            shutil.rmtree(path.parent)
        return opened(path, mode)

    monkeypatch.setattr(Path, "open", delete_then_open)
    with pytest.raises(FileNotFoundError) as caught:
        ShardWriter(tmp_path / "s", frozenset({"codes", "pixels"}), thumbnails=True)
    assert psutil.Process().num_fds() == descriptors, caught


# The folder


def test_a_new_gallery_is_empty_and_holds_its_model(tmp_path, model_folder):
    gallery = GalleryFolder.create(tmp_path / "g", model_folder)
    assert gallery.catalog.count() == 0
    assert (gallery.catalog.setting("generation"), gallery.catalog.setting("precision")) == (
        "0",
        "float32",
    )
    for name in ("weights.safetensors", "card.json"):
        assert (tmp_path / "g" / "model" / name).read_bytes() == (model_folder / name).read_bytes()
    assert [path.name for path in tmp_path.iterdir()] == ["g"]
    searcher = Searcher(gallery)
    for method in ("codes", "pixels"):
        query = Query(np.zeros(32, np.uint8), np.zeros((32, 32, 3), np.uint8))
        assert len(searcher.search(query, method).ids) == 0
        assert len(searcher.search(query, method, radius=10**6).ids) == 0


def test_a_gallery_is_created_in_an_empty_folder_and_after_an_interrupted_attempt(
    tmp_path, model_folder
):
    """An empty folder may be a volume's mount point, which cannot be renamed over."""
    (tmp_path / "g" / "lost+found").mkdir(parents=True)
    (tmp_path / "g" / "incomplete").touch()  # left by a crash
    (tmp_path / "g" / "model").mkdir()
    (tmp_path / "g" / "model" / "card.json").write_text("{")
    GalleryFolder.create(tmp_path / "g", model_folder).close()
    GalleryFolder(tmp_path / "g").close()


def test_a_gallery_is_not_created_in_a_folder_of_other_files(tmp_path, model_folder):
    (tmp_path / "g").mkdir()
    (tmp_path / "g" / "letter.txt").write_text("dear")
    with pytest.raises(InvalidGallery, match="exists and is not a gallery"):
        GalleryFolder.create(tmp_path / "g", model_folder)
    assert [path.name for path in (tmp_path / "g").iterdir()] == ["letter.txt"]


def test_creating_a_gallery_deletes_no_other_files(gallery, model_folder, tmp_path):
    shutil.copytree(model_folder, tmp_path / "w" / "model")
    for model in (tmp_path / "w" / "model", model_folder):
        with pytest.raises(InvalidGallery, match=r"is inside|exists and is not a gallery"):
            GalleryFolder.create(tmp_path / "w", model)
    assert (tmp_path / "w" / "model" / "card.json").is_file()
    (gallery.folder / "catalog.sqlite").rename(tmp_path / "mislaid.sqlite")
    with pytest.raises(InvalidGallery, match="exists and is not a gallery"):
        GalleryFolder.create(gallery.folder, model_folder)
    assert any((gallery.folder / "shards").iterdir())


def test_a_gallery_that_another_process_is_creating_is_busy(tmp_path, model_folder):
    (tmp_path / "g").mkdir()
    with (
        FileLock(tmp_path / "g" / "job.lock"),
        pytest.raises(GalleryBusy, match="another job is creating"),
    ):
        GalleryFolder.create(tmp_path / "g", model_folder)


def test_a_gallery_is_not_created_without_a_model(tmp_path):
    with pytest.raises(InvalidModel):
        GalleryFolder.create(tmp_path / "g", tmp_path / "nowhere")
    assert list(tmp_path.iterdir()) == []


def test_a_gallery_whose_model_was_exchanged_is_refused_naming_both(gallery, other_model_folder):
    shutil.rmtree(gallery.model_folder)
    copy_model(other_model_folder, gallery.model_folder)
    with pytest.raises(ArtifactMismatch) as caught:
        GalleryFolder(gallery.folder)
    card = json.loads((other_model_folder / "card.json").read_text())
    assert gallery.fingerprint[:12] in str(caught.value)
    assert card["fingerprint"][:12] in str(caught.value)


def test_a_folder_that_is_not_a_gallery_is_refused(tmp_path):
    with pytest.raises(InvalidGallery, match=r"is not a gallery: it holds no catalog\.sqlite"):
        GalleryFolder(tmp_path)
    (tmp_path / "catalog.sqlite").write_bytes(b"no database" * 1000)
    with pytest.raises(InvalidGallery, match="cannot be read"):
        GalleryFolder(tmp_path)


def test_a_catalog_of_another_format_is_refused(gallery):
    with sqlite3.connect(gallery.folder / "catalog.sqlite") as db:
        db.execute("PRAGMA user_version = 7")
    with pytest.raises(InvalidGallery, match="of format 7; this version of hashsearch reads 1"):
        GalleryFolder(gallery.folder)


def test_a_gallery_knows_the_path_of_each_image(gallery_folder, image_files):
    gallery = GalleryFolder(gallery_folder)
    records = gallery.catalog.records(gallery.catalog.rows().ids.tolist())
    paths = {str(path) for path in image_files.rglob("*") if path.is_file()}
    assert {record.path for record in records} == paths
    for record in records:
        assert record.label == Path(record.path).parent.name
        assert (record.width, record.height) == (32, 32)
        assert record.uri == "pictures/" + str(Path(record.path).relative_to(image_files))


def test_keys_are_sha256_of_the_files(gallery_folder):
    gallery = GalleryFolder(gallery_folder)
    records = gallery.catalog.records(gallery.catalog.rows().ids.tolist())
    known = gallery.catalog.known_files([record.uri for record in records])
    for record in records:
        digest = hashlib.sha256(Path(record.path).read_bytes()).digest()
        assert known[record.uri].key == digest


def test_stored_codes_and_pixels_are_what_the_files_decode_to(gallery_folder):
    gallery = GalleryFolder(gallery_folder)
    rows = gallery.catalog.rows()
    records = gallery.catalog.records(rows.ids.tolist())
    tiny = np.stack([decode(Path(record.path).read_bytes()).tiny for record in records])
    assert_array_equal(gallery.column("pixels", rows), tiny.reshape(len(tiny), -1))
    assert_array_equal(gallery.column("codes", rows), gallery.encoder().encode(tiny))
    assert gallery.column("addresses", rows) is None


def test_a_removed_image_is_gone_from_every_answer(gallery):
    searcher = Searcher(gallery)
    victim = int(searcher.search(searcher.query_by_id(5), k=1).ids[0])
    remove(gallery, victim)
    again = Searcher(gallery)
    assert len(again.ids) == len(searcher.ids) - 1
    for method in ("codes", "pixels"):
        assert victim not in again.search(again.query_by_id(5), method, k=10**6).ids
    with pytest.raises(NotInGallery, match="no image with this id"):
        again.query_by_id(victim)
    # A searcher that was opened before finds the next nearest image in its place.
    for method in ("codes", "pixels"):
        query = searcher.query_by_id(5)
        assert_array_equal(
            searcher.search(query, method, k=7).ids, again.search(query, method, k=7).ids
        )
        assert victim not in searcher.search(query, method, radius=10**8).ids


def test_a_shard_that_was_never_committed_is_replaced(gallery):
    """As after a crash between the renaming and the commit."""
    number = max(gallery.catalog.shard_rows()) + 1
    orphan = gallery.folder / "shards" / str(number)
    orphan.mkdir()
    (orphan / "codes.npy").write_bytes(b"half written")
    before = gallery.catalog.count()
    with gallery.job_lock():
        writer = gallery.new_shard(["codes", "pixels"])
        rows = {"codes": np.ones((1, 32), np.uint8), "pixels": np.ones((1, 3072), np.uint8)}
        writer.append(rows, [None])
        image = NewImage(b"k" * 32, "pictures/new.png", None, 32, 32, 3072, 0)
        gallery.commit(Changes([image]), writer, gallery.fingerprint)
    assert gallery.catalog.count() == before + 1
    assert number in gallery.catalog.shard_rows()
    assert_array_equal(np.load(orphan / "codes.npy"), rows["codes"])


def test_a_job_begins_by_deleting_shards_that_were_never_committed(gallery):
    orphan = gallery.folder / "shards" / "77"
    orphan.mkdir()
    (orphan / "codes.npy").write_bytes(b"left by a full disk")
    (gallery.folder / "shards" / ".DS_Store").write_bytes(b"not ours")
    others = gallery.folder / "unfinished" / "someone-elses"
    others.mkdir(parents=True)
    with gallery.job_lock():
        assert not orphan.exists()
    assert others.exists()


def test_a_commit_needs_an_image_for_every_row(gallery):
    with gallery.job_lock():
        writer = gallery.new_shard(["codes", "pixels"])
        rows = {"codes": np.ones((2, 32), np.uint8), "pixels": np.ones((2, 3072), np.uint8)}
        writer.append(rows, [None, None])
        image = NewImage(b"k", "pictures/x.png", None, 32, 32, 9, 0)
        with pytest.raises(AssertionError):
            gallery.commit(Changes([image]), writer, gallery.fingerprint)
        writer.discard()


def test_a_disk_that_fills_up_during_a_transaction_raises_sqlites_error(gallery):
    """SQLite ends the transaction itself then; there is nothing left to roll back."""

    def fill() -> None:
        with gallery.catalog.transaction() as db:
            (pages,) = db.execute("PRAGMA page_count").fetchone()
            db.execute(f"PRAGMA max_page_count = {pages}")
            rows = ((f"{n}", b"%d" % n + bytes(2000)) for n in range(1000))
            db.executemany("INSERT INTO sources VALUES (?, ?)", rows)

    with pytest.raises(sqlite3.OperationalError, match="disk is full"):
        fill()
    assert gallery.catalog.count() == 300
    gallery.catalog.generation()


def test_an_image_whose_key_was_added_meanwhile_is_another_place_of_it(gallery):
    uri = gallery.catalog.record(1).uri
    known = gallery.catalog.known_files([uri])[uri]
    with gallery.job_lock():
        writer = gallery.new_shard(["codes", "pixels"])
        rows = {"codes": np.ones((1, 32), np.uint8), "pixels": np.ones((1, 3072), np.uint8)}
        writer.append(rows, [None])
        image = NewImage(known.key, "pictures/copy.png", None, 32, 32, 9, 0)
        gallery.commit(Changes([image]), writer, gallery.fingerprint)
    assert gallery.catalog.count() == 300
    assert [place.uri for place in gallery.catalog.places([1])[1]] == [uri, "pictures/copy.png"]
    assert gallery.code(1).tobytes() != bytes([1]) * 32


def test_the_generation_increases_when_images_change(gallery, image_files):
    before = gallery.catalog.generation()
    gallery.commit(Changes(failures=[Failure("pictures/x.jpg", "because", 1, 2)]))
    assert gallery.catalog.generation() == before
    ((failure, _),) = gallery.catalog.failures()
    assert failure == Failure("pictures/x.jpg", "because", 1, 2, f"{image_files}/x.jpg")
    uri = gallery.catalog.record(1).uri
    gallery.commit(Changes(dropped=[(uri, b"another key")]))
    assert gallery.catalog.count() == 300
    assert gallery.catalog.generation() == before
    gallery.commit(Changes(dropped=[(uri, gallery.catalog.known_files([uri])[uri].key)]))
    assert gallery.catalog.count() == 299
    assert gallery.catalog.generation() == before + 1


def test_rows_are_the_same_as_read_one_by_one(gallery):
    """Rows of unchanged shards are computed; here images are removed and moved, too."""

    def slow(where=""):
        query = f"SELECT id, shard, row FROM images WHERE removed = 0 {where} ORDER BY id"
        with sqlite3.connect(gallery.folder / "catalog.sqlite") as db:
            return db.execute(query).fetchall()

    def found(shards=None):
        rows = gallery.catalog.rows(shards)
        return list(zip(rows.ids.tolist(), rows.shards.tolist(), rows.rows.tolist(), strict=True))

    assert found() == slow()
    with gallery.job_lock():
        for number, step in ((400, 1), (500, -1)):  # the second shard's rows run backwards
            writer = gallery.new_shard(["codes", "pixels"])
            rows = {"codes": np.ones((9, 32), np.uint8), "pixels": np.ones((9, 3072), np.uint8)}
            writer.append(rows, [None] * 9)
            images = [
                NewImage(b"%d" % (number + n), f"x#{number + n}", None, 1, 1, 1, 1)
                for n in range(9)
            ]
            gallery.commit(Changes(images), writer, gallery.fingerprint)
            if step < 0:
                with gallery.catalog.transaction() as db:
                    db.execute("UPDATE images SET row = 8 - row WHERE shard = 3")
    assert found() == slow()
    with gallery.catalog.transaction() as db:
        db.execute("UPDATE images SET removed = 1 WHERE id % 7 = 3 OR id = 300")
    assert found() == slow()
    assert found([2, 3]) == slow("AND shard IN (2, 3)")
    with gallery.catalog.transaction() as db:  # a later shard with earlier ids
        db.execute("UPDATE images SET id = id + 1000 WHERE shard = 1")
    assert found() == slow()


def test_roots_with_the_same_name_get_different_names(gallery):
    names = [
        gallery.catalog.source_name(Path(root))
        for root in ("/a/my photos", "/b/my photos", "/c/my photos", "/a/my photos")
    ]
    assert names == ["my%20photos", "my%20photos~2", "my%20photos~3", "my%20photos"]


def test_a_second_job_fails_and_names_the_holder_of_the_lock(gallery):
    script = (
        "import sys; from pathlib import Path\n"
        "from hashsearch.gallery.gallery_folder import GalleryFolder\n"
        "from hashsearch.gallery.history import start_job\n"
        "g = GalleryFolder(Path(sys.argv[1]))\n"
        "with g.job_lock():\n"
        "    start_job(g.catalog, 'index', ['pictures']); print('held', flush=True)\n"
        "    sys.stdin.read()\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", script, str(gallery.folder)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        with (
            pytest.raises(GalleryBusy, match=f"process {holder.pid} on "),
            gallery.job_lock(),
        ):
            pass
        holder.kill()  # the system frees the lock of a killed process
        holder.wait()
    with gallery.job_lock():
        pass


def test_a_catalog_is_shared_between_threads_and_with_other_writers(gallery):
    other = Catalog(gallery.folder / "catalog.sqlite")
    errors = []

    def write(catalog: Catalog, name: str) -> None:
        try:
            for number in range(30):
                catalog.source_name(Path(f"/{name}/{number}"))
                catalog.rows()
        except Exception as error:
            errors.append(error)

    writers = [(gallery.catalog, "a"), (gallery.catalog, "b"), (other, "c")]
    threads = [threading.Thread(target=write, args=writer) for writer in writers]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    other.close()
    assert errors == []


def test_a_thumbnail_is_kept_of_images_larger_than_the_tiny_image(
    tmp_path, model_folder, photograph
):
    from hashsearch.jobs.index.indexing import index_sources
    from hashsearch.sources.folder import Folder

    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "a.jpg").write_bytes(photograph)
    gallery = GalleryFolder.create(tmp_path / "g", model_folder)
    index_sources(gallery, [Folder(tmp_path / "photos")], workers=1)
    thumbnail = gallery.thumbnail(1)
    assert thumbnail == decode(photograph, thumbnail=True).thumbnail
    with Image.open(io.BytesIO(thumbnail)) as image:
        assert image.size == (128, 128)
    record = gallery.catalog.record(1)
    assert (record.width, record.height, record.label) == (640, 427, None)


def test_a_gallery_is_closed_while_another_thread_commits_to_it(gallery):
    """A transaction reads from the catalog, so closing must not keep it from that."""
    entered, errors = threading.Event(), []

    def commit():
        with gallery.catalog.transaction():
            entered.set()
            closing.join(0.2)  # by now, it waits for the transaction
            try:
                gallery.catalog.count()
            except Exception as error:
                errors.append(error)

    committing = threading.Thread(target=commit, daemon=True)
    closing = threading.Thread(
        target=lambda: entered.wait() and gallery.catalog.close(), daemon=True
    )
    closing.start()
    committing.start()
    committing.join(10)
    closing.join(10)
    assert not committing.is_alive()
    assert not closing.is_alive()
    assert errors == []
