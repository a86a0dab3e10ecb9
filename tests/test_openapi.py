"""The OpenAPI document, and the clients that generators make of it."""

import importlib
import io
import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from service.app import create_app
from service.openapi import DESCRIBED_HEADERS, TAGS, operations
from service.problems import OTHERS, PROBLEMS
from service.settings import Settings
from tests.node_tools import node_tool
from tests.processes import serving_process

ROOT = Path(__file__).parents[1]
OVERRIDES = ROOT / "docs" / "openapi-python-client.yaml"
KEY = "a-key-of-the-tests"
# Fields whose names say all.
PLAIN = {
    "crop", "distance", "ended", "generation", "height", "hits", "id", "images", "index", "job",
    "k", "kind", "label", "method", "methods", "offset", "radius", "status", "title",
    "transforms", "uri", "uri_prefix", "width", "asked", "overlap_at_k", "images_per_second",
    "failures", "files", "folders", "groups", "same", "near", "alike",
    "time", "reason", "size", "histogram",
}  # fmt: skip


def made(folder: Path, **settings: Any) -> dict[str, Any]:
    app = create_app(Settings(gallery=folder, **settings))
    app.state.engine.close()
    return app.openapi()


@pytest.fixture(scope="module")
def document(gallery_folder):
    return made(gallery_folder)


@pytest.fixture(scope="module")
def served(gallery_folder, tmp_path_factory):
    folder = tmp_path_factory.mktemp("openapi")
    shutil.copytree(gallery_folder, folder / "g")
    with serving_process(folder / "g", folder / "log", api_keys=KEY) as started:
        yield started


def nodes(node: Any) -> Iterator[dict[str, Any]]:
    """Every object within a document."""
    if isinstance(node, dict):
        yield node
    for inner in node.values() if isinstance(node, dict) else node:
        if isinstance(inner, dict | list):
            yield from nodes(inner)


def test_operations_have_clean_ids_and_described_tags(document):
    every = list(operations(document))
    ids = [operation["operationId"] for operation in every]
    assert len(set(ids)) == len(ids)
    assert all(re.fullmatch(r"[a-z]+(_[a-z]+)*", one) for one in ids)
    assert all(operation["summary"] and operation["description"] for operation in every)
    used = {tag for operation in every for tag in operation["tags"]}
    assert [tag["name"] for tag in document["tags"]] == [tag for tag in TAGS if tag in used]
    assert used <= TAGS.keys()
    assert "servers" not in document  # so that it is "/", or the prefix of the request


def test_every_parameter_and_field_is_described(document):
    for operation in operations(document):
        for parameter in operation.get("parameters", ()):
            assert parameter["description"], (operation["operationId"], parameter["name"])
        for status, response in operation["responses"].items():
            assert response["description"], (operation["operationId"], status)
    silent = {
        f"{model}.{name}"
        for model, schema in document["components"]["schemas"].items()
        for name, field in schema.get("properties", {}).items()
        if "description" not in field and "$ref" not in field and name not in PLAIN
    }
    assert silent == set()


def test_what_answers_say_of_an_image_is_described_in_one_way(document):
    schemas = document["components"]["schemas"]
    of_images = ("HitAnswer", "ImageAnswer", "DescribedImageAnswer", "AddedImageAnswer",
                 "DuplicateFileAnswer")  # fmt: skip
    for name in ("id", "label", "uri", "missing", "thumbnail"):
        found = {
            schemas[model]["properties"][name]["description"]
            for model in of_images
            if name in schemas[model]["properties"]
        }
        assert len(found) == 1, name


def test_references_lead_to_components(document):
    references = {node["$ref"] for node in nodes(document) if isinstance(node.get("$ref"), str)}
    assert {"#/components/schemas/QueryBody", "#/components/schemas/Problem"} <= references
    assert not any("$defs" in node for node in nodes(document))
    assert references == {
        f"#/components/{kind}/{name}"
        for kind in ("schemas", "headers")
        for name in document["components"][kind]
    }


