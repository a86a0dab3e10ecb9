"""The gallery's images over HTTP, through the real application, beside the Python library."""

import errno
import hashlib
import shutil
import socket
import threading
import time
import zipfile
from base64 import b64encode
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from email.message import Message
from io import BytesIO
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote

import httpx2
import numpy as np
import pytest
import uvicorn
from fastapi.testclient import TestClient
from PIL import Image

import hashsearch
from hashsearch.gallery import opening, originals
from hashsearch.gallery.shards import ShardWriter
from hashsearch.jobs.reencoding import reencode
from hashsearch.jobs.verifying import verify
from service import originals as serving_originals
from service.app import create_app
from service.cursors import cursor_of
from service.settings import Settings
from tests.conftest import serving
from tests.galleries import another_png, has_no_litter, index, served
from tests.test_images import png_header
from tests.test_live import eventually
from tests.test_originals import add_source
from tests.test_service import EMPTY, problem

KEY = "a-key-of-the-tests-only"


@contextmanager
def writable(folder: Path, **settings: Any) -> Iterator[TestClient]:
    """A client that may write to the gallery."""
    with serving(folder, api_keys=KEY, **settings) as opened:
        opened.headers["Authorization"] = f"Bearer {KEY}"
        yield opened


@pytest.fixture
def client(gallery):
    with writable(gallery.folder) as opened:
        yield opened


@pytest.fixture(scope="module")
def reading(gallery_folder):
    """A client of a gallery that does not change."""
    with writable(gallery_folder) as opened:
        yield opened


def walk(client, query: str = "", limit: int = 100) -> list[dict]:
    """Every image of a list, page by page."""
    found, after = [], ""
    while True:
        answer = client.get(f"/v1/images?limit={limit}{query}{after}").json()
        found += answer["images"]
        assert len(answer["images"]) == limit or answer["next"] is None
        if answer["next"] is None:
            return found
        after = f"&after={quote(answer['next'])}"


# Keys


def test_writes_need_a_key_and_are_off_without_one(gallery, photograph):
    def writes(client) -> list:
        return [
            client.post("/v1/images", content=photograph),
            client.delete("/v1/images/5"),
            client.delete("/v1/images?id=5&id=6"),
        ]

    with serving(gallery.folder) as client:
        for response in writes(client):
            assert "HASHSEARCH_API_KEYS" in problem(response, 403, "writes-off")
        assert client.get("/v1/images/5").status_code == 200
    with serving(gallery.folder, api_keys=KEY) as client:
        for response in writes(client):
            problem(response, 401, "unauthorized")
            assert response.headers["www-authenticate"] == "Bearer"
        assert client.get("/readyz").json()["images"] == 300


# Lists


@pytest.mark.parametrize("limit", [1, 7, 100, 300, 1000])
def test_pages_list_every_image_once_in_order_of_id(reading, gallery_folder, limit):
    with hashsearch.open(gallery_folder) as gallery:
        expected = [
            (one.id, one.label, one.uri, one.width, one.height, one.missing) for one in gallery
        ]
    listed = walk(reading, limit=limit)
    names = ("id", "label", "uri", "width", "height", "missing")
    assert [tuple(one[name] for name in names) for one in listed] == expected
    assert reading.get(listed[12]["thumbnail"]).status_code == 200


def test_lists_are_chosen_by_label_and_uri(reading, gallery_folder):
    with hashsearch.open(gallery_folder) as gallery:
        images = list(gallery)
    label = images[150].label
    of_label = [one.id for one in images if one.label == label]
    assert [one["id"] for one in walk(reading, f"&label={label}", 4)] == of_label
    folder = images[20].uri.rpartition("/")[0]
    below = [one.id for one in images if one.uri.startswith(f"{folder}/")]
    assert 0 < len(below) < 300
    assert [one["id"] for one in walk(reading, f"&uri_prefix={folder}", 4)] == below
    both = walk(reading, f"&uri_prefix={folder}&label={label}", 4)
    assert [one["id"] for one in both] == [one for one in below if one in of_label]
    assert walk(reading, "&label=none") == walk(reading, "&uri_prefix=pictures/non") == []


def test_a_uri_prefix_may_be_encoded_or_not(gallery, tmp_path, photograph):
    (tmp_path / "Fotos 100%" / "Süd").mkdir(parents=True)
    (tmp_path / "Fotos 100%" / "Süd" / "ä b.jpg").write_bytes(photograph)
    index(gallery, tmp_path / "Fotos 100%")
    with writable(gallery.folder) as client:
        for prefix in ("Fotos 100%/Süd", "Fotos%20100%25/S%C3%BCd"):
            (image,) = walk(client, f"&uri_prefix={quote(prefix)}")
            assert (image["id"], image["width"], image["height"]) == (301, 640, 427)


