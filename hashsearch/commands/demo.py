"""`demo`: a sample gallery, one search, the page."""

import argparse

from hashsearch.commands.arguments import (
    GOES_ON,
    Commands,
    add_address,
    add_command,
)
from hashsearch.commands.serve import run_service
from hashsearch.sources import DataFolders
from hashsearch.stopping import stop_on_sigterm


def add(commands: Commands) -> None:
    demo = add_command(commands, "demo", _demo, "index a sample gallery, search it, serve the page")
    demo.set_defaults(when_stopped=GOES_ON)
    demo.add_argument("--dataset", metavar="D", help="cifar10, samples or a path")
    demo.add_argument("--no-serve", action="store_true", help="end after the printed search")
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
