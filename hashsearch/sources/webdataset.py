"""WebDataset's layout of tar archives: a file beside an image holds its label.

Consecutive members that share their path up to the first dot of the file name
are one sample: `000017.jpg`, `000017.cls`, `000017.json`, in any order.
Source: https://github.com/webdataset/webdataset.
"""

import json
from collections.abc import Iterator
from typing import IO, NamedTuple

from hashsearch.errors import InvalidSource
from hashsearch.sources.base import SourceImage, valid_text

NOTES = (".cls", ".json", ".txt")  # suffixes of the files that may lie beside an image

_MAX_NOTE_BYTES = 2**20
_MAX_SAMPLE_BYTES = 32 * 2**20
_MAX_LABEL_BYTES = 1024
_MEMBER_BYTES = 2 * _MAX_LABEL_BYTES  # of memory, whatever a member holds


class Member(NamedTuple):
    """An image of an archive, or a note: a file that may hold an image's label.

    sample: what the names of all members of its sample begin with. label: what a
    note holds.
    """

    sample: str
    suffix: str
    image: SourceImage | None = None
    label: str | None = None


def sample_of(name: str) -> str:
    """The part of a member's name that all members of its sample share."""
    folder, slash, file_name = name.rpartition("/")
    return folder + slash + file_name.partition(".")[0]


def samples(members: Iterator[Member]) -> Iterator[list[Member]]:
    """Put the members of each sample together.

    A sample of more than 32 MB is yielded in parts; each has the last notes
    before it, and those that follow its last image. If the archive is cut short,
    InvalidSource is raised after the last whole member.
    """
    sample: list[Member] = []
    size = 0
    broken: InvalidSource | None = None
    try:
        for member in members:
            most = _MAX_SAMPLE_BYTES * (1 if member.image is not None else 2)  # notes may follow
            if sample and (member.sample != sample[0].sample or size > most):
                yield sample
                notes = [one for one in sample if one.label and one.sample == member.sample]
                sample, size = list({one.suffix: one for one in notes}.values()), 0
            sample.append(member)
            size += _MEMBER_BYTES + 4 * len(member.sample)
            size += member.image.size if member.image is not None else 0
    except InvalidSource as error:
        broken = error
    if sample:
        yield sample
    if broken is not None:
        raise broken


def label_in(sample: list[Member]) -> str | None:
    """The label that the notes of a sample hold: `.cls` first, then `.json`."""
    labels = {member.suffix: member.label for member in sample if member.label is not None}
    return labels.get(".cls") or labels.get(".json")


def label_of_note(suffix: str, note: IO[bytes]) -> str | None:
    """The class that a `.cls` file holds, or "label" in a `.json`.

    None if there is none, or it is longer than 1 KB.
    """
    if suffix == ".txt":
        return None  # a caption
    data = note.read(_MAX_NOTE_BYTES + 1)
    if len(data) > _MAX_NOTE_BYTES:
        return None
    text = data.decode("utf-8", errors="replace").strip()
    if suffix == ".cls":
        return _short(text)
    try:
        content = json.loads(text)
    except (ValueError, RecursionError):
        return None
    label = content.get("label") if isinstance(content, dict) else None
    known = isinstance(label, (str, int, float)) and not isinstance(label, bool)
    return _short(str(label)) if known else None


def _short(label: str) -> str | None:
    label = valid_text(label)
    return label if 0 < len(label.encode()) <= _MAX_LABEL_BYTES else None
