"""What is stored of the indexes that were built of a gallery.

The catalog's setting `index:<kind>` records each: how it was built, what was measured, and the
checksums of its arrays, which lie in `indexes/`. A file that no record names does not exist.
Arrays with a value for each image go by id, since an id never gets another code by one model.
"""

import json
import os
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from datetime import datetime
from functools import cache
from hashlib import sha256
from io import BytesIO
from math import inf, prod
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

from hashsearch.durable import sync_folder
from hashsearch.errors import ArtifactMismatch, InvalidGallery
from hashsearch.gallery.catalog import Catalog
from hashsearch.gallery.shards import sha256_of_file

if TYPE_CHECKING:
    from pydantic import TypeAdapter

_SETTING = "index:"
_INDEXES = "indexes"
_FILE = re.compile(r"[a-z]+-[a-z]+-[0-9a-f]{16}\.npy")
_UNFINISHED = re.compile(r"\.[a-z]+-[a-z]+")
_HEADERS = {(1, 0): npy.read_array_header_1_0, (2, 0): npy.read_array_header_2_0}
_IDS = "ids"  # the array of the images' ids, beside arrays by image


@dataclass(frozen=True, slots=True)
class StoredFile:
    """A file in `indexes/`: its name, its size, and its SHA-256 in hexadecimal."""

    name: str
    size: int
    sha256: str


@dataclass(frozen=True, slots=True)
class BuiltIndex:
    """Record of an index that was built.

    fingerprint: of the model that made the codes. generation, images: of the gallery when it was
    built; time: when, ISO 8601 in UTC. parameters: numbers such as nprobe. wanted_recall, recall:
    share of the ten nearest neighbours that it should find, and that it found. query_ms, exact_ms:
    median time of a query, and of an exact one in the same run. image_bytes: in memory, of each
    image, beside its code. build_seconds: time to build it. files: the stored arrays, by name;
    by_image: names of those with a value for each image.

    >>> gallery.build_index("exact").parameters
    {}
    """

    kind: str
    fingerprint: str
    generation: int
    images: int
    time: str
    parameters: dict[str, int]
    wanted_recall: float
    recall: float
    query_ms: float
    exact_ms: float
    image_bytes: float
    build_seconds: float
    files: dict[str, StoredFile]
    by_image: list[str]

    @property
    def stored_bytes(self) -> int:
        """Bytes on disk of its files."""
        return sum(file.size for file in self.files.values())


def recorded_kinds(catalog: Catalog) -> list[str]:
    """Names of the kinds that the catalog has a record of, also of damaged and unknown ones."""
    return [name.removeprefix(_SETTING) for name in catalog.settings(_SETTING)]


def built_indexes(catalog: Catalog) -> dict[str, BuiltIndex]:
    """The records that can be read, by kind, also of indexes that were built for another model."""
    return _sorted_out(catalog)[0]


def damaged_indexes(catalog: Catalog) -> list[str]:
    """Names of the kinds whose record cannot be read."""
    return list(_sorted_out(catalog)[1])


def built_index(catalog: Catalog, kind: str) -> BuiltIndex | None:
    """The record of one kind, or None. Raises InvalidGallery if it cannot be read."""
    text = catalog.settings(_SETTING + kind).get(_SETTING + kind)
    return None if text is None else _read(kind, text)


def _sorted_out(catalog: Catalog) -> tuple[dict[str, BuiltIndex], dict[str, str]]:
    """The records that can be read, and the texts of the others, by kind."""
    readable, damaged = {}, {}
    for name, text in catalog.settings(_SETTING).items():
        kind = name.removeprefix(_SETTING)
        try:
            readable[kind] = _read(kind, text)
        except InvalidGallery:
            damaged[kind] = text
    return readable, damaged


def _read(kind: str, text: str) -> BuiltIndex:
    try:
        entries = json.loads(text)
        built = _validator().validate_json(json.dumps({**entries, "kind": kind}), strict=True)
        _require_sane(built)
    except (ValueError, TypeError, RecursionError) as error:
        raise InvalidGallery(
            f"the catalog's record of the index {kind} is damaged; to build it again: "
            f"hashsearch gallery build G --kind {kind}; to delete it, add --drop"
        ) from error
    return built