def test_a_walk_meets_what_is_added_and_not_what_is_removed(gallery, photograph, client):
    first = client.get("/v1/images?limit=120").json()
    with hashsearch.open(gallery.folder) as library:
        library.remove(ids=[1, 120, 121, 122, *range(200, 250)])
        added = library.add(photograph)
    second = client.get("/v1/images", params={"limit": 1000, "after": first["next"]}).json()
    expected = [*range(123, 200), *range(250, 301), added]
    assert [one["id"] for one in second["images"]] == expected
    assert second["next"] is None
    assert second["generation"] == first["generation"] + 2


def test_an_image_whose_file_is_gone_is_said_to_be_missing(gallery, tmp_path, photograph):
    (tmp_path / "more").mkdir()
    (tmp_path / "more" / "rocket.jpg").write_bytes(photograph)
    index(gallery, tmp_path / "more")
    with writable(gallery.folder, originals=True) as client:
        assert client.get("/v1/images/301").json()["original"] == "/v1/images/301/original"
        (tmp_path / "more" / "rocket.jpg").unlink()
        (image,) = walk(client, "&uri_prefix=more")
        assert image["missing"]
        assert client.get("/v1/images/301").json()["original"] is None


@pytest.mark.parametrize(
    "query",
    [
        "limit=0",
        "limit=1001",
        "limit=x",
        "uri_prefix=",
        "labels=x",
        "label=a&k=1",
        "limit=1&limit=2",
    ],
)
def test_a_list_that_is_asked_for_wrongly_is_refused(reading, query):
    problem(reading.get(f"/v1/images?{query}"), 422, "invalid-parameter")


@pytest.mark.parametrize(
    "after",
    ["", "7", "AAAAAAAAAAc=", "AAAAAAAAAAd", "é", "_" * 11, "A" * 12, "A" * 500, "AAAA AAAA"],
)
def test_a_cursor_that_no_answer_gave_is_refused(reading, after):
    response = reading.get("/v1/images", params={"after": after})
    detail = problem(response, 422, "invalid-parameter")
    assert response.json()["parameter"] == "after"
    assert not after or after not in detail.removeprefix("after")
    assert (
        reading.get("/v1/images", params={"after": cursor_of("images", 7)}).json()["images"][0][
            "id"
        ]
        == 8
    )


def test_an_empty_gallery_lists_nothing(empty_gallery):
    with writable(empty_gallery.folder) as client:
        assert client.get("/v1/images").json() == {"images": [], "next": None, "generation": 0}


# Metadata


def test_an_image_is_described_with_its_code_and_the_key_of_its_file(reading, gallery_folder):
    with hashsearch.open(gallery_folder) as gallery:
        record = gallery.get(33)
    answer = reading.get("/v1/images/33").json()
    data = (gallery_folder.parent / record.path).read_bytes()
    assert answer["key"] == hashlib.sha256(data).hexdigest()
    assert answer["size"] == len(data)
    assert answer["code"] == reading.post("/v1/search", json={"id": 33}).json()["code"]
    assert answer["original"] is None  # originals are off
    (listed,) = reading.get(
        "/v1/images", params={"limit": 1, "after": cursor_of("images", 32), "codes": True}
    ).json()["images"]
    assert {name: answer[name] for name in listed} == listed
    assert record.path not in str(answer)
    problem(reading.get("/v1/images/9999"), 404, "not-in-gallery")
    for text in ("x", "1_0", "+1", "1.0", "%201", "-0", "\u0661"):
        problem(reading.get(f"/v1/images/{text}"), 422, "invalid-parameter")
        problem(reading.delete(f"/v1/images/{text}"), 422, "invalid-parameter")
        if text != "x":
            answer = reading.delete("/v1/images", params={"id": text.replace("%20", " ")})
            problem(answer, 422, "invalid-parameter")
    for path in ("/v1/images", "/v1/images/33"):
        response = reading.head(path)
        assert (response.status_code, response.content) == (200, b"")


@pytest.mark.parametrize(
    ("method", "path"), [("GET", ""), ("GET", "/thumbnail"), ("GET", "/original"), ("DELETE", "")]
)
def test_an_id_in_the_path_that_no_image_has_is_named(gallery, method, path):
    with writable(gallery.folder, originals=True) as client:
        for image_id in (0, 9999):
            response = client.request(method, f"/v1/images/{image_id}{path}")
            problem(response, 404, "not-in-gallery")
            assert response.json()["parameter"] == "image_id"


def test_operations_are_named_as_their_functions(reading):
    paths = reading.get("/openapi.json").json()["paths"]
    for method, names in (
        ("get", ["limit", "after", "label", "uri_prefix", "codes"]),
        ("post", ["label"]),
        ("delete", ["id"]),
    ):
        parameters = paths["/v1/images"][method]["parameters"]
        assert [one["name"] for one in parameters] == names
        assert all(one["description"] for one in parameters)
    found = {
        operation["operationId"]
        for path, operations in paths.items()
        if path.startswith("/v1/images")
        for operation in operations.values()
    }
    assert found == {
        *("list_images", "add_images", "remove_images", "get_image", "remove_image"),
        *("get_original", "get_thumbnail"),
    }


