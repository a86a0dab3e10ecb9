"""The clients against the real service on a socket, and against servers that misbehave."""

import asyncio
import inspect
import json
import shutil
import socket
import ssl
import subprocess
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import asdict, replace
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Event, Thread, Timer
from types import SimpleNamespace

import numpy as np
import pytest
from numpy.testing import assert_array_equal
from PIL import Image

import hashsearch as hs
from hashsearch.client import calls, clients
from hashsearch.client.answers import ERRORS
from service.problems import PROBLEMS, problem_response
from tests.conftest import KEY, WITH_KEY, listening

FOUND = {"method": "codes", "index": "exact", "latency_ms": 1, "truncated": False, "hits": []}
BUSY = {"detail": "busy now", "code": "gallery-busy", "request_id": "r1"}


@pytest.fixture(scope="module")
def address(measured_gallery_folder) -> Iterator[str]:
    with listening(measured_gallery_folder) as found:
        yield found


@pytest.fixture(scope="module")
def client(address) -> Iterator[hs.Client]:
    with hs.Client(address) as opened:
        yield opened


@pytest.fixture(scope="module")
def opened(measured_gallery_folder) -> Iterator[hs.Gallery]:
    with hs.open(measured_gallery_folder) as gallery:
        yield gallery


@pytest.fixture
def changing(gallery) -> Iterator[tuple[hs.Gallery, hs.Client]]:
    """A gallery that may be changed, opened and over HTTP."""
    with (
        listening(gallery.folder, **WITH_KEY) as address,
        hs.open(gallery.folder) as opened,
        hs.Client(address, key=KEY) as client,
    ):
        yield opened, client


def held(path: Path) -> Image.Image:
    """A file's picture in memory."""
    with Image.open(path) as image:
        return image.copy()


def without_path(found: list) -> list:
    return [replace(one, path=None) for one in found]


class Scripted:
    """A server that gives the answers that it is told to, the last of them for ever.

    answers: status, headers and body each; None closes the connection without an answer. requests:
    method, path, headers and body of each request that came.
    """

    def __init__(self, *answers):
        self.answers, self.requests = list(answers), []

    def next(self):
        return self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]


@contextmanager
def scripted(
    *answers, port: int = 0, tls: ssl.SSLContext | None = None
) -> Iterator[tuple[str, Scripted]]:
    script = Scripted(*answers)

    class Handler(BaseHTTPRequestHandler):
        def answer(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            script.requests.append((self.command, self.path, dict(self.headers), body))
            found = script.next()
            if found is None:
                self.close_connection = True
                return
            status, headers, body = found
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            if callable(body):
                self.end_headers()
                self.close_connection = True
                with suppress(OSError):  # the client hung up
                    body(self.wfile)
                return
            data = body if isinstance(body, bytes) else json.dumps(body).encode()
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        do_GET = do_POST = do_DELETE = answer  # noqa: N815

        def log_message(self, *arguments) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", port), Handler)
    server.daemon_threads = True
    server.handle_error = lambda *arguments: None  # a client that does not trust it hangs up
    if tls is not None:
        server.socket = tls.wrap_socket(server.socket, server_side=True)
    thread = Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield f"http{'s' if tls else ''}://127.0.0.1:{server.server_port}", script
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def called(address: str, name: str, *arguments, **options):
    """Call a client once; options: the client's."""
    with hs.Client(address, **options) as client:
        return getattr(client, name)(*arguments)


def awaited(address: str, name: str, *arguments, **options):
    """The same of the other client."""

    async def call():
        async with hs.AsyncClient(address, **options) as client:
            return await getattr(client, name)(*arguments)

    return asyncio.run(call())


@pytest.fixture(params=[called, awaited])
def ask(request):
    """A call of a client of either kind."""
    return request.param


@pytest.fixture
def waits(monkeypatch) -> list[float]:
    """The seconds that clients would wait; they do not, and their clock goes on by them alone."""
    asked = []

    async def wait(seconds: float) -> None:
        asked.append(seconds)

    # In this module alone: servers run in threads of this process.
    monkeypatch.setattr(clients, "time", SimpleNamespace(sleep=asked.append))
    both = SimpleNamespace(sleep=wait, to_thread=asyncio.to_thread, timeout=asyncio.timeout)
    monkeypatch.setattr(clients, "asyncio", both)
    monkeypatch.setattr(calls, "time", SimpleNamespace(monotonic=lambda: sum(asked)))
    return asked


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


QUERIES = {
    "id": lambda opened, path: 9,
    "numpy's id": lambda opened, path: np.int64(9),
    "path": lambda opened, path: path,
    "text": lambda opened, path: str(path),
    "bytes": lambda opened, path: path.read_bytes(),
    "memory": lambda opened, path: memoryview(path.read_bytes()),
    "PIL": lambda opened, path: held(path),
    "array": lambda opened, path: np.asarray(held(path).convert("RGB")),
    "code": lambda opened, path: expected_of(opened, [path])[0],
    "hex": lambda opened, path: expected_of(opened, [path])[0].tobytes().hex().upper(),
}


@pytest.fixture
def picture(tmp_path, photograph) -> Path:
    (tmp_path / "query.jpg").write_bytes(photograph)
    return tmp_path / "query.jpg"


@pytest.mark.parametrize("kind", QUERIES)
def test_every_query_has_the_answer_of_the_open_gallery(kind, opened, client, picture):
    query = QUERIES[kind](opened, picture)
    expected = opened.search(query, k=300)
    assert len(expected) >= 299
    assert client.search(query, k=300) == without_path(expected)
    assert expected[0].closeness is not None


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"radius": 100},
        {"radius": 10**30, "k": 20},
        {"radius": 60, "k": 3},
        {"method": "pixels", "k": 7},
        {"method": "normalized"},
        {"index": "exact"},
        {"label": "cat"},
        {"label": "nothing of the kind"},
        {"uri_prefix": "pictures/cat"},
        {"ids": range(5, 50), "exclude": [7, 8, -3]},
        {"ids": []},
        {"ids": np.arange(9), "label": "dog"},
        {"like": [8, np.int64(9)], "unlike": [10]},
        {"crop": (0.5, 0, 1, 0.5)},
        {"crop": "0.1,0.2,0.30000000000000004,1"},
        {"crop": None, "radius": None, "index": None, "exclude": None},
        {"transforms": True},
        {"transforms": True, "crop": (0, 0, 0.5, 1), "ids": range(100), "method": "pixels"},
    ],
)
def test_every_option_means_what_it_means_to_the_open_gallery(options, opened, client, picture):
    expected = opened.rank(picture, **options)
    found = client.rank(picture, **options)
    assert found.hits == without_path(expected.hits)
    assert (found.method, found.index) == (expected.method, expected.index)
    assert found.latency_ms > 0
    assert_array_equal(found.ids, expected.ids)


