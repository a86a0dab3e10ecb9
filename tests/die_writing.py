"""Kill a process that writes to a gallery, many times, without torch.

python die_writing.py EMPTY_GALLERY SCRATCH KILLS SEED

In each trial, a child process writes rows to a gallery as a job does, until SIGKILL
ends it at a random moment; then the gallery is opened and compared with what it should
hold. Prints statistics of the kills as JSON.
"""

import hashlib
import json
import os
import random
import shutil
import signal
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np

from hashsearch.gallery.changes import Changes
from hashsearch.gallery.gallery_folder import GalleryFolder
from hashsearch.gallery.records import NewImage

ROWS, SHARD_ROWS = 240, 12


def row(number: int) -> tuple[NewImage, np.ndarray, np.ndarray, bytes]:
    """Image, code, pixels and thumbnail of a row; its number is the random seed."""
    drawn = np.random.default_rng(number).integers(0, 256, 32 + 3072, np.uint8)
    key = hashlib.sha256(drawn.tobytes()).digest()
    image = NewImage(key, f"rows#{number}", str(number % 7), 32, 32, 3072, number)
    return image, drawn[:32], drawn[32:], key * (number % 4)


def write(folder: Path, begun: Callable[[], object] = lambda: None) -> None:
    """Add the rows that the gallery lacks, shard by shard. begun: called before the first."""
    gallery = GalleryFolder(folder)
    with gallery.job_lock():
        begun()
        known = gallery.catalog.known_files([f"rows#{number}" for number in range(ROWS)])
        missing = [number for number in range(ROWS) if f"rows#{number}" not in known]
        for start in range(0, len(missing), SHARD_ROWS):
            writer = gallery.new_shard(["codes", "pixels"])
            images = []
            for number in missing[start : start + SHARD_ROWS]:
                image, code, pixels, thumbnail = row(number)
                writer.append({"codes": code[None], "pixels": pixels[None]}, [thumbnail or None])
                images.append(image)
            gallery.commit(Changes(images), writer, gallery.fingerprint)
    gallery.close()


def check(folder: Path) -> int:
    """Compare the gallery with what it should hold; returns its number of rows."""
    gallery = GalleryFolder(folder)
    rows = gallery.catalog.rows()
    records = gallery.catalog.records(rows.ids.tolist())
    for shard, _ in gallery.shards(rows):
        shard.require_whole()
    known = gallery.catalog.known_files([record.uri for record in records])
    codes, pixels = gallery.column("codes", rows), gallery.column("pixels", rows)
    assert codes is not None
    assert pixels is not None
    assert len({record.uri for record in records}) == len(records)
    for record, code, values in zip(records, codes, pixels, strict=True):
        image, expected_code, expected_pixels, thumbnail = row(int(record.uri.split("#")[1]))
        assert (known[record.uri].key, record.label) == (image.key, image.label)
        assert (code == expected_code).all()
        assert (values == expected_pixels).all()
        assert (gallery.thumbnail(record.id) or b"") == thumbnail
    assert gallery.catalog.integrity_problems() == []
    gallery.close()
    return len(records)


def has_no_litter(folder: Path) -> bool:
    """Whether the catalog names every folder of a shard."""
    gallery = GalleryFolder(folder)
    named = {str(number) for number in gallery.catalog.shard_rows()}
    gallery.close()
    return {path.name for path in (folder / "shards").iterdir()} == named


def main(empty: Path, scratch: Path, kills: int, seed: int) -> None:
    rng = random.Random(seed)
    stats = {"kills": 0, "galleries": 0, "unfinished": 0, "orphans": 0, "least": ROWS, "rows": 0}
    folder = scratch / "gallery"
    shutil.copytree(empty, folder)
    while stats["kills"] < kills:
        readable, writable = os.pipe()
        child = os.fork()
        if child == 0:
            write(folder, partial(os.write, writable, b"."))
            os._exit(0)
        os.read(readable, 1)
        time.sleep(rng.uniform(0.0, 0.12))
        os.kill(child, signal.SIGKILL)
        _, status = os.waitpid(child, 0)
        os.close(readable)
        os.close(writable)
        if not os.WIFSIGNALED(status):  # it had finished
            assert os.waitstatus_to_exitcode(status) == 0, "the writer failed"
            assert check(folder) == ROWS
            shutil.rmtree(folder)
            shutil.copytree(empty, folder)
            stats["galleries"] += 1
            continue
        stats["kills"] += 1
        stats["unfinished"] += any((folder / "unfinished" / "job").glob("*/*"))
        before = check(folder)
        stats["orphans"] += not has_no_litter(folder)
        stats["least"], stats["rows"] = min(stats["least"], before), max(stats["rows"], before)
    write(folder)
    assert check(folder) == ROWS
    assert has_no_litter(folder)
    assert "torch" not in sys.modules
    print(json.dumps(stats))


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4]))
