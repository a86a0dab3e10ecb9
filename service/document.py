"""Completes the OpenAPI document that FastAPI makes, so that generators of clients can read it."""

import json
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

from service.problems import HeaderTooLarge, problem_responses

Node = dict[str, Any]

TAGS = {
    "search": "Find images like an image, and compare methods.",
    "images": "The gallery's images: list, look up, add and remove.",
    "duplicates": "Groups of near-equal images.",
    "codes": "From images to codes, and back.",
    "gallery": "What is served.",
    "health": "Whether the service is alive, ready, and how it does.",
}
_COMPONENTS = "#/components/schemas/"
_JSON = "application/json"
_EXAMPLES = Path(__file__).with_name("examples.json")


@cache
def examples() -> Node:
    """By operation: a query string, a JSON body and the answer to them, of a real service."""
    read: Node = json.loads(_EXAMPLES.read_text(encoding="utf-8"))
    return read


def complete(document: Node) -> None:
    """Describe tags, name the models of bodies, lift descriptions to where tools look, and add
    examples and the problem that every path has."""
    _name_models(document)
    used = sorted({tag for one in operations(document) for tag in one.get("tags", ())})
    document["tags"] = [{"name": tag, "description": TAGS[tag]} for tag in used]
    for schema in document["components"]["schemas"].values():
        for field in schema.get("properties", {}).values():
            _lift_description(field, field)
    for operation in operations(document):
        for status, response in problem_responses(HeaderTooLarge).items():
            operation["responses"][str(status)] = response
        for parameter in operation.get("parameters", ()):
            _lift_description(parameter, parameter["schema"])
        if example := examples().get(operation["operationId"]):
            _add_example(operation, example)


def operations(document: Node) -> Iterator[Node]:
    for path in document["paths"].values():
        yield from path.values()


def _name_models(document: Node) -> None:
    """Move pydantic's models that stand in bodies, and what they hold, to the components."""
    schemas = document["components"]["schemas"]
    for operation in operations(document):
        for media in operation.get("requestBody", {}).get("content", {}).values():
            schema = media["schema"]
            if schema.get("type") == "object" and "title" in schema:
                for name, inner in schema.pop("$defs", {}).items():
                    schemas[name] = _with_components(inner)
                schemas[schema["title"]] = _with_components(schema)
                media["schema"] = {"$ref": _COMPONENTS + schema["title"]}


def _with_components(node: Any) -> Any:
    """A copy whose references are to the components."""
    if isinstance(node, list):
        return [_with_components(one) for one in node]
    if not isinstance(node, dict):
        return node
    return {
        key: _COMPONENTS + value.removeprefix("#/$defs/")
        if key == "$ref"
        else _with_components(value)
        for key, value in node.items()
    }


def _lift_description(target: Node, schema: Node) -> None:
    """Give what has no description the one of its first type, if that has one."""
    of_type = next((one for one in schema.get("anyOf", ()) if "description" in one), schema)
    if "description" in of_type:
        target.setdefault("description", of_type["description"])


def _add_example(operation: Node, example: Node) -> None:
    content = operation.get("requestBody", {}).get("content", {})
    if _JSON in content and "body" in example:
        content[_JSON]["example"] = example["body"]
    answer = operation["responses"]["200"]["content"]
    if _JSON in answer and "answer" in example:
        answer[_JSON]["example"] = example["answer"]
