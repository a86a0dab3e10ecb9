"""The table of an export in PostgreSQL, and the row of our own table that describes it."""

import dataclasses
from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import astuple, dataclass, fields
from typing import Any

from psycopg import Error, sql
from psycopg.adapt import Buffer, Dumper, Loader
from psycopg.pq import Format

from hashsearch import __version__
from hashsearch.codes import CODE_BITS
from hashsearch.errors import ArtifactMismatch, ExportError, InvalidQuery
from hashsearch.exports.database import Connection
from hashsearch.exports.rows import Row
from hashsearch.exports.summary import NO_INDEX
from hashsearch.exports.vector_index import drop_indexes, require_vector

DEFAULT_TABLE = "hashsearch_images"
STATES = "hashsearch_exports"
_FORMAT = 1  # of the table and its row in STATES
_LONGEST_NAME = 63  # bytes; PostgreSQL cuts off the rest
_TYPES = {
    "id": "bigint",
    "uri": "text",
    "label": "text",
    "code": f"bit({CODE_BITS})",
    "key": "bytea",
}
_CONSTRAINTS = {"id": " PRIMARY KEY", "label": ""}
_COLUMNS = sql.SQL(", ").join(map(sql.Identifier, _TYPES))
_KINDS = "rpf"  # tables, partitioned ones, and foreign ones


@dataclass(frozen=True, slots=True)
class State:
    """What a table holds of which gallery, as its row in STATES says.

    generation: all changes up to it are in the table, for the images up to the id `loaded`; None
    means for all of them. index: the kind of the index.
    """

    gallery: str
    fingerprint: str
    precision: str
    generation: int
    loaded: int | None
    index: str


_STATE_COLUMNS = sql.SQL(", ").join(sql.Identifier(field.name) for field in fields(State))


def parsed_name(text: str) -> tuple[str | None, str]:
    """The schema, or None, and the name of a table, each as it is written. Raises InvalidQuery."""
    schema, dot, name = text.rpartition(".")
    for part in (schema, name) if dot else (name,):
        if "." in part or "\0" in part or not 1 <= _size(part) <= _LONGEST_NAME:
            raise InvalidQuery(
                f"a table is named NAME or SCHEMA.NAME, each of 1 to {_LONGEST_NAME} bytes; "
                f"got {text!r}",
                "table",
            )
    if name == STATES:
        raise InvalidQuery(f"{STATES} describes the exports; name another table", "table")
    return schema or None, name


def _size(name: str) -> int:
    """Number of bytes of a name; 0 if UTF-8 cannot hold it."""
    try:
        return len(name.encode())
    except UnicodeEncodeError:
        return 0


