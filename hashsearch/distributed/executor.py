"""The executor of an indexing job whose images are decoded and encoded by a Ray cluster.

The gallery stays with the job, which commits as it does with processes of its own.
"""

import threading
import time
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, suppress
from itertools import cycle, islice
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from hashsearch.distributed.calls import answer_of, calling
from hashsearch.distributed.cluster import cluster
from hashsearch.distributed.node import (
    Answer,
    Model,
    Node,
    NodeWorker,
    is_here,
    read_here,
    software,
)
from hashsearch.errors import ClusterError, InvalidImage
from hashsearch.gallery.gallery_folder import GalleryFolder
from hashsearch.jobs.index.executing import Columns
from hashsearch.jobs.index.prepare import Prepared
from hashsearch.jobs.index.workers import KILLED, Results, limit_s, took_too_long
from hashsearch.models.card import CARD_FILE, WEIGHTS_FILE
from hashsearch.sources.base import SourceImage

_PATIENCE_S = 120.0  # without any actor, for one to start
_LOOK_EVERY_S = 1.0
_TRIES = 2  # of an image that kills its actor or takes too long, and of a chunk that has an error
_MOVES = 20  # of a chunk whose nodes are lost
_STARTS = 3  # of an actor in a row
_WAITING = 16  # chunks that wait for actors, at most
_COMPARED = 64  # images of each node whose codes are compared with those of this machine


class _Lost(Exception):
    """An actor is gone, or of no use. node: its node.

    blamed: the reason, if its images may be to blame. error: what it raised, if it did.
    """

    def __init__(self, node: str, blamed: str = "", error: str = ""):
        super().__init__(blamed or error)
        self.node, self.blamed, self.error = node, blamed, error


class _Blamed(Exception):
    """Images that made actors die, or hang."""


class _Ready(NamedTuple):
    """An actor that has started. options: with which another one takes its place."""

    actor: Any
    node: Node
    options: Mapping[str, Any]


