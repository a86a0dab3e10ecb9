"""A zip archive of image files.

Its directory is read as it is needed, an entry at a time: Python's zipfile keeps
the whole of it in memory, some 700 bytes a member.
Source: APPNOTE.TXT 6.3.10, https://pkware.cachefly.net/webdocs/casestudies/APPNOTE.TXT.
"""

import bz2
import lzma
import stat
import struct
import zlib
from collections import Counter
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path, PurePosixPath
from typing import BinaryIO, NamedTuple

from hashsearch.errors import InvalidImage, InvalidSource
from hashsearch.images import ACCEPTED_SUFFIXES
from hashsearch.sources.archive import why_not_read
from hashsearch.sources.base import SourceImage, encode_path, is_hidden, pass_over
from hashsearch.sources.folder import printable
from hashsearch.sources.seen import SeenNames

ZIP_MAGIC = (b"PK\x03\x04", b"PK\x05\x06")  # of one with members, and of an empty one

_ENTRY = struct.Struct("<4s2x2x2H2H3L3H2x2xLL")  # of the directory, up to the name
_LOCAL = struct.Struct("<4s22x2H")  # before a member's bytes
_END = struct.Struct("<4s2x2x2xH2LH")
_END_64 = struct.Struct("<4s8x2x2x4x4x8x3Q")
_LOCATOR_64_BYTES = 20
_LEAST_DICTIONARY = 4096  # of LZMA, in bytes
_MOST_COMMENT_BYTES = 2**16
_IN_64 = 0xFFFFFFFF  # the value is in the entry's extra field, in 64 bits
_ENCRYPTED, _UTF_8 = 1, 0x800  # flags
_STORED, _DEFLATED, _BZIP2, _LZMA = 0, 8, 12, 14  # methods


class ZipArchive:
    """Image files of a zip archive, in its directory's order.

    A member's label is its folder's name. Hidden files and folders, links and what macOS
    puts into `__MACOSX/` are left out; of several members of one name the first
    counts. Nothing is ever extracted to disk.
    """

    def __init__(self, root: Path):
        self.root = root.resolve()
        self.passed_over: Counter[str] = Counter()
        self._entries: int | None = None
        self._left_out = 0

    def estimate(self) -> int | None:
        """As many as the directory has entries, but for those found to be no images."""
        if self._entries is None:
            try:
                with self.root.open("rb") as file:
                    self._entries = _find_directory(file, self.root).entries
            except InvalidSource:  # which iterating tells
                return None
        return self._entries - self._left_out

    def __iter__(self) -> Iterator[SourceImage]:
        self.passed_over.clear()
        self._left_out = 0
        with (
            closing(SeenNames()) as seen,
            self.root.open("rb") as file,
            self.root.open("rb") as directory,
        ):
            left = self.root.stat().st_size
            for entry in _entries(directory, self.root):
                if not self._is_image(entry) or not seen.add(entry.name):
                    self._left_out += 1
                    continue
                content = _read(file, entry, left)
                if isinstance(content, bytes):
                    left -= entry.compressed
                yield SourceImage(
                    place="!/" + encode_path(entry.name),
                    label=printable(PurePosixPath(entry.name).parent.name) or None,
                    size=entry.size,
                    mtime=entry.mtime,
                    content=content,
                )

    def _is_image(self, entry: "_Entry") -> bool:
        path = PurePosixPath(entry.name)
        hidden = is_hidden(path) or path.parts[:1] == ("__MACOSX",)
        if entry.is_link or entry.name.endswith("/") or hidden:
            return False
        if path.suffix.lower() not in ACCEPTED_SUFFIXES:
            pass_over(self.passed_over, path.suffix.lower())
            return False
        return True


class _Entry(NamedTuple):
    """What the directory says of a member: sizes and offset in bytes, mtime in nanoseconds."""

    name: str
    is_link: bool
    flags: int
    method: int
    mtime: int
    checksum: int
    compressed: int
    size: int
    offset: int


class _Directory(NamedTuple):
    """Where the directory lies: begin and end in the file, and what its offsets count from."""

    entries: int
    begin: int
    end: int
    origin: int


def _find_directory(file: BinaryIO, path: Path) -> _Directory:
    """Raises InvalidSource where there is none."""
    size = file.seek(0, 2)
    file.seek(max(0, size - _END.size - _MOST_COMMENT_BYTES))
    start, tail = file.tell(), file.read()
    end = start + tail.rfind(b"PK\x05\x06")
    try:
        _, entries, length, offset, _ = _END.unpack_from(tail, end - start)
        end_64 = end - _LOCATOR_64_BYTES - _END_64.size
        file.seek(max(0, end_64))
        found = _END_64.unpack(file.read(_END_64.size).ljust(_END_64.size))
        if found[0] == b"PK\x06\x06":
            (_, entries, length, offset), end = found, end_64
    except struct.error as error:
        raise _damaged(path) from error
    if length + offset > end:
        raise _damaged(path)
    # Offsets count from the archive's first byte, which need not be the file's.
    return _Directory(entries, end - length, end, end - length - offset)


