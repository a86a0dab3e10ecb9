"""Adding single images, or a few at once, also while a job is running."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from hashsearch.encoder import Encoder
from hashsearch.errors import ArtifactMismatch, GalleryBusy
from hashsearch.gallery.changes import Changes
from hashsearch.gallery.gallery_folder import GalleryFolder
from hashsearch.gallery.naming import uri_at
from hashsearch.gallery.records import FoundPlace, NewImage
from hashsearch.gallery.shards import ShardWriter
from hashsearch.images import TINY_BYTES
from hashsearch.jobs.index.prepare import Prepared, prepare_one
from hashsearch.sources.base import SourceImage, added_path, added_uri

# The encoder's columns of prepared images, by name: (n, width) uint8, in their order.
Encode = Callable[[Sequence[Prepared]], Mapping[str, NDArray[np.uint8]]]

_TRIES = 10  # to add images that another program removes meanwhile


@dataclass(frozen=True, slots=True)
class Addition:
    """An image to add, decoded.

    size, mtime: of its file, in bytes and nanoseconds. label: a label that the caller gives to the
    content, wherever it is; an empty one takes the content's label away, and None leaves it as it
    is. path: of its file, an absolute one; indexing its folder later finds it unchanged. None if it
    came as bytes.
    """

    image: Prepared
    size: int
    mtime: int = 0
    label: str | None = None
    path: Path | None = None


def add_image(
    gallery: GalleryFolder,
    encoder: Encoder,
    image: SourceImage | bytes,
    label: str | None = None,
    *,
    path: Path | None = None,
) -> tuple[int, bool]:
    """Add one image file to a gallery; a job may run meanwhile.

    encoder: the gallery's model, loaded from its folder. image: a file's bytes, or the image of
    a file at `path`. label, path: as of Addition.
    Returns the image's id, and whether it is new: equal bytes are stored once, with every place
    where they were found.
    Raises InvalidImage, and ArtifactMismatch if the encoder is not the gallery's model, or the
    gallery's pictures were decoded by earlier image rules.
    """
    gallery.require_todays_rules()
    if encoder.fingerprint != gallery.fingerprint:
        origin = "was not loaded from a model folder"
        if encoder.fingerprint is not None:
            origin = f"is model {encoder.fingerprint[:12]}"
        raise ArtifactMismatch(
            f"the encoder {origin}; {gallery.folder} has codes of model "
            f"{gallery.fingerprint[:12]}, which gallery.encoder() loads"
        )
    size, mtime = (len(image), 0) if isinstance(image, bytes) else (image.size, image.mtime)
    prepared = prepare_one(image, gallery.keeps("thumbnails"))
    addition = Addition(prepared, size, mtime, label, path)

    def encode(images: Sequence[Prepared]) -> Mapping[str, NDArray[np.uint8]]:
        return encoder.columns(np.stack([one.tiny for one in images]))

    return add_images(gallery, encoder.fingerprint, [addition], encode)[0]


def add_images(
    gallery: GalleryFolder, fingerprint: str, additions: Sequence[Addition], encode: Encode
) -> list[tuple[int, bool]]:
    """Add images to a gallery in one shard and one commit: all of them, or none.

    Equal contents are one image, which has the last label and the first path of theirs.
    fingerprint: of the model that `encode` uses. encode: is called for the images whose content
    the gallery does not hold, if there are any; again if an image is removed meanwhile.
    Returns each image's id, and whether it is new, which is true of the first of equal contents.
    Raises ArtifactMismatch if the gallery has another model, GalleryReadOnly if something has to
    be written, and GalleryBusy if another program removes an image each time that it is added.
    """
    for _ in range(_TRIES):
        added = _added(gallery, fingerprint, additions, encode)
        if added is not None:
            return added
    raise GalleryBusy("another program removes the images while they are added; try again")


def _added(
    gallery: GalleryFolder, fingerprint: str, additions: Sequence[Addition], encode: Encode
) -> list[tuple[int, bool]] | None:
    """As of `add_images`; None if another program removed an image meanwhile."""
    unique = _unique(additions)
    keys = list(unique)
    uris = {key: _uri(gallery, one) for key, one in unique.items()}
    former = known = gallery.catalog.images_of_keys(keys)
    unknown = [key for key in keys if key not in former]
    columns = _columns(gallery, [unique[key].image for key in unknown], encode)
    if not unknown:
        _commit(gallery, _of_known(unique, uris, known))
        stored = gallery.catalog.images_of_keys(keys)
        if len(stored) < len(keys):
            return None
        return [(stored[one.image.key][0], False) for one in additions]
    with gallery.additions_lock() as folder:
        # Another program may have added some of them while their codes were computed.
        known = former | gallery.catalog.images_of_keys(keys)
        rows = [row for row, key in enumerate(unknown) if key not in known]
        new = [unknown[row] for row in rows]
        changes = _of_known(unique, uris, known)
        changes.images = [_new_image(unique[key], uris[key]) for key in new]
        writer = gallery.new_shard(columns, folder) if new else None
        try:
            if writer is not None:
                chosen = {name: values[rows] for name, values in columns.items()}
                writer.append(chosen, [unique[key].image.thumbnail for key in new])
            _commit(gallery, changes, writer, fingerprint)
        except BaseException:
            if writer is not None:
                writer.discard()  # the disk may be full
            raise
        stored = gallery.catalog.images_of_keys(keys)
    if len(stored) < len(keys):
        return None
    # A job may have added the content meanwhile, under another uri.
    made = {key: stored[key][1] == uris[key] for key in new}
    return [(stored[one.image.key][0], made.pop(one.image.key, False)) for one in additions]


def _unique(additions: Sequence[Addition]) -> dict[bytes, Addition]:
    """One addition of each content, by its key."""
    unique: dict[bytes, Addition] = {}
    for one in additions:
        first = unique.setdefault(one.image.key, one)
        if one.label is not None:
            unique[one.image.key] = replace(first, label=one.label)
    return unique


def _uri(gallery: GalleryFolder, addition: Addition) -> str:
    if addition.path is None:
        return added_uri(addition.image.key.hex())
    return uri_at(gallery.catalog, addition.path)


def _columns(
    gallery: GalleryFolder, images: Sequence[Prepared], encode: Encode
) -> dict[str, NDArray[np.uint8]]:
    """What a shard keeps of these images, by column; nothing if there are none."""
    if not images:
        return {}
    columns = dict(encode(images))
    if gallery.keeps("pixels"):
        columns["pixels"] = np.stack([image.tiny.reshape(TINY_BYTES) for image in images])
    return columns


def _of_known(
    additions: Mapping[bytes, Addition],
    uris: Mapping[bytes, str],
    known: Mapping[bytes, tuple[int, str]],
) -> Changes:
    """The changes of the images that the gallery holds; known: as of `images_of_keys`."""
    changes = Changes()
    for key, (_, first) in known.items():
        one, given = additions[key], additions[key].label is not None
        label = one.label or None
        if given:
            changes.relabelled.append((first, label))
        if one.path is not None:
            changes.found.append(FoundPlace(key, uris[key], label, one.size, one.mtime, given))
            if added_path(first) is not None:  # it has a file now
                changes.dropped.append((first, key))
    return changes


def _new_image(addition: Addition, uri: str) -> NewImage:
    image = addition.image
    return NewImage(
        image.key,
        uri,
        addition.label or None,
        image.width,
        image.height,
        addition.size,
        addition.mtime,
        addition.label is not None,
    )


def _commit(
    gallery: GalleryFolder,
    changes: Changes,
    writer: ShardWriter | None = None,
    made_by: str | None = None,
) -> None:
    if len(changes):
        gallery.commit(changes, writer, made_by)
