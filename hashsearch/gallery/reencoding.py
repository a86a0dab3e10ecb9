"""Moving a gallery to another model, by its stored pixels."""

import os
import shutil
from pathlib import Path

import numpy as np

from hashsearch.codes import CODE_BYTES
from hashsearch.cores import usable_cores
from hashsearch.durable import sync_folder, sync_tree
from hashsearch.encoder import Encoder
from hashsearch.errors import InvalidGallery
from hashsearch.gallery.changes import change_codes, change_model, next_generation
from hashsearch.gallery.encoding import EncodingPool
from hashsearch.gallery.folder import Gallery, require_model
from hashsearch.gallery.jobs import recorded
from hashsearch.gallery.shards import Shard, sha256_of_file, write_codes
from hashsearch.images import TINY_SIDE
from hashsearch.models.card import copy_model
from hashsearch.progress import ProgressReport, progress_report

_BATCH_ROWS = 256


def reencode(gallery: Gallery, model: Path | None = None) -> int:
    """Make the codes anew from the stored pixels, by another model or the gallery's own.

    The new codes come to lie beside the old ones, which answer until all are
    made; one transaction then puts them in their place, and the model with them.
    A job that is killed leaves the old codes, and the same command goes on where
    it was. By the gallery's own model, codes that are damaged are made anew, and
    no others. Returns how many rows were encoded.
    Raises InvalidGallery if the gallery keeps no pixels, or they are damaged,
    GalleryBusy if another job is at work, and what `load_model` raises.
    """
    if not gallery.keeps("pixels"):
        raise InvalidGallery(
            f"{gallery.folder} keeps no pixels to make codes of; index its sources into a new one"
        )
    card = require_model(model or gallery.model_folder)
    with gallery.job_lock(), recorded(gallery.catalog, "reencode"):
        folder = _installed(gallery, model, card.fingerprint)
        encoder = Encoder.load(folder, precision=gallery.precision)
        sizes = gallery.catalog.shard_rows()
        encoded = 0
        with (
            EncodingPool(encoder, usable_cores()) as pool,
            progress_report("encoding", sum(sizes.values())) as report,
        ):
            changed_over = False
            while not changed_over:  # images may be added meanwhile
                for number in gallery.catalog.shard_rows():
                    shard = gallery.shard(number)
                    if _made(gallery, shard, card.fingerprint) is None:
                        _make(shard, card.fingerprint, pool, report)
                        encoded += shard.rows
                nothing = encoded == 0 and gallery.fingerprint == card.fingerprint
                changed_over = nothing or _change_over(gallery, card.fingerprint)
        _clean(gallery)
    return encoded


def _installed(gallery: Gallery, model: Path | None, fingerprint: str) -> Path:
    """The folder of the model within the gallery, a copy that is whole or not there at all."""
    if model is None or fingerprint == gallery.fingerprint:
        return gallery.model_folder
    folder = gallery.later_model_folder(fingerprint)
    if not folder.is_dir():
        gallery.unfinished.mkdir(exist_ok=True)
        copy_model(model, gallery.unfinished / "model")
        sync_tree(gallery.unfinished / "model")
        (gallery.unfinished / "model").replace(folder)
        sync_folder(gallery.folder)
    return folder


def _made(gallery: Gallery, shard: Shard, fingerprint: str) -> Path | None:
    """The file of a shard's codes by a model: that which counts, or one made for the change."""
    counts = shard.file("codes")
    if counts is not None and gallery.fingerprint == fingerprint and shard.is_whole(counts):
        return shard.folder / counts
    made = shard.folder.glob(f"codes-{fingerprint[:12]}-*.npy")
    return next((path for path in sorted(made) if path.name != counts), None)


def _make(shard: Shard, fingerprint: str, pool: EncodingPool, report: ProgressReport) -> None:
    shard.require_whole("pixels")
    pixels = shard.column("pixels").reshape(-1, TINY_SIDE, TINY_SIDE, 3)
    codes = np.empty((shard.rows, CODE_BYTES), np.uint8)
    step = _BATCH_ROWS * 4 * usable_cores()  # few enough that Ctrl-C is heard soon
    for first in range(0, shard.rows, step):
        starts = range(first, min(first + step, shard.rows), _BATCH_ROWS)
        made = [pool.submit(pixels[start : start + _BATCH_ROWS]) for start in starts]
        for start, part in zip(starts, made, strict=True):
            codes[start : start + _BATCH_ROWS] = part.result()
            report.advance(len(part.result()))
    name = f"codes-{fingerprint[:12]}-{os.urandom(4).hex()}.npy"
    write_codes(shard.folder / name, codes)


def _change_over(gallery: Gallery, fingerprint: str) -> bool:
    """Let the new codes count, unless some shard has none yet."""
    checksums = {}
    for number in gallery.catalog.shard_rows():
        shard = gallery.shard(number)
        path = _made(gallery, shard, fingerprint)
        if path is None:
            return False
        others = {n: digest for n, digest in shard.checksums.items() if n != shard.file("codes")}
        checksums[number] = others | {path.name: sha256_of_file(path)}
    with gallery.catalog.transaction() as db:
        if gallery.catalog.shard_rows().keys() != checksums.keys():
            return False
        for number, files in checksums.items():
            change_codes(db, number, files)
        change_model(db, fingerprint)
        next_generation(db)
    return True


def _clean(gallery: Gallery) -> None:
    """Delete the codes and the models that count no more."""
    for number in gallery.catalog.shard_rows():
        shard = gallery.shard(number)
        for path in shard.folder.glob("codes*.npy"):
            if path.name not in shard.checksums:
                path.unlink()
    for folder in gallery.other_models():
        shutil.rmtree(folder, ignore_errors=True)
