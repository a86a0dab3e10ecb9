"""The teacher's network: ResNet-18 for 32×32 pixels."""

from typing import Any

import torch
from torch import Tensor, nn

from hashsearch.errors import InvalidModel
from hashsearch.models.autoencoder import StoredModel

_STAGES = (1, 2, 4, 8)  # channels of each stage, as multiples of the width
_BLOCKS = 2  # per stage
_MAX_WIDTH = 1024


class Teacher(StoredModel):
    """Maps pixels to features. Only training uses it: the default model can learn from it.

    width: channels of the first of four stages; 64 gives ResNet-18 with 11.2 million
    weights. The stem is a 3×3 convolution without pooling. Pixels are standardised with one
    mean per colour and a single standard deviation.
    Source: He et al. 2016, arXiv:1512.03385; the stem for 32×32 as in Chen et al. 2020,
    arXiv:2002.05709, appendix B.9.
    """

    kind = "teacher"
    stored = torch.bfloat16
    bits = 0

    def __init__(self, width: int):
        super().__init__()
        if not isinstance(width, int) or not 0 < width <= _MAX_WIDTH:
            raise InvalidModel(f"the width must be an integer from 1 to {_MAX_WIDTH}; got {width}")
        self.width = width
        self.features_width = _STAGES[-1] * width
        self.register_buffer("pixel_mean", torch.zeros(3))
        self.register_buffer("pixel_std", torch.ones(()))
        layers: list[nn.Module] = [*_convolution(3, width), nn.ReLU(inplace=True)]
        inputs = width
        for number, multiple in enumerate(_STAGES):
            for block in range(_BLOCKS):
                stride = 2 if number and not block else 1
                layers.append(_Block(inputs, multiple * width, stride))
                inputs = multiple * width
        self.trunk = nn.Sequential(*layers)

    def architecture(self) -> dict[str, Any]:
        return {"width": self.width}

    def standardize(self, tiny: Tensor) -> Tensor:
        """(n, 32, 32, 3) uint8 to (n, 3, 32, 32) float of mean 0 and variance 1."""
        return ((tiny - self.pixel_mean) / self.pixel_std).permute(0, 3, 1, 2)

    def features(self, pixels: Tensor) -> Tensor:
        """(n, 3, 32, 32) standardised to (n, 8·width) float, averaged over the 4×4 positions."""
        maps: Tensor = self.trunk(pixels)
        return maps.mean(dim=(2, 3))


class _Block(nn.Module):
    def __init__(self, inputs: int, outputs: int, stride: int):
        super().__init__()
        self.inner = nn.Sequential(*_convolution(inputs, outputs, stride=stride), nn.ReLU(True))
        self.outer = nn.Sequential(*_convolution(outputs, outputs))
        same = stride == 1 and inputs == outputs
        self.shortcut: nn.Module = nn.Identity()
        if not same:
            self.shortcut = nn.Sequential(*_convolution(inputs, outputs, kernel=1, stride=stride))

    def forward(self, maps: Tensor) -> Tensor:
        return torch.relu(self.shortcut(maps) + self.outer(self.inner(maps)))


def _convolution(
    inputs: int, outputs: int, *, kernel: int = 3, stride: int = 1
) -> tuple[nn.Module, nn.Module]:
    return (
        nn.Conv2d(inputs, outputs, kernel, stride, padding=kernel // 2, bias=False),
        nn.BatchNorm2d(outputs),
    )
