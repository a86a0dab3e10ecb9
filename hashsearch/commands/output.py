"""Printing: tables of entries, sizes, and names that may hold control characters."""

import json
import sys
from typing import Any

from hashsearch.columns import aligned


def print_entries(entries: dict[str, Any], *, as_json: bool) -> None:
    if as_json:
        print(json.dumps(entries, indent=2))
        return
    rows = []
    for name, value in entries.items():
        if isinstance(value, dict):
            value = ", ".join(f"{key} {part}" for key, part in value.items())
        rows.append((name, str(value)))
    print("\n".join(aligned(rows, "<<")))


def readable(n_bytes: int) -> str:
    """Bytes in kB, MB or GB, each 1,000 of the one before."""
    for unit, size in (("GB", 1e9), ("MB", 1e6)):
        if n_bytes >= size:
            return f"{n_bytes / size:,.1f} {unit}"
    return f"{n_bytes / 1e3:,.1f} kB"


def shown(name: str) -> str:
    """A file name or label: control characters are escaped on a terminal only."""
    return escaped(name) if sys.stdout.isatty() else name


def escaped(text: str) -> str:
    return "".join(
        c if c.isprintable() or 0xDC80 <= ord(c) <= 0xDCFF else ascii(c)[1:-1] for c in text
    )
