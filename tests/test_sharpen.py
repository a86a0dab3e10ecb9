"""Codes read anew from the same features, against NumPy and SciPy done by hand."""

import copy

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose, assert_array_equal
from scipy.optimize import brentq
from scipy.stats import entropy

from hashsearch.errors import TrainingError
from hashsearch.models.convolutional import ConvolutionalAutoencoder
from training.data import fit_standardization
from training.sharpen import effective_directions, itq_rotation, picture_map, sharpen, sharper


@pytest.fixture(scope="module")
def model(tiny_images):
    """Never trained, but its normalisations have seen images."""
    torch.manual_seed(0)
    model = ConvolutionalAutoencoder((8, 16, 32), (0, 1, 0))
    fit_standardization(model, tiny_images)
    for _ in range(20):
        model.decode((model.code_logits(torch.from_numpy(tiny_images)) >= 0).float())
    return model.eval()


@pytest.fixture(scope="module")
def logits(model, tiny_images):
    return logits_of(model, tiny_images)


@torch.no_grad()
def logits_of(model, images):
    return model.code_logits(torch.from_numpy(images))


def sharpened(model, images, pictured=96, directions=8.0):
    other = copy.deepcopy(model)
    sharpen(other, images, pictured, directions)
    assert not other.training
    return other


def centred(rows):
    rows = np.asarray(rows, float)
    return rows - rows.mean(axis=0)


def amplified(logits, directions):
    """The principal components, each times its variance to the power that leaves so many."""
    left, sizes, _ = np.linalg.svd(centred(logits), full_matrices=False)
    sizes /= sizes.max()
    power = brentq(lambda p: np.exp(entropy(sizes ** (4 * p + 2))) - directions, 0, 16)
    return left * sizes ** (2 * power + 1)


def inner_products(rows):
    """Which no rotation changes; up to a common factor."""
    products = rows @ rows.T
    return products / np.trace(products)


@pytest.mark.parametrize("directions", [8.0, 3.0, 1.5])
def test_main_directions_are_amplified_until_so_many_are_left(logits, directions):
    ours = centred(logits @ sharper(logits, directions))
    expected = inner_products(amplified(logits, directions))
    assert_allclose(inner_products(ours), expected, atol=1e-5)
    variances = torch.from_numpy(np.linalg.svd(ours, compute_uv=False) ** 2)
    assert effective_directions(variances) == pytest.approx(directions, rel=1e-3)


def test_a_code_that_is_sharp_already_is_only_turned(logits):
    once = logits @ sharper(logits, 3.0)
    again = once @ sharper(once, 3.001)
    assert_allclose(inner_products(centred(again)), inner_products(centred(once)), atol=1e-5)


def test_a_code_is_turned_towards_its_signs(logits):
    _, _, axes = np.linalg.svd(centred(logits), full_matrices=False)
    plain = amplified(logits, 8.0) @ axes
    ours = centred(logits @ sharper(logits, 8.0))

    def nearness(rows):  # of rows to their signs: what iterative quantization raises
        return np.abs(rows / np.linalg.norm(rows)).sum()

    assert nearness(ours) > 1.05 * nearness(plain)


def test_the_picture_is_told_by_reduced_rank_regression(tiny_images):
    pixels = (tiny_images.reshape(len(tiny_images), -1) / 255.0).astype(np.float32)
    features = tiny_images.reshape(-1, 8, 4, 8, 4, 3).mean(axis=(2, 4)).reshape(len(pixels), -1)
    features = (features / 255.0).astype(np.float32)
    told = centred(features @ picture_map(*map(torch.from_numpy, (features, pixels)), 24).numpy())
    ours, theirs = centred(features), centred(pixels)
    products = ours.T @ ours / len(ours)
    ridge = 1e-3 * products.diagonal().mean() * np.eye(len(products))
    predicted = ours @ np.linalg.inv(products + ridge) @ ours.T @ theirs / len(ours)
    left, sizes, _ = np.linalg.svd(predicted, full_matrices=False)
    by_hand = left[:, :24] * sizes[:24] ** 0.5
    assert_allclose(inner_products(told), inner_products(by_hand), atol=2e-4)


def test_bits_of_the_picture_decode_to_more_of_it(model, tiny_images):
    """By least squares, on images that nothing was fitted to."""
    fitted, others = tiny_images[:200], tiny_images[200:]

    def error(each):
        flat, bits = (
            [centred(part(images)) for images in (fitted, others)]
            for part in (lambda x: x.reshape(len(x), -1), lambda x: logits_of(each, x)[:, :32] >= 0)
        )
        slopes = np.linalg.solve(bits[0].T @ bits[0] + 10 * np.eye(32), bits[0].T @ flat[0])
        return np.square(bits[1] @ slopes - flat[1]).mean()

    assert error(sharpened(model, fitted, pictured=32)) < 0.95 * error(model)


def test_every_bit_is_centred_on_the_images(model, tiny_images):
    logits = logits_of(sharpened(model, tiny_images), tiny_images)
    assert_allclose(logits.mean(dim=0), 0, atol=1e-3)
    assert_allclose(logits.std(dim=0), 1, atol=0.05)


@pytest.mark.parametrize("pictured", [0, 96])
def test_nothing_but_the_code_and_what_reads_it_changes(model, tiny_images, pictured):
    ours, theirs = sharpened(model, tiny_images, pictured).state_dict(), model.state_dict()
    changed = {name for name in theirs if not torch.equal(ours[name], theirs[name])}
    code = {"code.0.weight", "code.1.running_mean", "code.1.running_var"}
    assert changed == code | {"decoder.0.weight", "decoder.0.bias"}
    assert_allclose(ours["code.0.weight"].norm(), theirs["code.0.weight"].norm(), rtol=1e-5)


@torch.no_grad()
def test_the_decoder_reads_the_old_bits_in_the_new_by_ridge_regression(model, tiny_images):
    images = tiny_images[:150]  # fewer than there are bits
    other = sharpened(model, images)
    old, new = (np.where(logits_of(each, images) >= 0, 1.0, -1.0) for each in (model, other))
    rows = centred(new)
    slopes = np.linalg.inv(rows.T @ rows + 256 * np.eye(256)) @ rows.T @ old
    guessed = rows @ slopes + old.mean(axis=0)
    before, after = model.decoder[0], other.decoder[0]
    expected = before(torch.from_numpy(guessed).float())
    assert_allclose(after(torch.from_numpy(new).float()), expected, atol=1e-3)


def test_signs_that_were_turned_are_found_again():
    generator = torch.Generator().manual_seed(0)
    signs = torch.randint(0, 2, (400, 12), generator=generator).double() * 2 - 1
    askew = torch.randn(12, 12, generator=generator, dtype=torch.double) * 0.15
    turn = torch.linalg.matrix_exp(askew - askew.T)
    found = itq_rotation(signs @ turn, torch.eye(12, dtype=torch.double))
    assert_allclose(found.T @ found, np.eye(12), atol=1e-10)
    assert_array_equal((signs @ turn @ found) >= 0, signs >= 0)
    assert_allclose(found, turn.T, atol=1e-6)


@pytest.mark.parametrize("weight", [0.0, float("nan")])
def test_a_code_that_tells_nothing_is_refused(model, tiny_images, weight):
    broken = copy.deepcopy(model)
    with torch.no_grad():
        broken.code[0].weight.fill_(weight)
    with pytest.raises(TrainingError, match="the code is no number, or the same for all images"):
        sharpen(broken, tiny_images, 96, 75.0)
