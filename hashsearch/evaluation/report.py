"""Write a report of measurements as JSON, Markdown and HTML."""

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from jinja2 import Environment, PackageLoader, StrictUndefined
from numpy.typing import NDArray

from hashsearch.columns import aligned
from hashsearch.durable import require_writable, write_whole
from hashsearch.errors import EvaluationError
from hashsearch.evaluation.measure import (
    LEVEL,
    RESAMPLES,
    SHOWN_QUERIES,
    Result,
)
from hashsearch.evaluation.ranking import SMALL_RADIUS
from hashsearch.evaluation.robustness import evenly
from hashsearch.evaluation.tasks import Task
from hashsearch.images import encode_png
from hashsearch.metrics import correlation_by_chance
from hashsearch.pages import data_uri, in_ink, style, svg
from hashsearch.wording import counted

if TYPE_CHECKING:
    from matplotlib.axes import Axes

CAPTIONS = {
    "Cost": "Milliseconds for one image of many, and for one query (the median).",
    "Robustness": "Images of the gallery were changed: mean bits flipped, and how often the "
    "original is the first found.",
}
# From (n, 32, 32, 3) uint8 tiny images to what their codes decode to.
Reconstruct = Callable[[NDArray[np.uint8]], NDArray[np.uint8]]
_PAGES = ("report.json", "report.md", "report.html")
# report.json has other names for two fields, as docs/results.json has them.
_JSON_NAMES = {"task": "protocol", "environment": "surroundings"}
_FEW = 10_000  # images, below which correlations by chance are shown; of so many, 0.008
_COLOURS = 10  # of matplotlib's cycle
_PICTURED = ("codes", "pixels")  # methods whose hits are shown, if they were measured


@dataclass(frozen=True)
class Report:
    """Results of several methods on one task, and what the results depend on.

    unlabelled, unanswerable, set_apart: as of Task. environment: the machine, and libraries'
    versions. models: of each its name (empty if there is one model), its fingerprint, the data
    it was trained on, and those of them whose labels it has learned. left_out: methods that could
    not be measured, and why.
    """

    task: str
    queries: int
    gallery: int
    unlabelled: int
    unanswerable: int
    set_apart: bool
    images_sha256: str
    ks: list[int]
    seed: int
    command: str
    environment: dict[str, str]
    models: list[dict[str, str]]
    results: list[Result]
    left_out: dict[str, str]

    def to_json(self) -> str:
        raw = {_JSON_NAMES.get(name, name): value for name, value in asdict(self).items()}
        return json.dumps(raw, indent=1) + "\n"

    @classmethod
    def from_json(cls, text: str) -> "Report":
        raw = json.loads(text)
        raw |= {name: raw.pop(json_name) for name, json_name in _JSON_NAMES.items()}
        return cls(**{**raw, "results": [Result.from_dict(part) for part in raw["results"]]})


def write_report(
    folder: Path,
    report: Report,
    task: Task,
    reconstruct: Sequence[Reconstruct],
) -> None:
    """Write report.json, report.md and report.html into a folder, over an earlier report.

    reconstruct: one function for each of the report's models.
    """
    pages = {
        "report.json": report.to_json(),
        "report.md": to_markdown(report),
        "report.html": to_html(report, task, reconstruct),
    }
    for name, text in pages.items():
        write_whole(folder / name, text)


def require_room(folder: Path) -> None:
    """Make the folder; raise EvaluationError if it holds files that are not of a report.

    Hidden files may stay. Raises NotWritable.
    """
    require_writable(folder)
    folder.mkdir(parents=True, exist_ok=True)
    names = (path.name for path in folder.iterdir() if not path.name.startswith("."))
    if others := sorted(name for name in names if name not in _PAGES):
        raise EvaluationError(
            f"{folder} holds {others[0]}, which is no part of a report; name a new folder"
        )


def to_markdown(report: Report) -> str:
    """All tables, with a preface and the circumstances of the measurement."""
    lines = [f"# {report.task}", "", "\n\n".join(_preface(report)), ""]
    for title, rows in tables(report).items():
        header, *body = rows
        lines += [f"## {title}", ""]
        lines += [CAPTIONS[title], ""] if title in CAPTIONS else []
        lines += [_row(header), f"|{' --- |' * len(header)}"]
        lines += [_row(row) for row in body]
        lines += [""]
    lines += [f"- {name} was left out: {why}" for name, why in report.left_out.items()]
    lines += [f"- `{report.command}`", f"- {_circumstances(report)}"]
    return "\n".join(lines) + "\n"


