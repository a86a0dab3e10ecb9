"""Indexes whose codes lie in parts on several machines, of which some may be missing."""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Protocol, runtime_checkable


@dataclass(frozen=True, slots=True, order=True)
class Part:
    """Images of a gallery that follow each other by id, and whose codes lie together.

    number: from 1 to `of`. first_id, last_id: of its images.

    >>> Part(2, of=4, first_id=251, last_id=500).number
    2
    """

    number: int
    of: int
    first_id: int
    last_id: int


@dataclass(frozen=True, slots=True)
class ReplicaState:
    """A copy of a part. node: the machine that holds it, as the cluster names it.

    codes_from: "folder" if it was read from the gallery's folder, "service" if it was sent; None
    while it is being loaded. is_up: whether it is asked.
    """

    node: str
    codes_from: str | None
    is_up: bool


@dataclass(frozen=True, slots=True)
class PartState:
    """A part, its number of images, and its copies."""

    part: Part
    images: int
    replicas: tuple[ReplicaState, ...]


@runtime_checkable
class PartedIndex(Protocol):
    """An index whose codes lie in parts."""

    def part_states(self) -> list[PartState]:
        """The parts, in order of id. Never waits."""
        ...

    @property
    def retries(self) -> int:
        """Number of calls that another copy of a part had to answer, since the start."""
        ...


_noted: ContextVar[set[Part] | None] = ContextVar("noted", default=None)


@contextmanager
def noting_missing() -> Iterator[set[Part]]:
    """Within the block, indexes put the parts that they could not search into this set.

    They belong to the sets of outer blocks too.
    """
    missing: set[Part] = set()
    outer = _noted.get()
    token = _noted.set(missing)
    try:
        yield missing
    finally:
        _noted.reset(token)
        if outer is not None:
            outer |= missing


def note_missing(part: Part) -> bool:
    """Note that a part could not be searched. Returns whether somebody takes the note."""
    missing = _noted.get()
    if missing is not None:
        missing.add(part)
    return missing is not None
