"""The table of an export in PostgreSQL, and the rows that are written to it."""

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from typing import Any

from psycopg import Error, sql
from psycopg.adapt import Buffer, Dumper
from psycopg.pq import Format

from hashsearch.codes import CODE_BITS
from hashsearch.errors import ExportError, InvalidQuery
from hashsearch.exports.database import Connection, execute
from hashsearch.exports.rows import Row
from hashsearch.exports.state import STATES, State, StateRow, escaped, require_same
from hashsearch.exports.targets import NO_INDEX
from hashsearch.exports.vector_index import require_vector

DEFAULT_TABLE = "hashsearch_images"
_LONGEST_NAME = 63  # bytes; PostgreSQL cuts off the rest
_TYPES = {
    "id": "bigint",
    "uri": "text",
    "label": "text",
    "code": f"bit({CODE_BITS})",
    "key": "bytea",
}
_CONSTRAINTS = {"id": " PRIMARY KEY", "label": ""}
_COLUMNS = ", ".join(_TYPES)
_CHUNK = "pg_temp.hashsearch_chunk"  # holds the rows of one transaction
_OTHERS = [name for name in _TYPES if name != "id"]
_ITS, _NEW = (f"({', '.join(f'{one}.{name}' for name in _OTHERS)})" for one in "tc")
# What {1} says of the ids is known already, but another server's partition is read by it alone.
_UPDATE = (
    f"UPDATE {{0}} t SET ({', '.join(_OTHERS)}) = {_NEW} FROM {_CHUNK} c "
    f"WHERE t.id = c.id AND t.id {{1}} AND {_ITS} IS DISTINCT FROM {_NEW}"
)
_INSERT = (
    f"INSERT INTO {{0}} ({_COLUMNS}) SELECT {_COLUMNS} FROM {_CHUNK} c "
    "WHERE NOT EXISTS (SELECT 1 FROM {0} t WHERE t.id = c.id AND t.id {1})"
)
_DELETE_OTHERS = (
    "DELETE FROM {} t WHERE id > %s AND (id <= %s OR %s) "
    f"AND NOT EXISTS (SELECT 1 FROM {_CHUNK} c WHERE c.id = t.id)"
)
_AMONG, _BETWEEN = sql.SQL("= ANY (%s::bigint[])"), sql.SQL("BETWEEN %s AND %s")
_LOCKED, _LOCKED_WITHIN, _UNLOCK = (  # by a number that a text has; users cannot replace these
    f"SELECT pg_catalog.{function}(pg_catalog.hashtextextended(%s, 0::bigint))"
    for function in ("pg_try_advisory_lock", "pg_advisory_xact_lock", "pg_advisory_unlock")
)
_NO_CHARACTER = "\N{REPLACEMENT CHARACTER}"  # for NUL, which PostgreSQL's text cannot hold
_KINDS = "rpf"  # tables, partitioned ones, and foreign ones


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

    def __init__(self, connection: Connection, name: str, stop: Callable[[], bool]):
        """name: NAME or SCHEMA.NAME. stop: is asked while rows are written, which it ends.

        Raises InvalidQuery, and ExportError without a schema.
        """
        schema, name = parsed_name(name)
        self._db, self._stop = connection, stop
        schema = schema or self._schema(name)
        self.shown = f"{schema}.{name}"
        self.quoted = sql.Identifier(schema, name).as_string(connection)
        self._sql = escaped(self.quoted)
        self._state = StateRow(connection, schema, name)
        connection.adapters.register_dumper(None, _BitsDumper)

    def _schema(self, name: str) -> str:
        """The schema of the table that an unqualified name means, or in which it is made."""
        found = self._one(
            "SELECT coalesce((SELECT nspname FROM pg_class c JOIN pg_namespace n "
            "ON n.oid = relnamespace WHERE c.oid = to_regclass(%s)), current_schema())",
            sql.Identifier(name).as_string(self._db),
        )
        if found is None:
            raise ExportError("the database has no schema for the table; name one: SCHEMA.NAME")
        return str(found)

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Keep other exports to this table out. Raises ExportError if one is at work."""
        key = f"hashsearch export {self.shown}"
        if not self._one(_LOCKED, key):
            raise ExportError(
                f"another export writes to the table {self.shown}, perhaps a killed one whose "
                "index is still being built; try again later"
            )
        try:
            yield
        finally:  # the server would do it a moment after the connection was closed
            with suppress(Error):
                self._one(_UNLOCK, key)

    # Before rows are written

    def prepare(self, wanted: State, index: str | None) -> State:
        """Make the table, or check that it is an export of the same gallery; returns its state.

        wanted: the state of a new table. An empty table with the right columns counts as new.
        index: the kind of the index; None means as before. Raises ArtifactMismatch if the table is
        of another gallery or model, and ExportError if it is no export.
        """
        with self.transaction():
            self._one(_LOCKED_WITHIN, STATES)
            self._state.make_table()
            self._relation = self._found() or self._created()
            found = self._state.read(self._relation)
            kind = index or (found or wanted).index
            if not self._one(self._of("SELECT EXISTS (SELECT 1 FROM {})")):
                state = dataclasses.replace(wanted, index=kind)
            elif found is None:
                raise ExportError(
                    f"the table {self.shown} has rows and was not made by an export; name another "
                    "with --table"
                )
            else:
                require_same(self.shown, found, wanted)
                state = dataclasses.replace(found, index=kind)
            if state != found:
                if kind != NO_INDEX:
                    require_vector(self._db, kind)
                self.record(state)
            self._make_chunk()
        return state

    def _found(self) -> int | None:
        """The table's oid; None if there is none. Raises ExportError if rows cannot go there."""
        query = "SELECT oid, relkind::text FROM pg_class WHERE oid = to_regclass(%s)"
        found = self._db.execute(query, (self.quoted,)).fetchone()
        if found is None:
            return None
        relation, kind = found
        if kind not in _KINDS:
            raise ExportError(f"{self.shown} is there and is not a table; name another: --table")
        query = (
            "SELECT attname, format_type(atttypid, atttypmod) FROM pg_attribute "
            "WHERE attrelid = %s AND attnum > 0 AND NOT attisdropped"
        )
        columns: dict[str, str] = dict(self._db.execute(query, (relation,)).fetchall())
        wrong = [f"{name} {kind}" for name, kind in _TYPES.items() if columns.get(name) != kind]
        if wrong:
            raise ExportError(
                f"the table {self.shown} is there and lacks what an export has: "
                f"{', '.join(wrong)}; name another with --table"
            )
        return int(relation)

    def _created(self) -> int:
        """Make the table; returns its oid."""
        columns = sql.SQL(", ").join(
            sql.SQL("{} " + kind + _CONSTRAINTS.get(name, " NOT NULL")).format(sql.Identifier(name))
            for name, kind in _TYPES.items()
        )
        self._db.execute(sql.SQL("CREATE TABLE {} ({})").format(self._sql, columns), ())
        return int(self._one("SELECT to_regclass(%s)::oid", self.quoted))

    def _make_chunk(self) -> None:
        columns = ", ".join(f"{name} {kind}" for name, kind in _TYPES.items())
        self._db.execute(f"CREATE TEMPORARY TABLE {_CHUNK} ({columns}) ON COMMIT DELETE ROWS")

    # Rows

    def transaction(self) -> AbstractContextManager[object]:
        """Commit what the block does at its end, or nothing of it on an error."""
        return self._db.transaction()

    def record(self, state: State) -> None:
        """Record what the table holds now."""
        self._state.record(self._relation, state)

    def count(self) -> int:
        """Number of rows. Each partition is counted by itself, so that its server does it."""
        parts = "SELECT relid::regclass::text FROM pg_partition_tree(%s) WHERE isleaf"
        names = [name for (name,) in self._db.execute(parts, (self._relation,))] or [self.quoted]
        query = sql.SQL("SELECT count(*) FROM {}")
        return sum(self._one(query.format(escaped(name))) for name in names)

    def put(self, rows: Sequence[Row]) -> int:
        """Change and add rows, ordered by id, where the table has others. Raises Stopped.

        Returns the number of rows that were written. Further columns keep what they hold.
        """
        if not rows:
            return 0
        query = f"COPY {_CHUNK} ({_COLUMNS}) FROM STDIN (FORMAT BINARY)"
        with self._db.cursor() as cursor, cursor.copy(query) as copy:
            copy.set_types(["int8", "text", "text", "bit", "bytea"])
            for row in rows:
                copy.write_row(_storable(row))
        ids = [row.id for row in rows]
        if ids[-1] - ids[0] < 2 * len(ids):
            return self._put(_BETWEEN, ids[0], ids[-1])
        return self._put(_AMONG, ids)

    def _put(self, ids: sql.SQL, *values: Any) -> int:
        """Put what was copied. ids: an SQL condition of its ids, and its parameters."""
        return sum(self._changed(self._of(one, ids), *values) for one in (_UPDATE, _INSERT))

    def delete(self, ids: Sequence[int]) -> int:
        """Delete the rows that have these ids; returns their number. Raises Stopped."""
        query = self._of("DELETE FROM {} WHERE id {}", _AMONG)
        return self._changed(query, list(ids)) if ids else 0

    def delete_others(self, after: int, until: int | None) -> int:
        """Delete rows whose ids follow `after` up to `until`, but those that this transaction put.

        until: None means all that follow. Returns the number of deleted rows. Raises Stopped.
        """
        return self._changed(self._of(_DELETE_OTHERS), after, until, until is None)

    def _changed(self, query: sql.Composed, *values: Any) -> int:
        """Number of rows that a query changes."""
        return execute(self._db, query, values, self._stop).rowcount

    def _of(self, query: str, *parts: sql.SQL) -> sql.Composed:
        return sql.SQL(query).format(self._sql, *parts)

    def _one(self, query: str | sql.Composed, *values: Any) -> Any:
        found = self._db.execute(query, values).fetchone()
        return None if found is None else found[0]


def _storable(row: Row) -> Row:
    if row.label is None or "\0" not in row.label:
        return row
    return row._replace(label=row.label.replace("\0", _NO_CHARACTER))


class _BitsDumper(Dumper):
    """Whole bytes as PostgreSQL's bits: their number, then the first bit as the highest."""

    format = Format.BINARY
    oid = 1560

    def dump(self, obj: bytes) -> Buffer:
        return (8 * len(obj)).to_bytes(4, "big") + obj
