"""Marks: random names that a gallery keeps of the generations that exports have read.

A gallery that knows a mark has gone through its generation. One that was put back from an earlier
copy does not know it, even when it has come to the same generation by other changes.
"""

import json

from hashsearch.errors import GalleryReadOnly
from hashsearch.gallery.catalog import Catalog, new_identity

_SETTING = "export_marks"  # JSON: generation by mark, oldest first
_MOST = 1000  # a first export of a gallery that keeps changing makes one for each chunk


def known_marks(catalog: Catalog) -> dict[str, int]:
    """The generations of the latest marks, by mark."""
    marks: dict[str, int] = json.loads(catalog.settings(_SETTING).get(_SETTING, "{}"))
    return marks


def mark_of_now(catalog: Catalog) -> str:
    """The mark of the current generation; "" if it has none and the gallery cannot be written to.

    Other tables' marks are forgotten after many new ones, and their rows are then compared.
    """
    found = _mark(catalog)
    if found is not None:
        return found
    try:
        with catalog.transaction() as db:
            found = _mark(catalog) or new_identity()
            marks = known_marks(catalog) | {found: catalog.generation()}
            kept = json.dumps(dict(list(marks.items())[-_MOST:]))
            db.execute("INSERT OR REPLACE INTO settings VALUES (?, ?)", (_SETTING, kept))
    except GalleryReadOnly:
        return ""
    return found


def _mark(catalog: Catalog) -> str | None:
    with catalog.snapshot():
        now = catalog.generation()
        return next((mark for mark, then in known_marks(catalog).items() if then == now), None)
