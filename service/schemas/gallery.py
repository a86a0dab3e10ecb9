"""The gallery on the wire."""

from typing import Annotated

from pydantic import BaseModel, Field

from hashsearch.models.card import PRETRAINED_MODELS
from service.schemas.common import MAX_TEXT, After, KindName, Limit, MethodName, Next, Strict
from service.schemas.search import PartAnswer

MOST_LABELS = 1000


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


class ReplicaAnswer(BaseModel):
    """A copy of a part."""

    node: str = Field(description="the node that holds it: the first digits of its id in Ray")
    codes_from: str | None = Field(
        description="folder if the node read the codes from the gallery's folder, service if they "
        "were sent to it; null while they are being loaded",
        json_schema_extra={"enum": ["folder", "service", None]},
    )
    up: bool = Field(description="whether it is searched")


class PlacedPartAnswer(PartAnswer):
    """A part, and where it is."""

    images: int = Field(description="number of its images, also of those that were removed since")
    replicas: list[ReplicaAnswer] = Field(description="its copies")


class LabelAnswer(BaseModel):
    """A label and its images."""

    label: str
    images: int = Field(description="number of images with this label")


class GalleryAnswer(BaseModel):
    """The gallery that is searched."""

    images: int
    generation: int = Field(description="increases with every change to the images")
    fingerprint: str = Field(description="fingerprint of the model that made the codes")
    model: str | None = Field(
        description=f"name of that model, {' or '.join(PRETRAINED_MODELS)}, if it comes with this "
        "version of the package; otherwise null"
    )
    methods: list[MethodName] = Field(description="methods that the gallery has data for")
    indexes: list[IndexAnswer] = Field(description="indexes that were built of its codes")
    closeness: ClosenessAnswer | None = Field(
        description="what distances mean; null if it was not measured of the model"
    )
    picture_bits: int | None = Field(
        description="how many of the first bits of a code encode the picture itself, while the "
        "others encode its meaning; null if the model does not divide them so"
    )
    parts: list[PlacedPartAnswer] | None = Field(
        description="where the codes are, but for images that were added since the base was read; "
        "null if the service holds them itself"
    )
    job: JobAnswer | None
    labels: list[LabelAnswer] = Field(
        description=f"the {MOST_LABELS} most frequent labels, the most frequent first"
    )
    n_labels: int = Field(description="number of all labels")
    thumbnails: bool = Field(description="whether the gallery keeps thumbnails")
    originals: bool = Field(description="whether the images' own files are served")
    writes: bool = Field(description="whether images can be added and removed, with a key")


class FoldersParameters(Strict):
    """The query string of a list of folders."""

    prefix: Annotated[
        str,
        Field(
            max_length=MAX_TEXT,
            description="uri of the folder whose folders are listed, with or without its "
            "percent-encoding; without it, the sources are listed",
            examples=["photos"],
        ),
    ] = ""
    limit: Limit = 100
    after: After = None


class FolderAnswer(BaseModel):
    """A folder, an archive, or a file of many images."""

    prefix: str = Field(description="its uri, for uri_prefix of a search and for prefix of a list")
    name: str = Field(description="its last part, for people")
    images: int = Field(description="number of images in it, at any depth")


class FoldersAnswer(BaseModel):
    """The folders directly in another, in order of uri."""

    prefix: str = Field(description="uri of the other")
    images: int = Field(description="number of images in it, at any depth")
    folders: list[FolderAnswer]
    next: Next
    generation: int


class FailuresParameters(Strict):
    """The query string of a list of failures."""

    limit: Limit = 100
    after: After = None


class FailureAnswer(BaseModel):
    """A file that could not be read when its source was indexed."""

    uri: str
    reason: str = Field(description="one sentence, or a part of one")
    time: str = Field(description="ISO 8601, in UTC")


class FailuresAnswer(BaseModel):
    """Files that could not be read, in order of uri."""

    failures: list[FailureAnswer]
    next: Next
    generation: int
