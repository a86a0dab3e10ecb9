"""The batch job that fills a gallery: read, prepare in worker processes, decide, encode, commit.

The stages run beside each other. Images are taken in the sources' order, whatever the number
of workers, and committed shard by shard. A job that is killed loses only what it had not
committed; running it again completes the gallery to the same content.
"""

import time
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from threading import Thread

from hashsearch.errors import HashSearchError, InvalidImage, InvalidSource, TooManyFailures
from hashsearch.gallery.changes import Changes
from hashsearch.gallery.gallery_folder import GalleryFolder
from hashsearch.gallery.history import COUNTS, UPDATE_EVERY_S, JobRecord
from hashsearch.gallery.naming import join_nested, names_of
from hashsearch.jobs.index.committing import Committer
from hashsearch.jobs.index.deciding import Decider
from hashsearch.jobs.index.executing import Executor, LocalExecutor, StartExecutor
from hashsearch.jobs.index.prepare import Prepared
from hashsearch.jobs.index.pruning import SeenSource, missing_images, remarks_on_sources_away
from hashsearch.jobs.index.pruning import prune as prune_source
from hashsearch.jobs.index.reading import Chunk, chunks_of_all, read_ahead
from hashsearch.progress import ProgressReport, progress_report
from hashsearch.sources.base import Source, file_at, is_gone, nothing_in
from hashsearch.sources.excluding import Excludes, RestOfSource
from hashsearch.wording import counted

_COMMITS_BEHIND = 16  # outcomes that may wait while a full shard is committed


@dataclass(frozen=True, slots=True)
class IndexSummary:
    """Number of images by outcome, and how the job ended.

    >>> gallery.index("pictures").failed
    0
    """

    indexed: int
    duplicates: int  # the gallery has the same bytes from another place, and now knows both
    moved: int  # the gallery has the same bytes from a place where they no longer are
    unchanged: int  # the gallery had them already
    failed: int
    skipped: int  # failed in an earlier job, and not tried again
    excluded: int  # their path matches a pattern that the gallery excludes
    pruned: int  # removed from the gallery, since they are gone from their source
    missing: int  # images whose file is gone from these sources, and that were not pruned
    passed_over: Counter[str]  # files of other kinds, by suffix
    remarks: list[str]  # what else the sources passed over, in sentences
    seconds: float
    stopped: bool  # by request; the same job continues later
    unused_labels: int = 0  # paths in the file of labels that named no image that was read


def require_images(source: Source) -> None:
    """Raise InvalidSource if a source holds no image at all."""
    if next(iter(source), None) is None:
        raise InvalidSource(nothing_in(source, "image files"))


def index_sources(
    gallery: GalleryFolder,
    sources: Sequence[Source],
    *,
    workers: int | None = None,
    executor: StartExecutor = LocalExecutor,
    max_failures: int | None = None,
    retry_failed: bool = False,
    prune: bool = False,
    stop: Callable[[], bool] = lambda: False,
) -> IndexSummary:
    """Add every image of the sources that the gallery does not hold yet.

    Images whose path matches a pattern that the gallery excludes are left out.
    workers: how many images are decoded at the same time; one for each core by default. executor:
    where they are decoded and encoded. max_failures: give up after more failures. retry_failed: try
    files again that earlier jobs could not read; otherwise they are skipped until they change.
    prune: at the end, remove the images that are gone from these sources, but only if all were read
    to their ends. stop: is called before each chunk; once it returns True, what was read is
    committed and the job ends.
    Raises GalleryBusy if another job runs, ArtifactMismatch if the gallery's pictures were decoded
    by earlier image rules, TooManyFailures after what was read is committed, what the executor
    raises, and InvalidSource if a source breaks off, after the rest of it and the other sources
    were taken. After an error of the disk, the last commit stands.
    """
    started = time.monotonic()
    gallery.require_todays_rules()
    with gallery.job_lock():
        catalog = gallery.catalog
        names = names_of(catalog, sources)
        join_nested(catalog)
        excludes = Excludes(catalog.excludes())
        seen = [SeenSource(*both) for both in zip(sources, names, strict=True)]
        taken = [RestOfSource(source, excludes) for source in seen]
        missing, remarks = set[int](), list[str]()
        decider = Decider(gallery)
        committer = Committer(gallery, decider)
        with (
            JobRecord(
                catalog, "index", [one.first for one in names], lambda: committer.counts
            ) as record,
            committer,
            executor(gallery, workers) as pool,
        ):
            # A daemon, since it may be walking through a large folder when the job ends.
            Thread(target=_estimate, args=(sources, record), name="estimate", daemon=True).start()
            job = _Job(decider, committer, pool, stop, max_failures, record)
            if not job.must_end():  # it may take a while until the executor has started
                job.run(chunks_of_all(catalog, names, taken, retry=retry_failed))
                job.must_end()
            committer.counts["excluded"] = sum(rest.excluded for rest in taken)
            if job.has_failed_too_often():
                raise TooManyFailures(
                    f"stopped: {counted(decider.failed, 'image')} could not be read, and the limit "
                    f"of failures is {max_failures:,}; what was read is in the gallery, and "
                    f"hashsearch gallery failures {gallery.folder} lists the others"
                )
            if not record.stopped:
                for one in seen:
                    if prune:
                        committer.counts["pruned"] += prune_source(catalog, one)
                    else:
                        missing |= missing_images(catalog, one)
                    remarks += remarks_on_sources_away(catalog, one)
                    _forget_failures(gallery, one, excludes, missing=retry_failed or prune)
            remarks += pool.remarks()
    passed_over: Counter[str] = Counter()
    for source in sources:
        passed_over.update(source.passed_over)
    return IndexSummary(
        **{name: max(0, committer.counts[name]) for name in COUNTS},
        missing=len(missing),
        passed_over=passed_over,
        remarks=remarks + [f"{one.root}: {remark}" for one in sources for remark in one.remarks],
        seconds=time.monotonic() - started,
        stopped=record.stopped,
    )