class ClusterExecutor:
    """Prepares and encodes images by one actor for each core of a cluster.

    An actor has one chunk at a time, so that an image that kills it is known. Where a node does
    not see the files, they are read here and sent. Chunks of an actor that is lost are prepared
    again by others, and a new one is started for it, where the cluster has room.
    """

    def __init__(self, gallery: GalleryFolder, workers: int | None, address: str | None = None):
        """workers: number of actors; None means one for each core. address: as of `cluster`."""
        self.ahead = 0
        self._count = workers
        self._gallery, self._address = gallery, address
        self._software = software()
        self._stack = ExitStack()
        self._changed = threading.Condition()  # held for the next ones
        self._free: list[_Ready] = []
        self._nodes: Counter[str] = Counter()  # number of actors that have started, by node
        self._actors = set[Any]()  # all of them, also those that start
        self._starts: list[threading.Thread] = []  # each waits for an actor to start
        self._seats: list[dict[str, Any]] = []  # options of the actors that are not started yet
        self._since = 0.0  # when there was an actor last
        self._blind = set[str]()  # nodes that do not see the files
        self._samples: dict[tuple[str, str], tuple[Node, list[Prepared]]] = {}
        self._remarks: dict[str, None] = {}  # in order
        self._over = False

    def __enter__(self) -> "ClusterExecutor":
        with ExitStack() as stack:
            stack.enter_context(cluster(self._address, self._count))
            import ray

            seats = _seats(ray.nodes())
            self._seats = list(islice(cycle(seats), self._count or len(seats)))
            self.ahead = len(self._seats) + min(len(self._seats), _WAITING) + 1
            folder = self._gallery.model_folder
            files = {name: (folder / name).read_bytes() for name in (WEIGHTS_FILE, CARD_FILE)}
            model = ray.put(Model(files, self._gallery.precision))
            self._arguments = (model, self._gallery.keeps("thumbnails"))
            self._threads = ThreadPoolExecutor(len(self._seats), "cluster")
            stack.callback(self._end)
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *exception: object) -> None:
        self._stack.close()

    def submit(self, images: list[SourceImage]) -> "Future[Results]":
        if not images:
            done: Future[Results] = Future()
            done.set_result([])
            return done
        seats, self._seats = self._seats, []
        if seats:  # the first images
            self._since = time.monotonic()
            for options in seats:
                self._start(options)
        return self._threads.submit(self._prepared, images)

    def result(self, pending: "Future[Results]") -> Results:
        return pending.result()

    def encode(self, new: Sequence[Prepared]) -> Future[Columns]:
        """The columns that came with the images."""
        columns = [one.columns or {} for one in new]
        done: Future[Columns] = Future()
        done.set_result({name: np.stack([one[name] for one in columns]) for name in columns[0]})
        return done

    def remarks(self) -> list[str]:
        """What went otherwise than on one machine, and how far codes differ from this one's."""
        remarks = list(self._remarks)
        with self._changed:  # chunks that nobody asks for may still be prepared
            samples = [(node, list(images)) for node, images in self._samples.values() if images]
        encoder = self._gallery.encoder() if samples else None
        for node, images in samples:
            assert encoder is not None
            ours = encoder.columns(np.stack([one.tiny for one in images]))["codes"]
            theirs = self.encode(images).result()["codes"]
            bits = int(np.bitwise_count(ours ^ theirs).sum())
            if bits:
                what = "GPU" if node.device == "cuda" else "processor"
                remarks.append(
                    f"the {what} of {node.host} makes slightly different codes: {bits} bits of "
                    f"{len(images)} images differ from those that this machine makes"
                )
        return remarks

    def _prepared(self, images: list[SourceImage]) -> Results:
        """Prepare a chunk, or its images one by one if it is lost with its actor."""
        try:
            return self._tried(images, 1)
        except _Blamed:
            return [self._alone(image) for image in images]

    def _alone(self, image: SourceImage) -> Prepared | InvalidImage:
        try:
            return self._tried([image], _TRIES)[0]
        except _Blamed as blamed:
            return InvalidImage(str(blamed))

    def _tried(self, images: list[SourceImage], tries: int) -> Results:
        """Prepare images, on another node where an actor is lost.

        Raises _Blamed if they may have been to blame so many times, and ClusterError if no actor
        is left, or if actors of two nodes have an error.
        """
        avoided = set[str]()
        blamed, errors = 0, 0
        for _ in range(_MOVES):
            ready = self._next(avoided)
            try:
                return self._by(ready, images)
            except _Lost as lost:
                avoided.add(lost.node)
                blamed += bool(lost.blamed)
                errors += bool(lost.error)
                if lost.blamed and blamed >= tries:
                    raise _Blamed(lost.blamed) from None
                if errors == _TRIES:
                    raise ClusterError(f"images cannot be prepared: {lost.error}") from None
        raise ClusterError(f"{_MOVES} actors were lost one after the other")

    def _by(self, ready: _Ready, images: list[SourceImage]) -> Results:
        """Prepare images by an actor, which is free again afterwards. Raises _Lost."""
        try:
            results = self._seen_by(ready, images)
        except BaseException:
            self._replace(ready)
            raise
        with self._changed:
            _, sample = self._samples.setdefault(
                (ready.node.id, ready.node.device), (ready.node, [])
            )
            good = [one for one in results if isinstance(one, Prepared)]
            sample += good[: _COMPARED - len(sample)]
            self._free.append(ready)
            self._changed.notify()
        return results

    def _seen_by(self, ready: _Ready, images: list[SourceImage]) -> Results:
        """Prepare images by an actor that may not see the files."""
        node = ready.node
        files = [image for image in images if isinstance(image.content, Path)]
        is_blind = node.id in self._blind and bool(files)
        sent = [read_here(image) for image in images] if is_blind else images
        answer = self._ask(ready, sent, files[0] if is_blind else None)
        unseen = [number for number, one in enumerate(answer.results) if one is None]
        results = answer.results
        if unseen:
            more = self._ask(ready, [read_here(images[number]) for number in unseen])
            for number, result in zip(unseen, more.results, strict=True):
                results[number] = result
        if is_blind and answer.sees:
            self._blind.discard(node.id)
        elif any(is_here(images[number]) for number in unseen):  # others have changed meanwhile
            self._blind.add(node.id)
            self._remarks[f"{node.host} did not see all files, so that some were sent to it"] = None
        done = [one for one in results if one is not None]
        assert len(done) == len(images), "what is sent is always there"
        return done

    def _ask(
        self, ready: _Ready, images: Sequence[SourceImage], probe: SourceImage | None = None
    ) -> Answer:
        """What an actor makes of images. Raises _Lost."""
        import ray
        from ray.exceptions import (
            GetTimeoutError,
            OutOfMemoryError,
            RayActorError,
            RayError,
            RayTaskError,
        )

        node = ready.node.id
        try:
            call = ready.actor.run.remote(images, probe)
            answer: Answer = ray.get(call, timeout=limit_s(images))
        except GetTimeoutError:
            raise _Lost(node, took_too_long()) from None
        except RayTaskError as error:
            raise _Lost(node, error=f"{ready.node.host}: {error.cause}") from None
        except (RayActorError, OutOfMemoryError):
            raise _Lost(node, KILLED if _outlived_by_node(ready) else "") from None
        except RayError:  # an object went with its node
            raise _Lost(node) from None
        return answer

    def _next(self, avoided: Collection[str]) -> _Ready:
        """The next free actor, on none of the avoided nodes if there are others.

        Raises ClusterError if there is none any more.
        """
        with self._changed:
            while True:
                if self._over:
                    raise ClusterError("the job is over")
                others = self._nodes.keys() - avoided
                for position, ready in enumerate(self._free):
                    if not others or ready.node.id in others:
                        return self._free.pop(position)
                if self._nodes:
                    self._since = time.monotonic()
                elif not self._starts or time.monotonic() - self._since > _PATIENCE_S:
                    reasons = "; ".join(self._remarks) or f"none started in {_PATIENCE_S:g} s"
                    raise ClusterError(f"the cluster has no room for this job: {reasons}")
                self._changed.wait(_LOOK_EVERY_S)

    def _start(self, options: Mapping[str, Any]) -> None:
        """Start an actor, which is used as soon as the cluster has room for it."""
        thread = threading.Thread(target=self._begin, args=(options,), daemon=True)
        with self._changed:
            if not self._over:
                self._starts.append(thread)
                thread.start()

    def _begin(self, options: Mapping[str, Any]) -> None:
        reason = ""
        try:
            for _ in range(_STARTS):
                try:
                    with calling():
                        self._begin_once(options)
                    return
                except _Refused as refused:
                    reason = str(refused)
                    break
                except Exception as error:  # of any class, once Ray is shut down
                    reason = f"an actor cannot start: {_last_line(error)}"
            self._remarks[reason] = None
        finally:
            with self._changed:
                self._starts.remove(threading.current_thread())
                self._changed.notify_all()

    def _begin_once(self, options: Mapping[str, Any]) -> None:
        import ray

        with self._changed:
            if self._over:
                return
            kind: Any = ray.remote(NodeWorker)
            actor = kind.options(**options).remote(*self._arguments)
            self._actors.add(actor)
        node: Node = answer_of(actor.node.remote())
        differences = [
            f"{name} {node.software.get(name)}, and here is {ours}"
            for name, ours in self._software.items()
            if node.software.get(name) != ours
        ]
        if differences:
            ray.kill(actor)
            raise _Refused(f"{node.host} is not used: it has {', '.join(differences)}")
        with self._changed:
            self._nodes[node.id] += 1
            self._free.append(_Ready(actor, node, options))
            self._changed.notify()

    def _replace(self, lost: _Ready) -> None:
        """Start another actor for one that is lost, and for the free ones of a lost node."""
        import ray

        every = [lost]
        with self._changed:
            if self._over:
                return
            if not _is_up(lost.node.id):
                every += [one for one in self._free if one.node.id == lost.node.id]
                self._free = [one for one in self._free if one.node.id != lost.node.id]
            self._nodes[lost.node.id] -= len(every)
            self._nodes += Counter()  # without the nodes that have none
            self._actors -= {one.actor for one in every}
            self._since = time.monotonic()
        for one in every:
            with suppress(Exception):  # of any class, if Ray is shut down meanwhile
                ray.kill(one.actor)
            self._start(one.options)

    def _end(self) -> None:
        """Stop all actors, and the threads that wait for them."""
        import ray

        with self._changed:
            self._over = True
            actors, starts = list(self._actors), list(self._starts)
            self._changed.notify_all()
        for actor in actors:
            with suppress(Exception):  # of any class, if the cluster is gone
                ray.kill(actor)
        self._threads.shutdown(cancel_futures=True)
        for thread in starts:
            thread.join(_PATIENCE_S)


