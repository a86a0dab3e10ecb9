"""Arguments that several commands take, tried on every command that takes them."""

import argparse
import json
import signal
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest

from hashsearch import cli, demo
from hashsearch.cli import _parser, main
from hashsearch.commands.arguments import Parser
from hashsearch.errors import HashSearchError
from hashsearch.models.card import PRETRAINED_MODELS, model_folder, model_name
from hashsearch.open_gallery import Gallery
from hashsearch.stopping import Terminated
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


def test_pretrained_models_have_names_in_every_argument_that_takes_a_model():
    others = {"out", "minutes"}  # a new folder, a number
    found = []
    for words, parser in COMMANDS.items():
        for action in parser._actions:
            if action.metavar in ("M", "MODEL") and action.dest not in others:
                for name, folder in PRETRAINED_MODELS.items():
                    assert action.type(name) == folder, words
                with pytest.raises(argparse.ArgumentTypeError, match="'bundled' or 'general'"):
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


@pytest.mark.parametrize("name", PRETRAINED_MODELS)
def test_a_pretrained_model_is_described_by_its_name(name):
    card = json.loads(run("model", "info", name, "--json").stdout)
    assert card == json.loads((PRETRAINED_MODELS[name] / "card.json").read_text())
    assert (json.loads(run("model", "info", "--json").stdout) == card) == (name == "bundled")


@pytest.mark.parametrize("name", PRETRAINED_MODELS)
def test_a_folder_with_a_pretrained_models_name_is_named_by_its_path(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / name).mkdir()
    assert run("model", "info", name).returncode == 0
    assert f"./{name} is no model folder" in error_of(run("model", "info", f"./{name}"))
    assert model_folder(Path(name)) == Path(name)
    for folder in (Path(name), PRETRAINED_MODELS[name]):
        assert model_folder(model_name(folder)) == folder


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("conv256", "--teacher", "bundled"), "bundled is a convolutional model, not a teacher"),
        (("teacher", "--from", "general"), "general is a convolutional model, from which this"),
        (("pca256", "--from", "general"), "general is a model from which this preset cannot"),
        (("kh256", "--from", "bundled"), "bundled is a convolutional model of {"),
        (("kh256", "--teacher", "bundled"), "cannot learn from a teacher (bundled); conv256 can"),
    ],
)
def test_a_refusal_calls_a_pretrained_model_by_its_name(words, message, tmp_path):
    done = run("train", *words, "--data", "samples", "--out", tmp_path / "model")
    assert message in error_of(done)


def required(parser: argparse.ArgumentParser) -> list[str]:
    """The arguments that a command cannot do without, each with the value 1."""
    words = [
        (*action.option_strings[:1], "1")
        for action in parser._actions
        if action.required and action.dest != "gallery"
    ]
    words += [
        (group._group_actions[0].option_strings[0], "1")
        for group in parser._mutually_exclusive_groups
        if group.required
    ]
    return [word for part in words for word in part]


def takes_a_gallery(parser: argparse.ArgumentParser) -> bool:
    return any(action.dest == "gallery" for action in parser._actions)


@pytest.mark.parametrize(
    "words",
    [words for words, parser in COMMANDS.items() if takes_a_gallery(parser)],
    ids=" ".join,
)
def test_a_variable_stands_in_for_the_gallery(words, monkeypatch):
    command = [*words, *required(COMMANDS[words])]
    option = [] if words[0] in ("gallery", "export") else ["--gallery"]
    in_front = [*words, *option, "given", *required(COMMANDS[words])]
    monkeypatch.setenv("HASHSEARCH_GALLERY", "of the variable")
    assert _parser().parse_args(command).gallery == Path("of the variable")
    assert _parser().parse_args(in_front).gallery == Path("given")
    way = "with --gallery G" if option else "as the argument G"
    wanted = f"no gallery is named; name its folder {way} or in the variable HASHSEARCH_GALLERY"
    for empty in ("", None):
        monkeypatch.delenv("HASHSEARCH_GALLERY")
        if empty is not None:
            monkeypatch.setenv("HASHSEARCH_GALLERY", empty)
        assert error_of(run(*command)) == wanted
        assert _parser().parse_args(in_front).gallery == Path("given")


def test_the_gallery_of_the_variable_is_searched(gallery_folder, monkeypatch):
    monkeypatch.setenv("HASHSEARCH_GALLERY", str(gallery_folder))
    assert len(json.loads(run("query", 3, "-k", 2, "--json").stdout)["hits"]) == 2
    assert json.loads(run("gallery", "info", "--json").stdout)["images"] == 300


@pytest.mark.parametrize("command", ["query 1 --gallery=", "gallery info --json"])
def test_an_empty_path_is_no_gallery(command, monkeypatch, capsys):
    monkeypatch.setenv("HASHSEARCH_GALLERY", "of the variable")
    with pytest.raises(SystemExit):
        main([*command.split(), *([""] if "info" in command else [])])
    assert "an empty path came; a gallery's folder is wanted" in capsys.readouterr().err


def answers_in_json(parser: argparse.ArgumentParser) -> bool:
    return any("--json" in action.option_strings for action in parser._actions)


def naming(words: tuple[str, ...], folder: Path) -> list[str]:
    """The folder as a command's gallery, or as the model of `model info`."""
    option = ["--gallery"] if words[0] in ("index", "query") else []
    return [] if words == ("eval",) else [*option, str(folder)]


