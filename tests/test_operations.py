"""The service as a process that is started, stopped, watched and backed up."""

import http.client
import json
import os
import re
import shutil
import signal
import socket
import ssl
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from hashsearch.cli import main
from hashsearch.gallery.gallery_folder import GalleryFolder
from hashsearch.jobs.adding import add_image
from hashsearch.jobs.verifying import verify
from service.schemas.problem import Problem
from service.settings import Settings, unknown_variables
from tests import tables
from tests.conftest import open_searcher
from tests.forked import Forked

# Loading waits for a line on stdin; it fails, or never ends, if the line says so.
SLOW = """
import signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs ignore it
from service.engine import Engine
load = Engine.load
def wait_and_load(engine):
    how = sys.stdin.readline().strip()
    if how == "fail":  # while a thread lives that nobody waits for, such as one of Ray's
        from threading import Event, Thread
        Thread(target=Event().wait, daemon=True).start()
        raise ValueError("a shard has a wrong shape")
    if how == "endless":
        import torch
        print("busy", flush=True)
        while True:
            torch.ones(500, 500) @ torch.ones(500, 500)
    load(engine)
Engine.load = wait_and_load
from hashsearch.cli import main
sys.exit(main())
"""
PLAIN = """
import signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)
from hashsearch.cli import main
sys.exit(main())
"""
SECRET = "hs-5318008531"


class Service:
    """A process that serves a gallery. fresh: whether Python starts and ends as for users."""

    def __init__(
        self, gallery: Path, *, loads_slowly: bool = False, fresh: bool = False, **environment: str
    ):
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.port = free.getsockname()[1]
        program = SLOW if loads_slowly else PLAIN
        start = subprocess.Popen if fresh else Forked
        arguments = ["serve", "--gallery", gallery, "--port", str(self.port)]
        self.process = start(
            [sys.executable, "-c", program, *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, **environment},
        )
        self.log: list[str] = []  # lines of stderr
        self._reading = threading.Thread(target=self._read, daemon=True)
        self._reading.start()

    def _read(self) -> None:
        assert self.process.stderr is not None
        for line in self.process.stderr:
            self.log.append(line.rstrip("\n"))

    def load(self, how: str = "now") -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(f"{how}\n")
        self.process.stdin.flush()

    def wait_until_alive(self) -> None:
        until(self._is_alive, "the service answers")  # its socket listens earlier

    def wait_until_loaded(self) -> None:
        assert self.process.stdout is not None
        assert f":{self.port}/" in self.process.stdout.readline(), self.log

    def _is_alive(self) -> bool:
        try:
            return self.ask("GET", "/livez")[0] == 200
        except OSError:
            return False

    def refuses_connections(self) -> bool:
        try:
            with socket.create_connection(("127.0.0.1", self.port), timeout=5):
                return False
        except OSError:
            return True

    def ask(self, method: str, path: str, body=None, headers=None) -> tuple[int, str]:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        try:
            connection.request(method, path, body, headers or {})
            response = connection.getresponse()
            return response.status, response.read().decode("utf-8", "replace")
        finally:
            connection.close()

    def end(self) -> int:
        """The exit status of the process, which was stopped before."""
        status = self.process.wait(timeout=30)
        self._reading.join()
        return status

    def stop(self) -> int:
        self.process.terminate()
        return self.end()


def until(holds, what: str) -> None:
    deadline = time.monotonic() + 60
    while not holds():
        assert time.monotonic() < deadline, what
        time.sleep(0.02)


@contextmanager
def service(gallery: Path, **options) -> Iterator[Service]:
    running = Service(gallery, **options)
    try:
        yield running
    finally:
        running.process.kill()
        running.end()
        for stream in (running.process.stdin, running.process.stdout, running.process.stderr):
            with suppress(BrokenPipeError):
                stream.close()


@pytest.fixture
def folder(gallery_folder, tmp_path) -> Path:
    """A copy of the session's gallery that the test may change."""
    return Path(shutil.copytree(gallery_folder, tmp_path / "gallery"))


@pytest.fixture
def picture(image_files) -> bytes:
    return sorted(image_files.rglob("*.*"))[7].read_bytes()


# Start


