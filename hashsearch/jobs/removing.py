"""Removing images from a gallery."""

from hashsearch.gallery.catalog import Catalog
from hashsearch.gallery.changes import Selection, next_generation, remove_some

_AT_ONCE = 20_000  # images of one transaction, which blocks other writers for half a second


def remove(catalog: Catalog, selection: Selection) -> int:
    """Remove the selected images from every answer; returns their number.

    Many are removed in several transactions. Their rows stay on disk until `compact`.
    """
    if selection.ids is not None:
        parts = [selection.ids[start : start + 500] for start in range(0, len(selection.ids), 500)]
        return sum(_remove_all(catalog, Selection(ids=part)) for part in parts)
    return _remove_all(catalog, selection)


def _remove_all(catalog: Catalog, selection: Selection) -> int:
    removed = 0
    while True:
        with catalog.transaction() as db:
            some = remove_some(db, selection, _AT_ONCE)
            if some:
                next_generation(db)
        if not some:
            return removed
        removed += some
