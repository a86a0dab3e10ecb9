"""The HTTP interface, through the real application on real images."""

import base64
import json
import re
import shutil
import sqlite3
from concurrent.futures import ThreadPoolExecutor
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from fastapi.testclient import TestClient
from PIL import Image
from pydantic import ValidationError

from hashsearch.errors import ArtifactMismatch, InvalidGallery, TrainingError
from hashsearch.gallery.changes import Selection
from hashsearch.gallery.gallery_folder import GalleryFolder
from hashsearch.hardware import usable_cores
from hashsearch.jobs.index.indexing import index_sources
from hashsearch.jobs.removing import remove
from hashsearch.models.card import copy_model
from hashsearch.retrieval.searcher import Searcher
from hashsearch.sources.folder import Folder
from service.app import create_app
from service.settings import Settings
from tests.conftest import CLOSENESS, open_searcher, serving
from tests.test_images import png_header

MAX_BODY = 2 * 2**20
EMPTY = "the body is empty; send an image file's bytes, a form with a file, or JSON"


@pytest.fixture(scope="module")
def client(gallery_folder):
    with serving(gallery_folder, max_body_bytes=MAX_BODY) as opened:
        yield opened


@pytest.fixture(scope="module")
def picture(image_files) -> bytes:
    return sorted(image_files.rglob("*.*"))[7].read_bytes()


def problem(response, status: int, code: str) -> str:
    """Check a problem's shape; returns its sentence."""
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "application/problem+json"
    body = response.json()
    assert set(body) == {"type", "title", "status", "detail", "code", "parameter", "request_id"}
    assert (body["status"], body["code"]) == (status, code)
    assert response.headers["x-request-id"] == body["request_id"]
    return body["detail"]


def test_an_image_finds_itself_and_its_neighbours(client, picture, gallery_folder):
    answer = client.post("/v1/search", content=picture).json()
    searcher = open_searcher(gallery_folder)
    query = searcher.query_by_image(picture)
    ranking = searcher.search(query)
    assert answer["code"] == query.code.tobytes().hex()
    assert [hit["id"] for hit in answer["hits"]] == ranking.ids.tolist()
    assert [hit["distance"] for hit in answer["hits"]] == ranking.distances.tolist()
    assert answer["hits"][0]["distance"] == 0
    assert (answer["method"], answer["unit"], answer["image_bytes"]) == ("codes", "bits", 32)
    assert answer["truncated"] is False
    assert answer["hits"][0]["uri"].startswith("pictures/")


def test_every_way_to_send_an_image_gives_the_same_answer(client, picture):
    def hits(**request):
        response = client.post("/v1/search?k=7", **request)
        assert response.status_code == 200, response.text
        return response.json()["hits"]

    expected = hits(content=picture)
    assert len(expected) == 7
    assert hits(content=picture, headers={"Content-Type": "image/jpeg"}) == expected
    # The content type that curl --data-binary sends by default.
    form = {"Content-Type": "application/x-www-form-urlencoded"}
    assert hits(content=picture, headers=form) == expected
    assert hits(files={"image": ("any name.jpg", picture)}) == expected
    assert hits(json={"image_base64": base64.b64encode(picture).decode()}) == expected


def test_a_query_by_id_leaves_itself_out_and_one_by_code_does_not(client):
    by_id = client.post("/v1/search", json={"id": 12}).json()
    assert 12 not in [hit["id"] for hit in by_id["hits"]]
    by_code = client.post("/v1/search", json={"code": by_id["code"]}).json()
    assert 12 in [hit["id"] for hit in by_code["hits"] if hit["distance"] == 0]


def test_pixels_rank_by_squared_euclidean_distance(client, picture, tiny_images):
    answer = client.post("/v1/search?method=pixels&k=5", content=picture).json()
    tiny = np.asarray(Image.open(BytesIO(picture)).convert("RGB")).astype(int)
    distances = np.sort(((tiny_images.astype(int) - tiny) ** 2).sum(axis=(1, 2, 3)))
    assert [hit["distance"] for hit in answer["hits"]] == distances[:5].tolist()
    assert answer["unit"] == "squared grey levels"


def test_k_and_radius_limit_the_answer_together(client):
    everything = client.post("/v1/search?k=299", json={"id": 5}).json()["hits"]
    radius = everything[30]["distance"]
    within = [hit for hit in everything if hit["distance"] <= radius]
    found = client.post(f"/v1/search?radius={radius}", json={"id": 5}).json()
    assert found["hits"] == within
    both = client.post(f"/v1/search?radius={radius}&k=4", json={"id": 5}).json()
    assert both["hits"] == within[:4]


