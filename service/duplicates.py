"""Groups of duplicates on their way to clients, page by page."""

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from hashsearch.codes import code_to_hex
from hashsearch.errors import InvalidQuery
from hashsearch.retrieval.duplicates import DuplicateGroup, Groups, described
from hashsearch.retrieval.searcher import Searcher
from service.context import Context
from service.cursors import cursor_of, values_of
from service.grouping import Duplicates
from service.schemas.duplicates import (
    MOST_FILES,
    DuplicateFileAnswer,
    DuplicateGroupAnswer,
    DuplicatesAnswer,
    DuplicatesParameters,
)
from service.validation import InvalidParameter

_NAME = "duplicates"  # of the list, in its cursors
_MOST_ON_PAGE = 10_000  # files
_MOST_RADIUS = 32  # where the model's card does not say how near pictures lie


def duplicates_answer(
    duplicates: Duplicates, searcher: Searcher, parameters: DuplicatesParameters, context: Context
) -> DuplicatesAnswer:
    """A page of the groups.

    Raises InvalidQuery, InvalidParameter, and as `Duplicates.newest` and `Duplicates.kept` do.
    """
    groups, first = _begun(duplicates, searcher, parameters)
    first = min(first, len(groups))
    last = _last(groups, first, parameters.limit)
    found = described(searcher.gallery.catalog, groups, range(first, last), MOST_FILES)
    more = last < len(groups)
    return DuplicatesAnswer(
        radius=groups.radius,
        total=len(groups),
        groups=[
            _group(
                group,
                groups.file_counts(number),
                _codes_of(groups, number) if parameters.codes else {},
                context,
            )
            for number, group in found.items()
        ],
        next=cursor_of(_NAME, groups.generation, groups.radius, last) if more else None,
        generation=groups.generation,
    )


def _begun(
    duplicates: Duplicates, searcher: Searcher, parameters: DuplicatesParameters
) -> tuple[Groups, int]:
    """The groups that a page is of, and the number of its first group."""
    if parameters.after is None:
        return duplicates.newest(searcher, _radius(searcher, parameters.radius)), 0
    generation, radius, first = values_of(parameters.after, _NAME, (int, int, int))
    if parameters.radius not in (None, radius):
        raise InvalidParameter("radius must be that of the previous page", "radius")
    return duplicates.kept(searcher.gallery, radius, generation), first


def _radius(searcher: Searcher, radius: int | None) -> int:
    """The radius that is meant. Raises InvalidQuery if there is no default, InvalidParameter."""
    closeness = searcher.closeness
    if radius is None:
        if closeness is None:
            raise InvalidQuery(
                "the gallery's model does not say how near copies lie; give a radius",
                "radius",
            )
        return closeness.same
    most = _MOST_RADIUS if closeness is None else closeness.near
    if radius > most:
        why = (
            "since the gallery's model does not say how near pictures lie"
            if closeness is None
            else "the largest distance of near pictures"
        )
        raise InvalidParameter(f"radius must be at most {most}, {why}", "radius")
    return radius


def _last(groups: Groups, first: int, limit: int) -> int:
    """The number of the group after a page's last."""
    last, files = first, 0
    while last < min(first + limit, len(groups)):
        files += min(int(groups.file_counts(last).sum()), MOST_FILES)
        if files > _MOST_ON_PAGE and last > first:
            break
        last += 1
    return last


def _codes_of(groups: Groups, number: int) -> dict[int, str]:
    """The codes of a group's images by id, hexadecimal."""
    images = slice(*groups.starts[number : number + 2].tolist())
    codes = map(code_to_hex, groups.codes[images])
    return dict(zip(groups.ids[images].tolist(), codes, strict=True))


def _group(
    group: DuplicateGroup,
    file_counts: NDArray[np.int64],
    codes: Mapping[int, str],
    context: Context,
) -> DuplicateGroupAnswer:
    return DuplicateGroupAnswer(
        diameter=group.diameter,
        diameter_is_lower_bound=group.diameter_is_lower_bound,
        images=len(file_counts),
        n_files=int(file_counts.sum()),
        files=[
            DuplicateFileAnswer.model_construct(
                id=file.id,
                uri=file.uri,
                label=file.label,
                width=file.width,
                height=file.height,
                size=file.size,
                distance=file.distance,
                keep=file.keep,
                missing=file.missing,
                thumbnail=context.thumbnail(file.id),
                code=codes.get(file.id),
            )
            for file in group.files
        ],
    )
