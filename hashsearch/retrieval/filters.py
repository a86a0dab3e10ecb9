"""Filters: which images of a gallery a search may return."""

from collections import OrderedDict
from dataclasses import dataclass
from threading import Lock

import numpy as np
from numpy.typing import NDArray

from hashsearch.gallery.catalog import Catalog
from hashsearch.gallery.catalog_places import at_or_below
from hashsearch.search import NO_POSITION
from hashsearch.search.live import Live, Segment
from hashsearch.search.subset import Subset, common, of_mask, of_positions

_REMEMBERED = 8  # conditions whose images are remembered, of n images each in up to 1.6 n bytes


@dataclass(frozen=True, slots=True)
class Filter:
    """The images that a search may return: those that meet every criterion that is not None.

    label: of the image. uri_prefixes: its file is at or below one of these uris; they end where a
    part of a path ends. ids: it is one of these. exclude: it is none of these.
    """

    label: str | None = None
    uri_prefixes: tuple[str, ...] | None = None
    ids: tuple[int, ...] | None = None
    exclude: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class _Chosen:
    """The images that meet a condition on the catalog, at one generation of the gallery.

    base: the segment whose positions `within` has. others: ids of the rest, (n,) int64, ascending.
    """

    generation: int
    base: Segment
    within: Subset
    others: NDArray[np.int64]


class FilteredRows:
    """Finds the rows that a filter chooses; may be used from several threads.

    The last conditions on labels and uris are remembered and follow the gallery's changes, so that
    a filter is not read from the catalog by every search. One thread at a time reads a condition;
    the others that ask for the same one wait and take what it found.
    """

    def __init__(self) -> None:
        self._chosen: OrderedDict[tuple[str, ...], _Chosen] = OrderedDict()
        self._lock = Lock()
        self._reading = Lock()  # held while a condition is read as a whole

    def subsets(
        self, chosen_by: Filter, live: Live, generation: int, catalog: Catalog
    ) -> list[Subset | None]:
        """The chosen positions of each segment; None means all.

        generation: of the gallery's state that `live` is, which the catalog must show.
        """
        subsets: list[Subset | None] = [None] * len(live.segments)
        conditions: list[tuple[str, ...]] = []
        if chosen_by.label is not None:
            conditions.append(("label", chosen_by.label))
        if chosen_by.uri_prefixes is not None:
            conditions.append(("uri", *sorted(set(chosen_by.uri_prefixes))))
        for condition in conditions:
            chosen = self._remembered(condition, live, generation, catalog)
            for number, segment in enumerate(live.segments):
                some = chosen.within if number == 0 else _among(segment, chosen.others)
                subsets[number] = common(subsets[number], some)
        if chosen_by.ids is not None:
            ids = np.unique(np.array(chosen_by.ids, np.int64))
            for number, segment in enumerate(live.segments):
                subsets[number] = common(subsets[number], _among(segment, ids))
        if chosen_by.exclude:
            ids = np.unique(np.array(chosen_by.exclude, np.int64))
            for number, segment in enumerate(live.segments):
                subsets[number] = _without(subsets[number], segment, ids)
        return subsets

    def _remembered(
        self, condition: tuple[str, ...], live: Live, generation: int, catalog: Catalog
    ) -> _Chosen:
        known = self._known(condition, live, generation)
        if known is None:
            with self._reading:
                known = self._known(condition, live, generation)
                if known is None:
                    known = _read(condition, live.base, generation, catalog)
                    self._remember(condition, known, live)
        if known.generation == generation:
            return known
        followed = _followed(known, condition, generation, catalog)
        self._remember(condition, followed, live)
        return followed

    def _known(self, condition: tuple[str, ...], live: Live, generation: int) -> _Chosen | None:
        """What is remembered of a condition, if it is of this generation or an earlier one."""
        with self._lock:
            known = self._chosen.get(condition)
            if known is None or known.base.ids is not live.base.ids:
                return None
            self._chosen.move_to_end(condition)
            return known if known.generation <= generation else None

    def _remember(self, condition: tuple[str, ...], chosen: _Chosen, live: Live) -> None:
        with self._lock:
            for other, one in list(self._chosen.items()):
                if one.base.ids is not live.base.ids:  # of a base that was renewed
                    del self._chosen[other]
            self._chosen[condition] = chosen
            self._chosen.move_to_end(condition)
            while len(self._chosen) > _REMEMBERED:
                self._chosen.popitem(last=False)


def _read(condition: tuple[str, ...], base: Segment, generation: int, catalog: Catalog) -> _Chosen:
    ids = _matching(condition, catalog)
    positions = base.positions_of(ids)
    is_base = positions != NO_POSITION
    within = of_positions(positions[is_base], len(base.ids))
    return _Chosen(generation, base, within, ids[~is_base])


def _followed(
    known: _Chosen, condition: tuple[str, ...], generation: int, catalog: Catalog
) -> _Chosen:
    """What is chosen now, from what was chosen at an earlier generation."""
    changed = catalog.changed_ids(known.generation)
    chosen = _matching(condition, catalog, known.generation)
    positions = known.base.positions_of(changed)
    is_base = positions != NO_POSITION
    within = known.within.changed(positions[is_base], np.isin(changed[is_base], chosen))
    others = np.setdiff1d(known.others, changed, assume_unique=True)
    added = np.setdiff1d(chosen, changed[is_base], assume_unique=True)
    others = np.sort(np.concatenate([others, added]))
    return _Chosen(generation, known.base, within, others)


def _matching(
    condition: tuple[str, ...], catalog: Catalog, since: int | None = None
) -> NDArray[np.int64]:
    """Ids of the images that meet a condition, ascending; since: as of `ids_matching`."""
    kind, *wanted = condition
    if kind == "label":
        return catalog.ids_matching("label = ?", wanted, since)
    found = [np.empty(0, np.int64)]
    for prefix in wanted:
        where, values = at_or_below("uri", prefix)
        found.append(catalog.ids_matching(where, values, since))
        further = f"id IN (SELECT image FROM places WHERE {where})"
        found.append(catalog.ids_matching(further, values, since))
    ids = np.sort(np.concatenate(found))  # np.unique of a million takes a second
    return ids[np.diff(ids, prepend=0) > 0]


def _among(segment: Segment, ids: NDArray[np.int64]) -> Subset:
    """The positions of a segment that have one of these ids, ascending."""
    positions = segment.positions_of(ids)
    return of_positions(positions[positions != NO_POSITION], len(segment.ids))


def _without(subset: Subset | None, segment: Segment, ids: NDArray[np.int64]) -> Subset | None:
    positions = segment.positions_of(ids)
    positions = positions[positions != NO_POSITION]
    if len(positions) == 0:
        return subset
    if subset is None:
        mask = np.ones(len(segment.ids), bool)
        mask[positions] = False
        return of_mask(mask)
    return subset.changed(positions, np.zeros(len(positions), bool))
