"""The calls, without input and output: both clients run them.

A call is a generator. It yields what is to be sent, or how long to wait, takes the answer or the
error of sending, and returns the call's result.
"""

import random
import re
import ssl
import time
from collections.abc import Generator, Iterable, Sequence
from dataclasses import dataclass, fields
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from itertools import count, pairwise
from os import PathLike
from typing import TYPE_CHECKING, TypeAlias, TypeVar

import httpx2
import numpy as np
from numpy.typing import NDArray

from hashsearch.client.answers import (
    ADD,
    DUPLICATES,
    ENCODE,
    IMAGE,
    LIST,
    REMOVE,
    Answer,
    GalleryInfo,
    ListedImage,
    Page,
    ServedImage,
    about,
    error_of,
    info_of,
    not_a_service,
    ranking_of,
    read,
)
from hashsearch.client.requests import (
    INFO_REQUEST,
    Request,
    add_request,
    code_or_request,
    duplicates_request,
    encode_request,
    get_request,
    list_request,
    reconstruction_request,
    remove_requests,
    search_request,
)
from hashsearch.codes import code_from_hex
from hashsearch.errors import (
    HashSearchError,
    InvalidImage,
    InvalidQuery,
    NotInGallery,
    ServiceError,
)
from hashsearch.images import TINY_SIDE, decode
from hashsearch.inputs import (
    PathOrName,
    Picture,
    checked_path,
    described,
    several_images,
    shortened,
)
from hashsearch.retrieval.ranking import Ranking
from hashsearch.search_options import Queryable, SearchOptions

if TYPE_CHECKING:
    from hashsearch.retrieval.duplicates import DuplicateGroup

T = TypeVar("T")

MOST_BYTES = 32 * 2**20  # of an answer; one with the most hits and the longest uris has half
_MOST_PAGES = 10_000
_BUSY = (429, 503)
_OF_A_PROXY = (502, 504)  # whose service does not answer: as if no connection were made
_MOST_UNANSWERED = 6  # times that one request is sent without an answer: about five seconds
_FIRST_WAIT_S = 0.25  # doubles each time
_LONGEST_WAIT_S = 5.0
_LONGEST_TIMEOUT_S = 1_000_000  # sockets take not much more


@dataclass(frozen=True, slots=True)
class Send:
    """A request that is to be sent. deadline: by `time.monotonic`, when its answer is to be
    complete."""

    request: Request
    deadline: float

    @property
    def seconds_left(self) -> float:
        return max(self.deadline - time.monotonic(), 0.001)

    @property
    def is_late(self) -> bool:
        return time.monotonic() > self.deadline


@dataclass(frozen=True, slots=True)
class Wait:
    seconds: float


@dataclass(frozen=True, slots=True)
class Done:
    """The result of a call."""

    result: object


Verify: TypeAlias = PathOrName | ssl.SSLContext
Steps: TypeAlias = Generator[Send | Wait, Answer | None, T]


class Received:
    """The body of an answer, as far as it has arrived."""

    def __init__(self, service: "Service", sent: Send):
        self._service, self._sent = service, sent
        self.data = bytearray()

    def add(self, part: bytes) -> None:
        """Raises ServiceError if the answer is too large, and ReadTimeout if it takes too long."""
        self.data += part
        if len(self.data) > MOST_BYTES:
            raise ServiceError(
                f"{self._service.address} answered with more than {MOST_BYTES / 2**20:g} MB"
            )
        if self._sent.is_late:
            raise httpx2.ReadTimeout("the answer is late")


def advance(steps: Steps[T], outcome: Answer | Exception | None = None) -> Send | Wait | Done:
    """Run the steps of a call up to the next. outcome: of the step before."""
    try:
        return steps.throw(outcome) if isinstance(outcome, Exception) else steps.send(outcome)
    except StopIteration as end:
        return Done(end.value)


