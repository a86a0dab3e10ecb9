"""What a table of PostgreSQL holds of which gallery: a row of a table of our own beside it."""

from dataclasses import astuple, dataclass, fields
from typing import Any

from psycopg import Cursor, sql

from hashsearch import __version__
from hashsearch.errors import ArtifactMismatch, ExportError
from hashsearch.exports.database import Connection

STATES = "hashsearch_exports"
_FORMAT = 1  # of the table and its row in STATES
_WAY_OUT = "name another table with --table, or drop this one (DROP TABLE)"


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


_OF_STATE = [sql.Identifier(field.name) for field in fields(State)]
_NAMES = [sql.Identifier(name) for name in ("table_name", "relation", "format", "version")]
_NAMES += _OF_STATE
_CREATE = (
    "CREATE TABLE {states} (table_name text PRIMARY KEY, relation oid NOT NULL, "
    "gallery text NOT NULL, fingerprint text NOT NULL, precision text NOT NULL, "
    "generation bigint NOT NULL, loaded bigint, index text NOT NULL, mark text NOT NULL, "
    "format integer NOT NULL, version text NOT NULL, updated timestamptz NOT NULL)"
)
_READ = "SELECT format, {state} FROM {states} WHERE table_name = %s AND relation = %s"
_RECORD = (
    "INSERT INTO {states} ({names}, updated) VALUES ({values}, now()) "
    "ON CONFLICT (table_name) DO UPDATE SET ({names}, updated) = ({new}, now())"
)
_COMMA = sql.SQL(", ")
_PARTS = {
    "state": _COMMA.join(_OF_STATE),
    "names": _COMMA.join(_NAMES),
    "values": _COMMA.join([sql.Placeholder()] * len(_NAMES)),
    "new": _COMMA.join(sql.SQL("EXCLUDED.{}").format(name) for name in _NAMES),
}


class StateRow:
    """The row of one table, in the table STATES of its schema.

    shown: the table's name for messages. What is read and written is a part of the current
    transaction.
    """

    def __init__(self, connection: Connection, schema: str, name: str):
        self._db, self._name, self.shown = connection, name, f"{schema}.{name}"
        self._quoted = sql.Identifier(schema, STATES).as_string(connection)
        self._parts = {**_PARTS, "states": escaped(self._quoted)}

    def make_table(self) -> None:
        """Make STATES unless it is there."""
        (found,) = self._db.execute("SELECT to_regclass(%s)", (self._quoted,)).fetchone() or (None,)
        if found is None:
            self._execute(_CREATE)

    def read(self, relation: int) -> State | None:
        """The state of the table with this oid; None if none is known, or only a former table's.

        Raises ExportError if it is of another format.
        """
        found = self._execute(_READ, self._name, relation).fetchone()
        if found is None:
            return None
        version, *values = found
        if version != _FORMAT:
            raise ExportError(
                f"the table {self.shown} is of format {version}; this version of hashsearch writes "
                f"{_FORMAT}"
            )
        return State(*values)

    def record(self, relation: int, state: State) -> None:
        """Record what the table with this oid holds now."""
        self._execute(_RECORD, self._name, relation, _FORMAT, __version__, *astuple(state))

    def _execute(self, query: str, *values: Any) -> Cursor[tuple[Any, ...]]:
        return self._db.execute(sql.SQL(query).format(**self._parts), values)


def require_same(shown: str, found: State, wanted: State) -> None:
    """Raise ArtifactMismatch unless a table's codes are of a gallery and its model."""
    if found.gallery != wanted.gallery:
        raise ArtifactMismatch(
            f"the table {shown} is of another gallery ({found.gallery[:12]}, and this one is "
            f"{wanted.gallery[:12]}); {_WAY_OUT}"
        )
    require_model(shown, found, wanted.fingerprint)
    if found.precision != wanted.precision:
        raise ArtifactMismatch(
            f"the codes in the table {shown} were made in {found.precision}, and the gallery's in "
            f"{wanted.precision}; {_WAY_OUT}"
        )


def require_model(shown: str, found: State, fingerprint: str) -> None:
    """Raise ArtifactMismatch unless a table's codes are of a model."""
    if found.fingerprint != fingerprint:
        raise ArtifactMismatch(
            f"the table {shown} has codes of model {found.fingerprint[:12]}, and the gallery's are "
            f"of model {fingerprint[:12]}; {_WAY_OUT}"
        )


def escaped(quoted: str) -> sql.SQL:
    """A quoted name as a part of a query that is executed with a sequence of values."""
    return sql.SQL(quoted.replace("%", "%%"))
