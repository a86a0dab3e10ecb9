"""Encoding pictures and decoding codes over HTTP, beside the library."""

import base64
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from io import BytesIO

import numpy as np
import pytest
from numpy.testing import assert_array_equal
from PIL import Image

from hashsearch.crop import Crop
from hashsearch.gallery.gallery_folder import GalleryFolder
from hashsearch.images import decode, whole_picture
from hashsearch.models.card import PRETRAINED
from hashsearch.retrieval.occlusion import changed_bits, masked, occlusion_map
from tests.conftest import open_searcher, serving
from tests.test_images import png_header
from tests.test_service import problem

ALL = "parts=tiny&parts=preview&parts=reconstruction&parts=occlusion"


@pytest.fixture(scope="module")
def client(gallery_folder):
    with serving(gallery_folder) as opened:
        yield opened


@pytest.fixture(scope="module")
def encoder(gallery_folder):
    return open_searcher(gallery_folder).encoder


def picture(text: str) -> np.ndarray:
    opened = Image.open(BytesIO(base64.b64decode(text, validate=True)))
    assert opened.format == "PNG"
    return np.asarray(opened)


def test_a_picture_is_encoded_as_the_library_encodes_it(client, encoder, photograph):
    answer = client.post("/v1/encode", content=photograph).json()
    tiny = decode(photograph).tiny
    assert answer["code"] == encoder.encode(tiny[np.newaxis])[0].tobytes().hex()
    assert (answer["width"], answer["height"]) == (640, 427)
    gallery = client.get("/v1/gallery").json()
    assert answer["fingerprint"] == gallery["fingerprint"]
    assert answer["generation"] == gallery["generation"]
    assert set(answer["parts"].values()) == {None}
    assert answer["address"] is answer["changed_bits"] is None
    searched = client.post("/v1/search", content=photograph).json()
    assert searched["code"] == answer["code"]


def test_every_part_is_the_picture_that_it_is_named_after(client, encoder, photograph):
    answer = client.post(f"/v1/encode?{ALL}", content=photograph).json()
    parts = {name: picture(text) for name, text in answer["parts"].items()}
    tiny = decode(photograph).tiny
    code, *codes = encoder.encode(np.stack([tiny, *masked(tiny)]))
    changed = changed_bits(code, np.stack(codes))
    assert_array_equal(parts["tiny"], tiny)
    assert_array_equal(parts["reconstruction"], encoder.reconstruct(code[np.newaxis])[0])
    assert answer["changed_bits"] == changed.tolist()
    assert_array_equal(parts["occlusion"], occlusion_map(changed))
    assert parts["preview"].shape == (342, 512, 3)
    whole = whole_picture(photograph).resize((512, 342), Image.Resampling.BOX)
    assert np.abs(parts["preview"].astype(int) - np.asarray(whole)).mean() < 2
    some = client.post("/v1/encode?parts=tiny", content=photograph).json()["parts"]
    assert [name for name, text in some.items() if text is not None] == ["tiny"]


def test_a_model_with_addresses_gives_the_address(other_client_with_addresses, photograph):
    client, encoder = other_client_with_addresses
    answer = client.post("/v1/encode", content=photograph).json()
    columns = encoder.columns(decode(photograph).tiny[np.newaxis])
    assert answer["address"] == columns["addresses"][0].tobytes().hex()
    assert len(answer["address"]) == 8


@pytest.fixture
def other_client_with_addresses(tmp_path):
    gallery = GalleryFolder.create(tmp_path / "bundled", PRETRAINED)
    with serving(gallery.folder) as opened:
        yield opened, gallery.encoder()
    gallery.close()


