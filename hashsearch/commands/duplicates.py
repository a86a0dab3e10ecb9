"""What `gallery duplicates` prints."""

import csv
import json
import sys
from collections.abc import Sequence
from dataclasses import asdict

from hashsearch.columns import aligned
from hashsearch.commands.output import shown
from hashsearch.retrieval.duplicates import DuplicateFile, DuplicateGroup
from hashsearch.wording import counted

_COLUMNS = ("group", "keep", "distance", "path", "width", "height", "size", "id")


def print_groups(groups: Sequence[DuplicateGroup], radius: int) -> None:
    within = counted(radius, "bit")
    if not groups:
        print(f"no duplicates within {within}")
        return
    files = sum(len(group.files) for group in groups)
    print(f"{counted(len(groups), 'group')} of {files:,} files within {within}; nothing is deleted")
    for number, group in enumerate(groups, 1):
        bound = "at least " if group.diameter_is_lower_bound else ""
        diameter = f"{bound}{counted(group.diameter, 'bit')}"
        print(f"\ngroup {number:,}: {counted(len(group.files), 'file')}, diameter {diameter}")
        for line in aligned([_cells(file) for file in group.files], "<>><"):
            print(f"  {line}")


def _cells(file: DuplicateFile) -> tuple[str, ...]:
    return (
        "keep" if file.keep else "",
        f"{file.distance:,}",
        f"{file.width}×{file.height}",
        shown(file.path or file.uri) + (" (gone)" if file.missing else ""),
    )


def print_csv(groups: Sequence[DuplicateGroup]) -> None:
    """One row for each file; keep is 1 or 0."""
    writer = csv.writer(sys.stdout, lineterminator="\n")
    writer.writerow(_COLUMNS)
    for number, group in enumerate(groups, 1):
        for file in group.files:
            rest = (shown(file.path or file.uri), file.width, file.height, file.size, file.id)
            writer.writerow((number, int(file.keep), file.distance, *rest))


def print_json(groups: Sequence[DuplicateGroup], radius: int) -> None:
    print(json.dumps({"radius": radius, "groups": [asdict(group) for group in groups]}, indent=2))