# Originals


@pytest.fixture
def filed(gallery, tmp_path, photograph):
    """The gallery, with photographs of every format in a folder of its own."""
    folder = tmp_path / "more"
    folder.mkdir()
    (folder / "rocket.jpg").write_bytes(photograph)
    for number, suffix in enumerate(FORMATS):
        with Image.open(BytesIO(photograph)) as image:
            image.resize((200 + number, 150)).save(folder / f"{number} ä.{suffix}")
    index(gallery, folder)
    return gallery, folder


FORMATS = {
    "avif": "image/avif",
    "bmp": "image/bmp",
    "gif": "image/gif",
    "jpeg": "image/jpeg",
    "png": "image/png",
    "tiff": "image/tiff",
    "webp": "image/webp",
}


def test_an_original_is_the_file_as_it_was_indexed(filed):
    gallery, folder = filed
    with writable(gallery.folder, originals=True) as client:
        listed = walk(client, "&uri_prefix=more")
        assert len(listed) == len(FORMATS) + 1
        for image in listed:
            described = client.get(f"/v1/images/{image['id']}").json()
            name = unquote(image["uri"].removeprefix("more/"))
            response = client.get(described["original"])
            assert response.content == (folder / name).read_bytes()
            assert described["key"] == hashlib.sha256(response.content).hexdigest()
            headers = response.headers
            suffix = name.rpartition(".")[2].replace("jpg", "jpeg")
            assert headers["content-type"] == FORMATS[suffix]
            assert headers["content-length"] == str(described["size"])
            assert headers["etag"] == f'"{described["key"]}"'
            assert headers["x-content-type-options"] == "nosniff"
            assert headers["accept-ranges"] == "none"
            kind, _, encoded = headers["content-disposition"].split("; ")
            assert kind == ("attachment" if suffix == "tiff" else "inline")
            assert unquote(encoded.removeprefix("filename*=UTF-8''")) == name
            head = client.head(described["original"])
            assert (head.status_code, head.content) == (200, b"")
            assert head.headers["content-length"] == headers["content-length"]


def test_an_original_that_the_client_has_is_not_read_again(filed):
    gallery, folder = filed
    with writable(gallery.folder, originals=True) as client:
        tag = client.get("/v1/images/301/original").headers["etag"]
        for path in folder.iterdir():
            path.unlink()
        response = client.get("/v1/images/301/original", headers={"If-None-Match": tag})
        assert (response.status_code, response.content) == (304, b"")
        assert response.headers["etag"] == tag
        response = client.get("/v1/images/301/original", headers={"If-None-Match": '"other"'})
        detail = problem(response, 404, "original-missing")
        assert detail == "the file of this image is gone"


def test_originals_are_off_unless_they_are_switched_on(filed, reading):
    for image_id in (301, 9999):
        problem(reading.get(f"/v1/images/{image_id}/original"), 403, "originals-off")
    gallery, folder = filed
    with writable(gallery.folder, originals=True) as client:
        problem(client.get("/v1/images/9999/original"), 404, "not-in-gallery")
        (folder / "rocket.jpg").write_bytes(b"\xff\xd8\xff secret")
        number = next(one["id"] for one in walk(client) if one["uri"] == "more/rocket.jpg")
        response = client.get(f"/v1/images/{number}/original")
        assert "secret" not in problem(response, 404, "original-missing")
        assert str(folder) not in response.text


@pytest.mark.parametrize(
    ("name", "plain"),
    [
        ('a"; filename=evil.html;".jpg', "a__ filename_evil.html__.jpg"),
        ("b\r\nSet-Cookie: x=1.jpg", "b__Set-Cookie_ x_1.jpg"),
        ("c\\..%00'🚀.jpg", "c_.._00__.jpg"),
    ],
)
def test_no_name_of_a_file_reaches_another_header(gallery, tmp_path, photograph, name, plain):
    (tmp_path / "more").mkdir()
    (tmp_path / "more" / name).write_bytes(photograph)
    index(gallery, tmp_path / "more")
    with writable(gallery.folder, originals=True) as client:
        headers = client.get("/v1/images/301/original").headers
    assert "set-cookie" not in headers
    shown = "".join(one if one.isprintable() and one != "\\" else "_" for one in name)
    message = Message()
    message["Content-Disposition"] = headers["content-disposition"]
    assert message.get_content_disposition() == "inline"
    assert message.get_filename() == plain  # by the standard library's parser
    *_, encoded = headers["content-disposition"].split("; ")
    assert unquote(encoded.removeprefix("filename*=UTF-8''")) == shown


