"""The methods that a gallery can be searched by: one row each.

The command, the HTTP interface, the page, the demonstration and the evaluation read title, unit,
bytes and needs from this table.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from hashsearch.codes import CODE_BYTES
from hashsearch.images import TINY_BYTES

if TYPE_CHECKING:
    from hashsearch.gallery.catalog import Rows
    from hashsearch.gallery.gallery_folder import GalleryFolder
    from hashsearch.search import Index


@dataclass(frozen=True, slots=True)
class ServedMethod:
    """A way to rank a gallery's images for a query.

    title: for people. unit: of the distances; of "squared ..." people are shown the root.
    image_bytes: bytes that are compared of each image. column: the gallery's column that is
    searched, "codes" or "pixels"; a query needs the same. index: builds the index of these
    images, in their order.
    """

    title: str
    unit: str
    image_bytes: int
    column: str
    index: "Callable[[GalleryFolder, Rows], Index]"


def _exact_index(gallery: "GalleryFolder", rows: "Rows") -> "Index":
    from hashsearch.search.exact import ExactIndex

    codes = gallery.column("codes", rows)
    assert codes is not None, "every shard has codes"
    return ExactIndex(codes)


def _pixel_index(gallery: "GalleryFolder", rows: "Rows") -> "Index":
    from hashsearch.search.pixels import PixelBlock, PixelIndex

    return PixelIndex(
        [
            PixelBlock(shard.column("pixels"), rows.rows[positions], positions)
            for shard, positions in gallery.shards(rows)
        ]
    )


DEFAULT_METHOD = "codes"
SERVED: dict[str, ServedMethod] = {
    DEFAULT_METHOD: ServedMethod("By 256-bit code", "bits", CODE_BYTES, "codes", _exact_index),
    "pixels": ServedMethod("By pixels", "squared grey levels", TINY_BYTES, "pixels", _pixel_index),
}
