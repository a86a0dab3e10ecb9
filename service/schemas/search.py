"""Searches on the wire: parameters, bodies and answers."""

from collections.abc import Mapping
from typing import Annotated, ClassVar, Self

from pydantic import AfterValidator, BaseModel, Field, field_validator, model_validator

from hashsearch.crop import Crop
from hashsearch.errors import InvalidQuery
from hashsearch.retrieval.methods import DEFAULT_METHOD
from hashsearch.retrieval.searcher import DEFAULT_K
from service.schemas.common import (
    MAX_IDS,
    MAX_K,
    AskedCode,
    Codes,
    ImageBase64,
    ImageId,
    ImageLabel,
    ImageUri,
    IsMissing,
    JsonId,
    KindName,
    Label,
    MethodName,
    Strict,
    Thumbnail,
    UriPrefix,
    Word,
)

MAX_OFFSET = 10_000
MAX_EXAMPLES = 100
MAX_IMAGES = 8  # of the examples; each takes as long to decode as a query


def _is_crop(text: str | None) -> str | None:
    if text is not None:
        try:
            Crop.of(text)
        except InvalidQuery as error:
            raise ValueError(
                "must be left,top,right,bottom with 0 ≤ left < right ≤ 1 and "
                "0 ≤ top < bottom ≤ 1, such as 0.25,0,0.75,0.5"
            ) from error
    return text


CropText = Annotated[
    str | None,
    AfterValidator(_is_crop),
    Field(
        max_length=100,
        description="the part of the image that counts, as left,top,right,bottom in fractions of "
        "its width and height",
        examples=["0.25,0,0.75,0.5"],
    ),
]


class ChoiceParameters(Strict):
    """What every search of the gallery takes in its query string."""

    elsewhere: ClassVar[Mapping[str, str]] = dict.fromkeys(
        ("image_base64", "id", "code", "like", "unlike", "ids", "exclude"), "the JSON body"
    )

    label: Label = None
    uri_prefix: UriPrefix = None
    crop: CropText = None
    transforms: Annotated[
        bool,
        Field(
            description="search for the query's mirror image, small shifts and crops too; a "
            "distance is the least of all"
        ),
    ] = False
    codes: Codes = False


class SearchParameters(ChoiceParameters):
    """The query string of a search; without k and radius, the nearest ten are returned."""

    k: Annotated[
        int | None, Field(ge=1, le=MAX_K, description="largest number of hits; ten by default")
    ] = None
    offset: Annotated[
        int, Field(ge=0, le=MAX_OFFSET, description="number of the nearest images that are skipped")
    ] = 0
    radius: Annotated[
        int | None,
        Field(
            ge=0,
            lt=2**31,
            description="greatest distance, inclusive, in the method's unit; "
            f"without k, all images within it, at most {MAX_K}",
        ),
    ] = None
    method: Annotated[MethodName, Field(description="what is compared")] = DEFAULT_METHOD
    index: KindName | None = Field(
        default=None,
        description="the kind of index that answers, of those that were built of the gallery; "
        "without it, and where images are chosen, search is exact",
    )
    histogram: Annotated[
        bool,
        Field(
            description="count all images that may be found by their distance too, exactly; by "
            "the method codes, without examples"
        ),
    ] = False


class CompareParameters(ChoiceParameters):
    """The query string of a comparison."""

    k: Annotated[int, Field(ge=1, le=MAX_K, description="largest number of hits")] = DEFAULT_K
    method: Annotated[
        list[MethodName],
        Field(
            default_factory=list,
            description="what is compared, repeated for each method; without it, every method that "
            "is compared by default and that can answer: the gallery has its data, and so have the "
            "query and the examples (a code has no pixels)",
        ),
    ]

    @field_validator("method")
    @classmethod
    def _each_once(cls, methods: list[str]) -> list[str]:
        if len(set(methods)) < len(methods):
            raise ValueError("must name each method only once")
        return methods


Ids = Annotated[list[JsonId], Field(max_length=MAX_IDS, fail_fast=True)]


class ImageExample(Strict):
    """An image as an example."""

    image_base64: ImageBase64[str]


Examples = Annotated[list[JsonId | str | ImageExample], Field(max_length=MAX_EXAMPLES)]


_QUERIES = ("image_base64", "id", "code")  # fields of which a body has one at most


