"""`eval`: measure methods on labelled images."""

import argparse
import os
import re
import shlex
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import date
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING

from hashsearch.commands.arguments import (
    SOURCES,
    Commands,
    add_command,
    add_list,
    model,
    positive,
    whole,
)
from hashsearch.commands.output import escaped
from hashsearch.errors import ArtifactMismatch, EvaluationError, MissingPackage
from hashsearch.models.card import (
    A_MODEL,
    PRETRAINED,
    PRETRAINED_MODELS,
    data_sets,
    label_sets,
    model_name,
)
from hashsearch.sources import DataFolders, open_source, open_test_split
from hashsearch.stopping import stop_on_sigterm

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from hashsearch.evaluation.measured import MeasuredMethod, Model
    from hashsearch.evaluation.tasks import Task
    from hashsearch.gallery.gallery_folder import GalleryFolder

_PACKAGES = (
    "torch",
    "numpy",
    "scipy",
    "faiss-cpu",
    "pillow",
    "ImageHash",
    "pdqhash",
)
_BITS = 256


def add(commands: Commands) -> None:
    command = add_command(commands, "eval", _evaluate, "measure how well methods find images")
    command.set_defaults(
        when_stopped="stopped; methods measured so far are kept and will not be measured again"
    )
    command.add_argument(
        "--data", metavar="SRC", required=True, help=f"{SOURCES}, or a gallery; with labels"
    )
    add_list(
        command,
        "--methods",
        str,
        metavar="METHOD",
        help="methods to measure; all that can be measured unless given",
    )
    command.add_argument(
        "--model",
        metavar="M",
        type=model,
        action="append",
        dest="models",
        help=f"what makes the codes: {A_MODEL} (default: bundled); may be given more than once",
    )
    command.add_argument(
        "--bits",
        metavar="N",
        type=positive,
        default=_BITS,
        help="bits of the baselines' codes (256)",
    )
    add_list(
        command,
        "-k",
        positive,
        metavar="K",
        help="numbers of images retrieved; mAP is measured at the largest (1 10 100 1000)",
    )
    command.add_argument(
        "--queries", metavar="N", type=positive, help="number of queries, drawn evenly by label"
    )
    command.add_argument(
        "--pool", action="store_true", help="test images that are not drawn join the gallery"
    )
    command.add_argument("--seed", type=whole, default=0, help="seed of everything random (0)")
    command.add_argument(
        "--out", metavar="FOLDER", type=Path, help="folder to write report.html, .md and .json into"
    )
    command.add_argument("--json", action="store_true")


def _evaluate(options: argparse.Namespace) -> int:
    stop_on_sigterm()
    from hashsearch.evaluation.evaluate import evaluate, numbers_retrieved, require_measurable
    from hashsearch.evaluation.report import Report, require_room, to_text, write_report
    from hashsearch.models.card import require_todays_rules

    folders = DataFolders.of_environment()
    environment = _environment()
    with _gallery(options) as gallery:
        models = _models(options, gallery)
        if gallery is None:  # the pixels of a gallery are by its own model's image rules
            for model in models:
                remedy = "train it again, or name a gallery that it made"
                require_todays_rules(model.card, model_name(model.folder), remedy)
        asked = _asked(options, models)  # so that a wrong name is refused before images are read
        task = _task(options, gallery, folders)
    methods, left_out = asked or _measurable(options, models, task)
    for method in methods:
        require_measurable(method, task)
    reconstruct = [_roundtrip(model) for model in models] if options.out else []
    ks = numbers_retrieved(options.k, task)
    if options.out:  # before measuring, and after all checks of the data
        require_room(options.out)
    results = evaluate(
        task,
        methods,
        ks=ks,
        seed=options.seed,
        environment=environment,
        date=f"{date.today()}",
        cache=folders.cache / "evaluation",
    )
    report = Report(
        task=task.name,
        queries=len(task.queries),
        gallery=len(task.gallery),
        unlabelled=task.unlabelled,
        unanswerable=task.unanswerable,
        set_apart=task.set_apart,
        images_sha256=task.digest,
        ks=ks,
        seed=options.seed,
        command=_command(options),
        environment=environment,
        models=[
            {
                "name": model.name,
                "fingerprint": model.card.fingerprint,
                "data": escaped(", ".join(data_sets(model.card.training))),
                "labels": escaped(", ".join(label_sets(model.card.training))),
            }
            for model in models
        ],
        results=results,
        left_out=left_out,
    )
    print(report.to_json() if options.json else to_text(report), end="")
    if options.out:
        write_report(options.out, report, task, reconstruct)
    return 0


def _environment() -> dict[str, str]:
    """What results may depend on: the machine, and versions of the packages that compute."""
    import torch

    from hashsearch.hardware import describe

    found = {"on": f"{describe('cpu')}, {torch.backends.cpu.get_cpu_capability()}"}
    for package in _PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = "not installed"
    return found


