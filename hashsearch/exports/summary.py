"""What an export is asked for, and what it did."""

from collections.abc import Callable
from dataclasses import dataclass

NO_INDEX = "none"
INDEXES = ("hnsw", "ivfflat", NO_INDEX)  # kinds of an index of a database; the first is usual


@dataclass(frozen=True, slots=True)
class ExportOptions:
    """How an export is to be made.

    replace: whether a file may be replaced whatever it is. table, index: the table of a database,
    and the kind of its index; None stands for the usual one. stop: is
    asked between chunks.
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
