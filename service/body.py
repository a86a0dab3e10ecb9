"""The body of a query: raw bytes, a form or JSON, read and counted."""

import base64
import binascii
import json
from collections.abc import Mapping
from typing import Any

from fastapi import Request
from pydantic import ValidationError
from starlette.datastructures import UploadFile
from starlette.types import Message

from service.problems import BodyTooLarge, MalformedRequest, invalid_parameter
from service.schemas import QueryBody
from service.settings import Settings

# For OpenAPI: FastAPI cannot tell what a dependency reads from the stream.
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


async def read_query(request: Request) -> bytes | QueryBody:
    """An image's bytes, or a query by id or code.

    A content type other than JSON and multipart counts as the image itself.
    Raises BodyTooLarge as soon as more has come than is read, MalformedRequest
    if nothing came, or something other than the content type tells.
    """
    settings: Settings = request.app.state.settings
    limited = _limited(request, settings.max_body_bytes)
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind == "multipart/form-data":
        return _required(await _form_image(limited))
    data = _required(await limited.body())
    if kind != "application/json":
        return data
    query = _parse_json(data)
    return query if query.image_base64 is None else _decode_base64(query.image_base64)


def _limited(request: Request, max_bytes: int) -> Request:
    """The same request, whose body breaks off with BodyTooLarge after `max_bytes`."""
    too_large = BodyTooLarge(f"the body has more than the {max_bytes:,} bytes that are read")
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
    async with request.form(max_files=1, max_fields=1) as form:
        image = form.get("image")
        if not isinstance(image, UploadFile):
            raise MalformedRequest("the form has no file in a field named image")
        return await image.read()


def _required(data: bytes) -> bytes:
    if not data:
        raise MalformedRequest("the body is empty; an image, an id or a code was wanted")
    return data


def _parse_json(data: bytes) -> QueryBody:
    try:
        return QueryBody.model_validate(json.loads(data))
    except ValidationError as error:
        raise invalid_parameter(error) from error
    except (ValueError, RecursionError) as error:
        raise MalformedRequest("the body is not JSON, as its content type says") from error


def _decode_base64(text: str) -> bytes:
    try:
        return _required(base64.b64decode(text, validate=True))
    except binascii.Error as error:
        raise MalformedRequest("image_base64 is not base64") from error