def test_examples_may_be_pictures_and_the_query_left_out(opened, client, picture, tiny_images):
    options = {"like": [picture, 3, tiny_images[4]], "unlike": [held(picture)], "k": 20}
    assert client.search(**options) == without_path(opened.search(**options))
    assert client.search(9, **options) == without_path(opened.search(9, **options))


@pytest.mark.parametrize(
    ("query", "options"),
    [
        ("nowhere.jpg", {}),
        ("", {}),
        ("a\0b.jpg", {}),
        (b"", {}),
        (b"hello", {}),
        (b"GIF89a", {}),
        (b"\0\0\0\x18ftypisom" + bytes(40), {}),
        (Path(__file__), {}),
        (12345, {}),
        (-1, {}),
        (10**30, {}),
        (True, {}),
        (3.5, {}),
        ([1, 2], {}),
        (None, {}),
        (np.zeros(31, np.uint8), {}),
        (np.zeros((8, 8)), {}),
        ("z" * 64, {}),
        (Image.new("RGB", (0, 5)), {}),
        (Image.new("F", (5, 5)), {}),
        (9, {"k": 0}),
        (9, {"k": "5"}),
        (9, {"radius": -1}),
        (9, {"radius": 40.0}),
        (9, {"method": "scent"}),
        (9, {"method": 3}),
        (9, {"index": "scent"}),
        (9, {"label": 3}),
        (9, {"uri_prefix": ""}),
        (9, {"ids": "12"}),
        (9, {"ids": [1.5]}),
        (9, {"like": 7}),
        (9, {"like": [12345]}),
        (9, {"crop": (0, 0, 0.5, 0.5)}),
        (b"GIF89a", {"crop": (0, 0, 0, 0)}),
        (9, {"offset": 3}),
        (None, {"ids": [1]}),
        (None, {"crop": "0,0,1,0.5", "like": [1]}),
        (None, {"transforms": True}),
    ],
)
def test_what_is_refused_raises_the_same_error_as_the_open_gallery(query, options, opened, client):
    with pytest.raises(hs.errors.HashSearchError) as expected:
        opened.search(query, **options)
    with pytest.raises(hs.errors.HashSearchError) as found:
        client.search(query, **options)
    assert found.type is expected.type
    if query is None or isinstance(query, Path):
        assert str(found.value) == str(expected.value)


@pytest.mark.parametrize("prefix", ["/pictures", Path("pictures"), Path("/pictures")])
def test_a_uri_prefix_is_no_path_of_the_clients_machine(prefix, client):
    with pytest.raises(hs.errors.InvalidQuery, match="is a uri of the service's gallery, such as"):
        client.search(9, uri_prefix=prefix)


