"""Programs of Node, which `make test` installs where npm is there."""

import os
import shutil
from pathlib import Path

import pytest

_FOLDER = Path(__file__).parents[1] / ".venv" / "node" / "node_modules" / ".bin"


def node_tool(name: str) -> Path:
    """Skips the tests that need it where it is missing, but fails them in CI if npm is there."""
    found = _FOLDER / name
    if not found.exists():
        message = f"{name} is not in .venv/node, where `make test` installs it if npm is there"
        in_ci = os.environ.get("CI") and shutil.which("npm")
        pytest.fail(message) if in_ci else pytest.skip(message)
    return found
