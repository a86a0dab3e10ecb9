"""The page's modules by themselves: their types, and their pure parts in Node."""

import shutil
import subprocess
from pathlib import Path

import pytest

from tests.node_tools import node_tool

ROOT = Path(__file__).parents[1]
OPTIONS = {
    "--target": "es2023",
    "--module": "es2022",
    "--moduleResolution": "bundler",
    "--lib": "es2023,dom,dom.iterable",
}


def run(*command: object) -> None:
    ran = subprocess.run(command, capture_output=True, text=True, timeout=120)  # type: ignore[call-overload]
    assert ran.returncode == 0, ran.stdout


def test_the_types_that_the_modules_name_are_right():
    tsc = node_tool("tsc")
    flags = ("--noEmit", "--allowJs", "--checkJs", "--strict")
    options = [text for option in OPTIONS.items() for text in option]
    run(tsc, *flags, *options, *sorted((ROOT / "service" / "static" / "page").glob("*.js")))


def test_the_pure_parts_pass_their_own_tests():
    node = shutil.which("node")
    if node is None:
        pytest.skip("no node: the page's modules are not tested")
    files = sorted((ROOT / "tests" / "page").glob("*.test.mjs"))
    assert files
    run(node, "--test", *files)
