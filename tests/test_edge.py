"""What surrounds every answer: headers, limits of the rate, and other origins."""

import asyncio
import time

import pytest
from pydantic import ValidationError

from service import limits
from service.lanes import Lane
from service.limits import RateLimited, rate_of
from service.settings import Settings
from tests.conftest import serving
from tests.test_auth import FIRST, bearer
from tests.test_service import problem

HEADERS = {
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "x-frame-options": "DENY",
    "cross-origin-resource-policy": "same-origin",
    "cross-origin-opener-policy": "same-origin",
    "cache-control": "private, no-cache",
}
ORIGIN = "https://pictures.example"


def test_every_answer_has_the_security_headers(gallery_folder, monkeypatch):
    with serving(gallery_folder, api_keys=FIRST, key_for="all", cors_origins=ORIGIN) as client:
        monkeypatch.setattr("service.routes.images.picture_of", lambda *_: 1 / 0)
        key, preflight = bearer(FIRST), {"Origin": ORIGIN, "Access-Control-Request-Method": "POST"}
        for status, answer in (
            (200, client.get("/", headers=key)),
            (200, client.get("/docs")),
            (200, client.get("/static/page/main.js")),
            (200, client.get("/static-offline-docs/swagger-ui.css")),
            (200, client.get("/v1/gallery", headers=key)),
            (200, client.get("/livez")),
            (200, client.options("/v1/search", headers=preflight)),
            (401, client.get("/v1/gallery")),
            (404, client.get("/none", headers=key)),
            (415, client.post("/v1/search", content=b"hello", headers=key)),
            (500, client.get("/v1/images/1/thumbnail", headers=key)),
        ):
            assert answer.status_code == status
            for_others = {"cross-origin-resource-policy": "cross-origin"}
            assert (HEADERS | for_others).items() <= dict(answer.headers).items()
            assert "x-request-id" in answer.headers
            policy = dict(
                part.strip().split(" ", 1)
                for part in answer.headers["content-security-policy"].split(";")
            )
            assert policy["default-src"] == "'none'"
            assert policy["script-src"] == policy["connect-src"] == "'self'"
            assert policy["base-uri"] == policy["frame-ancestors"] == "'none'"
            assert "camera=(self)" in answer.headers["permissions-policy"]


def test_a_browser_asks_whether_a_static_file_is_still_the_same(gallery_folder):
    with serving(gallery_folder) as client:
        for path in ("/static/page/main.js", "/static-offline-docs/swagger-ui-bundle.js"):
            tag = client.get(path).headers["etag"]
            answer = client.get(path, headers={"If-None-Match": tag})
            assert (answer.status_code, answer.content) == (304, b"")
            assert answer.headers["cache-control"] == "private, no-cache"


def test_no_answer_repeats_the_host_that_the_client_names(gallery_folder):
    host = "evil.example"
    with serving(gallery_folder) as client:
        for path in ("/", "/docs", "/openapi.json", "/v1/gallery", "/livez", "/static/page/main.js",
                     "/docs/", "/v1/gallery/", "/static", "/static/", "/v1", "/none"):  # fmt: skip
            headers = {"Host": host, "X-Forwarded-Host": host, "Forwarded": f"host={host}"}
            answer = client.get(path, headers=headers, follow_redirects=False)
            assert host not in answer.text
            assert host not in str(answer.headers)
            assert not answer.is_redirect
        answer = client.post("/v1/search", json={"id": 5}, headers={"Host": host})
        assert answer.is_success
        assert host not in answer.text


# The limit of the rate


def test_a_client_that_asks_too_often_waits_as_long_as_it_is_told(gallery_folder):
    with serving(gallery_folder, rate_limit="5/2 seconds") as client:
        answered = 0
        while (refused := client.get("/v1/gallery")).status_code == 200:
            answered += 1
        assert answered >= 5
        detail = problem(refused, 429, "too-many-requests")
        wait = int(refused.headers["retry-after"])
        assert 1 <= wait <= 3
        assert f" {wait} second" in detail
        for _ in range(100):  # probes are not limited
            assert client.get("/livez").status_code == client.get("/readyz").status_code == 200
        time.sleep(wait)
        assert client.get("/v1/gallery").status_code == 200
        responses = client.app.openapi()["paths"]  # whose path is limited too
        assert "429" in responses["/v1/gallery"]["get"]["responses"]
        assert "429" not in responses["/livez"]["get"]["responses"]


