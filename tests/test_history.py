"""Records of jobs, and what commands show of them."""

import os
import re
import subprocess
import sys
import time

import pytest

from hashsearch.commands import console
from hashsearch.gallery import history
from hashsearch.gallery.gallery_folder import GalleryFolder
from hashsearch.gallery.history import last_job, start_job
from hashsearch.jobs.index import committing, indexing, reading
from hashsearch.jobs.index.indexing import index_sources
from hashsearch.progress import reports_opened_by
from hashsearch.sources.folder import Folder
from tests.galleries import index, run


@pytest.fixture
def gallery(empty_gallery):
    return empty_gallery


def test_a_running_job_records_its_progress(gallery, image_files, monkeypatch):
    monkeypatch.setattr(history, "UPDATE_EVERY_S", 0.05)
    monkeypatch.setattr(reading, "CHUNK_IMAGES", 20)
    other, seen = GalleryFolder(gallery.folder), []
    original = committing.Committer.take

    def slowly(self, outcome, encoded):
        original(self, outcome, encoded)
        time.sleep(0.1)
        seen.append(last_job(other.catalog))

    monkeypatch.setattr(committing.Committer, "take", slowly)
    index(gallery, image_files)
    assert {job.state for job in seen} == {"running"}
    assert (seen[-1].kind, seen[-1].pid, seen[-1].sources) == ("index", os.getpid(), ["pictures"])
    assert seen[-1].expected == 300
    indexed = [job.counts["indexed"] for job in seen]
    assert indexed == sorted(indexed)
    assert 0 < indexed[-1] <= 300
    after = last_job(other.catalog)
    assert (after.state, after.counts["indexed"], after.seen) == ("done", 300, 300)
    other.close()


def test_a_job_whose_process_is_gone_was_killed(gallery):
    child = subprocess.Popen([sys.executable, "-c", ""])
    child.wait()
    start_job(gallery.catalog, "index", ["pictures"])
    assert last_job(gallery.catalog).state == "running"
    with gallery.catalog.transaction() as db:
        db.execute("UPDATE jobs SET pid = ?", (child.pid,))
    assert last_job(gallery.catalog).state == "killed"
    with gallery.catalog.transaction() as db:  # the process of another host cannot be checked
        db.execute("UPDATE jobs SET host = 'elsewhere'")
    assert last_job(gallery.catalog).state == "running"
    with gallery.catalog.transaction() as db:  # it has not recorded itself for long
        db.execute("UPDATE jobs SET updated = '2026-01-01T00:00:00+00:00'")
    assert last_job(gallery.catalog).state == "silent"


def test_progress_is_printed_as_lines_if_there_is_no_terminal(
    gallery, image_files, monkeypatch, capsys
):
    (image_files.parent / "bad").mkdir(exist_ok=True)
    (image_files.parent / "bad" / "bad.jpg").write_bytes(b"bad")
    monkeypatch.setattr(console, "_LINE_EVERY_S", 0.0)
    monkeypatch.setattr(indexing, "_COMMITS_BEHIND", 0)
    sources = [Folder(image_files.parent / "bad"), Folder(image_files)]
    with reports_opened_by(console.open_report):
        index_sources(gallery, sources, workers=1)
    lines = capsys.readouterr().err.splitlines()
    assert re.fullmatch(r"indexing: 301 of 301  [\d,]+ images/s  1 failed", lines[-1])


def test_info_describes_a_gallery_in_ten_lines(scattered, image_files, capsys):
    assert run("gallery", "info", scattered.folder) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 10
    text = "\n".join(lines)
    for part in (
        "241, and 60 rows of removed images, which compact deletes",
        str(image_files),
        "keeping codes and pixels and thumbnails",
        "dense, 256 bits, " + scattered.fingerprint[:12],
        "index, done, 300 indexed",
    ):
        assert part in text


def test_info_of_an_empty_gallery(model_folder, tmp_path, capsys):
    GalleryFolder.create(tmp_path / "g", model_folder).close()
    assert run("gallery", "info", tmp_path / "g") == 0
    assert capsys.readouterr().out.count("none") == 3  # labels, sources, jobs
