"""Packages that only some uses need, and how to install one that is missing."""

import shlex
import sys
from collections.abc import Iterable
from importlib.util import find_spec

HEIC_SUFFIXES = frozenset((".heic", ".heif", ".hif"))


def missing(package: str, use: str) -> str:
    """A sentence that says that a package is not installed, and the command that installs it.

    use: what the package does, such as "Parquet files are read by".
    """
    return f"{use} {package}, which is not installed: {install_command(package)}"


def install_command(package: str) -> str:
    """A shell command that installs a package for the Python that is running.

    An environment of `make` has no pip of its own; another pip then installs into it.
    """
    if find_spec("pip") is not None:
        return shlex.join((sys.executable, "-m", "pip", "install", package))
    return shlex.join(("pip", "--python", sys.executable, "install", package))


def missing_heic() -> str:
    return missing("pillow-heif", "HEIC files are read by")


def heic_hint(suffixes: Iterable[str]) -> str | None:
    """How to read the HEIC files among those that were passed over; None if there is none."""
    return missing_heic() if not HEIC_SUFFIXES.isdisjoint(suffixes) else None
