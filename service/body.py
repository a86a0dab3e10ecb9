"""Reading the body of a query, raw bytes, a form or JSON, within a limit of size and time."""

import asyncio
import base64
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any

from fastapi import Depends, Request
from pydantic import ValidationError
from starlette.datastructures import UploadFile
from starlette.exceptions import HTTPException
from starlette.types import Message

from service.problems import BodyTooLarge, BodyTooSlow, MalformedRequest, invalid_parameter
from service.schemas import AskedQuery, ImageExample, QueryBody
from service.settings import Settings

_SHORT_JSON = 2**18  # bytes beside the image; a query with 10,000 ids takes less
_IMAGE = re.compile(rb'"image_base64"\s*:\s*"([^"]*)"')

# For OpenAPI: FastAPI does not know what a dependency reads from the stream.
QUERY_BODY_SCHEMA: Mapping[str, Any] = {
    "requestBody": {
        "required": True,
        "description": "An image's bytes, a form with the file `image`, or JSON.",
        "content": {
            "image/*": {"schema": {"type": "string", "format": "binary"}},
            "multipart/form-data": {
                "schema": {
                    "type": "object",
                    "properties": {"image": {"type": "string", "format": "binary"}},
                    "required": ["image"],
                }
            },
            "application/json": {"schema": QueryBody.model_json_schema()},
        },
    }
}


@dataclass(frozen=True, slots=True)
class Body:
    """A complete body. data: an image's bytes, or JSON."""

    data: bytes
    is_json: bool


async def read_body(request: Request) -> Body:
    """Read the body; with any content type but JSON and multipart, it is the image itself.

    Raises BodyTooLarge as soon as it exceeds the limit, BodyTooSlow if it does not
    arrive in time, MalformedRequest if it is empty or a form without an image.
    """
    settings: Settings = request.app.state.settings
    limited = _limited(request, settings.max_body_bytes)
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    try:
        async with asyncio.timeout(settings.body_timeout_s):
            form = kind == "multipart/form-data"
            data = await _form_image(limited) if form else await limited.body()
    except TimeoutError as error:
        raise BodyTooSlow(
            f"the body did not arrive within {settings.body_timeout_s:g} seconds"
        ) from error
    return Body(_required(data), is_json=kind == "application/json")


def parse_query(body: Annotated[Body, Depends(read_body)]) -> AskedQuery:
    """A query by image, id, code or examples. Not `async`, so that it runs in a thread.

    Raises MalformedRequest or InvalidParameter if the body is none.
    """
    if not body.is_json:
        return AskedQuery(body.data)
    query = _parse_json(body.data)
    image = None if query.image_base64 is None else _decode_base64(query.image_base64)
    like, unlike = (
        [
            _decode_base64(one.image_base64) if isinstance(one, ImageExample) else one
            for one in examples
        ]
        for examples in (query.like, query.unlike)
    )
    return AskedQuery(image, like, unlike, query)


def _limited(request: Request, max_bytes: int) -> Request:
    """The same request; reading more than `max_bytes` of its body raises BodyTooLarge."""
    too_large = BodyTooLarge(f"the upload is larger than {max_bytes / 2**20:g} MB")
    announced = request.headers.get("content-length", "")
    if announced.isdigit() and int(announced) > max_bytes:
        raise too_large
    received = 0

    async def receive() -> Message:
        nonlocal received
        message = await request.receive()
        received += len(message.get("body", b""))
        if received > max_bytes:
            raise too_large
        return message

    return Request(request.scope, receive)


async def _form_image(request: Request) -> bytes:
    wanted = "a form with one file, in a field named image, was wanted"
    try:
        async with request.form(max_files=1, max_fields=0) as form:
            image = form.get("image")
            if not isinstance(image, UploadFile):
                raise MalformedRequest(wanted)
            return await image.read()
    except HTTPException as error:  # Starlette's, for what it cannot parse
        raise MalformedRequest(wanted) from error


def _required(data: bytes) -> bytes:
    if not data:
        raise MalformedRequest("the body is empty; an image, an id or a code was wanted")
    return data


def _parse_json(data: bytes) -> QueryBody:
    # Long strings cost little; anything else of their length would cost memory and time before it
    # is refused.
    if len(data) - sum(map(len, _IMAGE.findall(data))) > _SHORT_JSON:
        raise MalformedRequest(
            f"a JSON body may hold {_SHORT_JSON:,} bytes beside the text of image_base64"
        )
    try:
        return QueryBody.model_validate(json.loads(data), strict=True)
    except ValidationError as error:
        raise invalid_parameter(error) from error
    except (ValueError, RecursionError) as error:
        raise MalformedRequest("the content type says JSON, but the body is not JSON") from error


def _decode_base64(text: str) -> bytes:
    try:
        return _required(base64.b64decode(text, validate=True))
    except ValueError as error:  # also for characters that are not ASCII
        raise MalformedRequest("image_base64 is not base64") from error
