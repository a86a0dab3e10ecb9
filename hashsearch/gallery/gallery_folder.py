"""Gallery folders: a model, a catalog, and the shards that the catalog names.

Only what computes codes needs torch, and imports it then.
"""

import os
import re
import shutil
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Literal, TypeVar, cast, get_args

import numpy as np
from filelock import FileLock, Timeout
from numpy.typing import NDArray

from hashsearch.codes import ADDRESS_BITS, CODE_BITS
from hashsearch.durable import sync_folder, sync_tree
from hashsearch.errors import ArtifactMismatch, GalleryBusy, HashSearchError, InvalidGallery
from hashsearch.gallery.catalog import Catalog, Rows
from hashsearch.gallery.changes import (
    Changes,
    apply,
    insert_images,
    insert_shard,
    next_generation,
)
from hashsearch.gallery.history import last_job
from hashsearch.gallery.shards import WIDTHS, Shard, ShardWriter
from hashsearch.models.card import Card, copy_model, read_card
from hashsearch.search import Block, gathered

if TYPE_CHECKING:
    from hashsearch.encoder import Encoder

T = TypeVar("T")

_CATALOG, _MODEL, _SHARDS, _UNFINISHED, _LOCK = (
    "catalog.sqlite",
    "model",
    "shards",
    "unfinished",
    "job.lock",
)
_ADDITIONS_LOCK = "additions.lock"
_MARKER = "incomplete"  # in a folder that is being made a gallery, and is none yet
Precision = Literal["float32", "bfloat16"]
PRECISIONS: tuple[Precision, ...] = get_args(Precision)
KEPT, LEFT_OUT = "kept", "left out"  # of the settings pixels and thumbnails