def test_more_hits_than_a_service_gives_are_refused(client):
    with pytest.raises(hs.errors.InvalidQuery):
        client.search(9, k=1001)


def test_an_upload_that_is_too_large_is_refused_whole(client, tmp_path):
    (tmp_path / "large.jpg").write_bytes(bytes(64 * 2**20))
    with pytest.raises(hs.errors.ImageTooLarge, match=r"large\.jpg: the upload is larger than 16"):
        client.search(tmp_path / "large.jpg")
    assert len(client.search(9)) == 10


@pytest.mark.parametrize("length", [5000, 50_000, 200_000])
def test_a_label_that_is_too_long_is_refused(length, client):
    with pytest.raises((hs.errors.InvalidQuery, hs.errors.ServiceError)):
        client.search(9, label="x" * length)


def test_a_client_says_what_is_served(opened, client, address):
    info = client.info()
    assert (len(client), bool(client), info.images) == (300, True, 300)
    assert info.closeness == opened._storage.card().closeness
    assert (info.fingerprint, info.generation) == (
        opened._storage.fingerprint,
        opened._storage.catalog.generation(),
    )
    assert info.methods == ["codes", "pixels", "normalized"]
    assert info.model is None  # it did not come with the package
    assert repr(client) == f"<hashsearch.Client {address!r}>"
    assert awaited(address, "info") == info


def test_a_service_of_before_models_had_names_is_read():
    former = {"images": 1, "generation": 2, "fingerprint": "f", "methods": [], "closeness": None}
    former |= {"labels": [{"label": "cat", "images": 1}], "writes": False}
    with scripted((200, {}, former), (200, {}, former | {"model": "general"})) as (address, _):
        infos = [called(address, "info") for _ in range(2)]
    assert [info.model for info in infos] == [None, "general"]
    assert infos[0] == replace(infos[1], model=None)


def test_a_client_says_what_labels_there_are_and_whether_it_takes_changes(changing, client):
    opened, writing = changing
    labels = [image.label for image in opened]
    info = writing.info()
    assert info.labels == {label: labels.count(label) for label in set(labels)}
    assert list(info.labels.values()) == sorted(info.labels.values(), reverse=True)
    assert (info.writes, client.info().writes) == (True, False)


def test_a_client_iterates_over_all_images_page_by_page(client, opened, address, monkeypatch):
    monkeypatch.setattr("hashsearch.client.requests.IMAGES", 70)

    async def awaited_images():
        async with hs.AsyncClient(address) as other:
            return [image async for image in other]

    found = list(client)
    assert found == asyncio.run(awaited_images())
    names = ("id", "uri", "label", "width", "height", "missing")
    assert [[getattr(image, name) for name in names] for image in found] == [
        [getattr(image, name) for name in names] for image in opened
    ]
    assert {image.path for image in (*found, client.get(9))} == {None}
    assert found[8] in client
    assert client.get(9) in client
    assert replace(found[8], label="other") not in client
    numbers = (1, np.int64(300), 301, 0, -1, 10**30)
    assert [number in client for number in numbers] == [number in opened for number in numbers]
    for wrong in ("1", 1.0, True, None, opened.get(1)):
        with pytest.raises(hs.errors.InvalidQuery, match="an id is a whole number; got"):
            assert wrong in client


LISTED = {"uri": "a", "label": None, "width": 3, "height": 4, "missing": False}


@pytest.mark.parametrize("second", [{"images": [LISTED | {"id": 2}], "next": "b"}, {"images": []}])
def test_pages_of_images_that_do_not_go_on_are_refused(second):
    first = {"images": [LISTED | {"id": 2}], "next": "a"}
    pages = [(200, {}, page) for page in (first, {"next": "a"} | second)]
    with scripted(*pages) as (address, script), hs.Client(address) as client:
        images = iter(client)
        assert next(images).id == 2
        with pytest.raises(hs.errors.ServiceError, match="is not a HashSearch service"):
            next(images)
    paths = [path for _, path, _, _ in script.requests]
    assert paths == ["/v1/images?limit=1000", "/v1/images?limit=1000&after=a"]


def test_both_clients_have_the_same_calls():
    def calls_of(kind: type) -> dict[str, inspect.Signature]:
        public = {name: value for name, value in vars(kind).items() if not name.startswith("_")}
        return {name: inspect.signature(value) for name, value in public.items()}

    assert calls_of(hs.Client) == calls_of(hs.AsyncClient)
    assert inspect.signature(hs.Client) == inspect.signature(hs.AsyncClient)
    for name in ("search", "rank", "get", "add", "reconstruct"):
        ours, theirs = (inspect.signature(getattr(kind, name)) for kind in (hs.Client, hs.Gallery))
        assert list(ours.parameters) == list(theirs.parameters)


