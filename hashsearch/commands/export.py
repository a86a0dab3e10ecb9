"""`export`: hand a gallery's codes to files and databases."""

import argparse
import json
import sys
from dataclasses import asdict
from typing import TYPE_CHECKING

from hashsearch.commands.arguments import WHEN_STOPPED, Commands, add_command, add_gallery
from hashsearch.commands.output import escaped
from hashsearch.exports.targets import FORMS, INDEXES, target_of
from hashsearch.stopping import stop_on_sigterm, stop_requested
from hashsearch.wording import counted

if TYPE_CHECKING:
    from hashsearch.exports.targets import ExportSummary


def add(commands: Commands) -> None:
    export = add_command(
        commands, "export", _export, "hand a gallery's codes to Parquet files and PostgreSQL"
    )
    add_gallery(export, positional=True)
    export.add_argument(
        "--to",
        metavar="TO",
        required=True,
        help=f"{FORMS}; give passwords in PGPASSWORD, .pgpass or a service file",
    )
    export.add_argument(
        "--table",
        metavar="NAME",
        help="the table, NAME or SCHEMA.NAME (default: hashsearch_images)",
    )
    export.add_argument(
        "--index",
        choices=INDEXES,
        help="index of the table's codes by pgvector (default: hnsw, or as before)",
    )
    export.add_argument(
        "--replace",
        action="store_true",
        help="replace the file, whatever it is",
    )
    export.add_argument("--json", action="store_true")


def _export(options: argparse.Namespace) -> int:
    stop_on_sigterm()
    is_database = target_of(options.to).is_database
    options.when_stopped = WHEN_STOPPED if is_database else "stopped; nothing was written"
    from hashsearch.face import open as open_gallery

    with open_gallery(options.gallery) as gallery, stop_requested() as stop:
        summary = gallery.export(
            options.to,
            table=options.table,
            index=options.index,
            replace=options.replace,
            stop=stop,
        )
        if summary.stopped:
            raise KeyboardInterrupt
    if options.json:
        print(json.dumps(asdict(summary) | {"seconds": round(summary.seconds, 2)}))
    else:
        print(f"{_place(summary)}: {_counts(summary)}, in {summary.seconds:.1f} s")
        for remark in summary.remarks:
            print(escaped(remark), file=sys.stderr)
    return 0


def _place(summary: "ExportSummary") -> str:
    table = "" if summary.table is None else f", table {summary.table}"
    return escaped(summary.to + table)


def _counts(summary: "ExportSummary") -> str:
    images = f"{counted(summary.images, 'image')} of generation {summary.generation}"
    if summary.table is None:
        return images
    return f"{images}; {summary.written:,} written, {summary.removed:,} removed"
