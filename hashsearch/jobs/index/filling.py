"""What becomes of a job's images: `Sorting` decides it, `Filling` makes it last.

Both go through the chunks in the sources' order, each in a thread of its own:
while some images are sorted out, those before them are encoded and written.
"""

import time
from collections import Counter
from concurrent.futures import Future
from dataclasses import dataclass, field
from threading import Lock

import numpy as np
from numpy.typing import NDArray

from hashsearch.errors import InvalidImage
from hashsearch.gallery.catalog import Failure, KnownFile, NewImage
from hashsearch.gallery.folder import Gallery
from hashsearch.gallery.shards import MAX_ROWS, ShardWriter
from hashsearch.images import TINY_SIDE
from hashsearch.jobs.index.prepare import Prepared
from hashsearch.jobs.index.reading import CHUNK_IMAGES, Chunk
from hashsearch.sources.base import SourceImage
from hashsearch.sources.seen import SeenNames

COMMIT_EVERY_S = 60.0  # what a killed job loses at most, in time


@dataclass(slots=True)
class Batch:
    """What a chunk came to: new images, and changes to what the catalog knows.

    tiny: (n, 32, 32, 3) uint8, those of `images`, with n thumbnails or None.
    freed: keys of images that are replaced. counts: images by what became of them.
    """

    images: list[NewImage] = field(default_factory=list)
    tiny: NDArray[np.uint8] = field(
        default_factory=lambda: np.empty((0, TINY_SIDE, TINY_SIDE, 3), np.uint8)
    )
    thumbnails: list[bytes | None] = field(default_factory=list)
    replaced: list[str] = field(default_factory=list)
    freed: list[bytes] = field(default_factory=list)
    touched: list[tuple[str, int, int]] = field(default_factory=list)
    relabelled: list[tuple[str, str | None]] = field(default_factory=list)
    mended: list[str] = field(default_factory=list)
    failures: list[Failure] = field(default_factory=list)
    counts: Counter[str] = field(default_factory=Counter)

    def add(self, other: "Batch") -> None:
        """Take over another's changes, but for its pixels and thumbnails."""
        for name in ("images", "replaced", "freed", "touched", "relabelled", "mended", "failures"):
            getattr(self, name).extend(getattr(other, name))

    def size(self) -> int:
        """How many changes to the catalog there are."""
        new, known = len(self.images) + len(self.replaced), len(self.touched) + len(self.relabelled)
        return new + known + len(self.mended) + len(self.failures)


class Sorting:
    """Tells new images from duplicates and replacements, those not committed yet included."""

    def __init__(self, gallery: Gallery, *, relabel: bool):
        self._catalog = gallery.catalog
        self._relabel = relabel
        self._lock = Lock()  # of the next three, which hold what is not committed yet
        self._files: dict[str, KnownFile] = {}
        self._keys: set[bytes] = set()
        self._freed: Counter[bytes] = Counter()
        self._dismissed = SeenNames()  # keys that were duplicates of a stored image
        self._look_again = False
        self.failed = 0

    def sort(self, chunk: Chunk, results: list[Prepared | InvalidImage]) -> Batch:
        """Decide what each image of a chunk comes to. Call it in the sources' order."""
        keys = [result.key for result in results if isinstance(result, Prepared)]
        with self._lock:  # before the catalog is asked: it holds what is committed from here on
            known = {uri: self._files[uri] for uri in chunk.uris if uri in self._files}
            pending = self._keys.intersection(keys)
            freed = {key for key in keys if key in self._freed}
        known = self._catalog.known_files(chunk.uris) | known
        taken = pending | (self._catalog.ids_of_keys(keys).keys() - freed)
        failed_before = self._catalog.known_failures(chunk.uris + chunk.unchanged)
        batch = Batch(relabelled=list(chunk.relabelled))
        batch.counts.update(unchanged=len(chunk.unchanged), skipped=len(chunk.skipped))
        batch.mended += [uri for uri in chunk.unchanged if uri in failed_before]
        tiny: list[NDArray[np.uint8]] = []
        for image, uri, result in zip(chunk.images, chunk.uris, results, strict=True):
            if isinstance(result, InvalidImage):
                batch.failures.append(Failure(uri, str(result), image.size, image.mtime))
                continue
            if uri in failed_before:
                batch.mended.append(uri)
            if self._is_new(batch, image, uri, result.key, taken, known.get(uri)):
                batch.images.append(_new_image(image, uri, result))
                batch.thumbnails.append(result.thumbnail)
                tiny.append(result.tiny)
                taken.add(result.key)
        if tiny:
            batch.tiny = np.stack(tiny)
        batch.counts.update(indexed=len(batch.images), failed=len(batch.failures))
        self.failed += len(batch.failures)
        with self._lock:
            self._keys.update(image.key for image in batch.images)
            self._freed.update(batch.freed)
            self._files.update({image.uri: _known(image) for image in batch.images})
        return batch

    def committed(self, batch: Batch) -> None:
        """Forget what the catalog knows by now. Called by the thread that commits."""
        with self._lock:
            self._keys.difference_update(image.key for image in batch.images)
            self._freed -= Counter(batch.freed)
            for image in batch.images:
                self._files.pop(image.uri, None)

    def close(self) -> None:
        self._dismissed.close()

    def wants_another_look(self) -> bool:
        """Whether a file was left out as a duplicate of an image that was then replaced.

        As when two files change places: then the sources are to be gone through again.
        """
        again, self._look_again = self._look_again, False
        self.close()
        self._dismissed = SeenNames()
        return again

    def _is_new(
        self,
        batch: Batch,
        image: SourceImage,
        uri: str,
        key: bytes,
        taken: set[bytes],
        old: KnownFile | None,
    ) -> bool:
        """Whether the gallery lacks this content; notes what became of it otherwise."""
        if old is not None and old.key == key:
            batch.touched.append((uri, image.size, image.mtime))
            if self._relabel and old.label != image.label:
                batch.relabelled.append((uri, image.label))
            batch.counts["unchanged"] += 1
            return False
        if old is not None:
            batch.replaced.append(uri)
            batch.freed.append(old.key)
            taken.discard(old.key)
            self._look_again |= old.key in self._dismissed
        if key in taken:
            batch.counts["duplicates"] += 1
            self._dismissed.add(key)
            return False
        return True


