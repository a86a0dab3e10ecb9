"""Request ids, the log and the metrics of the service."""

import asyncio
import json
import logging
import shutil
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from threading import Event

import pytest
from fastapi.testclient import TestClient
from prometheus_client.parser import text_string_to_metric_families

import hashsearch
from hashsearch.gallery.gallery_folder import GalleryFolder
from service.app import create_app
from service.engine import Engine
from service.logs import log_config
from service.metrics import Metrics
from service.observe import Observed
from service.settings import Settings
from service.stages import STAGES
from tests.conftest import serving

PATHS = [
    ("GET", "/livez", 200),
    ("GET", "/static/page/base.css", 200),
    ("GET", "/static/none", 404),
    ("GET", "/none", 404),
    ("PUT", "/v1/search", 405),
    ("GET", "/v1/images/x/thumbnail", 422),
    ("GET", "/docs", 200),
    ("GET", "/metrics", 200),
]

PROBLEMS = "hashsearch_problems_total"


@pytest.fixture
def client(gallery_folder):
    with serving(gallery_folder, max_body_bytes=100_000) as opened:
        yield opened


@pytest.fixture
def picture(image_files) -> bytes:
    return sorted(image_files.rglob("*.*"))[7].read_bytes()


def scraped(client) -> dict[tuple[str, ...], float]:
    """Values by name and label values, in the order of the labels' names."""
    response = client.get("/metrics")
    assert response.status_code == 200
    assert response.headers["content-type"].startswith("text/plain; version=0.0.4")
    return {
        (sample.name, *(sample.labels[name] for name in sorted(sample.labels))): sample.value
        for family in text_string_to_metric_families(response.text)
        for sample in family.samples
    }


def formatted(record: logging.LogRecord, form: str) -> str:
    config = log_config(Settings(gallery="g", log_format=form), is_terminal=False)
    handler = config["handlers"]["stderr"]
    return config["formatters"][handler["formatter"]]["()"]().format(record)


# Metrics


def test_requests_stages_and_batches_are_counted(client, picture):
    before = scraped(client)
    assert before["hashsearch_batch_images_count",] == 0
    for _ in range(3):
        assert client.post("/v1/search", content=picture).status_code == 200
    assert client.post("/v1/search", content=b"junk").status_code == 415
    assert client.post("/v1/search", json={"id": 5}).status_code == 200
    values = scraped(client)
    searches = ("POST", "/v1/search")
    assert values["hashsearch_requests_total", *searches, "200"] == 4
    assert values["hashsearch_requests_total", *searches, "415"] == 1
    assert values["hashsearch_request_seconds_count", *searches] == 5
    assert values["hashsearch_request_seconds_sum", *searches] > 0
    for stage, count in {"wait": 5, "decode": 4, "encode": 3, "search": 4, "catalog": 4}.items():
        name = ("hashsearch_stage_seconds_count", stage)
        assert values[name] - before[name] == count, stage
    name = ("hashsearch_batch_images_sum",)
    assert values[name] - before[name] == 3
    assert values["process_resident_memory_bytes",] > 10e6


def test_problems_are_counted_and_logged_by_their_code(client, caplog):
    caplog.set_level(logging.INFO, "service")
    client.get("/v1/images/999999")
    client.get("/v1/images/5?x=" + "y" * 10)
    client.post("/v1/search", json={"id": 999_999})
    client.post("/v1/search", json={"id": 5, "lable": "x"})
    client.post("/v1/search", content=b"junk")
    client.get("/none")
    codes = {
        ("/v1/search", "not-in-gallery"),
        ("/v1/search", "invalid-parameter"),
        ("/v1/search", "unsupported-format"),
        ("other", "not-found"),
    }
    lines = [one.fields for one in caplog.records if one.name == "service.requests"]
    logged = [(line["route"], line["code"]) for line in lines if line["code"]]
    assert codes <= set(logged)
    values = {key[1:]: n for key, n in scraped(client).items() if key[0].startswith(PROBLEMS)}
    for code, route in {(code, route) for route, code in logged}:
        assert values[code, route] == logged.count((route, code))
    record = next(one for one in caplog.records if getattr(one, "fields", {}).get("code"))
    assert " 404 not-in-gallery " in formatted(record, "text")
    assert {line["code"] for line in lines if line["status"] == 200} <= {None}


