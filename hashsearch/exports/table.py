"""The table of an export in PostgreSQL, and the row of our own table that describes it."""

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import astuple, dataclass, fields
from typing import Any

from psycopg import Error, sql
from psycopg.adapt import Buffer, Dumper
from psycopg.pq import Format

from hashsearch import __version__
from hashsearch.codes import CODE_BITS
from hashsearch.errors import ArtifactMismatch, ExportError, InvalidQuery
from hashsearch.exports.database import Connection, execute
from hashsearch.exports.rows import Row
from hashsearch.exports.summary import NO_INDEX
from hashsearch.exports.vector_index import require_vector

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
_COLUMNS = ", ".join(_TYPES)
_CHUNK = "pg_temp.hashsearch_chunk"  # holds the rows of one transaction
_OTHERS = [name for name in _TYPES if name != "id"]
_ITS, _NEW = (f"({', '.join(f'{one}.{name}' for name in _OTHERS)})" for one in "tc")
_UPDATE = (
    f"UPDATE {{}} t SET ({', '.join(_OTHERS)}) = {_NEW} FROM {_CHUNK} c "
    f"WHERE t.id = c.id AND t.id BETWEEN %s AND %s AND {_ITS} IS DISTINCT FROM {_NEW}"
)
_INSERT = (
    f"INSERT INTO {{0}} ({_COLUMNS}) SELECT {_COLUMNS} FROM {_CHUNK} c WHERE NOT EXISTS "
    "(SELECT 1 FROM {0} t WHERE t.id = c.id AND t.id BETWEEN %s AND %s)"
)
_DELETE_OTHERS = (
    "DELETE FROM {} t WHERE id > %s AND (id <= %s OR %s) "
    f"AND NOT EXISTS (SELECT 1 FROM {_CHUNK} c WHERE c.id = t.id)"
)
_WAY_OUT = "name another table with --table, or drop this one (DROP TABLE)"
_NO_CHARACTER = "\N{REPLACEMENT CHARACTER}"  # for NUL, which PostgreSQL's text cannot hold
_KINDS = "rpf"  # tables, partitioned ones, and foreign ones


@dataclass(frozen=True, slots=True)
class State:
    """What a table holds of which gallery, as its row in STATES says.

    generation: all changes up to it are in the table, for the images up to the id `loaded`; None
    means for all of them. index: the kind of the index. mark: what a gallery knows that went
    through all generations whose rows are in the table; "" if none does.
    """

    gallery: str
    fingerprint: str
    precision: str
    generation: int
    loaded: int | None
    index: str
    mark: str


