"""The `hashsearch` command. Results go to stdout, progress and errors to stderr.

Training, service and torch are imported inside the commands that need them, so
that the others start quickly.
"""

import argparse
import json
import math
import os
import signal
import socket
import sqlite3
import sys
from collections.abc import Callable, Sequence
from copy import deepcopy
from io import TextIOWrapper
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hashsearch import __version__
from hashsearch.codes import CODE_BYTES, code_from_hex
from hashsearch.errors import HashSearchError, InvalidQuery, TrainingError
from hashsearch.images import quiet_pillow, read_image_file
from hashsearch.sources import DataFolders, dataset_at_hand, open_source

if TYPE_CHECKING:
    from hashsearch.gallery.catalog import ImageRecord
    from hashsearch.gallery.indexing import IndexSummary
    from hashsearch.gallery.queries import Query, Ranking, Searcher

_LAST_REQUESTS_S = 5  # how long requests under way may take when the service is stopped
_MAX_ID_DIGITS = 18  # longer numbers are codes that happen to have no letter


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns its exit status."""
    options = _parser().parse_args(arguments)
    quiet_pillow()
    if isinstance(sys.stdout, TextIOWrapper):  # file names may not be UTF-8
        sys.stdout.reconfigure(encoding="utf-8", errors="surrogateescape")
    try:
        return int(options.run(options))
    except HashSearchError as error:
        return _fail(str(error))
    except KeyboardInterrupt:
        return _fail(options.when_stopped, 130)
    except BrokenPipeError:
        # The reader went away, as `head` does. Python's own flush at the end must not fail.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    except (OSError, sqlite3.Error) as error:
        return _fail(f"{type(error).__name__}: {error}")


def _demo(options: argparse.Namespace) -> int:
    from hashsearch.demo import build_demo, show_search

    _stop_on_sigterm()
    folders = DataFolders.of_environment()
    gallery, dataset = build_demo(options.dataset, folders)
    show_search(gallery, dataset, folders)
    if not options.no_serve:
        print()
        _run_service(gallery, options.host, options.port)
    return 0


def _train(options: argparse.Namespace) -> int:
    import numpy as np

    from hashsearch.models.folder import require_free
    from training.data import load_labelled_images, load_tiny_images
    from training.device import choose_device
    from training.job import load_start, train
    from training.presets import PRESETS
    from training.retrieval import Labelled
    from training.run import require_none_unfinished

    for spec in options.data:
        if spec.endswith(":test"):
            raise TrainingError(f"{spec} is for evaluation alone; train on another split")
    _stop_on_sigterm()
    require_free(options.out)
    if not options.resume:
        require_none_unfinished(options.out)
    load_start(PRESETS[options.preset], options.start)  # refused before images are read
    device = choose_device(options.device)
    folders = DataFolders.of_environment()
    specs = dict.fromkeys(options.data)  # each once, however much it weighs
    read = {spec: load_tiny_images(open_source(spec, folders)) for spec in specs}
    images = np.concatenate([read[spec] for spec in options.data])
    gallery, queries = (dataset_at_hand("cifar10", split, folders) for split in ("train", "test"))
    labelled = None
    if gallery and queries:
        labelled = Labelled(
            "cifar10", *load_labelled_images(gallery), *load_labelled_images(queries)
        )
    card = train(
        options.preset,
        PRESETS[options.preset],
        images,
        options.out,
        data=" + ".join(options.data),
        seed=options.seed,
        device=device,
        minutes=options.minutes,
        resume=options.resume,
        start=options.start,
        labelled=labelled,
    )
    print(f"{options.out}: model {card.fingerprint[:12]}, {_metrics(card.metrics)}")
    return 0


def _index(options: argparse.Namespace) -> int:
    from hashsearch.errors import ArtifactMismatch
    from hashsearch.gallery.folder import Gallery
    from hashsearch.gallery.indexing import index_sources, require_images
    from hashsearch.models.folder import PRETRAINED, read_card

    _stop_on_sigterm()
    folders = DataFolders.of_environment()
    sources = [open_source(spec, folders) for spec in options.sources]
    for source in sources:
        require_images(source)
    if Gallery.exists(options.gallery):
        gallery = Gallery(options.gallery)
        if options.model and read_card(options.model).fingerprint != gallery.fingerprint:
            raise ArtifactMismatch(
                f"{options.gallery} was made by model {gallery.fingerprint[:12]}, and "
                f"{options.model} is {read_card(options.model).fingerprint[:12]}; "
                "leave --model out, or name a new gallery"
            )
    else:
        gallery = Gallery.create(options.gallery, options.model or PRETRAINED)
    summary = index_sources(gallery, sources, workers=options.workers)
    total = gallery.catalog.count()
    gallery.close()
    _print_summary(summary, total, options)
    return 0 if total else 1


def _query(options: argparse.Namespace) -> int:
    from hashsearch.gallery.folder import Gallery
    from hashsearch.gallery.queries import Searcher

    gallery = Gallery(options.gallery)
    searcher = Searcher(gallery, gallery.encoder())
    query = _parse_query(options.query, searcher)
    ranking = searcher.search(query, options.method, k=options.k, radius=options.radius)
    hits = searcher.hits(ranking)
    gallery.close()
    _print_hits(ranking, hits, as_json=options.json)
    return 0


def _serve(options: argparse.Namespace) -> int:
    _run_service(options.gallery, options.host, options.port)
    return 0


def _gallery_info(options: argparse.Namespace) -> int:
    from hashsearch.gallery.folder import Gallery

    gallery = Gallery(options.gallery)
    shards = gallery.catalog.shard_rows()
    info = {
        "images": gallery.catalog.count(),
        "failures": len(gallery.catalog.failures()),
        "shards": len(shards),
        "model": gallery.fingerprint,
        "precision": gallery.catalog.setting("precision"),
        "generation": gallery.catalog.generation(),
        "last job": gallery.catalog.last_job(),
    }
    gallery.close()
    _print_entries(info, as_json=options.json)
    return 0


def _gallery_failures(options: argparse.Namespace) -> int:
    from hashsearch.gallery.folder import Gallery

    gallery = Gallery(options.gallery)
    failures = gallery.catalog.failures()
    gallery.close()
    if options.json:
        rows = [{"uri": f.uri, "reason": f.reason, "time": time} for f, time in failures]
        print(json.dumps(rows, indent=2))
    for failure, time in [] if options.json else failures:
        print(f"{time}  {failure.uri}: {failure.reason}")
    return 0


def _model_info(options: argparse.Namespace) -> int:
    from hashsearch.models.folder import PRETRAINED, load_model

    _, card = load_model(options.model or PRETRAINED)
    if options.json:
        print(card.to_json(), end="")
        return 0
    start = card.training.get("start")  # not in the cards of models before there was one
    entries = {
        "kind": card.kind,
        **card.architecture,
        "bits": card.bits,
        "fingerprint": card.fingerprint,
        **{key: value for key, value in card.training.items() if key not in ("settings", "start")},
        **({"start": start.get("fingerprint")} if isinstance(start, dict) else {}),
        **card.metrics,
    }
    _print_entries(entries, as_json=False)
    return 0


def _run_service(gallery: Path | None, host: str, port: int) -> None:
    """Serve until told to stop; a gallery or address that cannot be used fails before."""
    import uvicorn
    from pydantic import ValidationError

    from service.app import create_app
    from service.settings import Settings

    try:
        # Without one, the environment names it.
        settings = Settings(gallery=gallery) if gallery else Settings()  # type: ignore[call-arg]
    except ValidationError as error:
        wrong = ", ".join(f"HASHSEARCH_{part['loc'][0]}".upper() for part in error.errors())
        raise HashSearchError(
            f"the setting {wrong} is missing or cannot be used; --gallery names the gallery"
        ) from error
    app = create_app(settings)
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        listener = socket.create_server((host, port), family=family)
    except OSError as error:
        raise HashSearchError(f"cannot listen on {host}, port {port}: {error.strerror}") from error
    shown = f"[{host}]" if ":" in host else host
    print(f"Serving on http://{shown}:{listener.getsockname()[1]}/", flush=True)
    logging = deepcopy(uvicorn.config.LOGGING_CONFIG)
    logging["handlers"]["access"]["stream"] = "ext://sys.stderr"  # stdout is for results
    config = uvicorn.Config(app, log_config=logging, timeout_graceful_shutdown=_LAST_REQUESTS_S)
    uvicorn.Server(config).run(sockets=[listener])


def _parse_query(text: str, searcher: "Searcher") -> "Query":
    """An image file's path, an id or a code: the first of them that it can be."""
    if Path(text).is_file():
        return searcher.query_by_image(read_image_file(Path(text)))
    if text.isascii() and text.isdigit() and len(text) <= _MAX_ID_DIGITS:
        return searcher.query_by_id(int(text))
    if len(text) >= CODE_BYTES and all(c in "0123456789abcdefABCDEF" for c in text):
        return searcher.query_by_code(code_from_hex(text))
    raise InvalidQuery(
        f"{text} is neither an image file, an id of the gallery, nor a code of "
        f"{2 * CODE_BYTES} hexadecimal digits"
    )


