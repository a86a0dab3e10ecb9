"""What worker processes do to one image: read, identify, decode.

This module imports no torch, so that a worker starts quickly and stays small.
"""

import hashlib
import os
import signal
import warnings
from dataclasses import dataclass
from multiprocessing import parent_process
from threading import Thread
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hashsearch.errors import InvalidImage
from hashsearch.images import quiet_pillow
from hashsearch.sources.base import SourceImage
from hashsearch.sources.loading import decode_image

_NICE = 10


@dataclass(frozen=True, slots=True)
class Prepared:
    """A decoded image and its key.

    key: SHA-256 of the file's bytes; for an array, of its bytes, preceded by its
    shape as three little-endian int64 unless it is 32×32. columns: what `Encoder.columns` makes
    of it, each (width,) uint8, if it was encoded where it was decoded.
    """

    key: bytes
    tiny: NDArray[np.uint8]
    width: int
    height: int
    thumbnail: bytes | None
    columns: dict[str, NDArray[np.uint8]] | None = None


def prepare(images: list[SourceImage], thumbnails: bool = True) -> list[Prepared | InvalidImage]:
    """Prepare images one by one; a bad image becomes its InvalidImage and stops no other."""
    return [_prepare_or_error(image, thumbnails) for image in images]


def prepare_one(image: SourceImage | bytes, thumbnail: bool) -> Prepared:
    """Prepare one image, or the bytes of a file. Raises InvalidImage."""
    if isinstance(image, bytes):
        image = SourceImage("", None, len(image), 0, image)
    (result,) = prepare([image], thumbnail)
    if isinstance(result, InvalidImage):
        raise result
    return result


def unreadable(error: OSError) -> InvalidImage:
    return InvalidImage(f"the file cannot be read: {error.strerror}")


def start_worker(started: Any) -> None:
    """Set up a worker process: it leaves Ctrl-C to its parent, and ends with it.

    started: a semaphore, released at the end.
    Its priority is lower than its parent's, so that decoded images are encoded and
    written at once, and the two displace each other from core and caches less often.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    Thread(target=_end_with_parent, daemon=True).start()
    give_way()
    started.release()


def give_way() -> None:
    """Lower this process's priority, and leave out Pillow's warnings, which nobody reads here."""
    os.nice(_NICE)
    quiet_pillow()
    warnings.filterwarnings("ignore", module="PIL")


def _end_with_parent() -> None:
    parent = parent_process()
    assert parent is not None, "a worker has a parent"
    parent.join()
    os._exit(1)


def _prepare_or_error(image: SourceImage, thumbnails: bool) -> Prepared | InvalidImage:
    try:
        return _prepare(image, thumbnails)
    except InvalidImage as error:
        # Without its cause: Pillow's errors may not survive pickling between processes.
        return type(error)(str(error))
    except OSError as error:
        return unreadable(error)
    except MemoryError:
        return InvalidImage("there is not enough memory to decode the image")


def _prepare(image: SourceImage, thumbnails: bool) -> Prepared:
    content, decoded = decode_image(image, thumbnail=thumbnails)
    key = hashlib.sha256()
    if isinstance(content, np.ndarray):
        if content.shape != decoded.tiny.shape:
            key.update(np.array(content.shape, "<i8").tobytes())
        key.update(np.ascontiguousarray(content).data)
    else:
        key.update(content)
    return Prepared(
        key=key.digest(),
        tiny=decoded.tiny,
        width=decoded.width,
        height=decoded.height,
        thumbnail=decoded.thumbnail,
    )
