"""A training's report: a page that needs no other file, and the log, in `report`."""

import csv
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from hashsearch.codes import unpack_bits
from hashsearch.images import encode_png
from hashsearch.metrics import correlation_by_chance
from hashsearch.pages import INK, data_uri, in_ink, style, svg
from hashsearch.wording import counted

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from training.gain import Gain
    from training.retrieval import Question

_PICTURES = 32  # originals shown with their reconstructions
_FILTERS = 64
_SCALE = 2  # enlargement of tiles
_GREY = 128  # between tiles; neither a light nor a dark page jars with it
_SMOOTHED = 0.02  # window of a curve's moving average, as a share of the stage's rows


@dataclass(frozen=True, slots=True)
class Drawing:
    """A picture or plot in the report. picture: a figure is drawn `in_ink`."""

    name: str
    caption: str
    picture: "NDArray[np.uint8] | Figure"


def write_report(
    folder: Path,
    log: Path,
    drawings: Iterable[Drawing],
    metrics: Mapping[str, float],
    baseline: Mapping[str, float],
    training: Mapping[str, Any],
    notes: Iterable[str] = (),
    gain: "Gain | None" = None,
) -> None:
    """Write the report of a finished training into a new folder.

    metrics: values by name, for the page; baseline: those measured of the bundled model,
    which may be fewer or none. training: as in the model's card. notes: sentences below
    the values, see `notes_on`. gain: by class, of a training with labels. Without matplotlib
    the plots are omitted, and the page says so.
    """
    folder.mkdir()
    (folder / "log.csv").write_bytes(log.read_bytes())
    title = escape(f"Training of {training['preset']}")
    body = [f"<h1>{title}</h1>", f"<p>{escape(_summary(training))}</p>"]
    body += ["<h2>Measured</h2>", *_table(metrics, baseline)]
    body += [f'<p class="quiet">{escape(note)}</p>' for note in notes]
    body += [] if gain is None else _by_class(gain)
    try:
        with in_ink():
            curves = _loss_figure(log)
    except ImportError:
        body += [
            '<p class="quiet">Plots need matplotlib, which is not installed '
            "(<code>hashsearch[train]</code>).</p>"
        ]
        curves = None
    losses = "The terms of the loss over the steps, which log.csv beside this page lists."
    for drawing in (*drawings, *([Drawing("loss", losses, curves)] if curves else ())):
        body += _figure(drawing)
    page = _PAGE.format(title=title, style=style(), body="\n".join(body))
    (folder / "report.html").write_text(page, encoding="utf-8")


# Jinja, which writes the pages of evaluations, is more than a training machine has to have.
_PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
<style>
{style}</style>
</head>
<body>
{body}
</body>
</html>
"""


def _summary(training: Mapping[str, Any]) -> str:
    """What was trained on, for how long and on what machine."""
    data, images = training["data"], counted(training["images"], "image")
    steps = counted(sum(training["steps"].values()), "step")
    spent = counted(training["minutes"], "minute")
    return (
        f"Trained on {images} of {data}, with seed {training['seed']}: {steps} in {spent}, "
        f"on {training['hardware']}, with PyTorch {training['torch']}."
    )


def _table(metrics: Mapping[str, float], baseline: Mapping[str, float]) -> list[str]:
    if not metrics:
        return [
            "<p>Nothing was measured: no labelled images were found (CIFAR-10, tinyimagenet32).</p>"
        ]
    header = ["measure", *(["this model", "bundled model"] if baseline else ["value"])]
    rows = [[name, f"{value}"] for name, value in metrics.items()]
    if baseline:
        rows = [[*row, f"{baseline.get(row[0], '–')}"] for row in rows]
    lines = _marked("Measured", header, rows)
    note = '<p class="quiet">The bundled model may have been trained on the queries.</p>'
    return [*lines, note] if baseline else lines


def _by_class(gain: "Gain") -> list[str]:
    header = ["class", "images", f"before ({gain.model})", "after", "gain"]
    rows = [
        [row.name, f"{row.images}", f"{row.before:.3f}", f"{row.after:.3f}", f"{row.gained:+.3f}"]
        for row in (gain.whole, *gain.rows)
    ]
    margin = "" if gain.margin is None else f" ± {gain.margin:.3f} (95% confidence interval)"
    note = (
        "Precision at 10 of the codes: the share of the ten nearest images that have the label of "
        f"a held-out image. All together gained {gain.whole.gained:+.3f}{margin}. The model before "
        "may have been trained on these images."
    )
    return [
        "<h2>By class</h2>",
        *_marked("By class", header, rows),
        f'<p class="quiet">{escape(note)}</p>',
    ]


def _marked(name: str, header: list[str], rows: Iterable[list[str]]) -> list[str]:
    """The table's lines; `name` is for people who cannot see it."""
    lines = [f'<div class="scroll" tabindex="0" role="region" aria-label="{name}">', "<table>"]
    for kind, cells in (("th", header), *(("td", row) for row in rows)):
        marked = "".join(f"<{kind}>{escape(cell)}</{kind}>" for cell in cells)
        lines += [f"<tr>{marked}</tr>"]
    return [*lines, "</table>", "</div>"]


