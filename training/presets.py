"""Named settings of training jobs."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class DensePreset:
    """Settings of a dense autoencoder trained by reconstruction alone.

    widths: pixels, hidden layers, code bits. hidden: units of the hidden layers.
    steps: updates of `batch` images each; the learning rate rises over the first
    3% of them and falls along a cosine to zero.
    """

    widths: tuple[int, ...]
    hidden: str
    steps: int
    batch: int
    learning_rate: float
    weight_decay: float = 0.01
    flip: bool = True  # mirror every second image, at random


PRESETS = {
    # A first model in about three minutes on two cores, for `hashsearch demo`:
    # smaller than the paper's, with rectified units, which learn without the
    # layer-wise pre-training that deep logistic ones need.
    "dense256-quick": DensePreset(
        widths=(3072, 1024, 512, 256),
        hidden="relu",
        steps=3000,
        batch=256,
        learning_rate=2e-3,
    ),
}
