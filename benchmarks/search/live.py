"""How soon an image that was added to a large gallery is found, and a removed one is not."""

import hashlib
import statistics
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

import hashsearch
from benchmarks.search.codes import Rows
from benchmarks.search.measure import K, Measured, built, single_ms, timed
from benchmarks.search.ours import Given
from hashsearch.gallery.changes import Changes
from hashsearch.gallery.gallery_folder import GalleryFolder
from hashsearch.gallery.records import NewImage
from hashsearch.gallery.shards import MAX_ROWS
from hashsearch.images import encode_png
from hashsearch.models.card import PRETRAINED

_CHANGES = 9  # additions, and as many removals


def live(given: Given, size: int) -> Iterator[Measured]:
    """Search a gallery through the library, before and after additions and removals."""
    images, codes = given.pixel_queries.reshape(-1, 32, 32, 3), given.held_out.codes
    with tempfile.TemporaryDirectory(prefix="hashsearch-bench-") as folder:
        write_gallery(Path(folder) / "gallery", given.rows(size))
        with hashsearch.open(Path(folder) / "gallery") as gallery:
            cost = built(lambda: gallery.search(codes[-1], K), size)[1:]
            gallery.add(encode_png(images[-1]))  # loads the model
            ms = single_ms(lambda code: gallery.search(code, K), codes)
            yield Measured(size, "library, nothing changed", single_ms=ms).costing(*cost)
            adding, found, removing, gone = [], [], [], []
            for image, code in zip(images[:_CHANGES], codes, strict=False):
                added, seconds = timed(lambda image=image: gallery.add(encode_png(image)))
                adding.append(seconds)
                hits, seconds = timed(lambda code=code: gallery.search(code, K))
                found.append(seconds)
                assert added in {hit.id for hit in hits}
            for hit in gallery.search(codes[-2], _CHANGES):
                removing.append(timed(lambda hit=hit: gallery.remove(ids=[hit.id]))[1])
                hits, seconds = timed(lambda: gallery.search(codes[-2], K))
                gone.append(seconds)
                assert hit.id not in {left.id for left in hits}
    for what, seconds in (
        ("library, adding an image", adding),
        ("library, first search after an addition", found),
        ("library, removing an image", removing),
        ("library, first search after a removal", gone),
    ):
        yield Measured(size, what, single_ms=1000 * statistics.median(seconds))


def write_gallery(folder: Path, rows: Rows, labels: Sequence[str | None] = (None,)) -> None:
    """Write a gallery without pixels. Its images are said to be rows of a file that exists.

    labels: of the first rows; later rows repeat them.
    """
    gallery = GalleryFolder.create(folder, PRETRAINED, pixels=False, thumbnails=False)
    source = folder.parent / "images.npy"
    source.touch()
    name = gallery.catalog.source_name(source)
    with gallery.job_lock():
        for start in range(0, len(rows.codes), MAX_ROWS):
            part = Rows(*(np.ascontiguousarray(c[start : start + MAX_ROWS]) for c in rows))
            writer = gallery.new_shard(part._fields)
            writer.append(part._asdict(), [None] * len(part.codes))
            images = [
                NewImage(
                    hashlib.sha256(b"%d" % n).digest(),
                    f"{name}#{n}",
                    labels[n % len(labels)],
                    width=32,
                    height=32,
                    size=0,
                    mtime=0,
                )
                for n in range(start, start + len(part.codes))
            ]
            gallery.commit(Changes(images=images), writer, gallery.fingerprint)
    gallery.close()
