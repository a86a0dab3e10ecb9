"""The engine: holds model, gallery and indexes in memory, and answers requests."""

import logging
import sqlite3
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from threading import BoundedSemaphore, Lock
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from hashsearch.codes import code_from_hex, code_to_hex
from hashsearch.crop import WHOLE, Crop
from hashsearch.errors import HashSearchError, InvalidGallery, InvalidQuery
from hashsearch.gallery.built import usable_indexes
from hashsearch.gallery.gallery_folder import GalleryFolder
from hashsearch.gallery.history import last_job
from hashsearch.hardware import usable_cores
from hashsearch.images import decode, encode_png
from hashsearch.metrics import overlap_at_k
from hashsearch.retrieval.filters import Filter
from hashsearch.retrieval.kinds import DEFAULT_KIND, KINDS
from hashsearch.retrieval.live_searcher import LiveSearcher
from hashsearch.retrieval.methods import SERVED
from hashsearch.retrieval.ranking import Query, Ranking
from hashsearch.retrieval.searcher import Searcher
from service.problems import GalleryUnavailable
from service.schemas import (
    MAX_K,
    AskedQuery,
    ChoiceParameters,
    ClosenessAnswer,
    CompareAnswer,
    CompareParameters,
    GalleryAnswer,
    HitAnswer,
    IndexAnswer,
    JobAnswer,
    MethodAnswer,
    Overlap,
    SearchAnswer,
    SearchParameters,
)

T = TypeVar("T")
TinyImage = NDArray[np.uint8]

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class _Question:
    """What a request asks of a searcher."""

    query: Query | None
    like: Sequence[Query]
    unlike: Sequence[Query]
    chosen_by: Filter

    @property
    def code(self) -> str | None:
        """The query's own code, hexadecimal; None if it has examples alone."""
        return None if self.query is None else code_to_hex(self.query.code)


@dataclass(frozen=True, slots=True)
class _Decoded:
    """The images of a request, decoded before a searcher is asked: (32, 32, 3) uint8 each."""

    query: TinyImage | None
    like: Sequence[int | str | TinyImage]
    unlike: Sequence[int | str | TinyImage]


class Engine:
    """An opened gallery. Its methods may be called from many threads at once.

    Every request is answered from the gallery as it is when the request begins; only if all has to
    be read again, requests are answered from the former state meanwhile. If another gallery is at
    the path, it is opened, and a request that was at work begins again with it.
    """

    def __init__(self, folder: Path):
        """Open a gallery. Raises what `GalleryFolder` and `read_model` raise."""
        self._live = LiveSearcher(GalleryFolder(folder), waits=False)
        self._opening = Lock()
        # A large picture takes some hundred megabytes while it is decoded.
        self._decoding = BoundedSemaphore(usable_cores())

    def __len__(self) -> int:
        return self._ask(len)

    @property
    def compared_methods(self) -> tuple[str, ...]:
        """Names of the methods that a comparison shows, if the gallery has the data for them."""
        return self._ask(lambda searcher: searcher.compared_methods)

    def close(self) -> None:
        self._live.gallery.close()

    def search(self, asked: AskedQuery, parameters: SearchParameters) -> SearchAnswer:
        """One method's answer to a query. Raises what decoding and searching raise."""

        decoded = self._decoded(asked, parameters)

        def search(searcher: Searcher) -> SearchAnswer:
            question = _question(searcher, asked, parameters, decoded)
            ranking = searcher.search(
                question.query,
                parameters.method,
                index=parameters.index,
                k=parameters.k,
                radius=parameters.radius,
                cap=MAX_K,
                like=question.like,
                unlike=question.unlike,
                chosen_by=question.chosen_by,
            )
            return SearchAnswer(code=question.code, **dict(_answer(ranking)))

        return self._ask(search, parameters.index)

    def compare(self, asked: AskedQuery, parameters: CompareParameters) -> CompareAnswer:
        """Every method's answer to one query. Raises as `search` does."""

        decoded = self._decoded(asked, parameters)

        def compare(searcher: Searcher) -> CompareAnswer:
            question = _question(searcher, asked, parameters, decoded)
            rankings = [
                searcher.search(
                    question.query,
                    method,
                    k=parameters.k,
                    like=question.like,
                    unlike=question.unlike,
                    chosen_by=question.chosen_by,
                )
                for method in searcher.compared_methods
            ]
            return CompareAnswer(
                code=question.code,
                k=parameters.k,
                methods=[_answer(ranking) for ranking in rankings],
                overlap_at_k=_overlaps(rankings, parameters.k),
            )

        return self._ask(compare)

    def describe(self) -> GalleryAnswer:
        """The gallery as it is searched now, and the newest job that wrote to it."""
        return self._ask(_description)

    def picture(self, image_id: int) -> tuple[bytes, str] | None:
        """An image's thumbnail, or its tiny image if it has none, and the media type.

        None if the gallery keeps neither. Raises NotInGallery.
        """
        return self._ask(lambda searcher: _picture(searcher.gallery, image_id))

    def sample_ids(self, count: int) -> list[int]:
        """Random ids of the gallery; they stay the same until it changes."""
        return self._ask(lambda searcher: _sample(searcher, count))

    def _ask(self, question: Callable[[Searcher], T], index: str | None = None) -> T:
        """Ask the gallery that is at the path; ask again if another one replaced it meanwhile.

        index: a kind of index that the answer needs.
        Raises GalleryUnavailable if there is none or it cannot be read, and what `question`
        raises.
        """
        while True:
            live = self._in_place()
            catalog = live.gallery.catalog
            try:
                with live.searcher(index) as searcher:
                    answer = question(searcher)
            except Exception as error:  # of any class, if files disappear while they are read
                if catalog.is_in_place():
                    if isinstance(error, InvalidGallery):
                        raise _unavailable(error) from error
                    raise
            else:
                if catalog.is_in_place():
                    return answer

    def _in_place(self) -> LiveSearcher:
        """The gallery that is at the path now. Raises GalleryUnavailable."""
        if not self._live.gallery.catalog.is_in_place():
            with self._opening:
                if not self._live.gallery.catalog.is_in_place():
                    try:
                        self._reopen()
                    except (HashSearchError, OSError, sqlite3.Error) as error:
                        raise _unavailable(error) from error
        return self._live

    def _reopen(self) -> None:
        gallery = self._live.gallery.reopened()
        try:
            self._live = LiveSearcher(gallery, self._live.current, waits=False)
        except BaseException:
            gallery.close()
            raise

    def _decoded(self, asked: AskedQuery, parameters: ChoiceParameters) -> _Decoded:
        """What was asked, with the tiny images of the images that were sent."""
        crop = WHOLE if parameters.crop is None else Crop.of(parameters.crop)
        if asked.image is None and crop != WHOLE:
            raise InvalidQuery("a crop is of an image file that is sent, and none came")

        def tiny(image: bytes, crop: Crop = WHOLE) -> TinyImage:
            with self._decoding:
                return decode(image, crop=crop).tiny

        return _Decoded(
            None if asked.image is None else tiny(asked.image, crop),
            [tiny(one) if isinstance(one, bytes) else one for one in asked.like],
            [tiny(one) if isinstance(one, bytes) else one for one in asked.unlike],
        )


