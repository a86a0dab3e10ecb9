"""Which images a search may find, and by what it ranks them: in library, command and HTTP."""

import base64
import io
import json
import time
from contextlib import redirect_stdout
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import hashsearch as hs
from hashsearch.errors import InvalidQuery
from hashsearch.jobs.building import buildable
from hashsearch.search import multihash
from tests.conftest import serving
from tests.galleries import run


@pytest.fixture(scope="module")
def opened(gallery_folder):
    with hs.open(gallery_folder) as gallery:
        yield gallery


@pytest.fixture(scope="module")
def client(gallery_folder):
    with serving(gallery_folder) as client:
        yield client


def by_library(gallery, query, k, method, **options):
    found = gallery.rank(query, k, method=method, **options)
    return [(hit.distance, hit.id) for hit in found.hits]


def by_command(gallery_folder, query, k, method, **options):
    words = ["query", *([] if query is None else [query]), "--gallery", gallery_folder]
    words += ["-k", k, "--method", method, "--json"]
    for name, value in options.items():
        if value is True:
            words.append(f"--{name}")
        else:
            some = value if isinstance(value, list) else [value]
            words += [f"--{name.replace('_', '-')}", *some]
    out = io.StringIO()
    with redirect_stdout(out):
        assert run(*words) == 0
    return [(hit["distance"], hit["id"]) for hit in json.loads(out.getvalue())["hits"]]


def by_http(client, query, k, method, **options):
    parameters = {"k": k, "method": method}
    body = {name: value for name, value in options.items() if isinstance(value, list)}
    parameters |= {name: value for name, value in options.items() if not isinstance(value, list)}
    if isinstance(query, int):
        body["id"] = query
    if isinstance(query, Path):
        assert not body
        answer = client.post("/v1/search", params=parameters, content=query.read_bytes())
    else:
        answer = client.post("/v1/search", params=parameters, json=body)
    assert answer.status_code == 200, answer.text
    return [(hit["distance"], hit["id"]) for hit in answer.json()["hits"]]


def slow(gallery, method: str, like, unlike=(), chosen=lambda image: True):
    """(distance, id) of each image by a loop; like and unlike are ids."""
    column = "pixels" if method == "pixels" else "codes"
    storage = gallery._opened
    rows = storage.catalog.rows()
    values = dict(zip(rows.ids.tolist(), storage.column(column, rows), strict=True))

    def distance(one, other):
        if method == "pixels":
            return int(((values[one].astype(int) - values[other]) ** 2).sum())
        return int(np.bitwise_count(values[one] ^ values[other]).sum())

    def total(image):
        return sum(distance(one, image) for one in like) - sum(
            distance(one, image) for one in unlike
        )

    return sorted(
        (total(image.id), image.id)
        for image in gallery
        if image.id not in (*like, *unlike) and chosen(image)
    )


def everywhere(opened, client, gallery_folder, query, k, method, **options):
    """The same answer from the library, the command and HTTP."""
    found = by_library(opened, query, k, method, **options)
    assert by_command(gallery_folder, query, k, method, **options) == found
    assert by_http(client, query, k, method, **options) == found
    return found


@pytest.mark.parametrize("method", ["codes", "pixels"])
def test_label_uri_ids_and_exclude_choose_what_is_found(opened, client, gallery_folder, method):
    label = opened.get(5).label
    folder = opened.get(30).uri.rpartition("/")[0]
    every = (opened, client, gallery_folder, 7, 25, method)
    assert (
        everywhere(*every, label=label)
        == slow(opened, method, [7], chosen=lambda image: image.label == label)[:25]
    )
    assert (
        everywhere(*every, uri_prefix=folder)
        == slow(opened, method, [7], chosen=lambda image: image.uri.startswith(f"{folder}/"))[:25]
    )
    some = list(range(1, 300, 4))
    assert (
        everywhere(*every, ids=some)
        == slow(opened, method, [7], chosen=lambda image: image.id in some)[:25]
    )
    nearest = [image for _, image in slow(opened, method, [7])[:20]]
    assert everywhere(*every, exclude=nearest) == slow(opened, method, [7])[20:45]
    assert (
        everywhere(*every, label=label, ids=some, exclude=nearest)
        == slow(
            opened,
            method,
            [7],
            chosen=lambda image: (
                image.label == label and image.id in some and image.id not in nearest
            ),
        )[:25]
    )
    assert everywhere(*every, label="no such label") == []


