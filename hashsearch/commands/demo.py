"""`demo`: index a sample gallery, search it once, and serve the page."""

import argparse

from hashsearch.commands.arguments import (
    WHEN_STOPPED,
    Commands,
    add_address,
    add_command,
)
from hashsearch.commands.serve import run_service
from hashsearch.sources import DataFolders
from hashsearch.stopping import stop_on_sigterm


def add(commands: Commands) -> None:
    demo = add_command(commands, "demo", _demo, "index a sample gallery, search it, serve the page")
    demo.set_defaults(when_stopped=WHEN_STOPPED)
    demo.add_argument(
        "--dataset", metavar="D", help="cifar10, samples or a path; default: cifar10 if available"
    )
    demo.add_argument("--no-serve", action="store_true", help="end after printing the search")
    add_address(demo)


def _demo(options: argparse.Namespace) -> int:
    from hashsearch.demo import build_demo, show_search

    stop_on_sigterm()
    folders = DataFolders.of_environment()
    gallery, dataset = build_demo(options.dataset, folders)
    show_search(gallery, dataset, folders)
    if not options.no_serve:
        print()
        run_service(gallery, options.host, options.port)
    return 0
