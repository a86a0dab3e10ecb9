"""Copies of the parts of a base on the nodes of a cluster: loaded, asked, and looked after."""

import logging
import time
import weakref
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from itertools import count
from threading import Event, RLock, Semaphore, Thread
from typing import Any

import numpy as np
import ray
from numpy.typing import NDArray
from ray.exceptions import ActorDiedError, RayError

from hashsearch.distributed.asking import Question, Tally, cluster_errors
from hashsearch.distributed.calls import answer_of, are_allowed, calling
from hashsearch.distributed.loading import (
    Replica,
    Slice,
    alive_nodes,
    fill,
    holder_on,
    ping,
    read_s,
    said,
)
from hashsearch.distributed.placing import first_nodes, in_turn, next_node
from hashsearch.errors import ClusterError, PartMissing
from hashsearch.search.parts import PartState, ReplicaState, note_missing
from hashsearch.wording import counted

_log = logging.getLogger(__name__)

_PING_S = 1.0  # between two looks at the replicas
_HUNG_S = 10.0  # in which a live replica answers a ping, however much it searches
_LOST_S = 30.0  # a replica that does not answer for so long is made again elsewhere
_SENT_AT_ONCE = 2  # parts that are sent; others wait


class Replicas:
    """The copies of a base's slices. May be used from several threads."""

    def __init__(self, slices: Sequence[Slice], copies: int, tally: Tally, *, partial: bool):
        """Load every copy. Raises ClusterError if a slice cannot be loaded anywhere.

        copies: of each slice. partial: whether a slice that has no copy is noted, not refused.
        """
        self.slices, self.tally = slices, tally
        self._partial = partial
        self._of_slice = [[Replica(number) for _ in range(copies)] for number in range(len(slices))]
        self._lists: dict[int, tuple[Any, list[NDArray[np.uint16]], int]] = {}
        self._numbers, self._turns = count(1), count()
        # Garbage may be collected within, and call `drop_lists`.
        self._lock, self._wake = RLock(), Event()
        self._sending = Semaphore(_SENT_AT_ONCE)
        self._errors: dict[int, str] = {}  # the last of each slice
        with calling():
            self._place(copies)
        self._load_all()
        Thread(
            target=_look_after, args=(weakref.ref(self), self._wake), name="replicas", daemon=True
        ).start()

    def _load_all(self) -> None:
        """Load every copy, and one of each slice on any node. Raises ClusterError if none does."""
        loading, missing = list(self._all()), []
        while loading:
            for thread in [self._start_loading(one) for one in loading]:
                thread.join()
            missing = [every for every in self._of_slice if not any(one.is_up for one in every)]
            with calling():
                loading = [one for one, *_ in missing if self._place_again(one)]
            loading = [one for one in loading if one.node not in one.failed_on]
        if missing:
            for one in self._all():
                one.actor = None  # which ends; a traceback may keep this object
            number, part = missing[0][0].slice, self.slices[missing[0][0].slice].part
            nodes = sorted({node[:8] for one in missing[0] for node in one.failed_on})
            raise ClusterError(
                f"part {part.number} of {part.of} of the codes cannot be loaded on any node "
                f"({', '.join(nodes)}): {self._errors[number]}"
            )

    def states(self) -> list[PartState]:
        return [
            PartState(
                one.part,
                one.size,
                tuple(
                    ReplicaState(replica.node[:8], replica.codes_from, replica.is_up)
                    for replica in replicas
                ),
            )
            for one, replicas in zip(self.slices, self._of_slice, strict=True)
        ]

    def ask(self, method: str, arguments: Mapping[int, tuple[Any, ...]]) -> dict[int, Any]:
        """The answers of one copy of each slice, by the slice's number.

        method: of Holder. arguments: by the slice's number. A copy that fails, or does not answer
        pings any more, is replaced by the next: a copy that works is waited for, for minutes.
        Raises PartMissing if a slice has none, unless that may be noted and another one answers,
        ClusterError if the cluster fails, and RayTaskError as `Question.answers`.
        """
        turn = next(self._turns)
        with calling(), cluster_errors():
            choose = partial(self._next, turn)
            found = Question(method, arguments, choose, self._failed, self.tally).answers()
        missing = [self.slices[number].part for number in arguments if number not in found]
        if missing and not (self._partial and found and all(map(note_missing, missing))):
            part = missing[0]
            raise PartMissing(
                f"part {part.number} of {part.of} of the gallery's codes, of the ids from "
                f"{part.first_id} to {part.last_id}, is on no machine at the moment; try again in "
                "some seconds"
            )
        return found

    def _next(self, turn: int, number: int, tried: Sequence[Replica]) -> tuple[Replica, Any] | None:
        """A copy of a slice that is up and was not tried, and its actor; see `in_turn`."""
        with self._lock:
            every = [one for one in self._of_slice[number] if one.is_up and one not in tried]
            chosen = in_turn(every, turn)
            return None if chosen is None else (chosen, chosen.actor)

    def put(self, value: Any) -> Any:
        """A reference to a value, by which many calls have it and each node is sent it once.

        Raises ClusterError if the cluster fails.
        """
        with calling(), cluster_errors():
            return ray.put(value)

    def add_lists(
        self, centroids: NDArray[np.uint8], lists: NDArray[np.uint16], nprobe: int
    ) -> int:
        """Make the lists of an index on every copy, and return the number that they have.

        centroids: (n_lists, 32) uint8. lists: (n,) uint16, the list of each code of the base.
        Raises ClusterError if the cluster fails.
        """
        each = [lists[one.start : one.start + one.size] for one in self.slices]
        with calling(), cluster_errors():
            return self._lists_added(centroids, each, nprobe)

    def _lists_added(
        self, centroids: NDArray[np.uint8], each: list[NDArray[np.uint16]], nprobe: int
    ) -> int:
        with self._lock:
            number = next(self._numbers)
            self._lists[number] = ray.put(centroids), each, nprobe
            there = [(one, one.actor) for one in self._all() if one.is_up]
        calls = {
            actor.take_lists.remote(*self._lists_for(number, replica)): (replica, actor)
            for replica, actor in there
        }
        limit_s = read_s(max((one.size for one in self.slices), default=0))
        until = time.monotonic() + limit_s
        for call, (replica, actor) in calls.items():
            try:
                answer_of(call, until - time.monotonic())
            except (RayError, TimeoutError) as error:
                self._failed(replica, actor, error)
            else:
                with self._lock:
                    if replica.actor is actor:
                        replica.lists.add(number)
        return number

    def drop_lists(self, number: int) -> None:
        """Forget lists; the copies do so at their next ping."""
        with self._lock:
            self._lists.pop(number, None)

    def _lists_for(self, number: int, replica: Replica) -> tuple[Any, ...]:
        centroids, each, nprobe = self._lists[number]
        return number, centroids, each[replica.slice], nprobe

    def _all(self) -> Iterable[Replica]:
        return (one for replicas in self._of_slice for one in replicas)

    def _failed(
        self, replica: Replica, actor: Any, error: Exception, is_stuck: bool = False
    ) -> None:
        """Ask a copy no more until it answers a ping; it may have another actor already.

        is_stuck: whether it is to be made again, although it answers pings.
        """
        with self._lock:
            if not replica.is_up or replica.actor is not actor:
                return
            replica.is_up, replica.ping, replica.is_stuck = False, None, is_stuck
        part = self.slices[replica.slice].part
        _log.warning(
            "part %d of %d fails on node %s: %s",
            part.number, part.of, replica.node[:8], said(error),
        )  # fmt: skip
        self._wake.set()

    def _place(self, copies: int) -> None:
        """Give each copy a node."""
        nodes = alive_nodes()
        if not nodes:
            raise ClusterError("the cluster has no node that is alive")
        if len(nodes) < copies:
            _log.warning(
                "%d replicas of a part share %s; what ends one of these ends several",
                copies,
                counted(len(nodes), "node"),
            )
        placed = first_nodes(len(self.slices), copies, nodes)
        for replicas, places in zip(self._of_slice, placed, strict=True):
            for replica, node in zip(replicas, places, strict=True):
                replica.node = node

    def _place_again(self, replica: Replica) -> bool:
        """Give a copy that failed a node; see `next_node`. Returns whether there is one for it."""
        node = next_node(
            replica.node,
            {one.node for one in self._of_slice[replica.slice] if one is not replica},
            alive_nodes(),
            Counter(one.node for one in self._all() if one is not replica),
            replica.failed_on,
        )
        replica.node = node or replica.node
        return node is not None

    def look(self) -> None:
        """Ping each copy, and replace those that are lost."""
        now = time.monotonic()
        for replica in self._all():
            if replica.is_loading:
                continue
            if replica.is_stuck:
                self._lose(replica, is_silent=True)
            if replica.actor is None and now >= replica.asked_at + replica.wait_s:
                if self._place_again(replica):
                    self._start_loading(replica)
                else:
                    self._wait(replica, now)
            elif replica.actor is not None and replica.ping is None:
                with self._lock:
                    dropped = replica.lists - self._lists.keys()
                    replica.lists -= dropped
                    replica.ping = ping(replica.actor, set(replica.lists), dropped)
                replica.asked_at = now
        pinged = {one.ping: one for one in self._all() if one.ping and not one.is_loading}
        if pinged:
            done, _ = ray.wait(list(pinged), num_returns=len(pinged), timeout=_PING_S / 2)
            for sent, replica in pinged.items():
                if replica.ping is sent:
                    self._see(replica, sent, is_done=sent in done)

    def _wait(self, replica: Replica, now: float) -> None:
        """Look for a node later, and say so once."""
        if replica.wait_s == 0:
            part = self.slices[replica.slice].part
            _log.warning(
                "part %d of %d has a copy less until another node joins: each node that is alive "
                "has one", part.number, part.of,
            )  # fmt: skip
        replica.asked_at, replica.wait_s = now, _PING_S

    def _see(self, replica: Replica, sent: Any, *, is_done: bool) -> None:
        """What a ping says of a copy."""
        if not is_done:
            waited_s = time.monotonic() - replica.asked_at
            if waited_s > _HUNG_S:
                self._failed_ping(replica, "it does not answer")
                if waited_s > _LOST_S:
                    self._lose(replica, is_silent=True)
            return
        replica.ping = None
        try:
            is_whole = ray.get(sent)
        except RayError as error:
            replica.failures += 1
            self._failed_ping(replica, said(error))
            if isinstance(error, ActorDiedError):
                self._lose(replica)
            elif replica.failures > 2:
                self._lose(replica, is_silent=True)
        else:
            replica.failures = 0
            with self._lock:
                is_whole = is_whole and (replica.is_up or self._lists.keys() <= replica.lists)
                is_back = is_whole and not replica.is_up
                replica.is_up = replica.is_up or is_back
            if not is_whole:
                self._failed_ping(replica, "it lacks lists")
                self._lose(replica)
            elif is_back:
                self._say_up(replica)

    def _failed_ping(self, replica: Replica, why: str) -> None:
        sent = replica.ping
        self._failed(replica, replica.actor, ClusterError(why))
        replica.ping = sent  # one that hangs is waited for

    def _lose(self, replica: Replica, *, is_silent: bool = False) -> None:
        """Let a copy be made again. is_silent: its node may be at fault.

        A process that goes on after a silence ends then, unless it was killed by Ray before.
        """
        if is_silent:
            replica.failed_on[replica.node] += 1
        if replica.is_stuck:  # otherwise it would end its searches first
            ray.kill(replica.actor)
        with self._lock:
            replica.actor = replica.ping = replica.codes_from = None
            replica.is_stuck, replica.failures, replica.wait_s = False, 0, 0.0
        self._wake.set()

    def _start_loading(self, replica: Replica) -> Thread:
        replica.is_loading = True
        thread = Thread(target=self._load, args=(replica,), name="loading a part", daemon=True)
        thread.start()
        return thread

    def _load(self, replica: Replica) -> None:
        """Start a copy, load it, and let it be asked."""
        try:
            with calling():
                self._loaded(replica)
            self._say_up(replica)
        except Exception as error:  # of any class, if the cluster is gone meanwhile
            replica.codes_from, replica.asked_at = None, time.monotonic()
            replica.failed_on[replica.node] += 1
            replica.wait_s = min(2 * replica.wait_s + _PING_S, _LOST_S)
            self._errors[replica.slice] = said(error)
            if are_allowed():
                part = self.slices[replica.slice].part
                _log.warning(
                    "part %d of %d cannot be loaded on node %s: %s",
                    part.number, part.of, replica.node[:8], said(error),
                )  # fmt: skip
        finally:
            replica.is_loading = False

    def _loaded(self, replica: Replica) -> None:
        actor, one = holder_on(replica.node), self.slices[replica.slice]
        replica.codes_from = fill(actor, one, self._sending)
        given: set[int] = set()
        while lacking := self._up_unless_lacking(replica, actor, given):
            for number, arguments in lacking.items():
                answer_of(actor.take_lists.remote(*arguments), read_s(one.size))
                given.add(number)

    def _up_unless_lacking(
        self, replica: Replica, actor: Any, given: set[int]
    ) -> dict[int, tuple[Any, ...]]:
        """Let a loaded copy be asked, if there are no lists that it was not given, or say which."""
        with self._lock:
            lacking = {
                number: self._lists_for(number, replica) for number in self._lists.keys() - given
            }
            if not lacking:
                replica.actor, replica.ping, replica.is_up = actor, None, True
                replica.wait_s, replica.lists = 0.0, given
                replica.failed_on.pop(replica.node, None)
            return lacking

    def _say_up(self, replica: Replica) -> None:
        part = self.slices[replica.slice].part
        source = {
            "folder": "read from the gallery's folder",
            "service": "sent by the service",
        }[str(replica.codes_from)]
        _log.info(
            "part %d of %d is on node %s; its codes were %s",
            part.number, part.of, replica.node[:8], source,
        )  # fmt: skip


def _look_after(reference: "weakref.ref[Replicas]", wake: Event) -> None:
    """Look at the replicas from time to time, as long as somebody uses them."""
    while True:
        wake.wait(_PING_S)
        wake.clear()
        replicas = reference()
        if replicas is None or not are_allowed():
            return
        try:
            with calling():
                replicas.look()
        except Exception:  # of any class, if the cluster is gone; the next look may succeed
            if are_allowed():
                _log.exception("the replicas cannot be looked after")
        del replicas
