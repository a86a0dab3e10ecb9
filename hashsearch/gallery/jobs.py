"""The jobs that wrote to a gallery, told by the catalog to whoever wants to know."""

import json
import os
import socket
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any, Literal

from hashsearch.gallery.catalog import Catalog
from hashsearch.gallery.changes import now

Kind = Literal["index", "compact", "reencode"]
COUNTS = ("indexed", "duplicates", "unchanged", "failed", "skipped")


@dataclass(frozen=True, slots=True)
class Job:
    """The state of a job when it last told of itself, some seconds ago if it runs.

    state: running, done, stopped (by a person, or by too many failures), failed
    (by an error), or killed. expected: about how many images there are to go
    through; None if that is not known. counts: images by what became of them.
    """

    kind: str
    state: str
    sources: list[str]
    pid: int
    host: str
    started: str
    ended: str | None
    updated: str | None
    expected: int | None
    counts: dict[str, int]

    @property
    def seen(self) -> int:
        """How many images the job has gone through."""
        return sum(self.counts.values())

    @property
    def images_per_second(self) -> float:
        """Over the job so far, images that needed no work included."""
        until = self.ended or self.updated or self.started
        span = datetime.fromisoformat(until) - datetime.fromisoformat(self.started)
        return self.seen / max(span.total_seconds(), 1.0)

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self) | {"images_per_second": round(self.images_per_second, 1)}


def start_job(catalog: Catalog, kind: Kind, sources: Sequence[str] = ()) -> int:
    """Record a job as running, for others to see. Call it with the job lock held.

    A job found running by then was killed, and is recorded as failed.
    """
    with catalog.transaction() as db:
        db.execute("UPDATE jobs SET state = 'failed' WHERE state = 'running'")
        cursor = db.execute(
            "INSERT INTO jobs (kind, sources, state, pid, host, started) "
            "VALUES (?, ?, 'running', ?, ?, ?)",
            (kind, json.dumps(list(sources)), os.getpid(), socket.gethostname(), now()),
        )
        assert cursor.lastrowid is not None
        return cursor.lastrowid


def update_job(
    catalog: Catalog,
    job: int,
    counts: Mapping[str, int],
    state: str = "running",
    expected: int | None = None,
) -> None:
    """Record a job's counts, and its end where `state` is no longer running."""
    time = now()
    with catalog.transaction() as db:
        db.execute(
            "UPDATE jobs SET state = ?, ended = ?, updated = ?, expected = coalesce(?, expected) "
            "WHERE id = ?",
            (state, None if state == "running" else time, time, expected, job),
        )
        for name in COUNTS:
            db.execute(f"UPDATE jobs SET {name} = ? WHERE id = ?", (counts.get(name, 0), job))


@contextmanager
def recorded(catalog: Catalog, kind: Kind) -> Iterator[None]:
    """Record what is done within as a job, and how it ended. Call it with the job lock held."""
    job, state = start_job(catalog, kind), "failed"
    try:
        yield
        state = "done"
    except KeyboardInterrupt:
        state = "stopped"
        raise
    finally:
        with suppress(sqlite3.Error):  # on a full disk the first error is the one to tell
            update_job(catalog, job, {}, state)


def last_job(catalog: Catalog) -> Job | None:
    """The newest job, or None if there was none."""
    row = catalog.last_row("jobs")
    if row is None:
        return None
    return Job(
        kind=row["kind"],
        state="killed" if row["state"] == "running" and not _runs(row) else row["state"],
        sources=json.loads(row["sources"]),
        pid=row["pid"],
        host=row["host"],
        started=row["started"],
        ended=row["ended"],
        updated=row["updated"],
        expected=row["expected"],
        counts={name: row[name] for name in COUNTS},
    )


def _runs(row: Mapping[str, object]) -> bool:
    """Whether a job's process may still be there; one of another host may."""
    if row["host"] != socket.gethostname():
        return True
    try:
        os.kill(int(str(row["pid"])), 0)
    except ProcessLookupError:
        return False
    except PermissionError:  # somebody else's process
        return True
    return True
