"""From a body to what it asks for: a query, or images to add."""

import base64
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

from pydantic import ValidationError

from hashsearch.retrieval.transforms import N_VIEWS
from hashsearch.wording import sized
from service.body import Body
from service.problems import MalformedRequest, naming
from service.schemas.common import Strict
from service.schemas.images import AddBody
from service.schemas.search import ImageExample, QueryBody
from service.validation import invalid_field, worst

M = TypeVar("M", bound=Strict)

# Of a JSON body.
_MOST_VALUES = 50_000  # a query with all ids that it may have takes 20,000
_MOST_FIELDS = 1000  # 32 images to add, with their labels, have 65; each unknown one is an error
_MOST_BESIDE = 2**20  # bytes that are no text; all ids take 400,000
_NO_JSON = QueryBody.model_construct()  # made once, since it takes 0.1 ms


@dataclass(frozen=True, slots=True)
class AskedQuery:
    """A query of any kind of body.

    image: an image file's bytes. like, unlike: ids, codes or image files' bytes. body: the JSON,
    if it came as that, without image and examples. field: of the body that held the image; None if
    it came without JSON.
    """

    image: bytes | None
    like: Sequence[int | str | bytes] = ()
    unlike: Sequence[int | str | bytes] = ()
    body: QueryBody = _NO_JSON
    field: str | None = None

    def images(self, *, transforms: bool) -> int:
        """Number of images that are encoded for it; 0 if none is."""
        of_query = int(self.image is not None)
        if transforms:
            of_query = N_VIEWS
        return of_query + sum(isinstance(one, bytes) for one in (*self.like, *self.unlike))


@dataclass(frozen=True, slots=True)
class Upload:
    """An image file that a client sent.

    label: as of Addition. field: of the body, for a problem; None if it is the whole body.
    """

    data: bytes
    label: str | None
    field: str | None = None


def query_of(body: Body) -> AskedQuery:
    """A query by image, id, code or examples.

    Raises MalformedRequest or InvalidParameter if the body is not a query.
    """
    if not body.is_json:
        return AskedQuery(body.data)
    query = parse_json(body, QueryBody)
    image = field = None
    if query.image_base64 is not None:
        field = "image_base64"
        image = decode_base64(query.image_base64, field)
    like, unlike = (
        [
            decode_base64(one.image_base64, f"{name}.{number}.image_base64")
            if isinstance(one, ImageExample)
            else one
            for number, one in enumerate(examples)
        ]
        for name, examples in (("like", query.like or ()), ("unlike", query.unlike or ()))
    )
    # The texts take more memory than what is decoded of them.
    rest = query.model_copy(update=dict.fromkeys(("image_base64", "like", "unlike")))
    return AskedQuery(image, like, unlike, rest, field)


def uploads_of(bodies: Sequence[Body], label: str | None) -> list[Upload]:
    """The images to add. label: of those without one of their own.

    Raises MalformedRequest or InvalidParameter if the bodies are not images.
    """
    first = bodies[0]
    if not first.is_json:
        several = len(bodies) > 1
        return [
            Upload(body.data, label, f"images.{number}" if several else None)
            for number, body in enumerate(bodies)
        ]
    uploads = []
    for number, image in enumerate(parse_json(first, AddBody).images):
        field = f"images.{number}.image_base64"
        data = decode_base64(image.image_base64, field)
        uploads.append(Upload(data, label if image.label is None else image.label, field))
    return uploads


def parse_json(body: Body, model: type[M]) -> M:
    """Raises MalformedRequest if the body is not JSON, InvalidParameter if its fields are wrong."""
    data = body.taken()
    _require_little(data)
    try:
        return model.model_validate_json(data, strict=True)
    except ValidationError as error:
        finding = worst(error)
        if finding["type"] == "json_invalid":
            raise _not_parsed(finding["ctx"]["error"]) from error
        raise invalid_field(finding, model, model.elsewhere) from error


def _not_parsed(reason: str) -> MalformedRequest:
    """reason: the parser's, with line and column, and without any value."""
    fault, at, place = reason.rpartition(" at line ")
    for beginning, sentence in _BEYOND.items():
        if fault.startswith(beginning):
            return MalformedRequest(f"{sentence}{at}{place}")
    return MalformedRequest(f"the content type says JSON, but the body is not JSON: {reason}")


# What is JSON, but is not read: by the beginning of the parser's reason.
_HALF = "a text in the JSON body has half of a surrogate pair, which is no character,"
_BEYOND = {
    "number out of range": "a number in the JSON body has too many digits,",
    "recursion limit exceeded": "the JSON body is nested too deeply,",
    "lone leading surrogate": _HALF,
    "unexpected end of hex escape": _HALF,
}


def _require_little(data: bytes) -> None:
    """Raises MalformedRequest if JSON has so many parts that parsing or refusing it takes long.

    Long texts cost little. Millions of small values would take seconds and half a gigabyte, and a
    number takes a time that grows with the square of its digits; Python's lock is held meanwhile.
    """
    # Without these escapes, each quotation mark begins or ends a text.
    plain = data.replace(b"\\\\", b"").replace(b'\\"', b"")
    many = f"the JSON body holds more than {_MOST_VALUES:,} values"
    if plain.count(b'"') // 2 > 2 * _MOST_VALUES:  # each value, and its name
        raise MalformedRequest(many)
    beside = b"".join(plain.split(b'"')[::2]).translate(None, b" \t\r\n")
    if len(beside) > _MOST_BESIDE:
        raise MalformedRequest(
            f"the JSON body holds more than {sized(_MOST_BESIDE)} of numbers and signs"
        )
    if sum(map(beside.count, (b",", b"[", b"{"))) > _MOST_VALUES:
        raise MalformedRequest(many)
    if beside.count(b":") > _MOST_FIELDS:
        raise MalformedRequest(f"the JSON body holds more than {_MOST_FIELDS:,} fields")


def decode_base64(text: str, name: str) -> bytes:
    """The bytes of base64, plain, wrapped, URL-safe, unpadded, or as a data URI.

    name: of the field, for the error. Raises MalformedRequest.
    """
    with naming(name):
        return _decoded(text, name)


def _decoded(text: str, name: str) -> bytes:
    head, comma, tail = text.partition(",")
    if head[:5].lower() == "data:":
        if not (comma and head.lower().endswith(";base64")):
            raise MalformedRequest(f"the data URI in {name} is not in base64")
        text = tail
    try:
        # As text, the same would take a second with other characters, and hold up all threads.
        plain = text.encode("ascii").translate(_PLAIN, b" \t\r\n\f\v").rstrip(b"=")
        data = base64.b64decode(plain + b"=" * (-len(plain) % 4), validate=True)
    except ValueError as error:  # also for characters that are not ASCII
        raise MalformedRequest(f"{name} is not base64") from error
    if not data:
        raise MalformedRequest(f"{name} is empty")
    return data


_PLAIN = bytes.maketrans(b"-_", b"+/")