def test_compare_gives_each_methods_hits_and_their_overlap(client, picture):
    answer = client.post("/v1/compare?k=9", content=picture).json()
    assert [method["method"] for method in answer["methods"]] == ["codes", "pixels"]
    assert [method["image_bytes"] for method in answer["methods"]] == [32, 3072]
    found = []
    for method in answer["methods"]:
        alone = client.post(f"/v1/search?k=9&method={method['method']}", content=picture).json()
        assert method["hits"] == alone["hits"]
        assert method["latency_ms"] > 0
        found.append({hit["id"] for hit in method["hits"]})
    (overlap,) = answer["overlap_at_k"]
    assert overlap == {"methods": ["codes", "pixels"], "share": len(found[0] & found[1]) / 9}


def test_a_comparison_is_of_the_methods_that_are_named(client, picture):
    path = "/v1/compare?k=9&method=normalized&method=codes&method=pixels"
    answer = client.post(path, content=picture).json()
    assert [method["method"] for method in answer["methods"]] == ["normalized", "codes", "pixels"]
    for method in answer["methods"]:
        alone = client.post(f"/v1/search?k=9&method={method['method']}", content=picture).json()
        assert method["hits"] == alone["hits"]
    assert [one["methods"] for one in answer["overlap_at_k"]] == [
        ["normalized", "codes"], ["normalized", "pixels"], ["codes", "pixels"],
    ]  # fmt: skip
    assert answer["asked"]["methods"] == ["normalized", "codes", "pixels"]
    default = client.post("/v1/compare", json={"id": 5}).json()["asked"]
    assert (default["methods"], default["k"]) == (["codes", "pixels"], 10)
    (alone,) = client.post("/v1/compare?method=codes", json={"code": "00" * 32}).json()["methods"]
    assert alone["method"] == "codes"


def test_a_comparison_of_a_method_twice_or_of_an_unknown_one_is_refused(client):
    for methods, sentence in (
        ("method=codes&method=codes", "method must name each method only once"),
        ("method=codes&method=magic", "method must be one of codes, pixels, normalized"),
    ):
        response = client.post(f"/v1/compare?{methods}", json={"id": 5})
        assert problem(response, 422, "invalid-parameter") == sentence
        assert response.json()["parameter"] == "method"


def test_the_thumbnail_of_a_tiny_picture_is_the_picture_itself(client, tiny_images):
    hit = client.post("/v1/search?k=1&method=pixels", json={"id": 30}).json()["hits"][0]
    response = client.get(hit["thumbnail"])
    assert response.headers["content-type"] == "image/png"
    pixels = np.asarray(Image.open(BytesIO(response.content)))
    assert (pixels == tiny_images[hit["id"] - 1]).all()


def test_a_thumbnail_is_sent_again_only_if_it_changed(client):
    first = client.get("/v1/images/30/thumbnail")
    tag = {"If-None-Match": first.headers["etag"]}
    again = client.get("/v1/images/30/thumbnail", headers=tag)
    assert (again.status_code, again.content) == (304, b"")
    etag = first.headers["etag"]
    for sent in ("*", f'"a, b", {etag}', f"W/{etag}"):
        again = client.get("/v1/images/30/thumbnail", headers={"If-None-Match": sent})
        assert (again.status_code, again.headers["etag"]) == (304, etag), sent
    for sent in ("", '"*"', etag.strip('"'), f'"{etag}x"', f'{etag[:-1]}x"'):
        again = client.get("/v1/images/30/thumbnail", headers={"If-None-Match": sent})
        assert again.status_code == 200, sent
    other = client.get("/v1/images/31/thumbnail", headers=tag)
    assert other.status_code == 200
    assert first.headers["cache-control"] == "private, no-cache"


def test_head_is_answered_where_get_is(client):
    operations = client.get("/openapi.json").json()["paths"].items()
    paths = [path for path, methods in operations if "get" in methods]
    assert {"/v1/duplicates", "/v1/gallery/folders", "/metrics"} <= set(paths)
    for path in ("/", "/docs", *paths):
        response = client.head(path.format(image_id=1, hex="0f" * 32))
        assert response.status_code not in (404, 405, 500), path
        assert response.content == b""
        assert "GET, HEAD" in client.put(path).headers["allow"]


