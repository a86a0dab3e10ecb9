"""Baselines beside other implementations of them."""

import imagehash
import numpy as np
import pdqhash
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from PIL import Image
from sklearn.decomposition import PCA

from hashsearch.baselines.perceptual import pdq, phash
from hashsearch.baselines.projections import (
    SpectralHashing,
    iterative_quantization,
    principal_components,
    random_projections,
)
from hashsearch.codes import unpack_bits
from hashsearch.search.normalized import contrast_normalized


@pytest.fixture(scope="module")
def components(tiny_images):
    return principal_components(tiny_images, 64)


@pytest.mark.parametrize("copies", [1, 4])  # more than 1,000 images are handled differently
def test_principal_components_are_scikit_learns(tiny_images, copies):
    theirs = PCA(64, svd_solver="full").fit_transform(tiny_images.reshape(300, -1).astype(float))
    ours = principal_components(np.concatenate([tiny_images] * copies), 64)(tiny_images)
    signs = np.sign((ours * theirs).sum(axis=0))  # a direction has two
    assert_allclose(ours * signs, theirs, atol=0.5)  # of some thousand


def test_iterative_quantization_rotates_nearer_to_signs(tiny_images, components):
    rotated = iterative_quantization(tiny_images, components)
    ours, before = rotated(tiny_images), components(tiny_images)
    assert_allclose(np.linalg.norm(ours, axis=1), np.linalg.norm(before, axis=1), rtol=1e-3)

    def error(rows):
        scale = np.abs(rows).mean()
        return np.square(rows - scale * np.sign(rows)).sum()

    assert error(ours) < 0.9 * error(before)


def test_random_projections_tell_angles(tiny_images):
    """Of two images, the share of differing bits is their angle as a share of half a turn."""
    projection = random_projections(tiny_images, 4096, seed=0)
    bits = unpack_bits(projection.signs(tiny_images), 4096)
    centred = tiny_images.reshape(300, -1) - tiny_images.reshape(300, -1).mean(axis=0)
    unit = centred / np.linalg.norm(centred, axis=1, keepdims=True)
    angles = np.arccos(np.clip(unit[:20] @ unit[20:40].T, -1, 1)) / np.pi
    shares = (bits[:20, np.newaxis] != bits[20:40]).mean(axis=2)
    assert_allclose(shares, angles, atol=0.05)  # six deviations of 4,096 bits
    again = random_projections(tiny_images, 4096, seed=0)
    assert_array_equal(again.signs(tiny_images), projection.signs(tiny_images))


def test_spectral_hashing_is_that_of_its_paper(tiny_images, components):
    """The authors' own steps: every mode of every component, the 32 of least eigenvalue."""
    rows = components(tiny_images).astype(float)
    low, high = rows.min(axis=0), rows.max(axis=0)
    modes = [
        (k * np.pi / (high[i] - low[i]), i, k) for i in range(rows.shape[1]) for k in range(1, 34)
    ]
    expected = np.empty((300, 32), np.uint8)
    for bit, (omega, component, _) in enumerate(sorted(modes)[:32]):
        expected[:, bit] = np.sin(np.pi / 2 + omega * (rows[:, component] - low[component])) >= 0
    found = unpack_bits(SpectralHashing.of(tiny_images, components, 32)(tiny_images), 32)
    assert (found != expected).mean() < 1e-3  # float32 at a wave's zero


def test_normalised_pixels_forget_brightness_and_contrast(tiny_images):
    images = tiny_images[:20] // 4 + 60
    brighter = images + 40
    stretched = images * 2
    found = contrast_normalized(images)
    assert_allclose(contrast_normalized(brighter), found, atol=1e-3)
    assert_allclose(contrast_normalized(stretched), found, atol=1e-3)
    assert_allclose(contrast_normalized(np.full((1, 32, 32, 3), 7, np.uint8)), 0)


@pytest.mark.parametrize(("n_bits", "side"), [(64, 8), (256, 16)])
def test_phash_counts_bits_as_its_library_does(tiny_images, n_bits, side):
    bits = unpack_bits(phash(n_bits)(tiny_images[:12]), n_bits)
    theirs = [imagehash.phash(Image.fromarray(image), hash_size=side) for image in tiny_images[:12]]
    for one in range(12):
        for other in range(12):
            assert (bits[one] != bits[other]).sum() == theirs[one] - theirs[other]


def test_pdq_turns_with_its_picture(tiny_images):
    """The library makes the hashes of all turned pictures of one; so do turned pictures."""
    every = unpack_bits(pdq()(tiny_images))
    assert len(np.unique(every, axis=0)) > 290
    assert (every.mean(axis=0) > 0.2).all()
    assert (every.mean(axis=0) < 0.8).all()
    turned = np.stack([np.rot90(image, 2) for image in tiny_images[:8]])
    theirs = [pdqhash.compute_dihedral(image)[0][2] for image in tiny_images[:8]]
    assert (unpack_bits(pdq()(turned)) != np.array(theirs)).mean() < 0.05