class Filling:
    """The rows of a job on their way to the disk: a shard that grows, and its commit.

    counts: images by what became of them, so far. `take` and `commit` are called
    by one thread; once one of them failed, or `stop` was called, they do nothing.
    """

    def __init__(self, gallery: Gallery, sorting: Sorting):
        self.gallery = gallery
        self.counts: Counter[str] = Counter()
        self._sorting = sorting
        self._writer: ShardWriter | None = None
        self._since = time.monotonic()
        self._waiting = Batch()  # for the next commit
        self._stopped = False

    def __enter__(self) -> "Filling":
        return self

    def __exit__(self, *exception: object) -> None:
        self.discard()
        self._sorting.close()

    def take(self, batch: Batch, codes: Future[NDArray[np.uint8]] | None) -> None:
        """Write a batch to the shard; its codes may still be in the making.

        None: of a batch without new images.
        """
        if self._stopped:
            return
        try:
            if codes is not None:
                self._write(batch, codes.result())
            self._waiting.add(batch)
            self.counts.update(batch.counts)
            rows = 0 if self._writer is None else self._writer.rows
            full = max(rows, self._waiting.size()) + CHUNK_IMAGES > MAX_ROWS
            if full or time.monotonic() - self._since >= COMMIT_EVERY_S:
                self.commit()
        except BaseException:
            self._stopped = True  # the next batch must not follow where this one is missing
            raise

    def commit(self) -> None:
        """Make what was taken so far part of the gallery."""
        if self._stopped:
            return
        done = self._waiting
        if done.size():
            self.gallery.commit(
                self._writer,
                done.images,
                replaced=done.replaced,
                touched=done.touched,
                relabelled=done.relabelled,
                mended=done.mended,
                failures=done.failures,
            )
        self._sorting.committed(done)
        self._writer, self._waiting, self._since = None, Batch(), time.monotonic()

    def stop(self) -> None:
        """Let whatever is still to be taken be dropped."""
        self._stopped = True

    def discard(self) -> None:
        """Drop what was not committed, and count it no more."""
        if self._writer is not None:
            self._writer.discard()
        self.counts["indexed"] -= len(self._waiting.images)
        self.counts["failed"] -= len(self._waiting.failures)

    def begin_another_look(self) -> None:
        """Count anew, but for new images and failures, which the next look takes for known."""
        done = self.counts
        self.counts = Counter(
            indexed=done["indexed"],
            failed=done["failed"],
            unchanged=-done["indexed"],
            skipped=-done["failed"],
        )

    def _write(self, batch: Batch, codes: NDArray[np.uint8]) -> None:
        if self._writer is None:
            self._writer = self.gallery.new_shard()
        columns = {"codes": codes}
        if self.gallery.keeps("pixels"):
            columns["pixels"] = batch.tiny.reshape(len(batch.tiny), -1)
        self._writer.append(columns, batch.thumbnails)


def _new_image(image: SourceImage, uri: str, result: Prepared) -> NewImage:
    return NewImage(
        key=result.key,
        uri=uri,
        label=image.label,
        width=result.width,
        height=result.height,
        size=image.size,
        mtime=image.mtime,
    )


def _known(image: NewImage) -> KnownFile:
    return KnownFile(image.size, image.mtime, image.key, image.label)
