"""Records of the jobs that wrote to a gallery."""

import json
import os
import socket
import sqlite3
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from threading import Event, Thread
from typing import Any, Literal

from hashsearch.errors import InvalidGallery
from hashsearch.gallery.catalog import Catalog
from hashsearch.gallery.changes import now

Kind = Literal["index", "compact", "reencode", "build"]
UPDATE_EVERY_S = 2.0
_SILENT_AFTER_S = 60.0
COUNTS = (
    "indexed",
    "duplicates",
    "moved",
    "unchanged",
    "failed",
    "skipped",
    "excluded",
    "pruned",
)


@dataclass(frozen=True, slots=True)
class Job:
    """A job as it was last recorded; a running job records itself every few seconds.

    state: "running", "done", "stopped" (by a person, or after too many failures), "failed"
    (by an error), "killed" (its process is gone), or "silent" (it has not recorded itself for a
    minute, and its process cannot be checked or still exists). expected: estimated number of images
    that the job goes through, or None. counts: number of images by outcome.
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
        """Number of images that the job has gone through."""
        return sum(self.counts.values()) - self.counts["pruned"]

    @property
    def images_per_second(self) -> float:
        """Mean over the job so far; unchanged images count too."""
        until = self.ended or self.updated or self.started
        span = datetime.fromisoformat(until) - datetime.fromisoformat(self.started)
        return self.seen / max(span.total_seconds(), 1.0)

    def as_dict(self) -> dict[str, Any]:
        """The job and its speed, as values for JSON."""
        return asdict(self) | {"images_per_second": round(self.images_per_second, 1)}


def start_job(catalog: Catalog, kind: Kind, sources: Sequence[str] = ()) -> int:
    """Record a job as running and return its id; the caller holds the job lock.

    A job still recorded as running was killed, and is recorded as failed.
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
    """Record a job's counts and state, and the time of its end unless it is running."""
    time = now()
    with catalog.transaction() as db:
        db.execute(
            "UPDATE jobs SET state = ?, ended = ?, updated = ?, expected = coalesce(?, expected) "
            "WHERE id = ?",
            (state, None if state == "running" else time, time, expected, job),
        )
        for name in COUNTS:
            db.execute(f"UPDATE jobs SET {name} = ? WHERE id = ?", (counts.get(name, 0), job))


class JobRecord:
    """Records a job while it runs: its progress every few seconds, and how it ended.

    counts: returns the number of images by outcome, by names of COUNTS. expected: may be set
    when it becomes known. Enter it with the job lock held.
    """

    def __init__(
        self,
        catalog: Catalog,
        kind: Kind,
        sources: Sequence[str] = (),
        counts: Callable[[], Mapping[str, int]] = dict,
    ):
        self.expected: int | None = None
        self.stopped = False  # by a person, or after too many failures
        self._catalog, self._counts = catalog, counts
        self._job = start_job(catalog, kind, sources)
        self._over = Event()
        self._thread = Thread(target=self._keep_updating, name="job record", daemon=True)

    def __enter__(self) -> "JobRecord":
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self._over.set()
        self._thread.join()
        stopped = self.stopped or (kind is not None and issubclass(kind, KeyboardInterrupt))
        state = "stopped" if stopped else "done" if kind is None else "failed"
        # On a full disk or in a deleted gallery, the job's own error is the one to raise.
        with suppress(sqlite3.Error, InvalidGallery):
            self._update(state)

    def is_over(self) -> bool:
        return self._over.is_set()

    def _keep_updating(self) -> None:
        while not self._over.wait(UPDATE_EVERY_S):
            with suppress(sqlite3.Error, InvalidGallery):  # if it persists, the job itself fails
                self._update("running")

    def _update(self, state: str) -> None:
        update_job(self._catalog, self._job, dict(self._counts()), state, self.expected)


def last_job(catalog: Catalog) -> Job | None:
    """The newest job, or None if there was none."""
    row = catalog.last_row("jobs")
    if row is None:
        return None
    return Job(
        kind=row["kind"],
        state=_state(row),
        sources=json.loads(row["sources"]),
        pid=row["pid"],
        host=row["host"],
        started=row["started"],
        ended=row["ended"],
        updated=row["updated"],
        expected=row["expected"],
        counts={name: row[name] for name in COUNTS},
    )


def _state(row: Mapping[str, Any]) -> str:
    if row["state"] != "running":
        return str(row["state"])
    if row["host"] == socket.gethostname() and not _exists(row["pid"]):
        return "killed"
    last_update = datetime.fromisoformat(row["updated"] or row["started"])
    silent = (datetime.now(UTC) - last_update).total_seconds() > _SILENT_AFTER_S
    return "silent" if silent else "running"


def _exists(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:  # another user's process
        return True
    return True
