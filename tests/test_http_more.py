"""Everything that docs/http-more.md shows in a console is run here."""

import base64
import json
import shlex
import socket
import subprocess
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from hashsearch.cli import main
from service.problems import PROBLEMS
from tests.test_readme import ROOT, answer_to, commands, home, start_server

DOCUMENT = "docs/http-more.md"
__all__ = ["home"]  # a fixture


def assert_answers_alike(found: Any, shown: Any, name: str = "") -> None:
    """Another processor may round a bit or two of a code otherwise."""
    if name in ("code", "address"):
        assert len(found) == len(shown)
        assert (int(found, 16) ^ int(shown, 16)).bit_count() <= 2
    elif isinstance(shown, dict):
        assert found.keys() == shown.keys()
        for key in shown:
            assert_answers_alike(found[key], shown[key], key)
    elif isinstance(shown, list):
        assert len(found) == len(shown)
        for one, other in zip(found, shown, strict=True):
            assert_answers_alike(one, other)
    else:
        assert found == shown, name


def test_the_commands_do_what_the_page_says(home, capfd, monkeypatch):
    every = commands(DOCUMENT)
    (key,) = [word.split()[-1] for one in every for word in shlex.split(one) if "Bearer" in word]
    monkeypatch.setenv("HASHSEARCH_API_KEYS", key)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    server = None
    try:
        for command in every:
            words = shlex.split(command.replace("8000", str(port)))
            shown = "\n".join(answer_to(command, DOCUMENT))
            if words[:2] == ["hashsearch", "serve"]:
                server = start_server(words)
            elif words[0] == "hashsearch":
                assert main(words[1:]) == 0, command
            elif words[0] in ("curl", "cp"):
                done = subprocess.run(words, check=True, stdout=subprocess.PIPE, text=True)
                if shown:
                    assert_answers_alike(json.loads(done.stdout), json.loads(shown))
            else:
                pytest.fail(f"no way to try {command!r}")
    finally:
        if server is not None:
            with server:
                server.terminate()
    picture = (home / "reconstruction.png").read_bytes()
    assert Image.open(BytesIO(picture)).size == (32, 32)
    parts = json.loads((home / "parts.json").read_text())
    sizes = {
        name: Image.open(BytesIO(base64.b64decode(text))).size
        for name, text in parts["parts"].items()
        if text
    }
    assert sizes == {"preview": (170, 170), "occlusion": (32, 32)}
    assert [len(row) for row in parts["changed_bits"]] == [7] * 7
    histogram = json.loads((home / "histogram.json").read_text())["histogram"]
    assert (len(histogram), sum(histogram)) == (257, 198)
    compared = json.loads((home / "compared.json").read_text())["methods"]
    assert [one["method"] for one in compared] == ["codes", "normalized"]
    assert json.loads((home / "gallery.json").read_text())["images"] == 199


def test_the_codes_that_the_page_names_exist():
    text = Path(ROOT / DOCUMENT).read_text()
    codes = {row.code for row in PROBLEMS}
    for code in ("being-computed", "busy", "changed"):
        assert f"`{code}`" in text
        assert code in codes