def notes_on(
    questions: "Iterable[Question]", metrics: Mapping[str, float], count: int, held_out: bool
) -> list[str]:
    """Say what values are measured on: the questions, and the images that are shown.

    count: of the images that reconstructions and bits are measured on. held_out: whether these
    were held out of the training.
    """
    notes = [
        f"{one.name}_… says how well images of a query's class are found: {one.meaning}."
        for one in questions
    ]
    if "psnr_db" in metrics:
        images = (
            f"{count:,} images held out of this training"
            if held_out
            else f"{count:,} of the images trained on, since of so few none was held out"
        )
        notes += [
            f"psnr_db, mean_bit_imbalance, reconstructions and bits are of {images}. Of so many "
            "images, chance alone gives independent bits that are 1 for half of all images a "
            f"mean_bit_imbalance of {math.sqrt(1 / (2 * math.pi * count)):.4f} and a mean |r| of "
            f"{correlation_by_chance(count):.3f}."
        ]
    return notes


def _figure(drawing: Drawing) -> list[str]:
    """A heading, the picture or plot, and its caption."""
    if isinstance(drawing.picture, np.ndarray):
        kind, source = "picture", data_uri("image/png", encode_png(drawing.picture))
    else:
        kind, source = "plot", svg(drawing.picture)
    return [
        f"<h2>{escape(drawing.name.capitalize())}</h2>",
        f'<img class="{kind}" src="{source}" alt="{escape(drawing.name)}">',
        f'<p class="quiet">{escape(drawing.caption)}</p>',
    ]


def reconstruction_drawing(images: NDArray[np.uint8], decoded: NDArray[np.uint8]) -> Drawing:
    """The first images, each with its reconstruction to the right."""
    pairs = np.stack([images[:_PICTURES], decoded[:_PICTURES]], axis=1)
    caption = "Images, each with its reconstruction to the right."
    picture = mosaic(pairs.reshape(-1, *images.shape[1:]), columns=16)
    return Drawing("reconstructions", caption, picture)


def filter_drawing(weights: NDArray[np.float32]) -> Drawing:
    """Show (n, side, side, 3) first-layer weights, each scaled to the full range of levels."""
    norms = np.square(weights).sum(axis=(1, 2, 3))
    # Filters of equal norm, such as principal components, keep their order.
    strongest = np.argsort(-norms.round(3), kind="stable")
    weights = weights[strongest[:_FILTERS]]
    low = weights.min(axis=(1, 2, 3), keepdims=True)
    high = weights.max(axis=(1, 2, 3), keepdims=True)
    stretched = (weights - low) / np.maximum(high - low, 1e-12)
    levels: NDArray[np.uint8] = (stretched * 255).round().astype(np.uint8)
    caption = "Filters of the first layer, by decreasing norm."
    return Drawing("filters", caption, mosaic(levels, columns=16))