class Table:
    """The table of an export.

    shown: its name for messages. quoted: its name for SQL. What is read and written is a part of
    the current transaction.
    """

    def __init__(self, connection: Connection, name: str):
        """name: NAME or SCHEMA.NAME. Raises InvalidQuery, and ExportError without a schema."""
        schema, self.name = parsed_name(name)
        self._db = connection
        self.schema = schema or self._schema()
        self.shown = f"{self.schema}.{self.name}"
        self.quoted = sql.Identifier(self.schema, self.name).as_string(connection)
        self._sql = _escaped(self.quoted)
        self._states = _escaped(sql.Identifier(self.schema, STATES).as_string(connection))
        connection.adapters.register_dumper(None, _BitsDumper)
        connection.adapters.register_loader("bit", _BitsLoader)

    def _schema(self) -> str:
        """The schema of the table that an unqualified name means, or in which it is made."""
        found = self._one(
            "SELECT coalesce((SELECT nspname FROM pg_class c JOIN pg_namespace n "
            "ON n.oid = relnamespace WHERE c.oid = to_regclass(%s)), current_schema())",
            sql.Identifier(self.name).as_string(self._db),
        )
        if found is None:
            raise ExportError("the database has no schema for the table; name one: SCHEMA.NAME")
        return str(found)

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Keep other exports to this table out. Raises ExportError if one is at work."""
        key = f"hashsearch export {self.shown}"
        if not self._one("SELECT pg_try_advisory_lock(hashtextextended(%s, 0))", key):
            raise ExportError(f"another export writes to the table {self.shown}; try again later")
        try:
            yield
        finally:  # the server would do it a moment after the connection was closed
            with suppress(Error):
                self._one("SELECT pg_advisory_unlock(hashtextextended(%s, 0))", key)

    def prepare(self, wanted: State, *, index: str | None, replace: bool) -> State:
        """Make the table, or check that it is an export of the same gallery; returns its state.

        wanted: the state of a new table, and of one that is replaced. An empty table with the right
        columns counts as new. index: the kind of the index; None means as before. replace: empty
        an earlier export, of whichever gallery and model. Raises ArtifactMismatch and ExportError.
        """
        with self.transaction():
            self._db.execute("SELECT pg_advisory_xact_lock(hashtextextended(%s, 0))", (STATES,))
            self._make_states()
            exists, found = self._exists(), self._state()
            kind = index or (found or wanted).index
            if not exists:
                self._create()
            elif found is None:
                self._require_empty()
            elif replace:
                self._db.execute(self._of("TRUNCATE {}"), ())
                drop_indexes(self._db, self.quoted)
            else:
                self._require_same(found, wanted)
                wanted = found
            state = dataclasses.replace(wanted, index=kind)
            if state != found:
                if kind != NO_INDEX:
                    require_vector(self._db, kind)
                self._insert(state)
        return state

    def _create(self) -> None:
        columns = sql.SQL(", ").join(
            sql.SQL("{} " + kind + _CONSTRAINTS.get(name, " NOT NULL")).format(sql.Identifier(name))
            for name, kind in _TYPES.items()
        )
        self._db.execute(sql.SQL("CREATE TABLE {} ({})").format(self._sql, columns), ())

    def _require_empty(self) -> None:
        if self._one(self._of("SELECT EXISTS (SELECT 1 FROM {})")):
            raise ExportError(
                f"the table {self.shown} has rows and was not made by an export; name another with "
                "--table"
            )

    def _make_states(self) -> None:
        quoted = sql.Identifier(self.schema, STATES).as_string(self._db)
        if self._one("SELECT to_regclass(%s)", quoted) is None:
            self._db.execute(
                sql.SQL(
                    "CREATE TABLE {} (table_name text PRIMARY KEY, gallery text NOT NULL, "
                    "fingerprint text NOT NULL, precision text NOT NULL, "
                    "generation bigint NOT NULL, loaded bigint, index text NOT NULL, "
                    "format integer NOT NULL, version text NOT NULL, updated timestamptz NOT NULL)"
                ).format(self._states),
                (),
            )

    def _exists(self) -> bool:
        kind = self._one(
            "SELECT relkind::text FROM pg_class WHERE oid = to_regclass(%s)", self.quoted
        )
        if kind is not None and kind not in _KINDS:
            raise ExportError(f"{self.shown} is there and is not a table; name another: --table")
        if kind is not None:
            self._require_columns()
        return kind is not None

    def _require_columns(self) -> None:
        query = (
            "SELECT attname, format_type(atttypid, atttypmod) FROM pg_attribute "
            "WHERE attrelid = to_regclass(%s) AND attnum > 0 AND NOT attisdropped"
        )
        found: dict[str, str] = dict(self._db.execute(query, (self.quoted,)).fetchall())
        wrong = [f"{name} {kind}" for name, kind in _TYPES.items() if found.get(name) != kind]
        if wrong:
            raise ExportError(
                f"the table {self.shown} is there and lacks what an export has: "
                f"{', '.join(wrong)}; name another with --table"
            )

    def _state(self) -> State | None:
        query = sql.SQL("SELECT {}, format FROM {} WHERE table_name = %s").format(
            _STATE_COLUMNS, self._states
        )
        found = self._db.execute(query, (self.name,)).fetchone()
        if found is None:
            return None
        *values, version = found
        if version != _FORMAT:
            raise ExportError(
                f"the table {self.shown} is of format {version}; this version of hashsearch writes "
                f"{_FORMAT}"
            )
        return State(*values)

    def _require_same(self, found: State, wanted: State) -> None:
        way = "name another table with --table, or replace it with --replace"
        if found.gallery != wanted.gallery:
            raise ArtifactMismatch(
                f"the table {self.shown} is of another gallery ({found.gallery[:12]}, and this one "
                f"is {wanted.gallery[:12]}); {way}"
            )
        self.require_model(found, wanted.fingerprint)
        if found.precision != wanted.precision:
            raise ArtifactMismatch(
                f"the codes in the table {self.shown} were made in {found.precision}, and the "
                f"gallery's in {wanted.precision}; {way}"
            )

    def require_model(self, found: State, fingerprint: str) -> None:
        """Raise ArtifactMismatch unless the table's codes are of a model."""
        if found.fingerprint != fingerprint:
            raise ArtifactMismatch(
                f"the table {self.shown} has codes of model {found.fingerprint[:12]}, and the "
                f"gallery's are of model {fingerprint[:12]}; name another table with --table, or "
                "replace it with --replace"
            )

    def _insert(self, state: State) -> None:
        self._db.execute(
            sql.SQL("DELETE FROM {} WHERE table_name = %s").format(self._states), (self.name,)
        )
        query = sql.SQL(
            "INSERT INTO {} (table_name, {}, format, version, updated) "
            "VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s, now())"
        ).format(self._states, _STATE_COLUMNS)
        self._db.execute(query, (self.name, *astuple(state), _FORMAT, __version__))

    def transaction(self) -> AbstractContextManager[object]:
        """Commit what the block does at its end, or nothing of it on an error."""
        return self._db.transaction()

    def change_state(self, state: State) -> None:
        """Record what the table holds now."""
        query = sql.SQL(
            "UPDATE {} SET ({}, version, updated) = (%s, %s, %s, %s, %s, %s, %s, now()) "
            "WHERE table_name = %s"
        ).format(self._states, _STATE_COLUMNS)
        values = (*astuple(state), __version__, self.name)
        if self._db.execute(query, values).rowcount != 1:
            raise ExportError(f"the row of {self.shown} in {self.schema}.{STATES} is gone")

    # Rows

    def rows_between(self, after: int, until: int | None) -> list[Row]:
        """The rows whose ids follow one and do not exceed another, if there is one."""
        if until is None:
            return self._rows("id > %s", (after,))
        return self._rows("id > %s AND id <= %s", (after, until))

    def rows_of(self, ids: Sequence[int]) -> list[Row]:
        """The rows that have these ids."""
        return self._rows("id = ANY(%s)", (list(ids),))

    def _rows(self, where: str, values: Sequence[Any]) -> list[Row]:
        query = sql.SQL("SELECT {} FROM {} WHERE " + where).format(_COLUMNS, self._sql)
        with self._db.cursor(binary=True) as cursor:
            return [Row(*row) for row in cursor.execute(query, values)]

    def delete(self, ids: Sequence[int]) -> None:
        self._db.execute(self._of("DELETE FROM {} WHERE id = ANY(%s)"), (list(ids),))

    def copy(self, rows: Iterable[Row]) -> None:
        """Add rows."""
        query = sql.SQL("COPY {} ({}) FROM STDIN (FORMAT BINARY)").format(
            sql.SQL(self.quoted), _COLUMNS
        )
        with self._db.cursor() as cursor, cursor.copy(query) as copy:
            copy.set_types(["int8", "text", "text", "bit", "bytea"])
            for row in rows:
                copy.write_row(row)

    def _of(self, query: str) -> sql.Composed:
        return sql.SQL(query).format(self._sql)

    def _one(self, query: str | sql.Composed, *values: Any) -> Any:
        found = self._db.execute(query, values).fetchone()
        return None if found is None else found[0]


def _escaped(quoted: str) -> sql.SQL:
    """A quoted name as a part of a query that is executed with a sequence of values."""
    return sql.SQL(quoted.replace("%", "%%"))


class _BitsDumper(Dumper):
    """Whole bytes as PostgreSQL's bits: their number, then the first bit as the highest."""

    format = Format.BINARY
    oid = 1560

    def dump(self, obj: bytes) -> Buffer:
        return (8 * len(obj)).to_bytes(4, "big") + obj


class _BitsLoader(Loader):
    format = Format.BINARY

    def load(self, data: Buffer) -> bytes:
        return bytes(data[4:])
