"""What views are led to: an image's own logits and its neighbours', against a slow loop."""

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose, assert_array_equal

from hashsearch.models.convolutional import ConvolutionalAutoencoder
from training import neighbours
from training.data import fit_standardization
from training.neighbours import Targets


@pytest.fixture(scope="module")
def model(tiny_images):
    torch.manual_seed(0)
    model = ConvolutionalAutoencoder((8, 16, 32), (0, 0, 0))
    fit_standardization(model, tiny_images)
    return model


@pytest.fixture(autouse=True)
def in_float32(monkeypatch):
    monkeypatch.setattr(neighbours, "has_bfloat16", lambda device: False)


def found(model, images, weight=0.6):
    targets = Targets("cpu")
    targets.find(model, images, weight=weight)
    return targets


def unit(vectors):
    return vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)


def test_a_target_is_the_image_and_the_mean_of_the_nearest(model, tiny_images):
    images = tiny_images[:100]
    targets = found(model, images)[np.arange(100)].numpy()
    with torch.no_grad():
        model.eval()
        both = [model.code_logits(torch.from_numpy(i)) for i in (images, images[:, :, ::-1].copy())]
        own = unit((both[0] + both[1]).numpy())
    for number in range(0, 100, 7):
        order = sorted(range(100), key=lambda other: -(own[number] @ own[other]))
        expected = unit(own[number] + 0.6 * unit(own[order[:20]].mean(axis=0)))
        assert_allclose(targets[number], expected, atol=2e-3)  # kept in 16 bits


def test_a_copy_of_an_image_has_its_target_and_is_no_neighbour(model, tiny_images):
    images = tiny_images[:60]
    once = found(model, images)[np.arange(60)]
    doubled = found(model, np.concatenate([images, images[::-1], images]))
    assert_array_equal(doubled[np.arange(60)], once)
    assert_array_equal(doubled[np.arange(60, 120)], once.flip(0))


def test_a_mirrored_image_has_the_same_target(model, tiny_images):
    mirrored = np.ascontiguousarray(tiny_images[:50, :, ::-1])
    both = found(model, np.concatenate([tiny_images[:50], mirrored]))
    one, other = both[np.arange(50)], both[np.arange(50, 100)]
    assert_allclose(one, other, atol=2e-3)


def test_a_checkpoint_keeps_the_targets(model, tiny_images):
    targets, other = found(model, tiny_images[:40]), Targets("cpu")
    other.load_state_dict(targets.state_dict())
    assert_array_equal(other[np.arange(40)], targets[np.arange(40)])


def test_neighbours_are_looked_for_among_so_many_images_at_most(model, tiny_images, monkeypatch):
    images = tiny_images[:30]
    own = found(model, images, weight=0.0)[np.arange(30)].numpy()
    monkeypatch.setattr(neighbours, "_COMPANY", 1)
    targets = found(model, images)[np.arange(30)].numpy()
    led = [np.abs(unit(own + 0.6 * one) - targets).max() < 2e-3 for one in own]
    assert sum(led) == 1  # all to the same one of the thirty
