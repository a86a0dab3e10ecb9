"""Data sets known by name: where they are looked for, and fetched from."""

import os
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.progress import DownloadColumn, Progress, TransferSpeedColumn

from hashsearch.errors import InvalidSource
from hashsearch.sources.archive import TarArchive
from hashsearch.sources.base import Source
from hashsearch.sources.cifar import CifarBatches
from hashsearch.sources.samples import Samples

CIFAR10_URL = "https://www.cs.toronto.edu/~kriz/cifar-10-python.tar.gz"
# The SHA-256 that Keras and TensorFlow check; its authors publish the MD5,
# c58f30108f718f92721af3b95e74349a, of the same file.
CIFAR10_SHA256 = "6d958be074577803d12ecdefd02955f39262c83c16fe9348329d7fe0b5c001ce"

WITH_TEST_SPLIT = ("cifar10", "samples")
_JPEG_ARCHIVE = "cifar10.tar.gz"  # cifar10/{train,test}/<class>/<n>.jpg
_TINY_IMAGENET = "tinyimagenet32.tar.gz"  # tinyimagenet32/train/<wordnet id>/<name>.jpg
_OFFICIAL = (
    "cifar-10-batches-py",
    "cifar-10-batches-bin",
    "cifar-10-python.tar.gz",
    "cifar-10-binary.tar.gz",
)
_TIMEOUT_S = (5, 20)  # to connect, and between two pieces that arrive


@dataclass(frozen=True, slots=True)
class DataFolders:
    """Where data sets lie: the folder the user named, if any, and the user's cache."""

    data: Path | None
    cache: Path

    @classmethod
    def of_environment(cls) -> "DataFolders":
        """The folder that HASHSEARCH_DATA names, and the cache where the system keeps such."""
        named = os.environ.get("HASHSEARCH_DATA")
        try:
            from platformdirs import user_cache_path
        except ImportError:  # a bare training machine does without it
            cache = Path.home() / ".cache" / "hashsearch"
        else:
            cache = user_cache_path("hashsearch")
        return cls(Path(named) if named else None, cache)


def known_dataset(name: str, split: str, folders: DataFolders) -> Source | None:
    """Find a data set by name, downloading it if need be; None if no such name is known.

    Raises InvalidSource if the name is known, the data not here, and not to be
    had from its owners either.
    """
    if name not in ("samples", "cifar10", "tinyimagenet32"):
        return None
    found = dataset_at_hand(name, split, folders)
    if found is not None:
        return found
    if name == "tinyimagenet32":
        raise InvalidSource(
            f"{_TINY_IMAGENET} is in neither the data folder ({folders.data or 'none is named'}) "
            f"nor the cache ({folders.cache}), and its owners publish none of that size"
        )
    return CifarBatches(_download_cifar10(folders.cache), split)


def dataset_at_hand(name: str, split: str, folders: DataFolders) -> Source | None:
    """Find a data set by name where nothing need be fetched; None if it is not there."""
    if name == "samples":
        return Samples(split)
    for folder in (folders.data, folders.cache):
        if folder is None:
            continue
        if name == "tinyimagenet32" and (folder / _TINY_IMAGENET).is_file():
            return TarArchive(folder / _TINY_IMAGENET, under=f"tinyimagenet32/{split}/")
        if name == "cifar10" and (folder / _JPEG_ARCHIVE).is_file():
            return TarArchive(folder / _JPEG_ARCHIVE, under=f"cifar10/{split}/")
        for official in _OFFICIAL if name == "cifar10" else ():
            if (folder / official).exists():
                return CifarBatches(folder / official, split)
    return None


def _download_cifar10(cache: Path) -> Path:
    """Fetch CIFAR-10's python batches (163 MB) into the cache, checked, whole or not at all."""
    import pooch  # needed here alone: a bare training machine does without it
    import requests

    pooch.get_logger().setLevel("WARNING")
    try:
        with _DownloadBar() as bar:
            return Path(
                pooch.retrieve(
                    CIFAR10_URL,
                    known_hash=f"sha256:{CIFAR10_SHA256}",
                    path=cache,
                    fname="cifar-10-python.tar.gz",
                    downloader=pooch.HTTPDownloader(timeout=_TIMEOUT_S, progressbar=bar),
                )
            )
    except (requests.RequestException, OSError, ValueError) as error:
        raise InvalidSource(
            "CIFAR-10 is neither under HASHSEARCH_DATA nor in the cache, and its download "
            f"from {CIFAR10_URL} failed ({type(error).__name__})"
        ) from error


class _DownloadBar:
    """A progress bar on stderr, with the four names that pooch asks of one."""

    total: int = 0

    def __init__(self) -> None:
        self._progress = Progress(
            *Progress.get_default_columns(),
            DownloadColumn(),
            TransferSpeedColumn(),
            console=Console(stderr=True),
            transient=True,
        )
        self._task = self._progress.add_task("downloading CIFAR-10", total=None)

    def __enter__(self) -> "_DownloadBar":
        self._progress.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._progress.stop()

    def update(self, n_bytes: int) -> None:
        self._progress.update(self._task, total=self.total or None, advance=n_bytes)

    def reset(self) -> None:
        self._progress.reset(self._task)

    def close(self) -> None:
        self._progress.stop()
