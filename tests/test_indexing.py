"""The indexing job: what it adds, what it skips, and what remains if it fails."""

import errno
import hashlib
import io
import os
import shutil
import signal
import tarfile
import threading
import time
from collections import Counter
from pathlib import Path

import psutil
import pytest

from hashsearch.errors import ArtifactMismatch, InvalidImage, InvalidSource
from hashsearch.gallery.gallery_folder import GalleryFolder
from hashsearch.gallery.history import last_job
from hashsearch.gallery.naming import Names
from hashsearch.gallery.shards import ShardWriter
from hashsearch.jobs.index import committing, reading, workers
from hashsearch.jobs.index.indexing import index_sources, require_images
from hashsearch.jobs.index.prepare import prepare
from hashsearch.sources.archive import TarArchive
from hashsearch.sources.base import SourceImage
from hashsearch.sources.folder import Folder
from tests.galleries import content, damage, index, records
from tests.test_archive import tar_of


@pytest.fixture
def pictures(tmp_path, image_files) -> Path:
    """A folder of 40 real pictures that a test may change."""
    for path in sorted(image_files.rglob("*.*"))[:40]:
        target = tmp_path / "pictures" / path.relative_to(image_files)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, target)
    return tmp_path / "pictures"


@pytest.fixture
def gallery(empty_gallery):
    return empty_gallery


def files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*.*") if path.is_file())


def test_a_damaged_model_fails_the_job_and_loses_no_image(gallery, pictures):
    index(gallery, pictures / files(pictures)[0].parent.name)
    before = content(gallery)
    damage(gallery.model_folder / "weights.safetensors")
    with pytest.raises(ArtifactMismatch, match="the weights have fingerprint"):
        index(gallery, pictures)
    assert content(gallery) == before
    assert not list(gallery.unfinished.glob("*"))


def test_a_second_run_finds_all_images_unchanged(gallery, pictures):
    first = index(gallery, pictures)
    before = content(gallery)
    second = index(gallery, pictures)
    assert (first.indexed, first.unchanged) == (40, 0)
    assert (second.indexed, second.unchanged) == (0, 40)
    assert content(gallery) == before


def test_the_number_of_workers_changes_nothing(tmp_path, model_folder, pictures):
    found = []
    for count in (1, 3):
        gallery = GalleryFolder.create(tmp_path / f"g{count}", model_folder)
        index(gallery, pictures, count)
        found.append((content(gallery), gallery.catalog.rows().ids.tolist()))
        gallery.close()
    assert found[0] == found[1]


def test_equal_files_are_stored_once_under_the_first_uri(gallery, pictures):
    first, *_ = files(pictures)
    shutil.copy(first, pictures / "zz-copy.jpg")
    summary = index(gallery, pictures)
    assert (summary.indexed, summary.duplicates) == (40, 1)
    again = index(gallery, pictures)
    assert (again.indexed, again.duplicates, again.unchanged) == (0, 0, 41)
    record = next(r for r in records(gallery) if r.path == str(first))
    assert [place.path for place in gallery.catalog.places([record.id])[record.id]] == [
        str(first),
        str(pictures / "zz-copy.jpg"),
    ]


def test_new_files_are_added(gallery, pictures, photograph):
    index(gallery, pictures)
    (pictures / "new.jpg").write_bytes(photograph)
    summary = index(gallery, pictures)
    assert (summary.indexed, summary.unchanged) == (1, 40)


def test_a_changed_file_replaces_its_image(gallery, pictures, photograph):
    index(gallery, pictures)
    changed = files(pictures)[3]
    old = changed.read_bytes()
    changed.write_bytes(photograph)
    # Its old content, in a later file, is the same image as before.
    (pictures / "zz.jpg").write_bytes(old)
    (old_id,) = [record.id for record in records(gallery) if record.path == str(changed)]
    summary = index(gallery, pictures)
    assert (summary.indexed, summary.unchanged, summary.moved) == (1, 39, 1)
    assert {record.path for record in records(gallery)} == {str(path) for path in files(pictures)}
    assert gallery.catalog.record(old_id).path == str(pictures / "zz.jpg")
    assert gallery.catalog.count() == 41


