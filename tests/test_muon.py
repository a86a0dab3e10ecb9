import numpy as np
import pytest
import torch
from torch import nn

from training.muon import Muon


@pytest.mark.parametrize("shape", [(12, 40), (40, 12), (8, 6, 3, 3), (64, 16, 1, 1)])
def test_a_step_is_the_orthogonal_matrix_nearest_to_the_gradient(shape):
    """Beside its singular vectors by numpy; the singular values end near 1, not at it."""
    random = torch.Generator().manual_seed(0)
    kernel = nn.Parameter(torch.randn(shape, generator=random))
    if len(shape) == 4:
        kernel = nn.Parameter(kernel.detach().to(memory_format=torch.channels_last))
    before = kernel.detach().clone()
    optimizer = Muon([kernel], rate=0.01, weight_decay=0.0)
    gradient = torch.randn(shape, generator=random)
    (kernel * gradient).sum().backward()
    optimizer.step()
    step = (before - kernel.detach()).flatten(1).double().numpy()
    left, _, right = np.linalg.svd(gradient.flatten(1).double().numpy(), full_matrices=False)
    length = 0.2 * 0.01 * np.sqrt(max(step.shape))  # of each singular vector
    along = np.diag(left.T @ step @ right.T) / length
    assert along.min() > 0.6
    assert along.max() < 1.3
    across = left.T @ step @ right.T / length - np.diag(along)
    assert np.abs(across).max() < 0.1  # bfloat16


def test_kernels_that_are_not_laid_out_channels_last_are_refused():
    with pytest.raises(AssertionError):
        Muon([nn.Parameter(torch.zeros(8, 6, 3, 3))], rate=0.01, weight_decay=0.0)