@pytest.mark.parametrize(
    ("settings", "status"),
    [
        ({"rate_limit": "1/hour"}, 429),
        ({"key_for": "all", "api_keys": "a key of the tests".replace(" ", "-")}, 401),
    ],
)
def test_what_is_refused_before_it_is_routed_has_its_route(
    gallery_folder, caplog, settings, status
):
    caplog.set_level(logging.INFO, "service")
    with serving(gallery_folder, root_path="/pictures", **settings) as client:
        for path in ("/v1/gallery", "/v1/gallery", "/pictures/v1/images/5", "/none"):
            client.get(path)
        if status == 429:
            client.get("/static/page/base.css")
    lines = [one.fields for one in caplog.records if one.name == "service.requests"]
    refused = {(line["path"], line["route"]) for line in lines if line["status"] == status}
    statics = {("/static/page/base.css", "/static/{path}")} if status == 429 else set()
    assert refused == statics | {
        ("/v1/gallery", "/v1/gallery"),
        ("/pictures/v1/images/5", "/v1/images/{image_id}"),
        ("/none", "other"),
    }


def test_the_path_is_logged_as_it_came_and_the_route_without_a_prefix(gallery_folder, caplog):
    caplog.set_level(logging.INFO, "service")
    with serving(gallery_folder, root_path="/pictures") as client:
        for path in ("/v1/images/5", "/static/page/base.css"):
            for prefix in ("", "/pictures"):
                assert client.get(prefix + path).status_code == 200
    lines = [one.fields for one in caplog.records if one.name == "service.requests"]
    assert [(line["path"], line["route"]) for line in lines] == [
        ("/v1/images/5", "/v1/images/{image_id}"),
        ("/pictures/v1/images/5", "/v1/images/{image_id}"),
        ("/static/page/base.css", "/static/{path}"),
        ("/pictures/static/page/base.css", "/static/{path}"),
    ]


def test_the_gallery_the_queues_and_the_bodies_are_measured(client, gallery_folder):
    gallery = GalleryFolder(gallery_folder)
    values = scraped(client)
    assert values["hashsearch_info", hashsearch.__version__] == 1
    assert values["hashsearch_gallery_loaded",] == values["hashsearch_gallery_ready",] == 1
    assert values["hashsearch_gallery_images",] == 300
    assert values["hashsearch_gallery_generation",] == gallery.catalog.generation()
    for lane in ("pictures", "quick", "slow"):
        assert values["hashsearch_queue_size", lane] == 0
        assert values["hashsearch_queue_limit", lane] == 64
    assert values["hashsearch_body_bytes",] == 0
    assert values["hashsearch_body_bytes_limit",] == 16 * 100_000
    gallery.close()


def test_no_client_makes_label_values(client):
    for number in range(30):
        client.get(f"/nothing/{number}")
        client.get(f"/static/{number}")
        client.get(f"/v1/images/{number + 1}/thumbnail?x={number}")
        client.request(f"M{number}", "/livez")
    labels = {key[1:3] for key in scraped(client) if key[0] == "hashsearch_requests_total"}
    assert labels == {
        ("GET", "other"),
        ("GET", "/static/{path}"),
        ("GET", "/v1/images/{image_id}/thumbnail"),
        ("other", "/livez"),
        ("GET", "/readyz"),
    }


def test_each_application_has_figures_of_its_own(gallery_folder):
    with serving(gallery_folder) as one, serving(gallery_folder) as other:
        for _ in range(5):
            one.get("/livez")
        name = ("hashsearch_requests_total", "GET", "/livez", "200")
        assert scraped(one)[name] == 5
        assert name not in scraped(other)


def test_the_metrics_answer_while_the_gallery_loads_and_when_it_is_gone(gallery, monkeypatch):
    go, load = Event(), Engine.load

    def wait_and_load(engine: Engine) -> None:
        go.wait()
        load(engine)

    monkeypatch.setattr(Engine, "load", wait_and_load)
    with TestClient(create_app(Settings(gallery=gallery.folder))) as client:
        values = scraped(client)
        assert values["hashsearch_gallery_loaded",] == values["hashsearch_gallery_ready",] == 0
        assert ("hashsearch_gallery_images",) not in values
        go.set()
        while client.get("/readyz").status_code == 503:
            time.sleep(0.01)
        shutil.move(gallery.folder, gallery.folder.with_name("elsewhere"))
        values = scraped(client)  # before any request has found that it is gone
        assert (values["hashsearch_gallery_loaded",], values["hashsearch_gallery_ready",]) == (1, 0)
        assert client.get("/readyz").status_code == 503
        assert scraped(client)["hashsearch_gallery_images",] == 300
        assert scraped(client)["hashsearch_gallery_ready",] == 0


