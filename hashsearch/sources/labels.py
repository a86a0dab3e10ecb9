"""Labels from a CSV file, for the images of any source."""

import csv
import sqlite3
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from urllib.parse import unquote_to_bytes

from hashsearch.errors import InvalidSource
from hashsearch.sources.base import Source, SourceImage


class Labels:
    """What a CSV file tells of images by their paths, looked up on disk.

    UTF-8, with a header that names the columns `path` and `label`; others are
    left aside. A path is relative to the source (`cat/1.jpg`), a member's name
    in an archive, or a row's number in a file of many. An empty label means none.
    Raises InvalidSource, with the line, if the file is anything else or tells two
    labels of one path.
    """

    def __init__(self, path: Path):
        # "" is a database without a name, gone when it is closed.
        self._table = sqlite3.connect("", isolation_level=None, check_same_thread=False)
        self._table.execute("PRAGMA journal_mode = OFF")
        self._table.execute(
            "CREATE TABLE labels (path BLOB PRIMARY KEY, label TEXT, used INTEGER) WITHOUT ROWID"
        )
        self._table.execute("BEGIN")
        for line, name, label in _rows(path):
            key = name.encode().removeprefix(b"./")
            insert = "INSERT OR IGNORE INTO labels VALUES (?, ?, FALSE)"
            if not self._table.execute(insert, (key, label)).rowcount:
                other, _ = self._find(key)
                if other != label:
                    raise InvalidSource(
                        f"{path}, line {line}: {name} has the label {label}, "
                        f"and {other} on a line above"
                    )

    def label(self, image: SourceImage) -> str | None:
        """What an image's label is: the listed one, or its own where it is not listed."""
        within = image.place.removeprefix("!").lstrip("/#")
        key = unquote_to_bytes(within).removeprefix(b"./")
        label, used = self._find(key)
        if label is None:
            return image.label
        if not used:
            self._table.execute("UPDATE labels SET used = TRUE WHERE path = ?", (key,))
        return label or None

    def unused(self) -> int:
        """How many listed paths were no image's so far."""
        query = "SELECT count(*) FROM labels WHERE NOT used"
        return int(self._table.execute(query).fetchone()[0])

    def _find(self, key: bytes) -> tuple[str | None, bool]:
        query = "SELECT label, used FROM labels WHERE path = ?"
        return self._table.execute(query, (key,)).fetchone() or (None, False)


class LabelledSource:
    """A source whose images have the labels that a CSV file tells, where it lists them."""

    def __init__(self, source: Source, labels: Labels):
        self.root = source.root
        self.passed_over = source.passed_over
        self._source, self._labels = source, labels

    def estimate(self) -> int | None:
        return self._source.estimate()

    def __iter__(self) -> Iterator[SourceImage]:
        for image in self._source:
            yield replace(image, label=self._labels.label(image))


def _rows(path: Path) -> Iterator[tuple[int, str, str]]:
    """Yield (line, path, label) of each row."""
    try:
        file = path.open("rb")
    except OSError as error:
        raise InvalidSource(f"{path} cannot be read: {error.strerror}") from error
    with file:
        reader = csv.reader(line.decode("utf-8") for line in file)
        try:
            header = [name.removeprefix("\ufeff") for name in next(reader, [])]
            if not {"path", "label"} <= set(header):
                came = f"the columns {', '.join(header)}" if header else "no columns"
                raise InvalidSource(f"{path}, line 1: {came} came; path and label were wanted")
            at, label_at = header.index("path"), header.index("label")
            for row in reader:
                if len(row) > max(at, label_at):
                    yield reader.line_num, row[at], row[label_at]
                elif row:
                    raise InvalidSource(
                        f"{path}, line {reader.line_num}: {len(row)} fields came; "
                        f"{len(header)} were wanted"
                    )
        except UnicodeDecodeError as error:
            raise InvalidSource(f"{path}, line {reader.line_num + 1}: this is not UTF-8") from error
        except csv.Error as error:
            raise InvalidSource(f"{path}, line {reader.line_num}: {error}") from error