def _question(
    searcher: Searcher, asked: AskedQuery, parameters: ChoiceParameters, decoded: _Decoded
) -> _Question:
    body = asked.body
    query = None
    if decoded.query is not None:
        query = searcher.query_by_tiny(decoded.query)
    elif body.id is not None:
        query = searcher.query_by_id(body.id)
    elif body.code is not None:
        query = searcher.query_by_code(code_from_hex(body.code))
    if parameters.transforms:
        if query is None:
            raise InvalidQuery("transforms need a query, and none came")
        query = searcher.with_views(query)
    return _Question(
        query,
        [_example(searcher, one) for one in decoded.like],
        [_example(searcher, one) for one in decoded.unlike],
        Filter(
            parameters.label,
            None if parameters.uri_prefix is None else (parameters.uri_prefix,),
            None if body.ids is None else tuple(body.ids),
            tuple(body.exclude or ()),
        ),
    )


def _example(searcher: Searcher, example: int | str | TinyImage) -> Query:
    if isinstance(example, int):
        return searcher.query_by_id(example)
    if isinstance(example, str):
        return searcher.query_by_code(code_from_hex(example))
    return searcher.query_by_tiny(example)


def _unavailable(error: Exception) -> GalleryUnavailable:
    _log.warning("the gallery cannot be served: %s", error)  # paths are for the log alone
    return GalleryUnavailable("the gallery is gone or cannot be read; the service's log says why")


def _description(searcher: Searcher) -> GalleryAnswer:
    closeness = searcher.closeness
    job = last_job(searcher.gallery.catalog)
    return GalleryAnswer(
        images=len(searcher),
        generation=searcher.generation,
        fingerprint=searcher.fingerprint,
        methods=list(searcher.methods),
        indexes=[
            IndexAnswer(
                kind=built.kind,
                title=KINDS[built.kind].title,
                parameters=built.parameters,
                recall=built.recall,
                query_ms=built.query_ms,
                exact_ms=built.exact_ms,
                image_bytes=built.image_bytes,
                images=built.images,
                time=built.time,
                loaded=built.kind == DEFAULT_KIND or searcher.state.built.get(built.kind) == built,
            )
            for built in usable_indexes(searcher.gallery.catalog)
            if built.kind in KINDS
        ],
        closeness=ClosenessAnswer(**closeness.as_dict()) if closeness else None,
        job=None if job is None else JobAnswer(**job.as_dict()),
    )


def _picture(gallery: GalleryFolder, image_id: int) -> tuple[bytes, str] | None:
    thumbnail = gallery.thumbnail(image_id)
    if thumbnail is not None:
        return thumbnail, "image/jpeg"
    tiny = gallery.pixels(image_id)
    return None if tiny is None else (encode_png(tiny), "image/png")


def _sample(searcher: Searcher, count: int) -> list[int]:
    random = np.random.default_rng(searcher.generation)
    chosen: list[int] = random.choice(
        searcher.ids, min(count, len(searcher.ids)), replace=False
    ).tolist()
    return chosen


def _overlaps(rankings: Sequence[Ranking], k: int) -> list[Overlap]:
    """How much each two methods agree."""
    return [
        Overlap(
            methods=(first.method, second.method),
            share=overlap_at_k(first.ids, second.ids, k),
        )
        for first, second in combinations(rankings, 2)
    ]


def _answer(ranking: Ranking) -> MethodAnswer:
    method = SERVED[ranking.method]
    return MethodAnswer(
        method=ranking.method,
        index=ranking.index,
        title=method.title,
        unit=method.unit,
        image_bytes=method.image_bytes,
        latency_ms=round(ranking.latency_ms, 3),
        truncated=ranking.truncated,
        hits=[
            HitAnswer(
                id=hit.id,
                distance=hit.distance,
                closeness=hit.closeness,
                label=hit.label,
                uri=hit.uri,
                missing=hit.missing,
                thumbnail=f"/v1/images/{hit.id}/thumbnail",
            )
            for hit in ranking.hits
        ],
    )