class Service:
    """A service's address and key, and the calls to it."""

    def __init__(self, address: str, key: str | None, timeout: float, verify: Verify | None):
        """Raises InvalidQuery."""
        self.address, self._key, self.timeout = _checked_address(address), key, timeout
        self.verify = _checked_certificates(verify)
        if key is not None and not (isinstance(key, str) and re.fullmatch(r"[!-~]{16,}", key)):
            raise InvalidQuery("a key is a text of at least 16 ASCII characters, without spaces")
        is_number = isinstance(timeout, int | float) and not isinstance(timeout, bool)
        if not (is_number and 0 < timeout <= _LONGEST_TIMEOUT_S):
            raise InvalidQuery(
                f"a timeout is a number of seconds, above 0 and at most {_LONGEST_TIMEOUT_S:,}; "
                f"got {described(timeout)}"
            )

    @property
    def headers(self) -> dict[str, str]:
        # A compressed answer could grow beyond all bounds.
        headers = {"Accept": "application/json, image/png", "Accept-Encoding": "identity"}
        return headers if self._key is None else headers | {"Authorization": f"Bearer {self._key}"}

    def rank(
        self, query: Queryable | None, k: int | None, options: SearchOptions
    ) -> Steps[Ranking]:
        return ranking_of(
            self.address, (yield from self._answer(search_request(query, k, options)))
        )

    def encode(self, images: "Sequence[Picture] | NDArray[np.uint8]") -> Steps[NDArray[np.uint8]]:
        codes = []
        for number, image in enumerate(several_images(images)):
            try:
                answer = yield from self._answer(encode_request(image))
            except (InvalidImage, InvalidQuery) as error:
                raise about(f"image {number}", error) from error
            codes.append(code_from_hex(read(self.address, answer, ENCODE).code))
        return np.stack(codes) if codes else np.empty((0, 32), np.uint8)

    def get(self, image_id: object) -> Steps[ServedImage]:
        return read(self.address, (yield from self._answer(get_request(image_id))), IMAGE)

    def holds(self, image: object) -> Steps[bool]:
        """image: an id, or an image as a client gives it, which is held if it is as it was."""
        try:
            found = yield from self.get(image.id if isinstance(image, ListedImage) else image)
        except NotInGallery:
            return False
        return not isinstance(image, ListedImage) or all(
            getattr(found, one.name) == getattr(image, one.name) for one in fields(image)
        )

    def page(self, former: Page | None) -> Steps[Page]:
        """The page of the images after a former one; the first after None."""
        after = None if former is None else former.next
        page = read(self.address, (yield from self._answer(list_request(after))), LIST)
        ids = [one.id for one in (former.images[-1:] if former else []) + page.images]
        stays = former is not None and page.next == after
        if stays or any(one >= later for one, later in pairwise(ids)):
            raise not_a_service(self.address)
        return page

    def add(self, image: "PathOrName | bytes", label: str | None) -> Steps[int]:
        answer = yield from self._answer(add_request(image, label))
        return read(self.address, answer, ADD).images[0].id

    def remove(self, ids: Iterable[int]) -> Steps[int]:
        removed = 0
        for request in remove_requests(ids):
            answer = yield from self._answer(request)
            removed += read(self.address, answer, REMOVE).removed
        return removed

    def duplicates(self, radius: int | None) -> "Steps[list[DuplicateGroup]]":
        from hashsearch.retrieval.duplicates import (  # with faiss and scipy
            DuplicateFile,
            DuplicateGroup,
        )

        groups: list[DuplicateGroup] = []
        after: str | None = None
        for _ in range(_MOST_PAGES):
            try:
                answer = yield from self._answer(duplicates_request(radius, after))
            except ServiceError as error:
                if error.code != "list-changed" or after is None:
                    raise
                groups, after = [], None  # the gallery has changed, and the former groups are gone
                continue
            page = read(self.address, answer, DUPLICATES)
            groups += [
                DuplicateGroup(
                    [DuplicateFile(path=None, **dict(file)) for file in group.files],
                    group.diameter,
                    group.diameter_is_lower_bound,
                )
                for group in page.groups
            ]
            after = page.next
            if after is None:
                return groups
        raise not_a_service(self.address)

    def reconstruct(self, query: Queryable) -> Steps[NDArray[np.uint8]]:
        code = code_or_request(query)
        if isinstance(code, Request):
            code = read(self.address, (yield from self._answer(code)), ENCODE).code
        answer = yield from self._answer(reconstruction_request(code))
        try:
            picture = decode(answer.data)
        except InvalidImage as error:
            raise not_a_service(self.address) from error
        if (picture.width, picture.height) != (TINY_SIDE, TINY_SIDE):
            raise not_a_service(self.address)
        return picture.tiny

    def info(self) -> Steps[GalleryInfo]:
        return info_of(self.address, (yield from self._answer(INFO_REQUEST)))

    def _answer(self, request: Request) -> Steps[Answer]:
        """Send a request until it is answered; a repeated one changes nothing more.

        Raises what the last answer stands for if it has another status than 200, and ServiceError
        if there was none.
        """
        deadline = time.monotonic() + self.timeout
        unanswered, last = 0, None
        for again in count():
            error: HashSearchError
            wait = min(_FIRST_WAIT_S * 2 ** min(again, 9), _LONGEST_WAIT_S) * random.uniform(0.5, 1)
            try:
                answer = yield Send(request, deadline)
                assert answer is not None
            except httpx2.TimeoutException as failure:
                late = f"{self.address} did not answer within {self.timeout:g} seconds"
                raise last or ServiceError(late) from failure
            except httpx2.InvalidURL as failure:
                raise InvalidQuery("the label or the uri_prefix is too long for a URL") from failure
            except httpx2.TransportError as failure:
                unanswered += 1
                error = ServiceError(f"{self.address} cannot be reached: {failure}")
                error.__cause__ = failure
                is_final = unanswered == _MOST_UNANSWERED or _is_about_certificates(failure)
            else:
                if answer.status == 200:
                    return answer
                last = error = error_of(self.address, answer)
                if request.image is not None and isinstance(error, InvalidImage):
                    error = about(request.image, error)
                unanswered += answer.status in _OF_A_PROXY
                is_final = (
                    answer.status not in (*_BUSY, *_OF_A_PROXY) or unanswered == _MOST_UNANSWERED
                )
                asked = _seconds(answer.headers.get("Retry-After", "")) * random.uniform(1, 1.25)
                wait = max(wait, asked)
            if is_final or time.monotonic() + wait >= deadline:
                raise error
            yield Wait(wait)
        raise AssertionError("a count ends")


