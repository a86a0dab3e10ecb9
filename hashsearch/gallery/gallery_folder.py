"""Gallery folders: a model, a catalog, and the shards that the catalog names.

Torch is imported only by the functions that load a model.
"""

import os
import re
import shutil
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Literal, TypeVar, cast, get_args

import numpy as np
from filelock import FileLock, Timeout
from numpy.typing import NDArray

from hashsearch.codes import ADDRESS_BITS, CODE_BITS
from hashsearch.durable import require_writable, sync_folder, sync_tree
from hashsearch.errors import (
    ArtifactMismatch,
    GalleryBusy,
    HashSearchError,
    InvalidGallery,
    InvalidQuery,
    InvalidSource,
    NotWritable,
)
from hashsearch.gallery import CATALOG_FILE
from hashsearch.gallery.built import drop_unnamed
from hashsearch.gallery.catalog import IDENTITY, Catalog, new_identity
from hashsearch.gallery.changes import (
    Changes,
    apply,
    change_excludes,
    has_changed_images,
    insert_shard,
    next_generation,
)
from hashsearch.gallery.history import last_job
from hashsearch.gallery.records import Rows
from hashsearch.gallery.shards import WIDTHS, Shard, ShardWriter
from hashsearch.models.card import Card, copy_model, model_name, read_card, require_todays_rules
from hashsearch.search import Block, Stored, gathered
from hashsearch.sources.excluding import require_pattern

if TYPE_CHECKING:
    from hashsearch.encoder import Encoder

T = TypeVar("T")

_MODEL, _SHARDS, _UNFINISHED, _LOCK = (
    "model",
    "shards",
    "unfinished",
    "job.lock",
)
_ADDITIONS_LOCK = "additions.lock"
_MARKER = "incomplete"  # marks a folder in which a gallery is still being created
Precision = Literal["float32", "bfloat16"]
PRECISIONS: tuple[Precision, ...] = get_args(Precision)
KEPT, LEFT_OUT = "kept", "left out"  # values of the settings pixels and thumbnails


