"""An error on the wire."""

from pydantic import BaseModel, Field


class Problem(BaseModel):
    """An error, after RFC 9457."""

    type: str = "about:blank"
    title: str
    status: int
    detail: str = Field(description="one sentence for people")
    code: str = Field(description="a stable name for programs; docs/http.md lists them all")
    parameter: str | None = Field(
        default=None, description="name of the parameter or field at fault, if it is one"
    )
    request_id: str
