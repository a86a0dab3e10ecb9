"""Gallery folders: a model, a catalog, and the shards that the catalog names."""

import os
import shutil
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from filelock import FileLock, Timeout
from numpy.typing import NDArray

from hashsearch.codes import CODE_BITS
from hashsearch.durable import sync_folder, sync_tree
from hashsearch.encoder import Encoder
from hashsearch.errors import ArtifactMismatch, GalleryBusy, InvalidGallery
from hashsearch.gallery.catalog import (
    Catalog,
    Failure,
    NewImage,
    Rows,
    forget_failures,
    insert_images,
    insert_shard,
    next_generation,
    record_failures,
    retire,
    touch,
)
from hashsearch.gallery.shards import WIDTHS, Shard, ShardWriter
from hashsearch.models.folder import copy_model, load_model, read_card

_CATALOG, _MODEL, _SHARDS, _UNFINISHED, _LOCK = (
    "catalog.sqlite",
    "model",
    "shards",
    "unfinished",
    "job.lock",
)
_MARKER = "incomplete"  # in a folder that is being made a gallery, and is none yet
PRECISION = "float32"


class Gallery:
    """An open gallery folder."""

    def __init__(self, folder: Path):
        """Raises InvalidGallery if it is none, ArtifactMismatch if its parts do not fit."""
        self.folder = folder
        self.catalog = Catalog(folder / _CATALOG)
        self.fingerprint = self.catalog.setting("fingerprint")
        self.card = read_card(self.model_folder)
        if self.card.fingerprint != self.fingerprint:
            raise ArtifactMismatch(
                f"{folder}: the codes were made by model {self.fingerprint[:12]}, "
                f"but model/ holds {self.card.fingerprint[:12]}"
            )
        if self.catalog.setting("precision") != PRECISION:
            raise InvalidGallery(
                f"{folder}: the codes were made in {self.catalog.setting('precision')}; "
                f"this version of hashsearch encodes in {PRECISION}"
            )

    @classmethod
    def create(cls, folder: Path, model: Path) -> "Gallery":
        """Make an empty gallery with a copy of a model; its catalog comes last, and makes it one.

        folder: a new one, an empty one (a volume's mount point, say), or one that
        an earlier attempt left without a catalog, which its marker tells. Raises
        InvalidGallery if it holds anything else, GalleryBusy if another is making
        it, and what `load_model` raises if the model is not whole.
        """
        _, card = load_model(model)
        if card.bits != CODE_BITS:
            raise ArtifactMismatch(
                f"{model} makes codes of {card.bits} bits; a gallery keeps {CODE_BITS}"
            )
        if model.resolve().is_relative_to(folder.resolve()):
            raise InvalidGallery(f"{model} lies in {folder}, which is to be a new gallery")
        _require_room(folder)
        folder.mkdir(parents=True, exist_ok=True)
        try:
            with FileLock(folder / _LOCK, timeout=0):
                _require_room(folder)  # as it is now that nobody else can change it
                _build(folder, model, card.fingerprint)
        except Timeout as error:
            raise GalleryBusy(f"another job is making {folder}") from error
        return cls(folder)

    @staticmethod
    def exists(folder: Path) -> bool:
        return (folder / _CATALOG).is_file()

    @property
    def model_folder(self) -> Path:
        return self.folder / _MODEL

    def encoder(self) -> Encoder:
        return Encoder.load(self.model_folder)

    def close(self) -> None:
        self.catalog.close()

    # Reading

    def column(self, name: str, rows: Rows) -> NDArray[np.uint8] | None:
        """One column of these images in memory: (n, width) uint8, or None if not kept."""
        values = np.empty((len(rows.ids), WIDTHS[name]), np.uint8)
        for shard, positions in self.shards(rows):
            if not shard.has(name):
                return None
            values[positions] = shard.column(name)[rows.rows[positions]]
        return values

    def shards(self, rows: Rows) -> Iterator[tuple[Shard, NDArray[np.int64]]]:
        """Each shard with the positions in `rows` of its images, ordered by their row.

        Raises InvalidGallery if the catalog names what a shard does not hold.
        """
        sizes = self.catalog.shard_rows()
        if len(rows.ids) == 0:
            return
        order = np.lexsort((rows.rows, rows.shards))
        numbers, starts = np.unique(rows.shards[order], return_index=True)
        for number, positions in zip(numbers.tolist(), np.split(order, starts[1:]), strict=True):
            in_shard = rows.rows[positions]
            if number not in sizes or in_shard[0] < 0 or in_shard[-1] >= sizes[number]:
                raise InvalidGallery(f"{self.folder}: the catalog names rows that no shard has")
            yield self._shard(number, sizes[number]), positions

    def pixels(self, image_id: int) -> NDArray[np.uint8] | None:
        """An image's (32, 32, 3) uint8 tiny image, or None if the gallery keeps none."""
        shard, row = self._place(image_id)
        if not shard.has("pixels"):
            return None
        return np.array(shard.column("pixels")[row]).reshape(32, 32, 3)

    def code(self, image_id: int) -> NDArray[np.uint8]:
        """An image's stored code, (32,) uint8. Raises NotInGallery."""
        shard, row = self._place(image_id)
        return np.array(shard.column("codes")[row])

    def thumbnail(self, image_id: int) -> bytes | None:
        """An image's thumbnail as JPEG, or None if it has none. Raises NotInGallery."""
        shard, row = self._place(image_id)
        return shard.thumbnail(row)

    # Writing

    @contextmanager
    def job_lock(self) -> Iterator[None]:
        """Keep other jobs out, and clear what a killed one left unfinished.

        Raises GalleryBusy, naming the holder, if another job is at work.
        """
        try:
            with FileLock(self.folder / _LOCK, timeout=0):
                shutil.rmtree(self._unfinished, ignore_errors=True)
                self._drop_orphans()
                yield
        except Timeout as error:
            job = self.catalog.last_job()
            holder = "process {pid} on {host} since {started}".format(**job) if job else "unknown"
            raise GalleryBusy(f"another job is writing to {self.folder}: {holder}") from error

    def new_shard(self) -> ShardWriter:
        """A writer for the columns this gallery keeps. Call it with the job lock held."""
        folder = self._unfinished / os.urandom(8).hex()
        return ShardWriter(folder, frozenset({"codes", "pixels"}), thumbnails=True)

    @property
    def _unfinished(self) -> Path:
        """Where a job writes; other writers have other folders beside it."""
        return self.folder / _UNFINISHED / "job"

    def _drop_orphans(self) -> None:
        """Remove shards that no transaction made exist: a crash or a full disk left them."""
        with self.catalog.transaction():  # so that no writer is between renaming and commit
            known = {str(number) for number in self.catalog.shard_rows()}
            for path in (self.folder / _SHARDS).iterdir():
                if path.name.isdecimal() and path.name not in known:
                    shutil.rmtree(path)

    def commit(
        self,
        writer: ShardWriter | None,
        images: Sequence[NewImage],
        *,
        replaced: Iterable[str] = (),
        touched: Iterable[tuple[str, int, int]] = (),
        mended: Iterable[str] = (),
        failures: Iterable[Failure] = (),
    ) -> None:
        """Make a finished shard and its images part of the gallery, in one transaction.

        images: one a row of the shard. replaced: uris whose content is no
        longer there; mended: those that can be read by now; touched, failures:
        as in `catalog`. The shard is durable on disk before the transaction that
        makes it exist begins to commit.
        """
        assert len(images) == (writer.rows if writer else 0), "an image for every row"
        checksums = writer.seal() if writer else {}
        with self.catalog.transaction() as db:
            retire(db, replaced)
            if writer:
                number = insert_shard(db, writer.rows, checksums)
                self._adopt(writer.folder, number)
                insert_images(db, number, images)
            touch(db, touched)
            forget_failures(db, mended)
            record_failures(db, failures)
            next_generation(db)

    def _adopt(self, finished: Path, number: int) -> None:
        """Give a finished shard its name; an orphan of that name was never committed."""
        target = self.folder / _SHARDS / str(number)
        if target.exists():
            shutil.rmtree(target)
        finished.replace(target)
        sync_folder(self.folder / _SHARDS)

    def _place(self, image_id: int) -> tuple[Shard, int]:
        record = self.catalog.record(image_id)
        return self._shard(record.shard, self.catalog.shard_rows()[record.shard]), record.row

    def _shard(self, number: int, rows: int) -> Shard:
        return Shard(self.folder / _SHARDS / str(number), rows)


