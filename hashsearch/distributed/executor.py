"""The executor of an indexing job whose images are decoded and encoded by a Ray cluster.

The gallery stays with the job, which commits as it does with processes of its own.
"""

import threading
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, suppress
from itertools import cycle, islice
from queue import Empty, SimpleQueue
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from hashsearch import __version__
from hashsearch.distributed.cluster import cluster
from hashsearch.distributed.encoding import Model, NodeResults, Place, Worker, read_here
from hashsearch.errors import ClusterError, InvalidImage
from hashsearch.gallery.gallery_folder import GalleryFolder
from hashsearch.jobs.index.executing import Columns
from hashsearch.jobs.index.prepare import Prepared
from hashsearch.jobs.index.workers import KILLED, Results, limit_s, took_too_long
from hashsearch.models.card import CARD_FILE, WEIGHTS_FILE
from hashsearch.sources.base import SourceImage

_PATIENCE_S = 120.0  # without any worker, for one to start
_LOOK_EVERY_S = 1.0
_TRIES = 2  # of an image that kills its worker, or takes too long
_MOVES = 5  # of a chunk whose node does not answer any more
_COMPARED = 64  # images of each node whose codes are compared with those of this machine


class _Lost(Exception):
    """A worker is gone. reason: what that says of its images, or None if its node is to blame."""

    def __init__(self, reason: str | None):
        super().__init__(reason)
        self.reason = reason


class _Ready(NamedTuple):
    """A worker that waits for images. handle: of the actor."""

    handle: Any
    place: Place