def test_a_changed_gallery_is_served_without_a_restart(
    gallery_folder, tmp_path, picture, photograph
):
    shutil.copytree(gallery_folder, tmp_path / "g")
    (tmp_path / "more").mkdir()
    (tmp_path / "more" / "rocket.jpg").write_bytes(photograph)
    with serving(tmp_path / "g") as client:
        gallery = GalleryFolder(tmp_path / "g")
        index_sources(gallery, [Folder(tmp_path / "more")], workers=1)
        remove(gallery.catalog, Selection(ids=list(range(1, 11))))
        gallery.close()
        assert client.get("/readyz").json()["images"] == 291
        hit = client.post("/v1/search?k=1", content=photograph).json()["hits"][0]
        assert (hit["uri"], hit["distance"]) == ("more/rocket.jpg", 0)
        assert client.get(hit["thumbnail"]).headers["content-type"] == "image/jpeg"
        everything = client.post("/v1/search?k=1000", content=picture).json()["hits"]
        assert len(everything) == 291


def test_a_gallery_that_is_damaged_meanwhile_is_served_in_its_former_state(
    gallery_folder, tmp_path, picture, caplog
):
    shutil.copytree(gallery_folder, tmp_path / "g")
    with serving(tmp_path / "g") as client:
        before = client.post("/v1/search", content=picture).json()["hits"]
        with sqlite3.connect(tmp_path / "g" / "catalog.sqlite") as db:
            db.execute("UPDATE settings SET value = value + 1 WHERE name = 'generation'")
            db.execute(  # an image in a row that its shard does not have
                "INSERT INTO images (key, uri, width, height, size, mtime, shard, row, generation) "
                "SELECT x'00', 'a/b.jpg', 1, 1, 1, 1, shard, row + 1000, value "
                "FROM images, settings WHERE id = 300 AND name = 'generation'"
            )
        db.close()
        for _ in range(3):
            assert client.post("/v1/search", content=picture).json()["hits"] == before
    assert caplog.text.count("its former state is served") == 1


def test_hits_by_code_and_the_gallery_say_what_distances_mean(client, measured_gallery_folder):
    with serving(measured_gallery_folder) as measured:
        by_code, by_pixels = measured.post("/v1/compare?k=300", json={"id": 5}).json()["methods"]
        words = [CLOSENESS.word(hit["distance"]) for hit in by_code["hits"]]
        assert [hit["closeness"] for hit in by_code["hits"]] == words
        assert len(set(words)) >= 3
        assert {hit["closeness"] for hit in by_pixels["hits"]} == {None}
        thresholds = measured.get("/v1/gallery").json()["closeness"]
        assert thresholds == {"same": 35, "near": 50, "alike": 60}
        hit = measured.get("/openapi.json").json()["components"]["schemas"]["HitAnswer"]
        word, null = hit["properties"]["closeness"]["anyOf"]
        assert word["enum"] == ["same", "near", "alike", "far"]
        assert null == {"type": "null"}
    assert client.get("/v1/gallery").json()["closeness"] is None
    hits = client.post("/v1/search", json={"id": 5}).json()["hits"]
    assert {hit["closeness"] for hit in hits} == {None}


def test_the_gallery_and_its_job_are_described(client, gallery_folder):
    answer = client.get("/v1/gallery").json()
    assert (answer["images"], answer["methods"]) == (300, ["codes", "pixels", "normalized"])
    assert (
        answer["fingerprint"]
        == json.loads((gallery_folder / "model" / "card.json").read_text())["fingerprint"]
    )
    assert (answer["job"]["kind"], answer["job"]["state"]) == ("index", "done")
    assert answer["job"]["counts"]["indexed"] == 300
    assert not {"pid", "host", "sources"} & answer["job"].keys()
    assert client.head("/v1/gallery").status_code == 200


def test_many_requests_at_once_get_the_same_answer(client, picture):
    def ask(_):
        return client.post("/v1/compare?k=5", content=picture).json()["methods"][1]["hits"]

    with ThreadPoolExecutor(16) as pool:
        answers = list(pool.map(ask, range(64)))
    assert all(answer == answers[0] for answer in answers)


def test_the_documentation_loads_nothing_from_other_servers(client):
    page = client.get("/docs").text
    addresses = re.findall(r'(?:src|href)="([^"]+)"', page)
    assert len(addresses) >= 3
    for address in addresses:
        assert client.get(address).status_code == 200
    assert "://" not in page


