"""The library's face: what `import hashsearch` offers, documented in docs/python.md."""

from collections.abc import Sequence
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import NDArray

from hashsearch.errors import ArtifactMismatch, InvalidImage, InvalidQuery
from hashsearch.gallery.gallery_folder import GalleryFolder, Precision, require_gallery
from hashsearch.images import PREPROCESSING
from hashsearch.inputs import (
    PathOrName,
    Picture,
    checked_path,
    several_images,
    tiny_image,
)
from hashsearch.models.card import model_folder, model_name, of_other_rules, read_card
from hashsearch.open_gallery import Gallery

if TYPE_CHECKING:
    from hashsearch.encoder import Encoder


def open(
    folder: PathOrName,
    *,
    create: bool = False,
    model: PathOrName | None = None,
    pixels: bool | None = None,
    thumbnails: bool | None = None,
    precision: Precision | None = None,
) -> Gallery:
    """Open a gallery folder.

    create: make an empty gallery if there is none. The other arguments are for a new gallery;
    for an existing one they are compared with what it is. model: a model folder, "bundled" (the
    default) or "general", which has learned labels; "./general" is a folder of that name.
    pixels, thumbnails: whether to keep the tiny images, which pixel search and reencoding need,
    and the pictures of 128 px. precision: of the encoder's products; with "bfloat16", newer
    processors encode faster.

    Raises InvalidGallery if the folder is no gallery, and ArtifactMismatch if the gallery is
    another than the arguments say.

    >>> hashsearch.open("new gallery", create=True)
    <hashsearch.Gallery 'new gallery'>
    """
    path = checked_path(folder)
    if not create:
        require_gallery(path)  # named as it was given
    if create and not GalleryFolder.exists(path):
        made = GalleryFolder.create(
            path.absolute(),  # since the working folder may change later
            _model_folder(model),
            pixels=pixels is not False,
            thumbnails=thumbnails is not False,
            precision=precision or "float32",
        )
        return Gallery(made, path)
    opened = GalleryFolder(path.absolute())
    try:
        _require_same(opened, model, pixels, thumbnails, precision)
    except BaseException:
        opened.close()
        raise
    return Gallery(opened, path)


def load_model(model: PathOrName = "bundled") -> "Encoder":
    """Load a model folder, or a model that comes with the package: "bundled" or "general".

    Its `encode` turns (n, 32, 32, 3) uint8 tiny images into (n, 32) uint8 codes, and its
    `reconstruct` turns codes back into images. Raises InvalidModel.

    >>> codes = hashsearch.encode(["query.jpg", "new.jpg"])
    >>> hashsearch.load_model().reconstruct(codes).shape
    (2, 32, 32, 3)
    """
    from hashsearch.encoder import Encoder  # with torch, which takes seconds

    return Encoder.load(_model_folder(model))


def encode(
    images: "Sequence[Picture] | NDArray[np.uint8]", model: "PathOrName | Encoder" = "bundled"
) -> NDArray[np.uint8]:
    """Compute the codes of images.

    images: a sequence of paths, file contents as bytes, PIL images or (height, width, 3) uint8
    RGB arrays; or one array (n, height, width, 3). model: a model folder, "bundled", "general",
    or what `load_model` returns. Returns (n, 32) uint8: 256 bits each, the first bit is the highest
    of byte 0. Raises InvalidImage, and ArtifactMismatch if the model was trained on pictures of
    earlier image rules.

    >>> hashsearch.encode(["query.jpg", "new.jpg"]).shape
    (2, 32)
    """
    checked = several_images(images)
    encoder = load_model(model) if isinstance(model, str | PathLike) else model
    if encoder.preprocessing != PREPROCESSING:
        raise ArtifactMismatch(
            f"the model {of_other_rules(encoder.preprocessing)}; train it again, or take the "
            "bundled one"
        )
    tiny = []
    for number, image in enumerate(checked):
        try:
            tiny.append(tiny_image(image))
        except (InvalidImage, InvalidQuery) as error:
            raise type(error)(f"image {number}: {error}") from error
    return encoder.encode(np.stack(tiny) if tiny else np.empty((0, 32, 32, 3), np.uint8))


def _model_folder(model: PathOrName | None) -> Path:
    checked = None if model is None else checked_path(model)
    return model_folder(model if isinstance(model, str) else checked)


def _require_same(
    gallery: GalleryFolder,
    model: PathOrName | None,
    pixels: bool | None,
    thumbnails: bool | None,
    precision: Literal["float32", "bfloat16"] | None,
) -> None:
    """Raise ArtifactMismatch if the gallery is another than the arguments say."""
    if model is not None:
        path = _model_folder(model)
        wanted = read_card(path).fingerprint
        if wanted != gallery.fingerprint:
            raise ArtifactMismatch(
                f"{gallery.folder} was made by model {gallery.fingerprint[:12]}, and "
                f"{model_name(path)} is {wanted[:12]}; name a new gallery, or see hashsearch "
                "gallery reencode"
            )
    if precision not in (None, gallery.precision):
        raise ArtifactMismatch(
            f"{gallery.folder} is encoded in {gallery.precision}, not {precision}; this cannot be "
            "changed, so name a new gallery"
        )
    for what, wish in (("pixels", pixels), ("thumbnails", thumbnails)):
        if wish is not None and wish != gallery.keeps(what):
            keeps = "keeps" if gallery.keeps(what) else "keeps no"
            raise ArtifactMismatch(
                f"{gallery.folder} {keeps} {what}; this cannot be changed, so name a new gallery"
            )