def test_parameters_of_free_text_have_an_example_and_none_is_named_as_its_description(document):
    for operation in operations(document):
        for parameter in operation.get("parameters", ()):
            name, schema = parameter["name"], parameter["schema"]
            assert parameter["description"] != name
            if schema.get("type") == "string" and "enum" not in schema and name != "after":
                assert schema["examples"], (operation["operationId"], name)


def test_every_code_is_in_the_document_with_an_example(document):
    codes = {row.code for row in PROBLEMS} | {code for code, _ in OTHERS.values()}
    assert document["components"]["schemas"]["Problem"]["properties"]["code"]["enum"] == sorted(
        codes
    )
    for operation in operations(document):
        assert "`internal-error`" in operation["responses"]["500"]["description"]
        for status, response in operation["responses"].items():
            of_problem = response.get("content", {}).get("application/problem+json")
            if of_problem is not None:
                for code, example in of_problem["examples"].items():
                    assert f"`{code}`" in response["description"]
                    assert (example["value"]["code"], str(example["value"]["status"])) == (
                        code,
                        status,
                    )


def test_problems_are_listed_where_they_can_occur(document):
    paths = document["paths"]
    for path, method, has in (
        ("/v1/images", "get", False),
        ("/v1/images", "post", False),
        ("/v1/images", "delete", False),
        ("/v1/images/{image_id}", "get", True),
        ("/v1/images/{image_id}", "delete", True),
        ("/v1/images/{image_id}/thumbnail", "get", True),
        ("/v1/images/{image_id}/original", "get", True),
    ):
        responses = paths[path][method]["responses"]
        found = "404" in responses and "`not-in-gallery`" in responses["404"]["description"]
        assert found == has, (method, path)


def test_the_headers_of_answers_are_those_that_the_service_sends(document, served):
    def listed(path: str, method: str, status: int) -> set[str]:
        return set(document["paths"][path][method]["responses"][str(status)]["headers"])

    tried = (
        ("/v1/search", "post", 200, "/v1/search", b'{"id": 1}'),
        ("/v1/images", "get", 422, "/v1/images?limit=0", None),
        ("/v1/images", "delete", 401, "/v1/images?id=1", None),
        ("/v1/images/{image_id}/thumbnail", "get", 200, "/v1/images/1/thumbnail", None),
    )
    for path, method, status, address, body in tried:
        found, sent, _ = served.request(
            method.upper(), address, body, **{"Content-Type": "application/json"}
        )
        assert found == status
        names = {name.lower() for name in sent}
        assert listed(path, method, status) == {
            name for name in DESCRIBED_HEADERS if name.lower() in names
        }
    assert "Retry-After" in listed("/v1/search", "post", 503)