def test_without_a_limit_no_client_waits(gallery_folder):
    with serving(gallery_folder) as client:
        assert all(client.get("/v1/gallery").status_code == 200 for _ in range(200))


def test_clients_are_counted_apart_also_behind_a_proxy(gallery_folder):
    with serving(gallery_folder, rate_limit="2/hour", trusted_proxies="10.0.0.1") as opened:

        def status(client, peer="10.0.0.1"):
            asking = type(opened)(opened.app, client=(peer, 5000))
            return asking.get("/v1/gallery", headers={"X-Forwarded-For": client}).status_code

        assert [status("203.0.113.5") for _ in range(3)] == [200, 200, 429]
        assert [status("x, 203.0.113.6") for _ in range(3)] == [200, 200, 429]
        # All addresses of an IPv6 network of 64 bits are one client's.
        assert [status(f"2001:db8::{n}") for n in range(1, 4)] == [200, 200, 429]
        assert status("2001:db8:0:1::1") == 200
        # A peer that is not trusted is counted by its own address, whatever it writes.
        assert [status(f"203.0.113.{n}", "192.0.2.1") for n in (7, 8, 9)] == [200, 200, 429]


def test_guessing_keys_is_limited(gallery_folder):
    with serving(gallery_folder, rate_limit="3/hour", api_keys=FIRST, key_for="all") as client:
        guesses = [client.get("/", headers=bearer(f"{n:020}")).status_code for n in range(5)]
        assert guesses == [401, 401, 401, 429, 429]


class Asker:
    """Requests to a limited application, without the rest of the service, at a set time."""

    def __init__(self, rate, monkeypatch):
        self.now, self.answers = 1_000_000.0, []
        monkeypatch.setattr(time, "time", lambda: self.now)

        async def app(scope, receive, send):
            self.answers.append(200)

        self.app = RateLimited(app, rate_of(rate))

    def ask(self, client):
        state = {"request_id": "x"}
        scope = {"type": "http", "path": "/", "client": (client, 1), "state": state, "headers": []}
        before = len(self.answers)

        async def send(message):
            if message["type"] == "http.response.start":
                self.answers.append(message["status"])

        asking = self.app({**scope, "method": "GET"}, None, send)
        with pytest.raises(StopIteration):  # nothing in it waits
            asking.send(None)
        return self.answers[before]

    @property
    def counts(self):
        return self.app._counts


def test_what_is_counted_of_100_000_clients_is_forgotten(monkeypatch):
    asker = Asker("2/minute", monkeypatch)
    for n in range(100_000):
        assert asker.ask(f"10.{n >> 16}.{n >> 8 & 255}.{n & 255}") == 200
    assert len(asker.counts.storage) == 100_000
    assert [asker.ask("10.0.0.0"), asker.ask("10.0.0.0")] == [200, 429]
    asker.now += 121
    assert asker.ask("10.0.0.0") == 200
    assert len(asker.counts.storage) >= 99_000  # no request takes long for it
    for _ in range(100):
        asker.ask("10.0.0.0")
    for kept in (asker.counts.storage, asker.counts.expirations, asker.counts.locks):
        assert len(kept) == 1
    assert not asker.counts.events


def test_the_number_of_counters_has_an_upper_bound(monkeypatch):
    """Beyond it, the oldest are forgotten, and clients that ask too often are still refused."""
    monkeypatch.setattr(limits, "_MOST_COUNTS", 1000)
    monkeypatch.setattr(limits, "_AT_ONCE", 100)
    asker = Asker("2/day", monkeypatch)
    for n in range(2500):
        asker.ask(f"10.0.{n >> 8}.{n & 255}")
        assert len(asker.counts.storage) <= 1000
        if n % 500 == 0:
            refused = f"10.1.0.{n // 500}"
            asker.ask(refused)
            asker.ask(refused)
        assert asker.ask(refused) == 429


def test_the_limit_holds_in_every_window_of_its_length(monkeypatch):
    asker = Asker("10/minute", monkeypatch)
    answered = []
    for _ in range(1200):
        asker.now += 0.5
        if asker.ask("10.0.0.1") == 200:
            answered.append(asker.now)
    # The former window counts by its share, as if its requests had come evenly. Windows that
    # are counted apart would let 20 through.
    for start in answered:
        assert sum(start <= at < start + 60 for at in answered) < 20
    assert 90 <= len(answered) <= 110  # in ten minutes