class GalleryFolder:
    """An open gallery folder."""

    def __init__(self, folder: Path):
        """Raises InvalidGallery if it is none, ArtifactMismatch if its parts do not fit."""
        self.folder = folder
        self.catalog = Catalog(folder / _CATALOG)
        self._require_its_model()
        if self.precision not in PRECISIONS:
            raise InvalidGallery(
                f"{folder}: the codes were made in {self.precision}; "
                f"this version of hashsearch encodes in {' or '.join(PRECISIONS)}"
            )

    @classmethod
    def create(
        cls,
        folder: Path,
        model: Path,
        *,
        pixels: bool = True,
        thumbnails: bool = True,
        precision: Precision = "float32",
    ) -> "GalleryFolder":
        """Make an empty gallery with a copy of a model; its catalog comes last, and makes it one.

        folder: a new one, an empty one (a volume's mount point, say), or one that
        an earlier attempt left without a catalog, which its marker tells. pixels,
        thumbnails: what it keeps of each image beside its code. precision: of the
        encoder's products, for these codes and for queries. Raises InvalidGallery
        if the folder holds anything else, GalleryBusy if another is making it,
        and what `load_model` raises if the model is not whole.
        """
        card = require_model(model)
        if model.resolve().is_relative_to(folder.resolve()):
            raise InvalidGallery(f"{model} lies in {folder}, which is to be a new gallery")
        _require_room(folder)
        folder.mkdir(parents=True, exist_ok=True)
        settings = {
            "fingerprint": card.fingerprint,
            "precision": precision,
            "pixels": KEPT if pixels else LEFT_OUT,
            "thumbnails": KEPT if thumbnails else LEFT_OUT,
        }
        try:
            with FileLock(folder / _LOCK, timeout=0):
                _require_room(folder)  # as it is now that nobody else can change it
                _build(folder, model, settings)
        except Timeout as error:
            raise GalleryBusy(f"another job is making {folder}; try again in a moment") from error
        return cls(folder)

    def _require_its_model(self) -> None:
        while True:
            fingerprint = self.fingerprint
            try:
                model = self.model_folder_of(fingerprint)
                card = read_card(model)
                if card.fingerprint == fingerprint:
                    return
                raise ArtifactMismatch(
                    f"{self.folder}: the codes were made by model {fingerprint[:12]}, "
                    f"but {model.name}/ holds {card.fingerprint[:12]}"
                )
            except HashSearchError:
                if fingerprint == self.fingerprint:
                    raise  # otherwise the gallery was moved to another model just now

    @staticmethod
    def exists(folder: Path) -> bool:
        return (folder / _CATALOG).is_file()

    @property
    def fingerprint(self) -> str:
        """Of the model that made the codes; `reencode` changes it."""
        return self.catalog.setting("fingerprint")

    @property
    def model_folder(self) -> Path:
        return self.model_folder_of(self.fingerprint)

    def model_folder_of(self, fingerprint: str) -> Path:
        """Where the copy of a model lies: `model/`, or its own folder after a change of models."""
        later = self.later_model_folder(fingerprint)
        return later if later.is_dir() else self.folder / _MODEL

    def later_model_folder(self, fingerprint: str) -> Path:
        """Where the model lies that `reencode` moves the gallery to."""
        return self.folder / f"{_MODEL}-{fingerprint[:12]}"

    def other_models(self) -> list[Path]:
        """Folders of models that made none of the codes, left by `reencode`."""
        found = (self.folder / _MODEL, *self.folder.glob(f"{_MODEL}-{'[0-9a-f]' * 12}"))
        return [path for path in found if path.is_dir() and path != self.model_folder]

    def card(self) -> Card:
        return read_card(self.model_folder)

    def encoder(self) -> "Encoder":
        """The model at work. Raises what `load_model` raises."""
        from hashsearch.encoder import Encoder

        return Encoder.load(self.model_folder, precision=self.precision)

    @property
    def precision(self) -> Precision:
        """Of the encoder's products."""
        return cast(Precision, self.catalog.setting("precision"))

    def keeps(self, what: str) -> bool:
        """Whether it keeps its images' "pixels" or "thumbnails"."""
        return self.catalog.setting(what) == KEPT

    def has_column(self, name: str) -> bool:
        """Whether its shards have this column, "codes" or "pixels"."""
        return name == "codes" or self.keeps(name)

    def disk_bytes(self) -> dict[str, int]:
        """Bytes on disk: of codes, pixels and thumbnails as they count, and of the catalog."""
        sizes: dict[str, int] = {}
        for number, (_, checksums) in self.catalog.shard_files().items():
            for name in checksums:
                kind = re.split("[-_.]", name)[0].removesuffix("s") + "s"
                size = _size(self.shard_folder(number) / name)
                sizes[kind] = sizes.get(kind, 0) + size
        catalog = (_size(self.folder / f"{_CATALOG}{end}") for end in ("", "-wal"))
        return sizes | {"catalog": sum(catalog)}

    def model_bytes(self) -> int:
        """Bytes on disk of the copy of the model."""
        return sum(_size(path) for path in self.model_folder.iterdir())

    def close(self) -> None:
        self.catalog.close()

    # Reading

    def blocks(self, name: str, rows: Rows) -> list[Block] | None:
        """One column of these images, memory-mapped, shard by shard; None if it is not kept."""
        blocks = []
        for shard, positions in self.shards(rows):
            if shard.file(name) is None:
                return None
            blocks.append(Block(shard.column(name), rows.rows[positions], positions))
        return blocks

    def column(self, name: str, rows: Rows) -> NDArray[np.uint8] | None:
        """One column of these images in memory, (n, width) uint8; None if it is not kept."""
        blocks = self.blocks(name, rows)
        return None if blocks is None else gathered(blocks, WIDTHS[name])

    def shards(self, rows: Rows) -> Iterator[tuple[Shard, NDArray[np.int64]]]:
        """Each shard with the positions in `rows` of its images, ordered by their row.

        Raises InvalidGallery if the catalog names what a shard does not hold.
        """
        if len(rows.ids) == 0:
            return
        order = np.lexsort((rows.rows, rows.shards))
        numbers, starts = np.unique(rows.shards[order], return_index=True)
        for number, positions in zip(numbers.tolist(), np.split(order, starts[1:]), strict=True):
            in_shard = rows.rows[positions]
            size, checksums = rows.files.get(number, (0, {}))
            if in_shard[0] < 0 or in_shard[-1] >= size:
                raise InvalidGallery(f"{self.folder}: the catalog names rows that no shard has")
            yield Shard(self.shard_folder(number), size, checksums), positions

    def pixels(self, image_id: int) -> NDArray[np.uint8] | None:
        """An image's (32, 32, 3) uint8 tiny image, or None if the gallery keeps none."""

        def read(shard: Shard, row: int) -> NDArray[np.uint8] | None:
            if shard.file("pixels") is None:
                return None
            return np.array(shard.column("pixels")[row]).reshape(32, 32, 3)

        return self._read(image_id, read)

    def code(self, image_id: int) -> NDArray[np.uint8]:
        """An image's stored code, (32,) uint8. Raises NotInGallery."""
        return self._read(image_id, lambda shard, row: np.array(shard.column("codes")[row]))

    def thumbnail(self, image_id: int) -> bytes | None:
        """An image's thumbnail as JPEG, or None if it has none. Raises NotInGallery."""
        return self._read(image_id, lambda shard, row: shard.thumbnail(row))

    def shard(self, number: int) -> Shard:
        """Raises InvalidGallery if the catalog names no such shard, or no more."""
        return Shard(self.shard_folder(number), *self.catalog.files_of(number))

    def every_shard(self) -> dict[int, Shard]:
        """The shards of this moment, by their numbers."""
        return {
            number: Shard(self.shard_folder(number), *files)
            for number, files in self.catalog.shard_files().items()
        }

    def shard_folder(self, number: int) -> Path:
        return self.folder / _SHARDS / str(number)

    def _read(self, image_id: int, read: Callable[[Shard, int], T]) -> T:
        """Read of an image's row; again, where it moved or was coded anew meanwhile.

        Raises NotInGallery.
        """
        here = before = None
        while True:
            record = self.catalog.record(image_id)
            try:
                shard = self.shard(record.shard)
                here = (record.shard, record.row, shard.checksums)
                return read(shard, record.row)
            except InvalidGallery:
                if here == before:
                    raise
                before = here

    # Writing

    @contextmanager
    def job_lock(self) -> Iterator[None]:
        """Keep other jobs out, and clear what a killed one left unfinished.

        Raises GalleryBusy, naming the holder, if another job is at work.
        """
        try:
            with FileLock(self.folder / _LOCK, timeout=0):
                shutil.rmtree(self.unfinished, ignore_errors=True)
                self._drop_orphans()
                yield
        except Timeout as error:
            job = last_job(self.catalog)
            holder = ""  # it has only just begun
            if job is not None and job.ended is None:
                holder = f": {job.kind}, process {job.pid} on {job.host} since {job.started}"
            raise GalleryBusy(f"another job is writing to {self.folder}{holder}") from error

    @contextmanager
    def additions_lock(self) -> Iterator[Path]:
        """Let one program at a time add images, whether or not a job is at work.

        Yields where to write them; what a killed one left there is cleared.
        """
        folder = self.folder / _UNFINISHED / "additions"
        with FileLock(self.folder / _ADDITIONS_LOCK):
            shutil.rmtree(folder, ignore_errors=True)
            yield folder

    def new_shard(self, columns: Iterable[str], within: Path | None = None) -> ShardWriter:
        """Begin a shard with these columns.

        within: the folder that `additions_lock` yields; without it, the job lock is held.
        """
        folder = (within or self.unfinished) / os.urandom(8).hex()
        return ShardWriter(folder, frozenset(columns), thumbnails=self.keeps("thumbnails"))

    @property
    def unfinished(self) -> Path:
        """Where a job writes."""
        return self.folder / _UNFINISHED / "job"

    def _drop_orphans(self) -> None:
        """Remove shards that no transaction made exist: a crash or a full disk left them."""
        with self.catalog.transaction():  # so that no writer is between renaming and commit
            known = {str(number) for number in self.catalog.shard_rows()}
            for path in (self.folder / _SHARDS).iterdir():
                if re.fullmatch("[1-9][0-9]*", path.name) and path.name not in known:
                    self.drop(int(path.name))

    def drop(self, number: int) -> None:
        """Delete a shard that the catalog does not name: at once for readers, whole or not."""
        away = self.unfinished / f"dropped-{number}-{os.urandom(4).hex()}"
        away.parent.mkdir(parents=True, exist_ok=True)
        self.shard_folder(number).replace(away)
        shutil.rmtree(away, ignore_errors=True)

    def commit(
        self, changes: Changes, writer: ShardWriter | None = None, made_by: str | None = None
    ) -> None:
        """Make changes, and a finished shard with its images, in one transaction.

        made_by: fingerprint of the model that made the shard's codes. The shard is durable on
        disk before the transaction that makes it exist begins to commit.
        Raises ArtifactMismatch if the gallery's model is another.
        """
        assert len(changes.images) == (writer.rows if writer else 0), "an image for every row"
        checksums = writer.seal() if writer else {}
        with self.catalog.transaction() as db:
            if writer and made_by != self.fingerprint:
                raise ArtifactMismatch(
                    f"{self.folder}: the codes were made by model {str(made_by)[:12]}, but the "
                    f"gallery's model is {self.fingerprint[:12]}"
                )
            apply(db, changes)
            if writer:
                number = insert_shard(db, writer.rows, checksums)
                self.adopt(writer.folder, number)
                insert_images(db, number, changes.images)
            if writer or changes.replaced or changes.relabelled:
                next_generation(db)

    def adopt(self, finished: Path, number: int) -> None:
        """Give a finished shard the name that a transaction is about to make exist.

        An orphan of that name was never committed.
        """
        target = self.shard_folder(number)
        if target.exists():
            self.drop(number)
        finished.replace(target)
        sync_folder(self.folder / _SHARDS)


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:  # damaged, or joined to another meanwhile
        return 0


