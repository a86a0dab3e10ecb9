"""From what a service answers to the library's results and errors.

A service is not trusted either: what has not the form that it should have raises ServiceError.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from http.client import responses
from typing import Annotated, ClassVar, TypeVar

from pydantic import BaseModel, Field, TypeAdapter, ValidationError

from hashsearch.closeness import Closeness
from hashsearch.errors import (
    ClusterError,
    CodeShapeError,
    GalleryBusy,
    GalleryReadOnly,
    HashSearchError,
    ImageTooLarge,
    InvalidGallery,
    InvalidImage,
    InvalidQuery,
    NotInGallery,
    OriginalMissing,
    PartMissing,
    ServiceError,
    UnsupportedFormat,
)
from hashsearch.retrieval.ranking import Hit, Ranking
from hashsearch.search.parts import Part

T = TypeVar("T")

# What a gallery would raise, by the problem's code; others are ServiceErrors.
ERRORS: Mapping[str, type[HashSearchError]] = {
    "not-in-gallery": NotInGallery,
    "original-missing": OriginalMissing,
    "body-too-large": ImageTooLarge,
    "image-too-large": ImageTooLarge,
    "unsupported-format": UnsupportedFormat,
    "invalid-image": InvalidImage,
    "invalid-code": CodeShapeError,
    "invalid-query": InvalidQuery,
    "invalid-parameter": InvalidQuery,
    "gallery-read-only": GalleryReadOnly,
    "gallery-busy": GalleryBusy,
    "gallery-unavailable": InvalidGallery,
    "part-missing": PartMissing,
    "cluster-failed": ClusterError,
}

_LONGEST = 1000  # characters of a sentence of the service in a message

Code = Annotated[str, Field(pattern="^[0-9a-f]{64}$")]
Number = Annotated[int, Field(ge=-(2**63), lt=2**63)]
Cursor = Annotated[str, Field(max_length=1000)]


@dataclass(frozen=True, slots=True)
class Answer:
    """An answer. headers: by name, in any case. data: the body."""

    status: int
    headers: Mapping[str, str]
    data: bytes


@dataclass(frozen=True, slots=True)
class ListedImage:
    """An image of a gallery that is served, as iterating over a client gives it.

    uri, label, width, height, missing: as in ImageRecord. path: None, as in the hits of a client.

    >>> [image.id for image in client][:3]
    [1, 2, 3]
    """

    path: ClassVar[None] = None

    id: Number
    uri: str
    label: str | None
    width: Number
    height: Number
    missing: bool


@dataclass(frozen=True, slots=True)
class ServedImage(ListedImage):
    """An image of a gallery that is served, as a client's `get` returns it.

    code: 256 bits, as 64 hexadecimal digits. key: SHA-256 of the file's bytes, in hexadecimal
    digits. size: of the file, in bytes. The rest is as in ListedImage.

    >>> client.get(1).width
    32
    """

    code: Code
    key: str
    size: Number


@dataclass(frozen=True, slots=True)
class Page:
    """A page of the images, in order of id. next: the parameter `after` of the next page."""

    images: list[ListedImage]
    next: Cursor | None


@dataclass(frozen=True, slots=True)
class GalleryInfo:
    """A gallery that is served, as a client's `info` returns it.

    images: number of images. generation: increases with every change to them. fingerprint: of the
    model that made the codes. methods: names of the methods that can search it. closeness: what
    distances mean; None if it was not measured of the model. labels: number of images by label, of
    the 1,000 most frequent labels, the most frequent first. writes: whether the service takes
    changes, with a key. model: name of the model, "bundled" or "general"; None if it does not come
    with the service's version of the package, or if that is an earlier one, which does not say it.

    >>> client.info().images
    300
    """

    images: int
    generation: int
    fingerprint: str
    methods: list[str]
    closeness: Closeness | None
    labels: dict[str, int]
    writes: bool
    model: str | None = None


class _Problem(BaseModel):
    detail: str
    code: str
    request_id: str | None = None


class _HitAnswer(BaseModel):
    id: Number
    distance: Number
    label: str | None
    uri: str
    closeness: str | None
    missing: bool


class _PartAnswer(BaseModel):
    part: Number
    of: Number
    first_id: Number
    last_id: Number


class _SearchAnswer(BaseModel):
    method: str
    index: str
    latency_ms: float
    truncated: bool
    missing_parts: list[_PartAnswer] = Field(default=[])  # services before clusters have none
    hits: list[_HitAnswer]


class _EncodeAnswer(BaseModel):
    code: Code


class _AddedAnswer(BaseModel):
    id: Number


class _AddAnswer(BaseModel):
    images: Annotated[list[_AddedAnswer], Field(min_length=1, max_length=1)]


class _RemoveAnswer(BaseModel):
    removed: Number


class _FileAnswer(BaseModel):
    id: Number
    uri: str
    label: str | None
    width: Number
    height: Number
    size: Number
    distance: Number
    keep: bool
    missing: bool


class _GroupAnswer(BaseModel):
    diameter: Number
    diameter_is_lower_bound: bool
    files: list[_FileAnswer]


class _DuplicatesAnswer(BaseModel):
    groups: list[_GroupAnswer]
    next: Cursor | None


class _LabelAnswer(BaseModel):
    label: str
    images: Number


class _GalleryAnswer(BaseModel):
    images: Annotated[int, Field(ge=0, lt=2**63)]
    generation: Number
    fingerprint: str
    methods: list[str]
    closeness: Closeness | None
    labels: list[_LabelAnswer]
    writes: bool
    model: str | None = None


SEARCH = TypeAdapter(_SearchAnswer)
ENCODE = TypeAdapter(_EncodeAnswer)
IMAGE = TypeAdapter(ServedImage)
LIST = TypeAdapter(Page)
ADD = TypeAdapter(_AddAnswer)
REMOVE = TypeAdapter(_RemoveAnswer)
DUPLICATES = TypeAdapter(_DuplicatesAnswer)
INFO = TypeAdapter(_GalleryAnswer)


def read(address: str, answer: Answer, kind: TypeAdapter[T]) -> T:
    """Read an answer's JSON. Raises ServiceError if it is of another kind."""
    try:
        return kind.validate_json(answer.data, strict=True)
    except ValidationError as error:
        raise not_a_service(address) from error