def bit_drawings(codes: NDArray[np.uint8], n_bits: int) -> list[Drawing]:
    """Balance and correlation of the bits of packed codes; empty without matplotlib."""
    try:
        with in_ink():
            figure = _bit_figure(unpack_bits(codes, n_bits))
    except ImportError:
        return []
    return [Drawing("bits", "How often each bit is 1, and how the bits correlate.", figure)]


def mosaic(tiles: NDArray[np.uint8], columns: int) -> NDArray[np.uint8]:
    """Arrange tiles of equal size in rows, separated by grey lines, and enlarge them."""
    height, width = tiles.shape[1] + 1, tiles.shape[2] + 1
    rows = math.ceil(len(tiles) / columns)
    canvas = np.full((rows * height + 1, columns * width + 1, 3), _GREY, np.uint8)
    for number, tile in enumerate(tiles):
        row, column = divmod(number, columns)
        top, left = row * height + 1, column * width + 1
        canvas[top : top + height - 1, left : left + width - 1] = tile
    return canvas.repeat(_SCALE, axis=0).repeat(_SCALE, axis=1)


def _bit_figure(bits: NDArray[np.uint8]) -> "Figure":
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 4), layout="compressed")  # "constrained" cuts the title
    balance, correlation = figure.subplots(1, 2, width_ratios=(1.2, 1))
    share = bits.mean(axis=0)
    balance.hist(share, bins=np.linspace(0, 1, 41).tolist())
    balance.axvline(0.5, color=INK, linewidth=0.8)
    balance.set(xlabel="share of images whose bit is 1", ylabel="bits")
    centred = bits - share
    deviation = np.maximum(centred.std(axis=0), 1e-6)
    matrix = (centred / deviation).T @ (centred / deviation) / len(bits)
    image = correlation.imshow(matrix, cmap="RdBu", vmin=-1, vmax=1)
    mean_size = np.abs(matrix - np.diag(np.diag(matrix))).sum() / (matrix.size - len(matrix))
    correlation.set(
        title=f"correlation of bits: mean |r| {mean_size:.3f}\n"
        f"({correlation_by_chance(len(bits)):.3f} by chance, of {len(bits):,} images)",
        xlabel="bit",
        ylabel="bit",
    )
    figure.colorbar(image, ax=correlation)
    return figure


def _loss_figure(log: Path) -> "Figure | None":
    from matplotlib.figure import Figure

    with log.open(newline="") as file:
        rows = list(csv.DictReader(file))
    stages = list(dict.fromkeys(row["stage"] for row in rows))
    if not stages:
        return None  # the model was fitted in closed form
    figure = Figure(figsize=(4 * min(len(stages), 3), 3 * math.ceil(len(stages) / 3)))
    figure.set_layout_engine("constrained")
    grid = figure.subplots(math.ceil(len(stages) / 3), min(len(stages), 3), squeeze=False)
    for axes, stage in zip(grid.flat, stages, strict=False):
        own = [row for row in rows if row["stage"] == stage]
        for name in list(own[0])[3:]:  # columns after stage, step and seconds
            points = [(int(row["step"]), float(row[name])) for row in own if row[name]]
            if points:
                steps, values = np.array(points).T
                width = math.ceil(_SMOOTHED * len(values))
                smooth = np.convolve(values, np.ones(width) / width, mode="valid")
                line = 1.8 if name == "loss" else 0.9
                axes.plot(steps[width - 1 :], smooth, label=name, linewidth=line)
        axes.set(title=stage, xlabel="step")
        axes.legend(fontsize=7, frameon=False)
    for axes in grid.flat[len(stages) :]:
        axes.set_axis_off()
    return figure