def _row(cells: list[str]) -> str:
    return f"| {' | '.join(cell.replace('|', '&#124;') for cell in cells)} |"


def to_text(report: Report) -> str:
    """The table of retrieval, in columns for a terminal."""
    rows = tables(report)["Retrieval"]
    lines = [f"{report.task}: means over queries, and their 95% confidence", ""]
    lines += aligned(rows, "<" + ">" * (len(rows[0]) - 1))
    return "\n".join(lines) + "\n"


def tables(report: Report) -> dict[str, list[list[str]]]:
    """Every table by its title; the first row is the header."""
    k = report.ks[-1]
    found = {
        **{f"P@{k}": f"precision_at_{k}" for k in report.ks},
        f"R@{k}": f"recall_at_{k}",
        f"mAP@{k}": f"map_at_{k}",
        f"mAP@{k}, of all": f"map_at_{k}_of_all",
        "mAP": "map",
    }
    retrieval = [["method", "bytes", *found]]
    for result in report.results:
        cells = [_interval(result, name) for name in found.values()]
        retrieval.append([result.title, f"{result.image_bytes:,}", *cells])
    costs = [["method", "bytes an image", "ms to describe one", "ms to search for one"]]
    for result in report.results:
        times = [f"{result.encode_ms:.3f}", f"{result.search_ms:.2f}"]
        costs.append([result.title, f"{result.image_bytes:,}", *times])
    made = {"Retrieval": retrieval, "Cost": costs}
    codes = [result for result in report.results if result.n_bits is not None]
    if codes:
        ball = f"within {SMALL_RADIUS} bits"
        chance = f" ({correlation_by_chance(report.gallery):.3f} by chance)"
        correlation = "correlation of two" + (chance if report.gallery < _FEW else "")
        statistics = ["bits", "entropy of a bit", correlation]
        bits = [["method", *statistics, f"P {ball}", f"queries with none {ball}"]]
        for result in codes:
            numbers = [f"{result.n_bits}", f"{result.entropy:.3f}", f"{result.correlation:.3f}"]
            numbers.append(_interval(result, f"precision_within_{SMALL_RADIUS}"))
            bits.append([result.title, *numbers, f"{100 * result.ball[SMALL_RADIUS][2]:.0f}%"])
        changes = [["change", *(result.title for result in codes)]]
        for change in codes[0].changes:
            pairs = [(result, *result.changes[change]) for result in codes]
            cells = [f"{flipped:.1f} · {100 * first:.0f}%" for _, flipped, first in pairs]
            changes.append([change, *cells])
        made |= {"Bits": bits, "Robustness": changes}
    return made


