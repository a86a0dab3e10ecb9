"""`gallery`: look after one."""

import argparse
import json
from pathlib import Path

from hashsearch.commands.arguments import Commands, add_command
from hashsearch.commands.output import print_entries


def add(commands: Commands) -> None:
    gallery = commands.add_parser("gallery", help="look after a gallery")
    parts = gallery.add_subparsers(required=True, metavar="COMMAND")
    for name, run, text in (
        ("info", _info, "what it holds"),
        ("failures", _failures, "images that could not be read, and why"),
    ):
        command = add_command(parts, name, run, text)
        command.add_argument("gallery", metavar="G", type=Path)
        command.add_argument("--json", action="store_true")


def _info(options: argparse.Namespace) -> int:
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
    print_entries(info, as_json=options.json)
    return 0


def _failures(options: argparse.Namespace) -> int:
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
