"""What is searched for, and what is found."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hashsearch.images import TINY_BYTES
from hashsearch.retrieval.kinds import DEFAULT_KIND
from hashsearch.search.parts import Part


@dataclass(frozen=True, slots=True)
class Query:
    """What is searched for.

    code: (32,) uint8. tiny: (32, 32, 3) uint8, or None for a query by code. image_id: for a
    query by id, the image's id, which is left out of the answer. views: the same picture
    transformed; an image's distance is the least of those from the query and its views. address:
    (4,) uint8; None for a query by code, and where the model gives no addresses.
    """

    code: NDArray[np.uint8]
    tiny: NDArray[np.uint8] | None = None
    image_id: int | None = None
    views: "tuple[Query, ...]" = ()
    address: NDArray[np.uint8] | None = None

    def values(self, column: str) -> NDArray[np.uint8] | None:
        """The query's values of a gallery's column, (width,) uint8; None if it has none."""
        if column == "codes":
            return self.code
        if column == "addresses":
            return self.address
        assert column == "pixels", column
        return None if self.tiny is None else self.tiny.reshape(TINY_BYTES)


def queries_of(tiny: NDArray[np.uint8], columns: Mapping[str, NDArray[np.uint8]]) -> list[Query]:
    """A query for each of (n, 32, 32, 3) uint8 tiny images. columns: the encoder's, of them."""
    addresses = columns.get("addresses", [None] * len(tiny))
    return [
        Query(code, image, address=address)
        for code, image, address in zip(columns["codes"], tiny, addresses, strict=True)
    ]


@dataclass(frozen=True, slots=True)
class Hit:
    """An image that was found.

    distance: in bits with the method "codes", otherwise squared. label: None if the image
    has none. path: of the image's file; None over HTTP. uri: the name of its source and the path
    within it, percent-encoded. closeness: what the distance means, "same", "near", "alike" or
    "far"; None with methods other than "codes", and if it was not measured of the gallery's model.
    missing: whether the file is gone, and no other file with the same bytes is known.

    >>> gallery.search(7, k=1)[0].id != 7
    True
    """

    id: int
    distance: int
    label: str | None
    path: str | None
    uri: str
    closeness: str | None = None
    missing: bool = False


@dataclass(frozen=True, slots=True)
class Ranking:
    """The hits of one method, nearest first, equal distances in order of id.

    index: the kind of index that answered. truncated: whether `cap` cut off images within the
    radius. latency_ms: time of the search. missing: the parts of a gallery on a cluster that could
    not be searched, whose images may belong among the hits; empty otherwise.

    >>> len(gallery.rank(7, k=3).hits)
    3
    """

    method: str
    hits: list[Hit]
    truncated: bool
    latency_ms: float
    index: str = DEFAULT_KIND
    missing: tuple[Part, ...] = ()

    @property
    def ids(self) -> NDArray[np.int64]:
        """(n_hits,) int64 ids."""
        return np.array([hit.id for hit in self.hits], np.int64)

    @property
    def distances(self) -> NDArray[np.int32]:
        """(n_hits,) int64 distances."""
        return np.array([hit.distance for hit in self.hits], np.int64)
