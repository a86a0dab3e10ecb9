"""Which node holds which copy of a part, and which copy answers a search. Knows nothing of Ray."""

from collections.abc import Sequence
from typing import TypeVar

T = TypeVar("T")


def first_nodes(parts: int, copies: int, nodes: Sequence[str]) -> list[list[str]]:
    """A node for each copy of each part: each node gets about as many.

    nodes: at least one. Copies of a part are on different nodes, unless there are too few.
    """
    apart = parts if parts * copies <= len(nodes) else 1
    return [
        [nodes[(part + apart * copy) % len(nodes)] for copy in range(copies)]
        for part in range(parts)
    ]


def in_turn(copies: Sequence[T], turn: int) -> T | None:
    """The copy of a part that answers a request. None if there is none.

    turn: number of the request, which is the same for all its parts. With the nodes of
    `first_nodes`, a request so asks all nodes, and not the same ones again and again.
    """
    return copies[turn % len(copies)] if copies else None
