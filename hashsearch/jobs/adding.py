"""Adding a single image, also while a job is running."""

from pathlib import Path

import numpy as np

from hashsearch.encoder import Encoder
from hashsearch.errors import ArtifactMismatch, InvalidImage
from hashsearch.gallery.changes import Changes
from hashsearch.gallery.gallery_folder import GalleryFolder
from hashsearch.gallery.naming import uri_at
from hashsearch.gallery.records import FoundPlace, NewImage
from hashsearch.images import TINY_BYTES
from hashsearch.jobs.index.prepare import prepare
from hashsearch.sources.base import SourceImage, added_path, added_uri


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
    a file at `path`, an absolute one; indexing its folder later finds it unchanged.
    label: a label that the caller gives to the content, wherever it is; an empty one takes the
    content's label away, and None leaves it as it is.
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
    if isinstance(image, bytes):
        image = SourceImage("", None, len(image), 0, image)
    (result,) = prepare([image], gallery.keeps("thumbnails"))
    if isinstance(result, InvalidImage):
        raise result
    size, mtime = image.size, image.mtime
    uri = added_uri(result.key.hex())
    if path is not None:
        uri = uri_at(gallery.catalog, path)
    known = gallery.catalog.images_of_keys([result.key])
    given, label = label is not None, label or None
    if known:
        image_id, first = known[result.key]
        changes = Changes(relabelled=[(first, label)] if given else [])
        if path is not None:
            changes.found.append(FoundPlace(result.key, uri, label, size, mtime, given))
            if added_path(first) is not None:  # it has a file now
                changes.dropped.append((first, result.key))
        if len(changes):
            gallery.commit(changes)
        return image_id, False
    columns = encoder.columns(result.tiny[np.newaxis])
    if gallery.keeps("pixels"):
        columns["pixels"] = result.tiny.reshape(1, TINY_BYTES)
    row = NewImage(result.key, uri, label, result.width, result.height, size, mtime, given)
    with gallery.additions_lock() as folder:
        writer = gallery.new_shard(columns, folder)
        writer.append(columns, [result.thumbnail])
        gallery.commit(Changes(images=[row]), writer, encoder.fingerprint)
    # Another writer may have added it while its code was computed.
    image_id, first_uri = gallery.catalog.images_of_keys([result.key]).get(result.key, (-1, ""))
    return gallery.catalog.record(image_id).id, first_uri == uri
