"""Measure how near copies of pictures, and unlike pictures, lie to each other by code.

A training does so at its end. This command does it for a finished model, and can write the
result on the model's card; weights and fingerprint stay as they are.
"""

import argparse
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from hashsearch.closeness import Closeness
from hashsearch.commands.console import open_report
from hashsearch.durable import write_whole
from hashsearch.encoder import Encoder
from hashsearch.errors import HashSearchError, InvalidImage, InvalidSource
from hashsearch.evaluation.robustness import evenly
from hashsearch.images import decode, whole_picture
from hashsearch.models.card import (
    BUNDLED,
    CARD_FILE,
    FORMAT_VERSION,
    model_folder,
    model_name,
    read_card,
    require_todays_rules,
)
from hashsearch.pages import INK, in_ink
from hashsearch.progress import progress_report, reports_opened_by
from hashsearch.sources import DataFolders, Source, open_source
from hashsearch.sources.loading import decode_image
from training.labels import ClassLabels
from training.measure import seconds_of
from training.training_report import Drawing

if TYPE_CHECKING:
    from matplotlib.figure import Figure

CodesOf = Callable[[NDArray[np.uint8]], NDArray[np.uint8]]
Way = Callable[[Image.Image], bytes]  # one in which people change a picture

PICTURES = 1000  # the most pictures whose pairs are counted
CHANGED = 200  # the most pictures that are changed
SIDE = 128  # a picture whose shorter side is shorter is enlarged before it is changed
NEEDED = 150  # pictures: the least whose pairs, 11,175, are more than UNLIKE
UNLIKE = 10_000  # one in so many pairs of unlike pictures is nearer than what is called alike
_WITHIN = 0.95  # share of copies, and of crops and mirror images
_TRIED = 8  # pictures changed to estimate the time for all
_QUALITY = 90  # of the JPEG files of crops and mirror images


@dataclass(frozen=True, slots=True)
class Distances:
    """Numbers of pairs by distance in bits, each (n_bits + 1,) int64.

    copies: of pictures and their recompressed and resized copies; crops: and their crops and
    mirror images; pairs: of two different pictures; unlike: of those among them that are not
    known to be of one kind, or of all, if these are too few. found: share of the copies to which
    their own picture is nearest; where n pictures are, 1/n of a copy.
    """

    copies: NDArray[np.int64]
    crops: NDArray[np.int64]
    pairs: NDArray[np.int64]
    unlike: NDArray[np.int64]
    found: float


def count_distances(
    codes_of: CodesOf,
    tiny: NDArray[np.uint8],
    originals: Sequence[Image.Image] | None = None,
    unlike: NDArray[np.bool_] | None = None,
) -> Distances:
    """Change pictures as people do, and count distances between codes.

    codes_of: maps (n, 32, 32, 3) uint8 tiny images to (n, n_bytes) uint8 codes. tiny: of the
    pictures. originals: those of `evenly(len(tiny), CHANGED)` at full size, RGB; without
    them, the tiny images are enlarged. unlike: (n, n), which pairs of pictures are unlike; all
    unless given.
    """
    codes = codes_of(tiny)
    pairs = _counts_of_pairs(codes)
    between = pairs if unlike is None else _counts_of_pairs(codes, unlike)
    changed = evenly(len(tiny), CHANGED)
    if originals is None:
        originals = [enlarged(one) for one in tiny[changed]]
    copies, crops = (
        [codes_of(_tiny_after(way, originals)) for way in ways] for ways in (COPIES, CROPS)
    )
    return Distances(
        copies=np.sum([_counts(one, codes[changed]) for one in copies], axis=0),
        crops=np.sum([_counts(one, codes[changed]) for one in crops], axis=0),
        pairs=pairs,
        unlike=between if between.sum() >= UNLIKE else pairs,
        found=float(np.mean([_share_nearest(one, codes, changed) for one in copies])),
    )


def closeness_of(distances: Distances) -> Closeness | None:
    """The distances up to which pictures are same, near and alike.

    None if there are too few pairs to know, or if 1 in UNLIKE of them have equal codes. Where
    copies or crops lie as far away as different pictures do, even of one kind, "same" and "near"
    reach no farther than these.
    """
    rarely, alike = _below(distances.pairs), _below(distances.unlike)
    if alike is None or alike < 0 or rarely is None or rarely < 0:
        return None
    near = min(max(_within(distances.crops), _within(distances.copies)), rarely, alike)
    return Closeness(same=min(_within(distances.copies), near), near=near, alike=alike)


