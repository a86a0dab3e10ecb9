"""Single images, added by a program while a job may be at work."""

import numpy as np

from hashsearch.encoder import Encoder
from hashsearch.errors import InvalidImage
from hashsearch.gallery.catalog import NewImage
from hashsearch.gallery.folder import Gallery
from hashsearch.images import TINY_BYTES
from hashsearch.jobs.index.prepare import prepare
from hashsearch.sources.base import SourceImage

# What the uris of added images begin with; a source's name never has a plus sign.
ADDED = "+"


def add_image(
    gallery: Gallery, encoder: Encoder, data: bytes, label: str | None = None
) -> tuple[int, bool]:
    """Add an image file's bytes to a gallery; no job is kept out, nor waited for.

    encoder: of the gallery's model. Returns the image's id, and whether it is
    new: the same bytes are stored once, under whichever uri came first.
    Raises InvalidImage, and ArtifactMismatch if the gallery was moved to
    another model meanwhile.
    """
    (result,) = prepare([SourceImage("", label, len(data), 0, data)], gallery.keeps("thumbnails"))
    if isinstance(result, InvalidImage):
        raise result
    known = gallery.catalog.ids_of_keys([result.key])
    if known:
        return known[result.key], False
    columns = {"codes": encoder.encode(result.tiny[np.newaxis])}
    if gallery.keeps("pixels"):
        columns["pixels"] = result.tiny.reshape(1, TINY_BYTES)
    uri = f"{ADDED}/{result.key.hex()}"
    image = NewImage(result.key, uri, label, result.width, result.height, len(data), 0)
    with gallery.additions_lock() as folder:
        writer = gallery.new_shard(folder)
        writer.append(columns, [result.thumbnail])
        gallery.commit(writer, [image], made_by=encoder.fingerprint)
    # It may have come in by another way while its code was made.
    record = gallery.catalog.record(gallery.catalog.ids_of_keys([result.key]).get(result.key, -1))
    return record.id, record.uri == uri
