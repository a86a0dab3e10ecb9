"""The binary code layer."""

import torch
from torch import Tensor


def binarize(logits: Tensor) -> Tensor:
    """Round logistic units to bits; gradients pass as if they had not been rounded.

    logits: (n, n_bits) float. Returns the same shape, exactly 0. or 1.; a
    logit of 0 becomes 1. Backwards, the gradient is that of the logistic
    function of the logits.
    Source: Krizhevsky and Hinton 2011 (rounded forwards, the rounding ignored
    backwards); Bengio et al. 2013, arXiv:1308.3432.
    """
    probabilities = torch.sigmoid(logits)
    bits = (logits >= 0).to(logits.dtype)
    return bits + (probabilities - probabilities.detach())
