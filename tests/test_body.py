"""Bodies and parameters in every form that a client may send."""

import asyncio
import base64
import gzip
import json
import time
import tracemalloc
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from pathlib import Path
from threading import Lock
from types import SimpleNamespace
from urllib.parse import quote

import pytest
from pydantic import ValidationError
from starlette.requests import Request

from service.body import Body, BodyMemory, reading
from service.parsing import AskedQuery, query_of, uploads_of
from service.problems import BodyTooLarge, MalformedRequest, QueueFull
from service.questions import uris_of
from service.schemas.images import AddBody
from service.schemas.search import QueryBody, SearchParameters
from service.settings import Settings
from service.validation import InvalidParameter
from tests.conftest import serving
from tests.galleries import index
from tests.test_service import problem

JSON = {"Content-Type": "application/json"}
CROP = (
    "crop must be left,top,right,bottom with 0 ≤ left < right ≤ 1 and 0 ≤ top < bottom ≤ 1, "
    "such as 0.25,0,0.75,0.5"
)


@pytest.fixture(scope="module")
def client(gallery_folder):
    with serving(gallery_folder) as opened:
        yield opened


@pytest.fixture(scope="module")
def picture(image_files) -> bytes:
    return sorted(image_files.rglob("*.*"))[7].read_bytes()


def hits(response) -> list:
    assert response.status_code == 200, response.text
    return response.json()["hits"]


def wrapped(text: str) -> str:
    return "\r\n".join(text[at : at + 76] for at in range(0, len(text), 76))


def test_base64_of_every_kind_is_read(client, picture):
    plain = base64.b64encode(picture).decode()
    safe = base64.urlsafe_b64encode(picture).decode()
    assert any(sign in safe for sign in "-_")
    expected = hits(client.post("/v1/search", content=picture))
    for text in (
        plain,
        wrapped(plain),
        plain + "\n",
        safe,
        safe.rstrip("="),
        plain.rstrip("="),
        f"data:image/jpeg;base64,{plain}",
        f"data:;base64,{safe}",
        f"DATA:image/jpeg;charset=x;BASE64,{wrapped(plain)}",
    ):
        assert hits(client.post("/v1/search", json={"image_base64": text})) == expected
        like = {"id": 3, "like": [{"image_base64": text}]}
        assert client.post("/v1/search", json=like).status_code == 200


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("a", "image_base64 is not base64"),
        ("ab*d", "image_base64 is not base64"),
        ("data:image/png,%89PNG", "the data URI in image_base64 is not in base64"),
        ("data:image/png;base64", "the data URI in image_base64 is not in base64"),
        ("https://example.com/cat.jpg", "image_base64 is not base64"),
        ("data:;base64,", "image_base64 is empty"),
        ("", "image_base64 is empty"),
    ],
)
def test_what_is_not_base64_is_refused(client, text, sentence):
    response = client.post("/v1/search", json={"image_base64": text})
    assert problem(response, 400, "malformed-request") == sentence
    assert response.json()["parameter"] == "image_base64"


def test_null_is_as_good_as_left_out(client):
    names = ("image_base64", "code", "like", "unlike", "ids", "exclude")
    expected = hits(client.post("/v1/search", json={"id": 5}))
    assert hits(client.post("/v1/search", json={"id": 5, **dict.fromkeys(names)})) == expected


def test_json_may_be_long_but_not_of_very_many_values(client):
    expected = hits(client.post("/v1/search", json={"id": 5}))
    spaced = b" " * 2_000_000 + b'{"id":' + b"\n" * 2_000_000 + b"5}"
    assert hits(client.post("/v1/search", content=spaced, headers=JSON)) == expected
    pretty = json.dumps({"id": 5, "exclude": list(range(1000, 11_000))}, indent=40)
    assert hits(client.post("/v1/search", content=pretty, headers=JSON)) == expected
    many = b'{"like":[' + b"[]," * 100_000 + b"[]]}"
    detail = problem(
        client.post("/v1/search", content=many, headers=JSON), 400, "malformed-request"
    )
    assert detail == "the JSON body holds more than 50,000 values"