def _print_hits(
    ranking: "Ranking", hits: "list[tuple[ImageRecord, int]]", *, as_json: bool
) -> None:
    from hashsearch.gallery.queries import UNITS

    unit = UNITS[ranking.method]
    if as_json:
        answer = {
            "method": ranking.method,
            "unit": unit,
            "latency_ms": round(ranking.latency_ms, 3),
            "hits": [
                {
                    "id": image.id,
                    "distance": distance,
                    "label": image.label,
                    "uri": image.uri,
                    "path": image.path,
                }
                for image, distance in hits
            ],
        }
        print(json.dumps(answer, indent=2))
        return
    table = [(unit, "id", "label", "image")]
    table += [
        (f"{distance:,}", str(image.id), _shown(image.label or ""), _shown(image.path))
        for image, distance in hits
    ]
    widths = [max(len(row[column]) for row in table) for column in range(3)]
    for distance, image_id, label, path in table:
        print(f"{distance:>{widths[0]}}  {image_id:>{widths[1]}}  {label:<{widths[2]}}  {path}")


def _print_summary(summary: "IndexSummary", total: int, options: argparse.Namespace) -> None:
    if options.json:
        counts = {**summary.counts(), "passed_over": dict(summary.passed_over)}
        print(json.dumps({**counts, "total": total, "seconds": round(summary.seconds, 2)}))
        return
    print(
        f"{options.gallery}: {total:,} images; {summary.indexed:,} new, "
        f"{summary.unchanged:,} already there, {summary.duplicates:,} duplicates, "
        f"{summary.failed:,} failed, in {summary.seconds:.1f} s"
    )
    if summary.passed_over:
        kinds = ", ".join(
            f"{n:,} {suffix or '(no suffix)'}" for suffix, n in summary.passed_over.items()
        )
        print(f"passed over, not images by their names: {kinds}")
    if summary.failed:
        print(f"what failed, and why: hashsearch gallery failures {options.gallery}")


