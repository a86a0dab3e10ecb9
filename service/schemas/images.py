"""Images on the wire: lists, metadata, additions and removals."""

from collections.abc import Mapping
from typing import Annotated, ClassVar

from pydantic import BaseModel, Field

from service.schemas.common import (
    MAX_TEXT,
    After,
    AskedCode,
    Codes,
    Id,
    ImageBase64,
    ImageId,
    ImageLabel,
    ImageUri,
    IsMissing,
    Label,
    Limit,
    Next,
    Strict,
    Thumbnail,
    UriPrefix,
)

MAX_ADDED = 32  # a batch of the encoder
MAX_REMOVED = 1000


class ListParameters(Strict):
    """The query string of a list."""

    limit: Limit = 100
    after: After = None
    label: Label = None
    uri_prefix: UriPrefix = None
    codes: Codes = False


class ImageAnswer(BaseModel):
    """An image of the gallery."""

    id: ImageId
    label: ImageLabel
    uri: ImageUri
    width: int = Field(description="of the original, in pixels")
    height: int = Field(description="of the original, in pixels")
    missing: IsMissing
    thumbnail: Thumbnail
    code: AskedCode


class ListAnswer(BaseModel):
    """A page of the gallery's images, in order of id."""

    images: list[ImageAnswer]
    next: Next
    generation: int = Field(description="the gallery's, of this page")


class DescribedImageAnswer(ImageAnswer):
    """All that is known of an image."""

    code: str = Field(description="its code, hexadecimal")
    key: str = Field(description="SHA-256 of the file's bytes, hexadecimal; of pixels for an array")
    size: int = Field(description="of the file, in bytes")
    original: str | None = Field(
        description="path of its file on this server; null if originals are off, or it has none"
    )
    generation: int = Field(description="the gallery's, of this answer")


GivenLabel = Annotated[
    str | None,
    Field(
        max_length=MAX_TEXT,
        description="label of the image, also if the gallery holds it already; an empty one takes "
        "its label away; without one, it keeps the label that it has",
        examples=["cat"],
    ),
]


class NewImage(Strict):
    """An image to be added."""

    image_base64: ImageBase64[str]
    label: GivenLabel = None


class AddBody(Strict):
    """Images to be added, as JSON."""

    elsewhere: ClassVar[Mapping[str, str]] = dict.fromkeys(
        NewImage.model_fields, 'an entry of images, as in {"images": [{"image_base64": "..."}]}'
    )

    images: Annotated[list[NewImage], Field(min_length=1, max_length=MAX_ADDED)]


class AddParameters(Strict):
    """The query string of an addition."""

    label: GivenLabel = None


class AddedImageAnswer(BaseModel):
    """An image that was added, or that the gallery held already."""

    id: ImageId
    is_new: bool = Field(description="false if the gallery held the same bytes already")
    label: ImageLabel
    uri: ImageUri
    thumbnail: Thumbnail


class AddedAnswer(BaseModel):
    """The images, in the order in which they were sent."""

    images: list[AddedImageAnswer]
    generation: int = Field(description="the gallery's; searches of it or a later one find them")


class RemoveParameters(Strict):
    """The query string of a removal."""

    id: Annotated[
        list[Id],
        Field(
            min_length=1,
            max_length=MAX_REMOVED,
            description="ids of the images; unknown ones are passed over",
        ),
    ]


class RemovedAnswer(BaseModel):
    """What was removed."""

    removed: int = Field(description="number of images")
    generation: int = Field(description="the gallery's; searches of it or a later one lack them")
