"""The gallery on the wire."""

from pydantic import BaseModel, Field

from service.schemas.common import KindName, MethodName


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
