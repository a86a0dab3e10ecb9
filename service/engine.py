"""Model, gallery and indexes in memory, and the answers they give."""

from pathlib import Path

import numpy as np

from hashsearch.codes import code_from_hex, code_to_hex
from hashsearch.gallery.folder import Gallery
from hashsearch.gallery.queries import (
    IMAGE_BYTES,
    METHODS,
    UNITS,
    Query,
    Ranking,
    Searcher,
)
from hashsearch.images import encode_png
from hashsearch.metrics import overlap_at_k
from service.problems import MalformedRequest
from service.schemas import (
    MAX_K,
    CompareAnswer,
    Hit,
    MethodAnswer,
    Overlap,
    QueryBody,
    SearchAnswer,
    SearchParameters,
)


class Engine:
    """An opened gallery. Its methods may be called from many threads at once."""

    def __init__(self, folder: Path):
        """Raises what `Gallery` and `load_model` raise if the folder is not whole."""
        self.gallery = Gallery(folder)
        self._searcher = Searcher(self.gallery)

    def __len__(self) -> int:
        return len(self._searcher.ids)

    def close(self) -> None:
        self.gallery.close()

    def search(self, asked: bytes | QueryBody, parameters: SearchParameters) -> SearchAnswer:
        """Raises what decoding and searching raise."""
        query = self._query(asked)
        ranking = self._searcher.search(
            query, parameters.method, k=parameters.k, radius=parameters.radius, cap=MAX_K
        )
        return SearchAnswer(code=code_to_hex(query.code), **dict(self._answer(ranking)))

    def compare(self, asked: bytes | QueryBody, k: int) -> CompareAnswer:
        """Every method's answer to one query. Raises as `search` does."""
        query = self._query(asked)
        rankings = [self._searcher.search(query, method, k=k) for method in METHODS]
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
            methods=[self._answer(ranking) for ranking in rankings],
            overlap_at_k=pairs,
        )

    def picture(self, image_id: int) -> tuple[bytes, str] | None:
        """An image's thumbnail, or its tiny image where it has none, and the media type.

        None if the gallery keeps neither. Raises NotInGallery.
        """
        thumbnail = self.gallery.thumbnail(image_id)
        if thumbnail is not None:
            return thumbnail, "image/jpeg"
        tiny = self.gallery.pixels(image_id)
        return None if tiny is None else (encode_png(tiny), "image/png")

    def sample_ids(self, count: int) -> list[int]:
        """Ids drawn evenly from the whole gallery, the same ones until it changes."""
        ids = self._searcher.ids
        random = np.random.default_rng(self._searcher.generation)
        chosen: list[int] = random.choice(ids, min(count, len(ids)), replace=False).tolist()
        return chosen

    def _query(self, asked: bytes | QueryBody) -> Query:
        if isinstance(asked, bytes):
            return self._searcher.query_by_image(asked)
        if asked.id is not None:
            return self._searcher.query_by_id(asked.id)
        if asked.code is not None:
            return self._searcher.query_by_code(code_from_hex(asked.code))
        raise MalformedRequest("an image, an id or a code was wanted")

    def _answer(self, ranking: Ranking) -> MethodAnswer:
        return MethodAnswer(
            method=ranking.method,
            unit=UNITS[ranking.method],
            image_bytes=IMAGE_BYTES[ranking.method],
            latency_ms=round(ranking.latency_ms, 3),
            truncated=ranking.truncated,
            hits=[
                Hit(
                    id=record.id,
                    distance=distance,
                    label=record.label,
                    uri=record.uri,
                    thumbnail=f"/v1/images/{record.id}/thumbnail",
                )
                for record, distance in self._searcher.hits(ranking)
            ],
        )
