"""Reading what is exported of a gallery, a chunk of its images at a time."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from hashsearch.errors import InvalidGallery
from hashsearch.gallery.catalog import FOLLOWED_SINCE
from hashsearch.gallery.gallery_folder import GalleryFolder
from hashsearch.gallery.records import Rows, StoredImage

CHUNK_ROWS = 65_536  # as many as one commit of an indexing job adds at most


class Row(NamedTuple):
    """An image as it is exported.

    uri, label: of the image's first place that is left, as the catalog has them. code: 32 bytes,
    the first bit is the highest of byte 0. key: SHA-256 of the image's content, 32 bytes.
    """

    id: int
    uri: str
    label: str | None
    code: bytes
    key: bytes


@dataclass(frozen=True, slots=True)
class Chunk:
    """Some of a gallery's images, all in one state of the gallery.

    generation, fingerprint: of the gallery then. followed_since: the first generation from which
    the removed images are still known. rows: ordered by id. removed: ids of images that are not
    in the gallery any more. until: for changes, the generation up to which these are all.
    """

    generation: int
    fingerprint: str
    followed_since: int
    rows: list[Row]
    removed: list[int]
    until: int


def rows_after(gallery: GalleryFolder, image_id: int, most: int) -> Chunk:
    """The first images whose ids follow another's.

    Raises InvalidGallery if a shard cannot be read; its checksums are not compared.
    """

    def read(generation: int) -> tuple[int, list[StoredImage]]:
        return generation, gallery.catalog.stored_after(image_id, most)

    return _chunk(gallery, read)


def changes_after(gallery: GalleryFolder, generation: int, most: int) -> Chunk:
    """The images that were changed or removed in the generations after another.

    Of as many whole generations as hold at most `most` changes together; if the first holds more,
    no image is returned, and `until` is `generation`. Raises InvalidGallery as `rows_after` does.
    """

    def read(_: int) -> tuple[int, list[StoredImage]]:
        until = gallery.catalog.changed_until(generation, most)
        return until, gallery.catalog.stored_changes(generation, until)

    return _chunk(gallery, read)


def _chunk(gallery: GalleryFolder, read: Callable[[int], tuple[int, list[StoredImage]]]) -> Chunk:
    """Read a chunk; again if a job replaced the shards, or changed a file that has no log."""
    catalog = gallery.catalog
    while True:
        with catalog.snapshot():
            settings = catalog.settings("")
            generation = int(settings["generation"])
            until, stored = read(generation)
            present = [image for image in stored if not image.removed]
            rows = _rows(gallery, settings["fingerprint"], generation, present)
            is_one_state = catalog.generation() == generation
        if not is_one_state:
            continue
        try:
            codes = gallery.column("codes", rows)
            if codes is None:
                raise InvalidGallery(f"{gallery.folder}: a shard has no codes")
        except InvalidGallery:
            if catalog.generation() == generation:
                raise
            continue
        return Chunk(
            generation,
            settings["fingerprint"],
            int(settings.get(FOLLOWED_SINCE, 0)),
            [
                Row(image.id, image.uri, image.label, code.tobytes(), image.key)
                for image, code in zip(present, codes, strict=True)
            ],
            [image.id for image in stored if image.removed],
            until,
        )


def _rows(
    gallery: GalleryFolder, fingerprint: str, generation: int, images: Sequence[StoredImage]
) -> Rows:
    shards = {image.shard for image in images}
    files = {number: gallery.catalog.files_of(number) for number in shards}
    places = np.array([(i.id, i.shard, i.row) for i in images], np.int64).reshape(-1, 3)
    return Rows(generation, fingerprint, files, *places.T.copy())
