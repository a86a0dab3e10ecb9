"""Where a job's images are decoded and encoded: by processes and threads of this machine, or
wherever another executor takes them."""

from collections.abc import Callable, Sequence
from concurrent.futures import Future
from contextlib import ExitStack
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from hashsearch.gallery.gallery_folder import GalleryFolder
from hashsearch.hardware import usable_cores
from hashsearch.jobs.index.encoding import EncodingPool
from hashsearch.jobs.index.prepare import Prepared
from hashsearch.jobs.index.workers import Pending, Results, Workers
from hashsearch.sources.base import SourceImage

Columns = dict[str, NDArray[np.uint8]]


class Executor(Protocol):
    """Prepares and encodes images while a `with` block lasts.

    One thread submits, and one asks for results. What an executor returns must not depend on
    anything but the images and the gallery's model.
    """

    ahead: int
    """Number of chunks that may be submitted and not asked for, once the block is entered."""

    def __enter__(self) -> "Executor": ...

    def __exit__(self, *exception: object) -> None: ...

    def submit(self, images: list[SourceImage]) -> Any:
        """Begin to prepare images; `result` takes what this returns."""
        ...

    def result(self, pending: Any) -> Results:
        """The outcome of each image; one that kills its worker, or holds it up, fails alone.

        Raises WorkersFailed or ClusterError if nothing can be prepared any more.
        """
        ...

    def encode(self, new: Sequence[Prepared]) -> Future[Columns]:
        """What `Encoder.columns` makes of prepared images, in their order; at least one."""
        ...

    def remarks(self) -> list[str]:
        """What people should know about the results, in sentences, when all were asked for."""
        ...


class LocalExecutor:
    """Decodes in worker processes, and encodes in threads of this process."""

    def __init__(self, gallery: GalleryFolder, workers: int | None):
        """workers: number of processes; None means one for each core."""
        self._count = workers or usable_cores()
        self.ahead = 2 * self._count + 1
        self._gallery = gallery
        self._stack = ExitStack()

    def __enter__(self) -> "LocalExecutor":
        gallery = self._gallery
        with ExitStack() as stack:
            thumbnails = gallery.keeps("thumbnails")
            self._workers = stack.enter_context(Workers(self._count, thumbnails=thumbnails))
            self._encoders = stack.enter_context(EncodingPool(gallery.encoder, usable_cores()))
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *exception: object) -> None:
        self._stack.close()

    def submit(self, images: list[SourceImage]) -> Pending:
        return self._workers.submit(images)

    def result(self, pending: Pending) -> Results:
        return self._workers.result(pending)

    def encode(self, new: Sequence[Prepared]) -> Future[Columns]:
        return self._encoders.submit(np.stack([one.tiny for one in new]))

    def remarks(self) -> list[str]:
        return []


StartExecutor = Callable[[GalleryFolder, int | None], Executor]
"""Makes an executor for a gallery, of so many workers."""
