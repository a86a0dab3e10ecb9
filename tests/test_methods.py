"""What a further method of search takes: its index and one line in the table."""

import json
import re
from pathlib import Path

import numpy as np
import pytest

import hashsearch as hs
from hashsearch.evaluation.measured import measured
from hashsearch.retrieval.methods import SERVED, ServedMethod
from hashsearch.search import gathered
from tests.conftest import serving
from tests.galleries import run


class MeanColours:
    """Squared distance of the mean red, green and blue: a toy, scanned without FAISS."""

    def __init__(self, blocks):
        self._means = means(gathered(blocks, 3072))

    def __len__(self):
        return len(self._means)

    def search(self, queries, k, subset=None):
        found = [self._ranked(query, subset) for query in queries]
        positions = np.full((len(queries), k), -1, np.int64)
        distances = np.full((len(queries), k), np.iinfo(np.int32).max, np.int32)
        for row, (near, far) in enumerate(found):
            positions[row, : len(near)], distances[row, : len(near)] = near[:k], far[:k]
        return positions, distances

    def search_radius(self, query, radius, subset=None):
        positions, distances = self._ranked(query, subset)
        return positions[distances <= radius], distances[distances <= radius]

    def search_combined(self, queries, weights, k, subset=None):
        every = [np.square(self._means - means(one[np.newaxis])).sum(axis=1) for one in queries]
        sums = weights.astype(np.int64) @ every
        order = np.lexsort((np.arange(len(sums)), sums))
        order = order if subset is None else order[subset.contains(order)]
        return order[:k], sums[order[:k]]

    def _ranked(self, query, subset):
        distances = np.square(self._means - means(query[np.newaxis])).sum(axis=1).astype(np.int32)
        order = np.lexsort((np.arange(len(distances)), distances))
        order = order if subset is None else order[subset.contains(order)]
        return order, distances[order]


def means(pixels):
    return pixels.reshape(len(pixels), -1, 3).mean(axis=1).round().astype(np.int64)


@pytest.fixture(autouse=True)
def toy(monkeypatch):
    method = ServedMethod("By mean colour", "squared grey levels", 3, "pixels", MeanColours)
    monkeypatch.setitem(SERVED, "colours", method)


def test_the_command_and_the_library_search_by_it(gallery_folder, capsys):
    with hs.open(gallery_folder) as gallery:
        path = gallery.get(9).path
        hits = gallery.search(path, k=3, method="colours")
    assert hits[0].distance == 0
    assert run("query", path, "--gallery", gallery_folder, "-k", "3", "--method", "colours") == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("squared grey levels")
    assert [int(line.split()[1]) for line in lines[1:]] == [hit.id for hit in hits]
    with pytest.raises(SystemExit):
        run("query", "--help")
    text = " ".join(capsys.readouterr().out.split())
    assert "{codes,pixels,normalized,colours}" in text
    assert "how images are compared: codes (by 256-bit code), pixels (" in text
    assert "colours (" in text


def test_http_and_the_page_offer_it(gallery_folder):
    with serving(gallery_folder) as client:
        assert (
            '"enum":["codes","pixels","normalized","colours"]' in client.get("/openapi.json").text
        )
        assert client.get("/v1/gallery").json()["methods"] == [
            "codes",
            "pixels",
            "normalized",
            "colours",
        ]
        answer = client.post("/v1/search?method=colours&k=2", json={"id": 9}).json()
        assert (answer["title"], answer["image_bytes"]) == ("By mean colour", 3)
        compared = client.post("/v1/compare", json={"id": 9}).json()["methods"]
        assert [one["method"] for one in compared] == ["codes", "pixels", "colours"]
        (given,) = re.findall(r"data-methods='([^']*)'", client.get("/").text)
        titles = [one["title"] for one in json.loads(given) if one["compared"]]
        assert titles == ["By 256-bit code", "By pixels", "By mean colour"]
        refused = client.post("/v1/search?method=scent", json={"id": 9})
        assert refused.status_code == 422
        assert "codes, pixels, normalized, colours" in refused.json()["detail"]
    for script in (Path(__file__).parents[1] / "service/static/page").glob("*.js"):
        # It names no method.
        assert not re.search(r"""["'](pixels|codes|normalized)["']""", script.read_text()), script


def test_the_evaluation_measures_it(image_files, capsys):
    assert list(measured())[:4] == ["codes", "pixels", "normalized", "colours"]
    arguments = ("--methods", "colours,pixels", "-k", "5", "--json")
    assert run("eval", "--data", image_files, *arguments) == 0
    out = capsys.readouterr().out
    assert '"title": "By mean colour"' in out
    assert '"unit": "squared grey levels"' in out
