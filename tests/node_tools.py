"""Programs of Node, which `make test` installs where npm is there."""

from pathlib import Path

import pytest

_FOLDER = Path(__file__).parents[1] / ".venv" / "node" / "node_modules" / ".bin"


def node_tool(name: str) -> Path:
    """Skips the tests that need it where it is missing."""
    found = _FOLDER / name
    if not found.exists():
        pytest.skip(f"{name} is not in .venv/node, where `make test` installs it if npm works")
    return found
