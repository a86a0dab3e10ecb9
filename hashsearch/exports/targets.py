"""Exports: what they are asked for, what they did, and the table of their targets."""

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

from hashsearch.errors import InvalidQuery, MissingPackage
from hashsearch.extras import missing

if TYPE_CHECKING:
    from hashsearch.gallery.gallery_folder import GalleryFolder

NO_INDEX = "none"
INDEXES = ("hnsw", "ivfflat", NO_INDEX)  # kinds of an index of a database; the first is usual


@dataclass(frozen=True, slots=True)
class ExportOptions:
    """How an export is to be made.

    replace: whether a file may be replaced whatever it is. table, index: the table of a database,
    and the kind of its index; None stands for the usual one. stop: is asked between chunks.
    """

    replace: bool
    table: str | None
    index: str | None
    stop: Callable[[], bool]


@dataclass(frozen=True, slots=True)
class ExportSummary:
    """Outcome of an export.

    to: the file, or the database's URL without passwords. table: with its schema; None for a
    file. images: in the export now. written: rows that were written. removed: rows of images that
    are not in the gallery any more. generation: the gallery's, which the export shows. fingerprint:
    of the model that made the codes. stopped: whether it ended before it was complete. remarks:
    sentences for people.

    >>> gallery.export("codes.parquet").written
    300
    """

    to: str
    table: str | None
    images: int
    written: int
    removed: int
    generation: int
    fingerprint: str
    seconds: float
    stopped: bool = False
    remarks: tuple[str, ...] = ()


Export: TypeAlias = "Callable[[GalleryFolder, str, ExportOptions], ExportSummary]"


@dataclass(frozen=True, slots=True)
class Target:
    """A kind of target.

    form: how it is written. matches: whether a text names one. package: the name that installs
    what it needs. use: what for. is_database: whether it has tables and indexes. export: imports
    what exports to it.
    """

    form: str
    matches: Callable[[str], bool]
    package: str
    use: str
    is_database: bool
    export: Callable[[], Export]


def _parquet() -> Export:
    from hashsearch.exports.parquet import export_to_parquet

    return export_to_parquet


def _postgres() -> Export:
    from hashsearch.exports.postgres import export_to_postgres

    return export_to_postgres


TARGETS = (
    Target(
        form="postgresql://…",
        matches=lambda text: text.startswith(("postgresql://", "postgres://")),
        package="psycopg[binary]",
        use="exports to PostgreSQL need the package",
        is_database=True,
        export=_postgres,
    ),
    Target(
        form="FILE.parquet",
        matches=lambda text: text.lower().endswith(".parquet") and "://" not in text,
        package="pyarrow",
        use="Parquet files are written by",
        is_database=False,
        export=_parquet,
    ),
)
FORMS = " or ".join(target.form for target in reversed(TARGETS))


def target_of(to: str) -> Target:
    """The target that a text names. Raises InvalidQuery if there is none."""
    target = next((target for target in TARGETS if target.matches(to)), None)
    if target is None:
        raise InvalidQuery(f"an export goes to {FORMS}; {_shown(to)} is neither", "to")
    return target


def _shown(to: str) -> str:
    """What a message shows of a text that names no target, since a password may be in it."""
    if scheme := re.match(r"[a-z][a-z0-9+.-]*://", to, re.IGNORECASE):
        return f"{scheme[0]}…"
    return "what was given" if re.search("[:@=?]", to) else repr(to)


def export_to(gallery: "GalleryFolder", to: str, options: ExportOptions) -> ExportSummary:
    """Export a gallery to a file or a database.

    Raises InvalidQuery if `to` names no target, or the options do not suit it, MissingPackage, and
    what the target's export raises.
    """
    target = target_of(to)
    for name in ("table", "index"):
        if not target.is_database and getattr(options, name) is not None:
            raise InvalidQuery(f"a file has no {name}; it is for exports to PostgreSQL", name)
    if target.is_database and options.replace:
        raise InvalidQuery(
            "only files are replaced; drop the table (DROP TABLE), or name another one", "replace"
        )
    try:
        export = target.export()
    except ImportError as error:  # also of psycopg without libpq
        raise MissingPackage(missing(target.package, target.use)) from error
    return export(gallery, to, options)
