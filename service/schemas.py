"""The parameters, bodies and answers of the HTTP interface."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

from hashsearch.closeness import MEANINGS
from hashsearch.retrieval.kinds import KINDS
from hashsearch.retrieval.methods import DEFAULT_METHOD, SERVED
from hashsearch.retrieval.searcher import DEFAULT_K

MAX_K = 1000
MAX_TEXT = 4096  # characters of a label or a uri
MAX_IDS = 10_000
MAX_EXAMPLES = 100
MAX_IMAGES = 8  # of the examples; each takes as long to decode as a query


def _one_of(what: str, table: Mapping[str, Any]) -> tuple[AfterValidator, Any]:
    """Annotations of a name in a table, which OpenAPI lists; tests add rows to tables."""

    def known(name: str) -> str:
        if name not in table:
            raise ValueError(f"the {what} is one of {', '.join(table)}")
        return name

    def list_names(schema: dict[str, Any]) -> None:
        schema["enum"] = list(table)

    return AfterValidator(known), Field(json_schema_extra=list_names)


MethodName = Annotated[str, *_one_of("method", SERVED)]
KindName = Annotated[str, *_one_of("index", KINDS)]
Word = Annotated[
    str,
    Field(
        description="; ".join(f"{word}: {meaning}" for word, meaning in MEANINGS.items()),
        json_schema_extra={"enum": list(MEANINGS)},
    ),
]
K = Annotated[int, Field(ge=1, le=MAX_K, description="largest number of hits")]


class ChoiceParameters(BaseModel):
    """What every search of the gallery takes in its query string."""

    model_config = ConfigDict(extra="forbid")

    label: Annotated[
        str | None, Field(max_length=MAX_TEXT, description="only images with this label")
    ] = None
    uri_prefix: Annotated[
        str | None,
        Field(
            min_length=1,
            max_length=MAX_TEXT,
            description="only images at or below this uri, percent-encoded as in hits; it ends "
            "where a part of a path ends",
        ),
    ] = None
    crop: Annotated[
        str | None,
        Field(
            max_length=100,
            description="the part of the query image that is searched for, as left,top,right,"
            "bottom in fractions of its width and height",
        ),
    ] = None
    transforms: Annotated[
        bool,
        Field(
            description="search for the query's mirror image, small shifts and crops too; a "
            "distance is the least of all"
        ),
    ] = False


class SearchParameters(ChoiceParameters):
    """The query string of a search; without k and radius, the nearest ten are returned."""

    k: K | None = None
    radius: Annotated[
        int | None,
        Field(
            ge=0,
            lt=2**31,
            description="greatest distance, inclusive, in the method's unit; "
            f"without k, all images within it, at most {MAX_K}",
        ),
    ] = None
    method: MethodName = DEFAULT_METHOD
    index: KindName | None = Field(
        default=None,
        description="the kind of index that answers, of those that were built of the gallery; "
        "without it, and where images are chosen, search is exact",
    )


class CompareParameters(ChoiceParameters):
    """The query string of a comparison."""

    k: K = DEFAULT_K


Id = Annotated[int, Field(ge=0, lt=2**63)]
Ids = Annotated[list[Id], Field(max_length=MAX_IDS)]


class ImageExample(BaseModel):
    """An image as an example."""

    model_config = ConfigDict(extra="forbid")

    image_base64: str = Field(description="an image file in base64")


Examples = Annotated[list[Id | str | ImageExample], Field(max_length=MAX_EXAMPLES)]


class QueryBody(BaseModel):
    """A query as JSON: at most one of image_base64, id and code, or examples alone."""

    model_config = ConfigDict(extra="forbid")

    image_base64: str | None = Field(default=None, description="an image file in base64")
    id: Id | None = Field(default=None, description="id of an image of the gallery")
    code: str | None = Field(default=None, description="a code, 64 hexadecimal digits")
    like: Examples = Field(
        default_factory=list,
        description="examples, ids, codes or images: images are ranked by the sum of their "
        "distances to the query and these, minus those to what `unlike` holds",
    )
    unlike: Examples = Field(default_factory=list, description="counterexamples, of the same kinds")
    ids: Ids | None = Field(default=None, description="only these images may be found")
    exclude: Ids | None = Field(default=None, description="none of these images may be found")

    @model_validator(mode="after")
    def _at_most_one(self) -> Self:
        queries = sum(one is not None for one in (self.image_base64, self.id, self.code))
        if queries > 1 or not (queries or self.like or self.unlike):
            raise ValueError("one of image_base64, id and code is wanted, or examples")
        images = sum(isinstance(one, ImageExample) for one in (*self.like, *self.unlike))
        if images > MAX_IMAGES:
            raise ValueError(
                f"at most {MAX_IMAGES} examples may be images; others are ids or codes"
            )
        return self


@dataclass(frozen=True, slots=True)
class AskedQuery:
    """A query of any kind of body.

    image: an image file's bytes. like, unlike: ids, codes or image files' bytes. body: the JSON,
    if it came as that.
    """

    image: bytes | None
    like: Sequence[int | str | bytes] = ()
    unlike: Sequence[int | str | bytes] = ()
    body: QueryBody = field(default_factory=QueryBody.model_construct)


class HitAnswer(BaseModel):
    """An image of the gallery that was found."""

    id: int
    distance: int = Field(description="in the method's unit")
    closeness: Word | None = Field(
        description="what the distance means; null with other methods than codes, and if it was "
        "not measured of the model"
    )
    label: str | None
    uri: str = Field(
        description="source and path, percent-encoded; +/ and the SHA-256 if added as bytes"
    )
    missing: bool = Field(description="whether the file is gone from its place, with all copies")
    thumbnail: str = Field(description="path of its picture on this server")


class MethodAnswer(BaseModel):
    """The hits of one method, nearest first, equal distances in id order."""

    method: MethodName
    index: KindName = Field(description="the kind of index that answered")
    title: str = Field(description="name of the method for people")
    unit: str = Field(description="unit of the distances; the page shows the root of squared ones")
    image_bytes: int = Field(description="bytes of each image that the method compares")
    latency_ms: float = Field(description="time of the search, without decoding and encoding")
    truncated: bool = Field(description="whether images within the radius were left out")
    hits: list[HitAnswer]


class SearchAnswer(MethodAnswer):
    """The answer to a search."""

    code: str | None = Field(
        description="the query's own code, hexadecimal; null if examples alone were sent"
    )


class Overlap(BaseModel):
    """How much two methods' hits have in common."""

    methods: tuple[MethodName, MethodName]
    share: float = Field(description="share of the first k hits that both methods found")


