"""The targets of exports: each row is a kind, recognized by how it is written."""

from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec
from typing import TYPE_CHECKING, TypeAlias

from hashsearch.errors import InvalidQuery, MissingPackage
from hashsearch.exports.summary import ExportOptions, ExportSummary
from hashsearch.extras import missing

if TYPE_CHECKING:
    from hashsearch.gallery.gallery_folder import GalleryFolder

Export: TypeAlias = "Callable[[GalleryFolder, str, ExportOptions], ExportSummary]"


@dataclass(frozen=True, slots=True)
class Target:
    """A kind of target.

    form: how it is written. matches: whether a text names one. module, package: what
    it needs, and the name that installs it. use: what for. is_database: whether it has tables and
    indexes. export: imports what exports to it.
    """

    form: str
    matches: Callable[[str], bool]
    module: str
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
        module="psycopg",
        package="psycopg[binary]",
        use="exports to PostgreSQL need the package",
        is_database=True,
        export=_postgres,
    ),
    Target(
        form="FILE.parquet",
        matches=lambda text: text.lower().endswith(".parquet") and "://" not in text,
        module="pyarrow",
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
        # It is not shown, since a password may be anywhere in it.
        raise InvalidQuery(f"an export goes to {FORMS}; what was given is neither", "to")
    return target


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
    if find_spec(target.module) is None:
        raise MissingPackage(missing(target.package, target.use))
    return target.export()(gallery, to, options)
