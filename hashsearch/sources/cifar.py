"""CIFAR-10's and CIFAR-100's official batches, python and binary, in a folder or an archive.

Source: https://www.cs.toronto.edu/~kriz/cifar.html. The python batches are
pickles, written by Python 2; they are read by an unpickler that admits arrays of
bytes and nothing else.
"""

import pickle
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from io import BytesIO
from itertools import islice
from pathlib import Path, PurePosixPath
from typing import Any, ClassVar, NamedTuple

import numpy as np
from numpy.typing import NDArray

from hashsearch.errors import InvalidSource
from hashsearch.images import TINY_BYTES, TINY_SIDE
from hashsearch.sources.base import SPLITS, SourceImage, encode_path, locate
from hashsearch.sources.tarball import is_tar, mtime_ns, read_tar


@dataclass(frozen=True, slots=True)
class Cifar:
    """How one of the two data sets differs from the other.

    batches: the files of each split, without `.bin`. images: how many each split
    has. labels: their key in a pickle. label_bytes: how many stand before each
    image in a binary batch; the last one counts. folders: those in the archives.
    """

    name: str
    classes: tuple[str, ...]
    batches: dict[str, tuple[str, ...]]
    images: dict[str, int]
    labels: bytes
    label_bytes: int
    folders: tuple[str, str]

    @property
    def row_bytes(self) -> int:
        """The bytes of an image in a binary batch: its labels, then three planes."""
        return self.label_bytes + TINY_BYTES


CIFAR10 = Cifar(
    name="CIFAR-10",
    classes=(
        "airplane",
        "automobile",
        "bird",
        "cat",
        "deer",
        "dog",
        "frog",
        "horse",
        "ship",
        "truck",
    ),
    batches={
        "train": tuple(f"data_batch_{number}" for number in range(1, 6)),
        "test": ("test_batch",),
    },
    images={"train": 50_000, "test": 10_000},
    labels=b"labels",
    label_bytes=1,
    folders=("cifar-10-batches-py", "cifar-10-batches-bin"),
)
# CIFAR-100's fine labels; the coarse ones are ignored.
_FINE_CLASSES = (
    "apple aquarium_fish baby bear beaver bed bee beetle bicycle bottle bowl boy bridge bus "
    "butterfly camel can castle caterpillar cattle chair chimpanzee clock cloud cockroach "
    "couch crab crocodile cup dinosaur dolphin elephant flatfish forest fox girl hamster "
    "house kangaroo keyboard lamp lawn_mower leopard lion lizard lobster man maple_tree "
    "motorcycle mountain mouse mushroom oak_tree orange orchid otter palm_tree pear "
    "pickup_truck pine_tree plain plate poppy porcupine possum rabbit raccoon ray road rocket "
    "rose sea seal shark shrew skunk skyscraper snail snake spider squirrel streetcar "
    "sunflower sweet_pepper table tank telephone television tiger tractor train trout tulip "
    "turtle wardrobe whale willow_tree wolf woman worm"
)
CIFAR100 = Cifar(
    name="CIFAR-100",
    classes=tuple(_FINE_CLASSES.split()),
    batches={"train": ("train",), "test": ("test",)},
    images={"train": 50_000, "test": 10_000},
    labels=b"fine_labels",
    label_bytes=2,
    folders=("cifar-100-python", "cifar-100-binary"),
)

_BLOCK_IMAGES = 1024
_PICKLE = b"\x80"  # a pickle's first byte; in a binary batch, a label below 100


class Batch(NamedTuple):
    """images: (n, 32, 32, 3) uint8 RGB, a view of planes; labels: (n,) int64, of the classes."""

    images: NDArray[np.uint8]
    labels: NDArray[np.int64]