@cache
def _validator() -> "TypeAdapter[BuiltIndex]":
    from pydantic import TypeAdapter

    return TypeAdapter(BuiltIndex)


def _require_sane(built: BuiltIndex) -> None:
    """Raise ValueError if a number is out of range or not finite, or a name is not allowed."""
    datetime.fromisoformat(built.time)
    counts = (built.generation, built.images, *(file.size for file in built.files.values()))
    measured = (built.query_ms, built.exact_ms, built.image_bytes, built.build_seconds)
    if not (
        all(0 <= number < 2**63 for number in (*counts, *built.parameters.values()))
        and all(0 <= number < inf for number in measured)
        and 0 <= built.recall <= 1
        and 0 <= built.wanted_recall <= 1
        and all(_FILE.fullmatch(file.name) for file in built.files.values())
        and all(name.isidentifier() for name in built.parameters)
        and built.files.keys() >= set(built.by_image)
    ):
        raise ValueError("a value is out of range")


def store(
    folder: Path,
    catalog: Catalog,
    built: BuiltIndex,
    ids: NDArray[np.int64],
    arrays: Mapping[str, NDArray[Any]],
    by_image: Mapping[str, NDArray[Any]],
) -> BuiltIndex:
    """Store a built index in place of an earlier one of its kind; the caller holds the job lock.

    folder: of the gallery. ids: (n,) int64, ascending, of the images that it was built of.
    arrays: of the whole index; by_image: (n,) each. Returns the record with its files, which are
    durable before the transaction that names them. Raises ArtifactMismatch if the gallery has
    another model, and GalleryReadOnly.
    """
    stored = {**arrays, **by_image, **({_IDS: ids} if by_image else {})}
    catalog.require_in_place()  # otherwise this would make a deleted folder again
    (folder / _INDEXES).mkdir(exist_ok=True)
    files = {name: _write(folder / _INDEXES, built.kind, name, stored[name]) for name in stored}
    sync_folder(folder / _INDEXES)
    sync_folder(folder)
    built = replace(built, files=files, by_image=sorted(by_image))
    entries = asdict(built)
    del entries["kind"]
    with catalog.transaction() as db:
        if built.fingerprint != catalog.setting("fingerprint"):
            raise ArtifactMismatch(f"{folder}: the gallery was moved to another model meanwhile")
        db.execute(
            "INSERT OR REPLACE INTO settings VALUES (?, ?)",
            (_SETTING + built.kind, json.dumps(entries)),
        )
    drop_unnamed(folder, catalog)
    return built


def _write(folder: Path, kind: str, name: str, array: NDArray[Any]) -> StoredFile:
    """Write an array durably, under a name that has its checksum."""
    unfinished = folder / f".{kind}-{name}"
    with unfinished.open("wb") as file:
        npy.write_array(file, array, allow_pickle=False)
        file.flush()
        os.fsync(file.fileno())
    digest = sha256_of_file(unfinished)
    path = folder / f"{kind}-{name}-{digest[:16]}.npy"
    unfinished.replace(path)
    return StoredFile(path.name, path.stat().st_size, digest)


def drop(folder: Path, catalog: Catalog, kind: str) -> bool:
    """Forget a built index, and delete its files; the caller holds the job lock.

    Returns whether there was one. Raises GalleryReadOnly.
    """
    with catalog.transaction() as db:
        name = (_SETTING + kind,)
        dropped = db.execute("DELETE FROM settings WHERE name = ?", name).rowcount > 0
    drop_unnamed(folder, catalog)
    return dropped


def drop_unnamed(folder: Path, catalog: Catalog) -> None:
    """Delete the files of indexes that no record of the gallery's model names.

    Such are left by a killed job, an earlier index and another model. A record that cannot be
    read may be of a later version: the files whose names its text has are kept, if it also has
    the model's fingerprint. The caller holds the job lock.
    """
    fingerprint = catalog.setting("fingerprint")
    readable, damaged = _sorted_out(catalog)
    usable = [built for built in readable.values() if built.fingerprint == fingerprint]
    named = {file.name for built in usable for file in built.files.values()}
    texts = [text for text in damaged.values() if fingerprint in text]
    for path in (folder / _INDEXES).glob("*"):
        if _UNFINISHED.fullmatch(path.name) or (
            _FILE.fullmatch(path.name)
            and path.name not in named
            and not any(path.name in text for text in texts)
        ):
            path.unlink(missing_ok=True)