def shape(value: Any) -> Any:
    """What a value is made of; lists by their first entry."""
    if isinstance(value, dict):
        return {key: shape(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [shape(inner) for inner in value[:1]]
    return type(value).__name__


def alike(first: Any, second: Any) -> bool:
    """Whether two shapes differ at most where one holds nothing."""
    if isinstance(first, dict) and isinstance(second, dict):
        return first.keys() == second.keys() and all(
            alike(first[key], second[key]) for key in first
        )
    if isinstance(first, list) and isinstance(second, list):
        return not (first and second) or alike(first[0], second[0])
    return first == second or "NoneType" in (first, second)


def test_examples_are_what_the_service_answers(document, served):
    places = {
        operation["operationId"]: (method.upper(), path, operation["responses"]["200"])
        for path, of_path in document["paths"].items()
        for method, operation in of_path.items()
    }
    json_type = "application/json"
    examples = json.loads((ROOT / "service" / "examples.json").read_text(encoding="utf-8"))
    without = {"livez", "readyz", "remove_images"}  # they are plain, or are like another
    assert (
        examples.keys()
        == {name for name, (_, _, success) in places.items() if json_type in success["content"]}
        - without
    )
    headers = {"Content-Type": json_type, "Authorization": f"Bearer {KEY}"}
    image_id = 7
    for name, example in examples.items():
        method, path, success = places[name]
        assert success["content"][json_type]["example"] == example["answer"]
        address = f"{path.format(image_id=image_id)}?{example.get('query', '')}"
        body = json.dumps(example["body"]).encode() if "body" in example else None
        for _ in range(100):
            status, _, answer = served.request(method, address, body, **headers)
            if status != 503:  # being computed
                break
            time.sleep(0.1)
        assert status == 200, answer
        assert alike(shape(json.loads(answer)), shape(example["answer"])), name
        if name == "add_images":
            image_id = json.loads(answer)["images"][0]["id"]


# Generators


def missing(tool: str) -> None:
    if os.environ.get("CI"):
        pytest.fail(f"{tool} is not installed")
    pytest.skip(f"{tool} is not installed")


def run(*command: object, folder: Path) -> str:
    """What a tool prints; it has to succeed."""
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    done = subprocess.run(
        [str(part) for part in command],
        cwd=folder,
        env={**os.environ, "PATH": path},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert done.returncode == 0, done.stdout
    assert "warning" not in done.stdout.lower(), done.stdout
    return done.stdout


def test_the_overrides_name_every_other_media_type(document):
    """openapi-python-client knows a few media types alone."""
    used = {
        media_type
        for operation in operations(document)
        for one in (operation.get("requestBody", {}), *operation["responses"].values())
        for media_type in one.get("content", {})
    }
    known = {"application/json", "multipart/form-data", "application/octet-stream", "text/plain"}
    overrides = yaml.safe_load(OVERRIDES.read_text(encoding="utf-8"))["content_type_overrides"]
    assert used - known <= overrides.keys()


def test_a_python_client_is_generated_that_searches(
    document, served, image_files, tmp_path, monkeypatch
):
    tool = Path(sys.executable).with_name("openapi-python-client")
    if not tool.exists():
        missing("openapi-python-client")
    (tmp_path / "openapi.json").write_text(json.dumps(document))
    run(
        *(tool, "generate", "--path", "openapi.json", "--config", OVERRIDES),
        *("--meta", "none", "--output-path", "generated_client", "--fail-on-warning"),
        folder=tmp_path,
    )
    monkeypatch.syspath_prepend(tmp_path)
    package = importlib.import_module("generated_client")
    search = importlib.import_module("generated_client.api.search.search")
    models = importlib.import_module("generated_client.models")
    types = importlib.import_module("generated_client.types")
    picture = sorted(image_files.rglob("*.*"))[7].read_bytes()
    with package.Client(base_url=served.address) as client:
        bodies = [
            types.File(payload=io.BytesIO(picture)),
            models.SearchFilesBody(image=types.File(io.BytesIO(picture), "a.jpg")),
            models.QueryBody(id=8),
        ]
        for body in bodies:
            answer = search.sync(client=client, body=body, k=3)
            assert isinstance(answer, models.SearchAnswer), answer
            assert len(answer.hits) == 3
            assert (answer.hits[0].distance == 0) == (body is not bodies[2])
        problem = search.sync(client=client, body=models.QueryBody(id=10**9))
        assert (problem.code, problem.status) == ("not-in-gallery", 404)


def test_typescript_is_generated_that_compiles(document, tmp_path):
    if shutil.which("node") is None:
        pytest.skip("node is not installed")
    typescript = node_tool("openapi-typescript")
    (tmp_path / "openapi.json").write_text(json.dumps(document))
    run(typescript, "openapi.json", "-o", "service.d.ts", folder=tmp_path)
    (tmp_path / "use.ts").write_text(
        'import type { components, operations } from "./service";\n'
        'export const query: components["schemas"]["QueryBody"] =\n'
        "  { id: 7 };\n"
        'type Search = operations["search"]["responses"][200]["content"]["application/json"];\n'
        "export const first = (answer: Search): number => answer.hits[0].distance;\n"
    )
    run(node_tool("tsc"), "--noEmit", "--strict", "use.ts", folder=tmp_path)