@pytest.mark.parametrize(
    ("body", "sentence"),
    [
        ('{"id": tru}', "expected ident at line 1 column 11"),
        ('{"id": 5,}', "trailing comma at line 1 column 10"),
        ('{"id":\n 5', "EOF while parsing an object at line 2 column 2"),
        ("{id: 5}", "key must be a string at line 1 column 2"),
        ('{"code": "\\u12"}', "invalid escape at line 1 column 15"),
    ],
)
def test_where_a_body_is_not_json_is_said(client, body, sentence):
    response = client.post("/v1/search", content=body, headers=JSON)
    detail = problem(response, 400, "malformed-request")
    assert detail == f"the content type says JSON, but the body is not JSON: {sentence}"


@pytest.mark.parametrize(
    ("body", "sentence"),
    [
        (
            '{"id":' + "1" * 5000 + "}",
            "a number in the JSON body has too many digits, at line 1 column 4308",
        ),
        ('{"like":' + "[" * 300 + "]" * 300 + "}", "the JSON body is nested too deeply, at line 1"),
        *(
            (
                '{"code":\n"' + escape + '"}',
                "a text in the JSON body has half of a surrogate pair, which is no character, "
                "at line 2",
            )
            for escape in ("\\ud800", "\\udc00", "\\ud800\\ud800", "\\ud800\\n")
        ),
    ],
)
def test_json_that_is_not_read_is_not_called_something_else(client, body, sentence):
    assert json.loads(body.replace("1" * 5000, "1"))  # Python's parser reads it
    response = client.post("/v1/search", content=body, headers=JSON)
    assert problem(response, 400, "malformed-request").startswith(sentence)


NAMES = ",".join(f'"a{number}":1' for number in range(1001))


@pytest.mark.parametrize(
    ("body", "sentence"),
    [
        ("{" + NAMES + "}", "more than 1,000 fields"),
        ("{" + NAMES.replace('":', '\\\\" \n:') + "}", "more than 1,000 fields"),
        ('{"like":[{' + NAMES + "}]}", "more than 1,000 fields"),
        ('{"images":[{' + NAMES.replace("a", '\\"') + "}]}", "more than 1,000 fields"),
        ('{"id":' + "1" * 1_100_000 + "}", "more than 1 MB of numbers and signs"),
        ('{"like":[' + ",".join(["9" * 4000] * 300) + "]}", "more than 1 MB of numbers and signs"),
        ('{"id":"' + '"' * 1_000_000 + "}", "more than 50,000 values"),
    ],
)
def test_json_that_would_take_long_to_refuse_is_not_parsed(monkeypatch, body, sentence):
    def parse(*args, **options):
        raise AssertionError("it was parsed")

    for read, model in ((query_of, QueryBody), (lambda one: uploads_of([one], None), AddBody)):
        monkeypatch.setattr(model, "model_validate_json", parse)
        with pytest.raises(MalformedRequest, match=f"^the JSON body holds {sentence}$"):
            read(Body(body.encode(), "application/json"))


def test_signs_within_a_text_are_no_values(client, picture):
    image = base64.b64encode(picture).decode()
    label = '{":[1,\\",":' * 340
    body = {"images": [{"image_base64": image, "label": label}] * 32}
    assert json.dumps(body).count('":') > 20_000
    uploads = uploads_of([Body(json.dumps(body).encode(), "application/json")], None)
    assert [(one.data, one.label) for one in uploads] == [(picture, label)] * 32


@pytest.mark.parametrize(
    "body",
    [
        {"id": 1, "ids": ["a"] * 10_000, "exclude": ["b"] * 10_000},
        {"like": [{"a": 1, "b": 2}] * 100, "unlike": [{"a": 1, "b": 2}] * 100},
        dict.fromkeys((f"a{number}" for number in range(1000)), 1),
    ],
)
def test_few_faults_are_described_however_many_there_are(monkeypatch, body):
    described = []

    class Counting:
        def __getattr__(self, name):
            return getattr(QueryBody, name)

        @staticmethod
        def model_validate_json(data, **options):
            try:
                return QueryBody.model_validate_json(data, **options)
            except ValidationError as error:
                described.append(error.error_count())
                raise

    monkeypatch.setattr("service.parsing.QueryBody", Counting())
    with pytest.raises(InvalidParameter):
        query_of(Body(json.dumps(body).encode(), "application/json"))
    assert len(described) == 1
    assert described[0] <= 1001


