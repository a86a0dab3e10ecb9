"""One table that turns errors into responses: problem+json, RFC 9457."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from http import HTTPMethod, HTTPStatus
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, Response
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.routing import Match
from starlette.types import Receive, Scope, Send

from hashsearch.errors import (
    ClusterError,
    CodeShapeError,
    GalleryBusy,
    GalleryReadOnly,
    HashSearchError,
    ImageTooLarge,
    InvalidImage,
    InvalidQuery,
    NotInGallery,
    OriginalMissing,
    PartMissing,
    UnsupportedFormat,
)
from hashsearch.wording import counted
from service.schemas.problem import Problem
from service.validation import InvalidParameter, invalid_request


class BodyTooLarge(HashSearchError):
    """A request with a larger body than the service reads."""


class BodyTooSlow(HashSearchError):
    """A request whose body does not arrive in time."""


class BeingComputed(HashSearchError):
    """A request for what is being computed in the background."""


class DiskFull(HashSearchError):
    """A change for which the gallery's disk has no room."""


class GalleryReplaced(HashSearchError):
    """A removal by ids of another gallery than the one that is at the path now."""


class GalleryUnavailable(HashSearchError):
    """The gallery's folder is gone, or what is there cannot be read."""


class GalleryLoading(HashSearchError):
    """A request that came before the gallery, or another one in its place, was loaded."""


class HeaderTooLarge(HashSearchError):
    """A request with a larger header than the service reads."""


class ListChanged(HashSearchError):
    """A request for the next page of a list that is no longer kept."""


class MalformedRequest(HashSearchError):
    """An empty body, or one that does not match its content type."""


class OriginalsOff(HashSearchError):
    """A request for an original file while they are not given to clients."""


class QueueFull(HashSearchError):
    """A request that came while the service was busy."""


class Unauthorized(HashSearchError):
    """A request without an API key that the service knows."""

    headers: Mapping[str, str] = {"WWW-Authenticate": "Bearer"}


class WritesOff(HashSearchError):
    """A request that needs an API key, to a service without any."""


class TooManyRequests(HashSearchError):
    """A request of a client that asks more often than it may."""

    def __init__(self, retry_after_s: int):
        super().__init__(f"too many requests; try again in {counted(retry_after_s, 'second')}")
        self.retry_after_s = retry_after_s


class ServiceStopping(HashSearchError):
    """A request that was at work, or waited, for too long after the service was stopped."""


@dataclass(frozen=True, slots=True)
class Row:
    """How an error is answered.

    code: stable; programs rely on it. meaning: for the docs. retry_after_s: seconds of the header
    Retry-After, if it has one.
    """

    error: type[HashSearchError]
    status: int
    code: str
    meaning: str
    retry_after_s: int | None = None


# Narrower classes first.
PROBLEMS = (
    Row(
        MalformedRequest,
        400,
        "malformed-request",
        "the body is empty, or does not match its content type",
    ),
    Row(OriginalsOff, 403, "originals-off", "the service does not give original files"),
    Row(
        OriginalMissing,
        404,
        "original-missing",
        "the image has no file, or it has changed or is gone",
    ),
    Row(Unauthorized, 401, "unauthorized", "a valid API key is needed"),
    Row(WritesOff, 403, "writes-off", "an API key is needed, and the service has none"),
    Row(NotInGallery, 404, "not-in-gallery", "the gallery holds no image with this id"),
    Row(BodyTooSlow, 408, "body-too-slow", "the body did not arrive in time"),
    Row(ListChanged, 409, "list-changed", "the list is no longer kept; start again without after"),
    Row(BodyTooLarge, 413, "body-too-large", "the body is larger than the service reads"),
    Row(
        ImageTooLarge,
        413,
        "image-too-large",
        "the image has too many pixels, or takes too long to decode",
    ),
    Row(HeaderTooLarge, 431, "header-too-large", "the header is larger than the service reads"),
    Row(
        UnsupportedFormat,
        415,
        "unsupported-format",
        "the bytes are not an image in an accepted format, or the body is compressed",
    ),
    Row(InvalidImage, 422, "invalid-image", "the image is damaged"),
    Row(CodeShapeError, 422, "invalid-code", "the code does not have 64 hexadecimal digits"),
    Row(InvalidQuery, 422, "invalid-query", "this gallery cannot answer this search"),
    Row(InvalidParameter, 422, "invalid-parameter", "a parameter or a field cannot be used"),
    Row(GalleryReadOnly, 403, "gallery-read-only", "the gallery cannot be written to"),
    Row(TooManyRequests, 429, "too-many-requests", "the client asks more often than it may", 1),
    Row(GalleryReplaced, 409, "gallery-replaced", "the ids may mean other images now"),
    Row(DiskFull, 507, "disk-full", "the gallery's disk is full"),
    Row(GalleryUnavailable, 503, "gallery-unavailable", "the gallery is gone or damaged", 5),
    Row(GalleryBusy, 503, "gallery-busy", "an index is being loaded, or a job at work", 5),
    Row(PartMissing, 503, "part-missing", "a part of the codes is on no machine of the cluster", 5),
    Row(ClusterError, 503, "cluster-failed", "the cluster that holds the codes fails", 5),
    Row(GalleryLoading, 503, "gallery-loading", "the gallery is being loaded", 2),
    Row(BeingComputed, 503, "being-computed", "the answer is being computed", 2),
    Row(QueueFull, 503, "busy", "the service is busy", 1),
    Row(ServiceStopping, 503, "stopping", "the service is being stopped", 1),
)

# What is answered without an error of ours, by status.
OTHERS = {
    404: ("not-found", "there is no such path"),
    405: ("method-not-allowed", "the path does not take this method"),
    500: ("internal-error", "the service failed; its log has the cause"),
}