def test_files_that_change_places_are_both_kept(gallery, pictures):
    index(gallery, pictures)
    before = {r.path: (r.id, gallery.code(r.id).tobytes()) for r in records(gallery)}
    first, second = files(pictures)[:2]
    one, other = first.read_bytes(), second.read_bytes()
    first.write_bytes(other)
    second.write_bytes(one)
    os.utime(first, ns=(1, 1))  # the same second, perhaps the same size
    os.utime(second, ns=(2, 2))
    summary = index(gallery, pictures)
    assert (summary.indexed, summary.unchanged, summary.failed) == (0, 38, 0)
    after = {r.path: (r.id, gallery.code(r.id).tobytes()) for r in records(gallery)}
    assert after == before | {str(first): before[str(second)], str(second): before[str(first)]}
    known = gallery.catalog.known_files(
        [f"pictures/{p.relative_to(pictures)}" for p in (first, second)]
    )
    assert [file.key for file in known.values()] == [
        hashlib.sha256(data).digest() for data in (other, one)
    ]
    assert index(gallery, pictures).unchanged == 40


@pytest.mark.parametrize("chunk", [1, 2, 40])
def test_files_that_change_places_in_a_ring_are_kept_whatever_is_committed_between(
    chunk, gallery, pictures, monkeypatch
):
    monkeypatch.setattr(committing, "COMMIT_EVERY_S", 0.0)
    monkeypatch.setattr(reading, "CHUNK_IMAGES", chunk)
    monkeypatch.setattr(reading, "_WHOLE", chunk)
    index(gallery, pictures)
    keys = sorted(hashlib.sha256(path.read_bytes()).digest() for path in files(pictures))
    ring = files(pictures)[:7]
    contents = [path.read_bytes() for path in ring]
    for number, path in enumerate(ring):
        path.write_bytes(contents[number - 3])
        os.utime(path, ns=(number, number))
    index(gallery, pictures)
    now = gallery.catalog.known_files([record.uri for record in records(gallery)])
    assert sorted(known.key for known in now.values()) == keys
    assert {record.path for record in records(gallery)} == {str(path) for path in files(pictures)}
    for record in records(gallery):
        known = gallery.catalog.known_files([record.uri])[record.uri]
        assert hashlib.sha256(Path(record.path).read_bytes()).digest() == known.key
    assert index(gallery, pictures).unchanged == 40


def test_a_source_named_twice_is_indexed_once(gallery, pictures, photograph, monkeypatch):
    index(gallery, pictures)
    files(pictures)[0].write_bytes(photograph)
    monkeypatch.setattr(committing, "COMMIT_EVERY_S", 0.0)
    monkeypatch.setattr(reading, "CHUNK_IMAGES", 10)
    index_sources(gallery, [Folder(pictures), Folder(pictures)], workers=1)
    assert gallery.catalog.count() == 40


def test_a_touched_file_is_unchanged_and_its_mtime_is_updated(gallery, pictures):
    index(gallery, pictures)
    before, touched = content(gallery), files(pictures)[0]
    os.utime(touched, ns=(1, 1))
    assert index(gallery, pictures).unchanged == 40
    assert content(gallery) == before
    ((_, known),) = gallery.catalog.known_files(
        [f"pictures/{touched.relative_to(pictures)}"]
    ).items()
    assert known.mtime == 1