@pytest.mark.parametrize("method", ["codes", "pixels", "normalized"])
def test_examples_rank_by_the_sum_of_distances(opened, client, gallery_folder, method):
    every = (opened, client, gallery_folder)
    found = everywhere(*every, 7, 30, method, like=[9, 11], unlike=[200])
    if method != "normalized":
        assert found == slow(opened, method, [7, 9, 11], [200])[:30]
    alone = everywhere(*every, None, 30, method, like=[7, 9, 11], unlike=[200])
    assert alone == found
    label = opened.get(5).label
    among = everywhere(*every, None, 30, method, unlike=[200], label=label)
    if method != "normalized":
        assert among == slow(opened, method, [], [200], lambda image: image.label == label)[:30]
    assert among[0][0] < 0


def test_a_query_with_transforms_finds_the_mirror_image(opened, client, gallery_folder, tmp_path):
    mirrored = tmp_path / "mirrored.png"
    picture = opened._opened.pixels(42)
    Image.fromarray(picture[:, ::-1]).save(mirrored)
    every = (opened, client, gallery_folder, mirrored, 5, "codes")
    assert (0, 42) in everywhere(*every, transforms=True)
    assert (0, 42) not in everywhere(*every)
    for method in ("pixels", "normalized"):
        assert by_library(opened, mirrored, 1, method, transforms=True) == [(0, 42)]
    # Each distance is the least to any of the views.
    views = [opened.search(view, k=300) for view in _views(mirrored)]
    least: dict[int, int] = {}
    for hit in (hit for hits in views for hit in hits):
        least[hit.id] = min(hit.distance, least.get(hit.id, 256))
    expected = sorted((distance, one) for one, distance in least.items())
    assert by_library(opened, mirrored, 300, "codes", transforms=True) == expected
    radius = expected[40][0]
    within = opened.search(mirrored, radius=radius, transforms=True)
    assert [(hit.distance, hit.id) for hit in within] == [
        pair for pair in expected if pair[0] <= radius
    ]


def _views(path):
    from hashsearch.retrieval.transforms import views

    return views(np.asarray(Image.open(path)))


def test_a_crop_of_a_picture_is_searched_for(opened, client, gallery_folder, tmp_path):
    """A gallery's picture lies in the upper right quarter of a larger one."""
    collage = np.full((64, 128, 3), 200, np.uint8)
    collage[:32, 96:] = opened._opened.pixels(42)
    path = tmp_path / "collage.png"
    Image.fromarray(collage).save(path)
    every = (opened, client, gallery_folder, path, 1, "pixels")
    assert everywhere(*every, crop="0.75,0,1,0.5") == [(0, 42)]
    assert opened.search(path, 1, method="pixels", crop=(0.75, 0, 1, 0.5))[0].id == 42
    assert everywhere(*every)[0][0] > 0


def test_what_cannot_be_asked_is_refused_with_a_sentence(opened, client):
    code = opened._opened.code(7).tobytes().hex()
    for message, query, options in (
        ("without a radius", 7, {"like": [9], "radius": 4}),
        ("without transforms", 7, {"like": [9], "transforms": True}),
        ("transforms need a picture", code, {"transforms": True}),
        ("a crop needs an image file", 7, {"crop": "0,0,1,0.5"}),
        ("four fractions", 7, {"crop": "0,0,1"}),
        ("a query, or an example, was wanted", None, {}),
        ("like is a list of examples; got 9", 7, {"like": 9}),
        ("like is a list of examples; got '9'", 7, {"like": "9"}),
        ("exclude is a list of whole numbers", 7, {"exclude": 5}),
        ("ids is a list of whole numbers", 7, {"ids": "12"}),
        ("came as a label; text was wanted", 7, {"label": 5}),
        ("no option 'labels'", 7, {"labels": "cat"}),
        ("5 came as an index; text was wanted", 7, {"index": 5}),
        ("list came as a method; text was wanted", 7, {"method": ["codes"]}),
        ("an empty path came", 7, {"uri_prefix": ""}),
    ):
        with pytest.raises(InvalidQuery, match=message):
            opened.search(query, **options)
    for status, parameters, body in (
        (422, {"radius": 4}, {"id": 7, "like": [9]}),
        (422, {"transforms": "true"}, {"code": code}),
        (422, {"crop": "0,0,1,0.5"}, {"id": 7}),
        (422, {"crop": "0,0,x,0.5"}, {"id": 7}),
        (422, {}, {}),
        (422, {}, {"id": 7, "code": code}),
        (422, {}, {"id": 7, "like": ["xyz"]}),
        (422, {}, {"id": 7, "exclude": [-1]}),
        (422, {}, {"id": 7, "like": list(range(101))}),
        (422, {"label": "x" * 5000}, {"id": 7}),
        (404, {}, {"like": [12345]}),
    ):
        answer = client.post("/v1/search", params=parameters, json=body)
        assert answer.status_code == status, answer.text
        assert answer.json()["detail"]


