"""Everything that docs/http.md shows in a console is run here."""

import base64
import json
import shlex
import socket
import subprocess
from io import BytesIO
from pathlib import Path
from typing import Any

from PIL import Image

from hashsearch.cli import main
from tests.test_readme import answer_to, commands, home, start_server

DOCUMENT = "docs/http.md"
__all__ = ["home"]  # a fixture


def assert_answers_alike(found: Any, shown: Any, name: str = "") -> None:
    """Another processor may round a bit or two of a code otherwise."""
    if name in ("latency_ms", "request_id"):
        assert found
    elif name in ("code", "address") and shown is not None and len(shown) in (8, 64):
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
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
    server = None
    try:
        for command in commands(DOCUMENT):
            words = shlex.split(command.replace("8000", port))
            if words[0] == "export":
                for name, _, value in (word.partition("=") for word in words[1:]):
                    monkeypatch.setenv(name, value)
            elif words[:2] == ["hashsearch", "serve"]:
                server = start_server(words)
            elif words[0] == "hashsearch":
                assert main(words[1:]) == 0, command
            else:  # by the shell, which knows what was exported
                done = subprocess.run(
                    command.replace("8000", port), shell=True, check=True, stdout=subprocess.PIPE
                )
                shown = "\n".join(answer_to(command, DOCUMENT))
                assert bool(shown) == bool(done.stdout), command
                if shown:
                    assert_answers_alike(json.loads(done.stdout), json.loads(shown))
    finally:
        if server is not None:
            with server:
                server.terminate()
    check_files(home)


def check_files(home: Path) -> None:
    """What the commands wrote to files."""

    def written(name: str) -> dict[str, Any]:
        return json.loads((home / name).read_text())

    picture = (home / "reconstruction.png").read_bytes()
    assert Image.open(BytesIO(picture)).size == (32, 32)
    parts = written("parts.json")
    sizes = {
        name: Image.open(BytesIO(base64.b64decode(text))).size
        for name, text in parts["parts"].items()
        if text
    }
    assert sizes == {"preview": (170, 170), "occlusion": (32, 32)}
    assert [len(row) for row in parts["changed_bits"]] == [7] * 7
    histogram = written("histogram.json")["histogram"]
    assert (len(histogram), sum(histogram)) == (257, 198)
    compared = written("compared.json")["methods"]
    assert [one["method"] for one in compared] == ["codes", "normalized"]
    assert [len(one["hits"]) for one in written("answer.json")["methods"]] == [5, 5]
    assert len(written("second-page.json")["hits"]) == 20
    assert {hit["id"] for hit in written("near.json")["hits"]}.isdisjoint({4, 5, 9})
    assert written("liked.json")["asked"]["like"] == 2
    assert written("gallery.json")["images"] == 199
    original = (home / "original.jpg").read_bytes()
    assert original == (home / "pictures" / "afghan_hound.jpg").read_bytes()
    assert (home / "thumbnail.jpg").read_bytes()[:2] == b"\xff\xd8"
