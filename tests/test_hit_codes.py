"""The codes of images over HTTP, beside those that the images' own descriptions give."""

import time

import pytest

from hashsearch.retrieval.searcher import Searcher
from tests.conftest import WITH_KEY, serving
from tests.test_service import problem


@pytest.fixture(scope="module")
def client(gallery_folder):
    with serving(gallery_folder) as opened:
        yield opened


def described(client, hits: list[dict]) -> list[str]:
    """The code of each image by GET /v1/images/{id}."""
    return [client.get(f"/v1/images/{hit['id']}").json()["code"] for hit in hits]


@pytest.mark.parametrize(
    ("query", "body"),
    [
        ("k=20", {"id": 12}),
        ("k=5&offset=30&histogram=true", {"id": 12}),
        ("radius=90", {"id": 12, "exclude": [1, 2]}),
        ("k=7&method=pixels", {"id": 12}),
        ("k=7&transforms=true", {"id": 12}),
        ("k=7", {"like": [12, 40], "unlike": [5]}),
        ("k=7", {"code": "00" * 32}),
    ],
)
def test_each_hit_carries_its_code_if_codes_are_asked_for(client, query, body):
    answer = client.post(f"/v1/search?codes=true&{query}", json=body).json()
    assert answer["asked"]["codes"] is True
    assert len(answer["hits"]) >= 5
    assert [hit["code"] for hit in answer["hits"]] == described(client, answer["hits"])


def test_the_distance_of_a_hit_is_the_number_of_bits_in_which_its_code_differs(client):
    answer = client.post("/v1/search?codes=true&k=50", json={"id": 7}).json()
    differing = [
        (int(hit["code"], 16) ^ int(answer["code"], 16)).bit_count() for hit in answer["hits"]
    ]
    assert differing == [hit["distance"] for hit in answer["hits"]]


def test_each_hit_of_a_comparison_carries_its_code_if_codes_are_asked_for(client):
    answer = client.post("/v1/compare?codes=true&k=9", json={"id": 7}).json()
    assert answer["asked"]["codes"] is True
    assert [len(one["hits"]) for one in answer["methods"]] == [9, 9]
    for method in answer["methods"]:
        assert [hit["code"] for hit in method["hits"]] == described(client, method["hits"])


def test_codes_are_null_and_the_search_is_plain_unless_they_are_asked_for(client, monkeypatch):
    plain, search_each = [], Searcher.search_each

    def counted(searcher, wanted):
        plain.append(len(wanted))
        return search_each(searcher, wanted)

    monkeypatch.setattr(Searcher, "search_each", counted)
    for query in ("", "?codes=false"):
        answer = client.post(f"/v1/search{query}", json={"id": 12}).json()
        assert answer["asked"]["codes"] is False
        assert [hit["code"] for hit in answer["hits"]] == [None] * 10
    assert plain == [1, 1]
    with_codes = client.post("/v1/search?codes=true", json={"id": 12}).json()
    assert plain == [1, 1]
    assert [hit["id"] for hit in with_codes["hits"]] == [hit["id"] for hit in answer["hits"]]
    methods = client.post("/v1/compare", json={"id": 12}).json()["methods"]
    assert {hit["code"] for method in methods for hit in method["hits"]} == {None}


def listed(client, query: str = "") -> list[dict]:
    """The images of GET /v1/images, and the files of GET /v1/duplicates."""
    images = client.get(f"/v1/images?limit=20&{query}").json()["images"]
    address = f"/v1/duplicates?radius=32&{query}"
    while (response := client.get(address)).status_code == 503:  # being computed
        time.sleep(0.05)
    files = [file for group in response.json()["groups"] for file in group["files"]]
    assert len(images) == 20
    assert len(files) > 5
    return images + files


def test_each_listed_image_and_duplicate_carries_its_code_if_codes_are_asked_for(client):
    images = listed(client, "codes=true")
    assert [image["code"] for image in images] == described(client, images)
    assert {image["code"] for image in listed(client)} == {None}


def test_an_image_that_was_just_added_is_found_with_its_code(image_files, gallery):
    picture = sorted(image_files.rglob("*.*"))[3].read_bytes() + b"again"
    with serving(gallery.folder, **WITH_KEY) as client:
        key = {"Authorization": f"Bearer {WITH_KEY['api_keys']}"}
        added = client.post("/v1/images", content=picture, headers=key).json()["images"][0]["id"]
        client.delete("/v1/images/1", headers=key)
        answer = client.post("/v1/search?codes=true&k=299", json={"id": 2}).json()
        assert added in [hit["id"] for hit in answer["hits"]]
        some = [hit for hit in answer["hits"] if hit["id"] in (3, added, 300)]
        assert [hit["code"] for hit in some] == described(client, some)


def test_a_value_of_codes_that_is_neither_true_nor_false_is_refused(client):
    response = client.post("/v1/search?codes=some", json={"id": 12})
    problem(response, 422, "invalid-parameter")
    assert response.json()["parameter"] == "codes"