def test_the_metrics_and_readiness_answer_while_the_queue_is_full(gallery_folder, monkeypatch):
    go = Event()
    monkeypatch.setattr("service.routes.images.picture_of", lambda *_: go.wait())
    with serving(gallery_folder, queue=1) as client, ThreadPoolExecutor(9) as pool:
        try:
            pool.submit(client.get, "/v1/images/1/thumbnail")
            deadline = time.monotonic() + 30
            while scraped(client)["hashsearch_queue_size", "quick"] < 1:
                assert time.monotonic() < deadline
            assert client.get("/v1/images/1/thumbnail").json()["code"] == "busy"
            answers = pool.map(client.get, ["/readyz"] * 40)
            assert {(one.status_code, one.json()["images"]) for one in answers} == {(200, 300)}
        finally:
            go.set()


# Ids


@pytest.mark.parametrize(("method", "path", "status"), PATHS)
def test_every_answer_has_the_clients_request_id(client, method, path, status):
    response = client.request(method, path, headers={"X-Request-ID": "a.Client_id-5"})
    assert (response.status_code, response.headers["x-request-id"]) == (status, "a.Client_id-5")


def test_an_answer_to_a_body_that_is_too_large_has_the_id_too(client):
    response = client.post("/v1/search", content=b"x" * 100_001, headers={"X-Request-ID": "big"})
    assert (response.status_code, response.headers["x-request-id"]) == (413, "big")


@pytest.mark.parametrize("bad", ["", "a b", "x" * 129, "a/b", "é", "<script>"])
def test_an_id_of_another_form_is_replaced(client, bad):
    headers = {"X-Request-ID": bad.encode("latin-1")}
    ids = {client.get("/livez", headers=headers).headers["x-request-id"] for _ in range(2)}
    assert len(ids) == 2
    assert all(len(one) == 32 and one != bad for one in ids)


# The log


def test_a_request_is_one_line_of_json(client, caplog, picture):
    caplog.set_level(logging.INFO, "service")
    agent = 'a "client"\x1b[31m'
    headers = {"X-Request-ID": "mine", "User-Agent": agent.encode()}
    response = client.post("/v1/search?k=3", content=picture, headers=headers)
    (record,) = [one for one in caplog.records if one.name == "service.requests"]
    text = formatted(record, "json")
    line = json.loads(text)
    assert text.isprintable()
    assert line["level"] == "INFO"
    assert line["time"].endswith("+00:00")
    assert (line["request_id"], line["client"]) == ("mine", "testclient")
    assert (line["method"], line["route"], line["path"]) == ("POST", "/v1/search", "/v1/search")
    assert (line["status"], line["user_agent"]) == (200, agent)
    assert (line["bytes_in"], line["bytes_out"]) == (len(picture), len(response.content))
    assert set(line["stages_ms"]) == set(STAGES)
    assert sum(line["stages_ms"].values()) <= line["duration_ms"]


def test_changes_are_logged_with_their_ids_and_the_number_of_the_key(
    gallery, caplog, image_files, tmp_path
):
    caplog.set_level(logging.INFO, "service")
    keys = ["the-first-key-of-all", "the-second-key-of-all", "the-key-of-the-file"]
    in_file = tmp_path / "keys"
    in_file.write_text(f"# ours\n{keys[2]}\n")
    new = sorted(image_files.rglob("*.*"))[7].read_bytes() + b"more"
    with serving(gallery.folder, api_keys=",".join(keys[:2]), api_keys_file=in_file) as client:

        def asked(method, path, key, **body):
            headers = {"Authorization": f"Bearer {key}"}
            answer = client.request(method, path, headers=headers, **body)
            lines = [one.fields for one in caplog.records if one.name == "service.requests"]
            names = ("status", "key", "added_ids", "held_ids", "removed", "removed_of_ids")
            return answer.json(), {name: lines[-1].get(name) for name in names if name in lines[-1]}

        answer, line = asked("POST", "/v1/images", keys[1], content=new)
        added = [answer["images"][0]["id"]]
        assert line == {"status": 200, "key": 2, "added_ids": added, "held_ids": []}
        _, line = asked("POST", "/v1/images", keys[0], content=new)
        assert line == {"status": 200, "key": 1, "added_ids": [], "held_ids": added}
        _, line = asked("DELETE", f"/v1/images?id=1&id={added[0]}&id=999999", keys[2])
        ids = [1, *added, 999_999]
        assert line == {"status": 200, "key": 3, "removed": 2, "removed_of_ids": ids}
        _, line = asked("DELETE", "/v1/images/2", keys[2])
        assert line == {"status": 200, "key": 3, "removed": 1, "removed_of_ids": [2]}
        _, line = asked("DELETE", "/v1/images/2", "another-key-than-those")
        assert line == {"status": 401}
    assert not any(key in caplog.text for key in keys)


