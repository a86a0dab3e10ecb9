"""Values that the parameters, bodies and answers of several groups of paths share."""

import re
from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, TypeVar

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field
from pydantic_core import PydanticCustomError

from hashsearch.closeness import MEANINGS
from hashsearch.retrieval.kinds import KINDS
from hashsearch.retrieval.methods import SERVED

Text = TypeVar("Text", str, str | None)

MAX_K = 1000
MAX_TEXT = 4096  # characters of a label or a uri
MAX_IDS = 10_000
MAX_CURSOR = 16_384  # characters


class Strict(BaseModel):
    """Parameters or a body from a client, without unknown names.

    elsewhere: names that belong in another place of a request, and where, for a message.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)
    elsewhere: ClassVar[Mapping[str, str]] = {}


def one_of(table: Mapping[str, Any]) -> tuple[AfterValidator, Any]:
    """Annotations of a name in a table, which OpenAPI lists; tests add rows to tables."""

    def known(name: str) -> str:
        if name not in table:
            raise ValueError(f"must be one of {', '.join(table)}")
        return name

    def list_names(schema: dict[str, Any]) -> None:
        schema["enum"] = list(table)

    return AfterValidator(known), Field(json_schema_extra=list_names)


MethodName = Annotated[str, *one_of(SERVED)]
KindName = Annotated[str, *one_of(KINDS)]
Word = Annotated[
    str,
    Field(
        description="; ".join(f"{word}: {meaning}" for word, meaning in MEANINGS.items()),
        json_schema_extra={"enum": list(MEANINGS)},
    ),
]
Limit = Annotated[int, Field(ge=1, le=1000, description="largest number of entries")]
After = Annotated[
    str | None,
    Field(max_length=MAX_CURSOR, description="`next` of the previous page"),
]
Codes = Annotated[bool, Field(description="give the code of each image too")]
Next = Annotated[
    str | None, Field(description="the parameter after of the next page; null on the last")
]


def _digits(value: object) -> object:
    """Refuse texts in a path or a query string that pydantic takes for numbers, such as 1_0."""
    if isinstance(value, str) and not re.fullmatch("[0-9]+", value):
        raise PydanticCustomError("int_parsing", "digits are wanted")
    return value


JsonId = Annotated[int, Field(ge=0, lt=2**63)]  # in JSON, whose numbers are no texts
Id = Annotated[JsonId, BeforeValidator(_digits)]
# Parameters that may be left out; a description that is inside `X | None` is not the parameter's.
Label = Annotated[
    str | None,
    Field(
        min_length=1,
        max_length=MAX_TEXT,
        description="only images with this label",
        examples=["cat"],
    ),
]
UriPrefix = Annotated[
    str | None,
    Field(
        min_length=1,
        max_length=MAX_TEXT,
        description="only images at or below this uri, with or without its percent-encoding; it "
        "ends where a part of a path ends",
        examples=["photos/2024"],
    ),
]

# A field of a body, of the type str, or str | None where it may be left out.
ImageBase64 = Annotated[Text, Field(description="an image file in base64, or as a data URI")]

# Fields of every answer that is about an image.
ImageId = Annotated[int, Field(description="id of the image in the gallery")]
ImageLabel = Annotated[str | None, Field(description="its label; null if it has none")]
ImageUri = Annotated[
    str,
    Field(description="source and path, percent-encoded; +/ and the SHA-256 if added as bytes"),
]
IsMissing = Annotated[
    bool, Field(description="whether the file is gone from its place, with all copies")
]
Thumbnail = Annotated[str, Field(description="address of its picture, relative to this server")]
AskedCode = Annotated[
    str | None,
    Field(description="its code, 64 hexadecimal digits; null unless codes were asked for"),
]
