"""The batch job that fills a gallery: read, decode in workers, encode, write.

Each stage goes on beside the others. Images are taken in the sources' order,
whatever the number of workers, and committed shard by shard. A job that is
killed loses what it had not committed; the same command finds the rest again
and ends with the same content.
"""

import signal
import time
from collections import Counter, deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from threading import Event, Thread, current_thread, main_thread

from hashsearch.errors import HashSearchError, InvalidImage, InvalidSource, TooManyFailures
from hashsearch.gallery.folder import Gallery
from hashsearch.gallery.history import COUNTS, TELL_EVERY_S, Telling
from hashsearch.hardware import usable_cores
from hashsearch.jobs.index.encoding import EncodingPool
from hashsearch.jobs.index.filling import Filling, Sorting
from hashsearch.jobs.index.prepare import Prepared
from hashsearch.jobs.index.reading import Chunk, chunks_of_all, read_ahead
from hashsearch.jobs.index.workers import Workers
from hashsearch.progress import ProgressReport, progress_report
from hashsearch.sources.base import Source, decode_path

_WRITING_BEHIND = 16  # batches: what comes in while a full shard is committed


@dataclass(frozen=True, slots=True)
class IndexSummary:
    """What a job did: images by what became of them."""

    indexed: int
    duplicates: int  # the same bytes are in the gallery under another uri
    unchanged: int  # in the gallery already
    failed: int
    skipped: int  # failed in an earlier job, and not tried again
    passed_over: Counter[str]  # other files, by suffix
    seconds: float


def require_images(source: Source) -> None:
    """Raise InvalidSource if a source holds no image at all."""
    if next(iter(source), None) is None:
        kinds = ", ".join(f"{count} {suffix}" for suffix, count in source.passed_over.items())
        raise InvalidSource(
            f"{source.root} holds no image files" + (f" (but {kinds})" if kinds else "")
        )


def index_sources(
    gallery: Gallery,
    sources: Sequence[Source],
    *,
    workers: int,
    max_failures: int | None = None,
    retry_failed: bool = False,
    relabel: bool = False,
) -> IndexSummary:
    """Add every image of the sources that the gallery does not hold yet.

    max_failures: give up when there are more. retry_failed: try again what
    earlier jobs could not read; it is skipped otherwise, unless it changed.
    relabel: give unchanged images the labels that the sources tell now.
    Raises GalleryBusy if another job is at work, TooManyFailures, and
    InvalidSource if a source breaks off, after what it and the others hold was
    taken. After too many failures, or on Ctrl-C or SIGTERM (KeyboardInterrupt),
    what was read by then is committed first; on a disk's error the last commit
    stands.
    """
    started = time.monotonic()
    with gallery.job_lock(), _stop_signals() as stop:
        names = [gallery.catalog.source_name(source.root) for source in sources]
        sorting = Sorting(gallery, relabel=relabel)
        filling = Filling(gallery, sorting)
        with (
            Telling(gallery.catalog, "index", names, lambda: filling.counts) as telling,
            filling,
            Workers(workers, thumbnails=gallery.keeps("thumbnails")) as pool,
            EncodingPool(gallery.encoder, usable_cores()) as encoders,
        ):
            # Nobody waits for it: it may be on a long walk through a folder.
            Thread(target=_estimate, args=(sources, telling), name="estimate", daemon=True).start()
            job = _Pass(sorting, filling, pool, encoders, stop, max_failures, telling)
            retry = retry_failed
            while True:
                job.go(chunks_of_all(gallery.catalog, names, sources, relabel=relabel, retry=retry))
                telling.stopped = job.is_over()
                if job.is_over() or not sorting.wants_another_look():
                    break
                filling.begin_another_look()
                retry = False  # what failed has just been tried
            if job.has_failed_too_often():
                raise TooManyFailures(
                    f"stopped: {sorting.failed:,} images could not be read, and at most "
                    f"{max_failures:,} failures were allowed; what was read is in the gallery, "
                    f"and hashsearch gallery failures {gallery.folder} lists the others"
                )
            if retry_failed and not stop.is_set():
                _forget_what_is_gone(gallery, names)
    if stop.is_set():
        raise KeyboardInterrupt
    passed_over: Counter[str] = Counter()
    for source in sources:
        passed_over.update(source.passed_over)
    return IndexSummary(
        **{name: max(0, filling.counts[name]) for name in COUNTS},
        passed_over=passed_over,
        seconds=time.monotonic() - started,
    )


