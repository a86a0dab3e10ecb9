"""Codes on the wire: what a picture is encoded to, and what a code decodes to."""

from typing import Annotated

from pydantic import BaseModel, Field

from hashsearch.images import PREVIEW_SIDE
from hashsearch.retrieval.occlusion import STRIDE, WINDOW
from service.schemas.common import Strict, one_of
from service.schemas.search import CropText

# The pictures that an answer may hold, by name: what they show.
PARTS = {
    "tiny": "the 32×32 pixels that the model sees",
    "preview": f"the whole upright picture, at most {PREVIEW_SIDE} px a side, for formats that "
    "browsers cannot show",
    "reconstruction": "the 32×32 pixels that the code decodes to",
    "occlusion": "which parts decide the code, 32×32 grey levels: the brighter a pixel, the more "
    f"bits change where windows of {WINDOW}×{WINDOW} pixels that cover it are filled with the mean "
    "colour; the brightest is 255",
}
PartName = Annotated[str, *one_of(PARTS)]


class EncodeParameters(Strict):
    """The query string of an encoding."""

    parts: Annotated[
        list[PartName],
        Field(
            default_factory=list,
            max_length=2 * len(PARTS),
            description="pictures that the answer holds, repeated for each: "
            + "; ".join(f"{name}: {what}" for name, what in PARTS.items()),
        ),
    ]
    crop: CropText = None


def _picture(name: str) -> str | None:
    default: str | None = Field(
        default=None, description=f"{PARTS[name]}; PNG in base64, null unless it was asked for"
    )
    return default


class PartsAnswer(BaseModel):
    """The pictures that were asked for."""

    tiny: str | None = _picture("tiny")
    preview: str | None = _picture("preview")
    reconstruction: str | None = _picture("reconstruction")
    occlusion: str | None = _picture("occlusion")


class EncodeAnswer(BaseModel):
    """What a picture is encoded to by the gallery's model."""

    code: str = Field(description="256 bits, as 64 hexadecimal digits")
    address: str | None = Field(
        description="28 bits and four zeros, as 8 hexadecimal digits; null if the model makes none"
    )
    width: int = Field(description="of the whole upright picture, in pixels")
    height: int
    parts: PartsAnswer
    changed_bits: list[list[int]] | None = Field(
        description="with the part occlusion: how many bits change with each window, "
        f"{STRIDE} pixels from one to the next, row after row; otherwise null"
    )
    generation: int = Field(description="the gallery's")
    fingerprint: str = Field(description="of the model")
