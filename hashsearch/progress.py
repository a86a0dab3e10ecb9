"""Progress of long jobs: silent, unless the caller of the library or a command wants to see it."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from contextvars import ContextVar
from typing import TypeAlias

Progress: TypeAlias = Callable[[str, int, int | None], None]


class ProgressReport:
    """Progress of one job. This one is silent; subclasses show it.

    total: how many there will be, as far as it is known by now, or None. unit: what is
    counted, in the plural.
    """

    def __init__(self, what: str, total: int | None, unit: str):
        self.what, self.total, self.unit, self.done = what, total, unit, 0

    def advance(self, done: int, note: str = "") -> None:
        """Count so many more as done. note: shown beside the rate, such as a loss."""
        self.done += done


OpenReport: TypeAlias = Callable[[str, int | None, str], AbstractContextManager[ProgressReport]]


@contextmanager
def _silent(what: str, total: int | None, unit: str) -> Iterator[ProgressReport]:
    yield ProgressReport(what, total, unit)


_open_report: ContextVar[OpenReport] = ContextVar("open_report", default=_silent)


def progress_report(
    what: str, total: int | None = None, unit: str = "images"
) -> AbstractContextManager[ProgressReport]:
    """Report a job of `total` images, or of an unknown number."""
    return _open_report.get()(what, total, unit)


@contextmanager
def reports_opened_by(open_report: OpenReport) -> Iterator[None]:
    """Within the block, and in its thread, progress is shown by these reports."""
    token = _open_report.set(open_report)
    try:
        yield
    finally:
        _open_report.reset(token)


@contextmanager
def reported_to(progress: Progress | None) -> Iterator[None]:
    """Within the block, call `progress(what, done, total)` after every part of a job.

    None leaves everything as it is.
    """
    if progress is None:
        yield
        return
    call = progress

    class Calls(ProgressReport):
        def advance(self, done: int, note: str = "") -> None:
            super().advance(done, note)
            call(self.what, self.done, self.total)

    @contextmanager
    def open_report(what: str, total: int | None, unit: str) -> Iterator[ProgressReport]:
        yield Calls(what, total, unit)

    with reports_opened_by(open_report):
        yield
