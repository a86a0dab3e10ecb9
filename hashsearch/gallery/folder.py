"""Gallery folders: a model, a catalog, and the shards that the catalog names."""

import os
import shutil
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from filelock import FileLock, Timeout
from numpy.typing import NDArray

from hashsearch.encoder import Encoder
from hashsearch.errors import ArtifactMismatch, GalleryBusy, InvalidGallery
from hashsearch.gallery.catalog import (
    Catalog,
    Failure,
    NewImage,
    Rows,
    insert_images,
    insert_shard,
    next_generation,
    record_failures,
    retire,
    touch,
)
from hashsearch.gallery.shards import WIDTHS, Shard, ShardWriter, sync_folder
from hashsearch.models.folder import copy_model, load_model, read_card

_CATALOG, _MODEL, _SHARDS, _UNFINISHED, _LOCK = (
    "catalog.sqlite",
    "model",
    "shards",
    "unfinished",
    "job.lock",
)
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
        """Make an empty gallery with a copy of a model; it appears when it is complete.

        Raises InvalidGallery if the folder exists and is not empty, and what
        `load_model` raises if the model is not whole.
        """
        if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
            raise InvalidGallery(f"{folder} exists and is no gallery; name a new folder")
        _, card = load_model(model)
        folder.parent.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
        try:
            copy_model(model, temporary / _MODEL)
            (temporary / _SHARDS).mkdir()
            settings = {"fingerprint": card.fingerprint, "precision": PRECISION}
            Catalog.create(temporary / _CATALOG, settings).close()
            temporary.chmod(0o755)  # mkdtemp makes it the owner's alone
            temporary.replace(folder)
        except BaseException:
            shutil.rmtree(temporary, ignore_errors=True)
            raise
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
        for shard, chosen in self.shards(rows.shards):
            if not shard.has(name):
                return None
            values[chosen] = shard.column(name)[rows.rows[chosen]]
        return values

    def shards(self, numbers: NDArray[np.int64]) -> Iterator[tuple[Shard, NDArray[np.bool_]]]:
        """Each shard met in `numbers` (n,), with the (n,) mask of where it stands."""
        sizes = self.catalog.shard_rows()
        for number in np.unique(numbers).tolist():
            yield self._shard(number, sizes[number]), numbers == number

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
                shutil.rmtree(self.folder / _UNFINISHED, ignore_errors=True)
                yield
        except Timeout as error:
            job = self.catalog.last_job()
            holder = (
                f": process {job['pid']} on {job['host']} since {job['started']}" if job else ""
            )
            raise GalleryBusy(f"another job is writing to {self.folder}{holder}") from error

    def new_shard(self) -> ShardWriter:
        """A writer for the columns this gallery keeps. Call it with the job lock held."""
        columns = {"codes", "pixels"} | ({"addresses"} if self.card.address_bits else set())
        folder = Path(self.folder / _UNFINISHED / os.urandom(8).hex())
        return ShardWriter(folder, frozenset(columns), thumbnails=True)

    def commit(
        self,
        writer: ShardWriter | None,
        images: Sequence[NewImage],
        *,
        replaced: Iterable[str] = (),
        touched: Iterable[tuple[str, int, int]] = (),
        failures: Iterable[Failure] = (),
    ) -> None:
        """Make a finished shard and its images part of the gallery, in one transaction.

        images: one a row of the shard. replaced: uris whose content is no
        longer there; touched, failures: as in `catalog`. The shard is durable
        on disk before the transaction that makes it exist begins to commit.
        """
        checksums = writer.seal() if writer else {}
        with self.catalog.transaction() as db:
            retire(db, replaced)
            if writer:
                number = insert_shard(db, writer.rows, checksums)
                self._adopt(writer.folder, number)
                insert_images(db, number, images)
            touch(db, touched)
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