@pytest.mark.parametrize("rate", ["100", "0/minute", "-1/minute", "1/fortnight", "1/minute;2/hour"])
def test_a_rate_of_another_form_is_refused(rate):
    with pytest.raises(ValidationError, match="such as 100/minute"):
        Settings(gallery=".", rate_limit=rate)


# Other origins


def test_pages_of_other_origins_are_answered_only_if_they_are_named(gallery_folder):
    asked = {"Access-Control-Request-Method": "POST",
             "Access-Control-Request-Headers": "authorization, content-type"}  # fmt: skip
    with serving(gallery_folder) as client:
        answer = client.get("/v1/gallery", headers={"Origin": ORIGIN})
        assert not [name for name in answer.headers if name.startswith("access-control")]
        answer = client.options("/v1/search", headers={"Origin": ORIGIN, **asked})
        assert not [name for name in answer.headers if name.startswith("access-control")]
    settings = {"cors_origins": f"{ORIGIN}, http://localhost:3000", "api_keys": FIRST}
    with serving(gallery_folder, key_for="all", **settings) as client:
        for origin in (ORIGIN, "http://localhost:3000"):
            answer = client.options("/v1/search", headers={"Origin": origin, **asked})
            assert answer.status_code == 200
            assert answer.headers["access-control-allow-origin"] == origin
            assert "POST" in answer.headers["access-control-allow-methods"]
            allowed = answer.headers["access-control-allow-headers"].lower()
            assert {"authorization", "content-type"} <= set(allowed.split(", "))
            for key, status in ((FIRST, 200), ("wrong", 401)):
                headers = {"Origin": origin, **bearer(key)}
                answer = client.get("/v1/gallery", headers=headers)
                assert answer.status_code == status
                assert answer.headers["access-control-allow-origin"] == origin
                exposed = answer.headers["access-control-expose-headers"].split(", ")
                assert {"X-Request-ID", "Server-Timing", "Retry-After"} <= set(exposed)
                assert "access-control-allow-credentials" not in answer.headers
                assert "Origin" in answer.headers["vary"]
        for other in ("https://other.example", f"{ORIGIN}.other.example", "null"):
            answer = client.get("/v1/gallery", headers={"Origin": other, **bearer(FIRST)})
            assert "access-control-allow-origin" not in answer.headers
            answer = client.options("/v1/search", headers={"Origin": other, **asked})
            assert answer.status_code == 400
            assert "access-control-allow-origin" not in answer.headers


def test_answers_to_failures_are_read_by_allowed_origins_alone(gallery_folder, monkeypatch):
    with serving(gallery_folder, cors_origins=ORIGIN) as client:
        for error, status in ((ZeroDivisionError, 500), (asyncio.CancelledError, 503)):

            async def fail(*_, error=error):
                raise error

            monkeypatch.setattr(Lane, "run", fail)
            for origin, wanted in ((ORIGIN, ORIGIN), ("https://other.example", None)):
                answer = client.get("/v1/images/1", headers={"Origin": origin})
                assert answer.status_code == status
                assert answer.headers.get("access-control-allow-origin") == wanted


def test_pages_of_other_origins_show_pictures_only_if_some_are_named(gallery_folder):
    for origins, wanted in (("", "same-origin"), (ORIGIN, "cross-origin")):
        with serving(gallery_folder, cors_origins=origins) as client:
            answer = client.get("/v1/images/1/thumbnail")
            assert answer.headers["cross-origin-resource-policy"] == wanted


def test_all_origins_may_be_allowed(gallery_folder):
    with serving(gallery_folder, cors_origins="*") as client:
        answer = client.get("/v1/gallery", headers={"Origin": ORIGIN})
        assert answer.headers["access-control-allow-origin"] == "*"
        assert "access-control-allow-credentials" not in answer.headers


@pytest.mark.parametrize(
    "value",
    ["pictures.example", "https://a.example/", "https://A.example", "https://*.a.example", "null"],
)
def test_an_origin_of_another_form_is_refused(value):
    with pytest.raises(ValidationError, match=r"such as https://example\.org"):
        Settings(gallery=".", cors_origins=value)


# Settings


def test_a_refused_setting_does_not_show_its_value():
    with pytest.raises(ValidationError) as refused:
        Settings(gallery=".", api_keys=["a secret that is long"])
    assert "secret that" not in str(refused.value)
