"""Answers to searches: what was asked is decoded, encoded and searched for."""

import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from hashsearch.errors import HashSearchError, InvalidQuery
from hashsearch.retrieval.methods import SERVED
from hashsearch.retrieval.ranking import Query, Ranking
from hashsearch.retrieval.searcher import Searcher
from hashsearch.search.parts import noting_missing
from service.answers import compare_answer, search_answer
from service.context import Context
from service.engine import Engine
from service.parsing import AskedQuery
from service.problems import naming
from service.questions import (
    Decoded,
    PlainQuestion,
    Question,
    crop_of,
    decoded,
    plain_query,
    question_of,
)
from service.schemas.common import MAX_K
from service.schemas.search import (
    ChoiceParameters,
    CompareAnswer,
    CompareParameters,
    SearchAnswer,
    SearchParameters,
)
from service.stages import Stages

T = TypeVar("T")


def search(
    engine: Engine, asked: AskedQuery, parameters: SearchParameters, context: Context
) -> SearchAnswer:
    """One method's answer to a query. Raises what decoding and searching raise."""

    def answer(searcher: Searcher, question: Question) -> SearchAnswer:
        ranking = _searched(
            context.stages,
            partial(
                searcher.search,
                question.query,
                parameters.method,
                index=parameters.index,
                k=parameters.k,
                radius=parameters.radius,
                cap=MAX_K,
                offset=parameters.offset,
                like=question.like,
                unlike=question.unlike,
                chosen_by=question.chosen_by,
            ),
        )
        counts = None
        if parameters.histogram:
            with context.stages.measure("search"), noting_missing() as missing:
                counts = _counted(searcher, question, parameters.method)
            ranking = replace(ranking, missing=tuple(sorted(missing.union(ranking.missing))))
        return search_answer(searcher, asked, parameters, question.query, ranking, counts, context)

    return _answered(engine, asked, parameters, context, answer, parameters.index)


def search_each(
    engine: Engine, questions: Sequence[PlainQuestion]
) -> list[SearchAnswer | Exception]:
    """Answer several plain questions by one scan; each as `search` does, or with its error."""

    def answer(searcher: Searcher) -> list[SearchAnswer | Exception]:
        answers: dict[int, SearchAnswer | Exception] = {}
        queries: dict[int, Query] = {}
        for number, one in enumerate(questions):
            try:
                queries[number] = plain_query(searcher, one)
            except HashSearchError as error:
                answers[number] = error
        started = time.perf_counter()
        rankings = searcher.search_each(
            [
                (query, questions[number].parameters.offset, questions[number].k)
                for number, query in queries.items()
            ]
        )
        seconds = time.perf_counter() - started
        for (number, query), ranking in zip(queries.items(), rankings, strict=True):
            one = questions[number]
            _add_times(one.context.stages, ranking, seconds)
            answers[number] = search_answer(
                searcher, one.asked, one.parameters, query, ranking, None, one.context
            )
        return [answers[number] for number in range(len(questions))]

    return engine.ask(answer)


def compare(
    engine: Engine, asked: AskedQuery, parameters: CompareParameters, context: Context
) -> CompareAnswer:
    """The answer of several methods to one query. Raises as `search` does."""

    def answer(searcher: Searcher, question: Question) -> CompareAnswer:
        by_default = [
            method for method in searcher.compared_methods if _has_values(question, method)
        ]
        find = partial(
            searcher.search,
            question.query,
            k=parameters.k,
            like=question.like,
            unlike=question.unlike,
            chosen_by=question.chosen_by,
        )
        rankings = [
            _searched(context.stages, partial(find, method))
            for method in parameters.method or by_default
        ]
        return compare_answer(searcher, asked, parameters, question.query, rankings, context)

    return _answered(engine, asked, parameters, context, answer)


def encoded_query(
    engine: Engine, asked: AskedQuery, parameters: ChoiceParameters, context: Context
) -> tuple[str, Query]:
    """A query by image, decoded and encoded, and the fingerprint of the model that did it."""
    assert asked.image is not None
    with naming(asked.field):
        tiny = engine.decode(asked.image, context, crop_of(asked, parameters))
    searcher = engine.now()
    return searcher.fingerprint, engine.encode(searcher, tiny[np.newaxis], context)[0]


def _answered(
    engine: Engine,
    asked: AskedQuery,
    parameters: ChoiceParameters,
    context: Context,
    answer: Callable[[Searcher, Question], T],
    index: str | None = None,
) -> T:
    """Decode and encode what was asked, and then ask the gallery.

    Images are encoded before the catalog's state is held: few states are held at a time.
    """
    images = _decoded(engine, asked, parameters, context)
    encoder_of = engine.now()
    encoded = engine.encode(encoder_of, images.tiny, context)

    def answer_encoded(searcher: Searcher) -> T:
        queries = encoded
        if searcher.fingerprint != encoder_of.fingerprint:  # the gallery has a new model meanwhile
            queries = engine.encode(searcher, images.tiny, context)
        return answer(searcher, question_of(searcher, asked, parameters, images, queries))

    return engine.ask(answer_encoded, index)


def _decoded(
    engine: Engine, asked: AskedQuery, parameters: ChoiceParameters, context: Context
) -> Decoded:
    crop = crop_of(asked, parameters)
    query = None
    if asked.image is not None:
        with naming(asked.field):
            query = engine.decode(asked.image, context, crop)
    examples = []
    for name, every in (("like", asked.like), ("unlike", asked.unlike)):
        for number, one in enumerate(every):
            if isinstance(one, bytes):
                with naming(f"{name}.{number}.image_base64"):
                    examples.append(engine.decode(one, context))
    return decoded(asked, query, examples, transforms=parameters.transforms)


def _has_values(question: Question, method: str) -> bool:
    """Whether the query and the examples have what a method compares; codes have no pixels."""
    every = (question.query, *question.like, *question.unlike)
    column = SERVED[method].column
    return all(one is None or one.values(column) is not None for one in every)


def _searched(stages: Stages, search: Callable[[], Ranking]) -> Ranking:
    started = time.perf_counter()
    ranking = search()
    _add_times(stages, ranking, time.perf_counter() - started)
    return ranking


def _add_times(stages: Stages, ranking: Ranking, seconds: float) -> None:
    """seconds: of the search and of what the catalog says of its hits, together."""
    stages.add("search", ranking.latency_ms / 1000)
    stages.add("catalog", seconds - ranking.latency_ms / 1000)


def _counted(searcher: Searcher, question: Question, method: str) -> NDArray[np.int64]:
    if question.like or question.unlike or question.query is None:
        raise InvalidQuery("histogram needs a query, and no examples", "histogram")
    return searcher.distance_counts(question.query, question.chosen_by, method)