@dataclass(frozen=True, slots=True)
class _Job:
    """The stages of a job, which each pass through the sources uses."""

    decider: Decider
    committer: Committer
    executor: Executor
    stop: Callable[[], bool]
    max_failures: int | None
    record: JobRecord

    def must_end(self) -> bool:
        """Whether no more images are to be taken; once that is so, it stays so."""
        if not self.record.stopped:
            self.record.stopped = self.has_failed_too_often() or bool(self.stop())
        return self.record.stopped

    def has_failed_too_often(self) -> bool:
        return self.max_failures is not None and self.decider.failed > self.max_failures

    def run(self, chunks: Iterator[Chunk]) -> None:
        broken: HashSearchError | None = None
        with progress_report("indexing") as report, ThreadPoolExecutor(1, "commit") as committing:
            try:
                waiting: deque[tuple[int, Future[None]]] = deque()
                try:
                    for chunk, results in self._prepared(chunks):
                        outcome = self.decider.decide(chunk, results)
                        encoded = self.executor.encode(outcome.new) if outcome.new else None
                        taken = committing.submit(self.committer.take, outcome, encoded)
                        waiting.append((len(chunk), taken))
                        self._settle(waiting, _COMMITS_BEHIND, report)
                        if self.must_end():
                            break
                except HashSearchError as error:
                    broken = error
                self._settle(waiting, 0, report)
                committing.submit(self.committer.commit).result()
            except BaseException:
                self.committer.stop()
                raise
        if broken is not None:
            raise broken

    def _prepared(
        self, chunks: Iterator[Chunk]
    ) -> Iterator[tuple[Chunk, list[Prepared | InvalidImage]]]:
        """Prepare chunks at other places, a few chunks ahead."""
        submitted = ((chunk, self.executor.submit(chunk.images)) for chunk in chunks)
        for chunk, pending in read_ahead(submitted, self.executor.ahead):
            yield chunk, self.executor.result(pending)

    def _settle(
        self, waiting: deque[tuple[int, Future[None]]], left: int, report: ProgressReport
    ) -> None:
        """Wait until at most `left` outcomes are not taken; raise what taking one raised."""
        while len(waiting) > left:
            images, taken = waiting.popleft()
            taken.result()
            failed = self.committer.counts["failed"]
            report.total = self.record.expected
            report.advance(images, f"{failed:,} failed" if failed else "")


def _estimate(sources: Sequence[Source], record: JobRecord) -> None:
    """Keep the expected number of images up to date, while the sources count."""
    while not record.is_over():
        with suppress(OSError):  # the job itself meets the same error
            estimates = [source.estimate() for source in sources]
            known = [estimate for estimate in estimates if estimate is not None]
            record.expected = sum(known) if len(known) == len(estimates) else None
        time.sleep(UPDATE_EVERY_S)


def _forget_failures(
    gallery: GalleryFolder, seen: SeenSource, excludes: Excludes, *, missing: bool
) -> None:
    """Drop the failures of a source that are excluded.

    missing: drop also those whose file no longer exists.
    """
    over = [
        failure.uri
        for failure, _ in gallery.catalog.failures()
        if (place := seen.names.place(failure.uri)) is not None
        and (excludes.match(place) or (missing and is_gone(file_at(seen.source.root, place))))
    ]
    if over:
        gallery.commit(Changes(readable=over))