def test_a_service_is_alive_before_it_is_ready_and_logs_no_secret(folder, picture):
    def code(path):
        status, text = running.ask("GET", path)
        return status, json.loads(text).get("code")

    with service(folder, loads_slowly=True, HASHSEARCH_LOG_LEVEL="debug") as running:
        running.wait_until_alive()
        assert code("/livez") == (200, None)
        assert code("/readyz") == (503, "gallery-loading")
        assert running.ask("GET", "/metrics")[0] == 200
        running.load()
        running.wait_until_loaded()
        assert code("/readyz") == (200, None)

        folder.rename(folder.with_name("elsewhere"))
        assert code("/readyz") == (503, "gallery-unavailable")
        assert code("/livez") == (200, None)
        assert running.ask("GET", "/metrics")[0] == 200
        folder.with_name("elsewhere").rename(folder)
        assert code("/readyz") == (200, None)

        headers = {
            "Authorization": f"Bearer {SECRET}",
            "Cookie": f"key={SECRET}",
            "Referer": f"http://x/?key={SECRET}",
            "X-API-Key": SECRET,
            "X-Request-ID": f"{SECRET} and more",
            "Content-Type": "application/json",
        }
        for body in (f'{{"code": "{SECRET}"}}', f'{{"{SECRET}": 1}}', SECRET):
            status, _ = running.ask("POST", f"/v1/search?k={SECRET}", body, headers)
            assert status in (400, 422)
        form = f'--b\r\nContent-Disposition: form-data; name="{SECRET}"; filename="{SECRET}"\r\n'
        headers["Content-Type"] = "multipart/form-data; boundary=b"
        running.ask("POST", "/v1/search", f"{form}\r\n{SECRET}\r\n--b--\r\n", headers)
        with socket.create_connection(("127.0.0.1", running.port)) as broken:
            broken.sendall(f"GET /{SECRET} HTTP/9\r\n{SECRET}\r\n\r\n".encode())
            assert broken.recv(100).startswith(b"HTTP/1.1 400 ")
        assert running.stop() == -signal.SIGTERM

    lines = [json.loads(line) for line in running.log]  # the server's own lines too
    assert {"uvicorn.error", "service.requests"} <= {line["logger"] for line in lines}
    requests = [line for line in lines if line["logger"] == "service.requests"]
    assert [line["status"] for line in requests if line.get("route") == "/v1/search"]
    assert {line["level"] for line in requests if line.get("route") == "/readyz"} == {"DEBUG"}
    assert SECRET not in "".join(running.log)


def test_a_gallery_that_cannot_be_loaded_ends_the_process_with_one_sentence(folder):
    # A file that is too short is found when the gallery is loaded, not when it is opened.
    (codes,) = (folder / "shards").rglob("codes.npy")
    os.truncate(codes, 1000)
    slow = {"loads_slowly": True, "fresh": True}
    with service(folder) as damaged, service(folder, **slow) as failing:
        failing.load("fail")
        sentences = []
        for running in (damaged, failing):
            assert running.end() == 1
            sentences += [line for line in running.log if not line.startswith("{")]
    assert len(sentences) == 2
    assert sentences[0].startswith("hashsearch: ")
    assert "codes.npy" in sentences[0]
    assert sentences[1] == (
        "hashsearch: the gallery cannot be loaded: ValueError: a shard has a wrong shape"
    )


# Stop


