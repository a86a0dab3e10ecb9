"""Starting a process on a node, and loading a part's codes into it."""

import logging
from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from threading import Semaphore
from typing import Any

import numpy as np
import ray
from numpy.typing import NDArray
from ray.exceptions import RayTaskError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

import hashsearch
from hashsearch.distributed.calls import answer_of
from hashsearch.distributed.holder import Holder
from hashsearch.distributed.pieces import Piece, indices
from hashsearch.errors import HashSearchError
from hashsearch.search.parts import Part

_log = logging.getLogger(__name__)

_START_S = 120.0  # for a process to start on a node
_ANSWER_S = 10.0  # for a call that only copies memory
_READ_S = 2**20 / 10  # codes that are read or sent in a second, at least: 3 MB
_SENT_ROWS = 2**19  # codes that are sent in one message, 16 MB
_PINGS = "pings"  # are answered by a thread of their own
_THREADS = 8  # calls that a process answers at a time


@dataclass(slots=True, eq=False)
class Slice:
    """A part of a base, and where its codes are.

    start: position of the first in the base. size: number of codes. pieces: each with the stored
    array that it is of, which is sent to nodes that cannot read it.
    """

    part: Part
    start: int
    size: int
    pieces: Sequence[tuple[Piece, NDArray[np.uint8]]]


@dataclass(slots=True, eq=False)
class Replica:
    """A copy of a slice, of which one thread at a time takes care.

    actor: the handle of a Holder; None while there is none. is_stuck: whether a search took too
    long in it. ping: one that is not answered yet, asked_at: when it was sent, by the monotonic
    clock, or loading failed. failures: of pings in a row. failed_on: how often each node failed to
    load it, or fell silent with it. wait_s: until loading is tried again. lists: numbers of the
    lists that it has.
    """

    slice: int
    node: str = ""
    actor: Any = None
    codes_from: str | None = None
    is_up: bool = False
    is_loading: bool = False
    is_stuck: bool = False
    ping: Any = None
    asked_at: float = 0.0
    failures: int = 0
    failed_on: Counter[str] = field(default_factory=Counter)
    wait_s: float = 0.0
    lists: set[int] = field(default_factory=set)


def alive_nodes() -> list[str]:
    """The ids of the nodes that are alive, sorted."""
    return sorted(node["NodeID"] for node in ray.nodes() if node["Alive"])


def holder_on(node: str) -> Any:
    """A new process on a node, which must be alive: the handle of a Holder.

    It reserves no processor, so that a new base is loaded beside the former one. It is not
    restarted by Ray, which would not keep the copies of a part on different nodes. It ends when
    its handle is garbage.
    """
    remote: Any = ray.remote  # whose types lack the parameter
    return remote(concurrency_groups={_PINGS: 1})(Holder).options(
        num_cpus=0,
        max_concurrency=_THREADS,
        scheduling_strategy=NodeAffinitySchedulingStrategy(node, soft=False),
    ).remote()  # fmt: skip


def ping(holder: Any, wanted: Collection[int], dropped: Collection[int]) -> Any:
    """Ask a process whether it is whole; its searches need not end for that."""
    return holder.is_whole.options(concurrency_group=_PINGS).remote(wanted, dropped)


def fill(holder: Any, one: Slice, sending: Semaphore) -> str:
    """Load a part's codes, and say from where: "folder" or "service".

    sending: held while they are sent. Raises RayError, also if the node has another version, and
    as `answer_of`.
    """
    limit_s = read_s(one.size)
    pieces = [piece for piece, _ in one.pieces]
    read = holder.read.remote(hashsearch.__version__, pieces, one.size)
    why = answer_of(read, _START_S + limit_s)
    if why is None:
        return "folder"
    _log.warning(
        "part %d of %d is sent to its node, which cannot read it: %s",
        one.part.number, one.part.of, why,
    )  # fmt: skip
    with sending:
        answer_of(holder.begin.remote(one.size), limit_s)
        for piece, stored in one.pieces:
            for start in range(0, len(piece.rows), _SENT_ROWS):
                some = slice(start, start + _SENT_ROWS)
                codes = np.ascontiguousarray(stored[indices(piece.rows[some])])
                take = holder.take.remote(indices(piece.positions[some]), codes)
                answer_of(take, limit_s)
        answer_of(holder.end.remote(), limit_s)
    return "service"


def read_s(size: int) -> float:
    """Seconds in which so many codes are read, or sent, by any node."""
    return _ANSWER_S + size / _READ_S


def said(error: Exception) -> str:
    """One line of an error."""
    cause = error.cause if isinstance(error, RayTaskError) else error
    lines = [line for line in str(cause).splitlines() if line.strip()] or [""]
    if isinstance(cause, HashSearchError):
        return lines[0]
    missing = [line for line in lines if "ModuleNotFoundError" in line]  # deep in a traceback
    return missing[-1].strip() if missing else f"{type(cause).__name__}: {lines[0]}".rstrip(": ")
