"""Muon for the kernels of a network that holds them channels-last."""

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn


class Muon(torch.optim.Muon):
    """Steps along the nearest orthogonal matrix to each gradient's momentum.

    kernels: (outputs, inputs) or (outputs, inputs, height, width), the latter laid
    out channels-last; each is taken as the matrix of `outputs` rows that it is in
    memory, since torch's Muon takes nothing else. A step is as long as one of AdamW
    at the same rate is about to be.
    Source: Jordan et al. 2024, kellerjordan.github.io/posts/muon; Liu et al. 2025,
    arXiv:2502.16982, for the length of a step.
    """

    def __init__(self, kernels: Iterable[nn.Parameter], *, rate: float, weight_decay: float):
        self._kernels = list(kernels)
        matrices = [nn.Parameter(_matrix(kernel.detach())) for kernel in self._kernels]
        pairs = zip(matrices, self._kernels, strict=True)
        assert all(matrix.data_ptr() == kernel.data_ptr() for matrix, kernel in pairs)
        super().__init__(
            matrices,
            lr=rate,
            weight_decay=weight_decay,
            adjust_lr_fn="match_rms_adamw",
        )

    def zero_grad(self, set_to_none: bool = True) -> None:
        for kernel in self._kernels:
            kernel.grad = None

    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        (group,) = self.param_groups
        for kernel, matrix in zip(self._kernels, group["params"], strict=True):
            assert kernel.grad is not None
            matrix.grad = _matrix(kernel.grad)
        super().step(closure)  # type: ignore[no-untyped-call]


def _matrix(kernel: Tensor) -> Tensor:
    """One row an output; the same memory, where that is how it lies."""
    return kernel if kernel.ndim == 2 else kernel.permute(0, 2, 3, 1).flatten(1)