def test_a_stop_answers_the_requests_at_work_and_takes_no_others(folder, picture):
    def begun(size: int) -> socket.socket:
        """A connection whose request the service has begun to read."""
        connection = socket.create_connection(("127.0.0.1", running.port), timeout=60)
        head = f"POST /v1/search?k=1 HTTP/1.1\r\nHost: x\r\nContent-Length: {size}\r\n"
        connection.sendall(f"{head}Expect: 100-continue\r\n\r\n".encode())
        assert connection.recv(100) == b"HTTP/1.1 100 Continue\r\n\r\n"
        connection.sendall(picture[:100])
        return connection

    def answer(connection: socket.socket) -> http.client.HTTPResponse:
        response = http.client.HTTPResponse(connection)
        response.begin()
        return response

    with service(folder, HASHSEARCH_STOP_TIMEOUT_S="2") as running:
        running.wait_until_loaded()
        uploads = [begun(len(picture)) for _ in range(20)]
        endless = begun(10_000)
        idle = socket.create_connection(("127.0.0.1", running.port), timeout=60)
        assert running.ask("GET", "/livez")[0] == 200  # by now, the other connection is accepted
        running.process.terminate()
        until(running.refuses_connections, "the service takes no connection")
        assert idle.recv(100) == b""
        for upload in uploads:
            upload.sendall(picture[100:])
        for upload in uploads:
            response = answer(upload)
            assert response.status == 200
            assert len(json.loads(response.read())["hits"]) == 1
            assert response.getheader("connection") == "close"
        response = answer(endless)
        assert (response.status, response.getheader("retry-after")) == (503, "1")
        assert json.loads(response.read())["code"] == "stopping"
        assert running.end() == -signal.SIGTERM
        for connection in (*uploads, endless, idle):
            connection.close()
    assert not any("traceback" in line.lower() for line in running.log)


def test_a_stop_does_not_wait_for_a_gallery_that_loads_and_a_second_one_ends_at_once(folder):
    first = service(folder, loads_slowly=True, HASHSEARCH_STOP_TIMEOUT_S="1")
    second = service(folder, loads_slowly=True, HASHSEARCH_STOP_TIMEOUT_S="3600")
    with first as bounded, second as long:
        for running in (bounded, long):
            running.wait_until_alive()
            running.process.terminate()
        until(long.refuses_connections, "the first signal was handled")
        long.process.send_signal(signal.SIGINT)
        assert long.end() == 128 + signal.SIGINT
        assert bounded.end() == -signal.SIGTERM


@pytest.mark.parametrize("loads", [True, False])
def test_ctrl_c_while_the_gallery_loads_ends_the_service_quietly(folder, loads):
    """loads: whether the gallery is loaded before the time of the stop is over."""
    wait = {"HASHSEARCH_STOP_TIMEOUT_S": "30" if loads else "1"}
    with service(folder, loads_slowly=True, fresh=not loads, **wait) as running:
        running.wait_until_alive()
        if not loads:  # Python must not end while the thread is within C++ code
            running.load("endless")
            assert running.process.stdout.readline() == "busy\n"
        running.process.send_signal(signal.SIGINT)
        until(running.refuses_connections, "the signal was handled")
        if loads:
            running.load()
        assert running.end() == 128 + signal.SIGINT
        assert running.process.stdout.read() == ""  # it never served
        assert [line for line in running.log if not line.startswith("{")] == ["hashsearch: stopped"]
        assert not any("traceback" in line.lower() for line in running.log)


# Changes while it serves


def test_jobs_that_change_the_gallery_fail_no_request(
    folder, image_files, picture, other_model_folder, tmp_path
):
    more = tmp_path / "more"
    for number in range(3):
        shutil.copytree(image_files, more / str(number))
    for path in more.rglob("*.*"):  # other files, with the same pictures
        path.write_bytes(path.read_bytes() + f"{path.parent.parent.name}".encode())
    stop, failures, seconds = threading.Event(), [], []

    def ask(number: int) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", running.port, timeout=60)
        headers = {"Content-Type": "application/json"}
        image_id = 1 + number
        while not stop.is_set():
            image_id = image_id % 290 + 1
            started = time.perf_counter()
            connection.request("POST", "/v1/search?k=5", json.dumps({"id": image_id}), headers)
            response = connection.getresponse()
            hits = json.loads(response.read()).get("hits", [])
            seconds.append(time.perf_counter() - started)
            if response.status != 200 or len(hits) != 5:
                failures.append((response.status, hits))
        connection.close()

    def job(*words: object) -> None:
        before = len(seconds)
        assert main([str(word) for word in words]) == 0
        until(lambda: len(seconds) > before + 2, "requests go on")  # a short job ends before one

    with service(folder) as running:
        running.wait_until_loaded()
        clients = [threading.Thread(target=ask, args=(100 * number,)) for number in range(2)]
        for client in clients:
            client.start()
        try:
            job("index", more, "--gallery", folder, "--workers", 1)
            job("gallery", "remove", folder, "--id", 295, "--yes")
            job("gallery", "compact", folder)
            job("gallery", "reencode", folder, "--model", other_model_folder)
        finally:
            stop.set()
            for client in clients:
                client.join()
        assert not failures
        cuts = statistics.quantiles(seconds, n=100)
        print(f"{len(seconds)} searches; p99 {1000 * cuts[98]:.1f} ms")

        def found() -> bool:
            _, text = running.ask("POST", "/v1/search?k=4", picture)
            hits = json.loads(text)["hits"]
            return len(hits) == 4 and all(hit["distance"] == 0 for hit in hits)

        until(found, "the new images are found")
        assert json.loads(running.ask("GET", "/readyz")[1])["images"] == 300 + 900 - 1