def problem_responses(*errors: type[HashSearchError]) -> dict[int | str, dict[str, Any]]:
    """What a route may answer with these errors, for OpenAPI, by status."""
    rows = [row for row in PROBLEMS if row.error in errors]
    found: dict[int | str, dict[str, Any]] = {}
    for status in sorted({row.status for row in rows}):
        found[status] = _response(
            status, {row.code: row.meaning for row in rows if row.status == status}
        )
    return found


def failure_response() -> dict[int | str, dict[str, Any]]:
    """What every route answers if the service fails, for OpenAPI."""
    code, meaning = OTHERS[500]
    return {500: _response(500, {code: meaning})}


def _response(status: int, meanings: Mapping[str, str]) -> dict[str, Any]:
    """meanings: by the codes that an answer with this status may have."""
    examples = {
        code: {
            "value": Problem(
                title=HTTPStatus(status).phrase,
                status=status,
                detail=meaning,
                code=code,
                request_id="77ac10cd32c1357cf56dfb3dd7e1f624",
            ).model_dump()
        }
        for code, meaning in meanings.items()
    }
    content = {"schema": {"$ref": "#/components/schemas/Problem"}, "examples": examples}
    return {
        "description": "; ".join(f"`{code}`: {meaning}" for code, meaning in meanings.items()),
        "content": {"application/problem+json": content},
    }


OF_KEY = (Unauthorized, WritesOff)
OF_GALLERY = (GalleryUnavailable, GalleryLoading, QueueFull, ServiceStopping)
OF_WRITES = (*OF_KEY, GalleryReadOnly, GalleryBusy, DiskFull)
OF_BODY = (MalformedRequest, BodyTooSlow, BodyTooLarge)
OF_IMAGE = (ImageTooLarge, UnsupportedFormat, InvalidImage)
OF_SEARCH = (
    NotInGallery,
    CodeShapeError,
    InvalidQuery,
    InvalidParameter,
    GalleryBusy,
    PartMissing,
    ClusterError,
)


def install_problem_handlers(app: FastAPI) -> None:
    """Answer every error of `app` with a problem."""
    app.add_exception_handler(HashSearchError, _on_known)
    app.add_exception_handler(RequestValidationError, _on_validation)
    app.add_exception_handler(HTTPException, _on_http)
    app.add_exception_handler(ClientDisconnect, _on_disconnect)


class ProblemResponse(JSONResponse):
    """A problem; the log and the metrics find its code in the request's state."""

    media_type = "application/problem+json"

    def __init__(self, problem: Problem, headers: Mapping[str, str]):
        super().__init__(problem.model_dump(), problem.status, headers)
        self.problem = problem

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        scope["state"]["code"] = self.problem.code
        await super().__call__(scope, receive, send)


def problem_response(error: HashSearchError, request_id: str) -> ProblemResponse:
    """The answer to a known error. Raises the error itself if no row has it."""
    for row in PROBLEMS:
        if isinstance(error, row.error):
            wait = getattr(error, "retry_after_s", row.retry_after_s)
            headers = {} if wait is None else {"Retry-After": str(wait)}
            headers.update(getattr(error, "headers", {}))
            return _respond(
                request_id, row.status, row.code, str(error), headers, parameter=error.parameter
            )
    raise error  # a fault of the service


@contextmanager
def naming(parameter: str | None) -> Iterator[None]:
    """Within the block, a known error gets the name of the parameter or field at fault, if it has
    none."""
    try:
        yield
    except HashSearchError as error:
        if error.parameter is None:
            error.parameter = parameter
        raise


def _on_known(request: Request, error: Exception) -> ProblemResponse:
    assert isinstance(error, HashSearchError)
    return problem_response(error, request_id_of(request))


def _on_validation(request: Request, error: Exception) -> ProblemResponse:
    assert isinstance(error, RequestValidationError)
    return _on_known(request, invalid_request(error))


def _on_http(request: Request, error: Exception) -> ProblemResponse:
    assert isinstance(error, HTTPException)
    phrase = HTTPStatus(error.status_code).phrase
    code, meaning = OTHERS.get(
        error.status_code, (phrase.lower().replace(" ", "-"), phrase.lower())
    )
    headers = dict(error.headers or {})
    if "Allow" in headers and (methods := _methods_of(request)):
        headers["Allow"] = ", ".join(methods)  # Starlette names those of one route
    return _respond(request_id_of(request), error.status_code, code, meaning, headers)


def _methods_of(request: Request) -> list[str]:
    """The methods that the path of a request takes."""
    routes = request.app.routes
    return [
        method.value
        for method in sorted(HTTPMethod)
        if any(
            route.matches({**request.scope, "method": method.value})[0] is Match.FULL
            for route in routes
        )
    ]


def _on_disconnect(request: Request, error: Exception) -> Response:
    return Response(status_code=400)  # for the log; the client is gone


def internal_error(request_id: str) -> ProblemResponse:
    """The answer to a request during which the service failed."""
    return _respond(request_id, 500, *OTHERS[500], {})


def stopping(request_id: str) -> ProblemResponse:
    """The answer to a request that was cut off since the service stops."""
    error = ServiceStopping("the service is being stopped; try again in a moment")
    return problem_response(error, request_id)


def request_id_of(request: Request) -> str:
    request_id: str = request.state.request_id
    return request_id


def _respond(
    request_id: str,
    status: int,
    code: str,
    detail: str,
    headers: dict[str, str],
    *,
    parameter: str | None = None,
) -> ProblemResponse:
    problem = Problem(
        title=HTTPStatus(status).phrase,
        status=status,
        detail=detail,
        code=code,
        parameter=parameter,
        request_id=request_id,
    )
    return ProblemResponse(problem, headers)