def test_many_searches_may_be_awaited_at_once(address, opened, picture):
    async def search():
        async with hs.AsyncClient(address) as client:
            queries = [*range(1, 11), *[picture] * 10]
            return await asyncio.gather(*(client.search(query, k=5) for query in queries))

    expected = [opened.search(number, k=5) for number in range(1, 11)]
    expected += [opened.search(picture, k=5)] * 10
    assert asyncio.run(search()) == [without_path(hits) for hits in expected]


def test_threads_may_share_a_client(client, opened):
    with ThreadPoolExecutor(8) as threads:
        found = list(threads.map(client.search, range(1, 41)))
    assert found == [without_path(opened.search(number)) for number in range(1, 41)]


def test_codes_are_those_of_the_gallerys_model(client, opened, picture, tiny_images):
    images = [picture, picture.read_bytes(), held(picture), tiny_images[3]]
    assert_array_equal(client.encode(images), expected_of(opened, images))
    assert_array_equal(client.encode(tiny_images[:3]), expected_of(opened, tiny_images[:3]))
    assert client.encode([]).shape == (0, 32)
    for wrong in (picture, tiny_images[0], 3):
        with pytest.raises(hs.errors.InvalidQuery, match="a sequence of images was wanted"):
            client.encode(wrong)
    with pytest.raises(hs.errors.UnsupportedFormat, match=r"^image 1: the 5 bytes are not"):
        client.encode([picture, b"hello"])


def expected_of(opened: hs.Gallery, images) -> np.ndarray:
    return hs.encode(images, opened._storage.folder / "model")


def test_an_image_is_described(client, opened, picture):
    found, expected = client.get(9), opened.get(9)
    for name in ("id", "uri", "label", "width", "height", "missing"):
        assert getattr(found, name) == getattr(expected, name)
    assert found.size == Path(expected.path).stat().st_size
    assert client.search(found.code, k=1)[0].distance == 0
    for unknown in (12345, -1, 10**30):
        with pytest.raises(hs.errors.NotInGallery):
            client.get(unknown)
    with pytest.raises(hs.errors.InvalidQuery):
        client.get("9")


def test_images_are_added_and_removed(changing, picture):
    opened, client = changing
    number = client.add(picture, label="rocket")
    assert client.add(picture.read_bytes()) == number
    assert (opened.get(number).label, len(opened), len(client)) == ("rocket", 301, 301)
    assert client.search(picture, k=1)[0].id == number
    client.add(picture, label="")
    assert client.get(number).label is None
    assert client.remove([number, 7, 7, 12345, -1, 10**30]) == 2
    assert client.remove([number]) == 0
    assert client.remove([]) == 0
    assert (number in opened, len(client)) == (False, 299)
    for wrong, error in (
        (picture.parent / "none.jpg", hs.errors.InvalidImage),
        (b"hello", hs.errors.UnsupportedFormat),
        (b"", hs.errors.UnsupportedFormat),
        (held(picture), hs.errors.InvalidQuery),
    ):
        with pytest.raises(error):
            client.add(wrong)
    with pytest.raises(hs.errors.InvalidQuery):
        client.remove("12")


def test_a_change_without_the_key_is_refused(changing, picture):
    _, client = changing
    for key in (None, "another-key-of-sixteen"):
        with hs.Client(client._service.address, key=key) as other:
            for change in (lambda one: one.add(picture), lambda one: one.remove([1])):
                with pytest.raises(hs.errors.ServiceError) as refused:
                    change(other)
                assert (refused.value.code, refused.value.status) == ("unauthorized", 401)
    assert len(client) == 300


def test_duplicates_are_those_of_the_open_gallery(client, opened, monkeypatch):
    expected = [
        replace(group, files=without_path(group.files)) for group in opened.duplicates(radius=30)
    ]
    assert len(expected) > 3
    assert client.duplicates(radius=30) == expected
    monkeypatch.setattr("hashsearch.client.requests.GROUPS", 2)
    assert client.duplicates(radius=30) == expected
    with pytest.raises(hs.errors.InvalidQuery):
        client.duplicates(radius=-1)


def test_a_reconstruction_is_that_of_the_open_gallery(client, opened, picture):
    for query in (9, picture, expected_of(opened, [picture])[0]):
        assert_array_equal(client.reconstruct(query), opened.reconstruct(query))
    with pytest.raises(hs.errors.InvalidQuery, match="an id is a whole number; got True"):
        client.reconstruct(True)


