"""Receiving the body of a request, raw bytes, a form or JSON, within limits of size and time."""

import asyncio
import re
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from io import BytesIO
from typing import Any

from fastapi import Request
from pydantic import BaseModel
from starlette.datastructures import UploadFile
from starlette.exceptions import HTTPException
from starlette.types import Message

from hashsearch.errors import UnsupportedFormat
from hashsearch.wording import sized
from service.problems import BodyTooLarge, BodyTooSlow, MalformedRequest, QueueFull, naming
from service.schemas.images import MAX_ADDED, AddBody
from service.schemas.search import ImageExample, QueryBody
from service.settings import Settings

_MOST_BODIES = 16  # of the largest size, that are held in memory at a time
_SMALL = 65_536  # bytes of a body that do not count: large bodies never keep small ones out


def _body_schema(form: dict[str, Any], model: type[BaseModel]) -> Mapping[str, Any]:
    """For OpenAPI: FastAPI does not know what a dependency reads from the stream."""
    return {
        "requestBody": {
            "required": True,
            "description": "An image's bytes, a form with the file `image`, or JSON.",
            "content": {
                "image/*": {"schema": _FILE},
                "multipart/form-data": {
                    "schema": {
                        "type": "object",
                        "properties": {"image": form},
                        "required": ["image"],
                    }
                },
                "application/json": {"schema": {"$ref": f"#/components/schemas/{model.__name__}"}},
            },
        }
    }


_FILE = {"type": "string", "format": "binary"}
QUERY_BODY_SCHEMA = _body_schema(_FILE, QueryBody)
ADD_BODY_SCHEMA = _body_schema({"type": "array", "items": _FILE, "maxItems": MAX_ADDED}, AddBody)
IMAGE_BODY_SCHEMA = _body_schema(_FILE, ImageExample)


@dataclass(slots=True)
class Body:
    """A complete body. data: an image's bytes, or JSON. content_type: what the client says it is,
    in lower case, without its parameters."""

    data: bytes
    content_type: str

    @property
    def is_json(self) -> bool:
        return self.content_type == "application/json"

    def taken(self) -> bytes:
        """The data, which the body no longer holds: its memory is free once they are parsed."""
        data, self.data = self.data, b""
        return data


class BodyMemory:
    """Bounds the bytes of bodies that are in memory; used by the event loop alone."""

    def __init__(self, settings: Settings):
        self.most = _MOST_BODIES * settings.max_body_bytes
        self.held = 0

    def take(self, size: int) -> None:
        """Raises QueueFull."""
        if self.held + size > self.most:
            raise QueueFull("too many uploads are in progress; try again in a moment")
        self.held += size

    def give_back(self, size: int) -> None:
        self.held -= size


@asynccontextmanager
async def reading(request: Request, most: int = 1) -> AsyncIterator[list[Body]]:
    """The body of a request, which counts as held in memory within the block.

    It is one body, of which any content type but JSON and multipart is an image's bytes; or each
    file of a form, `most` at most. Entering raises BodyTooLarge as soon as the body exceeds the
    limit, BodyTooSlow if it does not arrive in time, MalformedRequest if it is empty or a form
    without an image, UnsupportedFormat if it is compressed, and QueueFull.
    """
    settings: Settings = request.app.state.settings
    memory: BodyMemory = request.app.state.body_memory
    limited = _Limited(request, settings.max_body_bytes, memory)
    try:
        yield await _received(limited, most, settings.body_timeout_s)
    finally:
        memory.give_back(limited.counted)


async def _received(request: Request, most: int, timeout_s: float) -> list[Body]:
    content_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    try:
        async with asyncio.timeout(timeout_s):
            if content_type == "multipart/form-data":
                data = await _form_images(request, most)
            else:
                data = [await _whole(request)]
    except TimeoutError as error:
        raise BodyTooSlow(f"the body did not arrive within {timeout_s:g} seconds") from error
    return [_checked(Body(one, content_type)) for one in data]


async def _whole(request: Request) -> bytes:
    received = BytesIO()  # gives its bytes away without a copy, and the request keeps none
    async for part in request.stream():
        received.write(part)
    return received.getvalue()


class _Limited(Request):
    """The same request; reading more of its body than the limits allow raises an error."""

    def __init__(self, request: Request, max_bytes: int, memory: BodyMemory):
        super().__init__(request.scope, self._receive_some)
        self._source, self._max_bytes, self._memory = request, max_bytes, memory
        self.received = self.counted = 0
        if request.headers.get("content-encoding", "identity").lower() not in ("", "identity"):
            raise UnsupportedFormat("the body is compressed; send it uncompressed")
        announced = request.headers.get("content-length", "")
        if announced.isdigit() and int(announced[:20]) > max_bytes:
            self._refuse()

    async def _receive_some(self) -> Message:
        message = await self._source.receive()
        size = len(message.get("body", b""))
        if self.received + size > self._max_bytes:
            self._refuse()
        before, self.received = self.received, self.received + size
        counted = max(self.received - _SMALL, 0) - max(before - _SMALL, 0)
        self._memory.take(counted)
        self.counted += counted
        return message

    def _refuse(self) -> None:
        raise BodyTooLarge(f"the upload is larger than {sized(self._max_bytes)}")


async def _form_images(request: Request, most: int) -> list[bytes]:
    """The files of a form, in its order. Raises MalformedRequest."""
    wanted = "send one file, in a field named image"
    if most > 1:
        wanted = f"send 1 to {most} files, in fields named image"
    try:
        async with request.form(max_files=most, max_fields=0) as form:
            images = [file for name, file in form.multi_items() if name == "image"]
            if not images:
                raise MalformedRequest(f"the form has no file in a field named image; {wanted}")
            if len(images) < len(form.multi_items()):
                raise MalformedRequest(f"the form has a file in another field; {wanted}")
            data = []
            for file in images:
                assert isinstance(file, UploadFile)  # there are no other fields
                data.append(await file.read())
                await file.close()  # so that only one file is in memory twice
    except HTTPException as error:  # Starlette's, for what it cannot parse
        for beginning, sentence in _FORM_FAULTS.items():
            if str(error.detail).startswith(beginning):
                raise MalformedRequest(f"{sentence}; {wanted}") from error
        raise MalformedRequest(f"the body is not a form; {wanted}") from error
    for number, one in enumerate(data):
        name = "image" if len(data) == 1 else f"images.{number}"
        with naming(name):
            _required(one, f"{name} is an empty file")
    return data


_FORM_FAULTS = {  # by the beginning of Starlette's sentence
    "Too many fields": "the form has a text field, but parameters belong in the query string",
    "Too many files": "the form has too many files",
}


def _checked(body: Body) -> Body:
    _required(body.data, _EMPTY)
    if not body.is_json and _JSON.match(body.data[:1024]):
        came = f"its content type is {body.content_type}" if body.content_type else "it has none"
        raise MalformedRequest(
            f"the body looks like JSON, but {came}; send it with Content-Type: application/json"
        )
    return body


_JSON = re.compile(rb"\s*[{\[]\s*[\"}\]\[{]")


def _required(data: bytes, sentence: str) -> bytes:
    if not data:
        raise MalformedRequest(sentence)
    return data


_EMPTY = "the body is empty; send an image file's bytes, a form with a file, or JSON"
