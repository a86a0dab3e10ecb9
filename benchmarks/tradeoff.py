"""Retrieval against pictures: the default trained with several weights of reconstruction.

    python -m benchmarks.tradeoff --minutes 4 --out FOLDER [--from MODEL] [--weights 0 1 4 …]

Trains `conv256` once for each weight, all else alike, with the bundled model's
data, or goes on from a trained model; at weight 0 the decoder learns in the last
stage alone. Prints a row of docs/experiments.md each and draws FOLDER/tradeoff.svg,
the bundled model beside them, and FOLDER/tradeoff.png: test images, below them what
each model makes of them. One that was finished in FOLDER before, with the same
settings, is not trained again. Nothing else should run.
"""

import argparse
import json
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from hashsearch.encoder import Encoder
from hashsearch.models.card import Card
from hashsearch.models.folder import PRETRAINED, load_model, read_card
from hashsearch.sources import DataFolders, dataset_at_hand, open_source
from training.data import load_labelled_images, load_tiny_images
from training.job import train
from training.presets import PRESETS, ConvolutionalPreset
from training.report import mosaic
from training.retrieval import Labelled

_WEIGHTS = (0.0, 1.0, 4.0, 16.0, 64.0)
_MEASURES = ("codes_precision_at_1", "codes_precision_at_10", "codes_map_at_1000", "psnr_db")
_SHOWN = 16  # of the test images, evenly


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--minutes", type=float, required=True)
    parser.add_argument("--out", metavar="FOLDER", type=Path, required=True)
    parser.add_argument("--from", metavar="MODEL", type=Path, dest="start")
    parser.add_argument("--weights", metavar="W", type=float, nargs="+", default=_WEIGHTS)
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    folders = DataFolders.of_environment()
    splits = [dataset_at_hand("cifar10", split, folders) for split in ("train", "test")]
    gallery, queries = (load_labelled_images(split) for split in splits if split is not None)
    labelled = Labelled("cifar10", *gallery, *queries)
    others = load_tiny_images(open_source("tinyimagenet32", folders))
    images = np.concatenate([labelled.gallery, labelled.gallery, others])
    models = {f"{weight:g}": options.out / f"{weight:g}" for weight in options.weights}
    cards = {}
    for weight, model in models.items():
        cards[weight] = _trained(
            float(weight), images, labelled, model, options.minutes, options.start
        )
        print(_row(weight, cards[weight]), flush=True)
    models["bundled"], cards["bundled"] = PRETRAINED, read_card(PRETRAINED)
    _curve(cards, options.minutes).savefig(options.out / "tradeoff.svg", metadata={"Date": None})
    shown = labelled.queries[:: len(labelled.queries) // _SHOWN][:_SHOWN]
    pictures = {"original": shown} | {n: _decoded(model, shown) for n, model in models.items()}
    _rows(pictures).savefig(options.out / "tradeoff.png", dpi=200)


def _trained(
    weight: float,
    images: NDArray[np.uint8],
    labelled: Labelled,
    out: Path,
    minutes: float,
    start: Path | None,
) -> Card:
    preset = PRESETS["conv256"]
    assert isinstance(preset, ConvolutionalPreset)
    preset = replace(preset, reconstruction=weight)
    if not out.exists():
        train(
            "conv256",
            preset,
            images,
            out,
            data="cifar10 + cifar10 + tinyimagenet32",
            seed=0,
            device="cpu",
            minutes=minutes,
            resume=True,
            start=start,
            labelled=labelled,
        )
    card = read_card(out)
    told, wanted = card.training, json.loads(json.dumps(asdict(preset)))
    origin = told["start"] and told["start"]["fingerprint"]
    begun = start and read_card(start).fingerprint
    if (told["settings"], told["minutes_asked"], origin) != (wanted, minutes, begun):
        raise SystemExit(f"{out} was trained otherwise than asked; delete it")
    return card


def _row(name: str, card: Card) -> str:
    *found, psnr = (card.metrics[f"cifar10_{measure}"] for measure in _MEASURES)
    figures = " | ".join(f"{value:.3f}".removeprefix("0") for value in found)
    return f"| {name} | {figures} | {psnr:.1f} dB |"


def _decoded(model: Path, images: NDArray[np.uint8]) -> NDArray[np.uint8]:
    encoder = Encoder(load_model(model)[0])
    return encoder.reconstruct(encoder.encode(images))


def _rows(pictures: dict[str, NDArray[np.uint8]]) -> Figure:
    """A row of pictures for each name, the name before it."""
    figure = Figure(figsize=(9, 0.5 * len(pictures)), layout="constrained")
    for axes, (name, row) in zip(figure.subplots(len(pictures)), pictures.items(), strict=True):
        axes.imshow(mosaic(row, columns=len(row)), interpolation="nearest")
        axes.set_ylabel(name, rotation=0, ha="right", va="center")
        axes.set(xticks=[], yticks=[], frame_on=False)
    return figure


def _curve(cards: dict[str, Card], minutes: float) -> Figure:
    """mAP against PSNR: a line through the weights, and the bundled model apart."""
    points = {
        name: (card.metrics["cifar10_psnr_db"], card.metrics["cifar10_codes_map_at_1000"])
        for name, card in cards.items()
    }
    figure = Figure(figsize=(6, 4), layout="constrained")
    axes = figure.subplots()
    for name, point in points.items():
        axes.annotate(name, point, (6, 5), textcoords="offset points")
    axes.plot(*points.pop("bundled"), "o", color="C1", label="bundled")
    axes.plot(*zip(*points.values(), strict=True), "o-", color="C0", label=f"{minutes:g} minutes")
    axes.legend()
    axes.set(xlabel="PSNR of CIFAR-10's test images, dB", ylabel="mAP@1000")
    return figure


if __name__ == "__main__":
    main()
