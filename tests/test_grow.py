"""A grown network computes what the one it was grown from does, and learns more."""

import pytest
import torch
from numpy.testing import assert_allclose

from hashsearch.models.convolutional import ConvolutionalAutoencoder
from training.grow import grown


@pytest.fixture
def trained(tiny_images):
    """A model whose normalisation has seen images."""
    torch.manual_seed(0)
    model = ConvolutionalAutoencoder((8, 16, 32), (0, 1, 0)).train()
    model.pixel_mean.fill_(120)
    model.pixel_std.fill_(60)
    with torch.no_grad():
        for _ in range(3):
            model.decode((model.code_logits(torch.from_numpy(tiny_images)) >= 0).float())
    return model


@pytest.mark.parametrize("blocks", [(0, 1, 0), (1, 1, 0), (0, 2, 0), (2, 3, 1)])
def test_a_grown_model_gives_the_same_logits_and_pictures(trained, tiny_images, blocks):
    tiny = torch.from_numpy(tiny_images[:64])
    bits = (trained.eval().code_logits(tiny) >= 0).float()
    expected = (trained.code_logits(tiny), trained.address_logits(tiny), trained.reconstruct(bits))
    model = grown(trained, blocks)
    assert model.architecture() == {"widths": [8, 16, 32], "blocks": list(blocks)}
    model.eval()
    found = (model.code_logits(tiny), model.address_logits(tiny), model.reconstruct(bits))
    for ours, theirs in zip(found, expected, strict=True):
        assert_allclose(ours.detach(), theirs.detach(), atol=1e-5)


def test_the_blocks_added_begin_to_learn_at_once(trained, tiny_images):
    model = grown(trained, (0, 2, 1)).train()
    model.code_logits(torch.from_numpy(tiny_images[:64])).square().sum().backward()
    for number in (3, 5):
        assert model.trunk[number].outer[1].weight.grad.abs().max() > 0


def test_a_model_cannot_shrink(trained):
    assert grown(trained, (0, 0, 1)) is None