@contextmanager
def listening(folder: Path, **settings: Any) -> Iterator[tuple[str, int]]:
    """The address of a service that listens at a port."""
    app = create_app(Settings(gallery=folder, **settings))
    server = uvicorn.Server(uvicorn.Config(app, port=0, log_level="error"))
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        while not (server.started and app.state.engine.served):
            time.sleep(0.01)
        yield server.servers[0].sockets[0].getsockname()
    finally:
        server.should_exit = True
        thread.join()


def large_image(folder: Path, megabytes: int) -> bytes:
    """An image file of so many megabytes, most of which follow the picture."""
    folder.mkdir()
    data = another_png() + bytes(megabytes * 2**20)
    (folder / "large.png").write_bytes(data)
    return data


def test_slow_readers_keep_nobody_waiting_and_are_cut_off(gallery, tmp_path):
    data = large_image(tmp_path / "more", 24)
    index(gallery, tmp_path / "more")
    with (
        listening(gallery.folder, originals=True, original_timeout_s=3, queue=8) as address,
        ExitStack() as opened,  # also if an assertion fails: the server waits for its clients
    ):
        base = f"http://{address[0]}:{address[1]}"
        slow = [opened.enter_context(socket.create_connection(address)) for _ in range(16)]
        started = time.monotonic()
        for one in slow:
            one.sendall(b"GET /v1/images/301/original HTTP/1.1\r\nHost: x\r\n\r\n")
            assert one.recv(1)
        with httpx2.Client(base_url=base) as client:
            problem(client.get("/v1/images/301/original"), 503, "busy")
            for _ in range(20):
                asked = time.monotonic()
                assert client.post("/v1/search", json={"id": 5}).status_code == 200
                assert client.get("/v1/images/301").status_code == 200
                assert time.monotonic() - asked < 1
                for one in slow:
                    assert one.recv(1)  # a byte now and then
            while client.get("/v1/images/301/original").status_code == 503:
                assert time.monotonic() - started < 10
                time.sleep(0.1)
            assert time.monotonic() - started >= 2.5
            assert client.get("/v1/images/301/original").content == data
        received = slow[0].makefile("rb").read()
        assert 0 < len(received) < len(data)  # the rest was not sent
        eventually(lambda: open_files_named("large.png") == 0)


def test_clients_that_take_nothing_are_cut_off_long_before_the_time_for_a_file(
    gallery, tmp_path, monkeypatch
):
    monkeypatch.setattr(serving_originals, "_STALLED_S", 2.0)
    data = large_image(tmp_path / "more", 24)
    index(gallery, tmp_path / "more")
    with listening(gallery.folder, originals=True, queue=4) as address, ExitStack() as opened:
        asked = time.monotonic()
        for _ in range(8):
            one = opened.enter_context(socket.create_connection(address))
            one.sendall(b"GET /v1/images/301/original HTTP/1.1\r\nHost: x\r\n\r\n")
            assert one.recv(1)
        url = f"http://{address[0]}:{address[1]}/v1/images/301/original"
        problem(httpx2.get(url), 503, "busy")
        eventually(lambda: open_files_named("large.png") == 0)
        assert time.monotonic() - asked > 1.9
        assert httpx2.get(url).content == data  # one that takes longer is not cut off


def test_one_archive_is_read_at_a_time_and_files_are_sent_meanwhile(
    gallery, tmp_path, monkeypatch, photograph
):
    (tmp_path / "more").mkdir()
    (tmp_path / "more" / "rocket.jpg").write_bytes(photograph)
    member = another_png()
    index(gallery, tmp_path / "more")
    add_source(gallery, zip_of(tmp_path / "more.zip", member))
    go_on, at_work = threading.Event(), []
    read = originals.read_within

    def slow(*arguments):
        at_work.append(threading.get_ident())
        assert go_on.wait(30)
        return read(*arguments)

    monkeypatch.setattr(originals, "read_within", slow)
    with (
        listening(gallery.folder, originals=True) as address,
        httpx2.Client(base_url=f"http://{address[0]}:{address[1]}") as client,
        ThreadPoolExecutor(20) as pool,
    ):
        url = f"http://{address[0]}:{address[1]}/v1/images/302/original"
        asked = [pool.submit(httpx2.get, url, timeout=30) for _ in range(16)]

        def in_lane() -> float:
            lines = client.get("/metrics").text.splitlines()
            name = 'hashsearch_queue_size{lane="archives"} '
            return next(float(one.removeprefix(name)) for one in lines if one.startswith(name))

        try:
            eventually(lambda: in_lane() == 16)
            problem(client.get("/v1/images/302/original"), 503, "busy")
            for _ in range(10):
                assert client.get("/v1/images/301/original").content == photograph
            assert len(at_work) == 1
        finally:
            go_on.set()
        assert {one.result().content for one in asked} == {member}
        assert len(set(at_work)) == 1


