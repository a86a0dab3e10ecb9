"""What patterns of paths mean for a gallery that remembers them."""

from collections.abc import Iterable

from hashsearch.gallery.catalog import Catalog
from hashsearch.sources.excluding import Excludes
from hashsearch.wording import counted

_BATCH = 20_000  # uris that are read at once


def remarks_on_patterns(catalog: Catalog, unmatched: Iterable[str]) -> list[str]:
    """Sentences for a person who has just excluded paths.

    They name the patterns that match no path of the sources, and say how many images of the
    gallery match its patterns; these were indexed earlier, and stay.
    """
    remarks = [
        f"no path matches {pattern!r}, which the gallery remembers; --include forgets it"
        for pattern in unmatched
    ]
    if staying := len(_matching(catalog)):
        verbs = "matches the patterns and stays" if staying == 1 else "match the patterns and stay"
        remarks.append(
            f"{counted(staying, 'image')} of the gallery {verbs}; "
            "`hashsearch gallery remove` removes images by their paths"
        )
    return remarks


def _matching(catalog: Catalog) -> set[int]:
    """Ids of the images that have a place which the gallery's patterns exclude."""
    excludes, ids = Excludes(catalog.excludes()), set[int]()
    for name in catalog.sources():
        last = ""
        while uris := catalog.uris_under(name, last, _BATCH):
            last = uris[-1]
            ids.update(
                catalog.ids_at([uri for uri in uris if excludes.match(uri.removeprefix(name))])
            )
    return ids