def ranking_of(address: str, answer: Answer) -> Ranking:
    found = read(address, answer, SEARCH)
    hits = [Hit(path=None, **dict(hit)) for hit in found.hits]
    missing = tuple(
        Part(one.part, one.of, one.first_id, one.last_id) for one in found.missing_parts
    )
    return Ranking(found.method, hits, found.truncated, found.latency_ms, found.index, missing)


def info_of(address: str, answer: Answer) -> GalleryInfo:
    found = read(address, answer, INFO)
    labels = {one.label: one.images for one in found.labels}
    return GalleryInfo(**dict(found) | {"labels": labels})


def not_a_service(address: str) -> ServiceError:
    return ServiceError(f"{address} is not a HashSearch service: its answer has another form")


def error_of(address: str, answer: Answer) -> HashSearchError:
    """The error that an answer with any status but 200 stands for."""
    request_id = answer.headers.get("X-Request-ID")
    kind: type[HashSearchError] | None
    try:
        problem = _Problem.model_validate_json(answer.data)
    except ValidationError:  # of a proxy, or of another service
        sentence = f"{address} answered {answer.status} {responses.get(answer.status, '')}".rstrip()
        if 300 <= answer.status < 400:
            sentence += "; redirects are not followed"
        code, kind = None, None
        if answer.status == 413:  # nothing but images makes a body large
            sentence, kind = f"{sentence}: the upload is too large", ImageTooLarge
    else:
        sentence, code, kind = problem.detail[:_LONGEST], problem.code, ERRORS.get(problem.code)
        request_id = problem.request_id or request_id
    if kind is None:
        return ServiceError(sentence, code=code, status=answer.status, request_id=request_id)
    error = kind(sentence)
    error.request_id = request_id
    return error


def about(what: str, error: HashSearchError) -> HashSearchError:
    """An error whose sentence begins with what it is about, such as the path of an image."""
    named = type(error)(f"{what}: {error}")
    named.request_id = error.request_id
    return named
