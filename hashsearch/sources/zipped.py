"""A zip archive of image files.

Python's zipfile reads the directory; members are unpacked here, because zipfile
unpacks bzip2 and LZMA beyond the size that the directory gives, without limit.
Source: APPNOTE.TXT 6.3.10, https://pkware.cachefly.net/webdocs/casestudies/APPNOTE.TXT.
"""

import bz2
import lzma
import os
import stat
import struct
import zlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path, PurePosixPath
from shlex import quote
from threading import Lock
from typing import BinaryIO, NamedTuple, cast
from zipfile import ZIP_BZIP2, ZIP_DEFLATED, ZIP_LZMA, ZIP_STORED, ZipFile, ZipInfo

import numpy as np

from hashsearch.errors import InvalidImage, InvalidSource
from hashsearch.images import ACCEPTED_SUFFIXES
from hashsearch.sources.archive import why_not_read
from hashsearch.sources.base import SourceImage, encode_path, is_hidden, pass_over

ZIP_MAGIC = (b"PK\x03\x04", b"PK\x05\x06")  # of one with members, and of an empty one

_LOCAL = struct.Struct("<4s22x2H")  # before a member's bytes
_END_BYTES = 22  # of the record at the end, without the archive's comment
_MOST_COMMENT_BYTES = 2**16
_MOST_KEPT = 4  # directories of archives that were read last
_MOST_VALUE = 2**64 - 1  # of a number in the directory
_LEAST_DICTIONARY = 4096  # of LZMA, in bytes
_ENCRYPTED, _IN_UTF8 = 1, 0x800  # flags
_UNICODE_PATH = 0x7075  # a field of Info-ZIP's: the name in UTF-8
# The letters of code page 437 that names in Western European languages have; its Greek, box
# drawings and signs are what names in other encodings look like when they are read by it.
_LETTERS_OF_437 = "ÇüéâäàåçêëèïîìÄÅÉæÆôöòûùÿÖÜáíóúñÑß¡¿ªº"
_ENTRY = struct.Struct("<4s4xH18x3H12x")  # signature, flags, and the lengths of three fields


class ZipArchive:
    """Image files of a zip archive, in its directory's order.

    A member's label is its folder's name. Names that are not marked as UTF-8 are read
    as UTF-8, or else as code page 437, which `remarks` says. Where that makes other
    characters than Western European letters, the encoding is unknown: the names stay
    as they are in code page 437, but give no labels. In names without slashes,
    backslashes separate folders, as some programs for Windows write them. Hidden
    files and folders, links and macOS's `__MACOSX/` are left out; of several
    members of one name the first counts. Nothing is ever extracted to disk. The
    directory is kept in memory while it is read, some 700 bytes a member.
    """

    def __init__(self, root: Path):
        self.root = root.resolve()
        self.passed_over: Counter[str] = Counter()
        self.is_whole = True
        self.is_folder = False
        self.remarks: list[str] = []
        self._entries: int | None = None
        self._left_out = 0

    def estimate(self) -> int | None:
        """The directory's number of entries, without those found to be no images."""
        if self._entries is None:
            try:
                with self.root.open("rb") as file:
                    self._entries = len(_directory(file, self.root))
            except InvalidSource:  # iterating raises it again
                return None
        return self._entries - self._left_out

    def __iter__(self) -> Iterator[SourceImage]:
        self.passed_over.clear()
        self.remarks.clear()
        self._left_out = 0
        seen: set[str] = set()
        unsure, example = 0, ""  # names whose encoding is guessed or unknown
        with self.root.open("rb") as file:
            left = self.root.stat().st_size
            entries = _directory(file, self.root)
            encodings = _encodings(entries)
            for entry in entries:
                name, encoding = _name(entry, encodings)
                if not self._is_image(entry, name) or name in seen:
                    self._left_out += 1
                    continue
                seen.add(name)
                folder = PurePosixPath(name).parent.name
                if encoding != "utf-8":
                    unsure, example = unsure + 1, example or name
                content = _read(file, entry, name, left)
                if isinstance(content, bytes):
                    left -= entry.compress_size
                yield SourceImage(
                    place="!/" + encode_path(name),
                    label=folder if folder and (encoding or folder.isascii()) else None,
                    size=entry.file_size,
                    mtime=_mtime_ns(entry),
                    content=content,
                )
        if unsure:
            of_them = f"({unsure:,}, such as {example})"
            self.remarks.append(
                f"names that are not marked as UTF-8 {of_them} were read as code page 437; if that "
                "is wrong, give labels by --labels"
                if "cp437" in encodings
                else f"names in an unknown encoding {of_them} give no labels; give them by --labels"
            )

    def _is_image(self, entry: ZipInfo, name: str) -> bool:
        path = PurePosixPath(name)
        hidden = is_hidden(path) or path.parts[:1] == ("__MACOSX",)
        if _is_link(entry) or name.endswith("/") or hidden:
            return False
        if path.suffix.lower() not in ACCEPTED_SUFFIXES:
            pass_over(self.passed_over, path.suffix.lower())
            return False
        return True


