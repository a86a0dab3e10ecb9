"""From the arguments of a call to the request that is sent."""

import base64
import json
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from os import PathLike
from typing import Any

import numpy as np

from hashsearch.codes import CODE_BYTES, code_from_hex, code_to_hex, require_code_bytes
from hashsearch.crop import WHOLE, Crop
from hashsearch.errors import InvalidQuery, NotInGallery, UnsupportedFormat
from hashsearch.inputs import (
    PathOrName,
    Picture,
    checked_path,
    described,
    image_file,
    is_code,
    shortened,
    text,
    whole,
    whole_numbers,
)
from hashsearch.search_options import Queryable, SearchOptions, require_known
from hashsearch.sources.base import valid_text

IMAGES = 1000  # in a page of the list, the most that a service gives
GROUPS = 100  # of duplicates, in a page; each may have 1,000 images
_IDS = 200  # in a query string, so that a URL stays below the 8 KB that proxies take
_MAX_RADIUS = 2**31 - 1  # the largest that a service takes; no distance is as large


@dataclass(frozen=True, slots=True)
class Request:
    """What is sent. path: below the service's address. content: the body, if there is one.

    image: the path of the image file that is sent, for messages, if it came as a path.
    """

    method: str
    path: str
    params: Sequence[tuple[str, str]] = ()
    content: bytes | None = None
    content_type: str | None = None
    image: str | None = None


def search_request(query: Queryable | None, k: int | None, options: SearchOptions) -> Request:
    """Raises InvalidImage, NotInGallery, CodeShapeError and InvalidQuery."""
    require_known(options)
    params = _search_params(k, options)
    like, unlike = options.get("like", ()), options.get("unlike", ())
    body: dict[str, Any] = {
        name: [_example(one) for one in _examples(name, examples)]
        for name, examples in (("like", like), ("unlike", unlike))
    }
    for name, ids in (("ids", options.get("ids")), ("exclude", options.get("exclude"))):
        if ids is not None:
            body[name] = [one for one in whole_numbers(name, ids) if one >= 0]  # no image has less
    body = {name: value for name, value in body.items() if value or name == "ids"}
    if query is None:
        if any(name in ("crop", "transforms") for name, _ in params):
            raise InvalidQuery("a crop or transforms need a query, and none came")
        if not ("like" in body or "unlike" in body):
            raise InvalidQuery("nothing came to search for; a query, or an example, was wanted")
    sent = None if query is None else _sent(query)
    image = _shown(query) if isinstance(sent, bytes) else None
    if isinstance(sent, bytes) and not body:
        return Request("POST", "/v1/search", params, sent, "application/octet-stream", image)
    if isinstance(sent, bytes):
        body["image_base64"] = _base64(sent)
    elif sent is not None:
        body["id" if isinstance(sent, int) else "code"] = sent
    content = json.dumps(body).encode()
    return Request("POST", "/v1/search", params, content, "application/json", image)


def encode_request(image: Picture) -> Request:
    """Raises InvalidImage and InvalidQuery."""
    return _image_request("/v1/encode", (), image)


def add_request(image: "PathOrName | bytes", label: str | None) -> Request:
    """Raises InvalidImage and InvalidQuery."""
    if not isinstance(image, str | bytes | PathLike):
        raise InvalidQuery(f"{described(image)} came; an image file's path or bytes was wanted")
    params = () if label is None else [("label", valid_text(text("a label", label)))]
    return _image_request("/v1/images", params, image)


def get_request(image_id: object) -> Request:
    """Raises NotInGallery and InvalidQuery."""
    return Request("GET", f"/v1/images/{_id(image_id)}")


def list_request(after: str | None) -> Request:
    """after: `next` of the page before."""
    params = [("limit", str(IMAGES))]
    return Request("GET", "/v1/images", params if after is None else [*params, ("after", after)])


def remove_requests(ids: Iterable[int]) -> list[Request]:
    """Raises InvalidQuery."""
    numbers = [str(one) for one in whole_numbers("ids", ids) if one >= 0]
    return [
        Request("DELETE", "/v1/images", [("id", one) for one in numbers[start : start + _IDS]])
        for start in range(0, len(numbers), _IDS)
    ]


