"""What users of the library say of a search: the query, examples, and which images may be found."""

import os
from collections.abc import Iterable
from dataclasses import replace
from os import PathLike
from typing import TypeAlias, TypedDict

import numpy as np

from hashsearch.codes import code_from_hex
from hashsearch.crop import WHOLE, Crop
from hashsearch.errors import InvalidQuery
from hashsearch.gallery.catalog import Catalog
from hashsearch.gallery.places import uris_named
from hashsearch.inputs import (
    PathOrName,
    Picture,
    checked_path,
    described,
    is_code,
    text,
    tiny_image,
    whole,
    whole_numbers,
)
from hashsearch.retrieval.filters import Filter
from hashsearch.retrieval.methods import DEFAULT_METHOD
from hashsearch.retrieval.ranking import Query, Ranking
from hashsearch.retrieval.searcher import Searcher
from hashsearch.sources.base import valid_text

Queryable: TypeAlias = Picture | int | np.integer


class SearchOptions(TypedDict, total=False):
    """Options of a search, beside the query and k.

    radius: largest distance, inclusive, in the method's unit. method: "codes" (distance in bits, 0
    to 256), "pixels" (squared Euclidean distance of the 32×32 pixels) or "normalized" (the same
    after each image's brightness and contrast are made equal). index: the kind of index that
    answers, of those that `build_index` built; None means exact search.

    label: only images with this label. uri_prefix: only images at or below a uri, or the path of a
    file, a folder, an archive or what is in it. ids: only these images; exclude: none of these.

    like, unlike: examples, each of them anything that can be a query. Images are ranked by the sum
    of their distances to the query and to what they should be like, minus the sum of those to what
    they should be unlike. The examples that are images of the gallery are left out.

    crop: the part of the query image that is searched for, as four fractions of its width and
    height: left, top, right, bottom. transforms: whether the query's mirror image, small shifts
    and crops are searched for too; an image's distance is then the least of all.

    >>> options: hashsearch.SearchOptions = {"label": "cat", "exclude": [7]}
    >>> {hit.label for hit in gallery.search(9, k=3, **options)} <= {"cat"}
    True
    """

    radius: int | None
    method: str
    index: str | None
    label: str | None
    uri_prefix: PathOrName | None
    ids: Iterable[int] | None
    exclude: Iterable[int] | None
    like: Iterable[Queryable]
    unlike: Iterable[Queryable]
    crop: Crop | str | Iterable[float] | None
    transforms: bool


def searched(
    searcher: Searcher, query: Queryable | None, k: int | None, options: SearchOptions
) -> Ranking:
    """Search as `Gallery.search` says.

    Raises InvalidImage, NotInGallery, CodeShapeError and InvalidQuery.
    """
    require_known(options)
    method = text("a method", options.get("method", DEFAULT_METHOD))
    k = None if k is None else whole("k", k, 1)
    radius = options.get("radius")
    radius = None if radius is None else whole("a radius", radius, 0)
    chosen_by = filter_of(searcher.gallery.catalog, options)
    crop = options.get("crop")
    crop = WHOLE if crop is None else Crop.of(crop)
    transforms = options.get("transforms", False)
    like = _examples(searcher, "like", options.get("like", ()))
    unlike = _examples(searcher, "unlike", options.get("unlike", ()))
    made = None
    if query is not None:
        made = query_of(searcher, query, crop, transforms=transforms)
    elif crop != WHOLE or transforms:
        raise InvalidQuery("a crop or transforms need a query, and none came")
    return searcher.search(
        made,
        method,
        index=options.get("index"),
        k=k,
        radius=radius,
        like=like,
        unlike=unlike,
        chosen_by=chosen_by,
    )


def require_known(options: SearchOptions) -> None:
    """Raise InvalidQuery if there is an option that no search has."""
    unknown = [name for name in options if name not in SearchOptions.__annotations__]
    if unknown:
        known = ", ".join(SearchOptions.__annotations__)
        raise InvalidQuery(f"a search has no option {unknown[0]!r}; it has k, {known}")


def query_of(
    searcher: Searcher, query: Queryable, crop: Crop = WHOLE, *, transforms: bool = False
) -> Query:
    """The query that anything stands for which `Gallery.search` takes.

    Raises InvalidQuery also for a crop of an image of the gallery or of a code, and for transforms
    of a code.
    """
    made = _plain_query(searcher, query, crop)
    return searcher.with_views(made) if transforms else made


def filter_of(catalog: Catalog, options: SearchOptions) -> Filter | None:
    """The images that may be found; None means all. Raises InvalidQuery."""
    label, prefix = options.get("label"), options.get("uri_prefix")
    ids, exclude = options.get("ids"), options.get("exclude")
    if label is None and prefix is None and ids is None and exclude is None:
        return None
    if label is not None:
        label = valid_text(text("a label", label))
    uris = None
    if prefix is not None:
        checked_path(prefix)
        uris = tuple(uris_named(catalog, os.fspath(prefix)))
    return Filter(
        label,
        uris,
        None if ids is None else tuple(whole_numbers("ids", ids)),
        () if exclude is None else tuple(whole_numbers("exclude", exclude)),
    )


def _examples(searcher: Searcher, name: str, examples: Iterable[Queryable]) -> list[Query]:
    if isinstance(examples, str | bytes | PathLike) or not isinstance(examples, Iterable):
        raise InvalidQuery(f"{name} is a list of examples; got {described(examples)}")
    return [query_of(searcher, example) for example in examples]


def _plain_query(searcher: Searcher, query: Queryable, crop: Crop) -> Query:
    made = _stored_query(searcher, query)
    if made is None:
        assert not isinstance(query, int | np.integer)
        return searcher.query_by_tiny(tiny_image(query, "an id, a code", crop=crop))
    if crop != WHOLE:
        raise InvalidQuery(
            "a crop needs an image file; an id, a code or the path of a stored image came"
        )
    return made


def _stored_query(searcher: Searcher, query: Queryable) -> Query | None:
    """The query by an id, a code or the path of an image of the gallery; None for a picture."""
    if isinstance(query, int | np.integer):
        return searcher.query_by_id(whole("an id", query))
    if isinstance(query, np.ndarray) and query.ndim == 1:
        return searcher.query_by_code(query)
    if isinstance(query, str) and is_code(query):
        return searcher.query_by_code(code_from_hex(query))
    if isinstance(query, str | PathLike):
        found = _id_at(searcher.gallery.catalog, os.fspath(query))
        if found is not None:
            return replace(searcher.query_by_id(found), image_id=None)  # as a file, it is found
    return None


def _id_at(catalog: Catalog, path: str) -> int | None:
    """The id of the image that has a path; None if a file exists there, or if none or many do."""
    if not path or os.path.exists(path):  # noqa: PTH110  # never raises
        return None
    try:
        ids = set(catalog.ids_at(uris_named(catalog, path)))
    except ValueError:  # characters that no path has
        return None
    return ids.pop() if len(ids) == 1 else None
