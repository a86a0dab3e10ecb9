"""Codes made of a head's logits, against NumPy and SciPy done by hand."""

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
from training.sharpen import effective_directions, itq_rotation, make_code, sharper


@pytest.fixture(scope="module")
def model(tiny_images):
    """Never trained, but its normalisations have seen images."""
    torch.manual_seed(0)
    model = ConvolutionalAutoencoder((8, 16, 32), (0, 1, 0), ((48, 2),))
    fit_standardization(model, tiny_images)
    for _ in range(20):
        head_of(model, tiny_images)
    return model.eval()


@pytest.fixture(scope="module")
def logits(model, tiny_images):
    return head_of(model, tiny_images)


@torch.no_grad()
def head_of(model, images):
    return model.head(model.features(model.standardize(torch.from_numpy(images))))


def sharpened(model, images, directions=8.0):
    other = copy.deepcopy(model)
    make_code(other, images, directions)
    assert not other.training
    return other


def centred(rows):
    rows = np.asarray(rows, float)
    return rows - rows.mean(axis=0)


def amplified(logits, directions, bits=256):
    """The principal components, each times its variance to the power that leaves so many."""
    left, sizes, _ = np.linalg.svd(centred(logits), full_matrices=False)
    left, sizes = left[:, :bits], sizes[:bits]
    sizes /= sizes.max()
    power = brentq(lambda p: np.exp(entropy(sizes ** (4 * p + 2))) - directions, 0, 16)
    return left * sizes ** (2 * power + 1)


def inner_products(rows):
    """Which no rotation changes; up to a common factor."""
    products = rows @ rows.T
    return products / np.trace(products)


@pytest.mark.parametrize("directions", [8.0, 3.0, 1.5])
def test_main_directions_are_amplified_until_so_many_are_left(logits, directions):
    ours = centred(logits @ sharper(logits, 256, directions))
    expected = inner_products(amplified(logits, directions))
    assert_allclose(inner_products(ours), expected, atol=1e-5)
    variances = torch.from_numpy(np.linalg.svd(ours, compute_uv=False) ** 2)
    assert effective_directions(variances) == pytest.approx(directions, rel=1e-3)


def test_the_signs_of_the_eigenvectors_do_not_matter(logits, monkeypatch):
    """They depend on the processor and the number of threads."""
    before, eigh = sharper(logits, 32, 8.0), torch.linalg.eigh

    def flipped(matrix):
        values, vectors = eigh(matrix)
        return values, vectors * torch.randn(len(matrix)).sign()

    monkeypatch.setattr(torch.linalg, "eigh", flipped)
    assert_allclose(sharper(logits, 32, 8.0), before, atol=1e-5)


@pytest.mark.parametrize("bits", [24, 160])
def test_the_main_directions_are_kept_where_there_are_fewer_bits(logits, bits):
    ours = centred(logits @ sharper(logits, bits, 5.0))
    assert ours.shape == (len(logits), bits)
    expected = inner_products(amplified(logits, 5.0, bits))
    assert_allclose(inner_products(ours), expected, atol=1e-5)


def test_a_code_that_is_sharp_already_is_only_turned(logits):
    once = logits @ sharper(logits, 256, 3.0)
    again = once @ sharper(once, 256, 3.001)
    assert_allclose(inner_products(centred(again)), inner_products(centred(once)), atol=1e-5)


def test_a_code_is_turned_towards_its_signs(logits):
    _, _, axes = np.linalg.svd(centred(logits), full_matrices=False)
    plain = amplified(logits, 8.0) @ axes
    ours = centred(logits @ sharper(logits, 256, 8.0))

    def nearness(rows):  # of rows to their signs: what iterative quantization raises
        return np.abs(rows / np.linalg.norm(rows)).sum()

    assert nearness(ours) > 1.05 * nearness(plain)


@torch.no_grad()
def test_every_bit_is_centred_on_the_images(model, tiny_images):
    other, tiny = sharpened(model, tiny_images), torch.from_numpy(tiny_images)
    for logits in (other.code_logits(tiny)[:, 96:], other.address_logits(tiny)):
        assert_allclose(logits.mean(dim=0), 0, atol=1e-3)
        assert_allclose(logits.std(dim=0), 1, atol=0.05)


def test_nothing_but_the_code_and_the_addresss_thresholds_changes(model, tiny_images):
    ours, theirs = sharpened(model, tiny_images).state_dict(), model.state_dict()
    changed = {name for name in theirs if not torch.equal(ours[name], theirs[name])}
    thresholds = {
        f"{head}.1.running_{of}" for head in ("code", "address") for of in ("mean", "var")
    }
    assert changed == {"code.0.weight"} | thresholds


def test_the_code_is_made_of_the_heads_logits(model, tiny_images):
    """Found from them by least squares, whatever lies between."""
    other = sharpened(model, tiny_images)
    with torch.no_grad():
        features = other.features(other.standardize(torch.from_numpy(tiny_images)))
        head, code = (centred(part(features)) for part in (other.head, other.code))
    slopes, *_ = np.linalg.lstsq(head, code, rcond=1e-6)
    assert_allclose(head @ slopes, code, atol=1e-3)


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
        broken.head[0].weight.fill_(weight)
    with pytest.raises(TrainingError, match="the code is not finite, or equal for all images"):
        make_code(broken, tiny_images, 75.0)