def test_a_client_that_hangs_up_does_not_keep_the_thread_of_archives(
    gallery, tmp_path, monkeypatch
):
    first, second = photographs(2)
    add_source(gallery, zip_of(tmp_path / "long.zip", first))
    add_source(gallery, zip_of(tmp_path / "short.zip", second))
    read, begun = originals.read_within, []

    def long(file, path, inside, stop):
        if path.name == "short.zip":
            return read(file, path, inside, stop)
        begun.append(path)
        eventually(stop, 20)
        return None

    monkeypatch.setattr(originals, "read_within", long)
    with listening(gallery.folder, originals=True) as address, ExitStack() as opened:
        for method in (b"GET", b"HEAD", b"GET", b"GET"):
            one = opened.enter_context(socket.create_connection(address))
            one.sendall(method + b" /v1/images/301/original HTTP/1.1\r\nHost: x\r\n\r\n")
        eventually(lambda: begun)
        opened.close()
        url = f"http://{address[0]}:{address[1]}/v1/images/302/original"
        assert httpx2.get(url, timeout=10).content == second
    assert len(begun) == 1  # the others were gone before their turn


def zip_of(path: Path, member: bytes) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a.png", member)
    return path


def test_a_client_that_hangs_up_leaves_its_place_to_others(gallery, tmp_path):
    data = large_image(tmp_path / "more", 24)
    index(gallery, tmp_path / "more")
    with listening(gallery.folder, originals=True) as address:
        for _ in range(40):
            with socket.create_connection(address) as one:
                one.sendall(b"GET /v1/images/301/original HTTP/1.1\r\nHost: x\r\n\r\n")
                assert one.recv(1)
        eventually(lambda: open_files_named("large.png") == 0)
        response = httpx2.get(f"http://{address[0]}:{address[1]}/v1/images/301/original")
        assert response.content == data


def test_a_file_that_changes_while_it_is_sent_is_cut_short(gallery, tmp_path):
    data = large_image(tmp_path / "more", 24)
    index(gallery, tmp_path / "more")
    with (
        listening(gallery.folder, originals=True) as address,
        socket.create_connection(address) as one,
    ):
        one.sendall(b"GET /v1/images/301/original HTTP/1.1\r\nHost: x\r\n\r\n")
        assert one.recv(1)
        with (tmp_path / "more" / "large.png").open("r+b") as file:
            file.seek(-(10**6), 2)
            file.write(b"secret")
        received = one.makefile("rb").read()
    assert b"secret" not in received
    assert len(received) < len(data)


def open_files_named(name: str) -> int:
    found = 0
    for one in Path("/proc/self/fd").iterdir():
        with suppress(OSError):  # closed meanwhile
            found += one.readlink().name == name
    return found


# Additions and removals


def photographs(count: int) -> list[bytes]:
    """Images that the gallery does not hold, of 48×40 pixels each."""
    random = np.random.default_rng(7)
    found = []
    for _ in range(count):
        coarse = Image.fromarray(random.integers(0, 256, (5, 6, 3), np.uint8))
        file = BytesIO()
        coarse.resize((48, 40), Image.Resampling.BICUBIC).save(file, "PNG")
        found.append(file.getvalue())
    return found


def image_field(*images: bytes) -> list[tuple[str, tuple[str, bytes]]]:
    return [("image", (f"{number}.png", data)) for number, data in enumerate(images)]


def as_json(*images: bytes, **more: Any) -> dict[str, Any]:
    return {"images": [{"image_base64": b64encode(one).decode(), **more} for one in images]}


def test_an_added_image_is_found_by_the_next_search_of_another_client(gallery, photograph):
    with writable(gallery.folder) as client, hashsearch.open(gallery.folder) as library:
        generation = client.get("/v1/gallery").json()["generation"]
        answer = client.post("/v1/images?label=rocket", content=photograph).json()
        assert answer["generation"] == generation + 1
        (added,) = answer["images"]
        uri = "+/" + hashlib.sha256(photograph).hexdigest()
        assert added == {
            "id": 301,
            "is_new": True,
            "label": "rocket",
            "uri": uri,
            "thumbnail": "/v1/images/301/thumbnail",
        }
        hit = TestClient(client.app).post("/v1/search?k=1", content=photograph).json()["hits"][0]
        assert (hit["id"], hit["distance"], hit["label"]) == (301, 0, "rocket")
        assert client.get(added["thumbnail"]).headers["content-type"] == "image/jpeg"
        assert [(one.id, one.distance) for one in library.search(photograph, k=1)] == [(301, 0)]
        assert (library.get(301).uri, library.get(301).label) == (uri, "rocket")
        assert client.get("/v1/images/301").json()["original"] is None


