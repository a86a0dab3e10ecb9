"""AdamW and Muon as every stage uses them, and one gradient step on a loss."""

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor, nn

from training.device import has_bfloat16
from training.muon import Muon


def adam(weights: Iterable[nn.Parameter], device: str, *, decay: float) -> torch.optim.AdamW:
    """AdamW with a learning rate that is set at every step; a CUDA graph can capture it."""
    return torch.optim.AdamW(
        weights,
        lr=torch.zeros((), device=device),
        weight_decay=decay,
        fused=True,
        capturable=torch.device(device).type == "cuda",
    )


def muon(kernels: Iterable[nn.Parameter], device: str, *, decay: float) -> Muon:
    """Muon with a learning rate that is set at every step; in bfloat16 if the hardware has it."""
    dtype = torch.bfloat16 if has_bfloat16(device) else torch.float32
    return Muon(kernels, rate=torch.zeros((), device=device), decay=decay, dtype=dtype)


def kernels_and_others(
    weights: Iterable[nn.Parameter],
) -> tuple[list[nn.Parameter], list[nn.Parameter]]:
    """Split weights into kernels and matrices, for Muon, and the others, for AdamW."""
    every = list(weights)
    return [w for w in every if w.ndim > 1], [w for w in every if w.ndim < 2]


def descend(optimizers: Sequence[torch.optim.Optimizer], loss: Tensor) -> Tensor:
    """Take one gradient step on a loss; returns the loss."""
    for optimizer in optimizers:
        optimizer.zero_grad(set_to_none=True)
    loss.backward()
    for optimizer in optimizers:
        optimizer.step()
    return loss.detach()


def descend_sum(
    optimizers: Sequence[torch.optim.Optimizer], terms: dict[str, Tensor]
) -> dict[str, Tensor]:
    """Take one gradient step on the sum of the terms; returns the sum, as "loss", and each term."""
    loss = descend(optimizers, torch.stack(list(terms.values())).sum())
    return {"loss": loss} | {name: term.detach() for name, term in terms.items()}
