"""Shards: up to 65,536 rows of a gallery as arrays on disk, which never change.

A shard is written row by row to a temporary folder, so that memory stays flat;
`seal` makes its files and folder durable, and the catalog then gives it a
number. `codes.npy`, `addresses.npy` and `pixels.npy` are (rows, width) uint8; a
column that the gallery does not keep has no file. Thumbnails are one file of
bytes and one of (rows + 1,) uint64 offsets into it; the two offsets of an image
without a thumbnail are equal.
"""

import hashlib
import os
import re
import shutil
from collections.abc import Mapping
from contextlib import suppress
from io import BytesIO
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

from hashsearch.codes import ADDRESS_BYTES, CODE_BYTES
from hashsearch.durable import sync_folder
from hashsearch.errors import InvalidGallery
from hashsearch.images import TINY_BYTES

MAX_ROWS = 65_536
WIDTHS = {"codes": CODE_BYTES, "addresses": ADDRESS_BYTES, "pixels": TINY_BYTES}
_MAX_THUMBNAIL_BYTES = 2**20  # a JPEG of 128×128 takes at most a tenth of this
THUMBNAILS, OFFSETS = "thumbnails.bin", "thumbnail_offsets.npy"


class ShardWriter:
    """Collects the rows of one shard in a temporary folder.

    columns: names in WIDTHS that the gallery keeps. Call `seal` or `discard` at the end.
    """

    def __init__(self, folder: Path, columns: frozenset[str], thumbnails: bool):
        folder.mkdir(parents=True)
        self.folder = folder
        self.rows = 0
        self._files: dict[str, BinaryIO] = {}
        self._thumbnails: BinaryIO | None = None
        self._offsets = [0]
        try:
            for name in sorted(columns):
                self._files[name] = (folder / f"{name}.npy").open("w+b")
                _write_header(self._files[name], 0, WIDTHS[name])
            if thumbnails:
                self._thumbnails = (folder / THUMBNAILS).open("w+b")
        except OSError:  # a full disk, or the gallery is deleted at this moment
            self.discard()
            raise

    @property
    def columns(self) -> frozenset[str]:
        return frozenset(self._files)

    def append(
        self, columns: Mapping[str, NDArray[np.uint8]], thumbnails: list[bytes | None]
    ) -> None:
        """Add rows: for each column (n, width) uint8, and n thumbnails or None."""
        if columns.keys() != self._files.keys():
            raise ValueError(f"got columns {sorted(columns)}; the shard has {sorted(self._files)}")
        count = len(thumbnails)
        for name, rows in columns.items():
            if rows.shape != (count, WIDTHS[name]) or rows.dtype != np.uint8:
                raise ValueError(f"got {name} of shape {rows.shape} and type {rows.dtype}")
            self._files[name].write(np.ascontiguousarray(rows).data)
        if self._thumbnails is not None:
            for thumbnail in thumbnails:
                self._thumbnails.write(thumbnail or b"")
                self._offsets.append(self._offsets[-1] + len(thumbnail or b""))
        self.rows += count

    def seal(self) -> dict[str, str]:
        """Finish the files and make them and their folder durable.

        Returns the SHA-256 of each file, in hexadecimal, by its name.
        """
        for name, file in self._files.items():
            file.seek(0)
            _write_header(file, self.rows, WIDTHS[name])
            _sync_and_close(file)
        if self._thumbnails is not None:
            _sync_and_close(self._thumbnails)
            with (self.folder / OFFSETS).open("w+b") as file:
                npy.write_array(file, np.array(self._offsets, np.uint64), allow_pickle=False)
                _sync_and_close(file)
        sync_folder(self.folder)
        return {path.name: sha256_of_file(path) for path in sorted(self.folder.iterdir())}

    def discard(self) -> None:
        """Delete the rows written so far, and the folder."""
        for file in (*self._files.values(), self._thumbnails):
            if file is not None:
                # On a full disk, closing fails because it flushes; the file is deleted anyway.
                with suppress(OSError):
                    file.close()
        shutil.rmtree(self.folder, ignore_errors=True)


