"""Figures for Prometheus: requests, stages, queues, the gallery and the process."""

from collections.abc import Iterator, Mapping

from prometheus_client import CollectorRegistry, Counter, Histogram, Info, ProcessCollector
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4, generate_latest
from prometheus_client.registry import Collector

import hashsearch
from hashsearch.retrieval.methods import DEFAULT_METHOD
from hashsearch.retrieval.searcher import Searcher
from hashsearch.search.parts import PartedIndex
from service.body import BodyMemory
from service.engine import Engine
from service.lanes import Lanes
from service.stages import STAGES

_SECONDS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)
_IMAGES = (1, 2, 4, 8, 16, 32)
_METHODS = frozenset(("DELETE", "GET", "HEAD", "OPTIONS", "PATCH", "POST", "PUT"))
MEDIA_TYPE = CONTENT_TYPE_PLAIN_0_0_4  # which every collector reads
OTHER = "other"  # every path without a route, and every method that is rare


class Metrics:
    """The figures of one application. May be used from many threads.

    Label values are bounded: routes by their templates, methods by a list.
    """

    def __init__(self) -> None:
        registry = self._registry = CollectorRegistry()
        ProcessCollector(registry=registry)
        info = Info("hashsearch", "Version of the service.", registry=registry)
        info.info({"version": hashsearch.__version__})
        self._requests = Counter(
            "hashsearch_requests",
            "Requests by route, method and status; the status is none if no answer was sent.",
            ("route", "method", "status"),
            registry=registry,
        )
        self._problems = Counter(
            "hashsearch_problems",
            "Problems that were answered, by route and code.",
            ("route", "code"),
            registry=registry,
        )
        self._seconds = Histogram(
            "hashsearch_request_seconds",
            "Time from a request's headers to the end of its answer.",
            ("route", "method"),
            buckets=_SECONDS,
            registry=registry,
        )
        stages = Histogram(
            "hashsearch_stage_seconds",
            "Time that a request spent in a stage.",
            ("stage",),
            buckets=_SECONDS,
            registry=registry,
        )
        self._stages = {stage: stages.labels(stage) for stage in STAGES}
        self._batches = Histogram(
            "hashsearch_batch_images",
            "Images that were encoded in one batch.",
            buckets=_IMAGES,
            registry=registry,
        )
        self._partial = Counter(
            "hashsearch_partial_answers",
            "Answers to searches that lack a part of the codes.",
            registry=registry,
        )

    def watch(self, engine: Engine, lanes: Lanes, bodies: BodyMemory) -> None:
        """Read these at each scrape; none of them waits for anything."""
        self._registry.register(_State(engine, lanes, bodies))

    def count_request(
        self,
        route: str,
        method: str,
        status: int,
        code: str | None,
        seconds: float,
        stages: Mapping[str, float],
    ) -> None:
        """status: 0 if no answer was sent. code: of the problem. stages: seconds by stage."""
        method = method if method in _METHODS else OTHER
        self._requests.labels(route, method, str(status or "none")).inc()
        if code is not None:
            self._problems.labels(route, code).inc()
        self._seconds.labels(route, method).observe(seconds)
        for stage, spent in stages.items():
            self._stages[stage].observe(spent)

    def count_batch(self, images: int) -> None:
        self._batches.observe(images)

    def count_partial(self) -> None:
        self._partial.inc()

    def exposition(self) -> bytes:
        """All figures, in the format of MEDIA_TYPE."""
        return generate_latest(self._registry)


class _State(Collector):
    """What is read at the moment of a scrape."""

    def __init__(self, engine: Engine, lanes: Lanes, bodies: BodyMemory):
        self._engine, self._lanes, self._bodies = engine, lanes, bodies

    def collect(self) -> Iterator[Metric]:
        served = self._engine.served
        yield GaugeMetricFamily(
            "hashsearch_gallery_loaded", "1 once the gallery is loaded.", float(served is not None)
        )
        ready = served is not None and served.gallery.catalog.is_in_place()
        yield GaugeMetricFamily(
            "hashsearch_gallery_ready", "1 while the gallery is loaded and in place.", float(ready)
        )
        if served is not None:
            yield GaugeMetricFamily(
                "hashsearch_gallery_images", "Images that can be found.", len(served)
            )
            yield GaugeMetricFamily(
                "hashsearch_gallery_generation",
                "Generation of the gallery that was served last.",
                served.generation,
            )
            yield from _of_parts(served)
        size = GaugeMetricFamily(
            "hashsearch_queue_size",
            "Images, or other requests, that are at work or wait.",
            labels=["lane"],
        )
        limit = GaugeMetricFamily(
            "hashsearch_queue_limit", "Size at which a lane answers 503.", labels=["lane"]
        )
        for lane in self._lanes.all():
            size.add_metric([lane.name], lane.size)
            limit.add_metric([lane.name], lane.most)
        yield from (size, limit)
        yield GaugeMetricFamily(
            "hashsearch_body_bytes", "Bytes of bodies that are in memory.", self._bodies.held
        )
        yield GaugeMetricFamily(
            "hashsearch_body_bytes_limit",
            "Bytes of bodies at which the service answers 503.",
            self._bodies.most,
        )


def _of_parts(served: Searcher) -> Iterator[Metric]:
    """Figures of a gallery whose codes are on a cluster; none otherwise."""
    codes = served.state.live.base.indexes[DEFAULT_METHOD]
    if not isinstance(codes, PartedIndex):
        return
    every = [[one.is_up for one in state.replicas] for state in codes.part_states()]
    yield GaugeMetricFamily("hashsearch_parts", "Parts of the codes on the cluster.", len(every))
    yield GaugeMetricFamily(
        "hashsearch_parts_missing",
        "Parts of the codes that are on no machine.",
        sum(not any(replicas) for replicas in every),
    )
    yield GaugeMetricFamily(
        "hashsearch_replicas", "Copies of parts that are wanted.", sum(map(len, every))
    )
    yield GaugeMetricFamily(
        "hashsearch_replicas_up", "Copies of parts that are searched.", sum(map(sum, every))
    )
    yield CounterMetricFamily(
        "hashsearch_part_retries",
        "Calls that another copy of a part had to answer.",
        codes.retries,
    )