def _below(counts: NDArray[np.int64]) -> int | None:
    """The distance within which at most 1 in UNLIKE pairs lies; None if there are fewer pairs."""
    pairs = np.cumsum(counts)
    if pairs[-1] < UNLIKE:
        return None
    return int(np.searchsorted(pairs, pairs[-1] / UNLIKE, side="right")) - 1


def enlarged(tiny: NDArray[np.uint8]) -> Image.Image:
    """A tiny image at a size at which it can be recompressed and resized as pictures are."""
    return Image.fromarray(tiny).resize((SIDE, SIDE), Image.Resampling.BICUBIC)


def seconds_to_count(codes_of: CodesOf, tiny: NDArray[np.uint8]) -> float:
    """Estimate the seconds that `count_distances` will take, from a few of these images."""
    few = tiny[:_TRIED]
    spent = seconds_of(lambda: count_distances(codes_of, few))
    return spent * max(CHANGED, len(tiny) / (len(COPIES) + len(CROPS))) / len(few)


def closeness_drawings(distances: Distances, closeness: Closeness | None) -> list[Drawing]:
    """The curves of the distances, for a training's report; empty without matplotlib."""
    try:
        with in_ink():
            figure = _figure(distances, closeness)
    except ImportError:
        return []
    caption = (
        "What distances mean: how far copies, crops and mirror images of held-out pictures are "
        "from them, and how far pairs of held-out pictures are from each other."
    )
    return [Drawing("closeness", caption, figure)]


def _jpeg(picture: Image.Image, quality: int) -> bytes:
    buffer = BytesIO()
    picture.save(buffer, "JPEG", quality=quality)
    return buffer.getvalue()


def _recompressed(quality: int) -> Way:
    return lambda picture: _jpeg(picture, quality)


def _resized(scale: float) -> Way:
    def way(picture: Image.Image) -> bytes:
        size = (round(picture.width * scale), round(picture.height * scale))
        return _jpeg(picture.resize(size, Image.Resampling.LANCZOS), 85)

    return way


def _cropped(left: float, top: float, right: float, bottom: float) -> Way:
    """Without these shares of width and height at the four sides."""

    def way(picture: Image.Image) -> bytes:
        width, height = picture.size
        box = (left * width, top * height, (1 - right) * width, (1 - bottom) * height)
        return _jpeg(picture.crop(tuple(map(round, box))), _QUALITY)  # type: ignore[arg-type]

    return way


def _mirrored(picture: Image.Image) -> bytes:
    return _jpeg(ImageOps.mirror(picture), _QUALITY)


COPIES: tuple[Way, ...] = (
    *map(_recompressed, (90, 75, 50)),
    *map(_resized, (3 / 4, 1 / 2, 1 / 4)),
)
CROPS: tuple[Way, ...] = (
    _cropped(0.05, 0.05, 0.05, 0.05),
    _cropped(0.1, 0, 0, 0),
    _cropped(0, 0, 0, 0.1),
    _mirrored,
)


def _tiny_after(way: Way, originals: Sequence[Image.Image]) -> NDArray[np.uint8]:
    return np.stack([decode(way(picture)).tiny for picture in originals])


def _counts(codes: NDArray[np.uint8], others: NDArray[np.uint8]) -> NDArray[np.int64]:
    """Numbers of rows by distance. codes, others: (n, n_bytes) uint8, or one of them one row."""
    distances = np.bitwise_count(codes ^ others).sum(axis=1, dtype=np.int64)
    return np.bincount(distances, minlength=8 * codes.shape[1] + 1)


def _share_nearest(
    changed: NDArray[np.uint8], codes: NDArray[np.uint8], rows: NDArray[np.int64]
) -> float:
    """Share of the changed pictures' codes to which that of their row is nearest, ties shared."""
    shares = []
    for code, row in zip(changed, rows, strict=True):
        distances = np.bitwise_count(codes ^ code).sum(axis=1, dtype=np.int64)
        nearest = distances == distances.min()
        shares.append(nearest[row] / nearest.sum())
    return float(np.mean(shares))


def _counts_of_pairs(
    codes: NDArray[np.uint8], counted: NDArray[np.bool_] | None = None
) -> NDArray[np.int64]:
    """counted: (n, n), which pairs; all unless given."""
    counts = np.zeros(8 * codes.shape[1] + 1, np.int64)
    for row in range(len(codes) - 1):
        later = codes[row + 1 :]
        if counted is not None:
            later = later[counted[row, row + 1 :]]
        counts += _counts(later, codes[row : row + 1])
    return counts


def _within(counts: NDArray[np.int64]) -> int:
    """The smallest distance that so large a share of the pairs lies within."""
    return int(np.searchsorted(np.cumsum(counts), _WITHIN * counts.sum()))


