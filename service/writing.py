"""Adding images to the gallery, and removing them."""

import errno
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hashsearch.errors import (
    ArtifactMismatch,
    GalleryBusy,
    GalleryReadOnly,
    NotInGallery,
)
from hashsearch.gallery.changes import Selection
from hashsearch.gallery.gallery_folder import GalleryFolder
from hashsearch.jobs.adding import Addition, add_images
from hashsearch.jobs.index.prepare import Prepared
from hashsearch.jobs.removing import remove
from service.context import Context
from service.engine import Engine
from service.images import added_answer
from service.parsing import Upload
from service.problems import DiskFull, naming
from service.schemas.images import AddedAnswer, RemovedAnswer

_TRIES = 10  # to answer an addition that another client removes meanwhile


@dataclass(frozen=True, slots=True)
class Encoded:
    """Images that are decoded and encoded.

    rows: each one's position in `columns`, by key. fingerprint: of the model.
    """

    additions: Sequence[Addition]
    rows: Mapping[bytes, int]
    columns: Mapping[str, NDArray[np.uint8]]
    fingerprint: str


def encoded(engine: Engine, uploads: Sequence[Upload], context: Context) -> Encoded:
    """Decode and encode images that are to be added.

    Raises GalleryReadOnly before anything is decoded; what `images.decode` raises, with the field
    at fault; and InvalidQuery if the gallery's pictures were decoded by earlier image rules.
    """
    with _reported():
        thumbnails = engine.with_gallery(_keeps_thumbnails)
    additions = []
    for upload in uploads:
        with naming(upload.field):
            image = engine.prepare(upload.data, thumbnails, context)
        additions.append(Addition(image, len(upload.data), label=upload.label))
    searcher = engine.now()
    tiny = np.stack([one.image.tiny for one in additions])
    columns = engine.columns(searcher, tiny, context)
    rows = {one.image.key: row for row, one in enumerate(additions)}
    return Encoded(additions, rows, columns, searcher.fingerprint)


def _keeps_thumbnails(gallery: GalleryFolder) -> bool:
    """Raises GalleryReadOnly."""
    gallery.catalog.require_writable()
    return gallery.keeps("thumbnails")


def add(engine: Engine, images: Encoded, context: Context) -> AddedAnswer:
    """Store images in one shard and one commit; again if one is removed before it is answered.

    Raises GalleryReadOnly, GalleryBusy and DiskFull.
    """

    def encode(some: Sequence[Prepared]) -> Mapping[str, NDArray[np.uint8]]:
        rows = [images.rows[one.key] for one in some]
        return {name: values[rows] for name, values in images.columns.items()}

    def store(gallery: GalleryFolder) -> AddedAnswer:
        for _ in range(_TRIES):
            added = add_images(gallery, images.fingerprint, images.additions, encode)
            with suppress(NotInGallery):
                return added_answer(gallery, added, context)
        raise GalleryBusy("another program removes the images while they are added; try again")

    with _reported():
        return engine.with_gallery(store)


def remove_images(engine: Engine, ids: Sequence[int]) -> RemovedAnswer:
    """Remove images; unknown ids are passed over.

    Raises GalleryReplaced if another gallery is at the path since the last request, in which the
    ids mean other images; GalleryReadOnly, GalleryBusy and DiskFull.
    """

    def drop(gallery: GalleryFolder) -> RemovedAnswer:
        removed = remove(gallery.catalog, Selection(ids=ids)).images
        return RemovedAnswer(removed=removed, generation=gallery.catalog.generation())

    with _reported():
        return engine.with_gallery(drop, same=True)


def remove_image(engine: Engine, image_id: int) -> RemovedAnswer:
    """Remove an image. Raises NotInGallery, and as `remove_images` does."""
    answer = remove_images(engine, [image_id])
    if not answer.removed:
        raise NotInGallery("the gallery holds no image with this id")
    return answer


@contextmanager
def _reported() -> Iterator[None]:
    """Turn what writing raises into problems, whose sentences name no path of the server."""
    try:
        yield
    except GalleryReadOnly as error:
        raise GalleryReadOnly("the gallery can be searched but not changed") from error
    except ArtifactMismatch as error:  # a job has just encoded the gallery again
        raise GalleryBusy("the gallery's model has changed; try again in a moment") from error
    except (OSError, sqlite3.Error) as error:
        if _is_full(error):
            raise DiskFull("the gallery's disk is full; nothing was changed") from error
        if getattr(error, "sqlite_errorcode", 0) & 0xFF == sqlite3.SQLITE_BUSY:
            raise GalleryBusy("another program writes to the gallery; try again") from error
        raise


def _is_full(error: OSError | sqlite3.Error) -> bool:
    if isinstance(error, OSError):
        return error.errno in (errno.ENOSPC, errno.EDQUOT)
    # SQLite's index of its log is mapped into memory; where it cannot grow, that is an I/O error.
    shm = (sqlite3.SQLITE_IOERR_SHMSIZE, sqlite3.SQLITE_IOERR_SHMMAP, sqlite3.SQLITE_IOERR_SHMOPEN)
    code = getattr(error, "sqlite_errorcode", 0)
    return code == sqlite3.SQLITE_FULL or code in shm
