"""Everything the README and docs/ show in a console is run here."""

import json
import os
import re
import shlex
import shutil
import socket
import subprocess
import sys
from itertools import takewhile
from pathlib import Path

import pytest
import yaml

from hashsearch.cli import _parser, main
from tests.conftest import part_of_cifar10

ROOT = Path(__file__).parents[1]
COMMAND = Path(sys.executable).with_name("hashsearch")


def consoles(document: str) -> list[list[str]]:
    """The lines of each console block of a document."""
    text = (ROOT / document).read_text()
    return [block.splitlines() for block in re.findall(r"```console\n(.*?)```", text, re.DOTALL)]


def commands(document: str) -> list[str]:
    return [
        line.removeprefix("$ ")
        for block in consoles(document)
        for line in block
        if line.startswith("$ ")
    ]


def answer_to(command: str, document: str = "README.md") -> list[str]:
    """What a document shows below a command, up to the next one."""
    (block,) = [block for block in consoles(document) if f"$ {command}" in block]
    below = block[block.index(f"$ {command}") + 1 :]
    return list(takewhile(lambda line: not line.startswith("$ "), below))


def shape(line: str) -> str:
    """A line without what differs from run to run: numbers, paths, the width of columns."""
    line = re.sub(r"\S*/\S*", "PATH", line)
    line = re.sub(r"[\d.,]*\d", "N", line)
    return re.sub(r"\s+", " ", line).strip()


@pytest.mark.parametrize("data", ["tenth", pytest.param("whole", marks=pytest.mark.soak)])
def test_make_demo_prints_what_the_readme_shows(data, cifar10, tmp_path):
    environment = {**os.environ, "XDG_CACHE_HOME": str(tmp_path)}
    if data == "tenth":
        part = part_of_cifar10(cifar10, tmp_path / "data", train=10, test=1)
        environment["HASHSEARCH_DATA"] = str(part)
    done = subprocess.run(
        ["make", "--no-print-directory", "demo", "ARGS=--no-serve"],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        timeout=500,
    )
    assert done.returncode == 0, done.stderr
    start = done.stdout.index("Searching ")
    found = done.stdout[start:].splitlines()
    shown = [line for line in answer_to("make demo") if line]
    assert len([line for line in found if line]) == len(shown) - 1  # less the page's address
    for one, other in zip([line for line in found if line], shown, strict=False):
        assert shape(one) == shape(other)


def test_the_commands_of_the_readme_do_what_it_says(
    image_files, tmp_path, monkeypatch, capfd, photograph
):
    """The rest of the README's commands, in its order, on real images in an empty folder."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    shutil.copytree(image_files, tmp_path / "pictures")
    (tmp_path / "query.jpg").write_bytes(photograph)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    server = None
    try:
        for command in commands("README.md"):
            if command.startswith("make "):
                subprocess.run(["make", "-n", *command.split()[1:]], cwd=ROOT, check=True)
                continue
            words = shlex.split(command.replace("8000", str(port)))
            capfd.readouterr()
            if words[:2] == ["hashsearch", "serve"]:
                server = start_server(words)
            elif words[0] == "hashsearch":
                assert main(words[1:]) == 0, command
            elif words[0] == "curl":
                done = subprocess.run(words, check=True, stdout=subprocess.PIPE, text=True)
                print(done.stdout)
            else:
                pytest.fail(f"no way to try {command!r}")
            check_answer(command, capfd.readouterr().out)
    finally:
        if server is not None:
            with server:
                server.terminate()


def test_the_commands_of_the_page_on_indexing_do_what_it_says(
    image_files, tmp_path, monkeypatch, capfd, photograph
):
    monkeypatch.chdir(tmp_path)
    shutil.copytree(image_files, tmp_path / "pictures")
    shutil.make_archive("archive", "zip", tmp_path / "pictures")
    (tmp_path / "pictures" / "scan.jpg").write_bytes(photograph[:20_000])
    for command in commands("docs/indexing.md"):
        capfd.readouterr()
        assert main(shlex.split(command)[1:]) == 0, command
        check_answer(command, capfd.readouterr().out, "docs/indexing.md")


def start_server(words: list[str]) -> subprocess.Popen:
    server = subprocess.Popen(
        [COMMAND, *(word for word in words[1:] if word != "&")], stdout=subprocess.PIPE, text=True
    )
    assert server.stdout.readline().startswith("Serving on http://127.0.0.1:")
    return server


def check_answer(command: str, found: str, document: str = "README.md") -> None:
    """Compare what was printed with what a document shows, in form."""
    shown = answer_to(command, document)
    if not shown:
        return
    if shown[0].startswith("{"):
        wanted, answer = json.loads("\n".join(shown)), json.loads(found)
        assert keys(answer) == keys(wanted)
    else:
        assert shape(found.splitlines()[0]) == shape(shown[0])
        assert len(found.splitlines()) == len(shown)


def keys(value: object) -> object:
    """The skeleton of JSON: names, and the form of each list's first entry."""
    if isinstance(value, dict):
        return {name: keys(part) for name, part in value.items()}
    if isinstance(value, list):
        return [keys(value[0])] if value else []
    return None


def test_the_container_commands_name_services_and_arguments_that_exist():
    """No container engine runs in the tests; the words are checked against what defines them."""
    services = yaml.safe_load((ROOT / "docker-compose.yml").read_text())["services"]
    assert set(services) == {"index", "web"}
    tried = []
    for command in commands("docs/docker.md"):
        words = shlex.split(re.sub("<.*?>", "X", command))
        words = words[words.index("docker") :]
        assert words[:2] == ["docker", "compose"]
        if words[2] == "run":
            service = next(word for word in words[3:] if word in services)
            inside = words[words.index(service) + 1 :] or shlex.split(services[service]["command"])
            _parser().parse_args(inside)
            tried.append(inside[0])
    assert tried == ["index", "index"]
