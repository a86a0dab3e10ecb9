"""Progress on stderr: a bar on a terminal, otherwise a line every ten seconds."""

import time
from collections.abc import Iterator
from contextlib import contextmanager

from hashsearch.progress import ProgressReport

_LINE_EVERY_S = 10.0


@contextmanager
def open_report(what: str, total: int | None, unit: str) -> Iterator[ProgressReport]:
    """Show a job's progress; see hashsearch.progress.reports_opened_by."""
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeRemainingColumn,
    )

    console = Console(stderr=True, highlight=False)

    class Lines(ProgressReport):
        def __init__(self) -> None:
            super().__init__(what, total, unit)
            self._started = self._printed = time.monotonic()

        def advance(self, done: int, note: str = "") -> None:
            super().advance(done, note)
            if time.monotonic() - self._printed >= _LINE_EVERY_S:
                self._printed = time.monotonic()
                of_total = f" of {self.total:,}" if self.total else ""
                line = f"{self.what}: {self.done:,}{of_total}  {self.rate(note)}"
                console.print(line, soft_wrap=True)

        def rate(self, note: str) -> str:
            rate = self.done / max(time.monotonic() - self._started, 1e-9)
            return "  ".join(part for part in (f"{rate:,.0f} {unit}/s", note) if part)

    if not console.is_terminal:
        yield Lines()
        return
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[note]}"),
    )
    with Progress(*columns, console=console) as progress:
        task = progress.add_task(what, total=total, note="")

        class Bar(Lines):
            def advance(self, done: int, note: str = "") -> None:
                ProgressReport.advance(self, done, note)
                progress.update(task, completed=self.done, total=self.total, note=self.rate(note))

        yield Bar()
