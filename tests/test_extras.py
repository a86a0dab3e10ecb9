"""A message about a missing package ends with a command that installs it here."""

import shlex
import subprocess
import sys

import pytest

from hashsearch import extras
from hashsearch.extras import heic_hint, install_command


def test_the_command_installs_for_the_python_that_runs():
    """With --dry-run, pip looks for what is installed already, and changes nothing."""
    words = shlex.split(install_command("numpy"))
    assert sys.executable in words
    done = subprocess.run([*words, "--dry-run", "--no-index"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "Requirement already satisfied: numpy" in done.stdout


@pytest.mark.parametrize(
    ("has_pip", "wanted"),
    [(True, "'/a b/python' -m pip install x"), (False, "pip --python '/a b/python' install x")],
)
def test_an_environment_without_pip_is_filled_by_another(monkeypatch, has_pip, wanted):
    monkeypatch.setattr(sys, "executable", "/a b/python")
    monkeypatch.setattr(extras, "find_spec", lambda name: object() if has_pip else None)
    assert install_command("x") == wanted


def test_the_hint_is_given_for_heic_alone():
    assert heic_hint({".txt": 3}) is None
    assert heic_hint({".txt": 3, ".heic": 1}).endswith(install_command("pillow-heif"))
