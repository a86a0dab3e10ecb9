"""Which node holds which copy of a part, and which copy answers a search. Knows nothing of Ray."""

from collections.abc import Collection, Mapping, Sequence
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


def next_node(
    own: str,
    others: Collection[str],
    alive: Sequence[str],
    held: Mapping[str, int],
    failures: Mapping[str, int],
) -> str | None:
    """A node for a copy that was lost; None if it has to wait for one.

    own: its node until now, where it stays if it can. others: nodes of the part's other copies,
    which it does not join: what ends one of them would end two copies, and the node's memory would
    hold the part twice. alive: nodes that may be chosen. held: number of copies on each node.
    failures: how often each node failed to load this copy, or fell silent with it.
    """
    fit = [node for node in alive if node == own or node not in others]
    return min(
        fit, key=lambda one: (failures.get(one, 0), one != own, held.get(one, 0)), default=None
    )


def in_turn(copies: Sequence[T], turn: int) -> T | None:
    """The copy of a part that answers a request. None if there is none.

    turn: number of the request, which is the same for all its parts. With the nodes of
    `first_nodes`, a request so asks all nodes, and not the same ones again and again.
    """
    return copies[turn % len(copies)] if copies else None
