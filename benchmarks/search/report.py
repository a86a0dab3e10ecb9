"""The table as JSON, as a page, and as the lines that the README quotes.

    python -m benchmarks.search.report

writes docs/benchmarks.md and the README's lines from docs/search.json.
"""

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from math import floor, log10
from pathlib import Path

from benchmarks.quoting import replaced
from benchmarks.search.codes import HELD_OUT, IMAGES, MILLION, QUERIES, SOURCES
from benchmarks.search.measure import BATCH, K, Measured
from hashsearch.wording import counted

ROOT = Path(__file__).parents[2]
QUOTED_SIZES = (MILLION, 10 * MILLION)
QUOTED = {  # by the README: parts, each in the README's words
    "exact": "exact (the default)",
    "ivf": "ivf",
    "buckets": "buckets",
    "faiss-flat": "FAISS, flat",
    "faiss-ivf": "FAISS, IVF",
    "faiss-hnsw": "FAISS, HNSW",
    "usearch": "usearch, HNSW",
    "duckdb": "DuckDB, scan in SQL",
}
ENOUGH = 0.95  # recall of the approximate searches that the README quotes
_BUSY = 5  # percent of the processors that other programs may use without a remark
_MODULE = "benchmarks.search.report"


@dataclass(frozen=True)
class Report:
    """Results, and what they depend on.

    others_percent: share of the processors that other programs used during the run. versions: by
    package. seconds: of the whole run. part_seconds: of each part and size.
    """

    command: str
    date: str
    hardware: str
    others_percent: float
    versions: dict[str, str]
    fingerprint: str
    seconds: float
    part_seconds: dict[str, float]
    results: list[Measured]

    def to_json(self) -> str:
        return json.dumps(asdict(self), indent=1) + "\n"

    @classmethod
    def from_json(cls, text: str) -> "Report":
        raw = json.loads(text)
        return cls(**{**raw, "results": [Measured(**result) for result in raw["results"]]})


def publish(report: Report) -> None:
    """Write docs/search.json, and what quotes it."""
    (ROOT / "docs/search.json").write_text(report.to_json())
    for name, quoting in (("docs/benchmarks.md", with_section), ("README.md", with_lines)):
        page = ROOT / name
        page.write_text(quoting(page.read_text(), report))


def with_section(page: str, report: Report) -> str:
    """docs/benchmarks.md with its section on searches replaced by the report's."""
    return replaced(page, _MODULE, to_markdown(report))


def with_lines(readme: str, report: Report) -> str:
    """The README with its table of searches replaced by the report's."""
    return replaced(readme, _MODULE, to_lines(report))


def to_markdown(report: Report) -> str:
    """The section: what is measured, the whole table, and its circumstances."""
    exact = {one.size: one.single_ms for one in report.results if one.what == "exact"}
    header = ["rows", "search", "by", "one query, ms", f"each of {BATCH}, ms", "times exact",
              f"recall@{K}", "build, s", "bytes a row", "remarks"]  # fmt: skip
    body = [
        _cells(one, exact.get(one.size)) for one in sorted(report.results, key=lambda r: r.size)
    ]
    lines = [
        "## Searches",
        "",
        "`make bench` measures all of this in one run, in half an hour or less on two cores; "
        "`make bench ARGS=--large` adds 80 million rows.",
        "",
        f"- Up to a million rows are codes of views of {IMAGES:,} images ({', '.join(SOURCES)}): "
        "each image as it is, and augmented copies of it. Larger sets, marked *, repeat these "
        "rows; each repetition is changed by the bits in which two views of a random image differ.",
        f"- Queries are {QUERIES:,} images of {HELD_OUT}, of which the gallery has no view; for "
        "searches within a radius, JPEG copies of as many images of the gallery.",
        f"- One query is the median of up to 200; {BATCH} at once are the median of five times. "
        "“Times exact” compares one query with the exact index's. “Sum of all codes” is the best "
        "of ten sums, by a thread for each core: the time to read them.",
        f"- Recall@{K} is the share of {K} neighbours that are no farther than the exact index's "
        "tenth. Where it is missing, the search is exact.",
        "- Bytes a row are the memory by which the process grew when the index was built, and the "
        "codes if it uses those that were there.",
        "- “Library” is a gallery of so many rows without pixels, opened by `hashsearch.open`; its "
        "building is its first search. A graph gets no more rows after seven minutes, so it may "
        "have fewer than the others.",
        "",
        *_table(header, body),
        "",
        f"- `{report.command}`, {counted(round(report.seconds / 60), 'minute')}",
        f"- {_circumstances(report)}",
        "- seconds of each part: "
        + "; ".join(f"{part}, {seconds:.0f}" for part, seconds in report.part_seconds.items()),
    ]
    return "\n".join(lines)


