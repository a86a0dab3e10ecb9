"""From what a client asks to what a searcher is asked."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from urllib.parse import quote

import numpy as np
from numpy.typing import NDArray

from hashsearch.codes import code_from_hex
from hashsearch.crop import WHOLE, Crop
from hashsearch.errors import InvalidQuery
from hashsearch.retrieval.filters import Filter
from hashsearch.retrieval.ranking import Query
from hashsearch.retrieval.searcher import DEFAULT_K, Searcher
from hashsearch.retrieval.transforms import views
from service.context import Context
from service.parsing import AskedQuery
from service.problems import naming
from service.schemas.search import ChoiceParameters, QueryBody, SearchParameters

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


@dataclass(frozen=True, slots=True)
class PlainQuestion:
    """A search by code of the whole gallery for the nearest to one query, which is asked together
    with others.

    encoded: of a query by image, its query, and the fingerprint of the model that encoded it.
    """

    asked: AskedQuery
    parameters: SearchParameters
    context: Context
    encoded: tuple[str, Query] | None = None

    @property
    def k(self) -> int:
        return self.parameters.k or DEFAULT_K


def is_plain(asked: AskedQuery, parameters: SearchParameters) -> bool:
    """Whether a search is a plain question: one that keeps those beside it waiting for little."""
    if parameters.offset + (parameters.k or DEFAULT_K) > _MOST_PLAIN:
        return False
    whole = parameters.model_dump(include=_OF_OTHERS) == _DEFAULTS
    body = asked.body
    return whole and not (asked.like or asked.unlike or body.exclude) and body.ids is None


_MOST_PLAIN = 100  # hits, with those that are skipped; 1000 take fifteen times as long as ten
# Parameters that a plain question does not have; a crop is of its image.
_OF_OTHERS = set(SearchParameters.model_fields) - {"k", "offset", "crop"}
_DEFAULTS = SearchParameters().model_dump(include=_OF_OTHERS)


def plain_query(searcher: Searcher, question: PlainQuestion) -> Query:
    """The query of a plain question. Raises NotInGallery, CodeShapeError and InvalidQuery."""
    body = question.asked.body
    if question.encoded is not None:
        fingerprint, query = question.encoded
        if fingerprint == searcher.fingerprint:
            return query
        assert query.tiny is not None  # the gallery was moved to another model meanwhile
        return searcher.query_by_tiny(query.tiny)
    crop_of(question.asked, question.parameters)
    stored = _stored_query(searcher, body)
    assert stored is not None
    return stored


def crop_of(asked: AskedQuery, parameters: ChoiceParameters) -> Crop:
    """The part of the query image that is searched for. Raises InvalidQuery."""
    crop = WHOLE if parameters.crop is None else Crop.of(parameters.crop)
    if asked.image is None and crop != WHOLE:
        raise InvalidQuery("crop needs an image in the request", "crop")
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
    else:
        query = _stored_query(searcher, body)
    if parameters.transforms and query is None:
        raise InvalidQuery("transforms need a query, and none came", "transforms")
    if parameters.transforms and query is not None and not query.views:
        with naming("transforms"):
            query = searcher.with_views(query)
    rest = iter(encoded[images.views :])
    like, unlike = (
        [
            next(rest) if one is None else _stored(searcher, one, f"{name}.{number}")
            for number, one in enumerate(every)
        ]
        for name, every in (("like", images.like), ("unlike", images.unlike))
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

    A query string is decoded once by the server, and hits' uris are encoded themselves. Images that
    were added as bytes have uris that begin with a plus sign, which a query string decodes to a
    space unless it is encoded.
    """
    meant = {prefix, f"+{prefix[1:]}"} if prefix.startswith(" ") else {prefix}
    return tuple({quote(one, safe=safe) for one in meant for safe in ("/!#~+%", "/!#~+")})


def _stored_query(searcher: Searcher, body: QueryBody) -> Query | None:
    """The query by id or code of a body, if it has one."""
    if body.id is not None:
        return _stored(searcher, body.id, "id")
    return None if body.code is None else _stored(searcher, body.code, "code")


def _stored(searcher: Searcher, value: int | str, field: str) -> Query:
    """A query by an id or a code. field: its place in the body, for an error."""
    with naming(field):
        if isinstance(value, int):
            return searcher.query_by_id(value)
        return searcher.query_by_code(code_from_hex(value))
