"""Arguments that several commands take, and the checks of their values."""

import argparse
import math
import os
from collections.abc import Callable, Sequence
from contextlib import suppress
from difflib import get_close_matches
from functools import partial
from itertools import takewhile
from pathlib import Path
from typing import Any, NoReturn, TypeAlias

from hashsearch.errors import InvalidGallery
from hashsearch.models.card import A_MODEL, model_folder
from hashsearch.sources.kinds import sources_in_words
from hashsearch.wording import CONTINUES

Commands: TypeAlias = "argparse._SubParsersAction[argparse.ArgumentParser]"

SOURCES = f"{sources_in_words()} [:train|:test]"
WHEN_STOPPED = f"stopped; {CONTINUES}"
GALLERY_VARIABLE = "HASHSEARCH_GALLERY"
_NOT_GIVEN = "\0"  # a default that cannot be typed


class UsageError(Exception):
    """Arguments that a parser cannot read."""

    def __init__(self, parser: argparse.ArgumentParser, message: str):
        super().__init__(message)
        self.parser = parser


class Parser(argparse.ArgumentParser):
    """A parser that raises UsageError, and whose arguments of type Path are never empty.

    An empty path would mean the working folder. Options are typed in full, since a shortened one
    may be meant as another.
    """

    def __init__(self, *arguments: Any, **options: Any):
        super().__init__(*arguments, **options)
        self.allow_abbrev = False
        self.register("type", Path, path)

    def parse_known_args(  # type: ignore[override]  # argparse calls it for each command too
        self, args: Sequence[str] | None = None, namespace: argparse.Namespace | None = None
    ) -> tuple[argparse.Namespace, list[str]]:
        places = {f"--{one.dest}": one.metavar for one in self._get_positional_actions()}
        for word in takewhile(lambda word: word != "--", args or ()):
            name = word.partition("=")[0]
            if name in places and name not in self._option_string_actions:
                self.error(f"{name} is no option here, but an argument: {self.prog} {places[name]}")
        parsed, unknown = super().parse_known_args(args, namespace)
        for word in unknown:
            name = word.partition("=")[0]
            if name.startswith("-"):
                known = get_close_matches(name, self._option_string_actions, 1)
                self.error(
                    f"unknown option {name}" + (f"; did you mean {known[0]}?" if known else "")
                )
        return parsed, unknown

    def error(self, message: str) -> NoReturn:
        raise UsageError(self, message)


def path(text: str) -> Path:
    if not text:
        raise argparse.ArgumentTypeError(
            "an empty path came; the path of a file or folder is wanted"
        )
    return Path(text)


def add_command(
    commands: Commands,
    name: str,
    run: Callable[[argparse.Namespace], int],
    text: str,
) -> argparse.ArgumentParser:
    parser = commands.add_parser(name, help=text, description=f"{text[0].upper()}{text[1:]}.")
    parser.set_defaults(run=run, when_stopped="stopped")
    return parser


def add_gallery(parser: argparse.ArgumentParser, *, positional: bool = False) -> None:
    """Add the gallery's argument; the variable HASHSEARCH_GALLERY stands in for it.

    The parsed `gallery` is always a path: InvalidGallery is raised if none is named.
    """
    way = "as the argument G" if positional else "with --gallery G"
    kind: dict[str, Any] = {"nargs": "?"} if positional else {}
    parser.add_argument(
        "gallery" if positional else "--gallery",
        metavar="G",
        type=partial(_gallery, way=way),
        default=_NOT_GIVEN,
        help=f"the gallery's folder (default: {GALLERY_VARIABLE})",
        **kind,
    )


def _gallery(text: str, way: str) -> Path:
    if not text:
        raise argparse.ArgumentTypeError("an empty path came; a gallery's folder is wanted")
    if "://" in text:  # not shown, since a database's URL may hold a password
        raise InvalidGallery("a gallery is a folder; what was given as its path is a URL")
    if text == _NOT_GIVEN:
        text = os.environ.get(GALLERY_VARIABLE, "")
        if not text:
            raise InvalidGallery(
                f"no gallery is named; name its folder {way} or in the variable {GALLERY_VARIABLE}"
            )
    return Path(text)


def add_list(
    parser: argparse._ActionsContainer, name: str, of: Callable[[str], Any], **given: Any
) -> None:
    """Add an option that takes several values, separated by spaces or commas.

    of: makes a value of its text. The parsed option is a list of values, or None.
    """

    def listed(text: str) -> list[Any]:
        parts = [part.strip() for part in text.split(",")]
        if not any(parts):
            raise argparse.ArgumentTypeError(
                "no value came; values are set apart by spaces or commas"
            )
        return [of(part) for part in parts if part]

    listed.__name__ = of.__name__  # for argparse's message
    parser.add_argument(name, type=listed, nargs="+", action=_Joined, **given)


class _Joined(argparse.Action):
    """Collect the values of all words, each of which is read as a list."""

    def __call__(
        self,
        parser: argparse.ArgumentParser,
        namespace: argparse.Namespace,
        values: Any,
        option_string: str | None = None,
    ) -> None:
        before = getattr(namespace, self.dest) or []  # of the option's earlier occurrences
        setattr(namespace, self.dest, [*before, *(value for part in values for value in part)])


def add_cluster(parser: argparse.ArgumentParser, task: str) -> None:
    """Add the options that move a task to a cluster of machines."""
    parser.add_argument(
        "--on", choices=("ray",), help=f"{task} on a Ray cluster; one of this machine by default"
    )
    parser.add_argument(
        "--ray-address",
        metavar="A",
        help="of a running cluster that this machine is a node of: host:port, or auto",
    )


def add_address(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=port, default=8000, help="0: any free port")


def port(text: str) -> int:
    number = int(text)
    if not 0 <= number < 2**16:
        raise argparse.ArgumentTypeError(f"must be a number from 0 to 65535; got {text}")
    return number


def model(text: str) -> Path:
    """A model's folder; a name stands for a model that comes with the package."""
    if not text:
        raise argparse.ArgumentTypeError(f"an empty path came; {A_MODEL} is wanted")
    return model_folder(text)


def whole(text: str, least: int = 0) -> int:
    with suppress(ValueError):
        if least <= int(text) < 2**63:
            return int(text)
    raise argparse.ArgumentTypeError(f"must be a whole number of at least {least}; got {text!r}")


def positive(text: str) -> int:
    return whole(text, 1)


def minutes(text: str) -> float:
    with suppress(ValueError):
        if 0 < float(text) < math.inf:
            return float(text)
    raise argparse.ArgumentTypeError(f"must be a number above 0; got {text!r}")
