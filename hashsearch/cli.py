"""The `hashsearch` command. Results go to stdout, progress and errors to stderr.

Training, service and torch are imported inside the commands that need them, so
that the others start quickly.
"""

import argparse
import json
import os
import re
import sqlite3
import sys
import time
from collections.abc import Sequence
from io import TextIOWrapper

from hashsearch import __version__
from hashsearch.commands import demo, evaluate, export, gallery, index, model, query, serve, train
from hashsearch.commands.arguments import Parser, UsageError
from hashsearch.commands.console import open_report
from hashsearch.commands.output import escaped
from hashsearch.errors import HashSearchError
from hashsearch.images import quiet_pillow
from hashsearch.progress import reports_opened_by
from hashsearch.stopping import status_of


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns its exit status.

    An error is one line on stderr. With --json it is also an object on stdout, with the same
    sentence as `error`, and as `kind` the name of the error's class. The status is 130 after
    Ctrl-C, and 143 after SIGTERM.
    """
    arguments = sys.argv[1:] if arguments is None else arguments
    as_json = "--json" in arguments
    options = argparse.Namespace(when_stopped="stopped", started=time.monotonic())
    quiet_pillow()
    if isinstance(sys.stdout, TextIOWrapper):  # file names may not be UTF-8
        sys.stdout.reconfigure(encoding="utf-8", errors="surrogateescape")
    try:
        _parser().parse_args(arguments, options)
        with reports_opened_by(open_report):
            return int(options.run(options))
    except UsageError as error:
        if as_json:
            _print_json(str(error), error)
        argparse.ArgumentParser.error(error.parser, str(error))
    except HashSearchError as error:
        return _fail(str(error), error, as_json)
    except KeyboardInterrupt as error:
        return _fail(options.when_stopped, error, as_json, status_of(error))
    except BrokenPipeError:
        # The reader closed the pipe, as `head` does. Python's flush at exit must not fail.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    except (OSError, sqlite3.Error) as error:
        return _fail(f"{type(error).__name__}: {error}", error, as_json)


def _parser() -> argparse.ArgumentParser:
    parser = Parser(prog="hashsearch", description="Image search in 32 bytes an image.")
    parser.add_argument("--version", action="version", version=__version__)
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")
    for command in (demo, train, index, query, serve, evaluate, gallery, export, model):
        command.add(commands)
    return parser


def _fail(message: str, error: BaseException, as_json: bool, status: int = 1) -> int:
    if as_json:
        _print_json(message, error)
    print(f"hashsearch: {escaped(message)}", file=sys.stderr)
    return status


def _print_json(message: str, error: BaseException) -> None:
    """The kind of InvalidImage is invalid-image."""
    kind = re.sub("(?<=[a-z])(?=[A-Z])", "-", type(error).__name__).lower()
    print(json.dumps({"error": message, "kind": kind}))


if __name__ == "__main__":
    sys.exit(main())