def test_groups_are_read_page_by_page():
    file = {"id": 1, "uri": "a", "label": None, "width": 3, "height": 4, "size": 5}
    file |= {"distance": 0, "keep": True, "missing": False}
    group = {"diameter": 2, "diameter_is_lower_bound": False, "files": [file]}
    pages = [{"groups": [group, group], "next": "a b&c"}, {"groups": [group], "next": None}]
    with scripted(*((200, {}, page) for page in pages)) as (address, script):
        found = called(address, "duplicates", 3)
    assert [group.diameter for group in found] == [2, 2, 2]
    assert found[0].files == [hs.DuplicateFile(path=None, **file)]
    assert [path for _, path, _, _ in script.requests] == [
        "/v1/duplicates?limit=100&radius=3",
        "/v1/duplicates?limit=100&radius=3&after=a+b%26c",
    ]


def test_groups_are_read_again_from_the_first_page_if_the_gallery_changed():
    def page(diameter: int, after: str | None) -> tuple:
        group = {"diameter": diameter, "diameter_is_lower_bound": False, "files": []}
        return 200, {}, {"groups": [group], "next": after}

    changed = (409, {}, {"detail": "gone", "code": "list-changed", "request_id": "r"})
    with scripted(page(1, "a"), changed, page(2, "b"), page(3, None)) as (address, script):
        found = called(address, "duplicates")
    assert [group.diameter for group in found] == [2, 3]
    assert [path.partition("after=")[2] for _, path, _, _ in script.requests] == ["", "a", "", "b"]
    with scripted(changed) as (address, _), pytest.raises(hs.errors.ServiceError, match="gone"):
        called(address, "duplicates")


def test_pages_without_an_end_are_not_read_for_ever(monkeypatch):
    monkeypatch.setattr(calls, "_MOST_PAGES", 3)
    with scripted((200, {}, {"groups": [], "next": "again"})) as (address, script):
        with pytest.raises(hs.errors.ServiceError, match="is not a HashSearch service"):
            called(address, "duplicates")
        assert len(script.requests) == 3


def test_many_ids_are_removed_by_several_requests_of_short_urls():
    with scripted((200, {}, {"removed": 100})) as (address, script):
        assert called(address, "remove", range(10**18, 10**18 + 450)) == 300
    sent = [path for _, path, _, _ in script.requests]
    assert sum(path.count("id=") for path in sent) == 450
    assert max(map(len, sent)) < 8000


def test_a_busy_service_is_asked_again_when_it_says(ask, waits):
    later = format_datetime(datetime.now(UTC) + timedelta(seconds=20), usegmt=True)
    answers = [
        (503, {"Retry-After": "3"}, BUSY),
        (429, {"Retry-After": later}, {"detail": "slower", "code": "rate", "request_id": "r"}),
        (503, {"Retry-After": "soon"}, b"<html>"),
        (503, {}, b""),
        (200, {}, FOUND),
    ]
    with scripted(*answers) as (address, script):
        assert ask(address, "search", 7) == []
        assert [body for _, _, _, body in script.requests] == [b'{"id": 7}'] * 5
    first, second, third, fourth = waits
    assert 3 <= first <= 3.75
    assert 18 <= second <= 25
    assert 0.5 <= third <= 1
    assert 1 <= fourth <= 2


def test_a_service_that_is_busy_is_asked_until_the_timeout(ask, waits):
    busy = (503, {"Retry-After": "1"}, BUSY)
    with scripted(*[busy] * 60, (200, {}, FOUND)) as (address, script):
        assert ask(address, "search", 7, timeout=600) == []
        assert len(script.requests) == 61
    waits.clear()
    with scripted((503, {}, BUSY)) as (address, script):
        with pytest.raises(hs.errors.GalleryBusy, match=r"^busy now$"):
            ask(address, "search", 7, timeout=4500)
        assert len(script.requests) > 1024  # the waits' length stays bounded
        assert 4490 < sum(waits) < 4500
    with scripted(busy) as (address, script):
        with pytest.raises(hs.errors.GalleryBusy):
            ask(address, "search", 7, timeout=0.5)  # shorter than what it is to wait
        assert len(script.requests) == 1


def test_the_waits_of_a_real_clock_end_with_the_timeout(ask):
    started = time.monotonic()
    with scripted((503, {}, BUSY)) as (address, script), pytest.raises(hs.errors.GalleryBusy):
        ask(address, "search", 7, timeout=1)
    assert 0.3 < time.monotonic() - started < 1.5
    assert 2 <= len(script.requests) <= 5


def test_what_a_service_said_last_is_raised_if_it_then_says_nothing_in_time(ask):
    hanging = (200, {}, lambda file: time.sleep(1))
    with scripted((503, {}, BUSY), hanging) as (address, _), pytest.raises(hs.errors.GalleryBusy):
        ask(address, "search", 7, timeout=0.6)