def test_bad_images_are_recorded_and_the_job_continues(gallery, pictures, photograph):
    (pictures / "none.jpg").write_bytes(b"hello")
    (pictures / "cut.jpg").write_bytes(photograph[:5000])
    (pictures / "empty.png").write_bytes(b"")
    (pictures / "secret.jpg").write_bytes(photograph)
    (pictures / "notes.txt").write_text("not looked at")
    summary = index(gallery, pictures)
    assert (summary.indexed, summary.failed) == (41, 3)
    assert summary.passed_over == Counter({".txt": 1})
    reasons = {failure.uri: failure.reason for failure, _ in gallery.catalog.failures()}
    assert set(reasons) == {"pictures/cut.jpg", "pictures/empty.png", "pictures/none.jpg"}
    assert "damaged or cut short" in reasons["pictures/cut.jpg"]
    assert "not an image in an accepted format" in reasons["pictures/none.jpg"]


def test_a_repaired_image_is_no_longer_a_failure(gallery, pictures, photograph):
    (pictures / "cut.jpg").write_bytes(photograph[:5000])
    index(gallery, pictures)
    (pictures / "cut.jpg").write_bytes(photograph)
    assert index(gallery, pictures).indexed == 1
    assert gallery.catalog.failures() == []


def test_a_failure_that_becomes_a_duplicate_or_is_restored_is_forgotten(gallery, pictures):
    index(gallery, pictures)
    victim, other = files(pictures)[:2]
    good = victim.read_bytes()
    for mended in (good, other.read_bytes()):
        victim.write_bytes(b"bad")
        index(gallery, pictures)
        assert len(gallery.catalog.failures()) == 1
        victim.write_bytes(mended)
        index(gallery, pictures)
        assert gallery.catalog.failures() == []


def test_an_image_that_kills_its_worker_fails_alone(gallery, pictures, monkeypatch):
    """A worker may die for lack of memory, or by a fault in a codec."""
    (pictures / "deadly.jpg").write_bytes(b"deadly")
    monkeypatch.setattr(workers, "prepare", prepare_or_die)
    monkeypatch.setattr(reading, "CHUNK_IMAGES", 3)
    summary = index(gallery, pictures, workers=2)
    assert (summary.indexed, summary.failed) == (40, 1)
    ((failure, _),) = gallery.catalog.failures()
    assert failure.uri == "pictures/deadly.jpg"
    assert failure.reason == "decoding it killed a process, perhaps for want of memory"


def test_an_image_whose_decoding_never_ends_fails_alone(gallery, pictures, monkeypatch):
    """A codec may loop for ever on a crafted file."""
    (pictures / "endless.jpg").write_bytes(b"endless")
    monkeypatch.setattr(workers, "prepare", prepare_or_hang)
    limit_workers(monkeypatch)
    summary = index(gallery, pictures, workers=2)
    assert (summary.indexed, summary.failed) == (40, 1)
    ((failure, _),) = gallery.catalog.failures()
    assert failure.uri == "pictures/endless.jpg"
    assert failure.reason == "decoding it takes more than 2 seconds"


def limit_workers(monkeypatch):
    monkeypatch.setattr(workers, "_CHUNK_LIMIT_S", 2.0)
    monkeypatch.setattr(workers, "_PER_IMAGE_S", 0.0)
    monkeypatch.setattr(workers, "IMAGE_LIMIT_S", 2.0)


class KillsOnReceipt(bytes):
    """A file's bytes that kill the process that receives them, as the kernel may for memory."""

    def __reduce__(self):
        return die, ()


def die():
    os.kill(os.getpid(), signal.SIGKILL)


def test_a_worker_that_dies_while_it_receives_images_holds_nothing_up(image_files, monkeypatch):
    """It leaves the pool's locks taken, so that nobody else gets an answer from it."""
    limit_workers(monkeypatch)
    good = [SourceImage("", None, 1, 0, path.read_bytes()) for path in files(image_files)[:6]]
    deadly = SourceImage("/deadly.jpg", None, 1, 0, KillsOnReceipt())
    with workers.Workers(2) as pool:
        chunks = [[good[0], deadly, good[1]], good[2:4], good[4:]]
        waiting = [pool.submit(chunk) for chunk in chunks]
        results = [pool.result(pending) for pending in waiting]
        again = pool.result(pool.submit(good))
    assert [len(part) for part in results] == [3, 2, 2]
    (failed,) = [one for part in results for one in part if isinstance(one, InvalidImage)]
    assert failed is results[0][1]
    assert [one.key for one in again] == [hashlib.sha256(image.content).digest() for image in good]


