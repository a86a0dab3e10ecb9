"""Slow, broken and hostile clients against a running service."""

import json
import re
import socket
import struct
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress

import pytest

from tests.processes import LANE_THREADS, Served, serving_process

TIME_S = 1.0  # for a header, and for a body
QUEUE = 8
MAX_BODY = 2 * 2**20
BY_ID = b'{"id": 12}'
MOST_THREADS = LANE_THREADS + 24  # of what else starts threads


@pytest.fixture(scope="module")
def served(gallery_folder, tmp_path_factory):
    log = tmp_path_factory.mktemp("clients") / "log"
    limits = {"body_timeout_s": TIME_S, "queue": QUEUE, "max_body_bytes": MAX_BODY}
    with serving_process(gallery_folder, log, trusted_proxies="127.0.0.1", **limits) as started:
        with ThreadPoolExecutor(16) as pool:  # starts threads, and opens the catalog for them
            list(pool.map(lambda _: by_id(started), range(100)))
        yield started


@pytest.fixture(scope="module")
def picture(image_files) -> bytes:
    return sorted(image_files.rglob("*.*"))[7].read_bytes()


@pytest.fixture(autouse=True)
def unharmed(served, picture):
    """After each test the service answers as before, has left nothing open, and logged no fault.

    If work that nobody waits for stayed in a queue, as short as they are here, it would be full.
    """
    expected = by_id(served)
    descriptors = served.process.num_fds()
    yield
    assert served.settles(descriptors + 8, MOST_THREADS), served.process.net_connections()
    assert by_id(served) == expected
    status, _, body = served.request("POST", "/v1/search?k=1", picture)
    assert (status, json.loads(body)["hits"][0]["distance"]) == (200, 0)
    assert not any(word in served.messages() for word in ("Traceback", "Error", "never retrieved"))


def by_id(served: Served) -> tuple[int, list]:
    headers = {"Content-Type": "application/json"}
    for _ in range(100):
        status, _, body = served.request("POST", "/v1/search", BY_ID, **headers)
        if status != 503:  # busy
            break
        time.sleep(0.05)
    return status, json.loads(body)["hits"]


def opened(served: Served, timeout: float = 20) -> socket.socket:
    return socket.create_connection(("127.0.0.1", served.port), timeout=timeout)


def answer(connection: socket.socket) -> bytes:
    """What the service sends until it closes the connection; fails if it does not close it."""
    received = b""
    with suppress(ConnectionResetError):
        while piece := connection.recv(65_536):
            received += piece
    return received


def sent(served: Served, data: bytes) -> bytes:
    """The service's answer to some bytes, after which it closes the connection."""
    with opened(served) as connection:
        connection.sendall(data)
        return answer(connection)


def request(method: str, path: str, body: bytes = b"", *lines: str, close: bool = True) -> bytes:
    head = [f"{method} {path} HTTP/1.1", "Host: test", f"Content-Length: {len(body)}", *lines]
    head += ["Connection: close"] if close else []
    return "\r\n".join(head).encode("latin-1") + b"\r\n\r\n" + body


def problem(received: bytes) -> tuple[int, str]:
    """The status and code of the last answer in what was received, which is a problem."""
    head, _, body = received[received.rindex(b"HTTP/1.1 ") :].partition(b"\r\n\r\n")
    assert b"content-type: application/problem+json" in head.lower()
    found = json.loads(body)
    assert f"x-request-id: {found['request_id']}".encode() in head.lower()
    return int(head.split()[1]), found["code"]


def is_alive(served: Served) -> bool:
    return served.request("GET", "/livez")[0] == 200


# Slow


PAUSE = 0.1


def trickle(served: Served, start: bytes, piece: bytes) -> tuple[bytes, float, int]:
    """Send a start, and then a piece again and again until the service closes the connection.

    Returns what it answers, the seconds until then, and the number of pieces. The pieces bound
    the time, since seconds also pass while the machine stands still.
    """
    started, received, pieces = time.monotonic(), b"", 0
    with opened(served, PAUSE) as connection, suppress(ConnectionError):
        connection.sendall(start)
        while pieces < 10 * TIME_S / PAUSE:
            with suppress(TimeoutError):
                if not (more := connection.recv(65_536)):
                    return received, time.monotonic() - started, pieces
                received += more
            connection.sendall(piece)
            pieces += 1
        pytest.fail("the connection stays open")
    return received, time.monotonic() - started, pieces


