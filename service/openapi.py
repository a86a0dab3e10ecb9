"""The OpenAPI document: what FastAPI finds, the shape of every problem, and what settings add."""

from collections.abc import Callable
from typing import Any

from fastapi import FastAPI

from service.auth import BEARER, is_open
from service.document import complete
from service.limits import is_limited
from service.problems import TooManyRequests, Unauthorized, problem_responses
from service.schemas.problem import Problem
from service.settings import Settings


def described(app: FastAPI) -> Callable[[], dict[str, Any]]:
    """A function that returns the application's document, made at the first call."""
    made = app.openapi

    def openapi() -> dict[str, Any]:
        if app.openapi_schema is None:
            document = made()
            _add_settings(document, app.state.settings)
            schemas = document.setdefault("components", {}).setdefault("schemas", {})
            schemas["Problem"] = Problem.model_json_schema()
            for unused in ("HTTPValidationError", "ValidationError"):  # FastAPI's own shape
                schemas.pop(unused, None)
            complete(document)
        assert app.openapi_schema is not None
        return app.openapi_schema

    return openapi


def _add_settings(document: dict[str, Any], settings: Settings) -> None:
    """Say which paths need a key, and which are limited."""
    for path, operations in document["paths"].items():
        for operation in operations.values():
            if settings.key_for == "all" and not is_open(path):
                operation["security"] = [{BEARER.scheme_name: []}]
                _add(operation, problem_responses(Unauthorized))
            if settings.rate_limit is not None and is_limited(path):
                _add(operation, problem_responses(TooManyRequests))
    if settings.key_for == "all":
        schemes = document.setdefault("components", {}).setdefault("securitySchemes", {})
        schemes[BEARER.scheme_name] = BEARER.model.model_dump(
            mode="json", by_alias=True, exclude_none=True
        )


def _add(operation: dict[str, Any], responses: dict[int | str, dict[str, Any]]) -> None:
    for status, response in responses.items():
        operation["responses"].setdefault(str(status), response)
