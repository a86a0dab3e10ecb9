"""Moving a gallery to another model, by its stored pixels."""

import hashlib
import shutil
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from hashsearch.codes import CODE_BYTES
from hashsearch.durable import sync_folder, sync_tree
from hashsearch.encoder import Encoder
from hashsearch.errors import ArtifactMismatch, InvalidGallery
from hashsearch.gallery.changes import change_files, change_model, next_generation
from hashsearch.gallery.gallery_folder import GalleryFolder, require_model
from hashsearch.gallery.history import JobRecord
from hashsearch.gallery.shards import Shard, codes_file, sha256_of_file, write_codes
from hashsearch.hardware import usable_cores
from hashsearch.images import TINY_SIDE
from hashsearch.jobs.index.encoding import EncodingPool
from hashsearch.models.card import copy_model
from hashsearch.progress import progress_report

# Bits of a code that another processor, or version of torch, may round otherwise.
ROUNDING_BITS = 8
_BATCH_ROWS = 256
_FEW_ROWS = 256  # encoded while nobody else may write: a third of a second
_SAMPLE = 64  # codes of a shard that tell whether a model made them


def reencode(gallery: GalleryFolder, model: Path | None = None) -> int:
    """Make the codes anew from the stored pixels, by another model or the gallery's own.

    The new codes come to lie beside the old ones, which answer until all are
    made; one transaction then puts them in their place, and the model with them.
    A job that is killed leaves the old codes, and the same command goes on where
    it was. By the gallery's own model, the codes of those shards are made anew
    whose file is damaged, or holds what the model does not make.
    Returns how many rows were encoded.
    Raises InvalidGallery if the gallery keeps no pixels, or they are damaged,
    GalleryBusy if another job is at work, and what `load_model` raises.
    """
    if not gallery.keeps("pixels"):
        raise InvalidGallery(
            f"{gallery.folder} keeps no pixels to make codes of; index its sources into a new one"
        )
    card = require_model(model or gallery.model_folder)
    counts = {"indexed": 0}
    with (
        gallery.job_lock(),
        JobRecord(gallery.catalog, "reencode", counts=lambda: counts) as record,
    ):
        folder = _installed(gallery, model, card.fingerprint)
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
            made: dict[int, dict[str, str]] = {}  # the files that are to count, of each shard
            encoded = 0
            late = gallery.every_shard()
            while True:  # images may be added meanwhile
                for number, shard in late.items():
                    made[number], fresh = _made(gallery, shard, encoder, pool)
                    encoded += fresh
                    counts["indexed"] += shard.rows
                    report.advance(shard.rows)
                late, fresh = _change_over(gallery, made, encoder, pool)
                encoded += fresh
                if not late:
                    break
        _clean(gallery)
    return encoded


def _change_over(
    gallery: GalleryFolder, made: dict[int, dict[str, str]], encoder: Encoder, pool: EncodingPool
) -> tuple[dict[int, Shard], int]:
    """Let the codes that were made count, and the model with them.

    made: the files that are to count, of each shard. Returns the shards that
    came too late, by number, because of which nothing changed, and how many rows
    were encoded for the few that did not matter.
    """
    assert encoder.fingerprint is not None
    encoded = 0
    with gallery.catalog.transaction() as db:
        shards = gallery.every_shard()
        late = {number: shard for number, shard in shards.items() if number not in made}
        if sum(shard.rows for shard in late.values()) > _FEW_ROWS:
            return late, 0
        for number, shard in late.items():
            made[number], fresh = _made(gallery, shard, encoder, pool)
            encoded += fresh
        changed = {n: files for n, files in made.items() if files != shards[n].checksums}
        for number, files in changed.items():
            change_files(db, number, files)
        if changed or gallery.fingerprint != encoder.fingerprint:
            change_model(db, encoder.fingerprint)
            next_generation(db)
    return {}, encoded


def _installed(gallery: GalleryFolder, model: Path | None, fingerprint: str) -> Path:
    """The folder of the model within the gallery, a copy that is whole or not there at all."""
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


def _made(
    gallery: GalleryFolder, shard: Shard, encoder: Encoder, pool: EncodingPool
) -> tuple[dict[str, str], int]:
    """The checksums of the files that are to count, and how many rows were encoded for it."""
    assert encoder.fingerprint is not None
    counts = shard.file("codes")
    others = {name: digest for name, digest in shard.checksums.items() if name != counts}
    if gallery.fingerprint == encoder.fingerprint and _is_right(shard, encoder):
        return dict(shard.checksums), 0
    for path in shard.folder.glob(codes_file(encoder.fingerprint, "*")):
        digest = sha256_of_file(path)
        if path.name == codes_file(encoder.fingerprint, digest) and path.name != counts:
            return others | {path.name: digest}, 0  # of an earlier life of this job
    codes = _encoded(shard, pool)
    digest = hashlib.sha256(write_codes(shard.folder, encoder.fingerprint, codes)).hexdigest()
    return others | {codes_file(encoder.fingerprint, digest): digest}, shard.rows


def _is_right(shard: Shard, encoder: Encoder) -> bool:
    """Whether a shard's codes are whole, and such as the model makes, by a sample."""
    counts = shard.file("codes")
    if counts is None or not shard.is_whole(counts):
        return False
    rows = np.unique(np.linspace(0, shard.rows - 1, _SAMPLE).astype(np.int64))
    tiny = shard.column("pixels")[rows].reshape(-1, TINY_SIDE, TINY_SIDE, 3)
    different = np.bitwise_count(encoder.encode(tiny) ^ shard.column("codes")[rows])
    return int(different.sum(axis=1).max()) <= ROUNDING_BITS


def _encoded(shard: Shard, pool: EncodingPool) -> NDArray[np.uint8]:
    shard.require_whole("pixels")
    pixels = shard.column("pixels").reshape(-1, TINY_SIDE, TINY_SIDE, 3)
    codes = np.empty((shard.rows, CODE_BYTES), np.uint8)
    step = _BATCH_ROWS * 4 * usable_cores()  # few enough that Ctrl-C is heard soon
    for first in range(0, shard.rows, step):
        starts = range(first, min(first + step, shard.rows), _BATCH_ROWS)
        parts = [pool.submit(pixels[start : start + _BATCH_ROWS]) for start in starts]
        for start, part in zip(starts, parts, strict=True):
            codes[start : start + _BATCH_ROWS] = part.result()
    return codes


def _clean(gallery: GalleryFolder) -> None:
    """Delete the codes and the models that count no more."""
    for shard in gallery.every_shard().values():
        for path in (*shard.folder.glob("codes*.npy"), *shard.folder.glob(".codes*")):
            if path.name not in shard.checksums:
                path.unlink()
    for folder in gallery.other_models():
        shutil.rmtree(folder, ignore_errors=True)
