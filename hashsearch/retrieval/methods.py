"""The methods that a gallery can be searched by: one row each.

The command, the HTTP interface, the page, the demonstration and the evaluation read title, unit,
bytes and needs from this table.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from hashsearch.codes import CODE_BYTES
from hashsearch.images import TINY_BYTES

if TYPE_CHECKING:
    from hashsearch.search import Block, CombinedIndex


@dataclass(frozen=True, slots=True)
class ServedMethod:
    """A way to rank a gallery's images for a query.

    title: for people. unit: of the distances; if it is "squared ...", people are shown the
    root. image_bytes: bytes that are compared of each image. column: the gallery's column that
    is searched, "codes" or "pixels", which a query needs too. index: builds an exact index of the
    column's rows. compared: whether comparisons show it unless methods are named.
    """

    title: str
    unit: str
    image_bytes: int
    column: str
    index: "Callable[[Sequence[Block]], CombinedIndex]"
    compared: bool = True


def _exact(blocks: "Sequence[Block]") -> "CombinedIndex":
    from hashsearch.search import gathered
    from hashsearch.search.exact import ExactIndex

    return ExactIndex(gathered(blocks, CODE_BYTES))


def _pixels(blocks: "Sequence[Block]") -> "CombinedIndex":
    from hashsearch.search.pixels import PixelIndex

    return PixelIndex(blocks)


def _normalized(blocks: "Sequence[Block]") -> "CombinedIndex":
    from hashsearch.search.normalized import NormalizedIndex

    return NormalizedIndex(blocks)


DEFAULT_METHOD = "codes"
SERVED: dict[str, ServedMethod] = {
    DEFAULT_METHOD: ServedMethod("By 256-bit code", "bits", CODE_BYTES, "codes", _exact),
    "pixels": ServedMethod("By pixels", "squared grey levels", TINY_BYTES, "pixels", _pixels),
    "normalized": ServedMethod(
        "By contrast-normalised pixels",
        "squared grey levels",
        TINY_BYTES,
        "pixels",
        _normalized,
        compared=False,
    ),
}