def _checked_address(address: str) -> str:
    wanted = "an address is like http://127.0.0.1:8000, without user, query and fragment"
    if not isinstance(address, str):
        raise InvalidQuery(f"{wanted}; got {described(address)}")
    try:
        url = httpx2.URL(address)
    except httpx2.InvalidURL as error:
        raise InvalidQuery(wanted) from error
    if url.scheme not in ("http", "https") or not url.host or url.userinfo:
        raise InvalidQuery(wanted)
    if url.query or url.fragment or not 0 < (url.port or 80) < 2**16:
        raise InvalidQuery(wanted)
    return str(url).rstrip("/")


def _checked_certificates(verify: Verify | None) -> ssl.SSLContext | bool:
    """The argument `verify` of httpx2."""
    if verify is None:
        return True
    if isinstance(verify, ssl.SSLContext):
        return verify
    if not isinstance(verify, str | PathLike):  # False would trust everybody
        raise InvalidQuery(
            f"{described(verify)} came as verify; a file of certificates or an ssl.SSLContext was "
            "wanted"
        )
    path = checked_path(verify)
    try:
        return ssl.create_default_context(cafile=path)
    except ssl.SSLError as error:
        raise InvalidQuery(f"{shortened(path)} holds no certificates in PEM format") from error
    except OSError as error:
        raise InvalidQuery(f"{shortened(path)} cannot be read: {error.strerror}") from error
    except ValueError as error:  # a zero byte
        raise InvalidQuery(f"{shortened(path)!r} is no path: {error}") from error


def _seconds(retry_after: str) -> float:
    """The seconds that the header Retry-After asks for, as a number or a date; 0 if it does not."""
    if re.fullmatch(r"[0-9]{1,9}", retry_after):
        return float(retry_after)
    try:
        date = parsedate_to_datetime(retry_after)
    except ValueError:
        return 0.0
    if date.tzinfo is None:
        date = date.replace(tzinfo=UTC)
    return max((date - datetime.now(UTC)).total_seconds(), 0.0)


def _is_about_certificates(failure: BaseException) -> bool:
    """Whether a connection failed since the server's certificate is not trusted."""
    cause: BaseException | None = failure
    while cause is not None:
        if isinstance(cause, ssl.SSLError):
            return True
        cause = cause.__cause__ or cause.__context__
    return False