def _figure(distances: Distances, closeness: Closeness | None) -> "Figure":
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 4.5), layout="constrained")
    axes = figure.subplots()
    copies, crops, unlike = (
        np.cumsum(counts) / max(1, counts.sum())
        for counts in (distances.copies, distances.crops, distances.unlike)
    )
    for shares, label, colour in (
        (1 - copies, "recompressed and resized copies beyond", "tab:blue"),
        (1 - crops, "crops and mirror images beyond", "tab:orange"),
        (unlike, "unlike pictures within", "tab:red"),
    ):
        axes.step(np.arange(len(shares)), shares, where="mid", label=label, color=colour)
    axes.set(
        xlabel="distance in bits",
        ylabel="share of pairs beyond, or within, a distance",
        yscale="log",
        xlim=(0, max(1, int(np.searchsorted(unlike, 0.5)))),
        ylim=(0.1 / UNLIKE, 1.5),
    )
    for share in (1 - _WITHIN, 1 / UNLIKE):
        axes.axhline(share, color="grey", linewidth=0.8, linestyle=":")
    thresholds = closeness.as_dict() if closeness else {}
    for distance in dict.fromkeys(thresholds.values()):
        names = [name for name, threshold in thresholds.items() if threshold == distance]
        axes.axvline(distance, color=INK, linewidth=0.8, linestyle="--")
        axes.annotate(
            f"{', '.join(names)} ≤ {distance}",
            (distance, 2 / UNLIKE),
            (-4, 2),
            rotation=90,
            textcoords="offset points",
            ha="right",
            va="bottom",
        )
    figure.legend(loc="outside upper left", ncols=3, frameon=False, fontsize=9)
    return figure


def _read(source: Source) -> tuple[NDArray[np.uint8], NDArray[np.str_], list[Image.Image]]:
    """Tiny images, labels and some originals of at most PICTURES of a source's images."""
    chosen = set(evenly(sum(1 for _ in source), PICTURES).tolist())
    read = []
    with progress_report("reading images", len(chosen)) as report:
        for number, entry in enumerate(source):
            if number in chosen:
                try:
                    read.append((entry.label or "", *decode_image(entry)))
                except (InvalidImage, OSError) as error:
                    print(f"left out: {error}", file=sys.stderr)
                report.advance(1)
    if len(read) < NEEDED:
        raise InvalidSource(
            f"{source.root}: {NEEDED} readable pictures are needed, not {len(read)}"
        )
    tiny = np.stack([decoded.tiny for _, _, decoded in read])
    originals = [_original(read[row][1], tiny[row]) for row in evenly(len(read), CHANGED)]
    return tiny, np.array([label for label, _, _ in read]), originals


def _original(content: bytes | NDArray[np.uint8], tiny: NDArray[np.uint8]) -> Image.Image:
    """A picture at full size, or its tiny image enlarged if it is small."""
    picture = whole_picture(content) if isinstance(content, bytes) else Image.fromarray(content)
    return picture if min(picture.size) >= SIDE else enlarged(tiny)


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure a model's closeness; returns the exit status."""
    assert __doc__ is not None
    parser = argparse.ArgumentParser("training.closeness", description=__doc__.splitlines()[0])
    parser.add_argument("model", metavar="MODEL", nargs="?", default=BUNDLED)
    parser.add_argument("--data", metavar="SRC", required=True, help="pictures not trained on")
    parser.add_argument("--write", action="store_true", help="write the result on the model's card")
    parser.add_argument("--figure", metavar="FILE", type=Path, help="draw the curves, such as .svg")
    options = parser.parse_args(arguments)
    folder = model_folder(options.model)
    try:
        require_todays_rules(read_card(folder), model_name(folder), "train it again")
        with reports_opened_by(open_report):
            pictures = _read(open_source(options.data, DataFolders.of_environment()))
            tiny, labels, originals = pictures
            unlike = ClassLabels.of_sets([("", labels)]).unlike()
            distances = count_distances(Encoder.load(folder).encode, tiny, originals, unlike)
        closeness = closeness_of(distances)
        if options.figure:
            _figure(distances, closeness).savefig(options.figure)
        if options.write:
            card = replace(read_card(folder), closeness=closeness, format_version=FORMAT_VERSION)
            write_whole(folder / CARD_FILE, card.to_json())
    except (HashSearchError, OSError) as error:
        print(f"training.closeness: {error}", file=sys.stderr)
        return 1
    print(closeness.as_dict() if closeness else "not measured: different pictures have equal codes")
    return 0


if __name__ == "__main__":
    sys.exit(main())