def test_health_and_documentation_answer(client):
    assert client.get("/livez").json() == {"status": "alive"}
    assert client.get("/readyz").json() == {"status": "ready", "images": 300}
    paths = client.get("/openapi.json").json()["paths"]
    assert {"/v1/search", "/v1/compare", "/v1/images/{image_id}/thumbnail"} <= set(paths)
    body = paths["/v1/search"]["post"]["requestBody"]["content"]
    assert set(body) == {"image/*", "multipart/form-data", "application/json"}


def test_every_parameter_is_described(client):
    paths = client.get("/openapi.json").json()["paths"]
    parameters = [
        (path, one["name"], one.get("description"))
        for path, operations in paths.items()
        for operation in operations.values()
        for one in operation.get("parameters", ())
    ]
    assert len(parameters) > 20
    assert [one for one in parameters if not one[2]] == []


def test_the_page_shows_the_gallerys_size_and_examples(client):
    page = client.get("/")
    assert page.headers["content-type"].startswith("text/html")
    assert "<p>300 pictures</p>" in page.text
    assert page.text.count("data-id=") == 25
    for path in ("/static/page/main.js", "/static/page/base.css", "/static/icon.svg"):
        assert client.get(path).status_code == 200


def test_a_page_that_cannot_be_shown_yet_says_so_to_people_as_a_page(gallery_folder, caplog):
    caplog.set_level("INFO", "service")
    app = create_app(Settings(gallery=gallery_folder, root_path="/pictures"))
    client = TestClient(app)  # not entered: nothing loads the gallery
    program = client.get("/")
    sentence = problem(program, 503, "gallery-loading")
    page = client.get("/", headers={"Accept": "text/html,application/xml;q=0.9,*/*;q=0.8"})
    assert page.headers["content-type"].startswith("text/html")
    assert page.status_code == 503
    assert page.headers["retry-after"] == program.headers["retry-after"]
    assert f"T{sentence[1:]}." in page.text
    assert 'href="/pictures/static/' in page.text
    logged = [one.fields["code"] for one in caplog.records if one.name == "service.requests"]
    assert logged == ["gallery-loading"] * 2
    app.state.engine.close()


# Bad input


def test_bytes_that_are_not_an_image_are_refused_with_415(client):
    detail = problem(client.post("/v1/search", content=b"hello"), 415, "unsupported-format")
    assert "hello" not in detail
    assert "accepted are JPEG" in detail


def test_a_truncated_upload_is_refused_with_422(client, picture):
    response = client.post("/v1/search", content=picture[:100])
    assert "damaged or cut short" in problem(response, 422, "invalid-image")


def test_an_image_of_100_megapixels_is_refused_with_413(client):
    response = client.post("/v1/search", content=png_header(10_000, 10_000))
    assert "64,000,000" in problem(response, 413, "image-too-large")


def test_an_empty_body_is_refused_with_400(client):
    for path in ("/v1/search", "/v1/encode"):
        assert problem(client.post(path), 400, "malformed-request") == EMPTY
    response = client.post("/v1/search", files={"image": ("x.jpg", b"")})
    assert problem(response, 400, "malformed-request") == "image is an empty file"
    assert response.json()["parameter"] == "image"


def test_a_body_that_is_too_large_is_refused_with_413_with_or_without_its_length(client):
    def pieces():
        for _ in range(4):
            yield b"x" * (MAX_BODY // 3)

    for content in (b"x" * (MAX_BODY + 1), pieces()):
        response = client.post("/v1/search", content=content)
        assert "the upload is larger than 2 MB" in problem(response, 413, "body-too-large")
    response = client.post("/v1/search", files={"image": ("x.jpg", b"x" * MAX_BODY)})
    problem(response, 413, "body-too-large")


def test_a_body_of_exactly_the_limit_is_read(client):
    response = client.post("/v1/search", content=b"x" * MAX_BODY)
    problem(response, 415, "unsupported-format")


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        (b"{", 400, "malformed-request"),
        (b"\xff\xfe", 400, "malformed-request"),
        (b"[" * 100_000, 400, "malformed-request"),
        (b"[]", 422, "invalid-parameter"),
        (b"{}", 422, "invalid-parameter"),
        (b'{"id": 1, "code": "ab"}', 422, "invalid-parameter"),
        (b'{"id": "x"}', 422, "invalid-parameter"),
        (b'{"id": -1}', 422, "invalid-parameter"),
        (b'{"id": 99999999999999999999}', 422, "invalid-parameter"),
        (b'{"not a name": 1}', 422, "invalid-parameter"),
        (b'{"id": 123456}', 404, "not-in-gallery"),
        (b'{"image_base64": "&&&"}', 400, "malformed-request"),
        ('{"image_base64": "é"}'.encode(), 400, "malformed-request"),
        (b'{"id": true}', 422, "invalid-parameter"),
        (b'{"id": 5.0}', 422, "invalid-parameter"),
        (b'{"id": "5"}', 422, "invalid-parameter"),
        (b'{"a": 1' + b', "b": 2' * 100_000 + b"}", 400, "malformed-request"),
        (b"[" + b"[]," * 100_000 + b"[]]", 400, "malformed-request"),
        (b'{"image_base64": "aGVsbG8="}', 415, "unsupported-format"),
    ],
)
def test_json_that_is_not_a_query_is_refused(client, body, status, code):
    response = client.post("/v1/search", content=body, headers={"Content-Type": "application/json"})
    assert "not a name" not in problem(response, status, code)


