"""Exports to a Parquet file: written whole, or not at all."""

import fcntl
import os
import stat
import time
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO

import pyarrow
import pyarrow.parquet

from hashsearch import __version__
from hashsearch.codes import CODE_BITS, CODE_BYTES
from hashsearch.durable import require_writable, sync_folder
from hashsearch.errors import ArtifactMismatch, ExportError, InvalidGallery, NotWritable
from hashsearch.exports.rows import CHUNK_ROWS, Chunk, rows_after
from hashsearch.exports.targets import ExportOptions, ExportSummary
from hashsearch.gallery.catalog import IDENTITY
from hashsearch.gallery.gallery_folder import GalleryFolder
from hashsearch.progress import progress_report

_PREFIX = "hashsearch."  # of the file's metadata that an export writes
_FORMAT = "1"
_KEY_BYTES = 32
_SCHEMA = pyarrow.schema(
    [
        pyarrow.field("id", pyarrow.int64(), nullable=False),
        pyarrow.field("uri", pyarrow.string(), nullable=False),
        pyarrow.field("label", pyarrow.string()),
        pyarrow.field("code", pyarrow.binary(CODE_BYTES), nullable=False),
        pyarrow.field("key", pyarrow.binary(_KEY_BYTES), nullable=False),
    ]
)


def export_to_parquet(gallery: GalleryFolder, to: str, options: ExportOptions) -> ExportSummary:
    """Write all images, as they are at one generation, to a file; an earlier export is replaced.

    Raises ArtifactMismatch if the file is an export of another gallery or model, and ExportError
    if it is none, unless `options.replace`; NotWritable; and ExportError if another process exports
    to it.
    """
    started = time.monotonic()
    try:
        path = Path(to).resolve()
    except (OSError, RuntimeError, ValueError) as error:  # a link to itself, a NUL
        raise NotWritable(f"{to!r} is not the path of a file: {error}") from error
    try:
        done = _export(gallery, path, options)
    except BlockingIOError as error:
        raise ExportError(f"another process is exporting to {path}") from error
    except FileNotFoundError as error:
        raise NotWritable(
            f"{path} cannot be written: no file can be made in {path.parent}"
        ) from error
    except OSError as error:
        raise NotWritable(f"{path} cannot be written: {error.strerror or error}") from error
    chunk, rows = done or (None, 0)
    return ExportSummary(
        to=to,
        table=None,
        images=rows,
        written=rows,
        removed=0,
        generation=chunk.generation if chunk else gallery.catalog.generation(),
        fingerprint=chunk.fingerprint if chunk else gallery.fingerprint,
        seconds=time.monotonic() - started,
        stopped=chunk is None,
    )


def _export(gallery: GalleryFolder, path: Path, options: ExportOptions) -> tuple[Chunk, int] | None:
    """Write the file beside its place, and rename it; returns what `_write` does.

    Raises BlockingIOError if another process exports to it, OSError, and as `export_to_parquet`.
    """
    require_writable(path.parent)
    if not path.parent.is_dir():
        raise NotWritable(f"{path.parent} does not exist; the folder of {path.name} is wanted")
    _require_replaceable(path, gallery, gallery.fingerprint, options)
    unfinished = path.with_name(f".{path.name}.unfinished")
    done = None
    with _claimed(unfinished) as file:
        try:
            _copy_mode(path, file)
            while done is None and not options.stop():
                done = _write(gallery, file, options)
            if done is not None:
                file.flush()
                os.fsync(file.fileno())
                # There may be another file, or codes of another model, since it began.
                _require_replaceable(path, gallery, done[0].fingerprint, options)
                unfinished.replace(path)
                sync_folder(path.parent)
        finally:
            if _is_at(file, unfinished):
                unfinished.unlink()
    return done


def _copy_mode(path: Path, file: BinaryIO) -> None:
    """Let an open file have the mode of the one that it will replace."""
    with suppress(FileNotFoundError):
        mode = stat.S_IMODE(path.stat().st_mode)
        if mode != stat.S_IMODE(os.fstat(file.fileno()).st_mode):
            os.fchmod(file.fileno(), mode)


