"""Searches in a gallery: an image, an id or a code in, ranked hits out."""

import time
from collections.abc import Sequence
from dataclasses import replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from hashsearch.closeness import Closeness
from hashsearch.codes import CODE_BYTES, require_code_bytes
from hashsearch.crop import WHOLE, Crop
from hashsearch.errors import InvalidQuery, NotInGallery
from hashsearch.gallery.gallery_folder import GalleryFolder
from hashsearch.gallery.places import present
from hashsearch.gallery.records import ImageRecord
from hashsearch.images import PREPROCESSING, decode
from hashsearch.models.card import of_other_rules
from hashsearch.retrieval.filters import Filter, FilteredRows
from hashsearch.retrieval.kinds import DEFAULT_KIND, KINDS
from hashsearch.retrieval.methods import DEFAULT_METHOD, SERVED
from hashsearch.retrieval.ranking import Hit, Query, Ranking, queries_of
from hashsearch.retrieval.ranks import Rank, rank_by_examples, rank_by_query, require_sum
from hashsearch.retrieval.state import State, read_state
from hashsearch.retrieval.transforms import views
from hashsearch.search.live import Live
from hashsearch.search.parts import noting_missing
from hashsearch.search.subset import Subset

if TYPE_CHECKING:
    from hashsearch.encoder import Encoder

DEFAULT_K = 10