def test_built_indexes_answer_and_are_described(gallery, tmp_path):
    """Of a model with addresses; the index by which images are found is named in the answer."""
    with hs.open(gallery.folder) as opened:
        kinds = [kind for kind in ("ivf", "multihash", "buckets") if kind in buildable(gallery)]
        assert "ivf" in kinds
        records = {kind: opened.build_index(kind) for kind in kinds}
        assert opened.built_indexes() == records
        with serving(gallery.folder) as client:
            for kind in kinds:
                found = everywhere(opened, client, gallery.folder, 7, 12, "codes", index=kind)
                assert opened.rank(7, 12, index=kind).index == kind
                if kind == "multihash":
                    assert found == slow(opened, "codes", [7])[:12]
                answer = client.post(f"/v1/search?index={kind}", json={"id": 7}).json()
                assert answer["index"] == kind
            described = client.get("/v1/gallery").json()["indexes"]
            assert {one["kind"]: one["recall"] for one in described} == {
                kind: built.recall for kind, built in records.items()
            }
            assert all(one["loaded"] for one in described)
            # What is chosen is searched exactly, and the answer says so.
            chosen = {"ids": [9, 30, 31], "index": "ivf"}
            found = everywhere(opened, client, gallery.folder, 7, 3, "codes", **chosen)
            assert [image for _, image in found] == [
                image for _, image in slow(opened, "codes", [7]) if image in (9, 30, 31)
            ]
            assert opened.rank(7, 3, **chosen).index == "exact"
            opened.build_index("exact")  # which needs no loading
            assert client.post("/v1/search?index=exact", json={"id": 7}).status_code == 200
            assert all(one["loaded"] for one in client.get("/v1/gallery").json()["indexes"])
            refused = client.post("/v1/search?index=tree", json={"id": 7})
            assert refused.status_code == 422
            assert "index must be one of exact, ivf" in refused.json()["detail"]


def test_comparisons_take_the_same_choices(client, opened):
    label = opened.get(5).label
    answer = client.post(
        "/v1/compare", params={"k": 9, "label": label}, json={"id": 7, "exclude": [8, 9]}
    )
    for method in answer.json()["methods"]:
        assert {hit["label"] for hit in method["hits"]} == {label}
        assert not {7, 8, 9} & {hit["id"] for hit in method["hits"]}
    assert client.post("/v1/compare", json={"like": [7, 9]}).json()["code"] is None


def test_a_large_photograph_goes_with_choices_in_json(client, photograph):
    large = photograph + bytes(600_000)  # a JPEG file ends before them
    body = {"image_base64": base64.b64encode(large).decode(), "exclude": [7], "like": [9]}
    assert client.post("/v1/search", json=body).status_code == 200
    body["ids"] = [1] * 300_000
    assert client.post("/v1/search", json=body).status_code == 400


def test_transforms_of_examples_alone_are_refused(client):
    answer = client.post("/v1/search?transforms=true", json={"like": [7]})
    assert answer.status_code == 422
    assert "transforms need a query" in answer.json()["detail"]


def test_a_radius_is_looked_up_once_the_index_is_loaded(gallery, monkeypatch):
    monkeypatch.setattr(multihash, "_SECONDS_TO_START", 0)  # tables even for few codes
    with hs.open(gallery.folder) as opened:
        opened.build_index("multihash")
        expected = opened.search(7, radius=40)
        for _ in range(200):
            ranking = opened.rank(7, radius=40)
            assert ranking.hits == expected
            if ranking.index == "multihash":
                break
            time.sleep(0.02)
        assert ranking.index == "multihash"
        assert opened.rank(7, 5).index == "exact"


def test_images_are_examples_over_http(client, opened, photograph):
    picture = base64.b64encode(photograph).decode()
    body = {"id": 7, "like": [{"image_base64": picture}], "unlike": [9]}
    found = client.post("/v1/search?k=20", json=body).json()["hits"]
    expected = opened.search(7, 20, like=[photograph], unlike=[9])
    assert [(hit["distance"], hit["id"]) for hit in found] == [
        (hit.distance, hit.id) for hit in expected
    ]
    body["like"] *= 9
    refused = client.post("/v1/search", json=body)
    assert refused.status_code == 422
    assert "at most 8 examples may be images" in refused.json()["detail"]
    body["like"] = [{"image_base64": "aGVsbG8="}]
    assert client.post("/v1/search", json=body).status_code == 415


def test_repeated_options_are_all_taken(opened, gallery_folder):
    def command(*words):
        out = io.StringIO()
        with redirect_stdout(out):
            assert run("query", 7, "--gallery", gallery_folder, "--json", *words) == 0
        return [hit["id"] for hit in json.loads(out.getvalue())["hits"]]

    assert sorted(command("--ids", 5, "--ids", 6, 9)) == [5, 6, 9]
    both = [hit.id for hit in opened.search(7, like=[9, 11])]
    assert command("--like", 9, "--like", 11) == both
