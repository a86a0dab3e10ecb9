"""Arguments that several commands take, tried on every command that takes them."""

import argparse
import json
from collections.abc import Iterator

import pytest

from hashsearch.cli import _parser
from hashsearch.models.card import PRETRAINED
from tests.test_cli import error_of, run


def commands_of(
    parser: argparse.ArgumentParser, words: tuple[str, ...] = ()
) -> Iterator[tuple[tuple[str, ...], argparse.ArgumentParser]]:
    """The words and the parser of each command, such as ("gallery", "info")."""
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for name, inner in action.choices.items():
                yield from commands_of(inner, (*words, name))
            return
    yield words, parser


COMMANDS = dict(commands_of(_parser()))


def test_the_commands_are_found():
    assert {("index",), ("query",), ("eval",), ("gallery", "info"), ("model", "info")} <= set(
        COMMANDS
    )


def test_bundled_names_the_bundled_model_in_every_argument_that_takes_a_model():
    others = {"out", "minutes"}  # a new folder, a number
    found = []
    for words, parser in COMMANDS.items():
        for action in parser._actions:
            if action.metavar in ("M", "MODEL") and action.dest not in others:
                assert action.type("bundled") == PRETRAINED, words
                with pytest.raises(argparse.ArgumentTypeError, match="'bundled'"):
                    action.type("")
                found.append(" ".join([*words, *action.option_strings]))
    assert set(found) >= {
        "index --model",
        "train --from",
        "train --teacher",
        "gallery reencode --model",
        "model info",
        "eval --model",
    }


def test_the_bundled_model_is_described_by_its_name():
    card = json.loads(run("model", "info", "bundled", "--json").stdout)
    assert card == json.loads((PRETRAINED / "card.json").read_text())
    assert json.loads(run("model", "info", "--json").stdout) == card


def test_a_folder_called_bundled_is_named_by_its_path(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "bundled").mkdir()
    assert run("model", "info", "bundled").returncode == 0
    assert "no model folder" in error_of(run("model", "info", "./bundled"))