@pytest.mark.parametrize("status", [502, 504])
def test_a_proxy_whose_service_does_not_answer_is_asked_again(status, ask, waits):
    page = (status, {"X-Request-ID": "r7"}, b"<html>no</html>")
    with scripted(page, page, (200, {}, FOUND)) as (address, script):
        assert ask(address, "search", 7) == []
        assert len(script.requests) == 3
    waits.clear()
    with scripted(page) as (address, script):
        with pytest.raises(hs.errors.ServiceError, match=f"^{address} answered {status} ") as error:
            ask(address, "search", 7)
        assert len(script.requests) == 6
    assert (error.value.status, error.value.request_id) == (status, "r7")
    assert sum(waits) < 8


def test_an_upload_that_a_proxy_refuses_is_too_large(ask, picture):
    with scripted((413, {}, b"<html>413</html>")) as (address, script):
        with pytest.raises(hs.errors.ImageTooLarge, match=r"query\.jpg: .* answered 413 .*large$"):
            ask(address, "search", picture)
        assert len(script.requests) == 1


@pytest.mark.parametrize("status", [500, 404, 400, 301])
def test_what_is_no_answer_of_the_service_is_named_by_its_status(status, ask, waits):
    page = (status, {"X-Request-ID": "r7", "Location": "http://127.0.0.1:1/"}, b"<html>no</html>")
    with scripted(page) as (address, script):
        with pytest.raises(hs.errors.ServiceError, match=f"^{address} answered {status} ") as error:
            ask(address, "search", 7)
        assert len(script.requests) == 1
    assert (error.value.status, error.value.code) == (status, None)
    assert error.value.request_id == "r7"
    assert waits == []


def test_a_service_that_starts_is_waited_for(ask, address):
    port, done = free_port(), Event()

    def serve() -> None:
        with scripted((200, {}, FOUND), port=port):
            done.wait(20)

    starting = Timer(0.4, serve)
    starting.start()
    assert ask(f"http://127.0.0.1:{port}", "search", 7) == []
    done.set()
    starting.join()


def test_a_service_that_does_not_exist_is_given_up(ask, waits):
    address = f"http://127.0.0.1:{free_port()}"
    with pytest.raises(hs.errors.ServiceError, match=f"^{address} cannot be reached: ") as error:
        ask(address, "search", 7)
    assert len(waits) == 5
    assert sum(waits) < 8
    assert (error.value.code, error.value.status, error.value.request_id) == (None, None, None)


def test_a_request_whose_connection_is_lost_is_sent_again(ask, waits, photograph):
    added = (200, {}, {"images": [{"id": 5, "is_new": False}]})
    with scripted(None, None, added) as (address, script):
        assert ask(address, "add", photograph, "a b") == 5
    method, path, headers, body = script.requests[-1]
    assert (method, path) == ("POST", "/v1/images?label=a+b")
    assert (headers["Content-Type"], body) == ("application/octet-stream", photograph)
    assert script.requests[0] == script.requests[2]


def slowly(file) -> None:
    for _ in range(100):
        file.write(b" ")
        file.flush()
        time.sleep(0.05)


@pytest.mark.parametrize("body", [slowly, lambda file: time.sleep(3)], ids=["slow", "silent"])
def test_an_answer_that_takes_too_long_is_given_up(body, ask):
    with scripted((200, {}, body)) as (address, script):
        started = time.monotonic()
        with pytest.raises(hs.errors.ServiceError, match=r"did not answer within 0\.5 seconds"):
            ask(address, "search", 7, timeout=0.5)
        assert time.monotonic() - started < 2
        assert len(script.requests) == 1


@contextmanager
def raw_service(serve) -> Iterator[str]:
    """The address of a server that does with a connection what `serve` does with its socket."""

    def run() -> None:
        with suppress(OSError):  # the listener is closed at the end
            while True:
                connection, _ = listener.accept()
                with connection, suppress(OSError):  # the client hung up
                    serve(connection)

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = Thread(target=run)
        thread.start()
        try:
            yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            thread.join()


def send_header_lines(connection: socket.socket) -> None:
    connection.recv(2**16)
    connection.sendall(b"HTTP/1.1 200 OK\r\n")
    for number in range(60):
        connection.sendall(b"X-Line-%d: x\r\n" % number)
        time.sleep(0.05)


def send_interim_answers(connection: socket.socket) -> None:
    connection.recv(2**16)
    until = time.monotonic() + 3
    while time.monotonic() < until:
        connection.sendall(b"HTTP/1.1 103 Early Hints\r\n\r\n")


def take_slowly(connection: socket.socket) -> None:
    until = time.monotonic() + 3
    while time.monotonic() < until:
        connection.recv(400_000)
        time.sleep(0.05)


