"""An encoder on every core, beside whatever else a job does."""

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from threading import Lock
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from hashsearch.encoder import Encoder


class EncodingPool:
    """Encodes many arrays at once, each on one thread.

    Threads of their own need not wait for each other within a product, as torch's
    do: 1.2 times as many images a second on two cores, and no core is held by
    waiting while worker processes want it. The codes are the same.

    The encoder is loaded, and torch with it, when there is something to encode:
    meanwhile images are decoded, and where none is new there is no need of it.
    """

    def __init__(self, load: "Callable[[], Encoder]", threads: int):
        self._load = load
        self._encoder: Encoder | None = None
        self._threads_before: int | None = None
        self._lock = Lock()  # of these two
        self._pool = ThreadPoolExecutor(threads, "encode")

    def __enter__(self) -> "EncodingPool":
        return self

    def __exit__(self, *exception: object) -> None:
        self._pool.shutdown(cancel_futures=True)
        if self._threads_before is not None:
            import torch

            torch.set_num_threads(self._threads_before)  # for threads to come; kept by thread

    def submit(self, tiny: NDArray[np.uint8]) -> Future[NDArray[np.uint8]]:
        """(n, 32, 32, 3) uint8 tiny images to what will be their (n, 32) uint8 codes.

        What the loading of torch and the encoder raises is raised by the result.
        """
        return self._pool.submit(self._encode, tiny)

    def _encode(self, tiny: NDArray[np.uint8]) -> NDArray[np.uint8]:
        import torch

        with self._lock:
            if self._encoder is None:
                self._threads_before = torch.get_num_threads()
                self._encoder = self._load()
        if torch.get_num_threads() > 1:
            torch.set_num_threads(1)
        return self._encoder.encode(tiny)
