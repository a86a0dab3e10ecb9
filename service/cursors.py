"""Where a page of a list ends, as a text that clients hand back without reading it."""

import base64

from service.validation import InvalidParameter


def cursor_of(image_id: int) -> str:
    return base64.urlsafe_b64encode(image_id.to_bytes(8)).decode().rstrip("=")


def id_of(cursor: str | None) -> int:
    """The id that a cursor stands for; 0 for None. Raises InvalidParameter."""
    if cursor is None:
        return 0
    try:
        found = int.from_bytes(base64.b64decode(cursor + "=", altchars=b"-_", validate=True))
    except ValueError:  # also of characters that are not ASCII
        found = -1
    if not 0 <= found < 2**63 or cursor_of(found) != cursor:
        raise InvalidParameter("after is the `next` of a former answer", "after")
    return found
