"""PostgreSQL: connecting to it, and its errors as sentences without passwords."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, TypeAlias
from urllib.parse import unquote

import psycopg
from psycopg import errors

from hashsearch.errors import ExportError, InvalidQuery

Connection: TypeAlias = "psycopg.Connection[tuple[Any, ...]]"

CONTINUES = "what was committed is safe, and the same command continues"
_NAME = "hashsearch export"  # in the server's list of connections, unless the URL has another
_URL = re.compile(
    r"(?P<scheme>postgres(?:ql)?://)(?:(?P<user>[^@/]*)@)?"
    r"(?P<hosts>[^/?]*)(?P<path>/[^?]*)?(?:\?(?P<query>.*))?",
    re.DOTALL,
)


class Url:
    """A database's URL.

    shown: the URL for messages, without passwords. Raises InvalidQuery if what may be a part of a
    password would be read as something else.
    """

    def __init__(self, text: str):
        found = _URL.fullmatch(text)
        assert found is not None, "the target's prefix was checked"
        if "\0" in text or text.encode(errors="replace").decode() != text:
            raise InvalidQuery("the database's URL has a NUL or what is no UTF-8")
        parts = {name: value or "" for name, value in found.groupdict().items()}
        if "@" in parts["hosts"] + parts["path"]:
            raise InvalidQuery(
                "the database's URL has an @ or / within its password; write them as %40 and %2F, "
                "or give the password in the variable PGPASSWORD"
            )
        name, _, password = parts["user"].partition(":")
        entries = [entry for entry in parts["query"].split("&") if entry]
        secret = [entry for entry in entries if _is_secret(entry)]
        values = [password, *(entry.partition("=")[2] for entry in secret)]
        self.text = text
        self._secrets = {part for value in values if value for part in (value, unquote(value))}
        query = "&".join(entry for entry in entries if entry not in secret)
        user, query = f"{name}@" if name else "", f"?{query}" if query else ""
        self.shown = parts["scheme"] + user + parts["hosts"] + parts["path"] + query

    def without_secrets(self, message: str) -> str:
        """A message as one line, with *** where it names a password of the URL."""
        message = message.replace(self.text, self.shown)
        for secret in sorted(self._secrets, key=len, reverse=True):
            message = message.replace(secret, "***")
        return " ".join(message.split())


def _is_secret(entry: str) -> bool:
    return "password" in unquote(entry.partition("=")[0]).lower()


@contextmanager
def connected(url: Url) -> Iterator[Connection]:
    """Connect; within the block, the database's errors become ExportError."""
    try:
        given = psycopg.conninfo.conninfo_to_dict(url.text)
    except (psycopg.Error, UnicodeError) as error:  # its message may show the whole URL
        raise InvalidQuery(
            f"{url.shown} is no URL of a database: {url.without_secrets(str(error))}"
        ) from None
    settings: dict[str, Any] = {"fallback_application_name": _NAME, **given}
    settings["client_encoding"] = "UTF8"
    with said(url):
        connection = psycopg.connect(autocommit=True, **settings)
    with said(url, CONTINUES), connection:
        yield connection


@contextmanager
def notices(connection: Connection) -> Iterator[list[str]]:
    """Collect what the database remarks on within the block, each with its hint."""
    remarks: list[str] = []

    def note(notice: psycopg.errors.Diagnostic) -> None:
        parts = (notice.message_primary, notice.message_hint)
        remarks.append("; ".join(part.rstrip(".") for part in parts if part))

    connection.add_notice_handler(note)
    try:
        yield remarks
    finally:
        connection.remove_notice_handler(note)


@contextmanager
def said(url: Url, what_now: str = "") -> Iterator[None]:
    """Turn errors of the database into ExportError. what_now: is said of those of its operation."""
    try:
        yield
    except psycopg.Error as error:
        message = url.without_secrets(error.diag.message_primary or str(error))
        hint = next((hint for kind, hint in _HINTS if isinstance(error, kind)), "")
        if isinstance(error, psycopg.OperationalError):  # such as a full disk, or a lost connection
            hint = what_now
        raise ExportError(f"{url.shown}: {message}" + (f"; {hint}" if hint else "")) from error


_HINTS: tuple[tuple[type[psycopg.Error], str], ...] = (
    (errors.InsufficientPrivilege, "grant it to this user, or name a schema of its own: --table"),
    (errors.UntranslatableCharacter, "the database's encoding is to be UTF8"),
)