@pytest.mark.parametrize(
    ("serve", "megabytes"), [(send_header_lines, 0), (send_interim_answers, 0), (take_slowly, 15)]
)
def test_a_service_that_is_slow_at_any_step_is_given_up_within_the_timeout(serve, megabytes, ask):
    with raw_service(serve) as address:
        started = time.monotonic()
        with pytest.raises(hs.errors.ServiceError, match=r"did not answer within 0\.5 seconds"):
            ask(address, "add", b"\x89PNG" + bytes(megabytes * 10**6), timeout=0.5)
        assert time.monotonic() - started < 1.7


def endlessly(file) -> None:
    while True:
        file.write(b" " * 65_536)


def test_an_answer_without_an_end_is_refused(ask, monkeypatch):
    monkeypatch.setattr(calls, "MOST_BYTES", 2**20)
    with (
        scripted((200, {}, endlessly)) as (address, script),
        pytest.raises(hs.errors.ServiceError, match="answered with more than 1 MB"),
    ):
        ask(address, "search", 7)
    assert len(script.requests) == 1


HIT = {"id": 1, "distance": 2, "label": None, "uri": "a", "closeness": None, "missing": False}


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"<html>",
        b"null",
        b"[" * 100_000,
        b"\xff\xfe",
        b"\x1f\x8b\x08\0",
        FOUND | {"hits": None},
        FOUND | {"truncated": "no"},
        FOUND | {"hits": [HIT | {"id": "1"}]},
        FOUND | {"hits": [HIT | {"id": 2**70}]},
        FOUND | {"hits": [HIT | {"distance": 2.5}]},
        FOUND | {"hits": [{"id": 1}]},
        FOUND | {"hits": [HIT | {"uri": None}]},
    ],
    ids=lambda body: str(body)[:60],
)
def test_an_answer_of_another_form_is_refused_with_a_sentence(body):
    with scripted((200, {}, body)) as (address, _), hs.Client(address) as client:
        with pytest.raises(hs.errors.ServiceError, match=f"^{address} is not a HashSearch service"):
            client.search(7)
        for call in (client.info, lambda: client.get(1), lambda: client.add(b"x"), client.__len__):
            with pytest.raises(hs.errors.ServiceError):
                call()
        with pytest.raises(hs.errors.ServiceError):
            client.reconstruct(bytes(32).hex())


def test_an_answer_that_is_right_is_taken_with_what_it_has_besides():
    with scripted((200, {}, FOUND | {"hits": [HIT | {"new": 1}], "new": {}})) as (address, _):
        assert called(address, "search", 7) == [hs.Hit(path=None, **HIT)]


@pytest.mark.parametrize("row", PROBLEMS, ids=lambda row: row.code)
def test_every_problem_raises_the_error_that_the_library_has_for_it(row, waits):
    error = row.error.__new__(row.error, "what is wrong")  # some make their sentence themselves
    answer = problem_response(error, "r9")
    with (
        scripted((row.status, {"Content-Type": answer.media_type}, bytes(answer.body))) as (
            address,
            _,
        ),
        pytest.raises(hs.errors.HashSearchError, match=r"^what is wrong$") as raised,
    ):
        called(address, "search", 7)
    if row.error in vars(hs.errors).values():
        assert raised.type is row.error
    else:
        assert raised.type is ERRORS.get(row.code, hs.errors.ServiceError)
    found = raised.value
    assert found.request_id == "r9"
    if raised.type is hs.errors.ServiceError:
        assert (found.code, found.status) == (row.code, row.status)


def test_an_error_about_an_image_keeps_the_id_of_its_request(ask, picture):
    problem = {"detail": "no", "code": "invalid-image", "request_id": "r9"}
    for answer in ((422, {}, problem), (413, {"X-Request-ID": "r9"}, b"<html>")):
        for name, argument in (("search", picture), ("encode", [picture]), ("add", picture)):
            with scripted(answer) as (address, _), pytest.raises(hs.errors.InvalidImage) as raised:
                ask(address, name, argument)
            assert raised.value.request_id == "r9"
            assert str(picture) in str(raised.value)


def test_the_table_of_errors_names_problems_that_there_are():
    codes = {row.code for row in PROBLEMS}
    assert set(ERRORS) <= codes
    assert all(kind in vars(hs.errors).values() for kind in ERRORS.values())