def to_lines(report: Report) -> str:
    """The README's table: of each kind of search the fastest with enough recall, at two sizes.

    Where none has enough, it is the one with the best recall.
    """
    rows = []
    for part, words in QUOTED.items():
        of_size = [
            [one for one in report.results if (one.part, one.size) == (part, size)]
            for size in QUOTED_SIZES
        ]
        rows.append([words, *(_short(min(each, key=_rank, default=None)) for each in of_size)])
    header = [f"one query (recall@{K})", *(f"{size:,} codes" for size in QUOTED_SIZES)]
    return "\n".join([*_table(header, rows), "", f"Measured on {_circumstances(report)}."])


def _rank(one: Measured) -> tuple[bool, float]:
    """Less for what the README rather quotes: a fast search with enough recall, then recall."""
    assert one.single_ms is not None
    if one.recall is None or one.recall >= ENOUGH:
        return False, one.single_ms
    return True, -one.recall


def _short(one: Measured | None) -> str:
    if one is None:
        return ""
    recall = "" if one.recall is None else f" ({_share(one.recall)})"
    return f"{_ms(one.single_ms)} ms{recall}"


def _cells(one: Measured, exact_ms: float | None) -> list[str]:
    times = ""
    if one.single_ms and exact_ms and one.part != "live":
        times = _three_digits(exact_ms / one.single_ms)
    return [
        f"{one.size:,}{'*' if one.size > MILLION else ''}",
        one.what,
        one.by,
        _ms(one.single_ms),
        _ms(one.batch_ms),
        times,
        "" if one.recall is None else _share(one.recall),
        "" if one.build_s is None else f"{one.build_s:.1f}",
        "" if one.row_bytes is None else f"{one.row_bytes:.0f}",
        one.note,
    ]


def _ms(value: float | None) -> str:
    return "" if value is None else _three_digits(value)


def _three_digits(value: float) -> str:
    """A number with three digits or, from a thousand on, all before the point: "0.0123"."""
    return f"{value:,.{max(0, 2 - floor(log10(value)))}f}"


def _share(value: float) -> str:
    """A share without its zero: ".968"."""
    return f"{value:.3f}".removeprefix("0")


def _table(header: list[str], rows: Iterable[list[str]]) -> list[str]:
    lines = [header, ["---"] * len(header), *rows]
    return [
        f"| {' | '.join(line)} |".replace("|  |", "| |").replace("|  |", "| |") for line in lines
    ]


def _circumstances(report: Report) -> str:
    versions = [f"{name} {version}" for name, version in report.versions.items()]
    others = ""
    if report.others_percent >= _BUSY:
        others = (
            f"; other programs used {report.others_percent:.0f}% of the processors meanwhile, so "
            "these figures are provisional"
        )
    model = f"codes of model {report.fingerprint[:12]}"
    return ", ".join([report.hardware, *versions, model, report.date]) + others


def main() -> None:
    publish(Report.from_json((ROOT / "docs/search.json").read_text()))


if __name__ == "__main__":
    main()