@pytest.mark.parametrize(
    ("start", "piece"),
    [
        (b"", b"G"),
        (b"", b"\r\n"),
        (b"GET / HTTP/1.1\r\nX-Slow: ", b"a"),
        (b"GET / HTTP/1.1\r\n", b"a: b\r\n"),
        (request("GET", "/livez", close=False), b"\r\n"),
    ],
    ids=["method", "lines", "header", "headers", "after-an-answer"],
)
def test_a_header_that_does_not_end_is_not_waited_for(served, start, piece):
    received, seconds, pieces = trickle(served, start, piece)
    assert seconds > TIME_S * 0.9 or received.startswith(b"HTTP/1.1 400 ")
    assert pieces * PAUSE < 4 * TIME_S
    if start.startswith(b"GET /livez"):
        assert received.startswith(b"HTTP/1.1 200 ")


def test_a_body_of_a_byte_at_a_time_is_refused_and_not_read_for_ever(served):
    start = b"POST /v1/search HTTP/1.1\r\nHost: a\r\nContent-Length: 100000\r\n\r\n"
    received, _, pieces = trickle(served, start, b"x")
    assert problem(received) == (408, "body-too-slow")
    assert pieces * PAUSE < 5 * TIME_S


@pytest.mark.parametrize("piece", [b"a: b\r\n", b"a"], ids=["lines", "line"])
def test_the_end_of_a_chunked_body_is_not_waited_for(served, piece):
    start = b"POST /v1/search HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n"
    received, _, pieces = trickle(served, start, piece)
    assert problem(received) == (408, "body-too-slow")
    assert pieces * PAUSE < 5 * TIME_S


def test_a_body_that_no_route_reads_is_not_waited_for(served):
    received, _, pieces = trickle(
        served, b"GET /livez HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\n", b""
    )
    assert received.startswith(b"HTTP/1.1 200 ")
    assert pieces * PAUSE < 4 * TIME_S


def test_hundreds_of_idle_connections_do_no_harm_and_are_closed(served):
    with ExitStack() as stack:
        idle = [stack.enter_context(opened(served)) for _ in range(300)]
        for connection in idle[::2]:
            connection.sendall(request("GET", "/livez", close=False)[:20])
        assert is_alive(served)
        assert by_id(served)[0] == 200
        for connection in idle:
            assert b"200 OK" not in answer(connection)


def test_a_client_that_does_not_read_its_answers_is_disconnected(served):
    """It asks for more than the buffers of the machine hold."""
    ask = request("POST", "/v1/search?k=300", BY_ID, "Content-Type: application/json", close=False)
    with socket.socket() as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        connection.settimeout(1)
        connection.connect(("127.0.0.1", served.port))
        with suppress(TimeoutError, ConnectionError):
            for _ in range(1000):
                connection.sendall(ask * 10)
        until = time.monotonic() + 10 * TIME_S
        while any(
            one.raddr and one.raddr.port == connection.getsockname()[1]
            for one in served.process.net_connections("tcp")
        ):
            assert time.monotonic() < until, "the connection stays open"
            time.sleep(0.1)


# Hanging up


def test_clients_that_hang_up_at_any_point_leave_nothing_behind(served, picture, photograph):
    """In the header, in the body, while the answer is computed, and while it is read."""
    whole = request("POST", "/v1/search?k=300&transforms=true", photograph)
    by_code = request("POST", "/v1/compare?k=300", BY_ID, "Content-Type: application/json")
    reset = struct.pack("ii", 1, 0)
    for number in range(60):
        for data in (whole[:30], whole[: 200 + 50 * number], whole, by_code):
            with opened(served) as connection:
                if number % 2:  # the connection is reset rather than closed
                    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, reset)
                connection.sendall(data)
                if data is by_code and number % 3 == 0:
                    connection.recv(10)
    for _ in range(400):  # what was asked is worked off, or has been dropped
        if served.request("POST", "/v1/search", picture)[0] == 200:
            break
        time.sleep(0.05)
    assert is_alive(served)


# Broken


