"""Data sets known by name: one table, where they are looked for, and their download."""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.progress import DownloadColumn, Progress, TransferSpeedColumn

from hashsearch.errors import InvalidSource
from hashsearch.sources.archive import TarArchive
from hashsearch.sources.base import SPLITS, Source
from hashsearch.sources.cifar import CIFAR10, CIFAR100, Cifar, CifarBatches, first_members
from hashsearch.sources.samples import Samples

CIFAR_URL = "https://www.cs.toronto.edu/~kriz"


@dataclass(frozen=True, slots=True)
class Dataset:
    """A data set known by its name.

    has_test_split: whether test images exist for it anywhere. in_jpegs: how many
    images each split has at most, if a `<name>.tar.gz` with
    `<name>/{train,test}/<class>/<file>` may hold it; some of these archives hold no
    test split. cifar: how its official batches are laid
    out. archives: the official files; the first is downloaded, and has this sha256.
    """

    has_test_split: bool
    in_jpegs: Mapping[str, int] | None = None
    cifar: Cifar | None = None
    archives: tuple[str, ...] = ()
    sha256: str = ""


# The SHA-256 are those that Keras and TensorFlow check; the authors publish MD5 of the same
# files, c58f30108f718f92721af3b95e74349a and eb9058c3a382ffc7106e4002c42a8d85.
DATASETS = {
    "cifar10": Dataset(
        has_test_split=True,
        in_jpegs=CIFAR10.images,
        cifar=CIFAR10,
        archives=("cifar-10-python.tar.gz", "cifar-10-binary.tar.gz"),
        sha256="6d958be074577803d12ecdefd02955f39262c83c16fe9348329d7fe0b5c001ce",
    ),
    "cifar100": Dataset(
        has_test_split=True,
        in_jpegs=CIFAR100.images,
        cifar=CIFAR100,
        archives=("cifar-100-python.tar.gz", "cifar-100-binary.tar.gz"),
        sha256="85cd44d02ba6437773c5bbd22e183051d648de2e7d6b014e1ef29b855ba677a7",
    ),
    "samples": Dataset(has_test_split=True),
    "tinyimagenet32": Dataset(has_test_split=False, in_jpegs={"train": 100_000}),
}
_TIMEOUT_S = (5, 20)  # to connect, and between two pieces that arrive


@dataclass(frozen=True, slots=True)
class DataFolders:
    """Where data sets lie: the folder that the user named, if any, and the user's cache."""

    data: Path | None
    cache: Path

    @classmethod
    def of_environment(cls) -> "DataFolders":
        """The folder that HASHSEARCH_DATA names, and the system's folder for caches."""
        named = os.environ.get("HASHSEARCH_DATA")
        try:
            from platformdirs import user_cache_path
        except ImportError:  # a bare training machine lacks it
            cache = Path.home() / ".cache" / "hashsearch"
        else:
            cache = user_cache_path("hashsearch")
        return cls(Path(named) if named else None, cache)


def known_dataset(name: str, split: str, folders: DataFolders) -> Source | None:
    """Find a data set by name, and download it if necessary; None if the name is unknown.

    Raises InvalidSource if the data set is not on this machine and cannot be
    downloaded.
    """
    if name not in DATASETS:
        return None
    found = dataset_at_hand(name, split, folders)
    if found is not None:
        return found
    cifar = DATASETS[name].cifar
    if cifar is None:
        raise InvalidSource(
            f"{name}.tar.gz with {split} images is in neither the data folder "
            f"({folders.data or 'none is named'}) nor the cache ({folders.cache}), and its owners "
            "publish no download of that size"
        )
    return CifarBatches(_download_cifar(name, cifar, split, folders.cache), cifar, split)


def dataset_at_hand(name: str, split: str, folders: DataFolders) -> Source | None:
    """Find a data set on this machine by its name; None if it is not here."""
    if name == "samples":
        return Samples(split)
    dataset = DATASETS[name]
    for folder in (folders.data, folders.cache):
        if folder is None:
            continue
        archive = folder / f"{name}.tar.gz"
        if dataset.in_jpegs and archive.is_file():
            source = _jpeg_split(archive, name, split)
            if source is not None:
                return source
        if dataset.cifar is None:
            continue
        for official in (*dataset.cifar.folders, *dataset.archives):
            if (folder / official).exists():
                return CifarBatches(folder / official, dataset.cifar, split)
    return None


def open_tar(path: Path) -> TarArchive:
    """Open a tar archive: its training images if a data set lies in it as JPEG files."""
    name = _jpeg_dataset_in(path)
    return TarArchive(path) if name is None else _jpegs(path, name, "train")


def open_jpeg_split(path: Path, split: str) -> TarArchive | None:
    """Open a split of a data set that lies in a tar archive as JPEG files, if one does."""
    name = _jpeg_dataset_in(path)
    return None if name is None else _jpeg_split(path, name, split)


def _jpeg_dataset_in(path: Path) -> str | None:
    """The data set whose JPEG files a tar archive holds, by its first members, or None.

    The archive's own name does not count.
    """
    for name, split, *_ in (parts for parts in first_members(path) if len(parts) > 1):
        if name in DATASETS and DATASETS[name].in_jpegs and split in SPLITS:
            return name
    return None


def _jpeg_split(path: Path, name: str, split: str) -> TarArchive | None:
    """Open a split of a data set's JPEG files; None if the archive holds no test images.

    Whether it holds training images is not checked: a name without a split means
    train, and an archive of nothing but test images must then yield none.
    """
    if split == "test" and not any(True for _ in _jpegs(path, name, split)):
        return None
    return _jpegs(path, name, split)


def _jpegs(path: Path, name: str, split: str) -> TarArchive:
    return TarArchive(path, f"{name}/{split}/", (DATASETS[name].in_jpegs or {}).get(split))


def _download_cifar(name: str, cifar: Cifar, split: str, cache: Path) -> Path:
    """Fetch a data set's python batches (some 160 MB) into the cache, whole or not at all."""
    import pooch  # here, because a bare training machine lacks it
    import requests

    archive = DATASETS[name].archives[0]
    pooch.get_logger().setLevel("WARNING")
    try:
        with _DownloadBar(cifar.name) as bar:
            return Path(
                pooch.retrieve(
                    f"{CIFAR_URL}/{archive}",
                    known_hash=f"sha256:{DATASETS[name].sha256}",
                    path=cache,
                    fname=archive,
                    downloader=pooch.HTTPDownloader(timeout=_TIMEOUT_S, progressbar=bar),
                )
            )
    except (requests.RequestException, OSError, ValueError) as error:
        raise InvalidSource(
            f"{cifar.name}'s {split} images are neither under HASHSEARCH_DATA nor in the cache, "
            f"and their download from {CIFAR_URL}/{archive} failed ({type(error).__name__})"
        ) from error


class _DownloadBar:
    """A progress bar on stderr, with the four attributes that pooch uses."""

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
