"""States of a gallery in memory: its codes and indexes at one generation."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from hashsearch.closeness import Closeness
from hashsearch.errors import InvalidGallery, InvalidModel
from hashsearch.gallery.built import BuiltIndex, load
from hashsearch.gallery.gallery_folder import GalleryFolder
from hashsearch.gallery.records import Rows
from hashsearch.gallery.shards import WIDTHS
from hashsearch.models.card import read_card
from hashsearch.retrieval.bases import IN_MEMORY, Bases, exact_indexes
from hashsearch.retrieval.kinds import KINDS
from hashsearch.search import Block, Index
from hashsearch.search.live import MOST_COPIED, Live, segment_of

# Rows that were added beside the base or removed from it, or a tenth of it if that is more.
_MOST_ADDED = 20_000
_MOST_FOLLOWED = 200_000  # changes that are read one by one; reading everything takes no longer
_MOST_COPIED = 65_536  # rows that were added few at a time: their pixels, 200 MB, are in memory


@dataclass(frozen=True, slots=True, eq=False)
class State:
    """What is searched of a gallery at one generation.

    closeness: as of the model's card. base_shards: numbers of the shards that the base was read
    from. built: the record of each index that the base has, by kind. copied: number of rows beside
    the base that were added few at a time, and whose values are in memory.
    """

    generation: int
    fingerprint: str
    closeness: Closeness | None
    live: Live
    base_shards: frozenset[int]
    built: Mapping[str, BuiltIndex] = field(default_factory=dict)
    copied: int = 0

    def needs_a_new_base(self, shards: Mapping[int, int]) -> bool:
        """Whether much was added, or the base's shards were replaced.

        shards: the numbers of rows of those that exist, by number.
        """
        most = max(_MOST_ADDED, len(self.live.base.ids) // 10)
        return (
            self.live.added > most
            or self.live.removed_of_base > most
            or self.copied > _MOST_COPIED
            or not self.base_shards <= shards.keys()
        )

    def having(self, kind: str, index: Index | None, record: BuiltIndex | None) -> "State":
        """The same state, with an index of this kind of its base, or without one."""
        built = {name: one for name, one in self.built.items() if name != kind}
        if record is not None:
            built[kind] = record
        return replace(self, live=self.live.with_kind(kind, index), built=built)


def read_state(gallery: GalleryFolder, bases: Bases = IN_MEMORY) -> State:
    """Read all of a gallery, as it is now.

    Raises InvalidGallery or InvalidModel if it is damaged, and what `bases` raises.
    """
    while True:
        rows = gallery.catalog.rows()
        try:
            card = read_card(gallery.model_folder_of(rows.fingerprint))
            base = bases.segment(rows.ids, _blocks(gallery, rows))
        except (InvalidGallery, InvalidModel):
            if gallery.catalog.generation() == rows.generation:
                raise  # damaged; otherwise a job compacted or reencoded it meanwhile
        else:
            shards = frozenset(np.unique(rows.shards).tolist())
            return State(rows.generation, rows.fingerprint, card.closeness, Live((base,)), shards)


def followed(gallery: GalleryFolder, state: State) -> State | None:
    """The state that the catalog shows now, made from an earlier one by what has changed.

    None if that is not known, or far too much, and everything has to be read. Raises
    InvalidGallery if the gallery is damaged, or if a job has joined its shards since.
    """
    changes = gallery.catalog.changes_since(state.generation, _MOST_FOLLOWED)
    if changes is None or changes.rows.fingerprint != state.fingerprint:
        return None
    live, unknown = state.live.removed(changes.removed).restored(changes.rows.ids)
    copied = state.copied + (len(unknown) if len(unknown) <= MOST_COPIED else 0)
    if len(unknown):
        added = _chosen(changes.rows, np.isin(changes.rows.ids, unknown))
        live = live.extended(
            segment_of(added.ids, _blocks(gallery, added), exact_indexes), exact_indexes
        )
    return replace(state, generation=changes.rows.generation, live=live, copied=copied)


def _chosen(rows: Rows, chosen: NDArray[np.bool_]) -> Rows:
    return replace(rows, ids=rows.ids[chosen], shards=rows.shards[chosen], rows=rows.rows[chosen])


def index_of_base(
    gallery: GalleryFolder, state: State, kind: str, bases: Bases = IN_MEMORY
) -> tuple[Index, BuiltIndex] | None:
    """The index of a kind for the state's base, and its record; None if there cannot be one.

    Raises InvalidGallery if what is stored of it is damaged.
    """
    base = state.live.base
    if kind not in KINDS or kind not in bases.kinds:  # one of a later version, or not served
        return None
    found = load(gallery.folder, gallery.catalog, kind, state.fingerprint, base.ids)
    if found is None or not all(column in base.columns for column in KINDS[kind].columns):
        return None
    built, arrays = found
    return bases.of_kind(kind, base, arrays, built.parameters), built


def _blocks(gallery: GalleryFolder, rows: Rows) -> dict[str, Sequence[Block]]:
    """Blocks of each column that the gallery keeps; of addresses, if every shard has them."""
    found: dict[str, Sequence[Block]] = {}
    for column in WIDTHS:
        is_optional = column == "addresses"
        if not (is_optional or gallery.has_column(column)):
            continue
        blocks = gallery.blocks(column, rows)
        if blocks is None and not is_optional:
            raise InvalidGallery(
                f"{gallery.folder}: a shard lacks {column}, which the gallery keeps"
            )
        nothing = np.empty(0, np.int64)
        if blocks is not None:
            found[column] = blocks or [
                Block(np.empty((0, WIDTHS[column]), np.uint8), nothing, nothing)
            ]
    return found
