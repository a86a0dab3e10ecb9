"""From what a searcher finds to what goes over the wire."""

from collections.abc import Sequence
from itertools import combinations
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hashsearch.codes import code_to_hex
from hashsearch.metrics import overlap_at_k
from hashsearch.retrieval.methods import SERVED
from hashsearch.retrieval.ranking import Query, Ranking
from hashsearch.retrieval.searcher import DEFAULT_K, Searcher
from hashsearch.search.parts import Part
from service.context import Context
from service.parsing import AskedQuery
from service.schemas.search import (
    AskedComparison,
    AskedSearch,
    ChoiceParameters,
    CompareAnswer,
    CompareParameters,
    HitAnswer,
    MethodAnswer,
    Overlap,
    PartAnswer,
    SearchAnswer,
    SearchParameters,
)


def search_answer(
    searcher: Searcher,
    asked: AskedQuery,
    parameters: SearchParameters,
    query: Query | None,
    ranking: Ranking,
    counts: NDArray[np.int64] | None,
    context: Context,
) -> SearchAnswer:
    """counts: (257,) int64, the histogram of distances, if it was asked for."""
    return SearchAnswer(
        asked=AskedSearch(
            **_asked(asked, parameters),
            k=DEFAULT_K if parameters.k is None and parameters.radius is None else parameters.k,
            offset=parameters.offset,
            radius=parameters.radius,
            method=parameters.method,
            index=parameters.index,
            histogram=parameters.histogram,
        ),
        code=_code(query),
        generation=searcher.generation,
        fingerprint=searcher.fingerprint,
        histogram=None if counts is None else counts.tolist(),
        **dict(_answer(ranking, context, _codes_of(searcher, ranking, parameters))),
    )


def compare_answer(
    searcher: Searcher,
    asked: AskedQuery,
    parameters: CompareParameters,
    query: Query | None,
    rankings: Sequence[Ranking],
    context: Context,
) -> CompareAnswer:
    return CompareAnswer(
        asked=AskedComparison(
            **_asked(asked, parameters),
            k=parameters.k,
            methods=[ranking.method for ranking in rankings],
        ),
        code=_code(query),
        k=parameters.k,
        generation=searcher.generation,
        fingerprint=searcher.fingerprint,
        partial=any(ranking.missing for ranking in rankings),
        methods=[
            _answer(ranking, context, _codes_of(searcher, ranking, parameters))
            for ranking in rankings
        ],
        overlap_at_k=[
            Overlap(
                methods=(first.method, second.method),
                share=overlap_at_k(first.ids, second.ids, parameters.k),
            )
            for first, second in combinations(rankings, 2)
        ],
    )


def part_answer(part: Part) -> PartAnswer:
    return PartAnswer(part=part.number, of=part.of, first_id=part.first_id, last_id=part.last_id)


def _code(query: Query | None) -> str | None:
    """The query's own code, hexadecimal; None if it has examples alone."""
    return None if query is None else code_to_hex(query.code)


def _asked(asked: AskedQuery, parameters: ChoiceParameters) -> dict[str, Any]:
    """What the answers of searches and of comparisons echo."""
    body = asked.body
    kinds = {"image": asked.image, "id": body.id, "code": body.code}
    return {
        "kind": next((kind for kind, value in kinds.items() if value is not None), None),
        "id": body.id,
        "like": len(asked.like),
        "unlike": len(asked.unlike),
        "ids": None if body.ids is None else len(body.ids),
        "exclude": len(body.exclude or ()),
        "label": parameters.label,
        "uri_prefix": parameters.uri_prefix,
        "crop": parameters.crop,
        "transforms": parameters.transforms,
        "codes": parameters.codes,
    }


def _codes_of(
    searcher: Searcher, ranking: Ranking, parameters: ChoiceParameters
) -> Sequence[str | None]:
    """The code of each hit, hexadecimal, if codes were asked for."""
    if not parameters.codes:
        return [None] * len(ranking.hits)
    return [code_to_hex(code) for code in searcher.codes(ranking.ids)]


def _answer(ranking: Ranking, context: Context, codes: Sequence[str | None]) -> MethodAnswer:
    """codes: of the hits, in their order."""
    method = SERVED[ranking.method]
    return MethodAnswer(
        method=ranking.method,
        index=ranking.index,
        title=method.title,
        unit=method.unit,
        image_bytes=method.image_bytes,
        latency_ms=round(ranking.latency_ms, 3),
        truncated=ranking.truncated,
        partial=bool(ranking.missing),
        missing_parts=[part_answer(part) for part in ranking.missing],
        hits=[
            HitAnswer(
                id=hit.id,
                distance=hit.distance,
                closeness=hit.closeness,
                label=hit.label,
                uri=hit.uri,
                missing=hit.missing,
                thumbnail=context.thumbnail(hit.id),
                code=code,
            )
            for hit, code in zip(ranking.hits, codes, strict=True)
        ],
    )