def test_images_are_added_in_every_form_and_stored_in_one_shard(gallery, photograph, client):
    images = photographs(4)
    shards = len(gallery.catalog.shard_rows())
    known = gallery.catalog.record(17)
    files = [*images[:2], photograph, images[0], Path(known.path).read_bytes()]
    answer = client.post("/v1/images", files=image_field(*files)).json()
    assert [one["id"] for one in answer["images"]] == [301, 302, 303, 301, 17]
    assert [one["is_new"] for one in answer["images"]] == [True, True, True, False, False]
    assert answer["images"][4]["label"] == known.label
    assert len(gallery.catalog.shard_rows()) == shards + 1
    body = as_json(images[2], label="a") | {"images": as_json(*images[2:])["images"]}
    body["images"][0]["label"] = "own"
    answer = client.post("/v1/images?label=common", json=body).json()
    assert [(one["id"], one["label"]) for one in answer["images"]] == [
        (304, "own"),
        (305, "common"),
    ]
    for number, data in enumerate((*images[:2], photograph, *images[2:])):
        assert client.get(f"/v1/images/{301 + number}").json()["size"] == len(data)
        assert client.post("/v1/search?k=1", content=data).json()["hits"][0]["id"] == 301 + number
    assert verify(gallery, 400).findings == []


def test_a_label_is_given_to_known_content_as_the_library_gives_it(gallery, client, photograph):
    added = client.post("/v1/images?label=one", content=photograph).json()["images"][0]
    with hashsearch.open(gallery.folder) as library:
        for query, label in (("", "one"), ("?label=two", "two"), ("?label=", None)):
            answer = client.post(f"/v1/images{query}", content=photograph).json()["images"][0]
            assert answer == added | {"is_new": False, "label": label}
            assert library.get(301).label == label
    assert served(client) == 301


def test_if_one_image_cannot_be_read_it_is_named_and_none_is_added(gallery, client, photograph):
    good = photographs(2)
    for bad, status, code in (
        (b"hello", 415, "unsupported-format"),
        (photograph[:3000], 422, "invalid-image"),
        (png_header(10_000, 10_000), 413, "image-too-large"),
    ):
        problem(client.post("/v1/images", content=bad), status, code)
        for request, field in (
            ({"files": image_field(*good, bad)}, "images.2"),
            ({"json": as_json(*good, bad)}, "images.2.image_base64"),
        ):
            response = client.post("/v1/images", **request)
            problem(response, status, code)
            assert response.json()["parameter"] == field
    assert gallery.catalog.count() == 300


@pytest.mark.parametrize(
    ("body", "parameter", "sentence"),
    [
        ({"images": []}, "images", "images must have at least 1 entry"),
        (
            {"images": [{"image_base64": "AAAA"}] * 33},
            "images",
            "images must have at most 32 entries",
        ),
        (
            {"images": [{"image_base64": "&"}]},
            "images.0.image_base64",
            "images.0.image_base64 is not base64",
        ),
        (
            {"images": [{"image_base64": ""}]},
            "images.0.image_base64",
            "images.0.image_base64 is empty",
        ),
        (
            {"images": [{"image_base64": "AAAA", "label": "x" * 5000}]},
            "images.0.label",
            "images.0.label must have at most 4096 characters",
        ),
        (
            {"images": [{"image_base64": "AAAA"}, {"image_base64": "AAAA", "lable": "x"}]},
            "images.1.lable",
            "unknown field 'images.1.lable'; did you mean 'label'?",
        ),
        (
            {"images": [{"image": "AAAA"}]},
            "images.0.image",
            "unknown field 'images.0.image'; did you mean 'image_base64'?",
        ),
        (
            {"images": [{"image_base64": "AAAA", "<b>": "x"}]},
            "images.0",
            "there is a field in images.0 with an unknown name",
        ),
        ({"images": [7]}, "images.0", "images.0 must be a JSON object"),
        (
            {"images": [{"label": "x"}]},
            "images.0.image_base64",
            "images.0.image_base64 is missing",
        ),
        (
            {"image_base64": "AAAA"},
            "image_base64",
            "image_base64 belongs in an entry of images, "
            'as in {"images": [{"image_base64": "..."}]}',
        ),
        ([], None, "the body must be a JSON object"),
    ],
)
def test_json_that_holds_no_images_is_refused(client, body, parameter, sentence):
    response = client.post("/v1/images", json=body)
    code = response.json()["code"]
    assert problem(response, 400 if code == "malformed-request" else 422, code) == sentence
    assert response.json()["parameter"] == parameter


