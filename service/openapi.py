"""The OpenAPI document: what FastAPI finds, and the shape of every problem."""

from collections.abc import Callable
from typing import Any

from fastapi import FastAPI

from service.schemas.problem import Problem


def described(app: FastAPI) -> Callable[[], dict[str, Any]]:
    """A function that returns the application's document, made at the first call."""
    made = app.openapi

    def openapi() -> dict[str, Any]:
        if app.openapi_schema is None:
            schemas = made().setdefault("components", {}).setdefault("schemas", {})
            schemas["Problem"] = Problem.model_json_schema()
            for unused in ("HTTPValidationError", "ValidationError"):  # FastAPI's own shape
                schemas.pop(unused, None)
        assert app.openapi_schema is not None
        return app.openapi_schema

    return openapi