def test_workers_that_are_killed_while_they_wait_are_replaced(image_files):
    good = [SourceImage("", None, 1, 0, path.read_bytes()) for path in files(image_files)[:3]]
    with workers.Workers(2) as pool:
        assert len(pool.result(pool.submit(good))) == 3
        for child in psutil.Process().children():
            if "forkserver" in " ".join(child.cmdline()):  # not the resource tracker
                killed = child.children()
        assert len(killed) == 2
        for worker in killed:
            worker.kill()
        time.sleep(1)
        for _ in range(2):
            results = pool.result(pool.submit(good))
            assert [isinstance(one, InvalidImage) for one in results] == [False] * 3


def prepare_or_hang(images, thumbnails=True):
    while any(image.place == "/endless.jpg" for image in images):
        time.sleep(0.1)
    return prepare(images, thumbnails)


def prepare_or_die(images, thumbnails=True):
    for image in images:
        if image.place == "/deadly.jpg":
            os.kill(os.getpid(), signal.SIGKILL)
    return prepare(images, thumbnails)


def test_a_job_of_bad_images_only_ends_normally(gallery, tmp_path):
    (tmp_path / "bad").mkdir()
    for number in range(300):  # more than one chunk
        (tmp_path / "bad" / f"{number}.png").write_bytes(b"bad %d" % number)
    summary = index(gallery, tmp_path / "bad", workers=2)
    assert (summary.indexed, summary.failed) == (0, 300)
    assert last_job(gallery.catalog).state == "done"
    assert gallery.catalog.count() == 0


def test_a_file_that_vanishes_is_a_failure(gallery, pictures, monkeypatch):
    victim = files(pictures)[5]
    original = workers.Workers.submit

    def submit(pool, images):
        victim.unlink(missing_ok=True)
        return original(pool, images)

    monkeypatch.setattr(workers.Workers, "submit", submit)
    summary = index(gallery, pictures)
    assert (summary.indexed, summary.failed) == (39, 1)
    ((failure, _),) = gallery.catalog.failures()
    assert failure.reason == "the file cannot be read: No such file or directory"


def test_a_file_name_that_is_not_utf8_is_indexed(gallery, pictures, photograph):
    name = os.fsencode(pictures) + b"/na\xefve \xff.jpg"
    Path(os.fsdecode(name)).write_bytes(photograph)
    assert index(gallery, pictures).indexed == 41
    ((uri, _),) = gallery.catalog.known_files(["pictures/na%EFve%20%FF.jpg"]).items()
    records = gallery.catalog.records(gallery.catalog.rows().ids.tolist())
    (path,) = [record.path for record in records if record.uri == uri]
    assert os.fsencode(path) == name