def test_a_crop_is_encoded_and_the_preview_stays_whole(client, encoder, photograph):
    path = "/v1/encode?crop=0.5,0,1,0.5&parts=tiny&parts=preview"
    answer = client.post(path, content=photograph).json()
    tiny = decode(photograph, crop=Crop(0.5, 0, 1, 0.5)).tiny
    assert_array_equal(picture(answer["parts"]["tiny"]), tiny)
    assert answer["code"] == encoder.encode(tiny[np.newaxis])[0].tobytes().hex()
    assert (answer["width"], answer["height"]) == (640, 427)
    assert picture(answer["parts"]["preview"]).shape == (342, 512, 3)


def test_every_way_to_send_an_image_gives_the_same_code(client, photograph):
    code = client.post("/v1/encode", content=photograph).json()["code"]
    text = base64.b64encode(photograph).decode()
    for request in (
        {"files": {"image": ("any.jpg", photograph)}},
        {"json": {"image_base64": text}},
        {"json": {"image_base64": f"data:image/jpeg;base64,{text}", "id": None, "like": []}},
    ):
        assert client.post("/v1/encode", **request).json()["code"] == code


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_preview_is_upright(client, photograph, orientation):
    """Of a grey and transparent picture too; all pixels are kept where the picture is small."""
    whole = Image.open(BytesIO(photograph)).resize((40, 30))
    buffer, exif = BytesIO(), Image.Exif()
    exif[0x0112] = orientation
    whole.convert("LA").save(buffer, "PNG", exif=exif)
    answer = client.post("/v1/encode?parts=preview", content=buffer.getvalue()).json()
    assert_array_equal(picture(answer["parts"]["preview"]), whole_picture(buffer.getvalue()))
    assert (answer["width"], answer["height"]) == ((40, 30) if orientation < 5 else (30, 40))


def test_a_preview_of_a_very_long_picture_has_a_pixel_of_height(client):
    buffer = BytesIO()
    Image.new("RGB", (60_000, 2), "red").save(buffer, "PNG")
    answer = client.post("/v1/encode?parts=preview", content=buffer.getvalue()).json()
    preview = picture(answer["parts"]["preview"])
    assert preview.shape == (1, 512, 3)
    assert (preview == (255, 0, 0)).all()


def test_what_is_no_image_is_not_encoded(client, photograph):
    for body in ({"id": 5}, {"code": "00" * 32}, {"like": [5]}, {"id": 0}):
        (name,) = body
        response = client.post("/v1/encode", json=body)
        detail = problem(response, 422, "invalid-parameter")
        assert detail == f"{name} is only for searches; send an image, or image_base64 alone"
        assert response.json()["parameter"] == name
    problem(client.post("/v1/encode", content=b"hello"), 415, "unsupported-format")
    problem(client.post("/v1/encode", content=photograph[:9000]), 422, "invalid-image")
    problem(client.post("/v1/encode"), 400, "malformed-request")
    response = client.post("/v1/encode?parts=preview", content=png_header(10_000, 10_000))
    problem(response, 413, "image-too-large")
    response = client.post("/v1/encode?parts=magic", content=photograph)
    detail = problem(response, 422, "invalid-parameter")
    assert detail == "parts must be one of tiny, preview, reconstruction, occlusion"
    problem(client.post("/v1/encode?crop=1,0,0,1", content=photograph), 422, "invalid-parameter")


@pytest.mark.parametrize(
    ("query", "data", "status", "code", "parameter"),
    [
        ("", b"hello", 415, "unsupported-format", "image_base64"),
        ("parts=preview", png_header(10_000, 10_000), 413, "image-too-large", "image_base64"),
        ("crop=0.5,0,0.50001,1", None, 422, "invalid-query", "crop"),
    ],
)
def test_the_field_at_fault_is_named(client, photograph, query, data, status, code, parameter):
    text = base64.b64encode(photograph if data is None else data).decode()
    for path in ("encode", "search", "compare"):
        query = query if path == "encode" else query.replace("parts=preview", "")
        response = client.post(f"/v1/{path}?{query}", json={"image_base64": text})
        problem(response, status, code)
        assert response.json()["parameter"] == parameter, path
    example = {"id": 9, "like": [{"image_base64": text}]}
    if not query:
        for path in ("search", "compare"):
            response = client.post(f"/v1/{path}", json=example)
            problem(response, status, code)
            assert response.json()["parameter"] == "like.0.image_base64", path