class CifarBatches:
    """The images of one split of a data set's official batches, in their order."""

    def __init__(self, root: Path, dataset: Cifar, split: str = "train"):
        self.root = root.resolve()
        self.dataset = dataset
        self.split = split
        self.passed_over: Counter[str] = Counter()
        self.is_whole = False
        self.is_folder = False
        self.remarks: list[str] = []

    def estimate(self) -> int:
        return self.dataset.images[self.split]

    def __iter__(self) -> Iterator[SourceImage]:
        dataset, wanted = self.dataset, self.dataset.batches[self.split]
        found = 0
        for place, mtime, data in self._files():
            found += 1
            images, labels = read_batch(data, locate(str(self.root), place), dataset)
            for start in range(0, len(images), _BLOCK_IMAGES):
                block = np.ascontiguousarray(images[start : start + _BLOCK_IMAGES])
                for row, image in enumerate(block, start):
                    yield SourceImage(
                        place=f"{place}#{row}",
                        label=dataset.classes[labels[row]],
                        size=TINY_BYTES,
                        mtime=mtime,
                        content=image,
                    )
        if found < len(wanted):
            raise InvalidSource(
                f"{self.root} holds {found} of {dataset.name}'s {len(wanted)} {self.split} batches"
            )

    def _files(self) -> Iterator[tuple[str, int, bytes]]:
        """Yield (place, mtime in ns, bytes) of each batch of the split."""
        wanted = self.dataset.batches[self.split]
        if self.root.is_dir():
            for name in wanted:
                for path in (self.root / name, self.root / f"{name}.bin"):
                    if path.is_file():
                        status = path.stat()
                        _require_batch_size(status.st_size, str(path), self.dataset)
                        yield f"/{path.name}", status.st_mtime_ns, path.read_bytes()
                        break
            return
        waited_for = set(wanted)
        with read_tar(self.root) as archive:
            for member in archive.members():
                name = PurePosixPath(member.name).name.removesuffix(".bin")
                if member.isfile() and not member.issparse() and name in waited_for:
                    waited_for.remove(name)  # of several of one name the first counts
                    _require_batch_size(member.size, f"{self.root}!/{member.name}", self.dataset)
                    place = "!/" + encode_path(member.name)
                    yield place, mtime_ns(member), archive.open(member).read()


def is_cifar(path: Path) -> bool:
    """Whether a folder or file holds CIFAR's batches."""
    return (path.is_dir() or is_tar(path)) and _cifar_in(path) is not None


def open_cifar(path: Path, split: str = "train") -> CifarBatches:
    """Open a path that `is_cifar` recognizes."""
    dataset = _cifar_in(path)
    assert dataset is not None, "is_cifar recognized it"
    return CifarBatches(path, dataset, split)


def _cifar_in(path: Path) -> Cifar | None:
    """Which data set's batches a folder, or a tar archive by its first members, holds.

    A folder holds them if two files have their names and could be batches: files
    of other data sets are named `train` and `test` too.
    """
    if path.is_dir():
        found = (dataset for dataset in (CIFAR10, CIFAR100) if _batches_in(path, dataset) > 1)
    else:
        folders = {parts[0] for parts in first_members(path) if parts}
        found = (dataset for dataset in (CIFAR10, CIFAR100) if folders & set(dataset.folders))
    return next(found, None)


def _batches_in(folder: Path, dataset: Cifar) -> int:
    names = [name for split in SPLITS for name in dataset.batches[split]]
    return sum(
        _may_be_batch(folder / name, dataset) or _may_be_batch(folder / f"{name}.bin", dataset)
        for name in names
    )


def _may_be_batch(path: Path, dataset: Cifar) -> bool:
    if not path.is_file() or not (size := path.stat().st_size):
        return False
    with path.open("rb") as file:
        return size % dataset.row_bytes == 0 or file.read(1) == _PICKLE


def first_members(path: Path) -> list[tuple[str, ...]]:
    """The paths of a tar archive's first three members, in parts."""
    with read_tar(path) as archive:
        first = islice(archive.members(), 3)
        return [PurePosixPath(member.name).parts for member in first]


def read_batch(data: bytes, name: str, dataset: Cifar) -> Batch:
    """Read one official batch, python or binary.

    name: for messages. Raises InvalidSource on anything that is neither.
    """
    if data[:1] == _PICKLE:
        planes, labels = _unpickle_batch(data, name, dataset)
    elif data and len(data) % dataset.row_bytes == 0:
        rows = np.frombuffer(data, np.uint8).reshape(-1, dataset.row_bytes)
        planes = rows[:, dataset.label_bytes :]
        labels = rows[:, dataset.label_bytes - 1].astype(np.int64)
    else:
        raise InvalidSource(f"{name} is no {dataset.name} batch, or one cut short")
    if labels.size and (labels.min() < 0 or labels.max() >= len(dataset.classes)):
        raise _strange_labels(name, dataset)
    images = planes.reshape(-1, 3, TINY_SIDE, TINY_SIDE).transpose(0, 2, 3, 1)
    return Batch(images, labels)


