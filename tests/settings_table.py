"""The table of settings in docs/operations.md: python -m tests.settings_table writes it."""

import re
from pathlib import Path

from service.settings import Settings

PAGE = Path(__file__).parents[1] / "docs" / "operations.md"
_TABLE = re.compile(r"(?<=<!-- settings -->\n).*?(?=<!-- end of settings -->)", re.DOTALL)


def rendered() -> str:
    """One row for each field of Settings."""
    rows = ["| variable | default | meaning |", "| --- | --- | --- |"]
    for name, field in Settings.model_fields.items():
        if field.is_required():
            default = "required"
        else:
            value = field.get_default(call_default_factory=True)
            default = f"`{value}`" if value not in (None, "", (), []) else "none"
        meaning = (field.description or "").replace("|", "\\|")
        rows.append(f"| `HASHSEARCH_{name.upper()}` | {default} | {meaning} |")
    return "\n".join(rows) + "\n"


def written() -> str:
    """The table that the page has."""
    found = _TABLE.search(PAGE.read_text(encoding="utf-8"))
    assert found is not None, f"{PAGE} has no table of settings"
    return found[0]


if __name__ == "__main__":
    text = PAGE.read_text(encoding="utf-8")
    PAGE.write_text(_TABLE.sub(lambda _: rendered(), text), encoding="utf-8")
