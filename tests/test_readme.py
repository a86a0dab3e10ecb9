"""Everything the README and docs/ show in a console is run here."""

import json
import os
import re
import shlex
import shutil
import socket
import subprocess
import tarfile
from itertools import takewhile
from pathlib import Path

import pytest
import yaml

from hashsearch.cli import _parser, main
from service.settings import Settings
from tests.conftest import part_of_cifar10
from tests.forked import COMMAND, Forked

ROOT = Path(__file__).parents[1]


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


def masked(line: str) -> str:
    """A line without what differs from run to run: dates, and seconds or milliseconds."""
    line = re.sub(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\+00:00", "DATE", line)
    return re.sub(r"\d[\d.,]* (m?s)\b", r"N \1", line)


def assert_alike(found: str, shown: list[str]) -> None:
    """Compare all lines, word by word.

    Another processor may round a bit or two otherwise, so the distance that begins a line may
    differ by 2; another SQLite or libjpeg may differ by a tenth in the size of its files.
    """
    lines = [masked(line) for line in found.splitlines() if line]
    assert len(lines) == len(shown), lines
    for line, expected in zip(lines, map(masked, shown), strict=True):
        ours, theirs = line.split(), expected.split()
        assert len(ours) == len(theirs), (line, expected)
        for place, (one, other) in enumerate(zip(ours, theirs, strict=True)):
            unit = theirs[place + 1].rstrip(",") if place + 1 < len(theirs) else ""
            if unit in ("kB", "MB"):
                assert float(one) == pytest.approx(float(other), rel=0.1), (line, expected)
            elif place == 0 and one.isdigit() and other.isdigit():
                assert abs(int(one) - int(other)) <= 2, (line, expected)
            else:
                assert one == other, (line, expected)


@pytest.fixture
def home(tmp_path, monkeypatch) -> Path:
    """The documents' working folder: 199 photographs in `pictures/`, and `query.jpg`."""
    data = os.environ.get("HASHSEARCH_DATA")
    photographs = Path(data) / "photos" if data else None
    if photographs is None or not photographs.is_dir():
        pytest.skip("the photographs that the documents show are not under HASHSEARCH_DATA")
    (tmp_path / "pictures").mkdir()
    for path in photographs.iterdir():  # named by WordNet's number and word
        shutil.copyfile(path, tmp_path / "pictures" / path.name.partition("_")[2])
    (tmp_path / "pictures" / "sealyham_terrier.jpg").rename(tmp_path / "query.jpg")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path


@pytest.mark.parametrize("data", ["part", pytest.param("whole", marks=pytest.mark.soak)])
def test_make_demo_prints_what_the_readme_shows(data, cifar10, tmp_path):
    """The images that are shown are the nearest of all, and so of any part that has them."""
    shown = [line for line in answer_to("make demo") if line]
    folder = cifar10.parent
    if data == "part":
        found = re.findall(r"[a-z]+/\d{4}\.jpg", "\n".join(shown[2:]))
        assert len(found) == 20
        also = {f"cifar10/train/{name}" for name in found}
        folder = part_of_cifar10(cifar10, tmp_path / "data", train=50, test=1, also=also)
        with tarfile.open(folder / cifar10.name) as archive:
            count = sum(name.startswith("cifar10/train/") for name in archive.getnames())
        assert shown[0].startswith("Searching 50,000 images for ")
        shown[0] = shown[0].replace("50,000", f"{count:,}")
    done = subprocess.run(
        ["make", "--no-print-directory", "demo", "ARGS=--no-serve"],
        cwd=ROOT,
        env=os.environ | {"XDG_CACHE_HOME": str(tmp_path), "HASHSEARCH_DATA": str(folder)},
        capture_output=True,
        text=True,
        timeout=500,
    )
    assert done.returncode == 0, done.stderr
    printed = done.stdout[done.stdout.index("Searching ") :].replace(str(folder), "/home/me/data")
    *shown, address = shown
    assert address == "Serving on http://127.0.0.1:8000/"

    assert_alike(printed, shown)


def test_the_readme_says_where_the_command_is_before_it_is_used():
    text = (ROOT / "README.md").read_text()
    for place in (".venv/bin/hashsearch", "source .venv/bin/activate", "pip install ."):
        assert 0 < text.index(place) < text.index("$ hashsearch ")


def test_the_commands_of_the_readme_do_what_it_says(home, capfd):
    """The rest of the README's commands, in its order."""
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
            check_answer(command, capfd.readouterr().out, home)
    finally:
        if server is not None:
            with server:
                server.terminate()


def test_the_commands_of_the_page_on_indexing_do_what_it_says(home, capfd, photograph):
    shutil.make_archive("archive", "zip", home / "pictures")
    (home / "pictures" / "scan.jpg").write_bytes(photograph[:20_481])
    for command in commands("docs/indexing.md"):
        capfd.readouterr()
        assert main(shlex.split(command)[1:]) == 0, command
        check_answer(command, capfd.readouterr().out, home, "docs/indexing.md")


def python_blocks(document: str) -> list[str]:
    return re.findall(r"```python\n(.*?)```", (ROOT / document).read_text(), re.DOTALL)


def test_the_readmes_python_is_the_guides_first_example():
    """tests/test_face.py runs the guide's."""
    assert python_blocks("README.md") == python_blocks("docs/python.md")[:1]


def start_server(words: list[str]) -> subprocess.Popen:
    server = Forked(
        [COMMAND, *(word for word in words[1:] if word != "&")], stdout=subprocess.PIPE, text=True
    )
    assert server.stdout.readline().startswith("Serving on http://127.0.0.1:")
    return server


def check_answer(command: str, found: str, home: Path, document: str = "README.md") -> None:
    """Compare what was printed with what a document shows below the command, if anything."""
    shown = answer_to(command, document)
    if not shown:
        return
    if shown[0].startswith("{"):
        wanted, answer = json.loads("\n".join(shown)), json.loads(found)
        assert wanted.pop("latency_ms") > 0
        assert answer.pop("latency_ms") > 0
        codes = [bytes.fromhex(one.pop("code")) for one in (wanted, answer)]
        assert sum((a ^ b).bit_count() for a, b in zip(*codes, strict=True)) <= 2
        for ours, theirs in zip(answer["hits"], wanted["hits"], strict=True):
            assert abs(ours.pop("distance") - theirs.pop("distance")) <= 2
        assert answer == wanted
        return
    assert_alike(found.replace(str(home), "/home/me"), shown)


def test_the_container_commands_name_services_and_arguments_that_exist():
    """No container engine runs in the tests; the words are checked against what defines them."""
    services = yaml.safe_load((ROOT / "docker-compose.yml").read_text())["services"]
    assert set(services) == {"index", "web"}
    settings = {f"HASHSEARCH_{name.upper()}" for name in Settings.model_fields}
    assert set(services["web"]["environment"]) <= settings
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
    assert tried == ["index"] * 3