def test_an_occlusion_map_counts_as_its_images_in_the_queue(gallery_folder, photograph):
    """With room for 60 images, a map of 50 is refused while other pictures are at work."""
    with serving(gallery_folder, queue=60) as client:
        lane = client.app.state.lanes.pictures
        begun, go_on = threading.Event(), threading.Event()
        engine = client.app.state.engine
        original = engine.encode

        def encode(searcher, tiny, context):
            begun.set()
            go_on.wait(30)
            return original(searcher, tiny, context)

        engine.encode = encode
        with ThreadPoolExecutor() as pool:
            path = "/v1/encode?parts=occlusion"
            first = pool.submit(client.post, path, content=photograph)
            assert begun.wait(30)
            assert lane.size == 50
            refused = client.post(path, content=photograph)
            assert "the service is busy" in problem(refused, 503, "busy")
            assert refused.headers["retry-after"] == "1"
            go_on.set()
            assert first.result().status_code == 200


def test_a_code_is_decoded_to_a_picture(client, encoder):
    code = np.random.default_rng(0).integers(0, 256, (1, 32), np.uint8)
    path = f"/v1/codes/{code.tobytes().hex()}/reconstruction.png"
    response = client.get(path)
    assert response.headers["content-type"] == "image/png"
    pixels = np.asarray(Image.open(BytesIO(response.content)))
    assert_array_equal(pixels, encoder.reconstruct(code)[0])
    assert client.get(path.replace(code.tobytes().hex(), code.tobytes().hex().upper())).content == (
        response.content
    )
    assert client.head(path).status_code == 200


def test_a_decoded_code_is_sent_again_only_if_model_or_code_changed(
    client, other_model_folder, tmp_path
):
    path = f"/v1/codes/{'0f' * 32}/reconstruction.png"
    first = client.get(path)
    assert first.headers["cache-control"] == "private, no-cache"
    tag = {"If-None-Match": first.headers["etag"]}
    again = client.get(path, headers=tag)
    assert (again.status_code, again.content) == (304, b"")
    assert client.get(path.replace("0f", "0e"), headers=tag).status_code == 200
    GalleryFolder.create(tmp_path / "g", other_model_folder).close()
    with serving(tmp_path / "g") as other:
        assert other.get(path, headers=tag).status_code == 200


@pytest.mark.parametrize("code", ["ab" * 31, "ab" * 33, "zz" * 32, "%20" * 64, "a"])
def test_a_text_that_is_no_code_is_refused_with_422(client, code):
    response = client.get(f"/v1/codes/{code}/reconstruction.png")
    assert "a code is 32 bytes" in problem(response, 422, "invalid-code")


def test_searches_are_answered_while_many_codes_are_decoded(client, encoder, monkeypatch):
    """Those that wait are refused in time, and neither ids nor readiness wait for them."""
    reconstruct = type(encoder).reconstruct

    def slow(self, codes):
        time.sleep(0.5)
        return reconstruct(self, codes)

    monkeypatch.setattr(type(encoder), "reconstruct", slow)
    with ThreadPoolExecutor(90) as pool:
        codes = [number.to_bytes(32).hex() for number in range(80)]
        asked = [pool.submit(client.get, f"/v1/codes/{code}/reconstruction.png") for code in codes]
        started = time.perf_counter()
        assert client.post("/v1/search", json={"id": 5}).status_code == 200
        assert client.get("/readyz").status_code == 200
        waited = time.perf_counter() - started
        assert {one.result().status_code for one in asked} <= {200, 503}
        whole = time.perf_counter() - started
    assert waited < whole / 2
