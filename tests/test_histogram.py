"""Histograms of the distances of a search over HTTP, beside a search for all images."""

import numpy as np
import pytest

from hashsearch.retrieval.transforms import views
from tests.conftest import open_searcher, serving
from tests.test_service import problem


@pytest.fixture(scope="module")
def client(gallery_folder):
    with serving(gallery_folder) as opened:
        yield opened


@pytest.fixture(scope="module")
def stored(gallery_folder) -> np.ndarray:
    """(300, 32) uint8: the codes of the images with ids 1 to 300."""
    searcher = open_searcher(gallery_folder)
    return searcher.gallery.column("codes", searcher.gallery.catalog.rows())


def counted(codes: np.ndarray, query: np.ndarray) -> list[int]:
    distances = np.bitwise_count(codes ^ query).sum(axis=1).tolist()
    return [distances.count(distance) for distance in range(257)]


def test_a_histogram_counts_every_image_but_the_query(client, stored):
    answer = client.post("/v1/search?histogram=true&k=5", json={"id": 12}).json()
    others = np.delete(stored, 11, axis=0)
    assert answer["histogram"] == counted(others, stored[11])
    assert sum(answer["histogram"]) == 299
    assert len(answer["hits"]) == 5
    by_code = client.post("/v1/search?histogram=true", json={"code": answer["code"]}).json()
    assert by_code["histogram"] == counted(stored, stored[11])
    assert client.post("/v1/search", json={"id": 12}).json()["histogram"] is None


def test_a_histogram_agrees_with_a_search_for_all_whatever_is_shown(client):
    everything = client.post("/v1/search?k=299", json={"id": 5}).json()["hits"]
    distances = [hit["distance"] for hit in everything]
    expected = [distances.count(distance) for distance in range(257)]
    for shown in ("k=3", "k=3&radius=60", "radius=0", "k=40&offset=7"):
        answer = client.post(f"/v1/search?histogram=true&{shown}", json={"id": 5}).json()
        assert answer["histogram"] == expected


def test_a_histogram_counts_only_the_images_that_may_be_found(client, stored, gallery_folder):
    searcher = open_searcher(gallery_folder)
    labels = {one.id: one.label for one in searcher.gallery.catalog.records(range(1, 301))}
    label = labels[30]
    chosen = [one - 1 for one in labels if labels[one] == label and one not in (30, 31)]
    answer = client.post(
        f"/v1/search?histogram=true&label={label}", json={"id": 30, "exclude": [31]}
    ).json()
    assert 0 < len(chosen) < 200
    assert answer["histogram"] == counted(stored[chosen], stored[29])
    few = client.post("/v1/search?histogram=true", json={"id": 30, "ids": [1, 2, 30, 999]}).json()
    assert few["histogram"] == counted(stored[:2], stored[29])


def test_a_histogram_of_views_counts_the_least_distances(client, stored, gallery_folder):
    searcher = open_searcher(gallery_folder)
    codes = searcher.encoder.encode(views(searcher.query_by_id(30).tiny))
    codes[0] = stored[29]
    least = np.bitwise_count(stored[:, np.newaxis] ^ codes).sum(axis=2).min(axis=1)
    least = np.delete(least, 29).tolist()
    answer = client.post("/v1/search?histogram=true&transforms=true", json={"id": 30}).json()
    assert answer["histogram"] == [least.count(distance) for distance in range(257)]


def test_a_histogram_of_what_has_none_is_refused(client, stored):
    path = "/v1/search?histogram=true"
    detail = problem(client.post(f"{path}&method=pixels", json={"id": 5}), 422, "invalid-query")
    assert detail == "distances are counted by the method codes alone"
    for body in ({"id": 5, "like": [6]}, {"like": [6]}, {"id": 5, "unlike": [6]}):
        detail = problem(client.post(path, json=body), 422, "invalid-query")
        assert detail == "histogram needs a query, and no examples"
