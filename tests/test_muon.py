import pytest
import torch
from torch import nn

from training.muon import Muon, orthogonal


@pytest.mark.parametrize("shape", [(12, 40), (40, 12), (30, 30)])
def test_singular_values_come_near_one_and_singular_vectors_stay(shape):
    matrix = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    left, values, right = torch.linalg.svd(matrix, full_matrices=False)
    found = left.T @ orthogonal(matrix) @ right.T
    large = values > 0.02 * matrix.norm()
    assert large.sum() > 10
    assert found.diagonal()[large].min() > 0.65
    assert found.diagonal().max() < 1.25
    torch.testing.assert_close(found, found.diagonal().diag(), rtol=0, atol=1e-4)


def test_steps_are_those_of_torch_for_matrices():
    random = torch.Generator().manual_seed(0)
    ours, theirs = (nn.Parameter(torch.ones(20, 50)) for _ in range(2))
    settings = {"momentum": 0.95, "adjust_lr_fn": "match_rms_adamw"}
    peer = torch.optim.Muon([theirs], lr=0.01, weight_decay=0.1, **settings)
    muon = Muon([ours], rate=0.01, decay=0.1, dtype=torch.bfloat16)
    for _ in range(5):
        ours.grad = torch.randn(20, 50, generator=random)
        theirs.grad = ours.grad.clone()
        muon.step()
        peer.step()
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-6)


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_a_kernel_is_a_matrix_however_it_lies_in_memory(memory_format):
    random = torch.Generator().manual_seed(0)
    values = torch.randn(8, 6, 3, 3, generator=random)
    gradient = torch.randn(8, 6, 3, 3, generator=random)
    matrix = nn.Parameter(values.flatten(1))
    matrix.grad = gradient.flatten(1)
    kernel = nn.Parameter(values.clone(memory_format=memory_format))
    kernel.grad = gradient.clone(memory_format=memory_format)
    for weights in (matrix, kernel):
        Muon([weights], rate=0.01, decay=0.1, dtype=torch.float32).step()
    torch.testing.assert_close(kernel.flatten(1), matrix)


def test_kernels_of_one_shape_are_stepped_together_as_each_alone():
    random = torch.Generator().manual_seed(0)
    shapes = [(8, 6, 3, 3), (8, 54), (20, 5), (8, 6, 3, 3), (5, 20)]
    drawn = [torch.randn(shape, generator=random) for shape in shapes]
    gradients = [torch.randn(shape, generator=random) for shape in shapes]
    together, alone = ([nn.Parameter(values.clone()) for values in drawn] for _ in range(2))
    groups = [together, *([kernel] for kernel in alone)]
    for kernel, gradient in zip([*together, *alone], gradients * 2, strict=True):
        kernel.grad = gradient.clone()
    for kernels in groups:
        muon = Muon(kernels, rate=torch.tensor(0.1), decay=0.1, dtype=torch.float32)
        for _ in range(3):
            muon.step()
    for ours, theirs, before in zip(together, alone, drawn, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-5)
        assert (ours - before).abs().max() > 0.01