@pytest.mark.parametrize("code", ["ab" * 31, "ab" * 33, "zz" * 32, ""])
def test_an_invalid_code_is_refused_with_422(client, code):
    response = client.post("/v1/search", json={"code": code})
    assert "a code is 32 bytes" in problem(response, 422, "invalid-code")


def test_a_code_has_no_pixels_to_compare(client):
    code = "00" * 32
    for path in ("/v1/search?method=pixels", "/v1/compare?method=codes&method=pixels"):
        response = client.post(path, json={"code": code})
        assert "a query by code has no pixels" in problem(response, 422, "invalid-query")
        assert response.json()["parameter"] == "method"


@pytest.mark.parametrize(
    "body",
    [
        {"code": "00" * 32},
        {"like": ["00" * 32]},
        {"id": 5, "like": ["00" * 32]},
        {"id": 5, "unlike": [7, "00" * 32]},
    ],
)
def test_codes_are_compared_by_the_methods_that_need_no_pixels(client, body):
    answer = client.post("/v1/compare?k=9", json=body).json()
    (by_code,) = answer["methods"]
    assert (by_code["method"], answer["asked"]["methods"]) == ("codes", ["codes"])
    assert by_code["hits"] == client.post("/v1/search?k=9", json=body).json()["hits"]
    assert answer["overlap_at_k"] == []


@pytest.mark.parametrize(
    "query",
    [
        "k=0",
        "k=-1",
        "k=1000000",
        "k=many",
        "radius=-1",
        "radius=9999999999",
        "method=magic",
        "top=3",
    ],
)
@pytest.mark.parametrize("path", ["/v1/search", "/v1/compare"])
def test_a_parameter_that_cannot_be_used_is_refused_with_422(client, path, query):
    response = client.post(f"{path}?{query}", json={"id": 1})
    detail = problem(response, 422, "invalid-parameter")
    assert query.split("=")[1] not in detail


def test_a_form_that_is_not_one_image_is_refused_with_400(client, picture):
    image = ("image", ("x.jpg", picture))
    text = "the form has a text field, but parameters belong in the query string"
    none = "the form has no file in a field named image"
    for form, came in (
        ({"files": {"photo": ("x.jpg", picture)}}, none),
        ({"files": [image, image]}, "the form has too many files"),
        ({"files": [image], "data": {"k": "3"}}, text),
        ({"data": {"image": "text"}, "files": {"other": b""}}, text),
        (
            {"content": b"junk", "headers": {"Content-Type": "multipart/form-data; boundary=x"}},
            "the body is not a form",
        ),
        (
            {"content": b"junk", "headers": {"Content-Type": "multipart/form-data"}},
            "the body is not a form",
        ),
    ):
        response = client.post("/v1/search", **form)
        detail = problem(response, 400, "malformed-request")
        assert detail == f"{came}; send one file, in a field named image"


def test_a_long_json_body_is_an_image(client, picture):
    text = base64.b64encode(picture * 10).decode()
    plain = json.dumps({"image_base64": text})
    for body in (plain, plain.replace("/", "\\/")):  # some programs escape a slash
        assert len(body) > 4096
        response = client.post(
            "/v1/search", content=body, headers={"Content-Type": "application/json"}
        )
        assert response.status_code == 200, response.text


