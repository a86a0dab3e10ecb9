"""Muon, an optimizer that orthogonalizes the updates of kernels and matrices.

Source: Jordan et al. 2024, kellerjordan.github.io/posts/muon; the step length is that of
Liu et al. 2025, arXiv:2502.16982.
"""

import math
from collections.abc import Iterable

import torch
from torch import Tensor, nn

_MOMENTUM = 0.95
# Newton-Schulz iteration with the first source's polynomial a·s + b·s³ + c·s⁵ of the singular
# values: five iterations map values from 0.002 to 1 to between 0.68 and 1.21.
_POLYNOMIAL = (3.4445, -4.7750, 2.0315)
_ITERATIONS = 5
_STEP_RMS = 0.2  # root mean square of a step's entries at learning rate 1, about that of AdamW


class Muon(torch.optim.Optimizer):
    """Steps along orthogonalized Nesterov momentum.

    kernels: (outputs, inputs) or (outputs, inputs, height, width), treated as matrices
    of `outputs` rows. rate: learning rate, a tensor on their device (see schedule.py).
    dtype: used for the matrix products. torch.optim.Muon does the same for matrices, but
    only in bfloat16, which is many times slower on processors without it.
    """

    def __init__(
        self, kernels: Iterable[nn.Parameter], *, rate: Tensor, decay: float, dtype: torch.dtype
    ):
        super().__init__(kernels, {"lr": rate, "decay": decay})
        self._dtype = dtype

    @torch.no_grad()
    def step(self) -> None:  # type: ignore[override]  # torch's step takes an optional closure
        for group in self.param_groups:
            rate, decay = group["lr"], group["decay"]
            for kernels in _by_shape(group["params"]):
                updates = torch.stack([self._nesterov(kernel) for kernel in kernels])
                directions = orthogonal(updates.to(self._dtype))
                length = _STEP_RMS * math.sqrt(max(updates.shape[1:]))
                for kernel, direction in zip(kernels, directions, strict=True):
                    step = direction.view_as(kernel).to(kernel.dtype) * (rate * length)
                    kernel.mul_(1 - rate * decay).sub_(step)

    def _nesterov(self, kernel: nn.Parameter) -> Tensor:
        """Update the kernel's momentum; return the Nesterov update as a matrix."""
        assert kernel.grad is not None
        state = self.state[kernel]
        if not state:
            state["momentum"] = torch.zeros_like(kernel)
        momentum = state["momentum"].lerp_(kernel.grad, 1 - _MOMENTUM)
        return kernel.grad.lerp(momentum, _MOMENTUM).flatten(1)


def _by_shape(kernels: Iterable[nn.Parameter]) -> list[list[nn.Parameter]]:
    """Group kernels by matrix shape, so that each group is multiplied as one batch."""
    groups: dict[tuple[int, int], list[nn.Parameter]] = {}
    for kernel in kernels:
        groups.setdefault((len(kernel), kernel[0].numel()), []).append(kernel)
    return list(groups.values())


def orthogonal(matrices: Tensor) -> Tensor:
    """Approximate the nearest matrices whose singular values are all 1.

    matrices: (n, rows, columns) or (rows, columns). Returns the same shape and dtype, with
    singular values between 0.68 and 1.21; those below 1/500 of a matrix's norm may stay
    smaller.
    """
    if matrices.ndim == 2:
        return orthogonal(matrices[None])[0]
    if matrices.shape[1] > matrices.shape[2]:
        return orthogonal(matrices.mT).mT
    a, b, c = _POLYNOMIAL
    matrices = matrices / matrices.norm(dim=(1, 2), keepdim=True).clamp(min=1e-7)
    for _ in range(_ITERATIONS):
        square = matrices @ matrices.mT
        polynomial = torch.baddbmm(square, square, square, beta=b, alpha=c)
        matrices = torch.baddbmm(matrices, polynomial, matrices, beta=a)
    return matrices