def _entries(file: BinaryIO, path: Path) -> Iterator[_Entry]:
    directory = _find_directory(file, path)
    file.seek(directory.begin)
    at = directory.begin
    while at < directory.end:
        try:
            fields = _ENTRY.unpack(file.read(_ENTRY.size))
            signature, flags, method, time, date, checksum = fields[:6]
            compressed, size, *lengths, attributes, offset = fields[6:]
            name, extra, _ = (file.read(length) for length in lengths)
            size, compressed, offset = _in_64_bits(extra, size, compressed, offset)
        except struct.error as error:
            raise _damaged(path) from error
        at += _ENTRY.size + sum(lengths)
        if signature != b"PK\x01\x02" or at > directory.end:
            raise _damaged(path)
        text = name.decode("utf-8", "surrogateescape") if flags & _UTF_8 else name.decode("cp437")
        yield _Entry(
            text,
            stat.S_ISLNK(attributes >> 16),  # the upper half is Unix's
            flags,
            method,
            _nanoseconds(date, time),
            checksum,
            compressed,
            size,
            min(directory.origin + offset, directory.begin),  # beyond it no member can lie
        )


def _in_64_bits(extra: bytes, *values: int) -> Iterator[int]:
    """Replace the values that did not fit into 32 bits by those in the extra field."""
    wide = b""
    while len(extra) >= 4:
        kind, length = struct.unpack_from("<2H", extra)
        if kind == 1:
            wide = extra[4 : 4 + length]
        extra = extra[4 + length :]
    for value in values:
        if value == _IN_64:
            (value,), wide = struct.unpack("<Q", wide[:8]), wide[8:]
        yield value


def _read(file: BinaryIO, entry: _Entry, left: int) -> bytes | InvalidImage:
    """A member's bytes, never more of them than the directory says.

    left: how many bytes of the file no member has had yet.
    """
    if refused := why_not_read(entry.name, max(entry.size, entry.compressed)):
        return refused
    if entry.compressed > left:
        return InvalidImage("its bytes are those of other members")
    if entry.flags & _ENCRYPTED:
        return InvalidImage("it is encrypted")
    if entry.method not in (_STORED, _DEFLATED, _BZIP2, _LZMA):
        return InvalidImage(
            f"it is compressed by method {entry.method}; stored members and those by deflate, "
            "bzip2 and LZMA are read"
        )
    file.seek(entry.offset)
    try:
        signature, name_length, extra_length = _LOCAL.unpack(file.read(_LOCAL.size))
        file.seek(name_length + extra_length, 1)
        data = _unpack(file.read(entry.compressed), entry.method, entry.size + 1)
    except (struct.error, zlib.error, lzma.LZMAError, OSError, EOFError, ValueError):
        return InvalidImage("it is damaged in its archive")
    whole = len(data) == entry.size and zlib.crc32(data) == entry.checksum
    if signature != b"PK\x03\x04" or not whole:
        return InvalidImage("it is damaged in its archive")
    return data


def _unpack(data: bytes, method: int, most: int) -> bytes:
    """Undo a compression, up to so many bytes of what comes out."""
    if method == _DEFLATED:
        return zlib.decompressobj(-zlib.MAX_WBITS).decompress(data, most)
    if method == _BZIP2:
        return bz2.BZ2Decompressor().decompress(data, most)
    if method == _LZMA:  # behind a header of nine bytes
        settings, dictionary = struct.unpack_from("<4xBL", data)
        positions, literals = divmod(settings, 45)
        one = {
            "id": lzma.FILTER_LZMA1,
            "dict_size": min(dictionary, most + _LEAST_DICTIONARY),  # memory it would claim
            "pb": positions,
            "lp": literals // 9,
            "lc": literals % 9,
        }
        return lzma.LZMADecompressor(lzma.FORMAT_RAW, filters=[one]).decompress(data[9:], most)
    return data


def _nanoseconds(date: int, time: int) -> int:
    """A time of MS-DOS, in two seconds and of no zone, as if of UTC; 0 if it is none."""
    try:
        moment = datetime(
            1980 + (date >> 9),
            date >> 5 & 15,
            date & 31,
            time >> 11,
            time >> 5 & 63,
            2 * (time & 31),
            tzinfo=UTC,
        )
    except ValueError:
        return 0
    return int(moment.timestamp()) * 10**9


def _damaged(path: Path) -> InvalidSource:
    return InvalidSource(f"{path} is no zip archive, or its directory is damaged")
