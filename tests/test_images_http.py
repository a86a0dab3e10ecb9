"""The gallery's images over HTTP, through the real application, beside the Python library."""

import hashlib
from urllib.parse import quote

import pytest

import hashsearch
from service.cursors import cursor_of
from tests.conftest import serving
from tests.galleries import index
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
    assert found == {"list_images", "get_image", "get_thumbnail"}
