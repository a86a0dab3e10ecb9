"""The engine: holds model, gallery and indexes in memory, and answers requests."""

import logging
from pathlib import Path
from threading import BoundedSemaphore, Lock

import numpy as np

from hashsearch.codes import code_from_hex, code_to_hex
from hashsearch.errors import HashSearchError
from hashsearch.gallery.gallery_folder import GalleryFolder
from hashsearch.gallery.history import last_job
from hashsearch.hardware import usable_cores
from hashsearch.images import encode_png
from hashsearch.metrics import overlap_at_k
from hashsearch.retrieval.methods import SERVED
from hashsearch.retrieval.searcher import Query, Ranking, Searcher
from service.problems import MalformedRequest
from service.schemas import (
    MAX_K,
    ClosenessAnswer,
    CompareAnswer,
    GalleryAnswer,
    HitAnswer,
    JobAnswer,
    MethodAnswer,
    Overlap,
    QueryBody,
    SearchAnswer,
    SearchParameters,
)

_log = logging.getLogger(__name__)


class Engine:
    """An opened gallery. Its methods may be called from many threads at once.

    The first request after a change of the gallery rebuilds the indexes; other
    requests are answered from the old ones until the new ones are complete.
    """

    def __init__(self, folder: Path):
        """Open a gallery. Raises what `GalleryFolder` and `read_model` raise."""
        self.gallery = GalleryFolder(folder)
        self._current = Searcher.with_model(self.gallery)
        self._tried = self._current.generation  # newest generation that was read or failed to be
        self._rebuilding = Lock()
        # A large picture takes some hundred megabytes while it is decoded.
        self._decoding = BoundedSemaphore(usable_cores())

    def __len__(self) -> int:
        return len(self._searcher.ids)

    @property
    def methods(self) -> tuple[str, ...]:
        """Names of the methods that the gallery has the data for."""
        return self._searcher.methods

    @property
    def _searcher(self) -> Searcher:
        generation = self.gallery.catalog.generation()
        if generation != self._tried and self._rebuilding.acquire(blocking=False):
            try:
                self._tried = generation
                self._current = Searcher.with_model(self.gallery, self._current.encoder)
            except HashSearchError:  # the former state can still be searched
                _log.exception("the gallery changed but cannot be read; its former state is served")
            finally:
                self._rebuilding.release()
        return self._current

    def close(self) -> None:
        self.gallery.close()

    def search(self, body: bytes | QueryBody, parameters: SearchParameters) -> SearchAnswer:
        """One method's answer to a query. Raises what decoding and searching raise."""
        searcher = self._searcher
        query = self._query(searcher, body)
        ranking = searcher.search(
            query, parameters.method, k=parameters.k, radius=parameters.radius, cap=MAX_K
        )
        return SearchAnswer(code=code_to_hex(query.code), **dict(_answer(ranking)))

    def compare(self, body: bytes | QueryBody, k: int) -> CompareAnswer:
        """Every method's answer to one query. Raises as `search` does."""
        searcher = self._searcher
        query = self._query(searcher, body)
        rankings = [searcher.search(query, method, k=k) for method in searcher.methods]
        pairs = [
            Overlap(
                methods=(first.method, second.method),
                share=overlap_at_k(first.ids, second.ids, k),
            )
            for number, first in enumerate(rankings)
            for second in rankings[number + 1 :]
        ]
        return CompareAnswer(
            code=code_to_hex(query.code),
            k=k,
            methods=[_answer(ranking) for ranking in rankings],
            overlap_at_k=pairs,
        )

    def describe(self) -> GalleryAnswer:
        """The gallery as it is searched now, and the newest job that wrote to it."""
        searcher = self._searcher
        closeness = searcher.closeness
        job = last_job(self.gallery.catalog)
        return GalleryAnswer(
            images=len(searcher.ids),
            generation=searcher.generation,
            fingerprint=searcher.fingerprint,
            methods=list(searcher.methods),
            closeness=ClosenessAnswer(**closeness.as_dict()) if closeness else None,
            job=None if job is None else JobAnswer(**job.as_dict()),
        )

    def picture(self, image_id: int) -> tuple[bytes, str] | None:
        """An image's thumbnail, or its tiny image if it has none, and the media type.

        None if the gallery keeps neither. Raises NotInGallery.
        """
        thumbnail = self.gallery.thumbnail(image_id)
        if thumbnail is not None:
            return thumbnail, "image/jpeg"
        tiny = self.gallery.pixels(image_id)
        return None if tiny is None else (encode_png(tiny), "image/png")

    def sample_ids(self, count: int) -> list[int]:
        """Random ids of the gallery; they stay the same until it changes."""
        searcher = self._searcher
        random = np.random.default_rng(searcher.generation)
        chosen: list[int] = random.choice(
            searcher.ids, min(count, len(searcher.ids)), replace=False
        ).tolist()
        return chosen

    def _query(self, searcher: Searcher, body: bytes | QueryBody) -> Query:
        if isinstance(body, bytes):
            with self._decoding:
                return searcher.query_by_image(body)
        if body.id is not None:
            return searcher.query_by_id(body.id)
        if body.code is not None:
            return searcher.query_by_code(code_from_hex(body.code))
        raise MalformedRequest("an image, an id or a code was wanted")


def _answer(ranking: Ranking) -> MethodAnswer:
    method = SERVED[ranking.method]
    return MethodAnswer(
        method=ranking.method,
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