# docs/operations.md


def block(language: str) -> str:
    """The page's only block of code in a language."""
    page = (tables.DOCS / "operations.md").read_text(encoding="utf-8")
    (found,) = re.findall(rf"```{language}\n(.*?)```", page, re.DOTALL)
    return found


@pytest.mark.parametrize("table", tables.TABLES)
def test_the_tables_of_the_docs_are_those_of_the_service(table):
    assert tables.written(table) == tables.rendered(table), "run: python -m tests.tables"


def test_every_setting_is_described():
    assert all(field.description for field in Settings.model_fields.values())


@pytest.mark.parametrize(
    ("variable", "value", "wanted"),
    [
        ("MAX_BODY_BYTES", "0", "at least 1"),
        ("MAX_BODY_BYTES", "16MB", "a whole number"),
        ("BODY_TIMEOUT_S", "soon", "a number"),
        ("BODY_TIMEOUT_S", "nan", "a finite number"),
        ("STOP_TIMEOUT_S", "inf", "a finite number"),
        ("QUEUE", "-1", "at least 1"),
        ("ORIGINALS", "perhaps", "true or false"),
        ("STOP_TIMEOUT_S", "0", "at least 1"),
        ("KEY_FOR", "none", "must be 'writes' or 'all'"),
        ("TRUSTED_PROXIES", "10.0.0.1,proxy", "must be an address or a network"),
        ("RATE_LIMIT", "often", "a number of requests and a time are wanted"),
        ("LOG_FORMAT", "xml", "must be 'auto', 'json' or 'text'"),
        ("LOG_LEVEL", "loud", "must be 'debug', 'info', 'warning' or 'error'"),
    ],
)
def test_a_wrong_value_is_refused_with_the_variables_name(
    gallery_folder, monkeypatch, capsys, variable, value, wanted
):
    monkeypatch.setenv(f"HASHSEARCH_{variable}", value)
    assert main(["serve", "--gallery", str(gallery_folder), "--port", "0"]) == 1
    (sentence,) = capsys.readouterr().err.splitlines()
    assert f"HASHSEARCH_{variable}" in sentence
    assert wanted in sentence
    assert "input should" not in sentence.lower()


def test_variables_that_are_no_settings_are_named_with_the_nearest_one():
    names = ["HASHSEARCH_API_KEY", "HASHSEARCH_RATELIMIT", "HASHSEARCH_X", "hashsearch_que"]
    known = ["HASHSEARCH_DATA", "HASHSEARCH_QUEUE", "hashsearch_log_level", "HOME", "XHASHSEARCH_Y"]
    assert unknown_variables(names + known) == [
        "HASHSEARCH_API_KEY is no setting; did you mean HASHSEARCH_API_KEYS?",
        "HASHSEARCH_RATELIMIT is no setting; did you mean HASHSEARCH_RATE_LIMIT?",
        "HASHSEARCH_X is no setting",
        "hashsearch_que is no setting; did you mean HASHSEARCH_QUEUE?",
    ]