class GalleryFolder:
    """An open gallery folder."""

    def __init__(self, folder: Path):
        """Open a gallery.

        Raises InvalidGallery if the folder is not a gallery, and ArtifactMismatch if the codes
        were made by another model than the one in the folder.
        """
        require_gallery(folder)
        self.folder = folder
        self.catalog = Catalog(folder / CATALOG_FILE)
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
        """Create an empty gallery with a copy of a model.

        The catalog is written last; without it, the folder is not a gallery.
        folder: a new folder, an empty one (such as a volume's mount point), or one
        that an interrupted attempt marked as incomplete. pixels, thumbnails: whether
        the gallery keeps them beside the codes. precision: of the encoder's products,
        for these codes and for queries. Raises InvalidGallery if the folder holds
        anything else, NotWritable, GalleryBusy if another process is creating a gallery in it,
        ArtifactMismatch if the model was trained on pictures of earlier image rules,
        and what `read_model` raises if the model is not whole.
        """
        if precision not in PRECISIONS:
            raise InvalidQuery(
                f"the precision of a gallery is {' or '.join(PRECISIONS)}; got {precision!r}"
            )
        require_writable(folder)
        card = require_model(model)
        require_todays_rules(card, model_name(model), "train it again, or take the bundled model")
        if model.resolve().is_relative_to(folder.resolve()):
            raise InvalidGallery(
                f"the model {model} is inside {folder}, the folder of the new gallery"
            )
        _require_room(folder)
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise NotWritable(f"{folder} cannot be made: {error.strerror}") from error
        settings = {
            IDENTITY: new_identity(),
            "fingerprint": card.fingerprint,
            "precision": precision,
            "pixels": KEPT if pixels else LEFT_OUT,
            "thumbnails": KEPT if thumbnails else LEFT_OUT,
        }
        try:
            with FileLock(folder / _LOCK, timeout=0):
                _require_room(folder)  # again, now that the lock keeps others out
                _build(folder, model, settings)
        except Timeout as error:
            raise GalleryBusy(f"another job is creating {folder}; try again in a moment") from error
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
                    raise  # otherwise another process has just changed the model

    @staticmethod
    def exists(folder: Path) -> bool:
        return (folder / CATALOG_FILE).is_file()

    @property
    def fingerprint(self) -> str:
        """Fingerprint of the model that made the codes; `reencode` changes it."""
        return self.catalog.setting("fingerprint")

    @property
    def model_folder(self) -> Path:
        return self.model_folder_of(self.fingerprint)

    def model_folder_of(self, fingerprint: str) -> Path:
        """Folder of the copy of a model: `model/`, or one named by its fingerprint."""
        later = self.later_model_folder(fingerprint)
        return later if later.is_dir() else self.folder / _MODEL

    def later_model_folder(self, fingerprint: str) -> Path:
        """Folder for a model that `reencode` moves the gallery to."""
        return self.folder / f"{_MODEL}-{fingerprint[:12]}"

    def other_models(self) -> list[Path]:
        """Folders of other models than the current one; `reencode` makes and deletes them."""
        found = (self.folder / _MODEL, *self.folder.glob(f"{_MODEL}-{'[0-9a-f]' * 12}"))
        return [path for path in found if path.is_dir() and path != self.model_folder]

    def card(self) -> Card:
        return read_card(self.model_folder)

    def require_todays_rules(self) -> None:
        """Raise ArtifactMismatch if the gallery's pictures were decoded by earlier image rules."""
        require_todays_rules(
            self.card(), self.folder, "index its pictures again into a new gallery"
        )

    def encoder(self) -> "Encoder":
        """Load the encoder that makes the codes. Raises what `read_model` raises."""
        from hashsearch.encoder import Encoder

        return Encoder.load(self.model_folder, precision=self.precision)

    @property
    def precision(self) -> Precision:
        """Number format of the encoder's products."""
        return cast(Precision, self.catalog.setting("precision"))

    def keeps(self, what: str) -> bool:
        """Whether the gallery keeps "pixels" or "thumbnails"."""
        return self.catalog.setting(what) == KEPT

    def has_column(self, name: str) -> bool:
        """Whether the shards have a column, "codes" or "pixels"."""
        return name == "codes" or self.keeps(name)

    def disk_bytes(self) -> dict[str, int]:
        """Bytes on disk of codes, addresses, pixels and thumbnails in use, and of the catalog."""
        sizes: dict[str, int] = {}
        for number, (_, checksums) in self.catalog.shard_files().items():
            for name in checksums:
                kind = re.split("[-_.]", name)[0].removesuffix("s") + "s"
                size = _size(self.shard_folder(number) / name)
                sizes[kind] = sizes.get(kind, 0) + size
        catalog = (_size(self.folder / f"{CATALOG_FILE}{end}") for end in ("", "-wal"))
        return sizes | {"catalog": sum(catalog)}

    def model_bytes(self) -> int:
        """Bytes on disk of the copy of the model."""
        return sum(_size(path) for path in self.model_folder.iterdir())

    def close(self) -> None:
        self.catalog.close()

    def reopened(self) -> "GalleryFolder":
        """Open the gallery that is at the path now instead of this one, which is closed.

        Raises InvalidGallery if there is none, and as opening it does.
        """
        try:
            (self.folder / CATALOG_FILE).stat()
        except OSError as error:
            raise InvalidGallery(f"{self.folder} is gone: {error.strerror}") from error
        self.close()
        return GalleryFolder(self.folder)

    # Reading

    def blocks(self, name: str, rows: Rows) -> list[Block] | None:
        """One column of these images, memory-mapped, shard by shard; None if it is not kept."""
        blocks = []
        for shard, positions in self.shards(rows):
            file = shard.file(name)
            if file is None:
                return None
            stored = Stored(shard.folder / file, shard.checksums[file])
            blocks.append(Block(shard.column(name), rows.rows[positions], positions, stored))
        return blocks

    def column(self, name: str, rows: Rows) -> NDArray[np.uint8] | None:
        """One column of these images in memory, (n, width) uint8; None if it is not kept."""
        blocks = self.blocks(name, rows)
        return None if blocks is None else gathered(blocks, WIDTHS[name])

    def shards(self, rows: Rows) -> Iterator[tuple[Shard, NDArray[np.int64]]]:
        """Each shard, and the positions of its images in `rows`, ordered by row of the shard.

        Raises InvalidGallery if the catalog names a row that the shard does not have.
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

    def columns(self, image_id: int) -> dict[str, NDArray[np.uint8]]:
        """An image's values of each stored column, (width,) uint8. Raises NotInGallery."""
        return self._read(
            image_id,
            lambda shard, row: {name: np.array(shard.column(name)[row]) for name in shard.columns},
        )

    def thumbnail(self, image_id: int) -> bytes | None:
        """An image's thumbnail as JPEG, or None if it has none. Raises NotInGallery."""
        return self._read(image_id, lambda shard, row: shard.thumbnail(row))

    def shard(self, number: int) -> Shard:
        """Open a shard. Raises InvalidGallery if the catalog does not name it."""
        return Shard(self.shard_folder(number), *self.catalog.files_of(number))

    def every_shard(self) -> dict[int, Shard]:
        """The shards that the catalog names now, by number."""
        return {
            number: Shard(self.shard_folder(number), *files)
            for number, files in self.catalog.shard_files().items()
        }

    def shard_folder(self, number: int) -> Path:
        return self.folder / _SHARDS / str(number)

    def _read(self, image_id: int, read: Callable[[Shard, int], T]) -> T:
        """Read an image's row; try again if it was moved or reencoded meanwhile.

        Raises NotInGallery.
        """
        former_place: tuple[object, ...] | None = None
        while True:
            record = self.catalog.record(image_id)
            place: tuple[object, ...] = (record.shard, record.row)
            try:
                shard = self.shard(record.shard)  # which may have been deleted just now
                place = (*place, shard.checksums)
                return read(shard, record.row)
            except InvalidGallery:
                if place == former_place:
                    raise
                former_place = place

    # Writing

    @contextmanager
    def job_lock(self) -> Iterator[None]:
        """Keep other jobs out, and delete what a killed one left unfinished.

        Raises GalleryBusy, naming the holder, if another job is running, and GalleryReadOnly.
        """
        self.catalog.require_writable()
        try:
            with FileLock(self.folder / _LOCK, timeout=0):
                shutil.rmtree(self.unfinished, ignore_errors=True)
                self._drop_orphans()
                drop_unnamed(self.folder, self.catalog)
                yield
        except Timeout as error:
            job = last_job(self.catalog)
            holder = ""  # it has not recorded itself yet
            if job is not None and job.ended is None:
                holder = f": {job.kind}, process {job.pid} on {job.host} since {job.started}"
            raise GalleryBusy(f"another job is writing to {self.folder}{holder}") from error

    @contextmanager
    def additions_lock(self) -> Iterator[Path]:
        """Let one program at a time add images; a job may run meanwhile.

        Yields the folder to write them to, after deleting what a killed program left in it.
        Raises GalleryReadOnly.
        """
        self.catalog.require_writable()
        folder = self.folder / _UNFINISHED / "additions"
        with FileLock(self.folder / _ADDITIONS_LOCK):
            shutil.rmtree(folder, ignore_errors=True)
            yield folder

    def new_shard(self, columns: Iterable[str], within: Path | None = None) -> ShardWriter:
        """Begin a shard with these columns.

        within: the folder that `additions_lock` yields; None if the caller holds the job lock.
        """
        self.catalog.require_in_place()  # otherwise this would make a deleted folder again
        folder = (within or self.unfinished) / os.urandom(8).hex()
        return ShardWriter(folder, frozenset(columns), thumbnails=self.keeps("thumbnails"))

    @property
    def unfinished(self) -> Path:
        """Folder that a job writes to before it commits."""
        return self.folder / _UNFINISHED / "job"

    def _drop_orphans(self) -> None:
        """Delete shards that were never committed, because of a crash or a full disk."""
        with self.catalog.transaction():  # so that no writer is between renaming and commit
            known = {str(number) for number in self.catalog.shard_rows()}
            for path in (self.folder / _SHARDS).iterdir():
                if re.fullmatch("[1-9][0-9]*", path.name) and path.name not in known:
                    self.drop(int(path.name))

    def drop(self, number: int) -> None:
        """Delete a shard that the catalog does not name. For readers, it disappears at once."""
        away = self.unfinished / f"dropped-{number}-{os.urandom(4).hex()}"
        away.parent.mkdir(parents=True, exist_ok=True)
        self.shard_folder(number).replace(away)
        shutil.rmtree(away, ignore_errors=True)

    def commit(
        self, changes: Changes, writer: ShardWriter | None = None, made_by: str | None = None
    ) -> None:
        """Commit changes, and a finished shard with its images, in one transaction.

        made_by: fingerprint of the model that made the shard's codes. The shard is durable on
        disk before the transaction that names it commits.
        Raises ArtifactMismatch if the gallery has another model.
        """
        assert len(changes.images) == (writer.rows if writer else 0), "an image for every row"
        checksums = writer.seal() if writer else {}
        with self.catalog.transaction() as db:
            if writer and made_by != self.fingerprint:
                raise ArtifactMismatch(
                    f"{self.folder}: the codes were made by model {str(made_by)[:12]}, but the "
                    f"gallery's model is {self.fingerprint[:12]}"
                )
            number = None
            if writer:
                number = insert_shard(db, writer.rows, checksums)
                self.adopt(writer.folder, number)
            apply(db, changes, number)
            if writer or has_changed_images(db):
                next_generation(db)

    def change_excludes(self, added: Sequence[str], dropped: Sequence[str]) -> None:
        """Remember more patterns of paths that indexing leaves out, and forget others.

        Raises InvalidSource, before anything changes, if an added one is no pattern or a dropped
        one is not remembered; and GalleryReadOnly.
        """
        if not added and not dropped:
            return
        for pattern in added:
            require_pattern(pattern)
        remembered = self.catalog.excludes()
        for pattern in dropped:
            if pattern not in remembered:
                known = ", ".join(map(repr, remembered)) or "none"
                raise InvalidSource(f"{pattern!r} is not excluded; excluded are: {known}")
        with self.catalog.transaction() as db:
            change_excludes(db, added, dropped)

    def adopt(self, finished: Path, number: int) -> None:
        """Rename a finished shard to the number that a transaction is about to commit.

        A shard that already has this number was never committed, and is deleted.
        """
        target = self.shard_folder(number)
        if target.exists():
            self.drop(number)
        finished.replace(target)
        sync_folder(self.folder / _SHARDS)


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:  # missing, or its shard was joined to another meanwhile
        return 0