class CompareAnswer(BaseModel):
    """The answers of several methods to one query."""

    code: str | None = Field(
        description="the query's own code, hexadecimal; null if examples alone were sent"
    )
    k: int
    methods: list[MethodAnswer]
    overlap_at_k: list[Overlap]


class JobAnswer(BaseModel):
    """The newest job that wrote to the gallery, as last recorded."""

    kind: str = Field(description="index, compact, reencode or build")
    state: str = Field(description="running, done, stopped, failed, killed or silent")
    started: str = Field(description="ISO 8601, in UTC")
    updated: str | None = Field(description="when the job was last recorded")
    ended: str | None
    expected: int | None = Field(description="estimated number of images to go through")
    counts: dict[str, int] = Field(description="number of images by outcome")
    images_per_second: float


class ClosenessAnswer(BaseModel):
    """The distances between codes, in bits and inclusive, up to which a word is used."""

    same: int
    near: int
    alike: int


class IndexAnswer(BaseModel):
    """An index that was built of the gallery, and what was measured then."""

    kind: KindName
    title: str = Field(description="what it does, for people")
    parameters: dict[str, int] = Field(description="such as nprobe, chosen by measuring")
    recall: float = Field(
        description="share of the ten nearest neighbours that it finds, of held-out queries"
    )
    query_ms: float = Field(description="median time of a query")
    exact_ms: float = Field(description="the same of exact search, in the same run")
    image_bytes: float = Field(description="bytes of memory of each image, beside its code")
    images: int = Field(description="of the gallery, when it was built")
    time: str = Field(description="when it was built, ISO 8601, in UTC")
    loaded: bool = Field(description="whether it can be searched now")


class GalleryAnswer(BaseModel):
    """The gallery that is searched."""

    images: int
    generation: int = Field(description="increases with every change to the images")
    fingerprint: str = Field(description="fingerprint of the model that made the codes")
    methods: list[MethodName] = Field(description="methods that the gallery has data for")
    indexes: list[IndexAnswer] = Field(description="indexes that were built of its codes")
    closeness: ClosenessAnswer | None = Field(
        description="what distances mean; null if it was not measured of the model"
    )
    job: JobAnswer | None


class Problem(BaseModel):
    """An error, after RFC 9457."""

    type: str = "about:blank"
    title: str
    status: int
    detail: str
    code: str = Field(description="a stable name for programs")
    request_id: str
