"""CIFAR-10's official batches, python and binary, in a folder or an archive.

Source: https://www.cs.toronto.edu/~kriz/cifar.html. The python batches are
pickles, written by Python 2; they are read by an unpickler that admits arrays of
bytes and nothing else.
"""

import pickle
from collections import Counter
from collections.abc import Iterator
from io import BytesIO
from itertools import islice
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from hashsearch.errors import InvalidSource
from hashsearch.images import TINY_BYTES, TINY_SIDE
from hashsearch.sources.archive import members, mtime_ns, read_tar
from hashsearch.sources.base import SourceImage, encode_path

CLASSES = (
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
)
BATCHES = {
    "train": tuple(f"data_batch_{number}" for number in range(1, 6)),
    "test": ("test_batch",),
}

_MAX_BATCH_BYTES = 64 * 2**20  # twice the official 31 MB
_BINARY_ROW = 1 + TINY_BYTES  # the label, then the red, green and blue planes


class Batch(NamedTuple):
    """images: (n, 32, 32, 3) uint8 RGB; labels: (n,) int64, indices into CLASSES."""

    images: NDArray[np.uint8]
    labels: NDArray[np.int64]


class CifarBatches:
    """The images of CIFAR-10's own files, one split of them, in the order of the files."""

    def __init__(self, root: Path, split: str = "train"):
        self.root = root.resolve()
        self.split = split
        self.passed_over: Counter[str] = Counter()

    def estimate(self) -> int:
        return 10_000 * len(BATCHES[self.split])

    def __iter__(self) -> Iterator[SourceImage]:
        found = 0
        for place, mtime, data in self._files():
            found += 1
            batch = read_batch(data, f"{self.root}{place}")
            for row, (image, label) in enumerate(zip(*batch, strict=True)):
                yield SourceImage(
                    place=f"{place}#{row}",
                    label=CLASSES[label],
                    size=TINY_BYTES,
                    mtime=mtime,
                    content=image,
                )
        if found < len(BATCHES[self.split]):
            raise InvalidSource(
                f"{self.root} holds {found} of CIFAR-10's {len(BATCHES[self.split])} "
                f"{self.split} batches"
            )

    def _files(self) -> Iterator[tuple[str, int, bytes]]:
        """Yield (place, mtime in ns, bytes) of each batch of the split."""
        if self.root.is_dir():
            for name in BATCHES[self.split]:
                for path in (self.root / name, self.root / f"{name}.bin"):
                    if path.is_file():
                        status = path.stat()
                        _require_batch_size(status.st_size, str(path))
                        yield f"/{path.name}", status.st_mtime_ns, path.read_bytes()
                        break
            return
        with read_tar(self.root) as (archive, _):
            for member in members(archive):
                name = PurePosixPath(member.name).name.removesuffix(".bin")
                if member.isfile() and name in BATCHES[self.split]:
                    _require_batch_size(member.size, f"{self.root}!/{member.name}")
                    stream = archive.extractfile(member)
                    assert stream is not None, "a regular file has a stream"
                    place = "!/" + encode_path(member.name)
                    yield place, mtime_ns(member), stream.read()


def holds_cifar_batches(path: Path) -> bool:
    """Whether a folder, or a tar archive by its first members, holds CIFAR-10's batches."""
    if path.is_dir():
        names = [entry.name for entry in path.iterdir()]
        return any(name.removesuffix(".bin") in BATCHES["train"] for name in names)
    folders = (("cifar-10-batches-py",), ("cifar-10-batches-bin",))
    return any(parts[:1] in folders for parts in _first_members(path))


def holds_cifar_splits(path: Path) -> bool:
    """Whether a tar archive, by its first members, is `cifar10/{train,test}/<class>/<n>.jpg`."""
    return any(
        parts[:1] == ("cifar10",) and parts[1:2] in (("train",), ("test",))
        for parts in _first_members(path)
    )


def _first_members(path: Path) -> list[tuple[str, ...]]:
    """The paths of a tar archive's first three members, in parts."""
    with read_tar(path) as (archive, _):
        first = islice(members(archive), 3)
        return [PurePosixPath(member.name).parts for member in first]