@pytest.mark.parametrize("content_type", [None, "text/plain", "application/x-www-form-urlencoded"])
def test_json_without_its_content_type_is_pointed_out(client, content_type):
    headers = {} if content_type is None else {"Content-Type": content_type}
    for body in (b'{"id": 5}', b' \n{\n "id": 5}', b"{}"):
        response = client.post("/v1/search", content=body, headers=headers)
        detail = problem(response, 400, "malformed-request")
        assert detail.startswith("the body looks like JSON, but ")
        assert detail.endswith("send it with Content-Type: application/json")


@pytest.mark.parametrize(
    ("query", "parameter", "sentence"),
    [
        ("K=5", "K", "unknown parameter 'K'; did you mean 'k'?"),
        ("lable=cat", "lable", "unknown parameter 'lable'; did you mean 'label'?"),
        ("zzz=1", "zzz", "unknown parameter 'zzz'"),
        ("%3Cscript%3E=1", None, "there is a parameter with an unknown name"),
        ("k=0", "k", "k must be at least 1"),
        ("k=5000", "k", "k must be at most 1000"),
        ("k=many", "k", "k must be a whole number"),
        ("k=", "k", "k must be a whole number"),
        ("k=1&k=2", "k", "k must be given only once"),
        ("radius=-1", "radius", "radius must be at least 0"),
        ("offset=10001", "offset", "offset must be at most 10000"),
        ("transforms=perhaps", "transforms", "transforms must be true or false"),
        ("uri_prefix=", "uri_prefix", "uri_prefix must not be empty"),
        ("method=magic", "method", "method must be one of codes, pixels, normalized"),
        ("label=", "label", "label must not be empty"),
        ("id=9", "id", "id belongs in the JSON body"),
        ("k=0&query=1", "query", "unknown parameter 'query'"),
        ("body=1", "body", "unknown parameter 'body'"),
        ("path=1", "path", "unknown parameter 'path'"),
        ("header=1", "header", "unknown parameter 'header'"),
        ("crop=a", "crop", CROP),
        ("crop=1,2,3", "crop", CROP),
        ("crop=0,0,2,1", "crop", CROP),
        ("crop=", "crop", CROP),
        ("label=%ff", None, "the query string must be percent-encoded UTF-8"),
    ],
)
def test_a_refused_parameter_is_named(client, query, parameter, sentence):
    response = client.post(f"/v1/search?{query}", json={"id": 1})
    assert problem(response, 422, "invalid-parameter") == sentence
    assert response.json()["parameter"] == parameter


@pytest.mark.parametrize(
    ("body", "parameter", "sentence"),
    [
        ({"ID": 5}, "ID", "unknown field 'ID'; did you mean 'id'?"),
        ({"id": "5"}, "id", "id must be a whole number"),
        ({"id": -5}, "id", "id must be at least 0"),
        ({"id": 5, "ids": [1, "a"]}, "ids.1", "ids.1 must be a whole number"),
        ({"id": 5, "ids": 7}, "ids", "ids must be a list"),
        (
            {"like": [4, {"id": 3}]},
            "like.1",
            'like.1 must be an id, a code, or an object like {"image_base64": "..."}',
        ),
        (
            {"unlike": [{"image": "AAAA"}]},
            "unlike.0",
            'unlike.0 must be an id, a code, or an object like {"image_base64": "..."}',
        ),
        ({"id": 5, "k": 3}, "k", "k belongs in the query string"),
        ({"image": "AAAA"}, "image", "unknown field 'image'; did you mean 'image_base64'?"),
        ({"id": "x", "path": 1}, "path", "unknown field 'path'"),
        ({"id": 5, "<script>": 1}, None, "there is a field with an unknown name"),
        ([], None, "the body must be a JSON object"),
        ({"id": 5, "code": "aa"}, None, "id and code came; send only one"),
        ({}, None, "send one of image_base64, id and code, or examples in like or unlike"),
    ],
)
def test_a_refused_field_is_named(client, body, parameter, sentence):
    response = client.post("/v1/search", json=body)
    assert problem(response, 422, "invalid-parameter") == sentence
    assert response.json()["parameter"] == parameter


