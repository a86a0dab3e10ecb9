"""A real Chromium, and servers of their own processes for it."""

import os
import re
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, Page, expect, sync_playwright

from tests.forked import COMMAND, Forked

# The shell draws no window of its own, which takes a quarter of the time.
_NAMES = (
    "chromium-headless-shell",
    "chromium",
    "chromium-browser",
    "google-chrome",
    "google-chrome-stable",
)
# Chromium must not contact its own servers; root needs --no-sandbox.
_SWITCHES = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)


@contextmanager
def started_browser() -> Iterator[Browser]:
    """Skips the tests that need it where there is none, but fails them in CI."""
    found = next(filter(None, map(shutil.which, _NAMES)), None)
    with sync_playwright() as playwright:
        path = found or playwright.chromium.executable_path
        if not Path(path).exists():
            message = f"no Chromium: none of {', '.join(_NAMES)} is on the PATH"
            pytest.fail(message) if os.environ.get("CI") else pytest.skip(message)
        launched = playwright.chromium.launch(executable_path=path, args=list(_SWITCHES))
        expect.set_options(timeout=30_000)
        yield launched
        launched.close()


@contextmanager
def watched_page(browser: Browser, **options: Any) -> Iterator[Page]:
    """A page that must not fail, neither by an exception nor by an error that its console shows.

    There, browsers report requests that fail, too; tests let some of them fail.
    """
    context = browser.new_context(viewport={"width": 1280, "height": 900}, **options)
    page = context.new_page()
    errors: list[str] = []
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.on("console", lambda said: said.type == "error" and errors.append(said.text))
    yield page
    context.close()
    assert [error for error in errors if not error.startswith("Failed to load resource")] == []


def until_true(page: Page, script: str, argument: Any = None) -> None:
    """Wait until a script is true of a page.

    Playwright's own wait runs the script within the page, whose policy forbids it.
    """
    deadline = time.monotonic() + 30
    while not page.evaluate(script, argument):
        assert time.monotonic() < deadline, f"{script} does not become true"
        page.wait_for_timeout(20)


@contextmanager
def server_of(gallery: Path, *arguments: str, **environment: str):
    """Run a server process; yields its address."""
    with Forked(
        [COMMAND, "serve", "--gallery", gallery, "--port", "0", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        env={**os.environ, **environment},
    ) as server:
        try:
            yield re.search(r"http://[\d.:]+", server.stdout.readline())[0]
        finally:
            server.terminate()
        assert server.wait(timeout=15) in (0, -15)