def test_what_is_not_http_is_answered_with_a_problem_and_logged(served):
    for garbage in (
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(50),  # TLS
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"\0" * 100,
        bytes(range(256)),
        b"GET /livez HTTP/9.9\r\n\r\n",
        b"GET /\0 HTTP/1.1\r\nHost: a\r\n\r\n",
        b"GET /liv\xc3\xa9z HTTP/1.1\r\nHost: a\r\n\r\n",
        b"GET /v1/gallery?\xff=1 HTTP/1.1\r\nHost: a\r\n\r\n",
        b"GET /livez HTTP/1.1\r\nHost: a\r\nNo colon\r\n\r\n",
        b"CONNECT example.org:443 HTTP/1.1\r\nHost: example.org\r\n\r\n",
        request("POST", "/v1/search", b"", "Transfer-Encoding: chunked"),  # and a length
        b"POST /v1/search HTTP/1.1\r\nHost: a\r\nContent-Length: -5\r\n\r\n",
        b"POST /v1/search HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\n",
        b"POST /v1/search HTTP/1.1\r\nHost: a\r\nContent-Length: " + b"9" * 40 + b"\r\n\r\n",
        b"POST /v1/search HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\nabc\r\n",
        b"POST /v1/search HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nabcdef\r\n",
        b"POST /v1/search HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip\r\n\r\n",
    ):
        received = sent(served, garbage)
        assert problem(received) == (400, "malformed-request"), garbage
        request_id = json.loads(received.rpartition(b"\r\n\r\n")[2])["request_id"]
        # It is not always the last line, if the request was at work.
        logged = [json.loads(line) for line in served.messages().splitlines() if line[0] == "{"]
        assert request_id in [line.get("request_id") for line in logged]


def test_an_address_that_is_not_encoded_is_refused_with_a_sentence_about_it(served):
    ask = request("GET", "/v1/images?label=ünï")  # as curl sends it
    for data in (ask, ask.decode("latin-1").encode(), request("GET", "/é"), request("GET", "/\t")):
        for parts in ([data], [data[:5], data[5:]], [request("GET", "/livez", close=False), data]):
            with opened(served) as connection:
                for part in parts:
                    connection.sendall(part)
                    time.sleep(0.02)
                received = answer(connection)
            assert problem(received) == (400, "malformed-request")
            assert b"the address must be a percent-encoded path" in received


def test_headers_are_read_up_to_a_size(served):
    def long(size: int) -> bytes:
        return request("GET", "/livez", b"", "X-Long: " + "a" * size)

    for size in (60_000, 65_536 - len(long(0))):
        assert sent(served, long(size)).startswith(b"HTTP/1.1 200 ")
    for size in (65_537 - len(long(0)), 70_000, 100_000):
        assert problem(sent(served, long(size))) == (431, "header-too-large")
    before = served.memory_mb()
    many = b"GET /livez HTTP/1.1\r\n" + b"a: b\r\n" * 1_000_000
    endless = b"POST /v1/search HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"
    for data in (
        b"GET /livez HTTP/1.1\r\nX-Long: " + b"a" * 10_000_000,
        many,
        b"GET /" + b"a" * 10_000_000,
        request("GET", "/livez?" + "a" * 70_000),
        endless + b"0\r\n" + b"a: b\r\n" * 1_000_000,
        endless + b"1;" + b"a" * 10_000_000,
    ):
        with opened(served) as connection:
            with suppress(ConnectionError):
                connection.sendall(data)
            received = answer(connection)
            # The client may not see the answer if it sends more than was read.
            assert not received or problem(received) == (431, "header-too-large")
    assert served.memory_mb() - before < 30


