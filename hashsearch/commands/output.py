"""What commands print: a table of entries, and names from outside."""

import json
import sys
from typing import Any


def print_entries(entries: dict[str, Any], *, as_json: bool) -> None:
    if as_json:
        print(json.dumps(entries, indent=2))
        return
    width = max(map(len, entries))
    for name, value in entries.items():
        if isinstance(value, dict):
            value = ", ".join(f"{key} {part}" for key, part in value.items())
        print(f"{name:<{width}}  {value}")


def readable(n_bytes: int) -> str:
    """Bytes in kB, MB or GB, which are thousands."""
    for unit, size in (("GB", 1e9), ("MB", 1e6)):
        if n_bytes >= size:
            return f"{n_bytes / size:,.1f} {unit}"
    return f"{n_bytes / 1e3:,.1f} kB"


def counted(number: int, noun: str) -> str:
    """1 image, 2 images."""
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"


def shown(name: str) -> str:
    """A name from outside: as it is for a program, without control characters on a terminal."""
    return escaped(name) if sys.stdout.isatty() else name


def escaped(text: str) -> str:
    return "".join(
        c if c.isprintable() or 0xDC80 <= ord(c) <= 0xDCFF else ascii(c)[1:-1] for c in text
    )
