"""Labels for the images of any source, from a CSV file."""

import csv
import os
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from urllib.parse import unquote_to_bytes

from hashsearch.errors import InvalidSource
from hashsearch.sources.base import Source, SourceImage, locate
from hashsearch.wording import counted


class Labels:
    """Labels of images by their paths, from a CSV file.

    UTF-8, with a header that names the columns `path` and `label`; other columns
    are ignored. A path is relative to the source (`cat/1.jpg`), a member's name
    in an archive, or a row's number in a file of many; or all of it, as commands
    print it (`/data/cat/1.jpg`, `/data/a.zip!/cat/1.jpg`, `/data/x.npy#0`), for an
    archive or a file of many also from its name on (`a.zip!/cat/1.jpg`, `x.npy#0`).
    Of several paths of one image, the longest counts. An empty label means none.
    Memory holds all of it, 110 to 140 bytes a row.
    Raises InvalidSource, with the line, if the file is anything else or gives two
    labels for one path.
    """

    def __init__(self, path: Path):
        self._labels: dict[bytes, str] = {}
        self._used: set[bytes] = set()
        for line, name, label in _rows(path):
            # One string for all rows with an equal label.
            other = self._labels.setdefault(_key(name.encode()), sys.intern(label))
            if other != label:
                raise InvalidSource(
                    f"{path}, line {line}: {name} has the label {label}, "
                    f"and {other} on a line above"
                )

    def labelled(self, image: SourceImage, root: Path) -> SourceImage:
        """The image with the listed label, or with its own if its path is not listed.

        root: of its source.
        """
        listed = [path for path in _paths(image.place, root) if path in self._labels]
        if not listed:
            return image
        self._used.update(listed)
        return replace(image, label=self._labels[listed[0]] or None, label_given=True)

    def unused(self) -> int:
        """How many listed paths named no image so far."""
        return len(self._labels) - len(self._used)


class LabelledSource:
    """A source whose images have the labels that a CSV file lists, or their own."""

    def __init__(self, source: Source, labels: Labels):
        self.root = source.root
        self.passed_over, self.remarks = source.passed_over, source.remarks
        self.is_whole, self.is_folder = source.is_whole, source.is_folder
        self._source, self._labels = source, labels

    def estimate(self) -> int | None:
        return self._source.estimate()

    def __iter__(self) -> Iterator[SourceImage]:
        for image in self._source:
            yield self._labels.labelled(image, self.root)


def _paths(place: str, root: Path) -> Iterator[bytes]:
    """What a list may call the image at a place of a source, the longest first."""
    whole = os.fsencode(locate(str(root), place))
    yield whole
    if not place.startswith("/"):
        yield whole.removeprefix(os.fsencode(root.parent)).removeprefix(b"/")
    yield _key(unquote_to_bytes(place.removeprefix("!").lstrip("/#")))


def _key(path: bytes) -> bytes:
    return path.removeprefix(b"./")


def _rows(path: Path) -> Iterator[tuple[int, str, str]]:
    """Yield (line, path, label) of each row."""
    try:
        file = path.open("rb")
    except OSError as error:
        raise InvalidSource(f"{path} cannot be read: {error.strerror}") from error
    except ValueError as error:  # a zero byte
        raise InvalidSource(f"{str(path)!r} is no path: {error}") from error
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
                        f"{path}, line {reader.line_num}: {counted(len(row), 'field')} came; "
                        f"{len(header)} were wanted"
                    )
        except UnicodeDecodeError as error:
            raise InvalidSource(f"{path}, line {reader.line_num + 1}: this is not UTF-8") from error
        except csv.Error as error:
            raise InvalidSource(f"{path}, line {reader.line_num}: {error}") from error