def test_what_a_client_sends_forges_no_line_and_is_logged_in_part(client, caplog):
    caplog.set_level(logging.INFO, "service")
    client.get("/a%0Ab%1B[31m%E2%80%A8" + "x" * 5000, headers={"User-Agent": "y" * 5000})
    (record,) = [one for one in caplog.records if one.name == "service.requests"]
    for form in ("text", "json"):
        line = formatted(record, form)
        assert line.isprintable()
        assert len(line) < 2000
    assert r"GET /a\nb\x1b[31m\u2028xxx" in formatted(record, "text")


def test_health_checks_and_scrapes_are_logged_for_debugging_alone(client, caplog):
    caplog.set_level(logging.DEBUG, "service")
    for path in ("/livez", "/readyz", "/metrics", "/"):
        client.get(path)
    levels = {
        one.fields["path"]: one.levelname
        for one in caplog.records
        if one.name == "service.requests"
    }
    quiet = dict.fromkeys(("/livez", "/readyz", "/metrics"), "DEBUG")
    assert levels == {**quiet, "/": "INFO"}


def test_a_failure_is_logged_with_its_traceback_and_id_and_not_answered(
    gallery_folder, caplog, monkeypatch
):
    def fail(*_):
        raise OSError("/secret/path cannot be read")

    with serving(gallery_folder) as client:
        monkeypatch.setattr("service.routes.images.picture_of", fail)
        response = client.get("/v1/images/1/thumbnail", headers={"X-Request-ID": "broken"})
    assert (response.status_code, response.headers["x-request-id"]) == (500, "broken")
    assert "secret" not in response.text
    (record,) = [one for one in caplog.records if one.levelname == "ERROR"]
    line = json.loads(formatted(record, "json"))
    assert (line["message"], line["request_id"]) == ("request broken failed", "broken")
    assert "OSError: /secret/path cannot be read" in line["traceback"]
    assert "in fail" in formatted(record, "text")


@pytest.mark.parametrize(
    ("form", "is_terminal", "found"),
    [
        ("auto", True, "text"),
        ("auto", False, "json"),
        ("json", True, "json"),
        ("text", False, "text"),
    ],
)
def test_the_format_is_the_wanted_one_or_fits_the_terminal(form, is_terminal, found):
    config = log_config(Settings(gallery="g", log_format=form), is_terminal=is_terminal)
    assert config["handlers"]["stderr"]["formatter"] == found


def test_a_request_that_is_cut_off_by_the_stop_gets_an_answer():
    async def never(scope, receive, send):
        await asyncio.sleep(3600)

    async def cut_off() -> list:
        sent = []

        async def send(message):
            sent.append(message)

        scope = {"type": "http", "method": "GET", "path": "/", "headers": []}
        task = asyncio.create_task(Observed(never, Metrics())(scope, None, send))
        await asyncio.sleep(0)
        task.cancel()
        await task
        return sent

    start, body = asyncio.run(cut_off())
    assert start["status"] == 503
    assert {b"retry-after", b"x-request-id"} <= dict(start["headers"]).keys()
    assert json.loads(body["body"])["code"] == "stopping"


def test_a_traceback_in_text_commands_no_terminal():
    try:
        raise ValueError("a\x1b[2Jb\rc\u202ed")
    except ValueError:
        record = logging.LogRecord("service", 40, "", 1, "failed", (), sys.exc_info())
    lines = formatted(record, "text").split("\n")
    assert lines[-1] == r"ValueError: a\x1b[2Jb\rc\u202ed"
    assert lines[1] == "Traceback (most recent call last):"
    assert all(line.isprintable() for line in lines)
