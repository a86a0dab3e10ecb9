"""A training's report: a page and pictures in the model folder's `report`."""

import csv
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from hashsearch.codes import unpack_bits

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_PICTURES = 32  # originals shown with their reconstructions
_FILTERS = 64
_SCALE = 2  # enlargement of tiles
_SMOOTHED = 0.02  # window of a curve's moving average, as a share of the stage's rows


@dataclass(frozen=True, slots=True)
class Drawing:
    """A picture or plot in the report. name: its PNG file's name without the suffix."""

    name: str
    caption: str
    picture: "Image.Image | Figure"


def write_report(
    folder: Path,
    log: Path,
    drawings: Iterable[Drawing],
    metrics: Mapping[str, float],
    baseline: Mapping[str, float],
) -> None:
    """Write the report of a finished training into a new folder.

    metrics: values by name, for the page; baseline: those measured of the bundled model,
    which may be fewer or none. Without matplotlib the plots are omitted, and the page says so.
    """
    folder.mkdir()
    lines = ["# Training report", "", *_table(metrics, baseline), ""]
    try:
        curves = _loss_figure(log)
    except ImportError:
        lines += ["Plots need matplotlib, which is not installed (`hashsearch[train]`).", ""]
        curves = None
    losses = "The terms of the loss over the steps, from [log.csv](log.csv)."
    for drawing in (*drawings, *([Drawing("loss", losses, curves)] if curves else ())):
        path = folder / f"{drawing.name}.png"
        if isinstance(drawing.picture, Image.Image):
            drawing.picture.save(path)
        else:
            drawing.picture.savefig(path, dpi=100)
        lines += [f"![{drawing.name}]({path.name})", "", drawing.caption, ""]
    (folder / "log.csv").write_bytes(log.read_bytes())
    (folder / "README.md").write_text("\n".join(lines), encoding="utf-8")


def _table(metrics: Mapping[str, float], baseline: Mapping[str, float]) -> list[str]:
    if not metrics:
        return ["Nothing was measured: no labelled images were found (CIFAR-10, tinyimagenet32)."]
    if not baseline:
        rows = [f"| {name} | {value} |" for name, value in metrics.items()]
        return ["| measure | value |", "| --- | --- |", *rows]
    rows = [f"| {name} | {value} | {baseline.get(name, '–')} |" for name, value in metrics.items()]
    heading = ["| measure | this model | bundled model |", "| --- | --- | --- |"]
    return [*heading, *rows, "", "The bundled model may have been trained on the queries."]


def reconstruction_drawing(images: NDArray[np.uint8], decoded: NDArray[np.uint8]) -> Drawing:
    """The first images, each with its reconstruction to the right."""
    pairs = np.stack([images[:_PICTURES], decoded[:_PICTURES]], axis=1)
    caption = "Images held out of this training, each with its reconstruction to the right."
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
        figure = _bit_figure(unpack_bits(codes, n_bits))
    except ImportError:
        return []
    return [Drawing("bits", "How often each bit is 1, and how the bits correlate.", figure)]


def mosaic(tiles: NDArray[np.uint8], columns: int) -> Image.Image:
    """Arrange tiles of equal size in rows, separated by white lines."""
    height, width = tiles.shape[1] + 1, tiles.shape[2] + 1
    rows = math.ceil(len(tiles) / columns)
    canvas = np.full((rows * height + 1, columns * width + 1, 3), 255, np.uint8)
    for number, tile in enumerate(tiles):
        row, column = divmod(number, columns)
        top, left = row * height + 1, column * width + 1
        canvas[top : top + height - 1, left : left + width - 1] = tile
    picture = Image.fromarray(canvas)
    return picture.resize(
        (picture.width * _SCALE, picture.height * _SCALE), Image.Resampling.NEAREST
    )


def _bit_figure(bits: NDArray[np.uint8]) -> "Figure":
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 4), layout="constrained")
    balance, correlation = figure.subplots(1, 2, width_ratios=(1.2, 1))
    share = bits.mean(axis=0)
    balance.hist(share, bins=np.linspace(0, 1, 41).tolist())
    balance.axvline(0.5, color="black", linewidth=0.8)
    balance.set(xlabel="share of images whose bit is 1", ylabel="bits")
    centred = bits - share
    deviation = np.maximum(centred.std(axis=0), 1e-6)
    matrix = (centred / deviation).T @ (centred / deviation) / len(bits)
    image = correlation.imshow(matrix, cmap="RdBu", vmin=-1, vmax=1)
    mean_size = np.abs(matrix - np.diag(np.diag(matrix))).sum() / (matrix.size - len(matrix))
    correlation.set(
        title=f"correlation of bits: mean |r| {mean_size:.3f}", xlabel="bit", ylabel="bit"
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
        axes.legend(fontsize=7)
    for axes in grid.flat[len(stages) :]:
        axes.set_axis_off()
    return figure