class _Refused(Exception):
    """A node that would not do the same as this machine."""


def _seats(nodes: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Ray's options of an actor for each core: one of each node, then the next of each.

    On a node with GPUs, as many actors have one each.
    """
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    rounds = []
    for node in nodes:
        cores, gpus = (int(node["Resources"].get(name, 0)) for name in ("CPU", "GPU"))
        for turn in range(cores if node["Alive"] else 0):
            options = {
                "num_cpus": 1,
                "num_gpus": int(turn < gpus),
                # Soft: if the node is lost, another may have room.
                "scheduling_strategy": NodeAffinitySchedulingStrategy(node["NodeID"], soft=True),
            }
            rounds.append((turn, options))
    if not rounds:
        raise ClusterError("the cluster has no cores for this job")
    return [options for _, options in sorted(rounds, key=lambda one: one[0])]


def _outlived_by_node(ready: _Ready) -> bool:
    """Whether an actor died, and its node did not. Ray may know it only after some seconds."""
    import ray
    from ray.exceptions import GetTimeoutError, RayError

    try:
        ray.get(ready.actor.node.remote(), timeout=_PATIENCE_S)
    except GetTimeoutError:
        return False
    except RayError:
        return _is_up(ready.node.id)
    return False  # it answers again


def _is_up(node: str) -> bool:
    import ray

    try:
        return any(one["NodeID"] == node and one["Alive"] for one in ray.nodes())
    except Exception:  # of any class, if the cluster's first machine is gone
        return False


def _last_line(error: BaseException) -> str:
    """The line of an actor's error that says what was wrong."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1] if lines else type(error).__name__
