"""One table that turns errors into responses: problem+json, RFC 9457."""

import logging
from http import HTTPStatus
from uuid import uuid4

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, Response
from pydantic import ValidationError
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

from hashsearch.errors import (
    CodeShapeError,
    GalleryBusy,
    HashSearchError,
    ImageTooLarge,
    InvalidImage,
    InvalidQuery,
    NotInGallery,
    UnsupportedFormat,
)
from service.schemas import Problem


class BodyTooLarge(HashSearchError):
    """A request with a larger body than the service reads."""


class BodyTooSlow(HashSearchError):
    """A request whose body does not arrive in time."""


class GalleryUnavailable(HashSearchError):
    """The gallery's folder is gone, or what is there cannot be read."""


class MalformedRequest(HashSearchError):
    """An empty body, or one that does not match its content type."""


class InvalidParameter(HashSearchError):
    """A value in the query string or the JSON body that cannot be used."""


# Narrower classes first. `code` is stable; programs rely on it.
PROBLEMS: tuple[tuple[type[HashSearchError], int, str], ...] = (
    (MalformedRequest, 400, "malformed-request"),
    (NotInGallery, 404, "not-in-gallery"),
    (BodyTooSlow, 408, "body-too-slow"),
    (BodyTooLarge, 413, "body-too-large"),
    (ImageTooLarge, 413, "image-too-large"),
    (UnsupportedFormat, 415, "unsupported-format"),
    (InvalidImage, 422, "invalid-image"),
    (CodeShapeError, 422, "invalid-code"),
    (InvalidQuery, 422, "invalid-query"),
    (InvalidParameter, 422, "invalid-parameter"),
    (GalleryUnavailable, 503, "gallery-unavailable"),
    (GalleryBusy, 503, "gallery-busy"),
)

_RETRY_AFTER_S = 5

_log = logging.getLogger(__name__)


def install_problem_handlers(app: FastAPI) -> None:
    """Answer every error of `app` with a problem."""
    app.add_exception_handler(HashSearchError, _on_known)
    app.add_exception_handler(RequestValidationError, _on_validation)
    app.add_exception_handler(HTTPException, _on_http)
    app.add_exception_handler(ClientDisconnect, _on_disconnect)
    app.add_exception_handler(Exception, _on_unknown)


def invalid_parameter(error: ValidationError | RequestValidationError) -> InvalidParameter:
    """Describe pydantic's findings in one sentence, without the values that were sent."""
    parts = []
    for finding in error.errors():
        name = ".".join(str(part) for part in finding["loc"] if part not in ("query", "body"))
        if finding["type"] == "extra_forbidden":  # the name was sent, and is not repeated either
            parts.append("unknown parameter")
        else:
            parts.append(f"{name}: {finding['msg']}" if name else finding["msg"])
    return InvalidParameter("; ".join(parts))


def _on_known(request: Request, error: Exception) -> JSONResponse:
    for kind, status, code in PROBLEMS:
        if isinstance(error, kind):
            return _respond(status, code, str(error))
    return _on_unknown(request, error)


def _on_validation(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, RequestValidationError)
    return _on_known(request, invalid_parameter(error))


def _on_http(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, HTTPException)
    phrase = HTTPStatus(error.status_code).phrase
    response = _respond(error.status_code, phrase.lower().replace(" ", "-"), f"{phrase}.")
    response.headers.update(error.headers or {})
    return response


def _on_disconnect(request: Request, error: Exception) -> Response:
    return Response(status_code=400)  # for the log; the client is gone


def _on_unknown(request: Request, error: Exception) -> JSONResponse:
    response = _respond(500, "internal-error", "The service failed; its log has the cause.")
    request_id = response.headers["x-request-id"]
    _log.error("request %s failed", request_id, exc_info=error)
    return response


def _respond(status: int, code: str, detail: str) -> JSONResponse:
    request_id = uuid4().hex
    problem = Problem(
        title=HTTPStatus(status).phrase,
        status=status,
        detail=detail,
        code=code,
        request_id=request_id,
    )
    headers = {"X-Request-ID": request_id}
    if status == HTTPStatus.SERVICE_UNAVAILABLE:
        headers["Retry-After"] = str(_RETRY_AFTER_S)
    return JSONResponse(
        problem.model_dump(),
        status_code=status,
        media_type="application/problem+json",
        headers=headers,
    )
