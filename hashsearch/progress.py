"""Progress on stderr: a bar on a terminal, a plain line now and then elsewhere."""

import time
from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

_LINE_EVERY_S = 10.0


class ProgressReport:
    """What a long job tells of itself: images done, and a note such as its loss.

    total: how many there will be, as far as is known by now.
    """

    def __init__(self, what: str, total: int | None, bar: Progress | None, console: Console):
        self._what, self.total = what, total
        self._bar, self._console = bar, console
        self._task = bar.add_task(what, total=total, note="") if bar else None
        self._done = 0
        self._started = self._printed = time.monotonic()

    def advance(self, images: int, note: str = "") -> None:
        """Count images as done; the note is shown beside the rate."""
        self._done += images
        now = time.monotonic()
        rate = self._done / max(now - self._started, 1e-9)
        note = "  ".join(part for part in (f"{rate:,.0f} images/s", note) if part)
        if self._bar is not None and self._task is not None:
            self._bar.update(self._task, completed=self._done, total=self.total, note=note)
        elif now - self._printed >= _LINE_EVERY_S:
            self._printed = now
            of_total = f" of {self.total:,}" if self.total else ""
            self._console.print(f"{self._what}: {self._done:,}{of_total}  {note}", soft_wrap=True)


@contextmanager
def progress_report(what: str, total: int | None = None) -> Iterator[ProgressReport]:
    """Report a job of `total` images, or of a number not known beforehand."""
    console = Console(stderr=True, highlight=False)
    if not console.is_terminal:
        yield ProgressReport(what, total, None, console)
        return
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[note]}"),
    )
    with Progress(*columns, console=console) as bar:
        yield ProgressReport(what, total, bar, console)
