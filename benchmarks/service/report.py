"""The table of the service as JSON, and as a section of a page.

    python -m benchmarks.service.report

writes the section of docs/benchmarks.md from docs/service.json.
"""

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path

from benchmarks.quoting import replaced
from benchmarks.search.codes import MILLION
from benchmarks.service.measure import IDS, PHOTOGRAPHS, Load, Stages
from hashsearch.wording import counted

ROOT = Path(__file__).parents[2]
_JSON, _PAGE = ROOT / "docs/service.json", ROOT / "docs/benchmarks.md"
SECONDS, CONNECTIONS = 60, 16
WANTED = {PHOTOGRAPHS: 250, IDS: 800}  # answers a second, on two cores
WANTED_P99_MS = 100  # of photographs


@dataclass(frozen=True)
class Report:
    """Results, and what they depend on.

    cores: that the run could use. others_percent: share of the processors that other programs
    used. versions: by package. seconds: of the whole run. load_seconds: of the two main loads.
    photographs: number of them. image_bytes: their median size.
    """

    command: str
    date: str
    hardware: str
    cores: int
    others_percent: float
    versions: dict[str, str]
    fingerprint: str
    seconds: float
    load_seconds: int
    photographs: int
    image_bytes: int
    loads: list[Load]
    stages: list[Stages]

    def to_json(self) -> str:
        return json.dumps(asdict(self), indent=1) + "\n"

    @classmethod
    def from_json(cls, text: str) -> "Report":
        raw = json.loads(text)
        loads = [Load(**load) for load in raw["loads"]]
        return cls(**{**raw, "loads": loads, "stages": [Stages(**one) for one in raw["stages"]]})


def missed(report: Report) -> list[str]:
    """One sentence for each target that the service missed; they are set for two cores."""
    if report.cores != 2:
        return []
    found = []
    for one in report.loads:
        if one.by != "hashsearch serve" or one.connections != CONNECTIONS or one.beside:
            continue
        if one.rate < (wanted := WANTED.get(one.what, 0)):
            found.append(f"{one.what}: {one.rate:.0f} answers a second, not {wanted}")
        if one.what == PHOTOGRAPHS and one.p99_ms >= WANTED_P99_MS:
            found.append(f"{one.what}: p99 {one.p99_ms:.0f} ms, not under {WANTED_P99_MS}")
    return found


def published() -> Report:
    """The report that the page shows."""
    return Report.from_json(_JSON.read_text())


def publish(report: Report) -> None:
    """Write docs/service.json, and the section that shows it."""
    _JSON.write_text(report.to_json())
    _PAGE.write_text(with_section(_PAGE.read_text(), report))


def with_section(page: str, report: Report) -> str:
    """The page with its section on the service replaced."""
    return replaced(page, "benchmarks.service.report", to_markdown(report))


def to_markdown(report: Report) -> str:
    """The section: what is measured, the tables, and their circumstances."""
    header = ["request", "by", "connections", "answers a second", "p50, ms", "p90, ms", "p99, ms",
              "longest, ms", "processor, ms an answer", "wrk's, ms", "cores busy",
              "at most a second"]  # fmt: skip
    names = list(dict.fromkeys(name for one in report.stages for name in one.stages))
    staged = [
        [one.what, one.by, _ms(one.whole_ms), *(_ms(one.stages.get(name)) for name in names)]
        + ([_ms(one.whole_ms - sum(one.stages.values()))] if names else [])
        for one in report.stages
    ]
    return "\n".join(
        [
            "## The service",
            "",
            f"`make bench` starts `hashsearch serve` with a gallery of {MILLION:,} of the rows "
            "above, without pixels, and loads it by wrk on the same cores. "
            f"On two cores, it should answer {WANTED[PHOTOGRAPHS]} photographs a second, 99 of 100 "
            f"within {WANTED_P99_MS} ms, and {WANTED[IDS]} ids. A failed request fails the "
            "benchmark.",
            "",
            f"- A photograph is one of {report.photographs}, in turn, as the body of the request "
            f"(the median has {report.image_bytes:,} bytes); an id is random, in JSON. All ask "
            "for ten neighbours.",
            f"- {CONNECTIONS} connections send their next request when the last is answered, for "
            f"{report.load_seconds} seconds; the other rows take a sixth of that.",
            "- “FastAPI alone” reads the request and sends the same answer each time. “Library” is "
            "`gallery.search` in a loop, without a service.",
            "- “At most” is the rate at which server and wrk keep every core busy, at this "
            "processor time an answer.",
            "",
            *_table(header, (_cells(one, report.cores) for one in report.loads)),
            "",
            "Requests that are sent one after another take these medians, in ms. The service "
            "measures the stages itself (header `Server-Timing`). The rest includes the client's "
            "own time, and so does the whole of “FastAPI alone”.",
            "",
            *_table(["request", "by", "whole", *names, *(["the rest"] if names else [])], staged),
            "",
            f"- `{report.command}`, {counted(round(report.seconds / 60), 'minute')}",
            f"- {_circumstances(report)}",
        ]
    )


def _cells(one: Load, cores: int) -> list[str]:
    busy = most = ""
    if one.server_ms is not None:
        both = one.server_ms + (one.wrk_ms or 0)
        busy, most = f"{one.rate * both / 1000:.2f}", f"{1000 * cores / both:,.0f}"
    return [
        one.what + (f", beside {one.beside}" if one.beside else ""),
        one.by,
        str(one.connections),
        f"{one.rate:,.0f}",
        *map(_ms, (one.p50_ms, one.p90_ms, one.p99_ms, one.max_ms)),
        _ms(one.server_ms),
        _ms(one.wrk_ms),
        busy,
        most,
    ]


def _ms(value: float | None) -> str:
    return "" if value is None else f"{value:.2f}" if value < 10 else f"{value:.0f}"


def _table(header: list[str], rows: Iterable[list[str]]) -> list[str]:
    return [f"| {' | '.join(row)} |" for row in (header, ["---"] * len(header), *rows)]


def _circumstances(report: Report) -> str:
    versions = [f"{name} {version}" for name, version in report.versions.items()]
    others = f"other programs used {report.others_percent:.0f}% of the processors"
    model = f"codes of model {report.fingerprint[:12]}"
    return ", ".join([report.hardware, *versions, model, report.date]) + f"; {others}"


def main() -> None:
    _PAGE.write_text(with_section(_PAGE.read_text(), published()))


if __name__ == "__main__":
    main()