def image_in_zip(
    file: BinaryIO, path: Path, name: str, stop: Callable[[], bool]
) -> bytes | InvalidImage | None:
    """Read the first file of this name in an open zip archive; as `Container.read`.

    The directories of the archives that were read last are kept.
    """
    member = _directories.members(file, path).get(name)
    return None if member is None else _read(file, member, name, file.seek(0, 2))


class _Member(NamedTuple):
    """What the directory says of a member, by the names that ZipInfo has for it."""

    header_offset: int
    compress_size: int
    file_size: int
    CRC: int
    flag_bits: int
    compress_type: int


class _Members:
    """The files in an archive's directory by name, the first of each name, in 56 bytes each.

    Names are kept as 64 bits of their SHA-256. Two of the same bits would only give an image the
    bytes of another one, which its key tells.
    """

    def __init__(self, entries: Sequence[ZipInfo]):
        encodings = _encodings(entries)
        files = [entry for entry in entries if not _is_link(entry)]
        hashes = np.array([_hash_of(_name(entry, encodings)[0]) for entry in files], np.uint64)
        self._hashes, first = np.unique(hashes, return_index=True)
        self._values = np.empty((len(first), len(_Member._fields)), np.uint64)
        for row, number in enumerate(first.tolist()):
            for column, field in enumerate(_Member._fields):
                self._values[row, column] = min(getattr(files[number], field), _MOST_VALUE)

    def get(self, name: str) -> _Member | None:
        wanted = np.uint64(_hash_of(name))
        row = int(np.searchsorted(self._hashes, wanted))
        if row == len(self._hashes) or self._hashes[row] != wanted:
            return None
        return _Member(*self._values[row].tolist())


def _hash_of(name: str) -> int:
    return int.from_bytes(sha256(name.encode("utf-8", "surrogatepass")).digest()[:8], "little")


class _Directories:
    """The directories of the archives that were read last; one thread reads one at a time."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._kept: dict[tuple[int, ...], _Members] = {}  # by archive, the oldest first

    def members(self, file: BinaryIO, path: Path) -> _Members:
        """The members of an open archive, by what its file is. Raises as `_directory`."""
        status = os.fstat(file.fileno())
        key = (
            status.st_dev,
            status.st_ino,
            status.st_size,
            status.st_mtime_ns,
            status.st_ctime_ns,
        )
        with self._lock:
            members = self._kept.pop(key, None) or _Members(_directory(file, path))
            self._kept[key] = members
            while len(self._kept) > _MOST_KEPT:
                del self._kept[next(iter(self._kept))]
            return members


_directories = _Directories()


def _is_link(entry: ZipInfo) -> bool:
    return stat.S_ISLNK(entry.external_attr >> 16)  # the upper half is Unix's


def _directory(file: BinaryIO, path: Path) -> list[ZipInfo]:
    """Read the directory. Raises InvalidSource if it is damaged or missing."""
    damaged = InvalidSource(f"{path} is no zip archive, or its directory is damaged")
    file.seek(max(0, file.seek(0, 2) - _END_BYTES - _MOST_COMMENT_BYTES))
    _, found, end = file.read().rpartition(b"PK\x05\x06")
    if found and int.from_bytes(end[:2], "little") not in (0, 0xFFFF):
        raise InvalidSource(
            f"{path} is the last part of a zip archive in several parts, which is not read; "
            f"unpack it with 7z x {quote(str(path))}"
        )
    try:
        try:
            entries = ZipFile(file).infolist()
        except UnicodeDecodeError:  # a name that has the flag of UTF-8 and is not
            entries = ZipFile(cast(BinaryIO, _WithoutFlag(file))).infolist()
    except Exception as error:  # a directory from outside can raise anything
        raise damaged from error
    counted = int.from_bytes(end[6:8], "little")
    # zipfile loses the entries that a damaged length skips, and takes any offset.
    if counted not in (0xFFFF, len(entries) % 2**16) or any(e.header_offset < 0 for e in entries):
        raise damaged
    return entries


class _WithoutFlag:
    """A file whose directory says of no name that it is UTF-8, so that zipfile decodes none."""

    def __init__(self, file: BinaryIO):
        self.seek, self.tell, self.seekable = file.seek, file.tell, file.seekable
        self._read = file.read

    def read(self, size: int = -1) -> bytes:
        data = bytearray(self._read(size))
        at = 0
        while len(data) - at >= _ENTRY.size:  # zipfile reads the directory at once
            signature, flags, *lengths = _ENTRY.unpack_from(data, at)
            if signature != b"PK\x01\x02":
                break
            struct.pack_into("<H", data, at + 8, flags & ~_IN_UTF8)
            at += _ENTRY.size + sum(lengths)
        return bytes(data)


def _encodings(entries: Iterable[ZipInfo]) -> tuple[str, ...]:
    """The encodings to try on names that say none, in order; none if they are in another.

    Names in one archive mostly share an encoding, and two characters in another one can be valid
    UTF-8, as `猫` in GBK is.
    """
    in_utf8 = others = 0
    western = True
    for entry in entries:
        raw, is_utf8 = _raw_name(entry)
        if is_utf8:
            continue
        try:
            raw.decode()
            in_utf8 += 1
        except UnicodeDecodeError:
            others += 1
            western = western and all(
                character.isascii() or character in _LETTERS_OF_437
                for character in entry.orig_filename
            )
    if western:
        return ("utf-8", "cp437")
    return ("utf-8",) if in_utf8 >= others else ()


def _name(entry: ZipInfo, encodings: Iterable[str]) -> tuple[str, str | None]:
    """A member's name, and its encoding; without one, code page 437 stands for its bytes.

    encodings: those to try if the name says none.
    """
    raw, is_utf8 = _raw_name(entry)
    name, encoding = raw.decode("cp437"), None
    for tried in ("utf-8",) if is_utf8 else encodings:
        with suppress(UnicodeDecodeError):
            name, encoding = raw.decode(tried), tried
            break
    name = name.partition("\0")[0]
    # The second byte of a character in East Asian encodings may be that of a backslash.
    keeps = "/" in name or encoding is None
    return name if keeps else name.replace("\\", "/"), encoding


def _raw_name(entry: ZipInfo) -> tuple[bytes, bool]:
    """The bytes of a member's name, and whether they are surely UTF-8."""
    if entry.flag_bits & _IN_UTF8:
        return entry.orig_filename.encode(), True
    in_header = entry.orig_filename.encode("cp437")  # a code page of all 256 bytes
    if (in_field := _unicode_path(entry.extra, in_header)) is not None:
        return in_field, True
    return in_header, in_header.isascii()