def _write(
    gallery: GalleryFolder, file: BinaryIO, options: ExportOptions
) -> tuple[Chunk, int] | None:
    """Write one state of the gallery.

    Returns its first chunk and the number of rows. None if it was stopped, or if a job replaced
    shards meanwhile, so that the state is gone.
    """
    catalog = gallery.catalog
    generation = catalog.generation()
    file.seek(0)
    file.truncate()
    try:
        with catalog.snapshot():
            first = rows_after(gallery, 0, CHUNK_ROWS)
            rows = _write_rows(gallery, file, first, options)
    except InvalidGallery:
        if catalog.generation() == generation:
            raise
        return None
    return None if rows is None else (first, rows)


def _write_rows(
    gallery: GalleryFolder, file: BinaryIO, first: Chunk, options: ExportOptions
) -> int | None:
    """Write a chunk and those that follow; returns the number of rows, or None as `_write`."""
    chunk, rows = first, 0
    schema = _SCHEMA.with_metadata(_metadata(gallery, first))
    with (
        progress_report("exporting", gallery.catalog.count()) as report,
        pyarrow.parquet.ParquetWriter(
            file, schema, compression="zstd", use_dictionary=["label"]
        ) as writer,
    ):
        while chunk.rows:
            columns = zip(*chunk.rows, strict=True)
            arrays = [
                pyarrow.array(values, field.type)
                for values, field in zip(columns, schema, strict=True)
            ]
            writer.write_batch(pyarrow.record_batch(arrays, schema))
            rows += len(chunk.rows)
            report.advance(len(chunk.rows))
            if options.stop():
                return None
            chunk = rows_after(gallery, chunk.rows[-1].id, CHUNK_ROWS)
            if chunk.generation != first.generation:  # of a catalog that has no log
                return None
    return rows


def _metadata(gallery: GalleryFolder, chunk: Chunk) -> dict[str, str]:
    """What the file says of itself; a gallery of an earlier version may have no identity."""
    entries = {
        "format": _FORMAT,
        "version": __version__,
        "gallery": gallery.catalog.settings(IDENTITY).get(IDENTITY, ""),
        "fingerprint": chunk.fingerprint,
        "precision": gallery.precision,
        "generation": str(chunk.generation),
        "code_bits": str(CODE_BITS),
    }
    return {_PREFIX + name: value for name, value in entries.items()}


def _require_replaceable(
    path: Path, gallery: GalleryFolder, codes_of: str, options: ExportOptions
) -> None:
    """Raise ExportError or ArtifactMismatch unless a file may be replaced, if there is one.

    codes_of: the fingerprint of the model whose codes are to be there.
    """
    try:
        is_file = stat.S_ISREG(path.stat().st_mode)
    except FileNotFoundError:
        return
    if not is_file:
        raise ExportError(f"{path} is not a file; the path of a Parquet file is wanted")
    if options.replace:
        return
    try:
        found = pyarrow.parquet.read_metadata(path).metadata or {}
    except (pyarrow.ArrowException, OSError, ValueError):
        found = {}
    texts = {name: value.decode(errors="replace") for name, value in found.items()}
    fingerprint = texts.get(f"{_PREFIX}fingerprint".encode())
    if fingerprint is None:
        raise ExportError(
            f"{path} is there and was not made by an export; name another file, or replace it "
            "with --replace"
        )
    if fingerprint != codes_of:
        raise ArtifactMismatch(
            f"{path} has codes of model {fingerprint[:12]}, and the gallery's are of model "
            f"{codes_of[:12]}; name another file, or replace it with --replace"
        )
    its = texts.get(f"{_PREFIX}gallery".encode())
    if its and its != gallery.catalog.settings(IDENTITY).get(IDENTITY):
        raise ArtifactMismatch(
            f"{path} was exported from another gallery than {gallery.folder}; name another file, "
            "or replace it with --replace"
        )


def _claimed(path: Path) -> BinaryIO:
    """Open a file that one process at a time may have open; what is in it may be of a killed one.

    Raises BlockingIOError if another process has it, and NotWritable if it has another name too,
    by which something else would be emptied.
    """
    while True:
        file = os.fdopen(os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o666), "w+b")
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            file.close()
            raise
        if _is_at(file, path):
            status = os.fstat(file.fileno())
            if stat.S_ISREG(status.st_mode) and status.st_nlink == 1:
                return file
            file.close()
            raise NotWritable(f"{path} is in the way: it is not a file of its own; delete it")
        file.close()  # its former owner renamed or deleted it just now


def _is_at(file: BinaryIO, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(file.fileno()), path.stat())
    except FileNotFoundError:
        return False