def _print_entries(entries: dict[str, Any], *, as_json: bool) -> None:
    if as_json:
        print(json.dumps(entries, indent=2))
        return
    width = max(map(len, entries))
    for name, value in entries.items():
        if isinstance(value, dict):
            value = ", ".join(f"{key} {part}" for key, part in value.items())
        print(f"{name:<{width}}  {value}")


def _metrics(metrics: dict[str, float]) -> str:
    return ", ".join(f"{name} {value}" for name, value in metrics.items())


def _fail(message: str, status: int = 1) -> int:
    print(f"hashsearch: {_escaped(message)}", file=sys.stderr)
    return status


def _shown(name: str) -> str:
    """A name from outside: as it is for a program, without control characters on a terminal."""
    return _escaped(name) if sys.stdout.isatty() else name


def _escaped(text: str) -> str:
    return "".join(
        c if c.isprintable() or 0xDC80 <= ord(c) <= 0xDCFF else ascii(c)[1:-1] for c in text
    )


def _stop_on_sigterm() -> None:
    """Let SIGTERM stop a job as Ctrl-C does, as process 1 of a container too."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)


def _parser() -> argparse.ArgumentParser:
    from training.presets import PRESETS

    parser = argparse.ArgumentParser(
        prog="hashsearch", description="Image search in 32 bytes an image."
    )
    parser.add_argument("--version", action="version", version=__version__)
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")
    sources = "a folder, a tar archive, CIFAR-10's batches, or cifar10 or samples [:train|:test]"

    demo = _command(commands, "demo", _demo, "index a sample gallery, search it, serve the page")
    goes_on = "stopped; what was committed is safe, and the same command goes on"
    demo.set_defaults(when_stopped=goes_on)
    demo.add_argument("--dataset", metavar="D", help="cifar10, samples or a path")
    demo.add_argument("--no-serve", action="store_true", help="end after the printed search")
    _add_address(demo)

    train = _command(commands, "train", _train, "train a model")
    train.set_defaults(when_stopped="stopped; the same command with --resume goes on")
    train.add_argument("preset", metavar="PRESET", choices=PRESETS, help=", ".join(PRESETS))
    train.add_argument("--data", metavar="SRC", nargs="+", required=True, help=sources)
    train.add_argument("--out", metavar="MODEL", type=Path, required=True, help="a new folder")
    train.add_argument("--seed", type=_seed, default=0)
    train.add_argument(
        "--minutes", metavar="M", type=_minutes, help="train about so long, not the preset's steps"
    )
    train.add_argument("--resume", action="store_true", help="go on with a training that stopped")
    train.add_argument(
        "--from",
        dest="start",
        metavar="MODEL",
        type=Path,
        help="start from this model's weights, not from random ones",
    )
    train.add_argument("--device", help="cpu or cuda; CUDA where there is one")

    index = _command(commands, "index", _index, "add images to a gallery")
    index.set_defaults(when_stopped=goes_on)
    index.add_argument("sources", metavar="SRC", nargs="+", help=sources)
    index.add_argument("--gallery", metavar="G", type=Path, required=True)
    index.add_argument(
        "--model", metavar="M", type=Path, help="for a new gallery; the bundled one unless given"
    )
    index.add_argument("--workers", metavar="N", type=_positive, default=os.cpu_count() or 1)
    index.add_argument("--json", action="store_true")

    query = _command(commands, "query", _query, "find an image's neighbours")
    query.add_argument("query", metavar="IMAGE|ID|CODE")
    query.add_argument("--gallery", metavar="G", type=Path, required=True)
    query.add_argument("-k", type=int, help="how many at most (10, without a radius)")
    query.add_argument("--radius", metavar="R", type=int, help="greatest distance, inclusive")
    query.add_argument("--method", choices=("codes", "pixels"), default="codes")
    query.add_argument("--json", action="store_true")

    serve = _command(commands, "serve", _serve, "serve a gallery over HTTP, with its page")
    serve.add_argument("--gallery", metavar="G", type=Path, help="or HASHSEARCH_GALLERY")
    _add_address(serve)

    gallery = commands.add_parser("gallery", help="look after a gallery")
    gallery_commands = gallery.add_subparsers(required=True, metavar="COMMAND")
    for name, run, text in (
        ("info", _gallery_info, "what it holds"),
        ("failures", _gallery_failures, "images that could not be read, and why"),
    ):
        command = _command(gallery_commands, name, run, text)
        command.add_argument("gallery", metavar="G", type=Path)
        command.add_argument("--json", action="store_true")

    model = commands.add_parser("model", help="look at a model")
    model_commands = model.add_subparsers(required=True, metavar="COMMAND")
    info = _command(model_commands, "info", _model_info, "what it is and how it was trained")
    info.add_argument(
        "model", metavar="M", type=Path, nargs="?", help="the bundled one unless given"
    )
    info.add_argument("--json", action="store_true")
    return parser


def _command(
    commands: "argparse._SubParsersAction[argparse.ArgumentParser]",
    name: str,
    run: Callable[[argparse.Namespace], int],
    text: str,
) -> argparse.ArgumentParser:
    parser = commands.add_parser(name, help=text, description=f"{text[0].upper()}{text[1:]}.")
    parser.set_defaults(run=run, when_stopped="stopped")
    return parser


def _add_address(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=_port, default=8000, help="0: any that is free")


def _port(text: str) -> int:
    number = int(text)
    if not 0 <= number < 2**16:
        raise argparse.ArgumentTypeError(f"a number from 0 to 65535 was wanted; got {text}")
    return number


def _seed(text: str) -> int:
    number = int(text)
    if not 0 <= number < 2**63:
        raise argparse.ArgumentTypeError(f"a number of at least 0 was wanted; got {text}")
    return number


def _minutes(text: str) -> float:
    number = float(text)
    if not 0 < number < math.inf:
        raise argparse.ArgumentTypeError(f"a number above 0 was wanted; got {text}")
    return number


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"a number of at least 1 was wanted; got {text}")
    return number


if __name__ == "__main__":
    sys.exit(main())