@pytest.mark.parametrize(
    ("query", "body", "code", "parameter"),
    [
        ("crop=0,0,1,0.5", {"id": 9}, "invalid-query", "crop"),
        ("crop=0.5,0,0.50001,1", "picture", "invalid-query", "crop"),
        ("index=ivf", {"id": 9}, "invalid-query", "index"),
        ("index=ivf&method=pixels", {"id": 9}, "invalid-query", "index"),
        ("index=ivf", {"like": [9]}, "invalid-query", "index"),
        ("radius=9", {"like": [9]}, "invalid-query", "radius"),
        ("method=pixels", {"code": "00" * 32}, "invalid-query", "method"),
        ("histogram=true&method=pixels", {"id": 9}, "invalid-query", "histogram"),
        ("histogram=true", {"like": [9]}, "invalid-query", "histogram"),
        ("transforms=true", {"like": [9]}, "invalid-query", "transforms"),
        ("transforms=true", {"id": 9, "like": [9]}, "invalid-query", "transforms"),
        ("transforms=true", {"code": "00" * 32}, "invalid-query", "transforms"),
        ("", {"code": "aa"}, "invalid-code", "code"),
        ("label=cat", {"code": "aa"}, "invalid-code", "code"),
        ("", {"id": 999}, "not-in-gallery", "id"),
        ("label=cat", {"id": 999}, "not-in-gallery", "id"),
        ("", {"like": ["pictures/x.jpg"]}, "invalid-code", "like.0"),
        ("", {"like": [9, 999]}, "not-in-gallery", "like.1"),
        ("", {"id": 9, "unlike": [9, "x"]}, "invalid-code", "unlike.1"),
        ("", {"image_base64": "???"}, "malformed-request", "image_base64"),
        ("", {"image_base64": "AAAA"}, "unsupported-format", "image_base64"),
        ("transforms=true", {"image_base64": "AAAA"}, "unsupported-format", "image_base64"),
        ("", {"unlike": [9, {"image_base64": "?"}]}, "malformed-request", "unlike.1.image_base64"),
        ("", {"like": [{"image_base64": "AAAA"}]}, "unsupported-format", "like.0.image_base64"),
    ],
)
def test_an_error_names_the_parameter_or_field_at_fault(
    client, picture, query, body, code, parameter
):
    form = {"content": picture} if body == "picture" else {"json": body}
    problem_of = client.post(f"/v1/search?{query}", **form).json()
    assert (problem_of["code"], problem_of["parameter"]) == (code, parameter)


def test_the_digits_of_a_path_are_named_where_they_are_wrong(client):
    response = client.get("/v1/codes/abc/reconstruction.png")
    problem(response, 422, "invalid-code")
    assert response.json()["parameter"] == "hex"
    response = client.get("/v1/images/abc")
    assert problem(response, 422, "invalid-parameter") == "image_id must be a whole number"
    assert response.json()["parameter"] == "image_id"


def test_a_parameter_is_refused_on_every_path_that_has_none_of_its_name(gallery_folder):
    with serving(gallery_folder, api_keys="a-key-of-the-tests") as client:
        paths = client.get("/openapi.json").json()["paths"]
        key = {"Authorization": "Bearer a-key-of-the-tests"}
        tried = 0
        for path, operations in paths.items():
            if not path.startswith("/v1/"):
                continue
            address = path.format(image_id=1, hex="00" * 32)
            methods = [one.upper() for one in operations]
            methods += ["HEAD"] if "GET" in methods else []
            for method in methods:
                response = client.request(method, f"{address}?x=3", headers=key, content=b"x")
                if response.status_code == 405:  # HEAD, where there is none
                    continue
                assert response.status_code == 422, (method, path)
                if method != "HEAD":
                    detail = problem(response, 422, "invalid-parameter")
                    assert detail == "unknown parameter 'x'", (method, path)
                tried += 1
        assert tried >= 14
        assert client.get("/v1/images/1").status_code == 200


