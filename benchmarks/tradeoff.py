"""Retrieval against reconstruction: how many of the 256 bits should encode the picture.

    python -m benchmarks.tradeoff --minutes 3 --out FOLDER [--from MODEL] [--bits 64 96 …]

For each number of bits, the code of a trained encoder (the bundled one) is fitted again, and a
decoder is trained for the given minutes, with equal settings, on CIFAR-10's training images.
Prints one row of docs/experiments.md for each. Draws FOLDER/tradeoff.svg, with the bundled model
for comparison, and FOLDER/tradeoff.png: test images and each model's reconstructions. A model
that is already in FOLDER, with the same settings, is not trained again.
"""

import argparse
import json
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from benchmarks.depths import as_depths, deal
from hashsearch.codes import CODE_BITS
from hashsearch.commands.arguments import model as model_argument
from hashsearch.encoder import Encoder
from hashsearch.models.card import PRETRAINED, Card, read_card
from hashsearch.models.storage import read_model
from hashsearch.sources import DataFolders, dataset_at_hand
from hashsearch.sources.loading import load_labelled_images
from training.families import PRESETS
from training.families.convolutional import ConvolutionalPreset
from training.job import train
from training.retrieval import Question
from training.training_report import mosaic

_PRESET = "conv256-reread"
_BITS = (64, 96, 128, 160)
_MEASURES = ("codes_precision_at_1", "codes_precision_at_10", "codes_map_at_1000", "psnr_db")
_SHOWN = 16  # number of test images, evenly spaced


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--minutes", type=float, required=True)
    parser.add_argument("--out", metavar="FOLDER", type=Path, required=True)
    parser.add_argument(
        "--from", metavar="MODEL", type=model_argument, dest="start", default=PRETRAINED
    )
    parser.add_argument("--bits", metavar="N", type=int, nargs="+", default=_BITS)
    options = parser.parse_args()
    if not all(0 <= bits < CODE_BITS for bits in options.bits):
        parser.error(f"of {CODE_BITS} bits, 0 to {CODE_BITS - 1} can be for the picture")
    options.out.mkdir(parents=True, exist_ok=True)
    folders = DataFolders.of_environment()
    splits = [dataset_at_hand("cifar10", split, folders) for split in ("train", "test")]
    gallery, queries = (load_labelled_images(split) for split in splits if split is not None)
    question = Question("cifar10", *gallery, *queries)
    dealt = deal(question.gallery, max(options.bits))
    models = {f"{bits}": options.out / f"{bits}" for bits in options.bits}
    cards = {}
    for bits, model in models.items():
        cards[bits] = _trained(
            as_depths(dealt[: int(bits)]), question, model, options.minutes, options.start
        )
        print(_row(bits, cards[bits]), flush=True)
    models["bundled"], cards["bundled"] = PRETRAINED, read_card(PRETRAINED)
    _curve(cards, options.minutes).savefig(options.out / "tradeoff.svg", metadata={"Date": None})
    shown = question.queries[:: len(question.queries) // _SHOWN][:_SHOWN]
    pictures = {"original": shown} | {n: _decoded(model, shown) for n, model in models.items()}
    _rows(pictures).savefig(options.out / "tradeoff.png", dpi=200)


def _trained(
    depths: tuple[tuple[int, int], ...],
    question: Question,
    out: Path,
    minutes: float,
    start: Path,
) -> Card:
    preset = PRESETS[_PRESET]
    assert isinstance(preset, ConvolutionalPreset)
    preset = replace(preset, depths=depths)
    if not out.exists():
        train(
            _PRESET,
            preset,
            question.gallery,
            out,
            data="cifar10",
            seed=0,
            device="cpu",
            minutes=minutes,
            resume=True,
            start=start,
            questions=[question],
        )
    card = read_card(out)
    record, settings = card.training, json.loads(json.dumps(asdict(preset)))
    recorded_start = (record["start"] or {}).get("fingerprint")
    recorded = (record["settings"], record["minutes_asked"], recorded_start)
    if recorded != (settings, minutes, read_card(start).fingerprint):
        raise SystemExit(f"{out} was trained with other settings; delete it")
    return card


def _row(name: str, card: Card) -> str:
    *found, psnr = (card.metrics[f"cifar10_{measure}"] for measure in _MEASURES)
    figures = " | ".join(f"{value:.3f}".removeprefix("0") for value in found)
    return f"| {name} | {figures} | {psnr:.1f} dB |"


def _decoded(model: Path, images: NDArray[np.uint8]) -> NDArray[np.uint8]:
    encoder = Encoder(read_model(model)[0])
    return encoder.reconstruct(encoder.encode(images))


def _rows(pictures: dict[str, NDArray[np.uint8]]) -> Figure:
    """A row of pictures for each name, labelled with the name."""
    figure = Figure(figsize=(9, 0.5 * len(pictures)), layout="constrained")
    for axes, (name, row) in zip(figure.subplots(len(pictures)), pictures.items(), strict=True):
        axes.imshow(mosaic(row, columns=len(row)), interpolation="nearest")
        axes.set_ylabel(name, rotation=0, ha="right", va="center")
        axes.set(xticks=[], yticks=[], frame_on=False)
    return figure


def _curve(cards: dict[str, Card], minutes: float) -> Figure:
    """Plot mAP against PSNR: a line through the numbers of bits, and the bundled model."""
    points = {
        name: (card.metrics["cifar10_psnr_db"], card.metrics["cifar10_codes_map_at_1000"])
        for name, card in cards.items()
    }
    figure = Figure(figsize=(6, 4), layout="constrained")
    axes = figure.subplots()
    for name, point in points.items():
        axes.annotate(name, point, (6, 5), textcoords="offset points")
    axes.plot(*points.pop("bundled"), "o", color="C1", label="bundled")
    label = f"bits for the picture; {minutes:g} minutes of its decoder"
    axes.plot(*zip(*points.values(), strict=True), "o-", color="C0", label=label)
    axes.margins(0.1)
    axes.legend()
    axes.set(xlabel="PSNR of CIFAR-10's test images, dB", ylabel="mAP@1000")
    return figure


if __name__ == "__main__":
    main()
