"""`index`: add images to a gallery."""

import argparse
import json
import sys
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING

from hashsearch.commands.arguments import (
    SOURCES,
    WHEN_STOPPED,
    Commands,
    add_cluster,
    add_command,
    add_gallery,
    model,
    positive,
    whole,
)
from hashsearch.commands.output import escaped
from hashsearch.errors import HashSearchError
from hashsearch.extras import heic_hint
from hashsearch.models.card import A_MODEL
from hashsearch.sources import DataFolders, open_source
from hashsearch.sources.labels import Labels
from hashsearch.stopping import stop_on_sigterm, stop_requested
from hashsearch.wording import counted

if TYPE_CHECKING:
    from hashsearch.jobs.index.indexing import IndexSummary


def add(commands: Commands) -> None:
    index = add_command(commands, "index", _index, "add images to a gallery")
    index.set_defaults(when_stopped=WHEN_STOPPED)
    index.add_argument("sources", metavar="SRC", nargs="+", help=SOURCES)
    add_gallery(index)
    index.add_argument(
        "--model",
        metavar="M",
        type=model,
        help=f"model of a new gallery: {A_MODEL} (default: bundled)",
    )
    index.add_argument(
        "--labels",
        metavar="CSV",
        type=Path,
        help="labels by path within the source; its columns are path and label",
    )
    index.add_argument(
        "--follow-links",
        action="store_true",
        help="include image files outside a folder that links in it lead to",
    )
    index.add_argument(
        "--workers",
        metavar="N",
        type=positive,
        help="number of processes that decode images (default: one for each core)",
    )
    add_cluster(index, "decode and encode")
    index.add_argument(
        "--max-failures", metavar="N", type=whole, help="stop if more images cannot be read"
    )
    index.add_argument(
        "--retry-failed", action="store_true", help="try files again that could not be read before"
    )
    index.add_argument(
        "--prune", action="store_true", help="remove images that are gone from these sources"
    )
    index.add_argument(
        "--exclude",
        metavar="PATTERN",
        action="append",
        default=[],
        help="leave out paths, as in .gitignore: '*.gif', 'Screenshots/'; the gallery remembers it",
    )
    index.add_argument(
        "--include",
        metavar="PATTERN",
        action="append",
        default=[],
        help="forget this pattern of an earlier --exclude",
    )
    index.add_argument(
        "--no-thumbnails",
        action="store_true",
        help="for a new gallery: keep no thumbnails of 128 px",
    )
    index.add_argument(
        "--no-pixels",
        action="store_true",
        help="for a new gallery: keep no tiny images, which comparison and reencode need",
    )
    index.add_argument(
        "--precision",
        choices=("float32", "bfloat16"),
        help="for a new gallery: bfloat16 is faster on processors that support it",
    )
    index.add_argument("--json", action="store_true")


def _index(options: argparse.Namespace) -> int:
    stop_on_sigterm()
    if options.on is None and options.ray_address is not None:
        raise HashSearchError("--ray-address goes with --on ray")
    folders = DataFolders.of_environment()
    sources = [open_source(spec, folders, options.follow_links) for spec in options.sources]
    labels = Labels(options.labels) if options.labels else None
    from hashsearch.face import open as open_gallery
    from hashsearch.jobs.index.indexing import require_images

    for source in sources:
        require_images(source)  # before a gallery is created
    with (
        _cluster(options),  # before a gallery is created, too
        open_gallery(
            options.gallery,
            create=True,
            model=options.model,
            pixels=False if options.no_pixels else None,
            thumbnails=False if options.no_thumbnails else None,
            precision=options.precision,
        ) as gallery,
        stop_requested() as stop,
    ):
        summary = gallery.index(
            *sources,
            labels=labels,
            workers=options.workers,
            on=options.on,
            max_failures=options.max_failures,
            retry_failed=options.retry_failed,
            prune=options.prune,
            exclude=options.exclude,
            include=options.include,
            stop=stop,
        )
        total = len(gallery)
        if summary.stopped:
            raise KeyboardInterrupt
    _print_summary(summary, total, options)
    return 0 if total else 1


def _cluster(options: argparse.Namespace) -> AbstractContextManager[None]:
    """Within the block, the command is connected to the cluster that it is to use, if any."""
    if options.on is None:
        return nullcontext()
    from hashsearch.distributed.cluster import cluster

    return cluster(options.ray_address, options.workers)


def _print_summary(summary: "IndexSummary", total: int, options: argparse.Namespace) -> None:
    from hashsearch.gallery.history import COUNTS

    if options.json:
        entries = {
            **{name: getattr(summary, name) for name in COUNTS},
            "passed_over": dict(summary.passed_over),
            "remarks": summary.remarks,
            "missing": summary.missing,
            "seconds": round(summary.seconds, 2),
            "total": total,
            "unused_labels": summary.unused_labels,
        }
        print(json.dumps(entries))
        return
    parts = (
        f"{summary.indexed:,} new",
        f"{summary.unchanged:,} already there",
        f"{summary.moved:,} moved" if summary.moved else "",
        counted(summary.duplicates, "duplicate"),
        f"{summary.failed:,} failed",
        f"{summary.skipped:,} failed before" if summary.skipped else "",
        f"{summary.excluded:,} excluded" if summary.excluded else "",
        f"{summary.pruned:,} removed" if summary.pruned else "",
    )
    counts = ", ".join(filter(None, parts))
    print(f"{options.gallery}: {counted(total, 'image')}; {counts}, in {summary.seconds:.1f} s")
    if summary.passed_over:
        kinds = ", ".join(
            f"{n:,} {suffix or '(no suffix)'}" for suffix, n in summary.passed_over.items()
        )
        print(f"passed over, since their names are not those of images: {kinds}")
        if hint := heic_hint(summary.passed_over):
            print(hint)
    for remark in summary.remarks:
        print(escaped(remark), file=sys.stderr)
    if summary.missing:
        print(
            f"gone: the files of {counted(summary.missing, 'image')}; "
            "to remove the images: the same command with --prune"
        )
    if summary.unused_labels:
        name = "names" if summary.unused_labels == 1 else "name"
        paths = f"{counted(summary.unused_labels, 'path')} in {options.labels}"
        print(f"{paths} {name} no image of these sources")
    if summary.failed or summary.skipped:
        print(f"to list the failures: hashsearch gallery failures {options.gallery}")
    if summary.skipped:
        print("to try them again: the same command with --retry-failed")
