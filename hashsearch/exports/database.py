"""PostgreSQL: connecting to it, and its errors as sentences without passwords."""

import re
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import contextmanager, suppress
from typing import Any, TypeAlias
from urllib.parse import unquote

import psycopg
from psycopg import errors, sql
from psycopg.pq import Conninfo

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
    r"(?P<scheme>postgres(?:ql)?://)(?:(?P<user>[^@/]*)@)?(?P<rest>[^?]*)\??(?P<query>.*)",
    re.DOTALL,
)
_PORTS = re.compile(r"[0-9,]*")
_PASSWORDS = (
    "a password's %, @, :, / and ? are written as %25, %40, %3A, %2F and %3F, or it is given in "
    "the variable PGPASSWORD"
)


class Stopped(Exception):
    """Somebody asked the export to stop."""


class Url:
    """A database's URL.

    settings: what it says, by libpq's names. shown: the URL for messages, without passwords.
    Raises InvalidQuery if libpq cannot read it, or would read a part of a password as something
    else; these messages show nothing of it.
    """

    def __init__(self, text: str):
        found = _URL.fullmatch(text)
        assert found is not None, "the target's prefix was checked"
        scheme, user, rest, query = found.groups("")
        try:
            if "\0" in text:
                raise ValueError("it holds a NUL")
            options = [one for one in Conninfo.parse(text.encode()) if one.val is not None]
            self.settings = {one.keyword.decode(): (one.val or b"").decode() for one in options}
            if "@" in rest:
                raise ValueError("an @ is in its host or in the database's name")
            if not _PORTS.fullmatch(self.settings.get("port", "")):
                raise ValueError("its port is not a number")
        except UnicodeError:
            raise _unreadable("it holds characters that are not UTF-8") from None
        except (psycopg.Error, ValueError) as error:
            raise _unreadable(str(error).partition(': "')[0]) from None
        hidden = {one.keyword.decode() for one in options if one.dispchar}
        self._secrets = {self.settings[name] for name in hidden} - {""}
        entries = (one for one in query.split("&") if unquote(one.partition("=")[0]) not in hidden)
        name, shown = user.partition(":")[0], "&".join(entries)
        self.shown = f"{scheme}{name}{'@' if name else ''}{rest}{'?' if shown else ''}{shown}"

    def without_secrets(self, message: str) -> str:
        """A message as one line, with *** where it names a password of the URL."""
        for secret in sorted(self._secrets, key=len, reverse=True):
            message = message.replace(secret, "***")
        return " ".join(message.split())


def _unreadable(reason: str) -> InvalidQuery:
    return InvalidQuery(f"the database's URL cannot be read: {reason}; {_PASSWORDS}")


@contextmanager
def connected(url: Url) -> Iterator[Connection]:
    """Connect; within the block, the database's errors become ExportError."""
    settings: dict[str, Any] = {**_DEFAULTS, **url.settings, "client_encoding": "UTF8"}
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