def test_the_names_that_a_query_string_lacks_are_those_of_the_body():
    assert set(SearchParameters.elsewhere) == set(QueryBody.model_fields)


def test_a_compressed_body_is_refused_for_that_reason(client, picture):
    for coding in ("gzip", "br"):
        headers = {"Content-Encoding": coding}
        response = client.post("/v1/search", content=gzip.compress(picture), headers=headers)
        detail = problem(response, 415, "unsupported-format")
        assert detail == "the body is compressed; send it uncompressed"
    plain = client.post("/v1/search", content=picture, headers={"Content-Encoding": "identity"})
    assert plain.status_code == 200


def test_a_plus_sign_that_a_query_string_decoded_is_one_again():
    assert set(uris_of(" /ab")) == {"+/ab", "%20/ab"}
    assert set(uris_of("+/ab")) == {"+/ab"}


def test_a_prefix_of_uris_may_be_encoded_or_not(gallery, image_files, tmp_path):
    folder = tmp_path / "grüße 100%"
    folder.mkdir()
    (folder / "a b.jpg").write_bytes(min(image_files.rglob("*.*")).read_bytes() + b"!")
    index(gallery, folder)
    with serving(gallery.folder) as client:
        (last,) = hits(client.post("/v1/search", json={"id": 1, "ids": [301]}))
        assert "%20" in last["uri"]
        for prefix in (quote(last["uri"]), last["uri"], quote("grüße 100%"), "grüße 100%25"):
            found = hits(client.post(f"/v1/search?uri_prefix={prefix}", json={"id": 1}))
            assert [hit["id"] for hit in found] == [301], prefix


@pytest.mark.parametrize(
    ("most", "text"), [(100_000, "100 kB"), (2**19, "512 kB"), (16 * 2**20, "16 MB")]
)
def test_the_limit_of_a_body_is_written_as_people_write_it(most, text):
    settings = Settings(gallery=Path("g"), max_body_bytes=most)
    state = SimpleNamespace(settings=settings, body_memory=BodyMemory(settings))
    headers = [(b"content-length", str(most + 1).encode())]
    scope = {"type": "http", "headers": headers, "app": SimpleNamespace(state=state)}

    async def read():
        async with reading(Request(scope)):
            pass

    with pytest.raises(BodyTooLarge, match=f"the upload is larger than {text}$"):
        asyncio.run(read())


def test_bodies_beyond_the_memory_for_them_are_refused_until_some_is_free():
    settings = Settings(gallery=Path("g"), max_body_bytes=100_000)
    memory = BodyMemory(settings)

    def body(size: int) -> AbstractAsyncContextManager[list[Body]]:
        async def receive():
            return {"type": "http.request", "body": b"x" * size, "more_body": False}

        scope = {
            "type": "http",
            "headers": [],
            "app": SimpleNamespace(state=SimpleNamespace(settings=settings, body_memory=memory)),
        }
        return reading(Request(scope, receive))

    async def read_all():
        async with AsyncExitStack() as held:
            for _ in range(45):  # of each, all but 64 kB counts
                await held.enter_async_context(body(100_000))
            async with body(100_000):
                with pytest.raises(QueueFull):
                    await held.enter_async_context(body(100_000))
                async with body(65_536):  # small bodies are never kept out
                    pass
            async with body(100_000) as (one,):
                assert len(one.data) == 100_000
        async with body(100_000):
            pass

    asyncio.run(read_all())
    assert memory.held == 0


