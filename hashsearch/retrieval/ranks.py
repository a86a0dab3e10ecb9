"""Two ways to rank: by the distances to a query and its views, or by sums over examples."""

from collections.abc import Callable, Collection, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hashsearch.errors import InvalidQuery
from hashsearch.retrieval.kinds import DEFAULT_KIND, KINDS
from hashsearch.retrieval.methods import SERVED
from hashsearch.retrieval.ranking import Query
from hashsearch.retrieval.transforms import by_least_distance
from hashsearch.search import CombinedIndex, Index
from hashsearch.search.live import Live
from hashsearch.search.subset import Subset

Found = tuple[NDArray[np.int64], NDArray[np.integer[Any]]]  # ids or positions, and distances
Rank = Callable[[Live, Sequence[Subset | None]], Found]


def require_sum(query: Query | None, radius: int | None, index: str | None) -> None:
    """Raise InvalidQuery if a search by examples has an index, a radius or a query's views."""
    if index not in (None, DEFAULT_KIND):
        name, at_fault = f"the index {index}", "index"
    elif radius is not None:
        name, at_fault = "a radius", "radius"
    elif query is not None and query.views:
        name, at_fault = "transforms", "transforms"
    else:
        return
    raise InvalidQuery(f"examples are ranked by a sum of distances, without {name}", at_fault)


def rank_by_query(
    query: Query,
    method: str,
    kind: str,
    k: int | None,
    radius: int | None,
    methods: Collection[str],
) -> Rank:
    """Rank by the least distance to a query and its views.

    methods: those that the gallery has the data for. Raises InvalidQuery if the method is none of
    them, or if the query lacks what the method or the kind of index compares.
    """
    every = [
        (_values(one, method, methods), _values_by_kind(one, kind)) for one in (query, *query.views)
    ]

    def rank(live: Live, subsets: Sequence[Subset | None]) -> Found:
        found = [_nearest(live, method, kind, one, k, radius, subsets) for one in every]
        if len(found) == 1:
            return found[0]
        ids, distances = (np.concatenate(parts) for parts in zip(*found, strict=True))
        return by_least_distance(ids, distances)

    return rank


def rank_by_examples(
    like: Sequence[Query],
    unlike: Sequence[Query],
    method: str,
    k: int,
    methods: Collection[str],
) -> Rank:
    """Rank by the sum of the distances to each of `like`, minus those to each of `unlike`.

    methods: as of `rank_by_query`, which raises the same.
    """
    examples = [*like, *unlike]
    values = np.stack([_values(one, method, methods) for one in examples])
    weights = np.array([1] * len(like) + [-1] * len(unlike), np.int32)

    def ask(index: Index, subset: Subset | None, is_kind: bool) -> Found:
        assert isinstance(index, CombinedIndex)
        wanted = min(k + len(examples), len(index))  # the examples may be among them
        return index.search_combined(values, weights, wanted, subset)

    return lambda live, subsets: live.search(ask, method, subsets)


def _values(query: Query, method: str, methods: Collection[str]) -> NDArray[np.uint8]:
    """The query's values of the column that a method searches: (width,) uint8."""
    if method not in SERVED:
        raise InvalidQuery(f"there is no method {method!r}; there are {', '.join(SERVED)}")
    column = SERVED[method].column
    if method not in methods:
        raise InvalidQuery(
            f"the gallery keeps no {column}, which the method {method} needs", "method"
        )
    values = query.values(column)
    if values is None:
        raise InvalidQuery(
            f"a query by code has no {column}, which the method {method} needs", "method"
        )
    return values


def _values_by_kind(query: Query, kind: str) -> NDArray[np.uint8]:
    """The query's values as an index of codes takes them: (width,) uint8."""
    values = [query.values(column) for column in KINDS[kind].columns]
    if any(one is None for one in values):
        raise InvalidQuery(f"a query by code has no address, which the index {kind} needs", "index")
    return np.concatenate([one for one in values if one is not None])


def _nearest(
    live: Live,
    method: str,
    kind: str,
    each: tuple[NDArray[np.uint8], NDArray[np.uint8]],
    k: int | None,
    radius: int | None,
    subsets: Sequence[Subset | None],
) -> Found:
    """Ids and distances of one query's nearest; one more than k, since it may find itself.

    each: the query's values, as the method's own index takes them, and one of the kind.
    """

    def ask(index: Index, subset: Subset | None, is_kind: bool) -> Found:
        values = each[is_kind]
        if k is None:
            assert radius is not None
            return index.search_radius(values, radius, subset)
        wanted = min(k + 1, len(index))
        found = index.search(values[np.newaxis], wanted, subset)
        positions, distances = found[0][0], found[1][0]
        if radius is None:
            return positions, distances
        near = distances <= radius
        return positions[near], distances[near]

    return live.search(ask, method, subsets, kind)