def test_a_folder_without_images_is_refused_with_the_kinds_of_its_files(tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(InvalidSource, match=r"holds no image files$"):
        require_images(Folder(tmp_path / "empty"))
    (tmp_path / "empty" / "a.psd").write_bytes(b"")
    with pytest.raises(InvalidSource, match=r"holds no image files \(but 1 \.psd\)"):
        require_images(Folder(tmp_path / "empty"))


def test_shards_are_committed_as_they_fill(gallery, image_files, monkeypatch):
    monkeypatch.setattr(committing, "MAX_ROWS", 100)
    monkeypatch.setattr(reading, "CHUNK_IMAGES", 30)
    index(gallery, image_files)
    sizes = gallery.catalog.shard_rows()
    assert sum(sizes.values()) == 300
    assert all(60 < rows <= 100 for rows in list(sizes.values())[:-1])
    assert len(content(gallery)) == 300


def test_images_before_the_damage_of_a_source_are_kept(gallery, image_files, tmp_path):
    whole = tar_of(image_files, tmp_path / "a.tar.gz").read_bytes()
    (tmp_path / "a.tar.gz").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(InvalidSource, match="damaged"):
        index_sources(gallery, [TarArchive(tmp_path / "a.tar.gz")], workers=1)
    assert last_job(gallery.catalog).state == "failed"
    partial = gallery.catalog.count()
    assert 0 < partial < 300
    (tmp_path / "a.tar.gz").write_bytes(whole)
    summary = index_sources(gallery, [TarArchive(tmp_path / "a.tar.gz")], workers=1)
    assert (summary.indexed, summary.unchanged) == (300 - partial, partial)


def test_a_damaged_source_does_not_stop_the_others(gallery, image_files, pictures, tmp_path):
    whole = tar_of(image_files, tmp_path / "a.tar.gz").read_bytes()
    (tmp_path / "a.tar.gz").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(InvalidSource, match="damaged"):
        index_sources(gallery, [TarArchive(tmp_path / "a.tar.gz"), Folder(pictures)], workers=1)
    keys = {key for key, *_ in content(gallery)}
    assert {hashlib.sha256(path.read_bytes()).digest() for path in files(pictures)} <= keys


def test_a_job_does_not_wait_for_a_folder_to_be_counted(gallery, pictures, monkeypatch):
    counted = threading.Event()
    monkeypatch.setattr(Folder, "estimate", lambda _: counted.wait(60) or None)
    assert index(gallery, pictures).indexed == 40
    assert not counted.is_set()
    counted.set()


def test_a_chunk_of_large_files_has_few_images(gallery, tmp_path):
    """The bytes that wait for the workers are bounded, however large the files are."""
    with tarfile.open(tmp_path / "large.tar", "w") as archive:
        for number in range(5):
            member = tarfile.TarInfo(f"{number}.png")
            member.size = 40 * 2**20
            archive.addfile(member, io.BytesIO(bytes(member.size)))
    source = TarArchive(tmp_path / "large.tar")
    sizes = [len(c) for c in reading.chunks(gallery.catalog, Names("large"), source)]
    assert sizes == [1] * 5


def test_few_photographs_make_small_chunks_and_many_make_large_ones(gallery):
    photographs = [SourceImage(f"/{n}", None, 110_000, 0, b"") for n in range(4000)]
    few, many = (
        [len(c) * 110_000 for c in reading.chunks(gallery.catalog, Names("photographs"), source)]
        for source in (photographs[:200], photographs)
    )
    assert len(few) >= 12
    assert max(few) < 2 * 2**20
    assert many[: len(few) - 1] == few[:-1]
    assert 2**23 <= max(many) < 2**23 + 8 * 110_000


@pytest.mark.parametrize("failing", ["append", "seal"])
def test_a_full_disk_leaves_the_last_commit_and_no_unfinished_files(
    gallery, image_files, monkeypatch, failing
):
    monkeypatch.setattr(committing, "MAX_ROWS", 100)
    monkeypatch.setattr(reading, "CHUNK_IMAGES", 30)
    calls = Counter()
    original = getattr(ShardWriter, failing)

    def full(self, *arguments):
        calls[failing] += 1
        if calls[failing] == (5 if failing == "append" else 2):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return original(self, *arguments)

    monkeypatch.setattr(ShardWriter, failing, full)
    with pytest.raises(OSError, match="No space left"):
        index(gallery, image_files)
    assert gallery.catalog.count() == 90
    assert not any((gallery.folder / "unfinished").glob("job/*"))
    job = last_job(gallery.catalog)
    assert (job.state, job.counts["indexed"]) == ("failed", 90)
    monkeypatch.setattr(ShardWriter, failing, original)
    index(gallery, image_files)
    assert len(content(gallery)) == 300
