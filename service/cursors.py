"""Cursors of lists: opaque texts that say where the next answer begins."""

import base64
import json
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from service.validation import InvalidParameter

E = TypeVar("E")
P = TypeVar("P", int, str)


def cursor_of(name: str, *values: int | str) -> str:
    """A text that `values_of` reads. name: of the list."""
    packed = json.dumps([name, *values], separators=(",", ":")).encode()
    return base64.urlsafe_b64encode(packed).decode().rstrip("=")


def values_of(cursor: str, name: str, kinds: Sequence[type[int] | type[str]]) -> list[Any]:
    """The values of a cursor, whose types these are; numbers are from 0 to 2**63 - 1.

    Raises InvalidParameter if it is not a cursor of the list with this name.
    """
    try:
        padded = cursor + "=" * (-len(cursor) % 4)
        of, *values = json.loads(base64.b64decode(padded, altchars=b"-_", validate=True))
        is_ours = (
            of == name
            and cursor_of(name, *values) == cursor
            and all(
                type(value) is kind and (isinstance(value, str) or 0 <= value < 2**63)
                for value, kind in zip(values, kinds, strict=True)
            )
        )
        for value in values:  # texts go to SQLite, which takes no halves of surrogate pairs
            str(value).encode()
    except (TypeError, ValueError, RecursionError):
        is_ours = False
    if not is_ours:
        raise InvalidParameter("after must be `next` of the previous page", "after")
    return values


def start_of(cursor: str | None, name: str, first: P) -> P:
    """The value of a cursor that has one, of the type of `first`; `first` for None.

    Raises InvalidParameter.
    """
    return first if cursor is None else values_of(cursor, name, [type(first)])[0]


def page_of(
    found: Sequence[E], limit: int, name: str, place: Callable[[E], int | str]
) -> tuple[Sequence[E], str | None]:
    """The entries of a page, and the cursor of the next one; None on the last.

    found: one entry more than the limit, where there are as many. name: of the list. place: what
    `start_of` gives for the page that begins after an entry.
    """
    shown = found[:limit]
    return shown, cursor_of(name, place(shown[-1])) if len(found) > limit else None
