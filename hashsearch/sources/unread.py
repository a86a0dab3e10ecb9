"""Kinds of files that people try and that are no sources: one table, with what helps."""

import re
from pathlib import Path
from shlex import quote
from typing import NamedTuple

_MOST_BYTES = 64  # of a file's beginning


class UnreadKind(NamedTuple):
    """A kind of file that is not read.

    title: its name in a sentence. begins: a pattern of its first bytes. suffixes: of the names
    of such files, for one that is empty or damaged. advice: how its images can be indexed; {path}
    stands for the file.
    """

    title: str
    begins: bytes
    suffixes: tuple[str, ...]
    advice: str


UNREAD_KINDS = (
    UnreadKind(
        "compressed by zstd", rb"\x28\xb5\x2f\xfd", (".zst",), "unpack it with zstd -d {path}"
    ),
    UnreadKind(
        "compressed by lz4", rb"\x04\x22\x4d\x18", (".lz4",), "unpack it with lz4 -d {path}"
    ),
    UnreadKind("compressed by lzip", rb"LZIP", (".lz",), "unpack it with lzip -d {path}"),
    UnreadKind("compressed by compress", rb"\x1f\x9d", (".z",), "unpack it with uncompress {path}"),
    UnreadKind("a 7z archive", rb"7z\xbc\xaf\x27\x1c", (".7z",), "unpack it with 7z x {path}"),
    UnreadKind("a RAR archive", rb"Rar!\x1a\x07", (".rar",), "unpack it with unrar x {path}"),
    UnreadKind(
        "the first part of a zip archive in several parts",
        rb"PK\x07\x08",
        (".z01",),
        "unpack it with 7z x and the part that ends in .zip",
    ),
    UnreadKind(
        "a PDF", rb"%PDF-", (".pdf",), "extract its pictures with pdfimages -all {path} NAME"
    ),
    UnreadKind(
        "a video",
        rb"\x1a\x45\xdf\xa3|RIFF....AVI |\0\0\x01\xba|FLV\x01|OggS"
        rb"|....ftyp(?!avi[fs]|hei[cxms]|hev[cxms]|mif1|msf1)",
        (".mp4", ".m4v", ".mov", ".mkv", ".webm", ".avi", ".mpg", ".mpeg", ".flv", ".ogv", ".3gp"),
        "write its frames with ffmpeg -i {path} FOLDER/%06d.jpg",
    ),
    UnreadKind("an Arrow file", rb"ARROW1", (".arrow", ".feather"), "write it as Parquet"),
    UnreadKind(
        "an HDF5 file",
        rb"\x89HDF\r\n\x1a\n",
        (".h5", ".hdf5"),
        "save its images as a .npy array",
    ),
    UnreadKind(
        "an SQLite database",
        rb"SQLite format 3\0",
        (".sqlite", ".sqlite3"),
        "write its images to a folder",
    ),
)


def why_unread(path: Path) -> str | None:
    """Say of which unread kind a file is, by its first bytes or else its suffix, and what helps.

    None if it is of none.
    """
    if not path.is_file():
        return None
    with path.open("rb") as file:
        start = file.read(_MOST_BYTES)
    kinds = (kind for kind in UNREAD_KINDS if re.match(kind.begins, start, re.DOTALL))
    named = (kind for kind in UNREAD_KINDS if path.suffix.lower() in kind.suffixes)
    kind = next(kinds, None) or next(named, None)
    if kind is None:
        return None
    return f"is {kind.title}, which is not read; {kind.advice.format(path=quote(str(path)))}"
