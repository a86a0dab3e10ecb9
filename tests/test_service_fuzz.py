"""Mutated images and generated requests against a running service."""

import base64
import json
import random
import re
import shutil
import subprocess
import sys
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Event, Thread

import pytest

from tests.mutations import Mutations, real_files
from tests.processes import Served, serving_process

KEY = "a-key-of-the-tests"
CONNECTIONS = 4
CHECKS = """
[checks]
# A schema cannot say which bytes are an image, nor which ids there are.
positive_data_acceptance.enabled = false
# Busy, or being computed; what is no 503 fails.
not_a_server_error.expected-statuses = ["2xx", "3xx", "4xx", 503]
# 431 is for headers, and queries, that are too large.
negative_data_rejection.expected-statuses = [400, 401, 403, 404, 405, 413, 415, 422, 431, 503]
"""
_SCHEMATHESIS = Path(sys.executable).with_name("schemathesis")


@pytest.fixture
def served(gallery_folder, tmp_path):
    shutil.copytree(gallery_folder, tmp_path / "g")
    with serving_process(tmp_path / "g", tmp_path / "log", api_keys=KEY) as started:
        yield started
    assert "Traceback" not in started.messages()


class Documented:
    """The codes of problems that OpenAPI names, by path and status."""

    def __init__(self, served: Served):
        self.paths = json.loads(served.request("GET", "/openapi.json")[2])["paths"]

    def codes(self, method: str, path: str, status: int) -> set[str]:
        responses = self.paths[path][method]["responses"]
        return set(
            re.findall(r"`([a-z-]+)`", responses.get(str(status), {}).get("description", ""))
        )


def as_body(image: bytes, way: int) -> tuple[bytes, str]:
    """An image as raw bytes, as a form and as JSON."""
    if way == 0:
        return image, "image/jpeg"
    if way == 1:
        head = b'--x\r\nContent-Disposition: form-data; name="image"; filename="a"\r\n\r\n'
        return head + image + b"\r\n--x--\r\n", "multipart/form-data; boundary=x"
    text = base64.b64encode(image).decode()
    return json.dumps({"image_base64": text}).encode(), "application/json"


def check(documented: Documented, path: str, response, body: bytes) -> str:
    """Check an answer; returns its problem's code, or `found`."""
    answer = json.loads(body)
    if response.status == 200:
        if path == "/v1/search":
            assert len(answer["hits"]) == 1
        assert re.fullmatch("[0-9a-f]{64}", answer["code"])
        return "found"
    assert response.status < 500 or answer["code"] == "busy", body
    assert response.headers["Content-Type"] == "application/problem+json"
    assert answer["status"] == response.status
    assert answer["code"] in documented.codes("post", path, response.status), body
    return str(answer["code"])


@pytest.mark.parametrize("count", [800, pytest.param(100_000, marks=pytest.mark.soak)])
def test_mutated_images_are_answered_or_refused(served, photograph, image_files, count):
    """Beside them, /livez answers quickly, and memory stays as it was after the first of them."""
    picture = sorted(image_files.rglob("*.*"))[7].read_bytes()
    files = real_files(photograph, picture)
    documented = Documented(served)
    query = {"/v1/search": "?k=1", "/v1/encode": ""}

    def send(seed: int, many: int) -> Counter[str]:
        mutated, chance, codes = Mutations(files, seed), random.Random(seed), Counter[str]()
        connection = served.connect()
        for _ in range(many):
            path = chance.choice(list(query))
            body, content_type = as_body(mutated(), chance.randrange(3))
            while True:
                connection.request("POST", path + query[path], body, {"Content-Type": content_type})
                response = connection.getresponse()
                code = check(documented, path, response, response.read())
                if code != "busy":
                    break
                time.sleep(0.05)
            codes[code] += 1
        connection.close()
        return codes

    times: list[float] = []
    ended = Event()

    def live() -> None:
        connection = served.connect()
        while not ended.wait(0.05):
            started = time.perf_counter()
            connection.request("GET", "/livez")
            assert connection.getresponse().read() == b'{"status":"alive"}'
            times.append(time.perf_counter() - started)
        connection.close()

    with ThreadPoolExecutor(CONNECTIONS) as pool:
        list(pool.map(send, range(CONNECTIONS), [200] * CONNECTIONS))
        before = served.memory_mb()
        watching = Thread(target=live)
        watching.start()
        seeds = range(100, 100 + CONNECTIONS)
        codes = sum(pool.map(send, seeds, [count // CONNECTIONS] * CONNECTIONS), Counter())
        ended.set()
        watching.join()
    growth = served.memory_mb() - before
    print(dict(codes), f"{before:.0f} MB, then {growth:+.0f}; /livez {max(times):.3f} s at most")
    assert codes.total() == count
    assert codes.keys() >= {"found", "invalid-image", "unsupported-format", "image-too-large"}
    assert growth < 100
    assert sorted(times)[len(times) * 9 // 10] < 0.5
    status, _, body = served.request("POST", "/v1/search?k=1", picture)
    assert (status, json.loads(body)["hits"][0]["distance"]) == (200, 0)


@pytest.mark.parametrize("examples", [6, pytest.param(1000, marks=pytest.mark.soak)])
def test_the_service_keeps_what_its_openapi_document_says(served, examples, tmp_path):
    """Schemathesis asks what the document allows, and what it does not."""
    (tmp_path / "schemathesis.toml").write_text(CHECKS)
    done = subprocess.run(
        [
            *(_SCHEMATHESIS, "--no-color", "run", f"{served.address}/openapi.json"),
            *("--seed", "1", "--max-examples", str(examples), "--continue-on-failure"),
            *("--header", f"Authorization: Bearer {KEY}", "--request-timeout", "60"),
        ],
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert done.returncode == 0, done.stdout
    assert served.request("GET", "/readyz")[0] == 200