class Searcher:
    """A gallery's model and indexes in memory, in one state of the gallery."""

    def __init__(
        self,
        gallery: GalleryFolder,
        state: State | None = None,
        known: "Searcher | None" = None,
    ):
        """state: None means to read the gallery as it is now. known: a searcher of the same
        gallery, or of one that it replaced, whose model is kept if it is this state's.

        Raises InvalidGallery or InvalidModel if the gallery is damaged.
        """
        self.gallery = gallery
        self.state = state = state or read_state(gallery)
        self.generation, self.fingerprint = state.generation, state.fingerprint
        self.closeness: Closeness | None = state.closeness
        self._precision = gallery.precision
        self._filtered = FilteredRows()
        if known is not None:
            if known.state.live.base.ids is state.live.base.ids:
                self._filtered = known._filtered
            model = (known.fingerprint, known._precision)
            loaded: Encoder | None = known.__dict__.get("encoder")
            if loaded is not None and model == (self.fingerprint, self._precision):
                self.encoder = loaded

    def at(self, state: State) -> "Searcher":
        """A searcher of another state of the same gallery."""
        return Searcher(self.gallery, state, self)

    def __len__(self) -> int:
        """Number of images."""
        return len(self.state.live)

    @property
    def ids(self) -> NDArray[np.int64]:
        """The ids of all images, (n,) int64, ascending."""
        return self.state.live.ids()

    def ids_after(self, after: int, most: int, chosen_by: Filter) -> list[int]:
        """The first ids above `after` of the images that a filter chooses, at most `most`, sorted.

        The time does not depend on where `after` is. A label or a uri prefix that is asked for the
        first time is looked up in the catalog, and followed from then on, as in a search.
        """
        live = self.state.live
        subsets = self._filtered.subsets(chosen_by, live, self.generation, self.gallery.catalog)
        found = [
            segment.ids_after(after, most, subset)
            for segment, subset in zip(live.segments, subsets, strict=True)
        ]
        ids: list[int] = np.sort(np.concatenate(found))[:most].tolist()
        return ids

    @cached_property
    def encoder(self) -> "Encoder":
        """The gallery's model, loaded for the first query by image.

        Raises what `read_model` raises, also if the gallery was moved to another model since.
        """
        from hashsearch.encoder import Encoder  # with torch, which takes seconds

        folder = self.gallery.model_folder_of(self.fingerprint)
        return Encoder.load(folder, precision=self._precision)

    @property
    def methods(self) -> tuple[str, ...]:
        """Names of the methods that the gallery has the data for."""
        return tuple(self.state.live.base.indexes)

    @property
    def compared_methods(self) -> tuple[str, ...]:
        """Names of these methods that a comparison shows."""
        return tuple(name for name in self.methods if SERVED[name].compared)

    def query_by_image(self, data: bytes, crop: Crop = WHOLE) -> Query:
        """data: an image file's bytes. crop: the part of the image that is searched for.

        Raises InvalidImage, InvalidQuery if the crop holds no pixel, and as `query_by_tiny` does.
        """
        self.require_todays_rules()
        return self.query_by_tiny(decode(data, crop=crop).tiny)

    def query_by_tiny(self, tiny: NDArray[np.uint8]) -> Query:
        """tiny: (32, 32, 3) uint8, of a picture that was decoded by today's image rules.

        Raises InvalidQuery if the gallery was made by earlier ones.
        """
        self.require_todays_rules()
        return queries_of(tiny[np.newaxis], self.encoder.columns(tiny[np.newaxis]))[0]

    def require_todays_rules(self) -> None:
        """Raise InvalidQuery if the gallery's pictures were decoded by earlier image rules."""
        if self.encoder.preprocessing != PREPROCESSING:
            raise InvalidQuery(
                f"the gallery {of_other_rules(self.encoder.preprocessing)}; search by id or code, "
                "or index its pictures again into a new gallery"
            )

    def query_by_id(self, image_id: int) -> Query:
        """Raises NotInGallery, also for an image that was added after this state."""
        found = self.state.live.find(image_id)
        if found is None:
            raise NotInGallery("the gallery holds no image with this id")
        segment, position = found
        tiny = address = None
        if "pixels" in segment.columns:
            tiny = segment.value("pixels", position).reshape(32, 32, 3)
        if "addresses" in segment.columns:
            address = segment.value("addresses", position)
        return Query(segment.value("codes", position), tiny, image_id, address=address)

    def query_by_code(self, code: NDArray[np.uint8]) -> Query:
        """Raises CodeShapeError unless the code is (32,) uint8."""
        require_code_bytes(code[np.newaxis], CODE_BYTES)
        return Query(code)

    def codes(self, ids: NDArray[np.int64]) -> NDArray[np.uint8]:
        """The codes of images that were found in this state, (n, 32) uint8, in their order."""
        return self.state.live.codes(ids)

    def with_views(self, query: Query) -> Query:
        """The query with transforms of its picture, each of which is searched for.

        Raises InvalidQuery if it has no picture.
        """
        if query.tiny is None:
            raise InvalidQuery(
                "transforms need a picture; a query by code has none, and a query by id has one "
                "only if the gallery keeps pixels"
            )
        others = views(query.tiny)[1:]
        return replace(query, views=tuple(queries_of(others, self.encoder.columns(others))))

    def search(
        self,
        query: Query | None,
        method: str = DEFAULT_METHOD,
        *,
        index: str | None = None,
        k: int | None = None,
        radius: int | None = None,
        cap: int | None = None,
        offset: int = 0,
        like: Sequence[Query] = (),
        unlike: Sequence[Query] = (),
        chosen_by: Filter | None = None,
    ) -> Ranking:
        """Rank the gallery's images for a query, or by several examples.

        k and radius: at most k images within the inclusive radius, which is in the method's
        unit; radius alone: all within it, but at most `cap`; neither: the nearest ten.
        offset: how many of the nearest are skipped.

        index: the kind of index that answers, of those built of the gallery. None means exact
        search, by the index that is fastest for it. Images that were added after the base was read
        are searched exactly, and so are the images that `chosen_by` leaves, if the index is an
        approximate one; the ranking says which kind answered.

        like, unlike: examples. With them, images are ranked exactly by a sum: of their distances
        to the query and to each of `like`, minus those to each of `unlike`. It may be below 0.
        The query and the examples are left out if they are images of the gallery.

        chosen_by: the images that may be found; None means all. Images that were removed since
        this state are left out, and others take their place.

        Raises InvalidQuery if k is below 1, the radius below 0, the method unknown, if it needs
        pixels that the query or the gallery does not have, if the index was not built, if there
        is neither a query nor an example, or examples with a radius, a query's views or an index.
        """
        if k is not None and k < 1:
            raise InvalidQuery(f"k is at least 1; got {k}")
        if radius is not None and radius < 0:
            raise InvalidQuery(f"a radius is at least 0; got {radius}")
        if k is None and radius is None:
            k = DEFAULT_K
        if chosen_by == Filter():
            chosen_by = None
        if like or unlike:
            require_sum(query, radius, index)
            assert k is not None
            liked = [query, *like] if query else like
            rank = rank_by_examples(liked, unlike, method, k + offset, self.methods)
        elif query is None:
            raise InvalidQuery("nothing came to search for; a query, or an example, was wanted")
        else:
            index = self._kind(index, method, k)
            if chosen_by is not None and not KINDS[index].is_exact:
                index = DEFAULT_KIND
            most = None if k is None else k + offset
            if k is None and cap is not None and index == DEFAULT_KIND:
                # A scan for so many costs less than sorting all within the radius.
                most = cap + offset + 1
            rank = rank_by_query(query, method, index, most, radius, self.methods)
        examples = [one for one in (query, *like, *unlike) if one is not None]
        left_out = [one.image_id for one in examples if one.image_id is not None]
        has_closeness = SERVED[method].column == "codes" and not (like or unlike)
        ranking = self._ranked(
            rank, method, k, cap, offset, chosen_by, left_out, has_closeness=has_closeness
        )
        return replace(ranking, index=index or DEFAULT_KIND)

    def search_each(self, wanted: Sequence[tuple[Query, int, int]]) -> list[Ranking]:
        """Search by code for several queries at once, each as `search` does it for one.

        wanted: queries without views, each with its offset and k. Returns one ranking for each,
        in their order. The codes are scanned once for all of them; latency_ms is the time of that.
        """
        if not wanted:
            return []
        started = time.perf_counter()
        codes = np.stack([query.code for query, _, _ in wanted])
        most = max(offset + k for _, offset, k in wanted)
        with noting_missing() as missing:
            found = self.state.live.search_each(codes, DEFAULT_METHOD, most + 1)
        shown = []
        for (query, offset, k), (ids, distances) in zip(wanted, found, strict=True):
            others = ids != query.image_id  # all, if it is not of the gallery
            shown.append((ids[others][offset : offset + k], distances[others][offset : offset + k]))
        latency_ms = 1000 * (time.perf_counter() - started)
        catalog = self.gallery.catalog
        every = np.unique(np.concatenate([ids for ids, _ in shown])).tolist()
        records = {one.id: one for one in present(catalog, catalog.records(every))}
        if len(records) < len(every):  # of a former state, whose images may have been removed
            return [self.search(query, k=k, offset=offset) for query, offset, k in wanted]
        return [
            Ranking(
                DEFAULT_METHOD,
                _hits([records[one] for one in ids.tolist()], distances, self.closeness),
                truncated=False,
                latency_ms=latency_ms,
                missing=tuple(sorted(missing)),
            )
            for ids, distances in shown
        ]

    def distance_counts(
        self, query: Query, chosen_by: Filter | None = None, method: str = DEFAULT_METHOD
    ) -> NDArray[np.int64]:
        """Count the images that a search by code may find, by their distance: (257,) int64.

        An image's distance is the least of those from the query and its views. chosen_by: as of
        `search`. The query is left out if it is an image of the gallery. Raises InvalidQuery if
        the method does not compare codes.
        """
        if method not in SERVED or SERVED[method].column != "codes":
            raise InvalidQuery(
                f"distances are counted by the method {DEFAULT_METHOD} alone", "histogram"
            )
        codes = np.stack([one.code for one in (query, *query.views)])
        chosen_by = chosen_by or Filter()
        if query.image_id is not None:
            chosen_by = replace(chosen_by, exclude=(*chosen_by.exclude, query.image_id))
        live, catalog = self.state.live, self.gallery.catalog
        if catalog.generation() != self.generation:  # a later state is being read
            live = self._present(live)
        subsets = self._filtered.subsets(chosen_by, live, self.generation, catalog)
        return live.distance_counts(codes, method, subsets)

    def _present(self, live: Live) -> Live:
        """The images of a former state that the catalog still has."""
        ids = self.gallery.catalog.rows().ids
        return live.removed(np.setdiff1d(live.ids(), ids, assume_unique=True))

    def _kind(self, index: str | None, method: str, k: int | None) -> str:
        """The kind of index that answers. Raises InvalidQuery if it cannot."""
        built = self.state.live.base.kinds
        if index is None:
            # It compares what it looked up, or all codes, whichever takes less time.
            is_fast = method == DEFAULT_METHOD and k is None and "multihash" in built
            return "multihash" if is_fast else DEFAULT_KIND
        if index not in KINDS:
            raise InvalidQuery(f"there is no index {index!r}; there are {', '.join(KINDS)}")
        if index != DEFAULT_KIND and method in SERVED and method != DEFAULT_METHOD:
            raise InvalidQuery(
                f"the index {index} is of codes; {method} are searched exactly", "index"
            )
        if index != DEFAULT_KIND and index not in built:
            raise InvalidQuery(
                f"the gallery has no index {index}; `hashsearch gallery build --kind {index}` "
                "builds it",
                "index",
            )
        return index

    def _ranked(
        self,
        rank: Rank,
        method: str,
        k: int | None,
        cap: int | None,
        offset: int,
        chosen_by: Filter | None,
        left_out: Sequence[int],
        *,
        has_closeness: bool,
    ) -> Ranking:
        """The hits of a search, without the images that are left out.

        has_closeness: whether the distances have the meaning that the model's card gives.
        """
        closeness = self.closeness if has_closeness else None
        live = self.state.live
        while True:
            started = time.perf_counter()
            subsets: Sequence[Subset | None] = [None] * len(live.segments)
            if chosen_by is not None:
                subsets = self._filtered.subsets(
                    chosen_by, live, self.generation, self.gallery.catalog
                )
            with noting_missing() as missing:
                ids, distances = rank(live, subsets)
            others = ~np.isin(ids, left_out)
            shown = slice(offset, None if k is None else offset + k)
            ids, distances = ids[others][shown], distances[others][shown]
            truncated = k is None and cap is not None and len(ids) > cap
            ids, distances = ids[:cap], distances[:cap]
            latency_ms = 1000 * (time.perf_counter() - started)
            hits = self._hits(ids, distances, closeness)
            if len(hits) == len(ids):
                return Ranking(method, hits, truncated, latency_ms, missing=tuple(sorted(missing)))
            # Of a former state, whose images may have been removed since.
            live = self._present(live)

    def _hits(
        self,
        ids: NDArray[np.int64],
        distances: NDArray[np.integer[Any]],
        closeness: Closeness | None,
    ) -> list[Hit]:
        by_id = dict(zip(ids.tolist(), distances.tolist(), strict=True))
        records = present(self.gallery.catalog, self.gallery.catalog.records(by_id))
        there = np.array([by_id[image.id] for image in records], np.int64)
        return _hits(records, there, closeness)


def _hits(
    records: Sequence[ImageRecord],
    distances: NDArray[np.integer[Any]],
    closeness: Closeness | None,
) -> list[Hit]:
    """A hit for each record, which has the distance at its place."""
    return [
        Hit(
            image.id,
            distance,
            image.label,
            image.path,
            image.uri,
            closeness.word(distance) if closeness else None,
            image.missing,
        )
        for image, distance in zip(records, distances.tolist(), strict=True)
    ]
