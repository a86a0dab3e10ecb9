"""WebDataset's layout of tar archives: a file beside an image holds its label.

Consecutive members that share their path up to the first dot of the file name
are one sample: `000017.jpg`, `000017.cls`, `000017.json`, in any order. Names
may have further dots; a note then belongs to the image whose name it shares to
the last dot, as `v1.a.cls` belongs to `v1.a.jpg` and not to `v1.b.jpg`.
Source: https://github.com/webdataset/webdataset.
"""

import json
from collections.abc import Iterator
from dataclasses import replace
from typing import IO, NamedTuple

from hashsearch.errors import InvalidSource
from hashsearch.sources.base import SourceImage, label_of_number, valid_text

NOTES = (".cls", ".json", ".txt")  # suffixes of the files that may lie beside an image

_MAX_NOTE_BYTES = 2**20
_MAX_SAMPLE_BYTES = 32 * 2**20
_MAX_LABEL_BYTES = 1024
_MOST_DOTS = 8  # of a name that are looked at; names may have a million
_MEMBER_BYTES = 2 * _MAX_LABEL_BYTES  # of memory, whatever a member holds


class Member(NamedTuple):
    """An image of an archive, or a note: a file that may hold an image's label.

    stem: the member's name without its suffix. label: what a note holds.
    """

    stem: str
    suffix: str
    image: SourceImage | None = None
    label: str | None = None

    @property
    def sample(self) -> str:
        """The beginning of the name, which all members of a sample share."""
        folder, slash, file_name = self.stem.rpartition("/")
        return folder + slash + file_name.partition(".")[0]


class Sample(NamedTuple):
    """A sample, or a part of one. notes: of the parts before, so far as they are kept."""

    members: list[Member]
    notes: list[Member]


def samples(members: Iterator[Member]) -> Iterator[Sample]:
    """Put the members of each sample together.

    A sample of more than 32 MB is yielded in parts; each has the last notes
    before it, and those that follow its last image. If the archive is cut short,
    InvalidSource is raised after the last whole member.
    """
    sample = Sample([], [])
    name, size = "", 0
    broken: InvalidSource | None = None
    try:
        for member in members:
            most = _MAX_SAMPLE_BYTES * (1 if member.image is not None else 2)  # notes may follow
            other = member.sample != name
            if sample.members and (other or size > most):
                yield sample
                sample = Sample([], [] if other else _notes_to_keep(sample, name))
                size = sum(map(_memory_bytes, sample.notes))
            name = member.sample
            sample.members.append(member)
            size += _memory_bytes(member)
    except InvalidSource as error:
        broken = error
    if sample.members:
        yield sample
    if broken is not None:
        raise broken


def _memory_bytes(member: Member) -> int:
    of_image = member.image.size if member.image is not None else 0
    return _MEMBER_BYTES + 4 * len(member.stem) + of_image


def _notes_to_keep(part: Sample, name: str) -> list[Member]:
    """The labelled notes that later parts may need: of the whole sample, and the last others."""
    notes = {
        (note.stem, note.suffix): note
        for note in (*part.notes, *part.members)
        if note.label is not None
    }
    size, kept = 0, []
    for note in sorted(notes.values(), key=lambda note: note.stem == name)[::-1]:
        size += _memory_bytes(note)
        if size > _MAX_SAMPLE_BYTES // 2:
            break
        kept.append(note)
    return kept[::-1]


def labelled(sample: Sample) -> Iterator[SourceImage]:
    """Yield the images of a sample with the labels in its notes, or else with their own.

    An image has the note that shares its name to the last dot, or else the dot
    before, and so on. An image without further dots, `x.jpg`, may have one with
    them, `x.meta.json`. Of two notes of one name, `.cls` comes before `.json`.
    """
    notes: dict[str, dict[str, str]] = {}
    for note in (*sample.notes, *sample.members):
        if note.label is not None:
            notes.setdefault(note.stem, {})[note.suffix] = note.label
    images = [(one, one.image) for one in sample.members if one.image is not None]
    of_images = {member.stem for member, _ in images}
    free: dict[str, str] = {}
    for stem, labels in notes.items():
        if stem not in of_images:
            free |= labels
    for member, image in images:
        found = next((notes[stem] for stem in _stems(member) if stem in notes), None)
        if found is None:
            found = free if member.stem == member.sample else {}
        label = found.get(".cls") or found.get(".json")
        yield image if label is None else replace(image, label=label)


def _stems(image: Member) -> Iterator[str]:
    """An image's name up to its last dot, the one before, and so on, and to the first."""
    stem = image.stem
    for _ in range(_MOST_DOTS):
        if stem == image.sample:
            break
        yield stem
        stem = stem.rpartition(".")[0]
    yield image.sample


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
    if isinstance(label, int | float) and not isinstance(label, bool):
        return label_of_number(label)
    return _short(label) if isinstance(label, str) else None


def _short(label: str) -> str | None:
    label = valid_text(label)
    return label if 0 < len(label.encode()) <= _MAX_LABEL_BYTES else None
