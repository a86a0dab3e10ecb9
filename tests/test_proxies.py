"""What is believed of a proxy, and paths under a prefix."""

import asyncio

import pytest
from pydantic import ValidationError

from service.app import create_app
from service.proxies import OWN, Proxied, path_of
from service.settings import Settings
from tests.conftest import serving

TRUSTED = "10.0.0.0/8, 2001:db8:1::/48,192.0.2.7"


def seen(peer, headers=(), path="/v1/search", root_path=""):
    """The scope that an application sees."""
    scope = {
        "type": "http",
        "scheme": "http",
        "client": None if peer is None else (peer, 5000),
        "path": path,
        "root_path": "",
        "headers": [(name.lower().encode(), value.encode()) for name, value in headers],
    }
    found = {}

    async def app(scope, receive, send):
        found.update(scope)

    settings = Settings(gallery=".", trusted_proxies=TRUSTED)
    asyncio.run(Proxied(app, settings.trusted_proxies, root_path)(scope, None, None))
    return found


def forwarded(*lines):
    return [("X-Forwarded-For", line) for line in lines]


@pytest.mark.parametrize(
    ("peer", "lines", "client"),
    [
        ("10.0.0.1", ["203.0.113.5"], "203.0.113.5"),
        ("192.0.2.7", ["203.0.113.5"], "203.0.113.5"),
        ("::ffff:10.0.0.1", ["203.0.113.5"], "203.0.113.5"),  # of a socket for both families
        ("2001:db8:1::9", ["203.0.113.5"], "203.0.113.5"),
        # The client wrote the first entry itself, to be taken for another.
        ("10.0.0.1", ["198.51.100.1, 203.0.113.5"], "203.0.113.5"),
        ("10.0.0.1", ["198.51.100.1, 203.0.113.5, 10.1.2.3"], "203.0.113.5"),
        ("10.0.0.1", ["198.51.100.1", "203.0.113.5,10.1.2.3"], "203.0.113.5"),
        ("10.0.0.1", ["203.0.113.5:8080"], "203.0.113.5"),
        ("10.0.0.1", ["2001:DB8::5"], "2001:db8::5"),
        ("10.0.0.1", ["[2001:db8::5]"], "2001:db8::5"),
        ("10.0.0.1", ["[2001:db8::5]:443"], "2001:db8::5"),
        ("10.0.0.1", ["::ffff:203.0.113.5"], "203.0.113.5"),
        ("10.0.0.1", ["10.9.9.9, 10.8.8.8"], "10.9.9.9"),  # all are trusted
        # What is no address ends the search: the last proxy known is the client.
        ("10.0.0.1", ["203.0.113.5, unknown"], "10.0.0.1"),
        ("10.0.0.1", ["203.0.113.5, _hidden, 10.1.2.3"], "10.1.2.3"),
        ("10.0.0.1", ["203.0.113.5,"], "10.0.0.1"),
        ("10.0.0.1", ["203.0.113.5:port"], "10.0.0.1"),
        ("10.0.0.1", ["203.0.113.300"], "10.0.0.1"),
        ("10.0.0.1", ["fe80::1%eth0\n"], "10.0.0.1"),
        ("10.0.0.1", [""], "10.0.0.1"),
        ("10.0.0.1", [], "10.0.0.1"),
        # Peers that are not trusted are believed nothing.
        ("203.0.113.9", ["198.51.100.1"], "203.0.113.9"),
        ("203.0.113.9", ["10.0.0.1"], "203.0.113.9"),
        ("2001:db8:2::9", ["198.51.100.1"], "2001:db8:2::9"),
    ],
)
def test_the_client_is_the_rightmost_address_that_is_not_trusted(peer, lines, client):
    assert seen(peer, forwarded(*lines))["client"][0] == client


def test_a_peer_without_an_address_is_not_trusted():
    headers = [*forwarded("203.0.113.5"), ("X-Forwarded-Prefix", "/p")]
    for peer in (None, "", "testclient", "/run/hashsearch.sock"):
        found = seen(peer, headers)
        assert found["client"] == (None if peer is None else (peer, 5000))
        assert found["root_path"] == ""


@pytest.mark.parametrize(
    ("headers", "scheme"),
    [
        (["https"], "https"),
        (["http"], "http"),
        (["HTTPS"], "http"),
        (["javascript"], "http"),
        (["https,http"], "http"),
        (["https", "https"], "http"),
    ],
)
def test_the_scheme_is_http_or_https(headers, scheme):
    lines = [("X-Forwarded-Proto", value) for value in headers]
    assert seen("10.0.0.1", lines)["scheme"] == scheme
    assert seen("203.0.113.9", lines)["scheme"] == "http"


@pytest.mark.parametrize("prefix", ["/pictures", "/a/b-c/~d_e.f", ""])
def test_a_prefix_is_taken_from_a_trusted_proxy(prefix):
    found = seen("10.0.0.1", [("X-Forwarded-Prefix", prefix)], root_path="/configured")
    assert (found["root_path"], found["path"]) == (prefix, f"{prefix}/v1/search")
    found = seen("203.0.113.9", [("X-Forwarded-Prefix", prefix)], root_path="/configured")
    assert found["root_path"] == "/configured"


