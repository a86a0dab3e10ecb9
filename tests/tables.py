"""Tables of the docs that are made from the service's own: python -m tests.tables writes them."""

import re
from collections.abc import Callable
from pathlib import Path

from pydantic import SecretStr

from hashsearch.imagefiles import FILE_FORMATS
from hashsearch.imagefiles.plain import MAX_PIXELS
from service import connections, parameters, parsing
from service.problems import OTHERS, PROBLEMS
from service.schemas.common import MAX_IDS, MAX_K, MAX_TEXT
from service.schemas.images import MAX_ADDED, MAX_REMOVED
from service.schemas.search import MAX_EXAMPLES, MAX_IMAGES, MAX_OFFSET
from service.settings import Settings

DOCS = Path(__file__).parents[1] / "docs"


def settings() -> list[tuple[str, ...]]:
    """One row for each field of Settings."""
    rows = [("variable", "default", "meaning")]
    for name, field in Settings.model_fields.items():
        value = None if field.is_required() else field.get_default(call_default_factory=True)
        if isinstance(value, SecretStr):
            value = value.get_secret_value()
        if isinstance(value, bool):
            value = int(value)  # as people write it
        default = f"`{value}`" if value not in (None, "", ()) else "none"
        if field.is_required():
            default = "required"
        rows.append((f"`HASHSEARCH_{name.upper()}`", default, field.description or ""))
    return rows


def problems() -> list[tuple[str, ...]]:
    """One row for each code of a problem."""
    rows = [(row.status, row.code, row.meaning) for row in PROBLEMS]
    rows += [(status, code, meaning) for status, (code, meaning) in OTHERS.items()]
    sorted_rows = [(f"`{code}`", str(status), meaning) for status, code, meaning in sorted(rows)]
    return [("code", "status", "meaning"), *sorted_rows]


def limits() -> list[tuple[str, ...]]:
    """One row for each limit of what a client may send."""
    known = {"HEIF": "HEIC (with the extra `heic`)", "WEBP": "WebP"}
    formats = [known.get(name, name) for row in FILE_FORMATS for name in row.names]
    megabytes = Settings.model_fields["max_body_bytes"].default // 2**20
    rows = (
        ("format of an image", ", ".join(formats), "unsupported-format"),
        ("pixels of an image", f"{MAX_PIXELS:,}", "image-too-large"),
        ("body", f"{megabytes} MB (`HASHSEARCH_MAX_BODY_BYTES`)", "body-too-large"),
        ("header", f"{connections.MOST_BYTES // 1024} kB", "header-too-large"),
        ("parameters in the query string", f"{parameters._MOST:,}", "invalid-parameter"),
        ("values in a JSON body", f"{parsing._MOST_VALUES:,}", "malformed-request"),
        ("`k`", f"{MAX_K:,}", "invalid-parameter"),
        ("`offset`", f"{MAX_OFFSET:,}", "invalid-parameter"),
        ("examples in each of `like` and `unlike`", f"{MAX_EXAMPLES:,}", "invalid-parameter"),
        ("examples in both that are images", f"{MAX_IMAGES:,}", "invalid-parameter"),
        ("ids in each of `ids` and `exclude`", f"{MAX_IDS:,}", "invalid-parameter"),
        ("characters of a label or a uri", f"{MAX_TEXT:,}", "invalid-parameter"),
        ("images added by JSON", f"{MAX_ADDED:,}", "invalid-parameter"),
        ("images added by a form", f"{MAX_ADDED:,}", "malformed-request"),
        ("ids removed by a request", f"{MAX_REMOVED:,}", "invalid-parameter"),
    )
    return [("what", "limit", "code beyond it"), *((*row[:2], f"`{row[2]}`") for row in rows)]


TABLES: dict[str, tuple[Path, Callable[[], list[tuple[str, ...]]]]] = {
    "settings": (DOCS / "operations.md", settings),
    "limits": (DOCS / "http.md", limits),
    "problems": (DOCS / "http.md", problems),
}


def rendered(name: str) -> str:
    """A table as it should be."""
    heads, *rows = TABLES[name][1]()
    lines = [heads, ("---",) * len(heads), *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def written(name: str) -> str:
    """A table as its page has it."""
    page = TABLES[name][0]
    found = _between(name).search(page.read_text(encoding="utf-8"))
    assert found is not None, f"{page} has no table of {name}"
    return found[0]


def _between(name: str) -> re.Pattern[str]:
    return re.compile(rf"(?<=<!-- {name} -->\n).*?(?=<!-- end of {name} -->)", re.DOTALL)


if __name__ == "__main__":
    for name, (page, _) in TABLES.items():
        text = page.read_text(encoding="utf-8")
        page.write_text(_between(name).sub(lambda _: rendered(name), text), encoding="utf-8")  # noqa: B023