def _require_room(folder: Path) -> None:
    """Raise InvalidGallery unless a folder is free for a gallery to be made in it."""
    ours = {_LOCK, "lost+found"}
    if (folder / _MARKER).exists():
        ours |= {_MARKER, _MODEL, _SHARDS, _UNFINISHED}
    if folder.exists() and (
        not folder.is_dir() or any(path.name not in ours for path in folder.iterdir())
    ):
        raise InvalidGallery(f"{folder} exists and is no gallery; name a new folder")


def _build(folder: Path, model: Path, fingerprint: str) -> None:
    (folder / _MARKER).touch()
    for leftover in (_MODEL, _SHARDS, _UNFINISHED):
        shutil.rmtree(folder / leftover, ignore_errors=True)
    copy_model(model, folder / _MODEL)
    (folder / _SHARDS).mkdir()
    (folder / _UNFINISHED).mkdir()
    settings = {"fingerprint": fingerprint, "precision": PRECISION}
    Catalog.create(folder / _UNFINISHED / _CATALOG, settings).close()
    for made in (_MODEL, _SHARDS, _UNFINISHED):
        sync_tree(folder / made)
    (folder / _UNFINISHED / _CATALOG).replace(folder / _CATALOG)
    (folder / _MARKER).unlink()
    sync_folder(folder)
    sync_folder(folder.parent)
