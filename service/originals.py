"""Sending the original file of an image."""

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractContextManager, asynccontextmanager
from urllib.parse import quote

from starlette.requests import ClientDisconnect
from starlette.responses import StreamingResponse
from starlette.types import Receive, Scope, Send

from hashsearch.errors import OriginalMissing
from hashsearch.gallery.gallery_folder import GalleryFolder
from hashsearch.gallery.originals import Original, open_original
from service.engine import Engine
from service.lanes import Lane
from service.problems import QueueFull

_CHUNK_BYTES = 2**18  # that are read at a time
_PIECE_BYTES = 2**15  # that are sent at a time; with less, a client may be slower
_STALLED_S = 10.0  # in which a client takes the next piece: at least about 80 kB
_TOKEN = frozenset("!#$&+-.^_`|~")  # what RFC 5987 lets stand beside letters and digits

_log = logging.getLogger(__name__)


@asynccontextmanager
async def hanging_up(receive: Receive) -> AsyncIterator[Callable[[], bool]]:
    """Within the block, a function that says whether the client has hung up.

    It may be called by any thread. receive: of the request, whose body is passed over.
    """

    async def watch() -> None:
        while (await receive())["type"] != "http.disconnect":
            pass

    watching = asyncio.create_task(watch())
    try:
        yield watching.done
    finally:
        watching.cancel()


def opened(
    engine: Engine, image_id: int, deadline: float, is_gone: Callable[[], bool]
) -> tuple[bytes, Original]:
    """An image's key, and its file.

    deadline: by the monotonic clock. is_gone: whether the client has hung up. Raises
    OriginalMissing, also if the file is not found in time, QueueFull if the time is over before
    the search for it begins, and ClientDisconnect.
    """
    if is_gone():
        raise ClientDisconnect
    if time.monotonic() > deadline:
        raise QueueFull("the service is busy with other archives; try again in a moment")

    def open_(gallery: GalleryFolder) -> tuple[bytes, Original]:
        key = gallery.catalog.key(image_id)
        return key, open_original(
            gallery, image_id, lambda: is_gone() or time.monotonic() > deadline
        )

    try:
        return engine.with_gallery(open_)
    except OriginalMissing as error:
        if is_gone():
            raise ClientDisconnect from error
        raise


def tag_of(key: bytes) -> str:
    """The ETag of the file with this key."""
    return f'"{key.hex()}"'


def headers_of(original: Original) -> dict[str, str]:
    """The headers of a file, with which no browser takes it for anything but a picture."""
    return {
        "Content-Type": original.media_type.name,
        "Content-Length": str(original.size),
        "Content-Disposition": _disposition(original),
        "X-Content-Type-Options": "nosniff",
        "Accept-Ranges": "none",
    }


def _disposition(original: Original) -> str:
    """Content-Disposition (RFC 6266): the name in ASCII, and all of it for those that can read it.

    Neither holds a quote, a backslash or a control character.
    """
    kind = "inline" if original.media_type.in_browsers else "attachment"
    plain = "".join(
        one if one.isascii() and (one.isalnum() or one in _TOKEN or one == " ") else "_"
        for one in original.name
    )
    return f"{kind}; filename=\"{plain}\"; filename*=UTF-8''{quote(original.name, safe=_SAFE)}"


_SAFE = "".join(sorted(_TOKEN))


class OriginalResponse(StreamingResponse):
    """The bytes of an original, read by the threads of a lane while the client takes them.

    No thread waits for the client. The connection is cut if the client takes hardly anything for
    ten seconds, if it does not take all in time, and if the file changes meanwhile.
    """

    def __init__(
        self,
        original: Original,
        lane: Lane,
        held: AbstractContextManager[object],
        headers: dict[str, str],
        seconds: float,
    ):
        """held: the original, and its place in the lane, left at the end. seconds: for all."""
        super().__init__(self._chunks(), headers=headers)
        self._original, self._lane, self._held = original, lane, held
        self._seconds = seconds

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        with self._held:
            try:
                async with asyncio.timeout(self._seconds) as self._limit:
                    self._end = self._limit.when() or 0.0
                    await super().__call__(scope, receive, send)
            except TimeoutError:
                _log.info(
                    "an original was cut off: nothing of it was taken for %g seconds, or not all "
                    "within %g",
                    _STALLED_S,
                    self._seconds,
                )
            except OriginalMissing as error:
                _log.info("an original was cut short: %s", error)

    async def _chunks(self) -> AsyncIterator[bytes]:
        left = self._original.size
        while left:
            self._wait(self._seconds)
            chunk = await self._lane.run_within(lambda: self._original.file.read(_CHUNK_BYTES))
            left -= len(chunk)
            for start in range(0, len(chunk), _PIECE_BYTES):
                self._wait(_STALLED_S)
                yield chunk[start : start + _PIECE_BYTES]

    def _wait(self, seconds: float) -> None:
        """Let the next step take so long, as far as there is time for it."""
        if not self._limit.expired():
            self._limit.reschedule(min(self._end, asyncio.get_running_loop().time() + seconds))
