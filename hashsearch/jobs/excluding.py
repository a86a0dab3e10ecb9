"""What patterns of paths mean for a gallery that remembers them."""

from collections.abc import Iterable

from hashsearch.gallery.catalog import Catalog
from hashsearch.gallery.naming import Names
from hashsearch.sources.excluding import Excludes
from hashsearch.wording import counted

_BATCH = 20_000  # uris that are read at once


def remarks_on_patterns(
    catalog: Catalog, names: Iterable[Names], unmatched: Iterable[str]
) -> list[str]:
    """Sentences for a person who has just excluded paths.

    names: of the images of each source that was indexed. unmatched: the patterns that match no
    path of these. The sentences name them, and say how many images of the sources match the
    gallery's patterns; these were indexed earlier, and stay.
    """
    remarks = [
        f"no path matches {pattern!r}, which the gallery remembers; --include forgets it"
        for pattern in unmatched
    ]
    if staying := len(_matching(catalog, names)):
        verbs = "matches the patterns and stays" if staying == 1 else "match the patterns and stay"
        remarks.append(
            f"{counted(staying, 'image')} of the gallery {verbs}; "
            "`hashsearch gallery remove` removes images by their paths"
        )
    return remarks


def _matching(catalog: Catalog, names: Iterable[Names]) -> set[int]:
    """Ids of the images that have a place which the gallery's patterns exclude."""
    excludes, ids = Excludes(catalog.excludes()), set[int]()
    for of_source in names:
        for beginning in of_source.beginnings():
            last = ""
            while uris := catalog.uris_under(beginning, last, _BATCH):
                last = uris[-1]
                matching = [uri for uri in uris if excludes.match(of_source.place(uri) or "")]
                ids.update(catalog.ids_at(matching))
    return ids