def _unicode_path(extra: bytes, in_header: bytes) -> bytes | None:
    """The name in the field 0x7075, if it is of the name in the header, and valid UTF-8."""
    while len(extra) >= 4:
        kind, size = struct.unpack_from("<2H", extra)
        field, extra = extra[4 : 4 + size], extra[4 + size :]
        # A version and a checksum come first: programs that know no such field may rename members.
        if kind == _UNICODE_PATH and field[:5] == struct.pack("<BL", 1, zlib.crc32(in_header)):
            with suppress(UnicodeDecodeError):
                field[5:].decode()
                return field[5:]
            return None
    return None


def _read(file: BinaryIO, entry: ZipInfo | _Member, name: str, left: int) -> bytes | InvalidImage:
    """Read a member, and unpack no more bytes than the directory gives.

    left: how many of the file's bytes were not read as a member yet.
    """
    if refused := why_not_read(name, max(entry.file_size, entry.compress_size)):
        return refused
    if entry.compress_size > left:
        return InvalidImage("its bytes are those of other members")
    if entry.flag_bits & _ENCRYPTED:
        return InvalidImage("it is encrypted")
    if entry.compress_type not in (ZIP_STORED, ZIP_DEFLATED, ZIP_BZIP2, ZIP_LZMA):
        return InvalidImage(
            f"it is compressed by method {entry.compress_type}; stored members and those by "
            "deflate, bzip2 and LZMA are read"
        )
    try:
        file.seek(entry.header_offset)
        signature, name_length, extra_length = _LOCAL.unpack(file.read(_LOCAL.size))
        file.seek(name_length + extra_length, 1)
        packed = file.read(entry.compress_size)
        data = _unpack(packed, entry.compress_type, entry.file_size + 1)
    except (
        struct.error,
        zlib.error,
        lzma.LZMAError,
        OSError,
        EOFError,
        ValueError,
        OverflowError,
    ):
        return InvalidImage("it is damaged in its archive")
    whole = len(data) == entry.file_size and zlib.crc32(data) == entry.CRC
    if signature != b"PK\x03\x04" or not whole:
        return InvalidImage("it is damaged in its archive")
    return data


def _unpack(packed: bytes, method: int, most: int) -> bytes:
    """Undo a compression, and return at most so many bytes."""
    if method == ZIP_DEFLATED:
        return zlib.decompressobj(-zlib.MAX_WBITS).decompress(packed, most)
    if method == ZIP_BZIP2:
        return bz2.BZ2Decompressor().decompress(packed, most)
    if method == ZIP_LZMA:  # after a header of nine bytes; rewritten as that of an .lzma file
        settings, dictionary = struct.unpack_from("<4xBL", packed)
        dictionary = min(dictionary, most + _LEAST_DICTIONARY)  # memory that it would take
        header = struct.pack("<BLq", settings, dictionary, -1)  # -1: of any size
        return lzma.LZMADecompressor(lzma.FORMAT_ALONE).decompress(header + packed[9:], most)
    return packed


def _mtime_ns(entry: ZipInfo) -> int:
    """A member's time of change in nanoseconds, as if in UTC; 0 if it is no time."""
    try:
        return int(datetime(*entry.date_time, tzinfo=UTC).timestamp()) * 10**9
    except ValueError:
        return 0