def test_an_unknown_setting_is_logged_at_the_start_without_its_value(folder):
    unknown = {"HASHSEARCH_API_KEY": SECRET, "HASHSEARCH_STOP_TIMEOUT_S": "1.5"}
    with service(folder, **unknown) as running:
        running.wait_until_loaded()
        assert running.stop() == -signal.SIGTERM
    lines = [json.loads(line) for line in running.log]
    warnings = [line["message"] for line in lines if line["level"] == "WARNING"]
    assert "HASHSEARCH_API_KEY is no setting; did you mean HASHSEARCH_API_KEYS?" in warnings
    (loaded,) = [line for line in lines if line["message"].startswith("gallery loaded: ")]
    assert (loaded["images"], loaded["level"]) == (300, "INFO")
    assert loaded["seconds"] > 0
    assert SECRET not in "".join(running.log)


def test_levels_are_read_in_any_case(monkeypatch):
    monkeypatch.setenv("HASHSEARCH_LOG_LEVEL", "WARNING")
    assert Settings(gallery="g").log_level == "warning"


def test_a_copy_made_while_a_writer_runs_opens_and_verifies(folder, image_files, tmp_path):
    stop, added = threading.Event(), []

    def write() -> None:
        gallery = GalleryFolder(folder)
        encoder = gallery.encoder()
        files = [path.read_bytes() for path in sorted(image_files.rglob("*.*"))[:200]]
        for number, data in enumerate(files):
            if not stop.is_set():
                added.append(add_image(gallery, encoder, data + b"%d" % number)[0])
        gallery.close()

    writer = threading.Thread(target=write)
    writer.start()
    until(lambda: len(added) > 3, "the writer writes")
    bin_folder = Path(sys.executable).parent
    done = subprocess.run(
        ["sh", "-ec", block("sh")],
        cwd=tmp_path,
        env={**os.environ, "PATH": f"{bin_folder}:{os.environ['PATH']}"},
        capture_output=True,
        text=True,
    )
    stop.set()
    writer.join()
    assert done.returncode == 0, done.stdout + done.stderr
    copy = GalleryFolder(tmp_path / "copy")
    images = copy.catalog.count()
    assert 303 < images <= 300 + len(added)
    verification = verify(copy, sample=50)
    assert (verification.findings, verification.encoded) == ([], 50)
    copy.close()
    searcher = open_searcher(tmp_path / "copy")
    assert len(searcher) == images
    newest = int(searcher.ids.max())
    assert len(searcher.search(searcher.query_by_id(newest), k=3).ids) == 3


@pytest.fixture(scope="module")
def certificate(tmp_path_factory) -> tuple[Path, Path]:
    if shutil.which("openssl") is None:
        pytest.skip("there is no openssl to make a certificate")
    folder = tmp_path_factory.mktemp("tls")
    key, made = folder / "tls.key", folder / "tls.pem"
    subprocess.run(
        f"openssl req -x509 -newkey rsa:2048 -nodes -days 1 -subj /CN=localhost "
        f"-addext subjectAltName=DNS:localhost,IP:127.0.0.1 -keyout {key} -out {made}".split(),
        check=True,
        capture_output=True,
    )
    return made, key


