"""The gallery's images over HTTP, through the real application, beside the Python library."""

import hashlib
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from email.message import Message
from io import BytesIO
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote

import httpx2
import pytest
import uvicorn
from PIL import Image

import hashsearch
from service.app import create_app
from service.cursors import cursor_of
from service.settings import Settings
from tests.conftest import serving
from tests.galleries import another_png, index
from tests.test_live import eventually
from tests.test_service import problem


@pytest.fixture(scope="module")
def reading(gallery_folder):
    """A client of a gallery that does not change."""
    with serving(gallery_folder) as opened:
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
    with serving(gallery.folder) as client:
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
    with serving(gallery.folder, originals=True) as client:
        assert client.get("/v1/images/301").json()["original"] == "/v1/images/301/original"
        (tmp_path / "more" / "rocket.jpg").unlink()
        (image,) = walk(client, "&uri_prefix=more")
        assert image["missing"]
        assert client.get("/v1/images/301").json()["original"] is None


@pytest.mark.parametrize(
    "query", ["limit=0", "limit=1001", "limit=x", "uri_prefix=", "labels=x", "label=a&k=1"]
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
    assert reading.get("/v1/images", params={"after": cursor_of(7)}).json()["images"][0]["id"] == 8


def test_an_empty_gallery_lists_nothing(empty_gallery):
    with serving(empty_gallery.folder) as client:
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
    (listed,) = reading.get("/v1/images", params={"limit": 1, "after": cursor_of(32)}).json()[
        "images"
    ]
    assert {name: answer[name] for name in listed} == listed
    assert record.path not in str(answer)
    problem(reading.get("/v1/images/9999"), 404, "not-in-gallery")
    problem(reading.get("/v1/images/x"), 422, "invalid-parameter")
    for path in ("/v1/images", "/v1/images/33"):
        response = reading.head(path)
        assert (response.status_code, response.content) == (200, b"")


def test_operations_are_named_as_their_functions(reading):
    paths = reading.get("/openapi.json").json()["paths"]
    found = {
        operation["operationId"]
        for path, operations in paths.items()
        if path.startswith("/v1/images")
        for operation in operations.values()
    }
    assert found == {"list_images", "get_image", "get_original", "get_thumbnail"}


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
    with serving(gallery.folder, originals=True) as client:
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
    with serving(gallery.folder, originals=True) as client:
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
    with serving(gallery.folder, originals=True) as client:
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
    with serving(gallery.folder, originals=True) as client:
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
        while not (server.started and app.state.engine.is_loaded):
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
    with listening(gallery.folder, originals=True, original_timeout_s=3) as address:
        base = f"http://{address[0]}:{address[1]}"
        slow = [socket.create_connection(address) for _ in range(16)]
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
        for one in slow:
            one.close()


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
