"""Encoding on every core, beside the other stages of a job."""

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from threading import Lock
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from hashsearch.encoder import Encoder


class EncodingPool:
    """Encodes several arrays at once, each on one thread.

    Torch's own threads wait for each other within every product. Independent threads need not:
    on two cores they encode 1.2 times as many images per second, and no core is kept busy by
    waiting while worker processes need it. The codes are the same.

    The encoder and torch are loaded when there is something to encode: meanwhile images are
    decoded, and a job without new images needs neither.
    """

    def __init__(self, load: "Callable[[], Encoder]", threads: int):
        self._load = load
        self._encoder: Encoder | None = None
        self._threads_before: int | None = None
        self._lock = Lock()  # guards the two above
        self._pool = ThreadPoolExecutor(threads, "encode")

    def __enter__(self) -> "EncodingPool":
        return self

    def __exit__(self, *exception: object) -> None:
        self._pool.shutdown(cancel_futures=True)
        if self._threads_before is not None:
            import torch

            torch.set_num_threads(self._threads_before)  # for later threads

    def submit(self, tiny: NDArray[np.uint8]) -> Future[dict[str, NDArray[np.uint8]]]:
        """Encode (n, 32, 32, 3) uint8 tiny images; the result is that of Encoder.columns.

        The result raises whatever loading torch and the encoder raises.
        """
        return self._pool.submit(self._encode, tiny)

    def _encode(self, tiny: NDArray[np.uint8]) -> dict[str, NDArray[np.uint8]]:
        import torch

        with self._lock:
            if self._encoder is None:
                self._threads_before = torch.get_num_threads()
                self._encoder = self._load()
        if torch.get_num_threads() > 1:
            torch.set_num_threads(1)
        return self._encoder.columns(tiny)
