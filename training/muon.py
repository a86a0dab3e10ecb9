"""Muon, an optimizer for kernels: steps along orthogonal matrices.

Source: Jordan et al. 2024, kellerjordan.github.io/posts/muon; Liu et al. 2025,
arXiv:2502.16982, for the length of a step.
"""

import math
from collections.abc import Iterable

import torch
from torch import Tensor, nn

_MOMENTUM = 0.95
# A polynomial a·s + b·s³ + c·s⁵ of the singular values, of the first source: five
# times, it brings those from 0.002 to 1 to between 0.68 and 1.21.
_POLYNOMIAL = (3.4445, -4.7750, 2.0315)
_TIMES = 5
_LENGTH = 0.2  # of a step's entries, root mean square, at rate 1: about that of AdamW


class Muon(torch.optim.Optimizer):
    """Nesterov's momentum, made orthogonal.

    kernels: (outputs, inputs) or (outputs, inputs, height, width), taken as matrices
    of `outputs` rows. rate: a tensor on their device (see schedule.py). dtype: to
    multiply in; torch.optim.Muon, which is this for matrices, has bfloat16 alone, many
    times slower where the processor lacks it.
    """

    def __init__(
        self, kernels: Iterable[nn.Parameter], *, rate: Tensor, decay: float, dtype: torch.dtype
    ):
        super().__init__(kernels, {"lr": rate, "decay": decay})
        self._dtype = dtype

    @torch.no_grad()
    def step(self) -> None:  # type: ignore[override]  # torch's may take a closure
        for group in self.param_groups:
            rate, decay = group["lr"], group["decay"]
            for kernels in _by_shape(group["params"]):
                ahead = torch.stack([self._ahead(kernel) for kernel in kernels])
                directions = orthogonal(ahead.to(self._dtype))
                length = _LENGTH * math.sqrt(max(ahead.shape[1:]))
                for kernel, direction in zip(kernels, directions, strict=True):
                    step = direction.view_as(kernel).to(kernel.dtype) * (rate * length)
                    kernel.mul_(1 - rate * decay).sub_(step)

    def _ahead(self, kernel: nn.Parameter) -> Tensor:
        """Nesterov's look ahead along the momentum, as a matrix."""
        assert kernel.grad is not None
        state = self.state[kernel]
        if not state:
            state["momentum"] = torch.zeros_like(kernel)
        momentum = state["momentum"].lerp_(kernel.grad, 1 - _MOMENTUM)
        return kernel.grad.lerp(momentum, _MOMENTUM).flatten(1)


def _by_shape(kernels: Iterable[nn.Parameter]) -> list[list[nn.Parameter]]:
    """Those whose matrices have one shape together: their products are taken in one."""
    groups: dict[tuple[int, int], list[nn.Parameter]] = {}
    for kernel in kernels:
        groups.setdefault((len(kernel), kernel[0].numel()), []).append(kernel)
    return list(groups.values())


def orthogonal(matrices: Tensor) -> Tensor:
    """About the nearest matrices all of whose singular values are 1, of the same shape and dtype.

    matrices: (n, rows, columns), or one of them. Singular values come between 0.68 and
    1.21; those of less than a five-hundredth of a matrix's norm may stay smaller.
    """
    if matrices.ndim == 2:
        return orthogonal(matrices[None])[0]
    if matrices.shape[1] > matrices.shape[2]:
        return orthogonal(matrices.mT).mT
    a, b, c = _POLYNOMIAL
    matrices = matrices / matrices.norm(dim=(1, 2), keepdim=True).clamp(min=1e-7)
    for _ in range(_TIMES):
        square = matrices @ matrices.mT
        polynomial = torch.baddbmm(square, square, square, beta=b, alpha=c)
        matrices = torch.baddbmm(matrices, polynomial, matrices, beta=a)
    return matrices
