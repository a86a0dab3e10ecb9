"""What a distance between two codes means, in a word."""

from collections.abc import Mapping
from dataclasses import dataclass

# By word, nearest first: what is meant, for people.
MEANINGS = {
    "same": "as near as 95% of recompressed and resized copies are",
    "near": "as near as 95% of slightly cropped and of mirrored pictures are",
    "alike": "nearer than all but 1 in 10,000 pairs of unlike pictures",
    "far": "no nearer than unlike pictures may be",
}


@dataclass(frozen=True, slots=True)
class Closeness:
    """The distances, in bits and inclusive, up to which pictures are same, near and alike.

    They are measured after a model's training; docs/training.md defines them.
    0 ≤ same ≤ near ≤ alike.

    >>> Closeness(same=11, near=44, alike=52).word(45)
    'alike'
    """

    same: int
    near: int
    alike: int

    def word(self, distance: int) -> str:
        """The word for a distance: a key of MEANINGS."""
        if distance <= self.same:
            return "same"
        if distance <= self.near:
            return "near"
        return "alike" if distance <= self.alike else "far"

    def as_dict(self) -> dict[str, int]:
        return {"same": self.same, "near": self.near, "alike": self.alike}


def closeness_from(raw: Mapping[str, object]) -> Closeness:
    """Read what `as_dict` wrote. Raises ValueError with the reason if it is not that."""
    if raw.keys() != {"same", "near", "alike"}:
        raise ValueError("it has entries other than same, near and alike")
    distances = [raw[name] for name in ("same", "near", "alike")]
    if not all(type(distance) is int for distance in distances):
        raise ValueError("a distance is a whole number of bits")
    found = Closeness(**raw)  # type: ignore[arg-type]
    if not 0 <= found.same <= found.near <= found.alike:
        raise ValueError("the distances are not 0 ≤ same ≤ near ≤ alike")
    return found
