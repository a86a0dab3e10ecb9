"""Which part of a picture is searched for."""

import math
from collections.abc import Iterable
from dataclasses import astuple, dataclass
from typing import Self

from hashsearch.errors import InvalidQuery

_WANTED = "a crop is four fractions L,T,R,B with 0 ≤ L < R ≤ 1 and 0 ≤ T < B ≤ 1"


@dataclass(frozen=True, slots=True)
class Crop:
    """A rectangle of the upright picture, before its centre square is taken.

    left, right: its edges, in fractions of the width from the left. top, bottom: in fractions
    of the height from the top. Raises InvalidQuery unless 0 ≤ left < right ≤ 1 and
    0 ≤ top < bottom ≤ 1.
    """

    left: float
    top: float
    right: float
    bottom: float

    def __post_init__(self) -> None:
        if not (0 <= self.left < self.right <= 1 and 0 <= self.top < self.bottom <= 1):
            raise InvalidQuery(f"{_WANTED}; got {','.join(map(str, astuple(self)))}")

    @classmethod
    def of(cls, crop: "Crop | str | Iterable[float]") -> Self:
        """Read a crop. crop: "L,T,R,B", or the four numbers. Raises InvalidQuery."""
        try:
            if isinstance(crop, Crop):
                crop = astuple(crop)
            left, top, right, bottom = map(
                float, crop.split(",") if isinstance(crop, str) else crop
            )
        except (TypeError, ValueError, OverflowError) as error:
            raise InvalidQuery(f"{_WANTED}, such as 0.25,0,0.75,0.5") from error
        return cls(left, top, right, bottom)

    def pixels(self, width: int, height: int) -> tuple[int, int, int, int]:
        """Left, top, right and bottom in a picture of this size, the edges rounded to pixels.

        Right and bottom are exclusive. Raises InvalidQuery if no pixel is left.
        """
        left, right = (math.floor(edge * width + 0.5) for edge in (self.left, self.right))
        top, bottom = (math.floor(edge * height + 0.5) for edge in (self.top, self.bottom))
        if left == right or top == bottom:
            raise InvalidQuery(
                f"the crop holds no pixel of an image of {width}×{height} pixels", "crop"
            )
        return left, top, right, bottom


WHOLE = Crop(0, 0, 1, 1)
