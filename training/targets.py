"""What a student should find: a teacher's features of every image, small enough to be carried."""

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file
from torch import Tensor

from hashsearch.errors import TrainingError
from hashsearch.models.card import read_card
from hashsearch.progress import progress_report
from training.augment import Views, random_views
from training.device import autocast, exact, generator
from training.resnet import Teacher

FILE = "targets.safetensors"
DIRECTIONS = 128
CROPS = 16
_MILD = Views(smallest=0.5, jitter=0.0, grey=0.0)
CHUNK = 250  # images at a time, each in all its crops
_PARTS = "keys", "targets"


@dataclass(frozen=True, slots=True)
class Targets:
    """A teacher's targets, found by the content of their images.

    keys: (n,) int64, in order, see `content_keys`; rows: (n, 128) int8, of length about 127.
    teacher: its fingerprint and how it was trained, for the student's card.
    """

    keys: NDArray[np.int64]
    rows: NDArray[np.int8]
    teacher: dict[str, Any]

    @property
    def sha256(self) -> str:
        return hashlib.sha256(self.keys.tobytes() + self.rows.tobytes()).hexdigest()

    def known(self, images: NDArray[np.uint8]) -> NDArray[np.bool_]:
        """Which of (n, 32, 32, 3) uint8 images have a target: (n,) bool."""
        return np.isin(content_keys(images), self.keys)

    def of(self, images: NDArray[np.uint8], device: str) -> Tensor:
        """(n, 128) float32 of length 1: the targets of images that all have one."""
        wanted = content_keys(images)
        places = np.searchsorted(self.keys, wanted)
        assert (self.keys[places] == wanted).all()
        return F.normalize(torch.from_numpy(self.rows[places]).to(device).float())


def content_keys(images: NDArray[np.uint8]) -> NDArray[np.int64]:
    """(n,): the first 8 bytes of each image's SHA-256, by which its target is found."""
    digests = [hashlib.sha256(image.tobytes()).digest()[:8] for image in images]
    return np.frombuffer(b"".join(digests), "<i8").astype(np.int64)


def make_targets(
    teacher: Teacher, images: NDArray[np.uint8], *, seed: int, device: str
) -> NDArray[np.int8]:
    """The averaged features of each image, along their 128 main directions (all, where there
    are fewer), rounded.

    images: (n, 32, 32, 3) uint8. Returns (n, 128) int8; directions that the features
    do not have are 0.
    """
    return _reduced(averaged_features(teacher, images, seed=seed, device=device))


@torch.no_grad()
def averaged_features(
    teacher: Teacher, images: NDArray[np.uint8], *, seed: int, device: str
) -> Tensor:
    """Features of length 1, averaged over 16 mild crops and mirror images of each image.

    images: (n, 32, 32, 3) uint8. Returns (n, features) float32 on the device.
    """
    teacher.eval()
    means = []
    with progress_report("targets", len(images)) as report:
        for start in range(0, len(images), CHUNK):
            tiny = torch.from_numpy(images[start : start + CHUNK]).to(device)
            random = generator(device, seed, start)
            views = random_views(tiny.repeat(CROPS, 1, 1, 1), _MILD, random)
            with autocast(device):
                features = teacher.features(teacher.standardize(views.permute(0, 2, 3, 1)))
            directions = F.normalize(features.float()).unflatten(0, (CROPS, len(tiny)))
            means.append(directions.mean(dim=0))
            report.advance(len(tiny))
    return torch.cat(means)


def _reduced(features: Tensor) -> NDArray[np.int8]:
    rows = exact(features - features.mean(dim=0))
    variances, components = torch.linalg.eigh(rows.T @ rows)
    if not variances[-1] > 0:  # or NaN
        raise TrainingError("the teacher's features are not numbers, or the same for all images")
    main = rows @ components.flip(1)[:, :DIRECTIONS]
    rounded = (F.normalize(main) * 127).round().to(torch.int8).cpu()
    padded: NDArray[np.int8] = F.pad(rounded, (0, DIRECTIONS - rounded.shape[1])).numpy()
    return padded


def write_targets(path: Path, images: NDArray[np.uint8], rows: NDArray[np.int8]) -> None:
    """Write the targets of these images, found again by the images' content."""
    save_file(dict(zip(_PARTS, (content_keys(images), rows), strict=True)), path)
    path.chmod(0o644)


def read_targets(folder: Path) -> Targets:
    """The targets in a teacher's folder.

    Raises InvalidModel if the folder's card cannot be read, and TrainingError if there are
    no targets that can be used.
    """
    card = read_card(folder)
    if card.kind != Teacher.kind:
        raise TrainingError(f"{folder} is a {card.kind} model; a teacher was wanted")
    path = folder / FILE
    try:
        with safe_open(path, framework="numpy") as file:
            keys, rows = (file.get_tensor(name) for name in _PARTS)
    except (OSError, SafetensorError, TypeError) as error:  # TypeError: a type NumPy lacks
        raise TrainingError(f"{path} holds no targets to learn from") from error
    fits = (keys.ndim, keys.dtype, rows.dtype) == (1, np.int64, np.int8)
    if not fits or rows.shape != (len(keys), DIRECTIONS):
        raise TrainingError(
            f"{path}: (n,) int64 keys and (n, {DIRECTIONS}) int8 targets were wanted; got "
            f"{keys.shape} {keys.dtype} and {rows.shape} {rows.dtype}"
        )
    order = np.argsort(keys, kind="stable")
    origin = {"fingerprint": card.fingerprint, "training": card.training}
    return Targets(keys[order], rows[order], origin)
