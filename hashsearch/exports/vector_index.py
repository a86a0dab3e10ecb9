"""Indexes of a table's codes by pgvector, for searches by Hamming distance."""

import math
from collections.abc import Callable

from psycopg import errors, sql

from hashsearch.errors import ExportError
from hashsearch.exports.database import Connection, execute
from hashsearch.progress import progress_report

_OPERATORS = "bit_hamming_ops"
_MANY = 1_000_000
# How each kind is made, by the number of rows.
_PARAMETERS: dict[str, Callable[[int], str]] = {
    "hnsw": lambda rows: "",
    # Source: pgvector's README, "IVFFlat".
    "ivfflat": lambda rows: (
        f" WITH (lists = {max(rows // 1000 if rows <= _MANY else math.isqrt(rows), 1)})"
    ),
}
_INDEXES = (
    "FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid JOIN pg_am a ON a.oid = c.relam "
    "JOIN pg_namespace n ON n.oid = c.relnamespace JOIN pg_opclass o ON o.oid = i.indclass[0] "
    f"WHERE i.indrelid = to_regclass(%s) AND o.opcname = '{_OPERATORS}' AND i.indpred IS NULL "
    "AND i.indkey[0] = (SELECT attnum FROM pg_attribute "
    "WHERE attrelid = i.indrelid AND attname = 'code')"
)


def require_vector(db: Connection, kind: str) -> str:
    """The schema of pgvector's operators; adds pgvector to the database if it is missing.

    Raises ExportError if it has no index of this kind.
    """
    schema = _schema_of_operators(db, kind)
    if schema is not None:
        return schema
    try:
        db.execute("CREATE EXTENSION IF NOT EXISTS vector")
    except errors.InsufficientPrivilege as error:
        raise ExportError(
            "the database lacks the extension vector (pgvector), which this user may not add; an "
            "administrator runs CREATE EXTENSION vector, or --index none exports without an index"
        ) from error
    except (errors.FeatureNotSupported, errors.UndefinedFile) as error:
        raise ExportError(
            "the server has no pgvector; install it there, or export without an index: --index none"
        ) from error
    schema = _schema_of_operators(db, kind)
    if schema is None:
        raise ExportError(
            f"the database's pgvector has no {kind} index of bits by Hamming distance; 0.7 or "
            "later is wanted (ALTER EXTENSION vector UPDATE), or --index none"
        )
    return schema


def _schema_of_operators(db: Connection, kind: str) -> str | None:
    query = (
        "SELECT nspname FROM pg_opclass JOIN pg_am a ON a.oid = opcmethod "
        "JOIN pg_namespace n ON n.oid = opcnamespace WHERE opcname = %s AND amname = %s"
    )
    found = db.execute(query, (_OPERATORS, kind)).fetchone()
    return None if found is None else str(found[0])


def make_index(db: Connection, table: str, kind: str, rows: int, stop: Callable[[], bool]) -> None:
    """Make an index of a table's codes unless there is one of the kind.

    table: its quoted name. rows: their number. Raises Stopped, and ExportError if the memory that
    the server allows is too small.
    """
    found = db.execute(f"SELECT 1 {_INDEXES} AND a.amname = %s AND i.indisvalid", (table, kind))
    if found.fetchone() is not None:
        return
    schema = require_vector(db, kind)  # somebody may have dropped it, and its indexes with it
    query = sql.SQL("CREATE INDEX ON {} USING {} (code {})" + _PARAMETERS[kind](rows)).format(
        sql.SQL(table), sql.SQL(kind), sql.Identifier(schema, _OPERATORS)
    )
    with progress_report(f"building the {kind} index", None, "rows"):
        try:
            execute(db, query, None, stop)
        except errors.ProgramLimitExceeded as error:
            raise ExportError(
                f"the {kind} index cannot be built: {error.diag.message_primary}; set more before "
                "the command: PGOPTIONS='-c maintenance_work_mem=2GB'"
            ) from error
