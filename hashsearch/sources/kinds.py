"""The kinds of source: one table, from which opening, messages and help are read."""

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

from hashsearch.extras import HEIC_SUFFIXES
from hashsearch.images import ACCEPTED_SUFFIXES
from hashsearch.sources.arrays import NPY_MAGIC, NpyArray
from hashsearch.sources.base import Source
from hashsearch.sources.cifar import is_cifar, open_cifar
from hashsearch.sources.datasets import DATASETS, open_jpeg_split, open_tar
from hashsearch.sources.folder import Folder, ImageFile
from hashsearch.sources.parquet import LABEL_COLUMNS, PARQUET_MAGIC, ParquetImages
from hashsearch.sources.tarball import is_tar
from hashsearch.sources.tinyimages import TinyImagesFile, is_tiny_images
from hashsearch.sources.zipped import ZIP_MAGIC, ZipArchive


class Kind(NamedTuple):
    """A kind of source.

    title: its name in a sentence. recognize: whether a folder or file is of this
    kind. open: opens all of it, or its training images if it has splits.
    open_split: opens one split, "train" or "test"; None if the path lacks it.
    open_with_links: opens all of it, files outside it that links lead to included,
    where that differs from `open`. labels: what its images' labels are; empty if they have none.
    """

    title: str
    recognize: Callable[[Path], bool]
    open: Callable[[Path], Source]
    open_split: Callable[[Path, str], Source | None] = lambda path, split: None
    open_with_links: Callable[[Path], Source] | None = None
    labels: str = ""


def _starts_or_ends(first_bytes: bytes | tuple[bytes, ...], suffix: str) -> Callable[[Path], bool]:
    """Recognize files by their first bytes, and by the suffix those whose bytes are damaged."""

    def recognize(path: Path) -> bool:
        with path.open("rb") as file:
            start = file.read(8)
        return start.startswith(first_bytes) or path.suffix.lower() == suffix

    return recognize


def _has_image_suffix(path: Path) -> bool:
    return path.suffix.lower() in ACCEPTED_SUFFIXES | HEIC_SUFFIXES


def _in_words(names: Sequence[str]) -> str:
    *others, last = names
    return f"{', '.join(others)} or {last}"


_FOLDER = "the name of the folder that an image lies in"

# A path is of the first kind that recognizes it: folders of a special layout come
# before "a folder", and the kinds after it are asked about files only.
KINDS = (
    Kind(
        "CIFAR-10 or CIFAR-100 batches",
        is_cifar,
        open_cifar,
        open_cifar,
        labels="the name of a class",
    ),
    Kind(
        "a folder",
        Path.is_dir,
        Folder,
        open_with_links=partial(Folder, follow_links=True),
        labels=f"{_FOLDER}, below the source",
    ),
    Kind("a tiny_images.bin file", is_tiny_images, TinyImagesFile),
    Kind("an .npy array", _starts_or_ends(NPY_MAGIC, ".npy"), NpyArray),
    Kind(
        "a Parquet file",
        _starts_or_ends(PARQUET_MAGIC, ".parquet"),
        ParquetImages,
        labels=f"in a column {_in_words(LABEL_COLUMNS)}",
    ),
    Kind("a zip archive", _starts_or_ends(ZIP_MAGIC, ".zip"), ZipArchive, labels=_FOLDER),
    Kind("an image file", _has_image_suffix, ImageFile),
    Kind(
        "a tar archive (.tar, .tar.gz, .tar.bz2 or .tar.xz)",
        is_tar,
        open_tar,
        open_jpeg_split,
        labels=f"{_FOLDER}, or in a .cls or .json file beside it",
    ),
)


def kind_of(path: Path) -> Kind | None:
    """The kind of a folder or file that exists; None if it is of no kind."""
    if not path.is_dir() and not path.is_file():  # reading a pipe would never end
        return None
    return next((kind for kind in KINDS if kind.recognize(path)), None)


def kinds_in_words() -> str:
    """All kinds, for a sentence: "a folder, a zip archive or a tar archive"."""
    return _in_words([kind.title for kind in KINDS])


def how_labels_are_given(path: Path) -> str:
    """Say what the labels of a path's images are, and how to give others."""
    kind = kind_of(path)
    own = (
        f"a label is {kind.labels}, or given by" if kind and kind.labels else "labels are given by"
    )
    return f"{own} hashsearch index --labels; then name the gallery instead of this source"


def sources_in_words() -> str:
    """All that `open_source` opens, for a sentence."""
    return f"{kinds_in_words()}, or the name of a data set: {', '.join(DATASETS)}"
