"""Sections of pages that a module writes, between two marks that name it."""

import re


def replaced(page: str, module: str, section: str) -> str:
    """The page with the section that `python -m <module>` writes replaced."""
    start, end = f"<!-- python -m {module} writes this -->", f"<!-- the end of {module} -->"
    text, count = re.subn(
        f"{re.escape(start)}.*{re.escape(end)}",
        lambda _: "\n\n".join((start, section, end)),
        page,
        flags=re.DOTALL,
    )
    assert count == 1, f"the page has the two marks of {module} once"
    return text
