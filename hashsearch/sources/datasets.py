"""Data sets known by name: where they are looked for, and fetched from."""

import os
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.progress import DownloadColumn, Progress, TransferSpeedColumn

from hashsearch.errors import InvalidSource
from hashsearch.sources.archive import TarArchive
from hashsearch.sources.base import SPLITS, Source
from hashsearch.sources.cifar import CIFAR10, CIFAR100, CifarBatches, first_members
from hashsearch.sources.samples import Samples

CIFAR_URL = "https://www.cs.toronto.edu/~kriz"
CIFARS = {"cifar10": CIFAR10, "cifar100": CIFAR100}
# Python archives first: what a download fetches. The SHA-256 are those that Keras and
# TensorFlow check; the authors publish MD5 of the same files,
# c58f30108f718f92721af3b95e74349a and eb9058c3a382ffc7106e4002c42a8d85.
CIFAR_SHA256 = {
    "cifar10": "6d958be074577803d12ecdefd02955f39262c83c16fe9348329d7fe0b5c001ce",
    "cifar100": "85cd44d02ba6437773c5bbd22e183051d648de2e7d6b014e1ef29b855ba677a7",
}

NAMES = ("cifar10", "cifar100", "samples", "tinyimagenet32")
WITH_TEST_SPLIT = ("cifar10", "cifar100", "samples")
# <name>.tar.gz holds <name>/{train,test}/<class>/<file>; some hold no test split.
JPEG_ARCHIVES = ("cifar10", "cifar100", "tinyimagenet32")
_ARCHIVES = {
    "cifar10": ("cifar-10-python.tar.gz", "cifar-10-binary.tar.gz"),
    "cifar100": ("cifar-100-python.tar.gz", "cifar-100-binary.tar.gz"),
}
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
    if name not in NAMES:
        return None
    found = dataset_at_hand(name, split, folders)
    if found is not None:
        return found
    if name == "tinyimagenet32":
        raise InvalidSource(
            f"{name}.tar.gz with {split} images is in neither the data folder "
            f"({folders.data or 'none is named'}) nor the cache ({folders.cache}), and its owners "
            "publish none of that size"
        )
    return CifarBatches(_download_cifar(name, split, folders.cache), CIFARS[name], split)


def dataset_at_hand(name: str, split: str, folders: DataFolders) -> Source | None:
    """Find a data set by name where nothing need be fetched; None if it is not there."""
    if name == "samples":
        return Samples(split)
    for folder in (folders.data, folders.cache):
        if folder is None:
            continue
        archive = folder / f"{name}.tar.gz"
        if name in JPEG_ARCHIVES and archive.is_file():
            source = open_jpeg_split(archive, name, split)
            if source is not None:
                return source
        for official in (*CIFARS[name].folders, *_ARCHIVES[name]) if name in CIFARS else ():
            if (folder / official).exists():
                return CifarBatches(folder / official, CIFARS[name], split)
    return None


def jpeg_archive_in(path: Path) -> str | None:
    """Which of JPEG_ARCHIVES a tar archive is, by its first members; None if it is none.

    The file's own name does not count.
    """
    for name, split, *_ in (parts for parts in first_members(path) if len(parts) > 1):
        if name in JPEG_ARCHIVES and split in SPLITS:
            return name
    return None


def open_jpeg_split(path: Path, name: str, split: str) -> TarArchive | None:
    """Open a split of one of JPEG_ARCHIVES; None if the archive holds no test images.

    Whether it holds training images is not checked: a name without a split means
    train, and an archive of test images alone must then yield none of them.
    """
    under = f"{name}/{split}/"
    if split == "test" and not any(True for _ in TarArchive(path, under)):
        return None
    return TarArchive(path, under)


def _download_cifar(name: str, split: str, cache: Path) -> Path:
    """Fetch a data set's python batches (some 160 MB) into the cache, whole or not at all."""
    import pooch  # needed here alone: a bare training machine does without it
    import requests

    archive, title = _ARCHIVES[name][0], CIFARS[name].name
    pooch.get_logger().setLevel("WARNING")
    try:
        with _DownloadBar(title) as bar:
            return Path(
                pooch.retrieve(
                    f"{CIFAR_URL}/{archive}",
                    known_hash=f"sha256:{CIFAR_SHA256[name]}",
                    path=cache,
                    fname=archive,
                    downloader=pooch.HTTPDownloader(timeout=_TIMEOUT_S, progressbar=bar),
                )
            )
    except (requests.RequestException, OSError, ValueError) as error:
        raise InvalidSource(
            f"{title}'s {split} images are neither under HASHSEARCH_DATA nor in the cache, and "
            f"their download from {CIFAR_URL}/{archive} failed ({type(error).__name__})"
        ) from error


class _DownloadBar:
    """A progress bar on stderr, with the four names that pooch asks of one."""

    total: int = 0

    def __init__(self, title: str) -> None:
        self._progress = Progress(
            *Progress.get_default_columns(),
            DownloadColumn(),
            TransferSpeedColumn(),
            console=Console(stderr=True),
            transient=True,
        )
        self._task = self._progress.add_task(f"downloading {title}", total=None)

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