@pytest.mark.parametrize(
    "wrap",
    [
        lambda text: b'{"image_base64":"' + text + b'"}',
        lambda text: b'{"like":[{"image_base64":"' + text + b'"}]}',
        lambda text: b'{"images":[{"image_base64":"' + text + b'"}]}',
    ],
)
def test_of_an_image_in_json_only_the_decoded_bytes_stay_in_memory(wrap):
    json_of = wrap(b"ab/d" * 2**20)
    size = len(json_of)
    settings = Settings(gallery=Path("g"))
    state = SimpleNamespace(settings=settings, body_memory=BodyMemory(settings))
    headers = [(b"content-type", b"application/json")]
    scope = {"type": "http", "headers": headers, "app": SimpleNamespace(state=state)}
    parts = (json_of[at : at + 65_536] for at in range(0, size, 65_536))

    async def receive():
        part = next(parts, b"")
        return {"type": "http.request", "body": part, "more_body": bool(part)}

    async def measure() -> tuple[int, int]:
        async with reading(Request(scope, receive)) as (body,):
            kept = uploads_of([body], None) if b"images" in json_of[:9] else query_of(body)
            measured = tracemalloc.get_traced_memory()
            del kept
            return measured

    tracemalloc.start()
    try:
        kept, most = asyncio.run(measure())
    finally:
        tracemalloc.stop()
    assert 0.7 * size < kept < size  # three quarters, decoded
    assert most < 4 * size  # the body, and three times more while it is parsed


def test_long_json_bodies_are_parsed_one_at_a_time(client, monkeypatch):
    at_work, most = 0, 0
    lock = Lock()

    def parse(body: Body) -> AskedQuery:
        nonlocal at_work, most
        with lock:
            at_work += 1
            most = max(most, at_work)
        time.sleep(0.02)
        with lock:
            at_work -= 1
        return query_of(body)

    monkeypatch.setattr("service.routes.search.query_of", parse)
    content = b" " * 100_000 + b'{"id": 5}'
    with ThreadPoolExecutor(8) as pool:
        answers = pool.map(
            lambda _: client.post("/v1/search", content=content, headers=JSON), range(8)
        )
        assert {one.status_code for one in answers} == {200}
    assert most == 1


def test_the_stages_of_a_request_are_in_its_headers(client, picture):
    def stages(**request) -> set[str]:
        response = client.post("/v1/search", **request)
        parts = dict(part.split(";dur=") for part in response.headers["server-timing"].split(", "))
        assert all(float(value) >= 0 for value in parts.values())
        return set(parts)

    assert stages(json={"id": 5}) == {"wait", "search", "catalog"}
    assert stages(content=picture) == {"wait", "decode", "encode", "search", "catalog"}
    assert stages(content=b"no picture") == {"wait", "decode"}


def test_answers_echo_what_was_asked(client, picture):
    query = "k=3&offset=1&label=2&crop=0,0,1,0.5&transforms=true"
    asked = client.post(f"/v1/search?{query}", content=picture).json()["asked"]
    assert asked == {
        "kind": "image",
        "id": None,
        "like": 0,
        "unlike": 0,
        "ids": None,
        "exclude": 0,
        "label": "2",
        "uri_prefix": None,
        "crop": "0,0,1,0.5",
        "transforms": True,
        "codes": False,
        "k": 3,
        "offset": 1,
        "radius": None,
        "method": "codes",
        "index": None,
        "histogram": False,
    }
    for query, k in (("", 10), ("radius=9", None), ("radius=9&k=4", 4), ("histogram=true", 10)):
        asked = client.post(f"/v1/search?{query}", json={"id": 5}).json()["asked"]
        assert (asked["k"], asked["histogram"]) == (k, "histogram" in query)
    body = {"like": [1, 2], "unlike": [3], "ids": [4, 5, 6], "exclude": [4]}
    answer = client.post("/v1/search", json=body).json()
    described = client.get("/v1/gallery").json()
    assert [answer["asked"][name] for name in ("kind", *body)] == [None, 2, 1, 3, 1]
    for name in ("generation", "fingerprint"):
        assert answer[name] == described[name]
