"""`index`: add images to a gallery."""

import argparse
import json
import os
from pathlib import Path
from typing import TYPE_CHECKING

from hashsearch.commands.arguments import (
    GOES_ON,
    SOURCES,
    Commands,
    add_command,
    positive,
    stop_on_sigterm,
)
from hashsearch.sources import DataFolders, open_source

if TYPE_CHECKING:
    from hashsearch.gallery.indexing import IndexSummary


def add(commands: Commands) -> None:
    index = add_command(commands, "index", _index, "add images to a gallery")
    index.set_defaults(when_stopped=GOES_ON)
    index.add_argument("sources", metavar="SRC", nargs="+", help=SOURCES)
    index.add_argument("--gallery", metavar="G", type=Path, required=True)
    index.add_argument(
        "--model", metavar="M", type=Path, help="for a new gallery; the bundled one unless given"
    )
    index.add_argument("--workers", metavar="N", type=positive, default=os.cpu_count() or 1)
    index.add_argument("--json", action="store_true")


def _index(options: argparse.Namespace) -> int:
    from hashsearch.errors import ArtifactMismatch
    from hashsearch.gallery.folder import Gallery
    from hashsearch.gallery.indexing import index_sources, require_images
    from hashsearch.models.folder import PRETRAINED, read_card

    stop_on_sigterm()
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