def read_batch(data: bytes, name: str) -> Batch:
    """Read one official batch, python or binary.

    name: for messages. Raises InvalidSource on anything that is neither.
    """
    if data[:1] == b"\x80":  # a pickle's first byte; in a binary batch, a label below 10
        planes, labels = _unpickle_batch(data, name)
    elif data and len(data) % _BINARY_ROW == 0:
        rows = np.frombuffer(data, np.uint8).reshape(-1, _BINARY_ROW)
        planes, labels = rows[:, 1:], rows[:, 0].astype(np.int64)
    else:
        raise InvalidSource(f"{name} is no CIFAR-10 batch, or one cut short")
    if labels.size and (labels.min() < 0 or labels.max() >= len(CLASSES)):
        raise InvalidSource(f"{name} has labels outside CIFAR-10's 0 to 9")
    images = planes.reshape(-1, 3, TINY_SIDE, TINY_SIDE).transpose(0, 2, 3, 1)
    return Batch(np.ascontiguousarray(images), labels)


def _unpickle_batch(data: bytes, name: str) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    try:
        batch = _ArrayUnpickler(BytesIO(data), encoding="bytes").load()
        array, labels = batch[b"data"], batch[b"labels"]
    except Exception as error:  # a pickle from outside can raise anything
        raise InvalidSource(f"{name} is no CIFAR-10 batch: {error}") from error
    whole = type(labels) is list and all(type(label) is int for label in labels)
    planes = array.values if isinstance(array, _PickledArray) else None
    if not whole or planes is None or planes.shape != (len(labels), TINY_BYTES):
        raise InvalidSource(
            f"{name} is no CIFAR-10 batch: n rows of 3,072 bytes and n labels were wanted"
        )
    try:
        return planes, np.array(labels, np.int64)
    except OverflowError as error:
        raise InvalidSource(f"{name} has labels outside CIFAR-10's 0 to 9") from error


class _PickledType:
    """What stands in for `numpy.dtype`: remembers what type is meant, and is none."""

    def __init__(self, code: object, *_: object):
        self.is_uint8 = code in (b"u1", "u1")

    def __setstate__(self, state: object) -> None:
        """Byte order and fields, of which a uint8 has none."""


class _PickledArray:
    """What stands in for an array while it is unpickled: bytes and a shape, both checked.

    NumPy's own reconstruction trusts the pickle with types that hold pointers.
    """

    values: NDArray[np.uint8] | None = None

    def __init__(self, *_: object):
        """The class, shape and type to begin with; the state has the real ones."""

    def __setstate__(self, state: tuple[object, tuple[int, ...], object, object, object]) -> None:
        _, shape, kind, column_major, raw = state
        if not isinstance(kind, _PickledType) or not kind.is_uint8 or column_major:
            raise pickle.UnpicklingError("an array is not of uint8, row by row")
        if not isinstance(raw, bytes):
            raise pickle.UnpicklingError("an array has no bytes")
        self.values = np.frombuffer(raw, np.uint8).reshape(shape)


# What a pickled array asks for, in NumPy's old and new module names. The class
# `ndarray` is only ever named, so a name is all that it gets.
_ADMITTED: dict[tuple[str, str], Any] = {
    ("numpy.core.multiarray", "_reconstruct"): _PickledArray,
    ("numpy._core.multiarray", "_reconstruct"): _PickledArray,
    ("numpy", "ndarray"): "ndarray",
    ("numpy", "dtype"): _PickledType,
}


class _ArrayUnpickler(pickle.Unpickler):
    """Builds dicts, lists, strings, numbers and checked uint8 arrays, and nothing else."""

    def find_class(self, module: str, name: str) -> Any:
        try:
            return _ADMITTED[module, name]
        except KeyError:
            raise pickle.UnpicklingError(
                f"the pickle asks for {module}.{name}; arrays alone are admitted"
            ) from None


def _require_batch_size(size: int, name: str) -> None:
    if size > _MAX_BATCH_BYTES:
        raise InvalidSource(
            f"{name} has {size:,} bytes; a CIFAR-10 batch has at most {_MAX_BATCH_BYTES:,}"
        )
