"""A teacher's targets for its students: reduced features of every image, in a small file."""

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
from hashsearch.models.card import model_name, read_card
from hashsearch.progress import progress_report
from training.augment import Views, random_views
from training.device import autocast, exact, generator
from training.resnet import Teacher

FILE = "targets.safetensors"
DIRECTIONS = 128
CROPS = 16
_MILD = Views(smallest=0.5, jitter=0.0, grey=0.0)
CHUNK = 250  # images per batch, each with all its crops
_PARTS = "keys", "targets"


@dataclass(frozen=True, slots=True)
class Targets:
    """A teacher's targets, looked up by the content of the images.

    keys: (n,) int64, ascending, see `content_keys`; rows: (n, 128) int8, of norm about 127.
    teacher: the teacher's fingerprint and training record, for the student's card.
    """

    keys: NDArray[np.int64]
    rows: NDArray[np.int8]
    teacher: dict[str, Any]

    @property
    def sha256(self) -> str:
        return hashlib.sha256(self.keys.tobytes() + self.rows.tobytes()).hexdigest()

    def known(self, images: NDArray[np.uint8]) -> NDArray[np.bool_]:
        """(n,) bool: which of (n, 32, 32, 3) uint8 images have a target."""
        return np.isin(content_keys(images), self.keys)

    def of(self, images: NDArray[np.uint8], device: str) -> Tensor:
        """(n, 128) float32 targets of norm 1; every image must have one."""
        wanted = content_keys(images)
        places = np.searchsorted(self.keys, wanted)
        assert (self.keys[places] == wanted).all()
        return F.normalize(torch.from_numpy(self.rows[places]).to(device).float())


def content_keys(images: NDArray[np.uint8]) -> NDArray[np.int64]:
    """(n,) int64: the first 8 bytes of each image's SHA-256, the key of its target."""
    digests = [hashlib.sha256(image.tobytes()).digest()[:8] for image in images]
    return np.frombuffer(b"".join(digests), "<i8").astype(np.int64)


def make_targets(
    teacher: Teacher, images: NDArray[np.uint8], *, seed: int, device: str
) -> NDArray[np.int8]:
    """Compute the images' targets: averaged features, reduced to 128 principal components.

    images: (n, 32, 32, 3) uint8. Returns (n, 128) int8, normalised to 127 before rounding.
    Features with fewer than 128 dimensions are padded with zeros.
    """
    return _reduced(averaged_features(teacher, images, seed=seed, device=device))


@torch.no_grad()
def averaged_features(
    teacher: Teacher, images: NDArray[np.uint8], *, seed: int, device: str
) -> Tensor:
    """Average each image's normalised features over 16 mild random crops, mirrored at random.

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
        raise TrainingError("the teacher's features are not finite, or equal for all images")
    main = rows @ components.flip(1)[:, :DIRECTIONS]
    rounded = (F.normalize(main) * 127).round().to(torch.int8).cpu()
    padded: NDArray[np.int8] = F.pad(rounded, (0, DIRECTIONS - rounded.shape[1])).numpy()
    return padded


def write_targets(path: Path, images: NDArray[np.uint8], rows: NDArray[np.int8]) -> None:
    """Write the targets of these images, with keys made from the images' content."""
    save_file(dict(zip(_PARTS, (content_keys(images), rows), strict=True)), path)
    path.chmod(0o644)


def read_targets(folder: Path) -> Targets:
    """Read the targets in a teacher's folder.

    Raises InvalidModel if the folder's card cannot be read, and TrainingError if its model is
    not a teacher or the targets are missing or invalid.
    """
    card = read_card(folder)
    if card.kind != Teacher.kind:
        raise TrainingError(f"{model_name(folder)} is a {card.kind} model, not a teacher")
    path = folder / FILE
    try:
        with safe_open(path, framework="numpy") as file:
            keys, rows = (file.get_tensor(name) for name in _PARTS)
    except (OSError, SafetensorError, TypeError) as error:  # TypeError: a dtype NumPy lacks
        raise TrainingError(f"{path} holds no readable targets") from error
    fits = (keys.ndim, keys.dtype, rows.dtype) == (1, np.int64, np.int8)
    if not fits or rows.shape != (len(keys), DIRECTIONS):
        raise TrainingError(
            f"{path} must hold (n,) int64 keys and (n, {DIRECTIONS}) int8 targets; got "
            f"{keys.shape} {keys.dtype} and {rows.shape} {rows.dtype}"
        )
    order = np.argsort(keys, kind="stable")
    origin = {"fingerprint": card.fingerprint, "training": card.training}
    return Targets(keys[order], rows[order], origin)
