"""Cursors of lists: opaque texts that say where the next answer begins."""

import base64
import json
from collections.abc import Sequence
from typing import Any

from service.validation import InvalidParameter


def cursor_of(*values: int | str) -> str:
    """A text that `values_of` reads."""
    packed = json.dumps(values, separators=(",", ":")).encode()
    return base64.urlsafe_b64encode(packed).decode().rstrip("=")


def values_of(cursor: str, kinds: Sequence[type[int] | type[str]]) -> list[Any]:
    """The values of a cursor, whose types these are; numbers are from 0 to 2**63 - 1.

    Raises InvalidParameter if it is none of this list's.
    """
    try:
        padded = cursor + "=" * (-len(cursor) % 4)
        values = json.loads(base64.b64decode(padded, altchars=b"-_", validate=True))
        is_ours = cursor_of(*values) == cursor and all(
            type(value) is kind and (isinstance(value, str) or 0 <= value < 2**63)
            for value, kind in zip(values, kinds, strict=True)
        )
        for value in values:  # texts go to SQLite, which takes no halves of surrogate pairs
            str(value).encode()
    except (TypeError, ValueError, RecursionError):
        is_ours = False
    if not is_ours:
        raise InvalidParameter("after is the `next` of the list's former answer", "after")
    return list(values)


def id_of(cursor: str | None) -> int:
    """The id of a cursor that has nothing else; 0 for None. Raises InvalidParameter."""
    (found,) = (0,) if cursor is None else values_of(cursor, [int])
    return int(found)