def nginx_command(folder: Path, service_port: int, port: int, certificate) -> list[str]:
    site = block("nginx")
    for documented, real in (
        ("127.0.0.1:8000", f"127.0.0.1:{service_port}"),
        ("listen 443 ssl", f"listen 127.0.0.1:{port} ssl"),
        ("/etc/ssl/certs/pictures.pem", str(certificate[0])),
        ("/etc/ssl/private/pictures.key", str(certificate[1])),
        ("/var/log/nginx/hashsearch.log", str(folder / "access.log")),
    ):
        assert site.count(documented) == 1
        site = site.replace(documented, real)
    places = "".join(
        f"{name}_temp_path {folder}/{name};\n"
        for name in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    (folder / "nginx.conf").write_text(
        f"daemon off;\nmaster_process off;\npid {folder}/pid;\nerror_log {folder}/error.log;\n"
        f"events {{}}\nhttp {{\naccess_log off;\n{places}{site}}}\n"
    )
    return ["nginx", "-p", str(folder), "-e", f"{folder}/error.log", "-c", f"{folder}/nginx.conf"]


def caddy_command(folder: Path, service_port: int, port: int, certificate) -> list[str]:
    site = block("caddyfile")
    tls = f"https://127.0.0.1:{port} {{\n\ttls {certificate[0]} {certificate[1]}"
    for documented, real in (
        ("127.0.0.1:8000", f"127.0.0.1:{service_port}"),
        ("pictures.example.org {", tls),
    ):
        assert site.count(documented) == 1
        site = site.replace(documented, real)
    globals_ = "{\n\tadmin off\n\tauto_https disable_redirects\n}\n"
    (folder / "Caddyfile").write_text(globals_ + site)
    return ["caddy", "run", "--adapter", "caddyfile", "--config", str(folder / "Caddyfile")]


@pytest.fixture(scope="module", params=["TRUSTED_PROXIES=127.0.0.1", "ROOT_PATH=/search"])
def served(gallery_folder, request) -> Iterator[Service]:
    """With either setting from which the service knows the prefix."""
    name, _, value = request.param.partition("=")
    with service(gallery_folder, **{f"HASHSEARCH_{name}": value}) as running:
        running.wait_until_loaded()
        yield running


# Ways to write the path that the proxies hide, and the same path with the prefix twice.
METRICS = [
    f"{prefix}{path}"
    for prefix in ("/search", "/search/search", "/search/search/search", "/search/%73earch")
    for path in ("/metrics", "/%6detrics", "//metrics", "/./metrics", "/v1/../metrics",
                 "/v1%2f..%2fmetrics", "/metrics/", "/metrics?a=b", "/metrics%2f", "/METRICS")
]  # fmt: skip


@pytest.mark.parametrize(("proxy", "command"), [("nginx", nginx_command), ("caddy", caddy_command)])
def test_the_configuration_of_a_proxy_works(served, certificate, picture, tmp_path, proxy, command):
    if shutil.which(proxy) is None:
        pytest.skip(f"there is no {proxy}")
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    trusted = ssl.create_default_context(cafile=str(certificate[0]))

    def ask(method: str, path: str, body: bytes | None = None, headers=None):
        connection = http.client.HTTPSConnection("127.0.0.1", port, timeout=30, context=trusted)
        try:
            connection.request(method, path, body, headers or {})
            response = connection.getresponse()
            return response, response.read()
        finally:
            connection.close()

    def answers() -> bool:
        assert running.poll() is None, (tmp_path / "output").read_text()
        try:
            return ask("GET", "/search/livez")[0].status == 200
        except OSError:
            return False

    environment = {**os.environ, "HOME": str(tmp_path), "XDG_DATA_HOME": str(tmp_path)}
    with (
        (tmp_path / "output").open("w") as output,
        subprocess.Popen(
            command(tmp_path, served.port, port, certificate),
            stdout=output,
            stderr=output,
            env=environment,
        ) as running,
    ):
        try:
            until(answers, f"{proxy} answers")
            response, data = ask("POST", "/search/v1/search?k=3", picture)
            hits = json.loads(data)["hits"]
            assert (response.status, len(hits)) == (200, 3)
            assert ask("GET", hits[0]["thumbnail"])[0].status == 200
            request_id = response.getheader("x-request-id")
            until(lambda: request_id in "".join(served.log), "the request is logged")
            # More than the service reads, and less than the proxy does.
            response, data = ask("POST", "/search/v1/search", bytes(16 * 2**20 + 1))
            assert (response.status, json.loads(data)["code"]) == (413, "body-too-large")
            response, data = ask("POST", "/search/v1/search", bytes(18 * 2**20))
            assert response.status == 413
            if proxy == "nginx":
                problem = json.loads(data)
                assert response.getheader("content-type") == "application/problem+json"
                assert (problem["status"], problem["code"]) == (413, "body-too-large")
                assert problem.keys() == Problem.model_fields.keys()
                assert problem["request_id"] == response.getheader("x-request-id")
            response, _ = ask("GET", "/search/v1/gallery", headers={"X-Request-ID": "mine-1"})
            assert response.getheader("x-request-id") == "mine-1"
            if proxy == "nginx":
                log = tmp_path / "access.log"
                until(lambda: "mine-1" in log.read_text(), "the request is in nginx's log")
                assert request_id in log.read_text()
            for path in METRICS:
                assert ask("GET", path)[0].status == 404, path
            assert ask("GET", "/search")[0].getheader("location").endswith("/search/")
        finally:
            running.terminate()
