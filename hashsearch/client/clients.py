"""The clients, one to call and one to await."""

import asyncio
import time
from collections.abc import AsyncIterator, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, Self, TypeVar, Unpack, cast

import httpx2
import numpy as np
from numpy.typing import NDArray

from hashsearch.client.answers import Answer, GalleryInfo, ListedImage, ServedImage
from hashsearch.client.calls import Done, Received, Send, Service, Steps, Verify, Wait, advance
from hashsearch.client.timing import answered_in_time, timed_transport
from hashsearch.errors import ServiceError
from hashsearch.inputs import PathOrName, Picture
from hashsearch.retrieval.ranking import Hit, Ranking
from hashsearch.search_options import Queryable, SearchOptions

if TYPE_CHECKING:
    from hashsearch.retrieval.duplicates import DuplicateGroup

T = TypeVar("T")

_TIMEOUT_S = 60.0
_FAILURES = (httpx2.TransportError, httpx2.InvalidURL)  # of sending; a call deals with them


class Client:
    """A gallery that a service serves, over HTTP, with most calls of `Gallery`.

    It has search, rank, get, add, remove, duplicates, reconstruct and close, is a context manager,
    has a length, iterates over the gallery's images, and `in` says whether it holds an id. `encode`
    and `info` are its own. remove takes ids alone, duplicates a radius alone, and add one image;
    index, failures, paths, relocate, build_index, built_indexes and export are not there. Paths are
    of this machine, so that `path` of hits and images is None, and uri_prefix is a uri.

    address: of the service, such as "http://127.0.0.1:8000", with its path prefix if it has one.
    key: the API key, of at least 16 characters, which changes need; it is sent with every request,
    to this address alone, and over http: in plain text. timeout: seconds within which a request
    must be answered. verify: a file of the certificates that are trusted, in PEM format, or an
    ssl.SSLContext, for a service with a certificate of its own; None means the usual authorities.

    A service that is busy, is starting or limits the rate of requests is asked again within the
    timeout, when its `Retry-After` says. If no service answers, or a proxy says so (502, 504), the
    request is sent six times within a few seconds. A repeated request changes nothing more.

    A client may be used from several threads at once; a process that is forked makes a client of
    its own. Redirects are not followed, and environment variables, such as of proxies and
    certificates, are not read.

    Raises what `Gallery` raises, and ServiceError where no service answers, refuses, or fails.

    >>> with hashsearch.Client(address) as client:
    ...     len(client)
    300
    """

    def __init__(
        self,
        address: str,
        *,
        key: str | None = None,
        timeout: float = _TIMEOUT_S,
        verify: Verify | None = None,
    ):
        """Raises InvalidQuery if an argument cannot be used."""
        self._service = Service(address, key, timeout, verify)
        self._http = httpx2.Client(
            transport=timed_transport(self._service.verify), **_options(self._service)
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<hashsearch.Client {self._service.address!r}>"

    def close(self) -> None:
        """Close the connections.

        >>> client.close()
        """
        self._http.close()

    def __len__(self) -> int:
        """Number of images."""
        return self.info().images

    def __bool__(self) -> bool:
        return True  # without a request

    def __iter__(self) -> Iterator[ListedImage]:
        """Every image, in order of id, a page of 1,000 a request. Raises ServiceError."""
        page = self._run(self._service.page(None))
        yield from page.images
        while page.next is not None:
            page = self._run(self._service.page(page))
            yield from page.images

    def __contains__(self, image: object) -> bool:
        """Whether the gallery holds an image with this id, or this image as it is.

        image: an id, or an image as `get` or iterating gives it. Raises InvalidQuery for anything
        else, and ServiceError.

        >>> 7 in client, client.get(7) in client, 12345 in client
        (True, True, False)
        """
        return self._run(self._service.holds(image))

    def info(self) -> GalleryInfo:
        """Return what is served, such as the number of images, methods and labels.

        >>> client.info().methods
        ['codes', 'pixels', 'normalized']
        """
        return self._run(self._service.info())

    def search(
        self, query: Queryable | None = None, k: int | None = None, **options: Unpack[SearchOptions]
    ) -> list[Hit]:
        """Find the nearest images, as `Gallery.search` does.

        query, k, options: the same. An image file is sent as it is, a PIL image or an array as PNG;
        the service limits how large a body is, k, and the number of ids, examples and images.
        Whatever `radius` is, at most 1,000 images are found.

        Returns hits whose path is None. Raises InvalidImage, NotInGallery, CodeShapeError,
        InvalidQuery and ServiceError.

        >>> client.search("query.jpg", k=3) == client.search(open("query.jpg", "rb").read(), k=3)
        True
        """
        return self.rank(query, k, **options).hits

    def rank(
        self, query: Queryable | None = None, k: int | None = None, **options: Unpack[SearchOptions]
    ) -> Ranking:
        """Search as `search` does, and say how long the index took, and whether hits were cut off.

        >>> client.rank(7, radius=256).truncated
        False
        """
        return self._run(self._service.rank(query, k, options))

    def encode(self, images: "Sequence[Picture] | NDArray[np.uint8]") -> NDArray[np.uint8]:
        """Compute the codes of images by the gallery's model, one request an image.

        images: as of `hashsearch.encode`. Returns (n, 32) uint8. Raises InvalidImage, InvalidQuery
        and ServiceError.

        >>> client.encode(["query.jpg", "new.jpg"]).shape
        (2, 32)
        """
        return self._run(self._service.encode(images))

    def get(self, image_id: int) -> ServedImage:
        """Return what is known of an image: id, uri, label, width, height, code and more.

        Raises NotInGallery and ServiceError.

        >>> client.get(1).id
        1
        """
        return self._run(self._service.get(image_id))

    def add(self, image: "PathOrName | bytes", label: str | None = None) -> int:
        """Add one image file, given by its path or its bytes, as `Gallery.add` does.

        The service receives the bytes alone, so that the image has no path. Returns its id. Several
        images are several calls. Raises InvalidImage, GalleryReadOnly and ServiceError.

        >>> client.add("new.jpg", label="cat")
        301
        """
        return self._run(self._service.add(image, label))

    def remove(self, ids: Iterable[int]) -> int:
        """Remove images by their ids; ids that the gallery does not hold are passed over.

        Returns how many were removed; if the connection was lost and a request repeated, those that
        it had removed before are not counted. Raises InvalidQuery, GalleryReadOnly and
        ServiceError.

        >>> client.remove(ids=[7])
        1
        """
        return self._run(self._service.remove(ids))

    def duplicates(self, radius: int | None = None) -> "list[DuplicateGroup]":
        """Find groups of near-equal pictures, as `Gallery.duplicates` does.

        The service computes them once after each change; until then, the call waits for at most
        its timeout. A change meanwhile may not be in them yet. The files' path is None, the radius
        at most the distance of near pictures, and of a group of more than 1,000 images some are
        left out. Raises InvalidQuery and ServiceError.

        >>> len(client.duplicates(radius=30)) == len(gallery.duplicates(radius=30))
        True
        """
        return self._run(self._service.duplicates(radius))

    def reconstruct(self, query: Queryable) -> NDArray[np.uint8]:
        """Decode the image that a code stands for: of a stored image, a query image or a code.

        query: as in `search`. Returns (32, 32, 3) uint8 RGB.

        >>> client.reconstruct(1).shape
        (32, 32, 3)
        """
        return self._run(self._service.reconstruct(query))

    def _run(self, steps: Steps[T]) -> T:
        step = advance(steps)
        while not isinstance(step, Done):
            if isinstance(step, Wait):
                time.sleep(step.seconds)
                step = advance(steps)
            else:
                try:
                    answer = self._send(step)
                except _FAILURES as error:
                    step = advance(steps, error)
                else:
                    step = advance(steps, answer)
        return cast(T, step.result)

    def _send(self, step: Send) -> Answer:
        _require_open(self._http, self._service)
        received = Received(self._service, step)
        with answered_in_time(step), self._http.stream(**_request(step)) as response:
            for part in response.iter_raw():
                received.add(part)
        return Answer(response.status_code, response.headers, bytes(received.data))


class AsyncClient:
    """The same as `Client`, for asyncio: its calls are awaited, in one event loop.

    Files are read, pictures encoded and answers parsed in threads. `async for` iterates over the
    images. It has neither a length nor `in`: use `(await client.info()).images`, and `get`, which
    raises NotInGallery.

    >>> import asyncio
    >>> async def search():
    ...     async with hashsearch.AsyncClient(address) as client:
    ...         return await asyncio.gather(*(client.search(n, k=1) for n in range(1, 21)))
    >>> len(asyncio.run(search()))
    20
    """

    def __init__(
        self,
        address: str,
        *,
        key: str | None = None,
        timeout: float = _TIMEOUT_S,
        verify: Verify | None = None,
    ):
        """Raises InvalidQuery if an argument cannot be used."""
        self._service = Service(address, key, timeout, verify)
        self._http = httpx2.AsyncClient(verify=self._service.verify, **_options(self._service))

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exception: object) -> None:
        await self.close()

    def __repr__(self) -> str:
        return f"<hashsearch.AsyncClient {self._service.address!r}>"

    async def close(self) -> None:
        """Close the connections."""
        await self._http.aclose()

    async def __aiter__(self) -> AsyncIterator[ListedImage]:
        """Every image, as `Client` iterates."""
        page = await self._run(self._service.page(None))
        while True:
            for image in page.images:
                yield image
            if page.next is None:
                return
            page = await self._run(self._service.page(page))

    async def info(self) -> GalleryInfo:
        """See `Client.info`."""
        return await self._run(self._service.info())

    async def search(
        self, query: Queryable | None = None, k: int | None = None, **options: Unpack[SearchOptions]
    ) -> list[Hit]:
        """See `Client.search`."""
        return (await self.rank(query, k, **options)).hits

    async def rank(
        self, query: Queryable | None = None, k: int | None = None, **options: Unpack[SearchOptions]
    ) -> Ranking:
        """See `Client.rank`."""
        return await self._run(self._service.rank(query, k, options))

    async def encode(self, images: "Sequence[Picture] | NDArray[np.uint8]") -> NDArray[np.uint8]:
        """See `Client.encode`."""
        return await self._run(self._service.encode(images))

    async def get(self, image_id: int) -> ServedImage:
        """See `Client.get`."""
        return await self._run(self._service.get(image_id))

    async def add(self, image: "PathOrName | bytes", label: str | None = None) -> int:
        """See `Client.add`."""
        return await self._run(self._service.add(image, label))

    async def remove(self, ids: Iterable[int]) -> int:
        """See `Client.remove`."""
        return await self._run(self._service.remove(ids))

    async def duplicates(self, radius: int | None = None) -> "list[DuplicateGroup]":
        """See `Client.duplicates`."""
        return await self._run(self._service.duplicates(radius))

    async def reconstruct(self, query: Queryable) -> NDArray[np.uint8]:
        """See `Client.reconstruct`."""
        return await self._run(self._service.reconstruct(query))

    async def _run(self, steps: Steps[T]) -> T:
        step = await asyncio.to_thread(advance, steps)
        while not isinstance(step, Done):
            if isinstance(step, Wait):
                await asyncio.sleep(step.seconds)
                step = await asyncio.to_thread(advance, steps)
            else:
                try:
                    answer = await self._send(step)
                except _FAILURES as error:
                    step = await asyncio.to_thread(advance, steps, error)
                else:
                    step = await asyncio.to_thread(advance, steps, answer)
        return cast(T, step.result)

    async def _send(self, step: Send) -> Answer:
        _require_open(self._http, self._service)
        received = Received(self._service, step)
        try:
            async with (
                asyncio.timeout(step.seconds_left),
                self._http.stream(**_request(step)) as response,
            ):
                async for part in response.aiter_raw():
                    received.add(part)
        except TimeoutError as error:
            raise httpx2.ReadTimeout("the answer is late") from error
        return Answer(response.status_code, response.headers, bytes(received.data))


def _options(service: Service) -> dict[str, Any]:
    return {
        "base_url": service.address,
        "headers": service.headers,
        "follow_redirects": False,
        "trust_env": False,
    }


def _request(step: Send) -> dict[str, Any]:
    """Arguments of httpx2's `stream`."""
    request = step.request
    kind = request.content_type
    return {
        "method": request.method,
        "url": request.path,
        "params": list(request.params),
        "content": request.content,
        "headers": {} if kind is None else {"Content-Type": kind},
        "timeout": step.seconds_left,
    }


def _require_open(client: httpx2.Client | httpx2.AsyncClient, service: Service) -> None:
    if client.is_closed:
        raise ServiceError(f"the client of {service.address} is closed; make another")
