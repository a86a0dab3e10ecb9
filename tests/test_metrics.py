import math

import numpy as np
import pytest

from hashsearch.metrics import correlation_by_chance, overlap_at_k, psnr_db


def test_psnr_is_the_mean_over_images_of_the_formula(tiny_images):
    rng = np.random.default_rng(0)
    images = tiny_images[:3]
    noisy = np.clip(images + rng.normal(0, 12, images.shape), 0, 255).astype(np.uint8)
    by_hand = []
    for image, other in zip(images.tolist(), noisy.tolist(), strict=True):
        errors = [
            (a - b) ** 2
            for rows in zip(image, other, strict=True)
            for pixels in zip(*rows, strict=True)
            for a, b in zip(*pixels, strict=True)
        ]
        by_hand.append(10 * math.log10(255**2 / (sum(errors) / len(errors))))
    assert psnr_db(images, noisy) == pytest.approx(sum(by_hand) / 3)


def test_an_image_met_exactly_has_a_finite_psnr(tiny_images):
    assert 60 < psnr_db(tiny_images[:1], tiny_images[:1]) < 100


@pytest.mark.parametrize(
    ("first", "second", "k", "share"),
    [
        ([1, 2, 3], [3, 2, 1], 3, 1.0),
        ([1, 2, 3], [3, 4, 5], 3, 1 / 3),
        ([1, 2, 3], [3, 4, 5], 2, 0.0),
        ([1, 2], [2, 1], 10, 1.0),
        ([1], [1, 2, 3, 4], 10, 0.25),
        ([], [], 10, 1.0),
    ],
)
def test_overlap_counts_common_ids_among_the_first_k(first, second, k, share):
    ids = [np.array(ranking, np.int64) for ranking in (first, second)]
    assert overlap_at_k(*ids, k) == pytest.approx(share)


@pytest.mark.parametrize("count", [20, 192, 1000])
def test_independent_bits_correlate_by_chance_as_simulated_ones_do(count):
    bits = np.random.default_rng(count).integers(2, size=(count, 256))
    correlations = np.corrcoef(bits, rowvar=False)[np.triu_indices(256, 1)]
    assert correlation_by_chance(count) == pytest.approx(np.abs(correlations).mean(), rel=0.03)
