"""From what a client asks to what a searcher is asked."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from urllib.parse import quote

import numpy as np
from numpy.typing import NDArray

from hashsearch.codes import code_from_hex, code_to_hex
from hashsearch.crop import WHOLE, Crop
from hashsearch.errors import InvalidQuery
from hashsearch.retrieval.filters import Filter
from hashsearch.retrieval.ranking import Query
from hashsearch.retrieval.searcher import Searcher
from hashsearch.retrieval.transforms import views
from service.schemas.search import AskedQuery, ChoiceParameters

TinyImage = NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class Decoded:
    """A query whose images are decoded. tiny: (n, 32, 32, 3) uint8, of all that are encoded: the
    query with its views, then the examples that are images.

    views: number of the first of them that stand for the query; 0 if it is no image. like, unlike:
    the examples, ids and codes; None for an image.
    """

    tiny: NDArray[np.uint8]
    views: int
    like: Sequence[int | str | None]
    unlike: Sequence[int | str | None]


@dataclass(frozen=True, slots=True)
class Question:
    """What a request asks of a searcher."""

    query: Query | None
    like: Sequence[Query]
    unlike: Sequence[Query]
    chosen_by: Filter

    @property
    def code(self) -> str | None:
        """The query's own code, hexadecimal; None if it has examples alone."""
        return None if self.query is None else code_to_hex(self.query.code)


def crop_of(asked: AskedQuery, parameters: ChoiceParameters) -> Crop:
    """The part of the query image that is searched for. Raises InvalidQuery."""
    crop = WHOLE if parameters.crop is None else Crop.of(parameters.crop)
    if asked.image is None and crop != WHOLE:
        raise InvalidQuery("a crop is of an image file that is sent, and none came")
    return crop


def decoded(
    asked: AskedQuery,
    query: TinyImage | None,
    examples: Sequence[TinyImage],
    *,
    transforms: bool,
) -> Decoded:
    """query, examples: (32, 32, 3) uint8 each, of the images of `asked`, in their order."""
    of_query: list[TinyImage] = []
    if query is not None:
        of_query = list(views(query)) if transforms else [query]
    like, unlike = (
        [None if isinstance(one, bytes) else one for one in every]
        for every in (asked.like, asked.unlike)
    )
    every = [*of_query, *examples]
    tiny = np.stack(every) if every else np.empty((0, 32, 32, 3), np.uint8)
    return Decoded(tiny, len(of_query), like, unlike)


def question_of(
    searcher: Searcher,
    asked: AskedQuery,
    parameters: ChoiceParameters,
    images: Decoded,
    encoded: Sequence[Query],
) -> Question:
    """encoded: a query for each of the images' tiny images.

    Raises NotInGallery, CodeShapeError and InvalidQuery.
    """
    body = asked.body
    query = None
    if images.views:
        query, *others = encoded[: images.views]
        query = replace(query, views=tuple(others))
    elif body.id is not None:
        query = searcher.query_by_id(body.id)
    elif body.code is not None:
        query = searcher.query_by_code(code_from_hex(body.code))
    if parameters.transforms and query is None:
        raise InvalidQuery("transforms need a query, and none came")
    if parameters.transforms and query is not None and not query.views:
        query = searcher.with_views(query)
    rest = iter(encoded[images.views :])
    like, unlike = (
        [next(rest) if one is None else _stored(searcher, one) for one in every]
        for every in (images.like, images.unlike)
    )
    return Question(query, like, unlike, filter_of(parameters, body.ids, body.exclude))


def filter_of(
    parameters: ChoiceParameters, ids: Sequence[int] | None, exclude: Sequence[int] | None
) -> Filter:
    """The images that may be found."""
    prefix = parameters.uri_prefix
    return Filter(
        parameters.label,
        None if prefix is None else uris_of(prefix),
        None if ids is None else tuple(ids),
        tuple(exclude or ()),
    )


def uris_of(prefix: str) -> tuple[str, ...]:
    """The beginnings of uris that a client may mean, who may or may not have encoded them.

    A query string is decoded once by the server, and hits' uris are encoded themselves.
    """
    return tuple({quote(prefix, safe="/!#~+%"), quote(prefix, safe="/!#~+")})


def _stored(searcher: Searcher, example: int | str) -> Query:
    if isinstance(example, int):
        return searcher.query_by_id(example)
    return searcher.query_by_code(code_from_hex(example))