def require_model(folder: Path) -> Card:
    """The card of a model that a gallery can keep codes of.

    Raises what `load_model` raises if it is not whole, and ArtifactMismatch if
    its codes have another width.
    """
    from hashsearch.models.storage import load_model

    _, card = load_model(folder)
    if card.bits != CODE_BITS:
        raise ArtifactMismatch(
            f"{folder} makes codes of {card.bits} bits; a gallery keeps {CODE_BITS}"
        )
    if card.address_bits not in (0, ADDRESS_BITS):
        raise ArtifactMismatch(
            f"{folder} makes addresses of {card.address_bits} bits; a gallery keeps {ADDRESS_BITS}"
        )
    return card


def _require_room(folder: Path) -> None:
    """Raise InvalidGallery unless a folder is free for a gallery to be made in it."""
    ours = {_LOCK, "lost+found"}
    if (folder / _MARKER).exists():
        ours |= {_MARKER, _MODEL, _SHARDS, _UNFINISHED}
    if folder.exists() and (
        not folder.is_dir() or any(path.name not in ours for path in folder.iterdir())
    ):
        raise InvalidGallery(f"{folder} exists and is no gallery; name a new folder")


def _build(folder: Path, model: Path, settings: dict[str, str]) -> None:
    (folder / _MARKER).touch()
    for leftover in (_MODEL, _SHARDS, _UNFINISHED):
        shutil.rmtree(folder / leftover, ignore_errors=True)
    copy_model(model, folder / _MODEL)
    (folder / _SHARDS).mkdir()
    (folder / _UNFINISHED).mkdir()
    Catalog.create(folder / _UNFINISHED / _CATALOG, settings).close()
    for made in (_MODEL, _SHARDS, _UNFINISHED):
        sync_tree(folder / made)
    (folder / _UNFINISHED / _CATALOG).replace(folder / _CATALOG)
    (folder / _MARKER).unlink()
    sync_folder(folder)
    sync_folder(folder.parent)
