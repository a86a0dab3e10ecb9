"""From the gallery's images to what goes over the wire."""

from collections.abc import Sequence

import numpy as np

from hashsearch.codes import code_to_hex
from hashsearch.errors import NotInGallery
from hashsearch.gallery.gallery_folder import GalleryFolder
from hashsearch.gallery.places import present
from hashsearch.gallery.records import ImageRecord
from hashsearch.images import encode_png
from hashsearch.retrieval.filters import Filter
from hashsearch.retrieval.searcher import Searcher
from hashsearch.sources.base import added_path
from service.context import Context
from service.cursors import page_of, start_of
from service.questions import uris_of
from service.schemas.images import (
    AddedAnswer,
    AddedImageAnswer,
    DescribedImageAnswer,
    ImageAnswer,
    ListAnswer,
    ListParameters,
)

_NAME = "images"  # of the list, in its cursors


def list_answer(searcher: Searcher, parameters: ListParameters, context: Context) -> ListAnswer:
    """A page of the images. Raises InvalidParameter."""
    prefix = parameters.uri_prefix
    chosen_by = Filter(parameters.label, None if prefix is None else uris_of(prefix))
    after = start_of(parameters.after, _NAME, 0)
    found = searcher.ids_after(after, parameters.limit + 1, chosen_by)
    shown, following = page_of(found, parameters.limit, _NAME, int)
    catalog = searcher.gallery.catalog
    images = present(catalog, catalog.records(shown))
    codes: Sequence[str | None] = [None] * len(images)
    if parameters.codes:
        ids = np.array([image.id for image in images], np.int64)
        codes = [code_to_hex(code) for code in searcher.codes(ids)]
    return ListAnswer(
        images=[_image(one, code, context) for one, code in zip(images, codes, strict=True)],
        next=following,
        generation=catalog.generation(),  # of labels and uris; the searcher may be a former one
    )


def described_image(
    searcher: Searcher, image_id: int, context: Context, *, originals: bool
) -> DescribedImageAnswer:
    """All that is known of an image. originals: whether they are on. Raises NotInGallery."""
    gallery = searcher.gallery
    (image,) = present(gallery.catalog, [gallery.catalog.record(image_id)])
    has_file = not image.missing and added_path(image.uri) is None
    size, _ = gallery.catalog.sizes_and_times([image_id])[image_id]
    return DescribedImageAnswer(
        **dict(_image(image, code_to_hex(gallery.code(image_id)), context)),
        key=gallery.catalog.key(image_id).hex(),
        size=size,
        original=context.original(image_id) if originals and has_file else None,
        generation=gallery.catalog.generation(),
    )


def added_answer(
    gallery: GalleryFolder, added: Sequence[tuple[int, bool]], context: Context
) -> AddedAnswer:
    """added: of each image, its id and whether it is new. Raises NotInGallery."""
    catalog = gallery.catalog
    with catalog.snapshot():
        generation = catalog.generation()
        records = catalog.records(image_id for image_id, _ in added)
        if len(records) < len(added):
            raise NotInGallery("an image was removed by another client while it was added")
        images = present(catalog, records)
    return AddedAnswer(
        images=[
            AddedImageAnswer(
                id=image.id,
                is_new=is_new,
                label=image.label,
                uri=image.uri,
                thumbnail=context.thumbnail(image.id),
            )
            for image, (_, is_new) in zip(images, added, strict=True)
        ],
        generation=generation,
    )


def picture_of(gallery: GalleryFolder, image_id: int) -> tuple[bytes, str] | None:
    """An image's thumbnail, or its tiny image if it has none, and the media type.

    None if the gallery keeps neither. Raises NotInGallery.
    """
    thumbnail = gallery.thumbnail(image_id)
    if thumbnail is not None:
        return thumbnail, "image/jpeg"
    tiny = gallery.pixels(image_id)
    return None if tiny is None else (encode_png(tiny), "image/png")


def _image(image: ImageRecord, code: str | None, context: Context) -> ImageAnswer:
    return ImageAnswer(
        id=image.id,
        label=image.label,
        uri=image.uri,
        width=image.width,
        height=image.height,
        missing=image.missing,
        thumbnail=context.thumbnail(image.id),
        code=code,
    )