def test_a_form_without_images_or_with_too_many_is_refused(gallery, client, photograph):
    text = "the form has a text field, but parameters belong in the query string"
    image = ("image", ("x.jpg", photograph))
    none = "the form has no file in a field named image"
    for form, came in (
        ({"files": {"photo": ("x.jpg", photograph)}}, none),
        (
            {"files": [image, ("other", ("x.jpg", photograph))]},
            "the form has a file in another field",
        ),
        ({"files": image_field(*photographs(33))}, "the form has too many files"),
        ({"files": [image], "data": {"label": "x"}}, text),
        (
            {"content": b"junk", "headers": {"Content-Type": "multipart/form-data; boundary=x"}},
            "the body is not a form",
        ),
    ):
        detail = problem(client.post("/v1/images", **form), 400, "malformed-request")
        assert detail == f"{came}; send 1 to 32 files, in fields named image"
    empty = client.post("/v1/images", files=image_field(photograph, b""))
    assert problem(empty, 400, "malformed-request") == "images.1 is an empty file"
    assert empty.json()["parameter"] == "images.1"
    assert problem(client.post("/v1/images"), 400, "malformed-request") == EMPTY
    mistaken = client.delete("/v1/images?ids=1")
    detail = problem(mistaken, 422, "invalid-parameter")
    assert detail == "unknown parameter 'ids'; did you mean 'id'?"
    problem(client.post("/v1/images?lable=x", content=photograph), 422, "invalid-parameter")
    assert gallery.catalog.count() == 300
    answer = client.post("/v1/images", files=image_field(*photographs(32))).json()
    assert [one["id"] for one in answer["images"]] == list(range(301, 333))


def test_a_body_above_the_limit_is_refused_in_every_form(gallery, photograph):
    with writable(gallery.folder, max_body_bytes=len(photograph) + 100) as client:
        for request in (
            {"files": image_field(photograph, photograph)},
            {"json": as_json(photograph)},
            {"content": photograph * 2},
        ):
            problem(client.post("/v1/images", **request), 413, "body-too-large")
        assert client.post("/v1/images", content=photograph).status_code == 200


def test_the_same_bytes_added_by_many_clients_at_once_are_one_image(gallery, client, photograph):
    with ThreadPoolExecutor(16) as pool:
        answers = list(
            pool.map(lambda _: client.post("/v1/images", content=photograph).json(), range(16))
        )
    added = [one for answer in answers for one in answer["images"]]
    assert {one["id"] for one in added} == {301}
    assert sum(one["is_new"] for one in added) == 1
    assert gallery.catalog.count() == 301


def test_a_removed_image_is_gone_from_every_answer(gallery, client):
    generation = client.get("/v1/gallery").json()["generation"]
    assert client.delete("/v1/images/7").json() == {"removed": 1, "generation": generation + 1}
    problem(client.delete("/v1/images/7"), 404, "not-in-gallery")
    problem(client.get("/v1/images/7"), 404, "not-in-gallery")
    problem(client.post("/v1/search", json={"id": 7}), 404, "not-in-gallery")
    hits = client.post("/v1/search?k=1000", json={"id": 8}).json()["hits"]
    assert 7 not in {one["id"] for one in hits}
    answer = client.delete("/v1/images?id=7&id=8&id=9&id=9&id=99999").json()
    assert answer == {"removed": 2, "generation": generation + 2}
    assert client.delete("/v1/images?id=7").json()["removed"] == 0
    assert [one["id"] for one in walk(client)][:7] == [1, 2, 3, 4, 5, 6, 10]
    with hashsearch.open(gallery.folder) as library:
        assert len(library) == served(client) == 297


@pytest.mark.parametrize(
    "path", ["?", "?id=", "?id=x", "?id=-1", "?ids=1", "/x", "?id=99999999999999999999"]
)
def test_a_removal_of_no_id_is_refused(reading, path):
    problem(reading.delete(f"/v1/images{path}"), 422, "invalid-parameter")


def test_at_most_1000_images_are_removed_at_once(gallery, client):
    query = "&".join(f"id={number}" for number in range(1, 1002))
    response = client.delete(f"/v1/images?{query}")
    assert "at most 1000" in problem(response, 422, "invalid-parameter")
    assert client.delete(f"/v1/images?{query.removesuffix('&id=1001')}").json()["removed"] == 300


def test_no_image_of_another_gallery_is_removed(gallery, gallery_folder, client):
    replace_gallery(gallery.folder, gallery_folder)
    detail = problem(client.delete("/v1/images/7"), 409, "gallery-replaced")
    assert "nothing was removed" in detail
    assert served(client) == 300
    assert client.delete("/v1/images/7").json()["removed"] == 1


def test_an_image_is_added_to_the_gallery_that_is_at_the_path(
    gallery, gallery_folder, client, photograph
):
    replace_gallery(gallery.folder, gallery_folder)
    assert client.post("/v1/images", content=photograph).json()["images"][0]["id"] == 301
    with hashsearch.open(gallery.folder) as library:
        assert len(library) == 301


def replace_gallery(folder: Path, other: Path) -> None:
    folder.rename(folder.with_name("former"))
    shutil.copytree(other, folder)


def test_images_are_added_and_removed_while_a_job_runs(gallery, client, photograph):
    with gallery.job_lock():
        assert client.post("/v1/images", content=photograph).json()["images"][0]["is_new"]
        assert client.delete("/v1/images/301").json()["removed"] == 1


