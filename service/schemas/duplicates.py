"""Groups of duplicates on the wire."""

from typing import Annotated

from pydantic import BaseModel, Field

from hashsearch.codes import CODE_BITS
from service.schemas.common import (
    After,
    AskedCode,
    Codes,
    ImageId,
    ImageLabel,
    ImageUri,
    IsMissing,
    Limit,
    Next,
    Strict,
    Thumbnail,
)

MOST_FILES = 1000  # of a group that are shown


class DuplicatesParameters(Strict):
    """The query string of a list of duplicates."""

    radius: Annotated[
        int | None,
        Field(
            ge=0,
            le=CODE_BITS,
            description="largest number of differing bits between two linked pictures; a group "
            "holds all that are linked, directly or through others; at most the distance of near "
            "pictures by the model's card; without it, the distance of copies by the card",
        ),
    ] = None
    limit: Limit = 100
    after: After = None
    codes: Codes = False


class DuplicateFileAnswer(BaseModel):
    """A file of a group; files with the same bytes have the same id."""

    id: ImageId
    uri: ImageUri
    label: ImageLabel
    width: int
    height: int
    size: int = Field(description="in bytes")
    distance: int = Field(description="in bits, from the file to keep")
    keep: bool = Field(description="whether it is the one that is suggested to be kept")
    missing: IsMissing
    thumbnail: Thumbnail
    code: AskedCode


class DuplicateGroupAnswer(BaseModel):
    """Files of near-equal pictures: the one to keep first, then by distance from it."""

    diameter: int = Field(
        description="the largest distance between two of its images, in bits; a diameter far above "
        "the radius shows a chain"
    )
    diameter_is_lower_bound: bool = Field(
        description="whether it may be larger, since the group has more than 1,000 distinct codes"
    )
    images: int = Field(description="number of its images when the groups were computed")
    n_files: int = Field(
        description="number of its files when the groups were computed; of more than "
        f"{MOST_FILES}, so many are listed, of the images with the lowest ids"
    )
    files: list[DuplicateFileAnswer]


class DuplicatesAnswer(BaseModel):
    """Groups of duplicates, surest first: in order of diameter, those of more files first.

    Images that were removed since the groups were computed are left out, and so are groups of
    which one file is left.
    """

    radius: int
    total: int = Field(description="number of groups on all pages")
    groups: list[DuplicateGroupAnswer]
    next: Next
    generation: int = Field(
        description="the gallery's, of which the groups are; all pages of a list are of one"
    )
