"""An error on the wire."""

from pydantic import BaseModel, Field


class Problem(BaseModel):
    """An error, after RFC 9457."""

    type: str = Field(default="about:blank", description="always about:blank; `code` tells more")
    title: str = Field(description="the status in words")
    status: int = Field(description="the status of the answer")
    detail: str = Field(description="one sentence for people")
    code: str = Field(description="a stable name for programs; docs/http.md lists them all")
    parameter: str | None = Field(
        default=None, description="name of the parameter or field at fault, if it is one"
    )
    request_id: str = Field(description="as in the header X-Request-ID and in the service's log")
