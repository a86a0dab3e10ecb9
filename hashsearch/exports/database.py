"""PostgreSQL: connecting to it, and its errors as sentences without passwords."""

import re
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import contextmanager, suppress
from typing import Any, TypeAlias
from urllib.parse import unquote

import psycopg
from psycopg import errors, sql

from hashsearch.errors import ExportError, InvalidQuery
from hashsearch.wording import CONTINUES

Connection: TypeAlias = "psycopg.Connection[tuple[Any, ...]]"

_ASK_EVERY_S = 0.5  # whether to stop, while the database works
_DEFAULTS = {
    "fallback_application_name": "hashsearch export",  # in the server's list of connections
    "keepalives_idle": 30,  # seconds
}
# Limits for people's sessions would end an export that waits for an index. With the last one, the
# server notices that an export was killed while it builds an index.
_SESSION = {
    "statement_timeout": "0",
    "transaction_timeout": "0",
    "lock_timeout": "0",
    "idle_in_transaction_session_timeout": "0",
    "idle_session_timeout": "0",
    "client_connection_check_interval": "10s",
}
_URL = re.compile(
    r"(?P<scheme>postgres(?:ql)?://)(?:(?P<user>[^@/?]*)@)?"
    r"(?P<hosts>[^/?]*)(?P<path>/[^?]*)?(?:\?(?P<query>.*))?",
    re.DOTALL,
)
_HOSTS = re.compile(r"(?:(?:\[[^\]]*\]|[^\[\]:,]*)(?::\d*)?(?:,|$))*")
_SHOWN = {"host", "hostaddr", "port", "service", "dbname", "user", "sslmode"}  # of the query


class Stopped(Exception):
    """Somebody asked the export to stop."""


class Url:
    """A database's URL.

    shown: the URL for messages, without passwords and what may be one. Raises InvalidQuery if
    a part of a password would be read as something else.
    """

    def __init__(self, text: str):
        found = _URL.fullmatch(text)
        assert found is not None, "the target's prefix was checked"
        if "\0" in text or text.encode(errors="replace").decode() != text:
            raise InvalidQuery("the database's URL holds a NUL, or characters that are not UTF-8")
        parts = {name: value or "" for name, value in found.groupdict().items()}
        if "@" in parts["hosts"] + parts["path"] + parts["query"]:
            raise InvalidQuery(
                "the database's URL has an @, / or ? within its password; write them as %40, %2F "
                "and %3F, or give the password in the variable PGPASSWORD"
            )
        if not _HOSTS.fullmatch(parts["hosts"]):
            raise InvalidQuery(
                "the database's URL has a port that is not a number; the form is "
                "postgresql://user@host:port/database"
            )
        name, _, password = parts["user"].partition(":")
        entries = [entry for entry in parts["query"].split("&") if entry]
        hidden = [entry for entry in entries if entry.partition("=")[0] not in _SHOWN]
        values = [password, *(entry.partition("=")[2] for entry in hidden)]
        self.text = text
        self._secrets = {part for value in values if value for part in (value, unquote(value))}
        query = "&".join(entry for entry in entries if entry not in hidden)
        user, query = f"{name}@" if name else "", f"?{query}" if query else ""
        self.shown = parts["scheme"] + user + parts["hosts"] + parts["path"] + query

    def without_secrets(self, message: str) -> str:
        """A message as one line, with *** where it names a password of the URL."""
        message = message.replace(self.text, self.shown)
        for secret in sorted(self._secrets, key=len, reverse=True):
            message = message.replace(secret, "***")
        return " ".join(message.split())


@contextmanager
def connected(url: Url) -> Iterator[Connection]:
    """Connect; within the block, the database's errors become ExportError."""
    try:
        given = psycopg.conninfo.conninfo_to_dict(url.text)
    except (psycopg.Error, UnicodeError) as error:  # its message may show the whole URL
        raise InvalidQuery(
            f"{url.shown} is not the URL of a database: {url.without_secrets(str(error))}"
        ) from None
    settings: dict[str, Any] = {**_DEFAULTS, **given, "client_encoding": "UTF8"}
    with database_errors(url):
        connection = psycopg.connect(autocommit=True, **settings)
    with database_errors(url, CONTINUES), connection:
        for name, value in _SESSION.items():
            with suppress(psycopg.ProgrammingError, psycopg.DataError):  # an older server, Windows
                connection.execute(f"SET {name} = '{value}'")
        yield connection


def execute(
    db: Connection, query: sql.Composed, values: Sequence[Any] | None, stop: Callable[[], bool]
) -> "psycopg.Cursor[tuple[Any, ...]]":
    """Execute a query that may take long. Raises Stopped if stop() cancelled it."""
    with ThreadPoolExecutor(1) as pool:
        done = pool.submit(db.execute, query, values)
        try:
            while not wait([done], _ASK_EVERY_S).done:
                if stop():
                    db.cancel_safe()
                    wait([done])
        except BaseException:
            db.cancel_safe()
            raise
    try:
        return done.result()
    except errors.QueryCanceled:
        if stop():
            raise Stopped from None
        raise


@contextmanager
def notices(connection: Connection) -> Iterator[list[str]]:
    """Collect the database's notices and warnings within the block, each with its hint."""
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
def database_errors(url: Url, what_now: str = "") -> Iterator[None]:
    """Turn errors of the database into ExportError. what_now: is added to operational ones."""
    try:
        yield
    except psycopg.Error as error:
        message = url.without_secrets(error.diag.message_primary or str(error))
        hint = next((hint for kind, hint in _HINTS if isinstance(error, kind)), "")
        if isinstance(error, psycopg.OperationalError):  # such as a full disk, or a lost connection
            hint = what_now
        raise ExportError(f"{url.shown}: {message}" + (f"; {hint}" if hint else "")) from error


_HINTS: tuple[tuple[type[psycopg.Error], str], ...] = (
    (errors.InsufficientPrivilege, "grant it to this user"),
    (errors.UntranslatableCharacter, "the database's encoding has to be UTF8"),
)