class Shard:
    """A finished shard, read through the page cache.

    checksums: SHA-256 by file name, from the catalog; other files in the folder are ignored.
    Codes and addresses are in `codes.npy` and `addresses.npy` or, after a reencoding, in
    `codes-<model>-<checksum>.npy` and `addresses-<model>-<checksum>.npy`.
    """

    def __init__(self, folder: Path, rows: int, checksums: Mapping[str, str]):
        self.folder = folder
        self.rows = rows
        self.checksums = checksums
        self._mapped: dict[str, Any] = {}

    def file(self, column: str) -> str | None:
        """The name of a column's file, or None if the column is not kept."""
        found = (name for name in self.checksums if re.split(r"[-.]", name)[0] == column)
        return next(found, None)

    @property
    def columns(self) -> frozenset[str]:
        """Names of the columns that are kept."""
        return frozenset(name for name in WIDTHS if self.file(name) is not None)

    def column(self, name: str) -> NDArray[np.uint8]:
        """(rows, width) uint8, memory-mapped. Raises InvalidGallery if the file is damaged."""
        file_name = self.file(name) or f"{name}.npy"
        column: NDArray[np.uint8] = self._map(file_name)
        if column.shape != (self.rows, WIDTHS[name]) or column.dtype != np.uint8:
            raise InvalidGallery(
                f"{self.folder / file_name} has shape {column.shape} and type {column.dtype}; "
                f"({self.rows}, {WIDTHS[name]}) uint8 was wanted"
            )
        return column

    def thumbnail(self, row: int) -> bytes | None:
        """The thumbnail's bytes, or None where the row has none."""
        if THUMBNAILS not in self.checksums:
            return None
        offsets = self._map(OFFSETS)
        if offsets.shape != (self.rows + 1,) or offsets.dtype != np.uint64:
            raise InvalidGallery(f"{self.folder / OFFSETS} does not fit {self.rows} rows")
        start, end = int(offsets[row]), int(offsets[row + 1])
        if not 0 <= end - start <= _MAX_THUMBNAIL_BYTES:
            raise InvalidGallery(f"{self.folder / OFFSETS} is damaged at row {row}")
        try:
            with (self.folder / THUMBNAILS).open("rb") as file:
                file.seek(start)
                return file.read(end - start) or None
        except OSError as error:
            raise InvalidGallery(f"{self.folder / THUMBNAILS} cannot be read: {error}") from error

    def require_whole(self, *columns: str) -> None:
        """Raise InvalidGallery, naming the first damaged file of these columns, or of all."""
        wanted = {self.file(column) for column in columns} if columns else set(self.checksums)
        for name in sorted(filter(None, wanted)):
            if not self.is_whole(name):
                raise InvalidGallery(
                    f"{self.folder / name} is damaged; "
                    "hashsearch gallery verify says how to repair it"
                )

    def is_whole(self, file_name: str) -> bool:
        """Whether a file has the bytes that were committed."""
        try:
            return sha256_of_file(self.folder / file_name) == self.checksums[file_name]
        except OSError:
            return False

    def _map(self, file_name: str) -> Any:
        try:
            if file_name not in self._mapped:
                self._mapped[file_name] = npy.open_memmap(self.folder / file_name, mode="r")
            return self._mapped[file_name]
        except (OSError, ValueError) as error:
            raise InvalidGallery(
                f"{self.folder / file_name} is missing or damaged: {error}"
            ) from error


def reencoded_file(column: str, fingerprint: str, digest: str) -> str:
    """File name of a reencoded column, with the model's fingerprint and the file's SHA-256."""
    return f"{column}-{fingerprint[:12]}-{digest[:16]}.npy"


def write_column(
    folder: Path, column: str, fingerprint: str, values: NDArray[np.uint8]
) -> tuple[str, str]:
    """Write a reencoded column beside a shard's other files, atomically and durably.

    Returns the file's name and its SHA-256.
    """
    buffer = BytesIO()
    npy.write_array(buffer, values, allow_pickle=False)
    data = buffer.getvalue()
    digest = hashlib.sha256(data).hexdigest()
    unfinished, name = folder / f".{column}", reencoded_file(column, fingerprint, digest)
    with unfinished.open("wb") as file:
        file.write(data)
        _sync_and_close(file)
    unfinished.replace(folder / name)
    sync_folder(folder)
    return name, digest


def sha256_of_file(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _write_header(file: BinaryIO, rows: int, width: int) -> None:
    """Write the .npy header; NumPy pads it so that `rows` can grow in place."""
    npy.write_array_header_1_0(
        file, {"descr": "|u1", "fortran_order": False, "shape": (rows, width)}
    )


def _sync_and_close(file: BinaryIO) -> None:
    file.flush()
    os.fsync(file.fileno())
    file.close()
