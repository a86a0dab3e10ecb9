"""What a code should be, by the company it keeps: an image's own logits, and its neighbours'.

Source: the mean shift of Koohpayegani et al. 2021, arXiv:2105.07269, over the
images trained on, as they are, in place of a queue of views.
"""

import hashlib
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from hashsearch.models.convolutional import ConvolutionalAutoencoder
from hashsearch.progress import progress_report
from training.device import has_bfloat16

_BATCH = 256
_COMPANY = 2**16  # images, at most, among which neighbours are looked for
_NEAREST = 20


class Targets:
    """Directions that the code's logits should have, one for each image trained on.

    A checkpoint keeps them, since the model that they came from goes on changing.
    """

    def __init__(self, device: str) -> None:
        self.device = device
        self._directions = torch.empty(0)  # of each image that differs from all others
        self._places = torch.empty(0, dtype=torch.int64)  # in these, of each image

    def __getitem__(self, rows: NDArray[np.int64]) -> Tensor:
        """(n,) rows of the images to (n, n_bits) float32, on the device."""
        return self._directions[self._places[rows]].to(self.device, torch.float32)

    @torch.no_grad()
    def find(
        self,
        model: ConvolutionalAutoencoder,
        images: NDArray[np.uint8],
        *,
        weight: float,
    ) -> None:
        """Add to an image's logits, with this weight, the mean of its neighbours'.

        images: (n, 32, 32, 3) uint8. Each is seen as it is and mirrored, and all
        logits are brought to length 1. Neighbours are the 20 nearest, itself
        included, of at most 65,536 images; copies of an image count as one.
        """
        first, places = _distinct(images)
        model.eval()
        own = F.normalize(_logits(model, images, first, self.device))
        model.train()
        company = own[:_COMPANY]
        nearest = min(_NEAREST, len(company))
        found = torch.empty_like(own, dtype=torch.float16)
        with progress_report("neighbours", len(own)) as report:
            for start in range(0, len(own), _BATCH):
                mine = own[start : start + _BATCH]
                near = (mine @ company.T).topk(nearest).indices
                theirs = F.normalize(company[near].mean(dim=1))
                found[start : start + _BATCH] = F.normalize(mine + weight * theirs)
                report.advance(len(mine))
        self._directions, self._places = found.cpu(), torch.from_numpy(places)

    def state_dict(self) -> dict[str, Any]:
        return {"directions": self._directions, "places": self._places}

    def load_state_dict(self, state: dict[str, Any], /) -> None:
        self._directions, self._places = state["directions"], state["places"]


def _distinct(images: NDArray[np.uint8]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """A row of each image that differs from all others, as good as at random, and which each is.

    Returns (n_distinct,) rows of images, and (n,) places in these.
    """
    digests = [hashlib.blake2b(image.tobytes(), digest_size=8).digest() for image in images]
    numbers = np.frombuffer(b"".join(digests), np.uint64)
    _, first, places = np.unique(numbers, return_index=True, return_inverse=True)
    return first, places


def _logits(
    model: ConvolutionalAutoencoder,
    images: NDArray[np.uint8],
    rows: NDArray[np.int64],
    device: str,
) -> Tensor:
    """(len(rows), n_bits) float32: of these images and their mirror images, added."""
    logits = torch.empty(len(rows), model.bits, device=device)
    half = torch.autocast(torch.device(device).type, torch.bfloat16, enabled=has_bfloat16(device))
    with half, progress_report("looking at the images", len(rows)) as report:
        for start in range(0, len(rows), _BATCH):
            tiny = torch.from_numpy(images[rows[start : start + _BATCH]]).to(device)
            both = (model.code_logits(tiny).float(), model.code_logits(tiny.flip(2)).float())
            logits[start : start + _BATCH] = both[0] + both[1]
            report.advance(len(tiny))
    return logits