@contextmanager
def _gallery(options: argparse.Namespace) -> "Iterator[GalleryFolder | None]":
    """The gallery, if --data is one. Raises ArtifactMismatch if another model made it."""
    from hashsearch.gallery.gallery_folder import GalleryFolder
    from hashsearch.models.card import read_card

    if not options.data or not GalleryFolder.exists(Path(options.data)):
        yield None
        return
    gallery = GalleryFolder(Path(options.data))
    for folder in options.models or ():
        if (fingerprint := read_card(folder).fingerprint) != gallery.fingerprint:
            raise ArtifactMismatch(
                f"{options.data} was made by model {gallery.fingerprint[:12]}, and "
                f"{model_name(folder)} is {fingerprint[:12]}; leave --model out, or name images"
            )
    try:
        yield gallery
    finally:
        gallery.close()


def _models(options: argparse.Namespace, gallery: "GalleryFolder | None") -> "list[Model]":
    from hashsearch.evaluation.measured import distinct_models

    folders = [gallery.model_folder] if gallery else options.models or [PRETRAINED]
    return distinct_models((_short_name(folder), folder) for folder in folders)


def _short_name(folder: Path) -> str:
    """A model's name such as `bundled`, the name of its folder, or its path if those are equal."""
    own = folder.absolute().name
    named = folder in PRETRAINED_MODELS.values() or own in PRETRAINED_MODELS
    return _printable(model_name(folder) if named else own)


def _asked(
    options: argparse.Namespace, models: "list[Model]"
) -> "tuple[list[MeasuredMethod], dict[str, str]] | None":
    """The methods that --methods names, with none left out; None without --methods."""
    from hashsearch.evaluation.measured import methods_named

    if not options.methods:
        return None
    names = dict.fromkeys(options.methods)
    found = [methods_named(name, models, options.bits, options.seed) for name in names]
    return [method for part in found for method in part], {}


def _measurable(
    options: argparse.Namespace, models: "list[Model]", task: "Task"
) -> "tuple[list[MeasuredMethod], dict[str, str]]":
    """The methods that can be measured, and why each of the others cannot."""
    from hashsearch.evaluation.evaluate import require_measurable
    from hashsearch.evaluation.measured import measured, methods_named

    methods: list[MeasuredMethod] = []
    left_out = {}
    for name, row in measured().items():
        if not row.by_default:
            continue
        try:
            found = methods_named(name, models, options.bits, options.seed)
            for method in found:
                require_measurable(method, task)
        except (EvaluationError, MissingPackage) as error:
            left_out[name] = str(error)
            print(f"{name} is left out: {error}", file=sys.stderr)
        else:
            methods += found
    if not methods:
        raise EvaluationError(next(iter(left_out.values())))
    return methods, left_out


def _task(
    options: argparse.Namespace, gallery: "GalleryFolder | None", folders: DataFolders
) -> "Task":
    from hashsearch.evaluation.tasks import LabelledImages, images_of_gallery, split_task
    from hashsearch.sources.kinds import how_labels_are_given
    from hashsearch.sources.loading import load_labelled_images

    test = None
    if gallery is not None:
        images = images_of_gallery(gallery)
        advice = "hashsearch index with --labels gives labels to images that a gallery has"
    else:
        source = open_source(options.data, folders)  # first, for its better message
        test_source = open_test_split(options.data, folders)
        images = LabelledImages(*load_labelled_images(source))
        advice = how_labels_are_given(Path(options.data))
        if test_source is not None:
            test = LabelledImages(*load_labelled_images(test_source))
    return split_task(
        _name_of(options.data),
        images,
        test,
        n_queries=options.queries,
        pooled=options.pool,
        seed=options.seed,
        advice=advice,
    )


def _name_of(spec: str) -> str:
    """`cifar10` of `data/cifar10.tar.gz`, `cifar10-test` of `cifar10:test`."""
    name, _, split = _printable(Path(spec).name).partition(":")
    stem = re.sub(r"\.(tar|tgz|tar\.gz)$", "", name)
    return "-".join(part for part in (stem, split) if part) or "images"


def _roundtrip(model: "Model") -> "Callable[[NDArray[np.uint8]], NDArray[np.uint8]]":
    encoder = model.encoder
    return lambda tiny: encoder.reconstruct(encoder.encode(tiny))


def _command(options: argparse.Namespace) -> str:
    """The command that repeats this from the same folder."""
    words = ["hashsearch", "eval", "--data", options.data]
    words += ["--methods", *options.methods] if options.methods else []
    for folder in options.models or ():
        words += ["--model", model_name(folder)]
    words += ["--bits", str(options.bits)] if options.bits != _BITS else []
    words += ["-k", *map(str, options.k)] if options.k else []
    words += ["--queries", str(options.queries)] if options.queries else []
    words += ["--pool"] if options.pool else []
    words += ["--seed", str(options.seed)] if options.seed else []
    words += ["--out", str(options.out)] if options.out else []
    return _printable(shlex.join(words))


def _printable(name: str) -> str:
    """A name from the file system in Unicode, whatever its bytes."""
    return escaped(os.fsencode(name).decode("utf-8", "replace"))
