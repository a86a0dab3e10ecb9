"""The job's last stage: collect rows in a shard, and commit it with the other changes."""

import time
from collections import Counter
from collections.abc import Set
from concurrent.futures import Future

import numpy as np

from hashsearch.gallery.catalog import Catalog
from hashsearch.gallery.changes import Changes
from hashsearch.gallery.gallery_folder import GalleryFolder
from hashsearch.gallery.places import has_left_its_folder, put_existing_first
from hashsearch.gallery.shards import MAX_ROWS, ShardWriter
from hashsearch.jobs.index import reading
from hashsearch.jobs.index.deciding import Decider, Outcome
from hashsearch.jobs.index.executing import Columns
from hashsearch.sources.base import added_path

COMMIT_EVERY_S = 60.0  # a killed job loses at most the work of this time


class Committer:
    """Writes outcomes to a growing shard and commits it when it is full, or after a minute.

    counts: number of images by outcome, so far. `take` and `commit` are called by one thread;
    after one of them has failed, or after `stop`, they do nothing.
    """

    def __init__(self, gallery: GalleryFolder, decider: Decider):
        self.gallery = gallery
        self.counts: Counter[str] = Counter()
        self._decider = decider
        self._made_by = gallery.fingerprint  # the job lock keeps it from changing
        self._writer: ShardWriter | None = None
        self._since = time.monotonic()
        self._waiting = Changes()  # for the next commit
        self._stopped = False

    def __enter__(self) -> "Committer":
        return self

    def __exit__(self, *exception: object) -> None:
        self.discard()

    def take(self, outcome: Outcome, encoded: Future[Columns] | None) -> None:
        """Write an outcome's rows when they are encoded; None if it has no new image."""
        if self._stopped:
            return
        try:
            if encoded is not None:
                self._write(outcome, encoded.result())
            self._waiting.add(outcome.changes)
            self.counts.update(outcome.counts)
            rows = 0 if self._writer is None else self._writer.rows
            full = max(rows, len(self._waiting)) + reading.CHUNK_IMAGES > MAX_ROWS
            if full or time.monotonic() - self._since >= COMMIT_EVERY_S:
                self.commit()
        except BaseException:
            self._stopped = True  # the next outcome must not follow where this one is missing
            raise

    def commit(self) -> None:
        """Make everything taken so far part of the gallery."""
        if self._stopped:
            return
        changes = self._waiting
        if len(changes):
            catalog = self.gallery.catalog
            changes.dropped += _former_places(catalog, {place.key for place in changes.found})
            self.gallery.commit(changes, self._writer, self._made_by)
            images = catalog.images_of_keys(list(changes.with_other_places()))
            put_existing_first(catalog, [image_id for image_id, _ in images.values()])
        self._decider.committed(changes)
        self._writer, self._waiting, self._since = None, Changes(), time.monotonic()

    def stop(self) -> None:
        """Ignore all later outcomes."""
        self._stopped = True

    def discard(self) -> None:
        """Drop what was not committed, from the counts too."""
        if self._writer is not None:
            self._writer.discard()
        self.counts["indexed"] -= len(self._waiting.images)
        self.counts["failed"] -= len(self._waiting.failures)
        for place in self._waiting.found:
            self.counts["moved" if place.is_moved else "duplicates"] -= 1

    def _write(self, outcome: Outcome, encoded: Columns) -> None:
        columns = dict(encoded)
        if self.gallery.keeps("pixels"):
            columns["pixels"] = np.stack([one.tiny.reshape(-1) for one in outcome.new])
        if self._writer is None:
            self._writer = self.gallery.new_shard(columns)
        self._writer.append(columns, [one.thumbnail for one in outcome.new])


def _former_places(catalog: Catalog, keys: Set[bytes]) -> list[tuple[str, bytes]]:
    """(uri, key) of the places from which images are gone that were found elsewhere.

    keys: of the images. A place stays if nothing else is in its folder, which may be on a disk
    that is not mounted.
    """
    ids = {image_id: key for key, (image_id, _) in catalog.images_of_keys(list(keys)).items()}
    roots = catalog.sources()
    return [
        (place.uri, ids[image_id])
        for image_id, places in catalog.places(list(ids)).items()
        for place in places
        if added_path(place.uri) is not None or has_left_its_folder(place.uri, roots)
    ]