def require_gallery(folder: Path) -> None:
    """Raise InvalidGallery if a folder does not exist, or is not a gallery."""
    if not os.path.exists(folder):  # noqa: PTH110  # never raises
        raise InvalidGallery(
            f"{folder} does not exist; `hashsearch index` or open(…, create=True) makes a gallery"
        )
    if not GalleryFolder.exists(folder):
        raise InvalidGallery(f"{folder} is not a gallery: it holds no {CATALOG_FILE}")


def require_model(folder: Path) -> Card:
    """Check that a gallery can keep a model's codes, and return the model's card.

    Raises what `read_model` raises if the model is not whole, and ArtifactMismatch if
    its codes or addresses have another width.
    """
    from hashsearch.models.storage import read_model

    _, card = read_model(folder)
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
    """Raise InvalidGallery unless a gallery can be created in the folder."""
    ours = {_LOCK, "lost+found"}
    if (folder / _MARKER).exists():
        ours |= {_MARKER, _MODEL, _SHARDS, _UNFINISHED}
    if folder.exists() and (
        not folder.is_dir() or any(path.name not in ours for path in folder.iterdir())
    ):
        raise InvalidGallery(f"{folder} exists and is not a gallery; name a new folder")


def _build(folder: Path, model: Path, settings: dict[str, str]) -> None:
    (folder / _MARKER).touch()
    for name in (_MODEL, _SHARDS, _UNFINISHED):
        shutil.rmtree(folder / name, ignore_errors=True)
    copy_model(model, folder / _MODEL)
    (folder / _SHARDS).mkdir()
    (folder / _UNFINISHED).mkdir()
    Catalog.create(folder / _UNFINISHED / CATALOG_FILE, settings).close()
    for name in (_MODEL, _SHARDS, _UNFINISHED):
        sync_tree(folder / name)
    (folder / _UNFINISHED / CATALOG_FILE).replace(folder / CATALOG_FILE)
    (folder / _MARKER).unlink()
    sync_folder(folder)
    sync_folder(folder.parent)