def duplicates_request(radius: int | None, after: str | None) -> Request:
    """after: `next` of the page before. Raises InvalidQuery."""
    params = [("limit", str(GROUPS))]
    if radius is not None:
        params.append(("radius", str(min(whole("a radius", radius, 0), _MAX_RADIUS))))
    if after is not None:
        params.append(("after", after))
    return Request("GET", "/v1/duplicates", params)


def code_or_request(query: Queryable) -> str | Request:
    """The hexadecimal code of a query, or the request whose answer has it.

    Raises InvalidImage, NotInGallery, CodeShapeError and InvalidQuery.
    """
    code = _code(query)
    if code is not None:
        return code
    if isinstance(query, int | np.integer):
        return get_request(query)
    return _image_request("/v1/encode", (), query, "an id", "a code")


def reconstruction_request(code: str) -> Request:
    return Request("GET", f"/v1/codes/{code}/reconstruction.png")


INFO_REQUEST = Request("GET", "/v1/gallery")


def _search_params(k: int | None, options: SearchOptions) -> list[tuple[str, str]]:
    params = []
    if k is not None:
        params.append(("k", str(whole("k", k, 1))))
    radius = options.get("radius")
    if radius is not None:
        params.append(("radius", str(min(whole("a radius", radius, 0), _MAX_RADIUS))))
    if "method" in options:
        params.append(("method", text("a method", options["method"])))
    index = options.get("index")
    if index is not None:
        params.append(("index", text("an index", index)))
    label = options.get("label")
    if label is not None:
        params.append(("label", valid_text(text("a label", label))))
    prefix = options.get("uri_prefix")
    if prefix is not None:
        params.append(("uri_prefix", valid_text(_uri_prefix(prefix))))
    crop = options.get("crop")
    if crop is not None and (part := Crop.of(crop)) != WHOLE:
        edges = (part.left, part.top, part.right, part.bottom)
        params.append(("crop", ",".join(map(repr, edges))))
    if options.get("transforms", False):
        params.append(("transforms", "true"))
    return params


def _uri_prefix(prefix: PathOrName) -> str:
    """Raises InvalidQuery also for a path, which would be of this machine."""
    checked_path(prefix)
    if not isinstance(prefix, str) or os.path.isabs(prefix):  # noqa: PTH117
        raise InvalidQuery("uri_prefix is a uri of the service's gallery, such as 'photos'")
    return prefix


def _image_request(
    path: str, params: Sequence[tuple[str, str]], image: Picture, *others: str
) -> Request:
    content = _file(image, *others)
    return Request("POST", path, params, content, "application/octet-stream", _shown(image))


def _examples(name: str, examples: Iterable[Queryable]) -> list[Queryable]:
    if isinstance(examples, str | bytes | PathLike) or not isinstance(examples, Iterable):
        raise InvalidQuery(f"{name} is a list of examples; got {described(examples)}")
    return list(examples)


def _example(example: Queryable) -> int | str | dict[str, str]:
    sent = _sent(example)
    return {"image_base64": _base64(sent)} if isinstance(sent, bytes) else sent


def _sent(query: Queryable) -> int | str | bytes:
    """An id, a code as hexadecimal digits, or an image file's bytes."""
    code = _code(query)
    if code is not None:
        return code
    if isinstance(query, int | np.integer):
        return _id(query)
    return _file(query, "an id", "a code")


def _code(query: Queryable) -> str | None:
    if isinstance(query, np.ndarray) and query.ndim == 1:
        require_code_bytes(query[np.newaxis], CODE_BYTES)
        return code_to_hex(query)
    if isinstance(query, str) and is_code(query):
        return code_to_hex(code_from_hex(query))
    return None


def _id(image_id: object) -> int:
    number = whole("an id", image_id)
    if number < 0:  # a service refuses it as no id
        raise NotInGallery("the gallery holds no image with this id")
    return number


def _file(image: Picture, *others: str) -> bytes:
    data = image_file(image, *others)
    if not data:  # a service would take it for a request without a body
        raise UnsupportedFormat("the file is empty")
    return data


def _shown(image: object) -> str | None:
    """The path of an image file for messages; None if it is not named by one."""
    return shortened(image) if isinstance(image, str | PathLike) else None


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode("ascii")