_STATE_COLUMNS = sql.SQL(", ").join(sql.Identifier(field.name) for field in fields(State))
_STATE_VALUES = sql.SQL(", ").join([sql.Placeholder()] * len(fields(State)))


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
        schema, self.name = parsed_name(name)
        self._db, self._stop = connection, stop
        self.schema = schema or self._schema()
        self.shown = f"{self.schema}.{self.name}"
        self.quoted = sql.Identifier(self.schema, self.name).as_string(connection)
        self._sql = _escaped(self.quoted)
        self._states = _escaped(sql.Identifier(self.schema, STATES).as_string(connection))
        connection.adapters.register_dumper(None, _BitsDumper)

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
            raise ExportError(
                f"another export writes to the table {self.shown}, perhaps a killed one whose "
                "index is still being built; try again later"
            )
        try:
            yield
        finally:  # the server would do it a moment after the connection was closed
            with suppress(Error):
                self._one("SELECT pg_advisory_unlock(hashtextextended(%s, 0))", key)

    def prepare(self, wanted: State, index: str | None) -> State:
        """Make the table, or check that it is an export of the same gallery; returns its state.

        wanted: the state of a new table. An empty table with the right columns counts as new.
        index: the kind of the index; None means as before. Raises ArtifactMismatch if the table is
        of another gallery or model, and ExportError if it is no export.
        """
        with self.transaction():
            self._db.execute("SELECT pg_advisory_xact_lock(hashtextextended(%s, 0))", (STATES,))
            self._make_states()
            if not self._exists():
                self._create()
            found, is_empty = self._state(), self._is_empty()
            if found is not None:
                self._require_same(found, wanted)
            elif not is_empty:
                raise ExportError(
                    f"the table {self.shown} has rows and was not made by an export; name another "
                    "with --table"
                )
            kind = index or (found or wanted).index
            # Somebody may have emptied it.
            state = dataclasses.replace(wanted if is_empty or not found else found, index=kind)
            if state != found:
                if kind != NO_INDEX:
                    require_vector(self._db, kind)
                self._insert(state)
            self._make_chunk()
        return state

    def _create(self) -> None:
        columns = sql.SQL(", ").join(
            sql.SQL("{} " + kind + _CONSTRAINTS.get(name, " NOT NULL")).format(sql.Identifier(name))
            for name, kind in _TYPES.items()
        )
        self._db.execute(sql.SQL("CREATE TABLE {} ({})").format(self._sql, columns), ())

    def _is_empty(self) -> bool:
        return not self._one(self._of("SELECT EXISTS (SELECT 1 FROM {})"))

    def _make_chunk(self) -> None:
        columns = ", ".join(f"{name} {kind}" for name, kind in _TYPES.items())
        self._db.execute(f"CREATE TEMPORARY TABLE {_CHUNK} ({columns}) ON COMMIT DELETE ROWS")

    def _make_states(self) -> None:
        quoted = sql.Identifier(self.schema, STATES).as_string(self._db)
        if self._one("SELECT to_regclass(%s)", quoted) is None:
            self._db.execute(
                sql.SQL(
                    "CREATE TABLE {} (table_name text PRIMARY KEY, relation oid NOT NULL, "
                    "gallery text NOT NULL, fingerprint text NOT NULL, precision text NOT NULL, "
                    "generation bigint NOT NULL, loaded bigint, index text NOT NULL, "
                    "mark text NOT NULL, format integer NOT NULL, version text NOT NULL, "
                    "updated timestamptz NOT NULL)"
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
        """The table's state; None if none is known, or it is that of a former table."""
        query = sql.SQL(
            "SELECT {}, format FROM {} WHERE table_name = %s AND relation = to_regclass(%s)"
        ).format(_STATE_COLUMNS, self._states)
        found = self._db.execute(query, (self.name, self.quoted)).fetchone()
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
        if found.gallery != wanted.gallery:
            raise ArtifactMismatch(
                f"the table {self.shown} is of another gallery ({found.gallery[:12]}, and this one "
                f"is {wanted.gallery[:12]}); {_WAY_OUT}"
            )
        self.require_model(found, wanted.fingerprint)
        if found.precision != wanted.precision:
            raise ArtifactMismatch(
                f"the codes in the table {self.shown} were made in {found.precision}, and the "
                f"gallery's in {wanted.precision}; {_WAY_OUT}"
            )

    def require_model(self, found: State, fingerprint: str) -> None:
        """Raise ArtifactMismatch unless the table's codes are of a model."""
        if found.fingerprint != fingerprint:
            raise ArtifactMismatch(
                f"the table {self.shown} has codes of model {found.fingerprint[:12]}, and the "
                f"gallery's are of model {fingerprint[:12]}; {_WAY_OUT}"
            )

    def _insert(self, state: State) -> None:
        self._db.execute(
            sql.SQL("DELETE FROM {} WHERE table_name = %s").format(self._states), (self.name,)
        )
        query = sql.SQL(
            "INSERT INTO {} (table_name, relation, {}, format, version, updated) "
            "VALUES (%s, to_regclass(%s), {}, %s, %s, now())"
        ).format(self._states, _STATE_COLUMNS, _STATE_VALUES)
        values = (self.name, self.quoted, *astuple(state), _FORMAT, __version__)
        self._db.execute(query, values)

    def transaction(self) -> AbstractContextManager[object]:
        """Commit what the block does at its end, or nothing of it on an error."""
        return self._db.transaction()

    def change_state(self, state: State) -> None:
        """Record what the table holds now."""
        query = sql.SQL(
            "UPDATE {} SET ({}, version, updated) = ({}, %s, now()) WHERE table_name = %s"
        ).format(self._states, _STATE_COLUMNS, _STATE_VALUES)
        values = (*astuple(state), __version__, self.name)
        if self._db.execute(query, values).rowcount != 1:
            raise ExportError(f"the row of {self.shown} in {self.schema}.{STATES} is gone")

    # Rows

    def count(self) -> int:
        return int(self._one(self._of("SELECT count(*) FROM {}")))

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
        span = (rows[0].id, rows[-1].id)
        return sum(self._changed(one, *span) for one in (_UPDATE, _INSERT))

    def delete(self, ids: Sequence[int]) -> int:
        """Delete the rows that have these ids; returns their number. Raises Stopped."""
        return self._changed("DELETE FROM {} WHERE id = ANY(%s)", list(ids)) if ids else 0

    def delete_others(self, after: int, until: int | None) -> int:
        """Delete rows whose ids follow `after` up to `until`, but those that this transaction put.

        until: None means all that follow. Returns the number of deleted rows. Raises Stopped.
        """
        return self._changed(_DELETE_OTHERS, after, until, until is None)

    def _changed(self, query: str, *values: Any) -> int:
        """Number of rows that a query about the table changes."""
        return execute(self._db, self._of(query), values, self._stop).rowcount

    def _of(self, query: str) -> sql.Composed:
        return sql.SQL(query).format(self._sql)

    def _one(self, query: str | sql.Composed, *values: Any) -> Any:
        found = self._db.execute(query, values).fetchone()
        return None if found is None else found[0]


def _escaped(quoted: str) -> sql.SQL:
    """A quoted name as a part of a query that is executed with a sequence of values."""
    return sql.SQL(quoted.replace("%", "%%"))


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
