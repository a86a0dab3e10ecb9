"""Killed and stopped jobs, which the same command completes."""

import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import psutil
import pytest
from PIL import Image

from hashsearch.gallery.gallery_folder import GalleryFolder
from hashsearch.gallery.history import last_job
from hashsearch.images import encode_png
from tests.forked import Forked
from tests.galleries import content, index, run_killed


@pytest.fixture
def gallery(empty_gallery):
    return empty_gallery


_SHARDS, _FOLDER = "hashsearch.gallery.shards", "hashsearch.gallery.gallery_folder"
POINTS = {
    "after the shard is durable": (_SHARDS, "ShardWriter.seal", "after"),
    "before the shard is renamed": (_FOLDER, "GalleryFolder.adopt", "before"),
    "after the shard is renamed": (_FOLDER, "GalleryFolder.adopt", "after"),
    "after the images are inserted": (_FOLDER, "apply", "after"),
    "before the commit": (_FOLDER, "next_generation", "after"),
    "after the commit": (_FOLDER, "GalleryFolder.commit", "after"),
}


@pytest.mark.parametrize("point", POINTS)
def test_a_job_killed_at_any_point_of_a_commit_is_completed(
    point, gallery, image_files, gallery_folder
):
    """The job is killed while it commits the second shard."""
    run_killed("index", image_files, gallery, *POINTS[point], "2")
    survived = 180 if point == "after the commit" else 90
    assert gallery.catalog.count() == survived
    unbroken = GalleryFolder(gallery_folder)
    expected = content(unbroken)
    unbroken.close()
    assert content(gallery) < expected
    summary = index(gallery, image_files)
    assert (summary.indexed, summary.unchanged) == (300 - survived, survived)
    assert content(gallery) == expected
    shards = {str(number) for number in gallery.catalog.shard_rows()}
    assert {path.name for path in (gallery.folder / "shards").iterdir()} == shards


def start_index(source: Path, gallery: Path, model: Path) -> subprocess.Popen:
    """Start `hashsearch index` in a process of its own, with small shards and many commits."""
    script = (
        "import sys\n"
        "from hashsearch.jobs.index import committing, reading\n"
        "from hashsearch.cli import main\n"
        "if __name__ == '__main__':\n"
        "    committing.MAX_ROWS = 50\n"
        "    reading.CHUNK_IMAGES = 10\n"
        "    sys.exit(main(sys.argv[1:]))\n"
    )
    runner = gallery.parent / "runner.py"
    runner.write_text(script)
    return Forked(
        [sys.executable, runner, "index", source, "--gallery", gallery, "--model", model],
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.mark.parametrize("kills", [3, pytest.param(300, marks=pytest.mark.soak)])
def test_a_killed_job_is_completed_by_the_same_command(
    kills, image_files, model_folder, gallery_folder, tmp_path
):
    """After kills at random moments, the gallery equals one of an undisturbed job."""
    rng = random.Random(kills)
    target = tmp_path / "gallery"
    unbroken = GalleryFolder(gallery_folder)
    expected = content(unbroken)
    unbroken.close()
    counts, killed = [], 0
    while killed < kills:
        job = start_index(image_files, target, model_folder)
        # Every other job is killed after it has committed something more.
        before = _count(target) if GalleryFolder.exists(target) else 0
        while job.poll() is None and (
            not GalleryFolder.exists(target) or (killed % 2 and _count(target) == before)
        ):
            time.sleep(0.01)
        time.sleep(rng.uniform(0.0, 0.05))
        if job.poll() is not None:  # it had finished; begin another gallery
            check_complete(target, expected, job)
            shutil.rmtree(target)
            continue
        workers = psutil.Process(job.pid).children()
        job.kill()
        job.communicate()
        killed += 1
        _, alive = psutil.wait_procs(workers, timeout=10)
        assert not alive, "workers outlive a killed job"
        partial = GalleryFolder(target)
        counts.append(len(content(partial)))
        assert content(partial) <= expected
        partial.close()
    assert any(0 < count < len(expected) for count in counts), "some kills hit a running job"
    check_complete(target, expected, start_index(image_files, target, model_folder))


def check_complete(target: Path, expected: set[tuple], job: subprocess.Popen) -> None:
    """Wait for the job; then the gallery is complete, without unfinished files."""
    _, errors = job.communicate()
    assert job.returncode == 0, errors
    finished = GalleryFolder(target)
    assert content(finished) == expected
    shards = {str(number) for number in finished.catalog.shard_rows()}
    finished.close()
    assert {path.name for path in (target / "shards").iterdir()} == shards
    assert not any(target.glob("unfinished/job/*"))


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_stopped_job_commits_what_was_read_and_says_so(number, status, model_folder, tmp_path):
    """Images are many and shards small: some are committed when the signal comes."""
    pictures = tmp_path / "pictures"
    pictures.mkdir()
    for seed in range(4000):
        noise = np.random.default_rng(seed).integers(0, 256, (32, 32, 3), np.uint8)
        (pictures / f"{seed:05}.png").write_bytes(encode_png(noise))
    job = start_index(pictures, tmp_path / "gallery", model_folder)
    while not GalleryFolder.exists(tmp_path / "gallery") or not _count(tmp_path / "gallery"):
        assert job.poll() is None, job.communicate()
        time.sleep(0.05)
    job.send_signal(number)
    _, errors = job.communicate(timeout=30)
    assert job.returncode == status
    assert (
        errors.strip()
        .splitlines()[-1]
        .endswith("stopped; what was committed is safe, and the same command continues")
    )
    assert "Traceback" not in errors, errors
    gallery = GalleryFolder(tmp_path / "gallery")
    assert last_job(gallery.catalog).state == "stopped"
    stored = content(gallery)
    assert 0 < len(stored) == gallery.catalog.count() < 4000
    tiny = {record_bytes(pictures, uri): pixels for _, uri, _, _, pixels in stored}
    assert all(data == pixels for data, pixels in tiny.items())
    gallery.close()


def record_bytes(pictures: Path, uri: str) -> bytes:
    """The pixels of the file at a uri, read by Pillow alone."""
    return np.asarray(Image.open(pictures / uri.removeprefix("pictures/"))).tobytes()


def _count(folder: Path) -> int:
    gallery = GalleryFolder(folder)
    try:
        return gallery.catalog.count()
    finally:
        gallery.close()
