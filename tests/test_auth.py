"""API keys."""

import re
from contextlib import contextmanager

import pytest
from fastapi.testclient import TestClient

from service.auth import WithKey
from service.settings import InvalidSetting, Settings
from tests.conftest import serving
from tests.test_service import problem

FIRST, SECOND = "first-key-0123456789", "second:key#0123456789"
# What needs no key even if everything else does.
OPEN = {"/livez", "/readyz", "/docs", "/openapi.json", "/static", "/static-offline-docs"}


def bearer(key: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {key}"}


@contextmanager
def writable(folder, **settings):
    """A service with a route that needs a key."""
    with serving(folder, **settings) as client:

        async def write() -> str:
            return "written"

        client.app.add_api_route("/write", write, methods=["POST"], dependencies=[WithKey])
        yield client


def test_without_a_key_writes_are_off_and_the_answer_says_how_to_switch_them_on(gallery_folder):
    with writable(gallery_folder) as client:
        for headers in ({}, bearer(""), bearer(FIRST)):
            detail = problem(client.post("/write", headers=headers), 403, "writes-off")
            assert "HASHSEARCH_API_KEYS" in detail


def test_any_of_the_keys_lets_a_write_through(gallery_folder, tmp_path):
    file = tmp_path / "keys"
    file.write_text(f"# for the importer\n\n  {SECOND}\r\n")
    with writable(gallery_folder, api_keys=f" {FIRST}, ,", api_keys_file=file) as client:
        for key in (FIRST, SECOND):
            assert client.post("/write", headers=bearer(key)).json() == "written"
        assert client.post("/write", headers={"authorization": f"bearer {FIRST}"}).is_success
        assert client.post("/v1/search", json={"id": 5}).is_success  # reading needs none


def test_every_other_way_to_ask_is_refused_with_the_same_answer(gallery_folder):
    with writable(gallery_folder, api_keys=f"{FIRST},{SECOND}") as client:
        details = set()
        for headers in (
            {},
            bearer(""),
            bearer(FIRST[:-1]),
            bearer(FIRST + "x"),
            bearer(FIRST.upper()),
            bearer(f"{FIRST},{SECOND}"),
            {"Authorization": FIRST},
            {"Authorization": f"Basic {FIRST}"},
            {"Authorization": b"Bearer \xff\xfe"},
            {"Cookie": f"Authorization=Bearer {FIRST}; api_key={FIRST}"},
            {"X-API-Key": FIRST},
        ):
            answer = client.post("/write", headers=headers)
            details.add(problem(answer, 401, "unauthorized"))
            assert answer.headers["www-authenticate"] == "Bearer"
        query = client.post(f"/write?api_key={FIRST}&access_token={FIRST}&key={FIRST}")
        details.add(problem(query, 401, "unauthorized"))
        assert len(details) == 1


def test_openapi_says_which_paths_need_a_key(gallery_folder):
    with writable(gallery_folder, api_keys=FIRST) as client:
        document = client.get("/openapi.json").json()
        assert document["components"]["securitySchemes"]["ApiKey"]["scheme"] == "bearer"
        assert document["paths"]["/write"]["post"]["security"] == [{"ApiKey": []}]
        assert "security" not in document["paths"]["/v1/search"]["post"]
    with serving(gallery_folder, api_keys=FIRST, key_for="all") as client:
        document = client.get("/openapi.json").json()
        assert document["components"]["securitySchemes"]["ApiKey"]["scheme"] == "bearer"
        for path, operations in document["paths"].items():
            for operation in operations.values():
                assert ("security" in operation) == (path not in OPEN)
                assert ("401" in operation["responses"]) == (path not in OPEN)


def paths_of(routes):
    """Paths of routes, those of included routers too."""
    for route in routes:
        included = getattr(route, "original_router", None)
        yield from paths_of(included.routes) if included else [route.path]


def test_with_keys_for_all_every_path_but_the_open_ones_needs_one(gallery_folder):
    with serving(gallery_folder, api_keys=FIRST, key_for="all") as client:
        paths = set(paths_of(client.app.routes))
        assert {"/", "/v1/search", "/v1/images/{image_id}/thumbnail", "/static"} <= paths
        assert paths >= OPEN
        for path in [*paths - OPEN, "/metrics", "/no/such/path", "/docs/../v1/gallery", "//livez"]:
            path = re.sub(r"{.*?}", "1", path)
            for method in ("GET", "HEAD", "POST", "DELETE", "OPTIONS"):
                answer = client.request(method, path)
                assert answer.status_code == 401, (method, path)
                assert answer.headers["www-authenticate"] == "Bearer"
        problem(client.get("/"), 401, "unauthorized")
        problem(client.get("/", headers=bearer(SECOND)), 401, "unauthorized")
        for path in ("/livez", "/readyz", "/docs", "/openapi.json", "/static/page/main.js"):
            assert client.get(path).status_code == 200
        assert client.get("/static-offline-docs/swagger-ui.css").status_code == 200
        problem(client.get("/static/%2e%2e/v1/gallery"), 404, "not-found")
        for path in ("/", "/v1/gallery", "/v1/images/1/thumbnail"):
            assert client.get(path, headers=bearer(FIRST)).status_code == 200


def test_with_keys_for_all_a_prefix_opens_nothing(gallery_folder):
    with serving(gallery_folder, api_keys=FIRST, key_for="all", root_path="/pictures") as client:
        assert client.get("/pictures/v1/gallery").status_code == 401
        assert client.get("/pictures/livez").status_code == 200


@pytest.mark.parametrize(
    ("keys", "lines"),
    [
        ("fifteen-letters", None),
        (f"{FIRST},with a space 0123", None),
        ("schlüssel-0123456789", None),
        ("", "fifteen-letters"),
        ("", f"{FIRST} # comment"),
        ("", "# none\n"),
        ("", ""),
    ],
)
def test_a_weak_key_is_refused_at_the_start_and_not_shown(gallery_folder, tmp_path, keys, lines):
    settings = {"api_keys": keys}
    if lines is not None:
        settings["api_keys_file"] = tmp_path / "keys"
        settings["api_keys_file"].write_text(lines)
    variable = "HASHSEARCH_API_KEYS" if lines is None else "HASHSEARCH_API_KEYS_FILE"
    with (
        pytest.raises(InvalidSetting, match=f"{variable} cannot be used") as refused,
        serving(gallery_folder, **settings),
    ):
        pass
    for part in [*keys.split(","), *(lines or "").split()]:
        assert len(part) < 8 or part not in str(refused.value)


def test_a_file_of_keys_that_cannot_be_read_is_refused(gallery_folder, tmp_path):
    with (
        pytest.raises(InvalidSetting, match=r"HASHSEARCH_API_KEYS_FILE.*No such file"),
        serving(gallery_folder, api_keys_file=tmp_path / "none"),
    ):
        pass


def test_keys_for_all_without_a_key_are_refused_at_the_start(gallery_folder):
    with (
        pytest.raises(InvalidSetting, match=r"HASHSEARCH_KEY_FOR.*HASHSEARCH_API_KEYS"),
        serving(gallery_folder, key_for="all"),
    ):
        pass


def test_no_text_of_the_settings_or_the_application_shows_a_key(gallery_folder, caplog):
    caplog.set_level("DEBUG")
    settings = Settings(gallery=gallery_folder, api_keys=FIRST)
    with writable(gallery_folder, api_keys=FIRST) as client:
        assert isinstance(client, TestClient)
        client.post("/write", headers=bearer(FIRST))
        client.post("/write", headers=bearer(SECOND))
        keys = client.app.state.keys
        shown = [repr(settings), str(settings), settings.model_dump_json(), repr(vars(keys))]
    for text in [*shown, caplog.text]:
        assert FIRST not in text
        assert SECOND not in text