@pytest.mark.parametrize(
    "prefix",
    [
        "/",
        "pictures",
        "/pictures/",
        "//evil.example",
        "/a b",
        "/a?b",
        '/"><',
        "/a,/b",
        "/v1",
        "/v1/images",
        "/docs/a",
        "/static",
        "/livez",
        "/openapi.json",
    ],
)
def test_a_prefix_of_another_form_is_passed_over(prefix):
    assert seen("10.0.0.1", [("X-Forwarded-Prefix", prefix)])["root_path"] == ""
    with pytest.raises(ValidationError, match="a path such as /pictures is wanted"):
        Settings(gallery=".", root_path=prefix)


def test_no_prefix_begins_as_a_path_of_the_service(gallery_folder):
    app = create_app(Settings(gallery=gallery_folder))
    paths = [*app.openapi()["paths"], *(getattr(route, "path", "/") for route in app.routes)]
    assert {path.split("/")[1] for path in (*paths, "/docs")} == {*OWN, ""}


def test_a_prefix_that_comes_twice_is_passed_over():
    twice = [("X-Forwarded-Prefix", "/a"), ("X-Forwarded-Prefix", "/b")]
    assert seen("10.0.0.1", twice)["root_path"] == ""


@pytest.mark.parametrize(
    ("path", "own"),
    [
        ("/v1/search", "/v1/search"),
        ("/p/v1/search", "/v1/search"),
        ("/p", "/"),
        ("/p/", "/"),
        ("/", "/"),
        ("/photos", "/photos"),
        ("/plivez", "/plivez"),  # which is no path that needs no key
    ],
)
def test_the_path_begins_with_the_prefix_whether_or_not_the_proxy_left_it(path, own):
    found = seen("203.0.113.9", path=path, root_path="/p")
    assert (found["root_path"], found["path"]) == ("/p", f"/p{own}")
    assert path_of(found) == own


@pytest.mark.parametrize("path", ["/metrics", "/p/metrics", "/p", "/p/p", "/"])
def test_the_prefix_that_a_proxy_names_was_taken_off_the_path(path):
    found = seen("10.0.0.1", [("X-Forwarded-Prefix", "/p")], path=path, root_path="/p")
    assert (found["root_path"], found["path"]) == ("/p", f"/p{path}")
    assert path_of(found) == path  # a proxy that hides /p/metrics did not let /metrics through


def test_without_a_prefix_the_path_is_as_it_came():
    assert path_of(seen("203.0.113.9", path="/p/livez")) == "/p/livez"


@pytest.mark.parametrize("left", ["", "/pictures"])
def test_every_link_under_a_prefix_leads_to_an_answer(gallery_folder, left):
    """left: what the proxy leaves of the prefix."""
    with serving(gallery_folder, root_path="/pictures") as client:
        hits = client.post(f"{left}/v1/search", json={"id": 5}).json()["hits"]
        links = [hit["thumbnail"] for hit in hits]
        for path in ("/", "/docs"):
            page = client.get(left + path).text
            links += [
                part.split('"')[1] for part in page.replace("src=", "href=").split("href=")[1:]
            ]
        assert len(links) > 10
        for link in links:
            if link == "#results":  # a place within the page
                continue
            assert link.startswith("/pictures/")
            assert client.get(left + link.removeprefix("/pictures")).status_code == 200
        document = client.get(f"{left}/openapi.json").json()
        assert document["servers"] == [{"url": "/pictures"}]
    with serving(gallery_folder) as client:
        assert "servers" not in client.get("/openapi.json").json()


def test_each_request_has_the_prefix_of_its_own_proxy(gallery_folder):
    with serving(gallery_folder, trusted_proxies="10.0.0.1") as opened:
        client = type(opened)(opened.app, client=("10.0.0.1", 5000))
        for prefix in ("/a", "/b/c", ""):
            headers = {"X-Forwarded-Prefix": prefix}
            hits = client.post("/v1/search", json={"id": 5}, headers=headers).json()["hits"]
            assert hits[0]["thumbnail"].startswith(f"{prefix}/v1/images/")
            servers = client.get("/openapi.json", headers=headers).json().get("servers")
            assert servers == ([{"url": prefix}] if prefix else None)
        for path in ("/", "/docs"):
            page = opened.get(path, headers={"X-Forwarded-Prefix": "/a"}).text  # not trusted
            assert '"/static/' in page
            assert "/a/" not in page


@pytest.mark.parametrize("value", ["proxy.example", "10.0.0.1/8", "10.0.0.300", "*", "10.0.0.1;"])
def test_trusted_proxies_are_addresses_and_networks(value):
    with pytest.raises(ValidationError, match="trusted_proxies"):
        Settings(gallery=".", trusted_proxies=value)
