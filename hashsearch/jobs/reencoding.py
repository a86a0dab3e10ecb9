"""Computing codes again from the stored pixels, by the gallery's model or another."""

import shutil
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from hashsearch.durable import sync_folder, sync_tree
from hashsearch.encoder import Encoder
from hashsearch.errors import ArtifactMismatch, InvalidGallery
from hashsearch.gallery.built import drop_unnamed
from hashsearch.gallery.changes import change_files, change_model, next_generation
from hashsearch.gallery.gallery_folder import GalleryFolder, require_model
from hashsearch.gallery.history import JobRecord
from hashsearch.gallery.shards import Shard, reencoded_file, sha256_of_file, write_column
from hashsearch.hardware import usable_cores
from hashsearch.images import TINY_SIDE
from hashsearch.jobs.index.encoding import EncodingPool
from hashsearch.models.card import copy_model, model_name
from hashsearch.progress import progress_report

# Bits of a code that another processor or version of torch may round differently.
ROUNDING_BITS = 8
_BATCH_ROWS = 256
_FEW_ROWS = (
    256  # encoded in the last transaction, which blocks other writers for a third of a second
)
_SAMPLE = 64  # codes of a shard that are compared with the model's


def reencode(gallery: GalleryFolder, model: Path | None = None) -> int:
    """Compute codes and addresses again from the stored pixels.

    model: another model, to which the gallery moves. None means the gallery's own: then only
    shards are encoded whose codes or addresses are missing, damaged, or not as the model
    makes them.
    The new files lie beside the old ones, which answer queries until all are written; one
    transaction then switches the gallery to the new files and model. A killed job leaves the
    old codes, and the same call continues where it stopped.
    Returns the number of rows encoded. Raises InvalidGallery if the gallery keeps no pixels or
    they are damaged, GalleryBusy if another job is running, ArtifactMismatch if the pixels were
    decoded by other image rules than the model's, and what `read_model` raises.
    """
    if not gallery.keeps("pixels"):
        raise InvalidGallery(
            f"{gallery.folder} keeps no pixels to encode; index its sources into a new gallery"
        )
    model = model or gallery.model_folder
    card = require_model(model)
    of_pixels = gallery.card().preprocessing
    if card.preprocessing != of_pixels:
        raise ArtifactMismatch(
            f"{gallery.folder} keeps pixels of version {of_pixels} of the image rules, and "
            f"{model_name(model)} is for version {card.preprocessing}; index its pictures again "
            "into a new gallery"
        )
    counts = {"indexed": 0}
    with (
        gallery.job_lock(),
        JobRecord(gallery.catalog, "reencode", counts=lambda: counts) as record,
    ):
        folder = _install(gallery, model, card.fingerprint)
        encoder = Encoder.load(folder, precision=gallery.precision)
        if encoder.fingerprint != card.fingerprint:
            raise ArtifactMismatch(
                f"{folder} holds model {encoder.fingerprint}; {card.fingerprint} was wanted"
            )
        record.expected = sum(gallery.catalog.shard_rows().values())
        with (
            EncodingPool(lambda: encoder, usable_cores()) as pool,
            progress_report("encoding", record.expected) as report,
        ):
            new_files: dict[int, dict[str, str]] = {}  # of each shard, with their SHA-256
            encoded = 0
            pending = gallery.every_shard()
            while True:  # images may be added meanwhile
                for number, shard in pending.items():
                    new_files[number], rows = _new_files(gallery, shard, encoder, pool)
                    encoded += rows
                    counts["indexed"] += shard.rows
                    report.advance(shard.rows)
                pending, rows = _switch(gallery, new_files, encoder, pool)
                encoded += rows
                if not pending:
                    break
        _clean(gallery)
    return encoded


def _switch(
    gallery: GalleryFolder,
    new_files: dict[int, dict[str, str]],
    encoder: Encoder,
    pool: EncodingPool,
) -> tuple[dict[int, Shard], int]:
    """Switch the gallery to the new codes and model.

    new_files: of each shard, with their SHA-256. A few rows that were added meanwhile are
    encoded here. If there are more, nothing changes, and the caller encodes them first.
    Returns the shards that are still to be encoded, by number, and the number of rows encoded.
    """
    assert encoder.fingerprint is not None
    encoded = 0
    with gallery.catalog.transaction() as db:
        shards = gallery.every_shard()
        pending = {number: shard for number, shard in shards.items() if number not in new_files}
        if sum(shard.rows for shard in pending.values()) > _FEW_ROWS:
            return pending, 0
        for number, shard in pending.items():
            new_files[number], rows = _new_files(gallery, shard, encoder, pool)
            encoded += rows
        changed = {n: files for n, files in new_files.items() if files != shards[n].checksums}
        for number, files in changed.items():
            change_files(db, number, files)
        if changed or gallery.fingerprint != encoder.fingerprint:
            change_model(db, encoder.fingerprint)
            next_generation(db)
    return {}, encoded