def test_no_error_repeats_what_was_sent(client):
    secret = "5318008531"  # names of parameters are repeated, but for this, which is none
    for response in (
        client.post("/v1/search", json={"id": int(secret)}),
        client.post("/v1/search", json={"code": secret}),
        client.post("/v1/search", json={secret: 1}),
        client.post(f"/v1/search?{secret}=1", json={"id": 1}),
        client.post(f"/v1/search?k={secret}", json={"id": 1}),
        client.post("/v1/search", content=secret.encode()),
        client.get(f"/v1/images/{secret}/thumbnail"),
        client.get(f"/{secret}"),
    ):
        assert response.status_code >= 400
        assert secret not in response.text


def test_unknown_paths_methods_and_images_are_answered_with_problems(client):
    problem(client.get("/nowhere"), 404, "not-found")
    problem(client.get("/v1/search"), 405, "method-not-allowed")
    problem(client.get("/v1/images/9999/thumbnail"), 404, "not-in-gallery")
    problem(client.get("/v1/images/abc/thumbnail"), 422, "invalid-parameter")
    problem(client.get("/static/%2e%2e/app.py"), 404, "not-found")


@pytest.mark.parametrize(
    "error",
    [sqlite3.OperationalError("secret path"), TrainingError("secret path")],
    ids=lambda error: type(error).__name__,
)
def test_an_internal_error_shows_its_request_id_and_nothing_else(
    gallery_folder, picture, monkeypatch, caplog, error
):
    """Also for an error of the library for which the service has no answer."""
    app = create_app(Settings(gallery=gallery_folder))
    app.state.engine.load()

    def fail(*_):
        raise error

    monkeypatch.setattr(Searcher, "search_each", fail)
    response = TestClient(app, raise_server_exceptions=False).post("/v1/search", content=picture)
    assert "secret" not in problem(response, 500, "internal-error")
    assert response.json()["request_id"] in caplog.text
    app.state.engine.close()


def test_the_service_still_answers_after_bad_requests(client, picture):
    expected = client.post("/v1/search", content=picture).json()["hits"]
    deep = {"content": b"[" * 100_000, "headers": {"Content-Type": "application/json"}}
    for request, status in (
        ({"content": b"hello"}, 415),
        ({"content": picture[:100]}, 422),
        ({"content": png_header(10_000, 10_000)}, 413),
        ({"content": b"x" * (MAX_BODY + 1)}, 413),
        ({"files": {"photo": ("x.jpg", picture)}}, 400),
        ({"json": {"id": 123456}}, 404),
        (deep, 400),
    ):
        for _ in range(usable_cores() + 1):  # as many images as cores are decoded at once
            assert client.post("/v1/search", **request).status_code == status
    assert client.post("/v1/search", content=picture).json()["hits"] == expected


def test_a_broken_gallery_fails_at_the_start(gallery_folder, other_model_folder, tmp_path):
    with pytest.raises(InvalidGallery):
        create_app(Settings(gallery=tmp_path))
    shutil.copytree(gallery_folder, tmp_path / "g")
    shutil.rmtree(tmp_path / "g" / "model")
    copy_model(other_model_folder, tmp_path / "g" / "model")
    with pytest.raises(ArtifactMismatch):
        create_app(Settings(gallery=tmp_path / "g"))


def test_a_gallery_without_images_answers_with_none(model_folder, tmp_path, picture):
    GalleryFolder.create(tmp_path / "g", model_folder).close()
    with serving(tmp_path / "g") as client:
        answer = client.post("/v1/compare", content=picture).json()
        assert [method["hits"] for method in answer["methods"]] == [[], []]
        assert "This gallery is empty" in client.get("/").text


def test_the_page_of_a_gallery_of_one_image_says_so(gallery, gallery_folder):
    with serving(gallery_folder) as client:
        assert "<p>300 pictures</p>" in client.get("/").text
    remove(gallery.catalog, Selection(ids=gallery.catalog.rows().ids[1:].tolist()))
    with serving(gallery.folder) as client:
        assert "<p>1 picture</p>" in client.get("/").text


def test_settings_come_from_the_environment(monkeypatch, tmp_path):
    monkeypatch.setenv("HASHSEARCH_GALLERY", str(tmp_path))
    monkeypatch.setenv("HASHSEARCH_MAX_BODY_BYTES", "1000")
    settings = Settings()
    assert (settings.gallery, settings.max_body_bytes) == (Path(tmp_path), 1000)
    assert json.loads(settings.model_dump_json())["max_body_bytes"] == 1000
    monkeypatch.setenv("HASHSEARCH_MAX_BODY_BYTES", "")
    assert Settings().max_body_bytes == 16 * 2**20
    monkeypatch.setenv("HASHSEARCH_GALLERY", "")
    with pytest.raises(ValidationError):
        Settings()
