"""Answers that a client keeps and asks about again (RFC 9110, section 13.1.2)."""

import re
from collections.abc import Mapping
from typing import Annotated

from fastapi import Header, Response

# Of every answer. A browser asks again each time: another version of the service, or another
# gallery, with other images under the same ids, or with another model, may be served at this
# address later. Proxies keep nothing, since a gallery may be private.
ASK_AGAIN = "private, no-cache"
_TAG = re.compile(r'(?:W/)?("[^"]*")')

IfNoneMatch = Annotated[
    str | None, Header(description="the ETag of what the client has", examples=['"0f1e2d3c"'])
]


def cache_headers(tag: str) -> Mapping[str, str]:
    """The headers of an answer with this ETag."""
    return {"Cache-Control": ASK_AGAIN, "ETag": tag}


def if_kept(if_none_match: str | None, tag: str) -> Response | None:
    """The answer 304 if the client has what this ETag, in quotes, stands for; otherwise None."""
    sent = if_none_match or ""
    if sent.strip() == "*" or tag in _TAG.findall(sent):
        return Response(status_code=304, headers=cache_headers(tag))
    return None
