"""A deeper network that computes what a trained one does, to go on training from."""

from collections.abc import Sequence

import torch
from torch import nn

from hashsearch.models.convolutional import ConvolutionalAutoencoder


@torch.no_grad()
def grown(
    trained: ConvolutionalAutoencoder, blocks: Sequence[int]
) -> ConvolutionalAutoencoder | None:
    """The model with residual blocks added at the end of its stages; None if it has more.

    A block that is added gives 0 beside its input at first, so that codes and
    pictures stay what they were. Source: the identity-preserving growth of Chen et
    al. 2016, arXiv:1511.05641, and the zero start of Goyal et al. 2017, arXiv:1706.02677.
    """
    if any(more < own for more, own in zip(blocks, trained.blocks, strict=True)):
        return None
    model = ConvolutionalAutoencoder(trained.widths, blocks)
    old = iter(trained.trunk)
    layers: list[nn.Module] = []
    new = iter(model.trunk)
    for own, more in zip(trained.blocks, blocks, strict=True):
        for number in range(1 + more):  # the strided convolution, and the blocks behind it
            layer = next(new)
            if number > own:
                layer.outer[1].weight.zero_()  # type: ignore[index,union-attr]
            else:
                layer = next(old)
            layers.append(layer)
    model.trunk = nn.Sequential(*layers)
    rest = {name: part for name, part in trained.state_dict().items() if "trunk" not in name}
    model.load_state_dict(rest, strict=False)
    return model