def _unpickle_batch(
    data: bytes, name: str, dataset: Cifar
) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    try:
        batch = _ArrayUnpickler(BytesIO(data), encoding="bytes").load()
        array, labels = batch[b"data"], batch[dataset.labels]
    except Exception as error:  # a pickle from outside can raise anything
        raise InvalidSource(f"{name} is no {dataset.name} batch: {error}") from error
    whole = type(labels) is list and all(type(label) is int for label in labels)
    planes = array.values if isinstance(array, _PickledArray) else None
    if not whole or planes is None or planes.shape != (len(labels), TINY_BYTES):
        raise InvalidSource(
            f"{name} is no {dataset.name} batch: n rows of 3,072 bytes and n labels were wanted"
        )
    try:
        return planes, np.array(labels, np.int64)
    except OverflowError as error:
        raise _strange_labels(name, dataset) from error


def _strange_labels(name: str, dataset: Cifar) -> InvalidSource:
    return InvalidSource(
        f"{name} has labels outside {dataset.name}'s 0 to {len(dataset.classes) - 1}"
    )


class _PickledType:
    """Stands in for `numpy.dtype`: it remembers only whether uint8 is meant."""

    def __init__(self, code: object, *_: object):
        self.is_uint8 = code in (b"u1", "u1")

    def __setstate__(self, state: object) -> None:
        """Ignore byte order and fields; a uint8 has none."""


class _PickledArray:
    """Stands in for an array while it is unpickled: bytes and a shape, both checked.

    NumPy's own reconstruction trusts the pickle with types that hold pointers.
    """

    values: NDArray[np.uint8] | None = None

    def __init__(self, *_: object):
        """Ignore the class, shape and type given here; the state has the real ones."""

    def __setstate__(self, state: tuple[object, tuple[int, ...], object, object, object]) -> None:
        _, shape, kind, column_major, raw = state
        if not isinstance(kind, _PickledType) or not kind.is_uint8 or column_major:
            raise pickle.UnpicklingError("an array is not of uint8, row by row")
        if not isinstance(raw, bytes):
            raise pickle.UnpicklingError("an array has no bytes")
        self.values = np.frombuffer(raw, np.uint8).reshape(shape)


# What a pickled array imports, under NumPy's old and new module names. The class
# `ndarray` is only passed on to `_PickledArray`, which ignores it: a string will do.
_ADMITTED: dict[tuple[str, str], Any] = {
    ("numpy.core.multiarray", "_reconstruct"): _PickledArray,
    ("numpy._core.multiarray", "_reconstruct"): _PickledArray,
    ("numpy", "ndarray"): "ndarray",
    ("numpy", "dtype"): _PickledType,
}


class _ArrayUnpickler(pickle._Unpickler):
    """Builds dicts, lists, strings, numbers and checked uint8 arrays, and nothing else.

    It is written in Python: the one in C allocates as many places as the greatest
    number in its memo.
    """

    dispatch: ClassVar = dict(pickle._Unpickler.dispatch)
    del dispatch[pickle.BYTEARRAY8[0]]  # allocates the memory that it claims

    def find_class(self, module: str, name: str) -> Any:
        try:
            return _ADMITTED[module, name]
        except KeyError:
            raise pickle.UnpicklingError(
                f"the pickle asks for {module}.{name}; only arrays are admitted"
            ) from None


def _require_batch_size(size: int, name: str, dataset: Cifar) -> None:
    images = dataset.images["train"] // len(dataset.batches["train"])
    most = 2 * images * dataset.row_bytes  # twice the largest official one
    if size > most:
        raise InvalidSource(
            f"{name} has {size:,} bytes; a {dataset.name} batch has at most {most:,}"
        )