def test_the_key_is_sent_to_the_service_alone(ask, monkeypatch):
    with scripted((200, {}, FOUND)) as (elsewhere, other):
        monkeypatch.setenv("HTTP_PROXY", elsewhere)
        monkeypatch.setenv("http_proxy", elsewhere)
        moved = (307, {"Location": f"{elsewhere}/v1/search", "Set-Cookie": "a=b"}, b"")
        with (
            scripted(moved) as (address, script),
            pytest.raises(hs.errors.ServiceError, match="; redirects are not followed") as e,
        ):
            ask(address, "search", 7, key="secret-key-of-sixteen")
        (_, _, headers, _) = script.requests[0]
        assert headers["Authorization"] == "Bearer secret-key-of-sixteen"
        assert headers["Accept-Encoding"] == "identity"
        assert other.requests == []
    assert "secret" not in str(e.value)
    assert "secret" not in repr(hs.Client(address, key="secret-key-of-sixteen"))


def test_a_path_prefix_of_the_address_is_kept(ask):
    with scripted((200, {}, FOUND)) as (address, script):
        for prefix in ("/a/b", "/a/b/"):
            assert ask(address + prefix, "search", 7) == []
    assert [path for _, path, _, _ in script.requests] == ["/a/b/v1/search"] * 2


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"address": "127.0.0.1:8000"}, "an address is like"),
        ({"address": "ftp://host"}, "an address is like"),
        ({"address": "http://"}, "an address is like"),
        ({"address": ""}, "an address is like"),
        ({"address": "http://me:secret@host"}, "without user"),
        ({"address": "http://host/?key=secret"}, "without user"),
        ({"address": "http://host:99999999"}, "an address is like"),
        ({"address": "http://a\nb"}, "an address is like"),
        ({"address": None}, "an address is like .*; got None"),
        ({"key": "secret-key\r\nX: yyyyyy"}, "a key is a text of at least 16 ASCII"),
        ({"key": ""}, "a key is a text of at least 16 ASCII"),
        ({"key": "secret-of-fifte"}, "a key is a text of at least 16 ASCII"),
        ({"key": "secrét-of-sixteen"}, "a key is a text of at least 16 ASCII"),
        ({"key": b"secret-of-sixteen"}, "a key is a text of at least 16 ASCII"),
        ({"verify": False}, "False came as verify; a file of certificates"),
        ({"verify": "nowhere.pem"}, "nowhere.pem cannot be read: No such file"),
        ({"verify": "a\0b"}, "is no path"),
        ({"verify": __file__}, "holds no certificates in PEM format"),
        ({"verify": Path(__file__).parent}, "cannot be read|no certificates"),
        ({"timeout": float("inf")}, "a timeout is a number of seconds"),
        ({"timeout": 0}, "a timeout is a number of seconds"),
        ({"timeout": float("nan")}, "a timeout is a number of seconds"),
        ({"timeout": None}, "a timeout is a number of seconds"),
        ({"timeout": True}, "a timeout is a number of seconds"),
    ],
)
@pytest.mark.parametrize("kind", [hs.Client, hs.AsyncClient])
def test_settings_of_a_client_are_checked(kind, arguments, message):
    with pytest.raises(hs.errors.InvalidQuery, match=message) as error:
        kind(**({"address": "http://127.0.0.1:1"} | arguments))
    assert "secr" not in str(error.value)


@pytest.mark.skipif(shutil.which("openssl") is None, reason="openssl makes the certificate")
def test_a_service_with_a_certificate_of_its_own_is_trusted_if_it_is_named(ask, tmp_path):
    certificate, key = tmp_path / "own.pem", tmp_path / "key.pem"
    made = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2"]
    made += ["-subj", "/CN=own", "-addext", "subjectAltName=IP:127.0.0.1"]
    made += ["-out", str(certificate), "-keyout", str(key)]
    subprocess.run(made, check=True, capture_output=True)
    served = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    served.load_cert_chain(certificate, key)
    with scripted((200, {}, FOUND), tls=served) as (address, script):
        context = ssl.create_default_context(cafile=certificate)
        for verify in (certificate, str(certificate), context):
            assert ask(address, "search", 7, verify=verify) == []
        for unknown in (None, ssl.create_default_context()):
            with pytest.raises(hs.errors.ServiceError, match="CERTIFICATE_VERIFY_FAILED"):
                ask(address, "search", 7, verify=unknown)
        assert len(script.requests) == 3


def test_a_closed_client_says_so(address):
    client = hs.Client(address)
    client.close()
    client.close()
    with pytest.raises(hs.errors.ServiceError, match="is closed; make another"):
        client.search(7)


def test_an_error_of_a_service_can_be_carried_between_processes():
    import pickle

    error = hs.errors.ServiceError("no", code="busy", status=503, request_id="r")
    copy = pickle.loads(pickle.dumps(error))
    assert (str(copy), vars(copy)) == ("no", vars(error))
    assert asdict(hs.GalleryInfo(1, 2, "f", [], None, {}, False))["images"] == 1