def _install(gallery: GalleryFolder, model: Path | None, fingerprint: str) -> Path:
    """Copy the model into the gallery, atomically; returns its folder there."""
    if model is None or fingerprint == gallery.fingerprint:
        return gallery.model_folder
    folder = gallery.later_model_folder(fingerprint)
    if not folder.is_dir():
        gallery.unfinished.mkdir(parents=True, exist_ok=True)
        copy_model(model, gallery.unfinished / "model")
        sync_tree(gallery.unfinished / "model")
        (gallery.unfinished / "model").replace(folder)
        sync_folder(gallery.folder)
    return folder


def _new_files(
    gallery: GalleryFolder, shard: Shard, encoder: Encoder, pool: EncodingPool
) -> tuple[dict[str, str], int]:
    """Write a shard's new files; returns the SHA-256 of all its files, and the rows encoded."""
    assert encoder.fingerprint is not None
    wanted = ["codes", *(["addresses"] if encoder.model.address_bits else [])]
    if gallery.fingerprint == encoder.fingerprint and _is_current(shard, encoder, wanted):
        return dict(shard.checksums), 0
    old = {shard.file("codes"), shard.file("addresses")}
    others = {name: digest for name, digest in shard.checksums.items() if name not in old}
    found = [_finished_file(shard, column, encoder.fingerprint) for column in wanted]
    if all(found):
        return others | dict(filter(None, found)), 0
    columns = _encode(shard, pool)
    written = [write_column(shard.folder, c, encoder.fingerprint, columns[c]) for c in wanted]
    return others | dict(written), shard.rows


def _finished_file(shard: Shard, column: str, fingerprint: str) -> tuple[str, str] | None:
    """A column's undamaged file that a killed run of this job wrote, and its SHA-256."""
    for path in shard.folder.glob(reencoded_file(column, fingerprint, "*")):
        digest = sha256_of_file(path)
        whole = path.name == reencoded_file(column, fingerprint, digest)
        if whole and path.name not in shard.checksums:
            return path.name, digest
    return None


def _is_current(shard: Shard, encoder: Encoder, wanted: Sequence[str]) -> bool:
    """Whether codes and addresses are whole, and a sample of them is what the model makes."""
    if shard.columns - {"pixels"} != set(wanted):
        return False
    if not all(shard.is_whole(shard.file(column) or "") for column in wanted):
        return False
    rows = np.unique(np.linspace(0, shard.rows - 1, _SAMPLE).astype(np.int64))
    columns = encoder.columns(shard.column("pixels")[rows].reshape(-1, TINY_SIDE, TINY_SIDE, 3))
    different = [np.bitwise_count(columns[c] ^ shard.column(c)[rows]).sum(axis=1) for c in wanted]
    return int(np.max(different)) <= ROUNDING_BITS


def _encode(shard: Shard, pool: EncodingPool) -> dict[str, NDArray[np.uint8]]:
    shard.require_whole("pixels")
    pixels = shard.column("pixels").reshape(-1, TINY_SIDE, TINY_SIDE, 3)
    columns: dict[str, list[NDArray[np.uint8]]] = {}
    step = _BATCH_ROWS * 4 * usable_cores()  # few enough that Ctrl-C is noticed soon
    for first in range(0, shard.rows, step):
        starts = range(first, min(first + step, shard.rows), _BATCH_ROWS)
        parts = [pool.submit(pixels[start : start + _BATCH_ROWS]) for start in starts]
        for part in parts:
            for name, values in part.result().items():
                columns.setdefault(name, []).append(values)
    return {name: np.concatenate(values) for name, values in columns.items()}


def _clean(gallery: GalleryFolder) -> None:
    """Delete codes, addresses, models and indexes that are no longer used."""
    drop_unnamed(gallery.folder, gallery.catalog)
    for shard in gallery.every_shard().values():
        for path in (p for c in ("codes", "addresses") for p in shard.folder.glob(f"*{c}*")):
            if path.name not in shard.checksums:
                path.unlink()
    for folder in gallery.other_models():
        shutil.rmtree(folder, ignore_errors=True)