class QueryBody(Strict):
    """A query as JSON: at most one of image_base64, id and code, or examples alone."""

    elsewhere: ClassVar[Mapping[str, str]] = dict.fromkeys(
        SearchParameters.model_fields, "the query string"
    )

    image_base64: ImageBase64[str | None] = None
    id: JsonId | None = Field(default=None, description="id of an image of the gallery")
    code: str | None = Field(default=None, description="a code, 64 hexadecimal digits")
    like: Examples | None = Field(
        default=None,
        description="examples, ids, codes or images: images are ranked by the sum of their "
        "distances to the query and these, minus those to what `unlike` holds",
    )
    unlike: Examples | None = Field(default=None, description="counterexamples, of the same kinds")
    ids: Ids | None = Field(default=None, description="only these images may be found")
    exclude: Ids | None = Field(default=None, description="none of these images may be found")

    @model_validator(mode="after")
    def _at_most_one(self) -> Self:
        came = [name for name in _QUERIES if getattr(self, name) is not None]
        examples = (*(self.like or ()), *(self.unlike or ()))
        if len(came) > 1:
            raise ValueError(f"{' and '.join(came)} came; send only one")
        if not (came or examples):
            raise ValueError("send one of image_base64, id and code, or examples in like or unlike")
        if sum(isinstance(one, ImageExample) for one in examples) > MAX_IMAGES:
            raise ValueError(
                f"at most {MAX_IMAGES} examples may be images; others must be ids or codes"
            )
        return self


class HitAnswer(BaseModel):
    """An image of the gallery that was found."""

    id: ImageId
    distance: int = Field(description="in the method's unit")
    closeness: Word | None = Field(
        description="what the distance means; null with other methods than codes, and if it was "
        "not measured of the model"
    )
    label: ImageLabel
    uri: ImageUri
    missing: IsMissing
    thumbnail: Thumbnail
    code: AskedCode


class PartAnswer(BaseModel):
    """A part of a gallery whose codes are on a cluster: images that follow each other by id."""

    part: int = Field(description="from 1 to `of`")
    of: int = Field(description="number of parts")
    first_id: int = Field(description="the first id of its images")
    last_id: int = Field(description="the last id of its images")


class MethodAnswer(BaseModel):
    """The hits of one method, nearest first, equal distances in id order."""

    method: MethodName
    index: KindName = Field(description="the kind of index that answered")
    title: str = Field(description="name of the method for people")
    unit: str = Field(description="unit of the distances; the page shows the root of squared ones")
    image_bytes: int = Field(description="bytes of each image that the method compares")
    latency_ms: float = Field(description="time of the search, without decoding and encoding")
    truncated: bool = Field(description="whether images within the radius were left out")
    partial: bool = Field(
        description="whether a part of the gallery could not be searched, so that hits may be "
        "missing; only where the codes are on a cluster, and the service may answer so"
    )
    missing_parts: list[PartAnswer] = Field(description="the parts that could not be searched")
    hits: list[HitAnswer]


class AskedAnswer(BaseModel):
    """What was asked, as the service understood it; images and examples are counted."""

    kind: str | None = Field(
        description="image, id or code; null if examples alone were sent",
        json_schema_extra={"enum": ["image", "id", "code", None]},
    )
    id: int | None
    like: int = Field(description="number of examples")
    unlike: int = Field(description="number of counterexamples")
    ids: int | None = Field(description="number of ids that were allowed; null if all were")
    exclude: int = Field(description="number of ids that were excluded")
    label: str | None
    uri_prefix: str | None
    crop: str | None
    transforms: bool
    codes: bool = Field(description="whether the codes of the hits were asked for")


class AskedSearch(AskedAnswer):
    """What was asked of a search."""

    k: int | None = Field(description=f"null if all within the radius are, at most {MAX_K}")
    offset: int
    radius: int | None
    method: MethodName
    index: KindName | None
    histogram: bool


class AskedComparison(AskedAnswer):
    """What was asked of a comparison."""

    k: int
    methods: list[MethodName] = Field(description="the methods that were compared")


# Fields of the answers to searches and to comparisons.
QueryCode = Annotated[
    str | None,
    Field(description="the query's own code, hexadecimal; null if examples alone were sent"),
]
Generation = Annotated[int, Field(description="the gallery's, that was searched")]
Fingerprint = Annotated[str, Field(description="of the model that made the codes")]


class SearchAnswer(MethodAnswer):
    """The answer to a search."""

    asked: AskedSearch
    code: QueryCode
    generation: Generation
    fingerprint: Fingerprint
    histogram: list[int] | None = Field(
        description="the number of images at each distance from 0 to 256 bits, of all that may be "
        "found, whatever k, offset and radius are; null unless it was asked for"
    )


class Overlap(BaseModel):
    """How much two methods' hits have in common."""

    methods: tuple[MethodName, MethodName]
    share: float = Field(description="share of the first k hits that both methods found")


class CompareAnswer(BaseModel):
    """The answers of several methods to one query."""

    asked: AskedComparison
    code: QueryCode
    k: int
    generation: Generation
    fingerprint: Fingerprint
    partial: bool = Field(description="whether the answer of a method is partial")
    methods: list[MethodAnswer]
    overlap_at_k: list[Overlap]