def test_lengths_of_bodies_that_are_wrong(served, picture):
    ask = request("POST", "/v1/search", picture)
    length = f"Content-Length: {len(picture)}".encode()
    too_short = ask.replace(length, b"Content-Length: 100")
    assert problem(sent(served, too_short.replace(b"Connection: close\r\n", b"")))[0] in (400, 422)
    too_long = ask.replace(length, b"Content-Length: %d" % (len(picture) + 1))
    assert problem(sent(served, too_long)) == (408, "body-too-slow")
    far_too_long = ask.replace(length, b"Content-Length: 9999999999")
    assert problem(sent(served, far_too_long)) == (413, "body-too-large")
    chunked = ask.replace(length, b"Transfer-Encoding: chunked")
    head, _, body = chunked.partition(b"\r\n\r\n")
    chunks = b"".join(b"1;x\r\n%c\r\n" % byte for byte in body) + b"0\r\nTrailer: a\r\n\r\n"
    assert sent(served, head + b"\r\n\r\n" + chunks).startswith(b"HTTP/1.1 200 ")
    chunk = b"10000\r\n" + bytes(65_536) + b"\r\n"
    with opened(served) as connection:
        with suppress(ConnectionError):
            connection.sendall(head + b"\r\n\r\n" + chunk * (MAX_BODY // 65_536 + 1))
        received = answer(connection)
    assert not received or problem(received) == (413, "body-too-large")


# Unusual


def test_expectations_are_met_only_if_the_body_is_wanted(served):
    head = (
        b"POST /v1/search HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\n"
        b"Expect: 100-continue\r\nConnection: close\r\n"
    )
    with opened(served) as connection:
        connection.sendall(head + b"Content-Length: %d\r\n\r\n" % len(BY_ID))
        assert connection.recv(100) == b"HTTP/1.1 100 Continue\r\n\r\n"
        connection.sendall(BY_ID)
        assert answer(connection).startswith(b"HTTP/1.1 200 ")
    refused = sent(served, head + b"Content-Length: 9999999999\r\n\r\n")
    assert refused.startswith(b"HTTP/1.1 413 ")


def test_pipelined_requests_are_answered_in_their_order(served):
    paths = ["/livez", "/nowhere", "/v1/gallery"] * 5
    requests = [request("GET", path, close=False) for path in paths[:-1]]
    received = sent(served, b"".join([*requests, request("GET", paths[-1])]))
    found = re.findall(rb'"(alive|not-found|fingerprint)"', received)
    assert found == [b"alive", b"not-found", b"fingerprint"] * 5


def test_lines_after_a_body_are_no_headers(served):
    """A proxy may pass on what a client sends there."""
    head = (
        "POST /v1/search HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\n"
        "Transfer-Encoding: chunked\r\nX-Forwarded-For: 198.51.100.7\r\n%s\r\n"
        f"{len(BY_ID):x}\r\n{BY_ID.decode()}\r\n0\r\n"
    )
    after = "X-Forwarded-For: 203.0.113.9\r\nX-Request-ID: after-1\r\nUser-Agent: after\r\n\r\n"
    upgrade = "Connection: Upgrade\r\nUpgrade: h2c\r\n"
    for more in ("", upgrade):
        last = request("GET", "/v1/gallery", b"", "X-Request-ID: last-1")  # has headers of its own
        received = sent(served, (head % more + after).encode() + last)
        assert received.count(b"HTTP/1.1 200 ") == 2
        assert b"x-request-id: last-1" in received
        assert b"after-1" not in received
        first, second = (json.loads(line) for line in served.messages().splitlines()[-2:])
        assert (first["client"], first["user_agent"]) == ("198.51.100.7", "")
        assert (second["client"], second["request_id"]) == ("127.0.0.1", "last-1")


def test_old_protocols_and_methods_are_answered(served):
    old = sent(served, b"GET /livez HTTP/1.0\r\n\r\n")
    assert old.startswith(b"HTTP/1.1 200 ")
    assert old.endswith(b'{"status":"alive"}')
    head = sent(served, request("HEAD", "/livez"))
    assert head.startswith(b"HTTP/1.1 200 ")
    assert head.endswith(b"\r\n\r\n")
    for method in ("OPTIONS", "TRACE", "PATCH", "PROPFIND"):
        refused = sent(served, request(method, "/livez"))
        assert problem(refused) == (405, "method-not-allowed")
        assert b"\r\nallow: GET, HEAD\r\n" in refused


def test_a_request_that_offers_another_protocol_is_answered_without_it(served):
    """As Java's client sends every request in the clear."""
    offer = ("Connection: Upgrade, HTTP2-Settings", "Upgrade: h2c", "HTTP2-Settings: AAMAAABk")
    json_body = "Content-Type: application/json"
    ask = request("POST", "/v1/search", BY_ID, json_body, *offer, close=False)
    last = request("GET", "/livez")
    for data in (ask + last, ask * 3 + last):
        received = sent(served, data)
        assert received.count(b'"kind":"id"') == data.count(b"POST")
        assert b'"alive"' in received
    with opened(served) as connection:
        for number in range(len(ask)):
            connection.sendall(ask[number : number + 1])
        connection.sendall(last)
        assert b'"kind":"id"' in answer(connection)
    websocket = ("Connection: Upgrade", "Upgrade: websocket", "Sec-WebSocket-Version: 13")
    many = request("GET", "/livez", b"", *websocket, close=False) * 500 + last
    assert sent(served, many).count(b'"alive"') == 501


@pytest.mark.parametrize(
    "path",
    [
        "/livez%00",
        "/%00",
        "/%ff%fe",
        "/v1/images/%00/thumbnail",
        "/v1/images/%C3%A9/thumbnail",
        "/static/%00",
        "/static/%ff",
        "/static/..%2f..%2fapp.py",
        "/static/" + "a" * 5000,
        "//livez//",
    ],
)
def test_odd_paths_are_answered_with_problems(served, path):
    assert problem(sent(served, request("GET", path)))[0] in (404, 422)