class ClusterExecutor:
    """Prepares and encodes images by one actor for each core of a cluster.

    An actor has one chunk at a time, so that an image that kills it is known. Where a node cannot
    see the files, they are read here and sent. Chunks of a worker that is lost are prepared again
    by others, and a new worker is started for it, where the cluster has room.
    """

    def __init__(self, gallery: GalleryFolder, workers: int | None, address: str | None = None):
        """workers: how many; None means one for each core. address: as of `cluster`."""
        self.count = workers or 0
        self._gallery, self._address = gallery, address
        self._stack = ExitStack()
        self._ready: SimpleQueue[_Ready] = SimpleQueue()
        self._lock = threading.Lock()  # guards the next ones
        self._alive = 0  # workers that have started
        self._idle_since = time.monotonic()  # since when none has
        self._failures = 0  # of workers to start, since one did
        self._refusal = ""  # the reason of the last one
        self._handles: dict[Any, dict[str, Any]] = {}  # of all workers: the options of each
        self._sends_to = set[str]()  # nodes that do not see the files
        self._samples: dict[str, tuple[Place, list[Prepared]]] = {}  # by node
        self._over = threading.Event()

    def __enter__(self) -> "ClusterExecutor":
        with ExitStack() as stack:
            stack.enter_context(cluster(self._address))
            import ray

            seats = _seats(ray.nodes())
            self.count = self.count or len(seats)
            folder = self._gallery.model_folder
            files = {name: (folder / name).read_bytes() for name in (WEIGHTS_FILE, CARD_FILE)}
            model = ray.put(Model(files, self._gallery.precision))
            self._arguments = (model, self._gallery.keeps("thumbnails"))
            self._threads = ThreadPoolExecutor(self.count, "cluster")
            stack.callback(self._end)
            self._idle_since = time.monotonic()
            for options in islice(cycle(seats), self.count):
                self._start(options)
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *exception: object) -> None:
        self._stack.close()

    def submit(self, images: list[SourceImage]) -> "Future[Results]":
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
        """How far codes of other processors differ from those that are made here."""
        remarks = []
        encoder = self._gallery.encoder() if self._samples else None
        for place, images in self._samples.values():
            assert encoder is not None
            ours = encoder.columns(np.stack([one.tiny for one in images]))
            theirs = self.encode(images).result()
            differing = sum(_differing_bits(ours[name], theirs[name]) for name in ours)
            if differing:
                remarks.append(
                    f"codes made by the {place.device} of {place.host} differ from this machine's: "
                    f"{differing / len(images):.2f} bits an image, of {len(images)} that were "
                    "compared"
                )
        return remarks

    def _prepared(self, images: list[SourceImage]) -> Results:
        """Prepare a chunk, or its images one by one if it is lost with its worker."""
        for _ in range(_MOVES):
            try:
                return self._by_a_worker(images)
            except _Lost as lost:
                if lost.reason is not None:
                    break
        return [self._alone(image) for image in images]

    def _alone(self, image: SourceImage) -> Prepared | InvalidImage:
        tries, reason = 0, ""
        for _ in range(_MOVES):
            try:
                return self._by_a_worker([image])[0]
            except _Lost as lost:
                tries += lost.reason is not None
                reason = lost.reason or reason
                if tries == _TRIES:
                    break
        if not reason:
            raise ClusterError(f"{_MOVES} nodes of the cluster were lost one after the other")
        return InvalidImage(reason)

    def _by_a_worker(self, images: list[SourceImage]) -> Results:
        """Prepare images by the next worker that is free. Raises _Lost if it dies, or hangs."""
        worker = self._next()
        is_kept = False
        try:
            node = worker.place.node
            sent = [read_here(one) for one in images] if node in self._sends_to else images
            results = self._ask(worker, sent)
            unseen = [number for number, one in enumerate(results) if one is None]
            if unseen:
                self._sends_to.add(node)
                more = self._ask(worker, [read_here(images[number]) for number in unseen])
                for number, result in zip(unseen, more, strict=True):
                    results[number] = result
            is_kept = True
        finally:
            if is_kept:
                self._ready.put(worker)
            else:
                self._replace(worker)
        done = [one for one in results if one is not None]
        assert len(done) == len(images), "what is sent is always there"
        self._keep_sample(worker.place, done)
        return done

    def _ask(self, worker: _Ready, images: Sequence[SourceImage]) -> NodeResults:
        import ray
        from ray.exceptions import (
            ActorUnavailableError,
            GetTimeoutError,
            OutOfMemoryError,
            RayActorError,
            RayError,
            RayTaskError,
        )

        try:
            call = worker.handle.run.remote(images)
            try:
                results: NodeResults = ray.get(call, timeout=limit_s(images))
            except ActorUnavailableError:  # Ray does not know yet what has died
                ray.get(worker.handle.place.remote(), timeout=_PATIENCE_S)
                raise
        except RayTaskError as error:
            raise ClusterError(f"a worker at {worker.place.host} failed: {error.cause}") from error
        except GetTimeoutError:
            raise _Lost(took_too_long()) from None
        except ActorUnavailableError:
            raise _Lost(None) from None
        except (RayActorError, OutOfMemoryError):
            raise _Lost(KILLED if _is_up(worker.place.node) else None) from None
        except RayError:  # an object went with its node
            raise _Lost(None) from None
        return results

    def _next(self) -> _Ready:
        """The next worker that is free. Raises ClusterError if there is none any more."""
        while True:
            with suppress(Empty):
                return self._ready.get(timeout=_LOOK_EVERY_S)
            with self._lock:
                waited = 0.0 if self._alive else time.monotonic() - self._idle_since
                given_up = self._failures > self.count + _MOVES
            if self._over.is_set():
                raise ClusterError("the job is over")
            if given_up or waited > _PATIENCE_S:
                reason = self._refusal or f"none has started for {_PATIENCE_S:g} seconds"
                raise ClusterError(f"the cluster has no worker for this job: {reason}")

    def _start(self, options: dict[str, Any]) -> None:
        """Start a worker; it is used as soon as the cluster has room for it, and it is ready."""
        import ray

        handle = ray.remote(Worker).options(**options).remote(*self._arguments)
        with self._lock:
            self._handles[handle] = options
        threading.Thread(target=self._wait_for, args=(handle,), daemon=True).start()

    def _wait_for(self, handle: Any) -> None:
        import ray
        from ray.exceptions import RayError

        try:
            place = ray.get(handle.place.remote())
        except Exception as error:  # of any class, once Ray is shut down
            if self._over.is_set():
                return
            with self._lock:
                self._failures += 1
                self._refusal = _reason(error)
                again = self._failures <= self.count + _MOVES and isinstance(error, RayError)
                options = self._handles.pop(handle)
            if again:
                time.sleep(_LOOK_EVERY_S)
                self._start(options)
            return
        with self._lock:
            if place.version != __version__:
                self._failures = self.count + _MOVES + 1
                self._refusal = (
                    f"{place.host} has version {place.version} of hashsearch, and this machine "
                    f"{__version__}"
                )
                return
            self._alive += 1
            self._failures = 0
        self._ready.put(_Ready(handle, place))

    def _replace(self, worker: _Ready) -> None:
        import ray

        with self._lock:
            self._alive -= 1
            self._idle_since = time.monotonic()
            options = self._handles.pop(worker.handle)
        if not self._over.is_set():
            ray.kill(worker.handle)
            self._start(options)

    def _end(self) -> None:
        """Stop all workers, and the threads that wait for them."""
        import ray

        self._over.set()
        with self._lock:
            handles = list(self._handles)
        for handle in handles:
            ray.kill(handle)
        self._threads.shutdown(cancel_futures=True)

    def _keep_sample(self, place: Place, results: Results) -> None:
        if place.node in self._samples:
            return
        good = [one for one in results if isinstance(one, Prepared)][:_COMPARED]
        if good:
            with self._lock:
                self._samples.setdefault(place.node, (place, good))


def _seats(nodes: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Ray's options of a worker for each core: one of each node, then the next of each.

    The workers of a node share its GPUs.
    """
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    rounds = []
    for node in nodes:
        cores, gpus = (node["Resources"].get(name, 0.0) for name in ("CPU", "GPU"))
        if not node["Alive"]:
            continue
        for turn in range(int(cores)):
            options = {
                "num_cpus": 1,
                "num_gpus": min(1.0, int(100 * gpus / cores) / 100),
                # Soft: if the node is lost, another may have room.
                "scheduling_strategy": NodeAffinitySchedulingStrategy(node["NodeID"], soft=True),
            }
            rounds.append((turn, options))
    if not rounds:
        raise ClusterError("the cluster has no cores for this job")
    return [options for _, options in sorted(rounds, key=lambda one: one[0])]


def _is_up(node: str) -> bool:
    """Whether Ray takes a node for alive; it notices after some seconds that one is not."""
    import ray

    return any(one["NodeID"] == node and one["Alive"] for one in ray.nodes())


def _reason(error: BaseException) -> str:
    """The line of an actor's error that says what was wrong."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1] if lines else type(error).__name__


def _differing_bits(ours: NDArray[np.uint8], theirs: NDArray[np.uint8]) -> int:
    return int(np.bitwise_count(ours ^ theirs).sum())
