"""The OpenAPI document: what FastAPI finds, completed so that generators of clients can read it."""

import json
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

from fastapi import FastAPI
from pydantic.json_schema import models_json_schema

from service.auth import BEARER, is_open
from service.limits import is_limited
from service.problems import (
    OTHERS,
    PROBLEMS,
    HeaderTooLarge,
    TooManyRequests,
    Unauthorized,
    failure_response,
    problem_responses,
)
from service.schemas.images import AddBody
from service.schemas.problem import Problem
from service.schemas.search import ImageExample, QueryBody
from service.settings import Settings

Node = dict[str, Any]

TAGS = {
    "search": "Find images like an image, and compare methods.",
    "images": "The gallery's images: list, look up, add and remove.",
    "duplicates": "Groups of near-equal images.",
    "codes": "From images to codes, and back.",
    "gallery": "What is served.",
    "health": "Liveness, readiness and metrics.",
}
# Models that FastAPI does not know, since the service reads these bodies and makes these answers.
_MODELS = (QueryBody, AddBody, ImageExample, Problem)
DESCRIBED_HEADERS = {
    "X-Request-ID": "id of the request, as in problems and in the service's log",
    "Server-Timing": "milliseconds that the request spent in each stage",
    "ETag": "version of the picture, for If-None-Match",
    "Retry-After": "seconds after which the request may be sent again",
    "WWW-Authenticate": "always Bearer",
}
_JSON = "application/json"
_EXAMPLES = Path(__file__).with_name("examples.json")


@cache
def examples() -> Node:
    """By operation: a query string, a JSON body and the answer to them, of a real service."""
    read: Node = json.loads(_EXAMPLES.read_text(encoding="utf-8"))
    return read


def described(app: FastAPI) -> Callable[[], Node]:
    """A function that returns the application's document, made at the first call."""
    made = app.openapi

    def openapi() -> Node:
        if app.openapi_schema is None:
            _complete(made(), app.state.settings)
        assert app.openapi_schema is not None
        return app.openapi_schema

    return openapi


def operations(document: Node) -> Iterator[Node]:
    for path in document["paths"].values():
        yield from path.values()


def _complete(document: Node, settings: Settings) -> None:
    _add_settings(document, settings)
    _add_components(document)
    used = {tag for one in operations(document) for tag in one.get("tags", ())}
    assert used <= TAGS.keys(), used
    document["tags"] = [
        {"name": tag, "description": meaning} for tag, meaning in TAGS.items() if tag in used
    ]
    for operation in operations(document):
        sentence = operation.get("description", "").partition("\n\n")[0]
        operation["summary"] = sentence.replace("\n", " ")
        _add_responses(operation, problem_responses(HeaderTooLarge) | failure_response())
        for status, response in operation["responses"].items():
            response["headers"] = {
                name: {"$ref": f"#/components/headers/{name}"}
                for name in _headers_of(operation, status)
            }
        if example := examples().get(operation["operationId"]):
            _add_example(operation, example)


def _add_settings(document: Node, settings: Settings) -> None:
    """Say which paths need a key, and which are limited."""
    for path, of_path in document["paths"].items():
        for operation in of_path.values():
            if settings.key_for == "all" and not is_open(path):
                operation["security"] = [{BEARER.scheme_name: []}]
                _add_responses(operation, problem_responses(Unauthorized))
            if settings.rate_limit is not None and is_limited(path):
                _add_responses(operation, problem_responses(TooManyRequests))
    if settings.key_for == "all":
        schemes = document["components"].setdefault("securitySchemes", {})
        schemes[BEARER.scheme_name] = BEARER.model.model_dump(
            mode="json", by_alias=True, exclude_none=True
        )


def _add_components(document: Node) -> None:
    """Add the models of bodies and problems, and the headers of answers."""
    components = document["components"]
    schemas = components["schemas"]
    for unused in ("HTTPValidationError", "ValidationError"):  # FastAPI's own shape
        schemas.pop(unused, None)
    _, defined = models_json_schema(
        [(model, "validation") for model in _MODELS],
        ref_template="#/components/schemas/{model}",
    )
    schemas.update(defined["$defs"])
    for model in defined["$defs"].values():
        for field in model["properties"].values():
            if (
                field.get("default", "") is None
            ):  # openapi-typescript takes such fields for required
                del field["default"]
    codes = {row.code for row in PROBLEMS} | {code for code, _ in OTHERS.values()}
    schemas["Problem"]["properties"]["code"]["enum"] = sorted(codes)
    components["headers"] = {
        name: {
            "description": description,
            "schema": {"type": "integer" if name == "Retry-After" else "string"},
        }
        for name, description in DESCRIBED_HEADERS.items()
    }


def _add_responses(operation: Node, responses: dict[int | str, Node]) -> None:
    for status, response in responses.items():
        operation["responses"].setdefault(str(status), response)


def _headers_of(operation: Node, status: str) -> list[str]:
    """Names of the headers of an operation's answers with this status."""
    names = ["X-Request-ID"]
    if status == "200":
        names.append("Server-Timing")
    if status in ("200", "304") and "304" in operation["responses"]:
        names.append("ETag")
    if status in {str(row.status) for row in PROBLEMS if row.retry_after_s is not None}:
        names.append("Retry-After")
    if status == "401":
        names.append("WWW-Authenticate")
    return names


def _add_example(operation: Node, example: Node) -> None:
    content = operation.get("requestBody", {}).get("content", {})
    if _JSON in content and "body" in example:
        content[_JSON]["example"] = example["body"]
    answer = operation["responses"]["200"]["content"]
    if _JSON in answer and "answer" in example:
        answer[_JSON]["example"] = example["answer"]