def usable_indexes(catalog: Catalog) -> list[BuiltIndex]:
    """The records that can be read of indexes that were built for the gallery's model."""
    fingerprint = catalog.setting("fingerprint")
    return [one for one in built_indexes(catalog).values() if one.fingerprint == fingerprint]


def stored_bytes(catalog: Catalog) -> int:
    """Bytes on disk of the indexes that can be used."""
    return sum(built.stored_bytes for built in usable_indexes(catalog))


def load(
    folder: Path, catalog: Catalog, kind: str, fingerprint: str, ids: NDArray[np.int64]
) -> tuple[BuiltIndex, dict[str, NDArray[Any]]] | None:
    """The record and arrays of a built index; None if there is none for codes by this model.

    ids: (n,) int64, ascending, of the images that are searched. Arrays by image become (n,) int64,
    with -1 for images that were added later. Raises InvalidGallery if the record or a file is
    damaged.
    """
    while True:
        built = built_index(catalog, kind)
        if built is None or built.fingerprint != fingerprint:
            return None
        try:
            return built, _arrays(folder, built, ids)
        except InvalidGallery:
            if built_index(catalog, kind) == built:
                raise  # otherwise it was built again meanwhile


def is_whole(folder: Path, file: StoredFile) -> bool:
    """Whether a file of `indexes/` has the bytes that were stored."""
    try:
        return sha256_of_file(path_of(folder, file)) == file.sha256
    except OSError:
        return False


def path_of(folder: Path, file: StoredFile) -> Path:
    """The path of a file of `indexes/` in a gallery's folder."""
    return folder / _INDEXES / file.name


def _arrays(folder: Path, built: BuiltIndex, ids: NDArray[np.int64]) -> dict[str, NDArray[Any]]:
    arrays = {name: _array(folder, built.kind, file) for name, file in built.files.items()}
    if not built.by_image:
        return arrays
    stored = arrays.pop(_IDS, np.empty(0))
    if not (
        stored.dtype == np.int64
        and stored.ndim == 1
        and len(stored) > 0
        and np.all(stored[:-1] < stored[1:])
        and all(
            name in arrays
            and arrays[name].shape == stored.shape
            and arrays[name].dtype in (np.uint8, np.uint16)
            for name in built.by_image
        )
    ):
        raise InvalidGallery(
            f"{folder / _INDEXES}: the files of the index {built.kind} do not belong together; "
            f"to repair it: hashsearch gallery build {folder} --kind {built.kind}"
        )
    at = np.minimum(np.searchsorted(stored, ids), len(stored) - 1)
    known = stored[at] == ids
    for name in built.by_image:
        arrays[name] = np.where(known, arrays[name][at], np.int32(-1))
    return arrays


def _array(folder: Path, kind: str, file: StoredFile) -> NDArray[Any]:
    path = path_of(folder, file)
    try:
        if path.stat().st_size == file.size:  # before it is read
            data = path.read_bytes()
            if sha256(data).hexdigest() == file.sha256:
                return _read_npy(data)
        problem = "differs from what was stored"
    except (OSError, ValueError, OverflowError) as error:
        problem = f"cannot be read: {error}"
    raise InvalidGallery(
        f"{path} {problem}; to repair it: hashsearch gallery build {folder} --kind {kind}"
    )


def _read_npy(data: bytes) -> NDArray[Any]:
    """Read an array of numbers. Raises ValueError unless the header fits the bytes after it."""
    file = BytesIO(data)
    try:
        read_header = _HEADERS[npy.read_magic(file)]
        shape, _, dtype = read_header(file)
    except Exception as error:  # NumPy parses the header as Python: many classes
        raise ValueError("its header is damaged") from error
    if dtype.kind not in "biuf":
        raise ValueError(f"it holds {dtype}, and not numbers")
    left = len(data) - file.tell()
    if min(shape, default=0) < 0 or prod(shape) * dtype.itemsize != left:
        raise ValueError(f"its header does not fit the {left:,} bytes that follow")
    file.seek(0)
    array: NDArray[Any] = npy.read_array(file, allow_pickle=False)
    return array
