"""Transform coding as an autoencoder, against NumPy done by hand."""

import json
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal

from hashsearch.encoder import Encoder
from hashsearch.errors import InvalidModel
from hashsearch.metrics import psnr_db
from hashsearch.models.storage import read_model, save_model
from hashsearch.models.transform import TransformAutoencoder
from tests.trainings import split_off
from training import job
from training.data import fit_standardization
from training.families.transform import TransformPreset, _straight_through
from training.transform_coding import fit_transform, lloyd

PAIRS = ((8, 5), (24, 3), (40, 2), (64, 1))
DEPTHS = [depth for count, depth in PAIRS for _ in range(count)]
PRESET = TransformPreset(((32, 8),), width=16, steps=300, batch=32)


@pytest.fixture(scope="module")
def model(tiny_images):
    """Transform coding alone: its networks are not trained."""
    model = TransformAutoencoder(PAIRS, width=8)
    fit_standardization(model, tiny_images)
    fit_transform(model, tiny_images)
    return model.requires_grad_(False).eval()


def test_before_training_it_is_transform_coding(model, tiny_images):
    flat = tiny_images.reshape(len(tiny_images), -1).astype(float)
    mean = flat.mean(axis=0)
    _, _, components = np.linalg.svd(flat - mean, full_matrices=False)
    found = (flat - mean) @ components[: len(DEPTHS)].T
    rounded = np.empty_like(found)
    for number, depth in enumerate(DEPTHS):
        values = lloyd(found[:, number], 2**depth)
        rounded[:, number] = values[np.abs(found[:, number, None] - values).argmin(axis=1)]
    by_hand = (rounded @ components[: len(DEPTHS)] + mean).round().clip(0, 255).astype(np.uint8)
    encoder = Encoder(model)
    ours = encoder.reconstruct(encoder.encode(tiny_images))
    expected = psnr_db(tiny_images, by_hand.reshape(tiny_images.shape))
    assert psnr_db(tiny_images, ours) == pytest.approx(expected, abs=0.05)  # signs are free


def test_lloyds_values_are_the_means_of_what_is_rounded_to_them():
    samples = np.random.default_rng(0).laplace(size=4000)
    values = lloyd(samples, 8)
    assert (np.diff(values) > 0).all()
    nearest = np.abs(samples[:, None] - values).argmin(axis=1)
    assert_allclose(values, [samples[nearest == n].mean() for n in range(8)], atol=0.02)


def test_values_next_to_each_other_differ_in_one_bit(model):
    for number, depth in enumerate(DEPTHS):
        codes = []
        for value in model.transform.values[number, : 2**depth]:
            coefficients = torch.zeros(1, len(DEPTHS))
            coefficients[0, number] = value
            codes.append(_bits(model, coefficients))
        assert all((one != two).sum() == 1 for one, two in pairwise(codes))


@settings(deadline=None)
@given(st.integers(0, 2**32 - 1))
def test_a_code_decodes_to_the_values_it_was_made_of(model, seed):
    coefficients = torch.from_numpy(
        np.random.default_rng(seed).normal(0, 20, (3, len(DEPTHS))).astype(np.float32)
    )
    levels = model.transform.levels(coefficients)
    expected = model.picture(model.transform.rounded(levels)) * model.pixel_std + model.pixel_mean
    found = model.reconstruct(_bits(model, coefficients))
    assert_array_equal(found.flatten(1).numpy(), expected.numpy())


def test_training_the_networks_brings_pictures_nearer_than_transform_coding(tiny_images, tmp_path):
    def found(steps):
        preset = replace(PRESET, steps=steps)
        folder = tmp_path / str(steps)
        job.train("t", preset, tiny_images, folder, data="tests", seed=0, device="cpu")
        seen, _ = split_off(tiny_images, job.HELD_OUT, 0)
        encoder = Encoder.load(folder)
        return psnr_db(seen, encoder.reconstruct(encoder.encode(seen)))

    assert found(300) > found(0) + 0.1


@pytest.mark.parametrize(
    "depths",
    [
        [[255, 1]],
        [[1, 9], [247, 1]],
        [[2, 1], [127, 2]],
        [[32.0, 8]],
        [[10**9, 8]],
        [[32, 8, 1]],
        [[-32, -8]],
        [],
    ],
)
def test_depths_that_are_no_256_bits_in_order_are_refused(depths):
    with pytest.raises(InvalidModel, match="with 256 bits in total"):
        TransformAutoencoder(depths, width=8)


@pytest.mark.parametrize("architecture", [{"depths": 5, "width": 8}, {"depths": [5], "width": 8}])
def test_a_card_that_tells_of_no_depths_is_refused(model, tmp_path, architecture):
    save_model(tmp_path / "model", model, training={}, metrics={})
    card = json.loads((tmp_path / "model" / "card.json").read_text())
    assert card["architecture"] == {"depths": [list(pair) for pair in PAIRS], "width": 8}
    (tmp_path / "model" / "card.json").write_text(json.dumps(card | {"architecture": architecture}))
    with pytest.raises(
        InvalidModel, match="transform model that this version of hashsearch cannot"
    ):
        read_model(tmp_path / "model")


def _bits(model, coefficients):
    """The bits of given coefficients, by way of an encoder that gives just those."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(model, "coefficients", lambda pixels: coefficients)
        blank = torch.zeros(len(coefficients), 32, 32, 3)
        return (model.code_logits(blank) >= 0).float()


def test_no_gradient_drives_a_coefficient_beyond_its_outermost_values(model):
    transform = model.transform
    lowest, highest = transform.extremes()
    for number, depth in enumerate(DEPTHS):
        used = transform.values[number, : 2**depth]
        assert (lowest[number], highest[number]) == (used.min(), used.max())
    coefficients = torch.stack([lowest - 1, (lowest + highest) / 2, highest + 1]).requires_grad_()
    rounded = _straight_through(transform, coefficients)
    assert_array_equal(rounded.detach(), transform.rounded(transform.levels(coefficients.detach())))
    rounded.sum().backward()
    assert (coefficients.grad[1] == 1).all()
    assert (coefficients.grad[[0, 2]] == 0).all()