@dataclass(frozen=True, slots=True)
class _Pass:
    """One going through the sources."""

    sorting: Sorting
    filling: Filling
    workers: Workers
    encoders: EncodingPool
    stop: Event
    max_failures: int | None
    telling: Telling

    def is_over(self) -> bool:
        """Whether a person, or the number of failures, wants no more images to be taken."""
        return self.has_failed_too_often() or self.stop.is_set()

    def has_failed_too_often(self) -> bool:
        return self.max_failures is not None and self.sorting.failed > self.max_failures

    def go(self, every: Iterator[Chunk]) -> None:
        broken: HashSearchError | None = None
        with progress_report("indexing") as report, ThreadPoolExecutor(1, "write") as writing:
            try:
                waiting: deque[tuple[int, Future[None]]] = deque()
                try:
                    for chunk, results in self._prepared(every):
                        batch = self.sorting.sort(chunk, results)
                        codes = self.encoders.submit(batch.tiny) if batch.images else None
                        waiting.append(
                            (len(chunk), writing.submit(self.filling.take, batch, codes))
                        )
                        self._settle(waiting, _WRITING_BEHIND, report)
                        if self.is_over():
                            break
                except HashSearchError as error:
                    broken = error
                self._settle(waiting, 0, report)
                writing.submit(self.filling.commit).result()
            except BaseException:
                self.filling.stop()
                raise
        if broken is not None:
            raise broken

    def _prepared(
        self, every: Iterator[Chunk]
    ) -> Iterator[tuple[Chunk, list[Prepared | InvalidImage]]]:
        """Prepare chunks in worker processes, a few of them before they are taken."""
        submitted = ((chunk, self.workers.submit(chunk.images)) for chunk in every)
        for chunk, future in read_ahead(submitted, 2 * self.workers.count + 1):
            yield chunk, self.workers.result(chunk.images, future)

    def _settle(
        self, waiting: deque[tuple[int, Future[None]]], left: int, report: ProgressReport
    ) -> None:
        """Wait until all but so many batches are written; raise what that raised."""
        while len(waiting) > left:
            images, written = waiting.popleft()
            written.result()
            failed = self.filling.counts["failed"]
            report.total = self.telling.expected
            report.advance(images, f"{failed:,} failed" if failed else "")


def _estimate(sources: Sequence[Source], telling: Telling) -> None:
    """Keep up how many images there will be, as the sources get to know it."""
    while not telling.is_over():
        with suppress(OSError):  # the job itself will meet it
            estimates = [source.estimate() for source in sources]
            known = [estimate for estimate in estimates if estimate is not None]
            telling.expected = sum(known) if len(known) == len(estimates) else None
        time.sleep(TELL_EVERY_S)


def _forget_what_is_gone(gallery: Gallery, names: Sequence[str]) -> None:
    """Drop the failures of these sources whose file is there no more."""
    roots = gallery.catalog.sources()
    gone = []
    for failure, _ in gallery.catalog.failures():
        name, _, place = failure.uri.partition("#")[0].partition("/")
        with suppress(PermissionError):  # it may still be there
            if name in names and not (roots[name] / decode_path(place)).exists():
                gone.append(failure.uri)
    if gone:
        gallery.commit(None, [], mended=gone)


@contextmanager
def _stop_signals() -> Iterator[Event]:
    """Turn Ctrl-C and SIGTERM into an event, looked at between chunks and not within a commit.

    A second one interrupts at once, and what was not committed is dropped.
    """
    stop = Event()
    if current_thread() is not main_thread():  # where Python sets no handlers
        yield stop
        return

    def handle(*_: object) -> None:
        if stop.is_set():
            raise KeyboardInterrupt
        stop.set()

    signals = (signal.SIGINT, signal.SIGTERM)
    before = [signal.signal(number, handle) for number in signals]
    try:
        yield stop
    finally:
        for number, handler in zip(signals, before, strict=True):
            signal.signal(number, handler)