def test_a_gallery_that_cannot_be_written_to_is_not_changed(gallery, photograph, monkeypatch):
    monkeypatch.setattr(opening, "_can_write", lambda _: False)
    with writable(gallery.folder) as client:
        for response in (
            client.post("/v1/images", content=photograph),
            client.post("/v1/images", content=b"no image"),
            client.delete("/v1/images/7"),
            client.delete("/v1/images?id=7"),
        ):
            problem(response, 403, "gallery-read-only")
            assert str(gallery.folder) not in response.text
        assert client.post("/v1/search", content=photograph).status_code == 200


def test_a_locked_catalog_is_said_to_be_busy(gallery, photograph, monkeypatch):
    monkeypatch.setattr(opening, "_BUSY_TIMEOUT_S", 0.1)
    with writable(gallery.folder) as client:
        with gallery.catalog.transaction():
            response = client.post("/v1/images", content=photograph)
            problem(response, 503, "gallery-busy")
            assert response.headers["retry-after"] == "5"
            problem(client.delete("/v1/images/7"), 503, "gallery-busy")
            assert client.post("/v1/search", json={"id": 7}).status_code == 200
        assert client.delete("/v1/images/7").status_code == 200
        assert client.post("/v1/images", content=photograph).status_code == 200


def test_codes_of_a_model_that_was_changed_meanwhile_are_not_added(
    gallery, other_model_folder, client, photograph, monkeypatch
):
    engine = client.app.state.engine
    columns = engine.columns

    def encode_slowly(*given):
        found = columns(*given)
        monkeypatch.undo()
        reencode(gallery, other_model_folder)
        return found

    monkeypatch.setattr(engine, "columns", encode_slowly)
    problem(client.post("/v1/images", content=photograph), 503, "gallery-busy")
    assert gallery.catalog.count() == 300

    def added() -> bool:
        return client.post("/v1/images", content=photograph).status_code == 200

    eventually(added)
    hit = client.post("/v1/search?k=1", content=photograph).json()["hits"][0]
    assert (hit["id"], hit["distance"]) == (301, 0)


@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.ENOSPC, "No space left on device"),
        OSError(errno.EDQUOT, "Disk quota exceeded"),
    ],
)
def test_a_full_disk_adds_nothing_and_is_said_to_be_full(
    gallery, client, photograph, monkeypatch, error
):
    def fail(*_):
        raise error

    with monkeypatch.context() as patched:
        patched.setattr(ShardWriter, "seal", fail)
        response = client.post("/v1/images", files=image_field(photograph, *photographs(2)))
        detail = problem(response, 507, "disk-full")
        assert detail == "the gallery's disk is full; nothing was changed"
    assert served(client) == 300
    assert has_no_litter(gallery)
    assert not any((gallery.folder / "unfinished" / "additions").iterdir())
    assert client.post("/v1/images", content=photograph).json()["images"][0]["id"] == 301


def test_writes_and_searches_at_once_are_all_answered_rightly(gallery, photograph):
    """Every search is answered from one state: the images of its generation, and no others."""
    images = photographs(40)
    with writable(gallery.folder, queue=500) as client:
        first = client.get("/v1/gallery").json()["generation"]

        def write(number: int) -> list[int]:
            answer = client.post("/v1/images", content=images[number])
            assert answer.status_code == 200, answer.text
            (added,) = answer.json()["images"]
            assert added["is_new"]
            hits = client.post("/v1/search?k=1", content=images[number]).json()["hits"]
            assert (hits[0]["id"], hits[0]["distance"]) == (added["id"], 0)
            if number % 2:
                answer = client.delete(f"/v1/images/{added['id']}")
                assert answer.json()["removed"] == 1, answer.text
                hits = client.post("/v1/search?k=1", content=images[number]).json()["hits"]
                assert hits[0]["id"] != added["id"]
                return []
            return [added["id"]]

        def search(_) -> None:
            answer = client.post("/v1/search?k=1000", json={"id": 5})
            assert answer.status_code == 200, answer.text
            ids = [hit["id"] for hit in answer.json()["hits"]]
            assert len(set(ids)) == len(ids)
            assert set(range(1, 301)) - {5} <= set(ids)
            page = client.get("/v1/images?limit=1000").json()
            assert page["generation"] >= answer.json()["generation"]
            seen.append((answer.json()["generation"], len(ids) + 1))
            seen.append((page["generation"], len(page["images"])))

        seen: list[tuple[int, int]] = []
        with ThreadPoolExecutor(16) as pool:
            searches = [pool.submit(search, number) for number in range(40)]
            writes = [pool.submit(write, number) for number in range(40)]
            kept = {one for write_ in writes for one in write_.result()}
            for one in searches:
                one.result()
        assert [one["id"] for one in walk(client)] == [*range(1, 301), *sorted(kept)]
        last = client.get("/v1/gallery").json()["generation"]
    assert last == first + 60  # each addition and each removal is one change
    by_generation: dict[int, set[int]] = {}
    for generation, count in seen:
        by_generation.setdefault(generation, set()).add(count)
    assert all(len(counts) == 1 for counts in by_generation.values())
    assert verify(gallery, 400).findings == []
