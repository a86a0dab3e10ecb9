"""The pure parts of the page's modules, tested by Node."""

import shutil
import subprocess
from pathlib import Path

import pytest


def test_the_pages_modules_pass_their_own_tests():
    node = shutil.which("node")
    if node is None:
        pytest.skip("no node: the page's modules are not tested")
    folder = Path(__file__).parent / "page"
    files = sorted(folder.glob("*.test.mjs"))
    assert files
    ran = subprocess.run([node, "--test", *files], capture_output=True, text=True, timeout=60)
    assert ran.returncode == 0, ran.stdout