IN_JSON = [words for words, parser in COMMANDS.items() if answers_in_json(parser)]


@pytest.mark.parametrize("words", IN_JSON, ids=" ".join)
def test_with_json_an_error_is_json_on_stdout_beside_the_line_on_stderr(words, tmp_path):
    given = [*naming(words, tmp_path / "nowhere"), *required(COMMANDS[words])]
    done = run(*words, *given, "--json")
    assert done.returncode == 1, done
    answer = json.loads(done.stdout)
    assert done.stderr == f"hashsearch: {answer['error']}\n"
    kind = {"index": "invalid-source", "eval": "invalid-source", "model": "invalid-model"}
    kind["export"] = "invalid-query"  # 1 is no target
    assert answer["kind"] == kind.get(words[0], "invalid-gallery")
    assert set(answer) == {"error", "kind"}
    assert run(*words, *given).stdout == ""


@pytest.mark.parametrize("words", IN_JSON, ids=" ".join)
def test_with_json_arguments_that_cannot_be_read_are_json_too(words, capsys):
    for arguments in (["--no-such-option", "--json"], ["--json", "--no-such-option"]):
        given = [*words, *naming(words, Path("g")), *required(COMMANDS[words])]
        with pytest.raises(SystemExit) as stopped:
            main([*given, *arguments])
        assert stopped.value.code == 2
        shown = capsys.readouterr()
        answer = json.loads(shown.out)
        assert answer["kind"] == "usage-error"
        assert answer["error"] == "unknown option --no-such-option"
        assert shown.err.endswith(f"error: {answer['error']}\n")
        assert shown.err.startswith("usage: hashsearch ")


@pytest.mark.parametrize(
    ("words", "option"),
    [
        (words, option)
        for words, parser in COMMANDS.items()
        for action in parser._actions
        for option in action.option_strings
        if option.startswith("--")
    ],
    ids=str,
)
def test_an_option_cut_short_is_refused_and_the_nearest_is_named(
    words, option, capsys, monkeypatch
):
    monkeypatch.setenv("HASHSEARCH_GALLERY", "g")
    given = required(COMMANDS[words])
    if words == ("train",):
        given = ["dense256-quick", "--data", "a", "--out", "b"]
    with pytest.raises(SystemExit) as stopped:
        main([*words, *given, option[:-1]])
    assert stopped.value.code == 2
    message = f"error: unknown option {option[:-1]}; did you mean {option}?\n"
    assert capsys.readouterr().err.endswith(message)


@pytest.mark.parametrize("given", ["remove 7 --gallery g", "remove --gallery=g --id 7"])
def test_an_argument_named_like_an_option_is_said_to_be_none(given, capsys):
    with pytest.raises(SystemExit):
        main(["gallery", *given.split()])
    sentence = "--gallery is no option here, but an argument: hashsearch gallery remove G\n"
    assert capsys.readouterr().err.endswith(f"error: {sentence}")


def test_an_unknown_option_without_a_like_one_is_named_alone(capsys):
    for given in ("--zzzz", "--zzzz=1"):
        with pytest.raises(SystemExit):
            main(["index", "a", "--gallery", "g", given])
        assert capsys.readouterr().err.endswith("error: unknown option --zzzz\n")


@pytest.mark.parametrize(
    ("error", "status", "sentence", "kind"),
    [
        (HashSearchError("a sentence\n"), 1, "a sentence\n", "hash-search-error"),
        (
            FileNotFoundError(2, "gone"),
            1,
            "FileNotFoundError: [Errno 2] gone",
            "file-not-found-error",
        ),
        (KeyboardInterrupt(), 130, "stopped", "keyboard-interrupt"),
        (Terminated(), 143, "stopped", "terminated"),
    ],
)
def test_the_kind_of_an_error_is_the_name_of_its_class(error, status, sentence, kind, monkeypatch):
    def fail(options):
        raise error

    parser = Parser()
    parser.set_defaults(run=fail)
    parser.add_argument("--json", action="store_true")
    monkeypatch.setattr(cli, "_parser", lambda: parser)
    done = run("--json")
    assert (done.returncode, json.loads(done.stdout)) == (status, {"error": sentence, "kind": kind})
    assert len(done.stderr.splitlines()) == 1


@pytest.mark.parametrize("text", ["x", "1.5", "-1", str(2**63), ""])
def test_what_is_no_number_is_named_with_what_is_wanted(text, capsys):
    with pytest.raises(SystemExit):
        main(["gallery", "duplicates", "g", f"--radius={text}"])
    message = f"argument --radius: must be a whole number of at least 0; got {text!r}"
    assert message in capsys.readouterr().err


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
@pytest.mark.parametrize("command", ["demo", "export"])
def test_the_status_says_which_signal_stopped_a_command(
    command, number, status, gallery_folder, tmp_path, monkeypatch
):
    def stopped(*given, stop, **named):
        signal.raise_signal(number)
        assert stop()
        return SimpleNamespace(stopped=True)

    monkeypatch.setattr(Gallery, "export", stopped)
    monkeypatch.setattr(demo, "index_sources", stopped)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    arguments = {
        "demo": ["--no-serve", "--dataset", "samples"],
        "export": [str(gallery_folder), "--to", str(tmp_path / "codes.parquet")],
    }
    before = signal.getsignal(signal.SIGTERM)
    try:
        assert main([command, *arguments[command]]) == status
    finally:
        signal.signal(signal.SIGTERM, before)