def to_html(report: Report, task: Task, reconstruct: Sequence[Reconstruct]) -> str:
    """One page that needs no other file: pictures and plots are in it."""
    templates = Environment(
        loader=PackageLoader("hashsearch", "evaluation"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return templates.get_template("report.html").render(
        report=report,
        style=style(),
        preface=_preface(report),
        circumstances=_circumstances(report),
        tables=tables(report),
        captions=CAPTIONS,
        plots=_plots(report),
        **_pictures(report, task, reconstruct),
    )


def _preface(report: Report) -> list[str]:
    lost, bare = report.unanswerable, report.unlabelled
    left_out = f" (left out: {lost:,} more whose label nothing has)" if lost else ""
    left_out += f" (left out: {counted(bare, 'image')} without a label)" if bare else ""
    queries = "1 query" if report.queries == 1 else f"{report.queries:,} queries"
    k = report.ks[-1]
    learnt = "The baselines that learn did so from the gallery, without labels."
    return [
        f"{queries}{left_out}, {counted(report.gallery, 'image')} to find; an image is "
        "relevant if it has the query's label. Beside each mean over queries, where it lies with "
        f"{LEVEL:.0%} confidence ({RESAMPLES:,} bootstrap resamples of the queries). Images of one "
        "distance come in random order: each figure is its expected value over these orders, "
        f"whatever order an index gives them. mAP@{k} is divided by the relevant images among the "
        f"first {k:,}, “of all” by all relevant images; mAP is of the whole ranking.",
        " ".join([*(_origin(report, model) for model in report.models), learnt]),
    ]


def _origin(report: Report, model: dict[str, str]) -> str:
    """A sentence that says which model this is, and what it was trained on."""
    # Training never reads a data set's test split; it may have read other queries.
    apart = report.set_apart and report.task.split("-")[0] in model["data"]
    trained = "trained" if apart else "trained, perhaps on some of these images,"
    named = model["name"] or "The model"
    labels = f", with the labels of {model['labels']}" if model.get("labels") else ""
    return f"{named} is {model['fingerprint'][:12]}, {trained} on {model['data']}{labels}."


def _interval(result: Result, name: str) -> str:
    interval = result.measures[name]
    low, high = (f"{value:.3f}".lstrip("0") for value in (interval.low, interval.high))
    return f"{interval.value:.3f}".lstrip("0") + f" ({low}–{high})"


def _circumstances(report: Report) -> str:
    """The machine, libraries' versions, and the days of the measurements."""
    versions = [f"{name} {value}" for name, value in report.environment.items()]
    return ", ".join([*versions, *sorted({result.date for result in report.results})])


def _pictures(report: Report, task: Task, reconstruct: Sequence[Reconstruct]) -> dict[str, Any]:
    """Queries, what their codes decode to, and what was found for them."""
    shown = evenly(len(task.queries), SHOWN_QUERIES)
    queries = task.queries[shown]
    decoded = [decode(queries.images) for decode in reconstruct]
    pictured = [result for result in report.results if result.method in _PICTURED]
    rows = []
    for number, label in enumerate(queries.labels.tolist()):
        found = [
            [
                {
                    "src": _inline(task.gallery.images[hit]),
                    "label": str(task.gallery.labels[hit]),
                    "relevant": str(task.gallery.labels[hit]) == label,
                }
                for hit in result.hits[number]
            ]
            for result in pictured
        ]
        query = _inline(queries.images[number])
        pictures = [_inline(images[number]) for images in decoded]
        rows.append({"query": query, "decoded": pictures, "label": label, "found": found})
    return {"rows": rows, "pictured": [result.title for result in pictured]}


def _inline(image: NDArray[np.uint8]) -> str:
    return data_uri("image/png", encode_png(image))


def _plots(report: Report) -> dict[str, str]:
    """Data URIs of SVG plots by title; none without matplotlib."""
    try:
        import matplotlib.figure  # noqa: F401
    except ImportError:
        return {}
    codes = [result for result in report.results if result.ball]

    def share(axes: "Axes") -> None:
        for result in report.results:
            axes.plot(*zip(*result.curve, strict=True), **_line(report, result))
        axes.set(xscale="log", xlabel="images retrieved", ylabel="share of the query's label")

    def ball(axes: "Axes") -> None:
        for result in codes:
            precision, recall, _ = zip(*(point for point in result.ball if point[1]), strict=True)
            axes.plot(recall, precision, **_line(report, result))
        axes.set(xscale="log", xlabel="recall", ylabel="precision")

    plots = {"Share of the same label, by number retrieved": _svg(share)}
    if codes:
        plots["Precision and recall of all within a radius, of codes"] = _svg(ball)
    return plots


def _line(report: Report, result: Result) -> dict[str, Any]:
    """The style of a method's line: one colour in all plots, dashed unless it makes codes."""
    number = report.results.index(result)
    again = number >= _COLOURS  # a colour that another line has already
    return {
        "label": result.title,
        "color": f"C{number % _COLOURS}",
        "linestyle": ("-." if again else "-")
        if result.n_bits is not None
        else ":"
        if again
        else "--",
        "linewidth": 2.5 if result.method == "codes" else 1.3,
    }


def _svg(draw: "Callable[[Axes], None]") -> str:
    from matplotlib.figure import Figure

    with in_ink():
        figure = Figure(figsize=(9, 4.4), layout="constrained")
        axes = figure.subplots()
        draw(axes)
        axes.grid(alpha=0.3)
        axes.spines[["top", "right"]].set_visible(False)
        figure.legend(loc="outside right upper", fontsize=8, frameon=False)
    return svg(figure)
