import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from hashsearch.metrics import map_at_k, overlap_at_k, precision_at_k, psnr_db


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


RELEVANT = np.array([[1, 0, 1, 0], [0, 0, 0, 1], [0, 0, 0, 0]], bool)


def test_precision_counts_the_relevant_among_the_first_k():
    assert precision_at_k(RELEVANT, 1) == pytest.approx((1 + 0 + 0) / 3)
    assert precision_at_k(RELEVANT, 4) == pytest.approx((2 / 4 + 1 / 4 + 0) / 3)


def test_average_precision_is_divided_by_the_relevant_found():
    assert map_at_k(RELEVANT, 4) == pytest.approx(((1 + 2 / 3) / 2 + 1 / 4 + 0) / 3)
    assert map_at_k(RELEVANT, 2) == pytest.approx((1 + 0 + 0) / 3)


@given(arrays(bool, (3, 20)), st.integers(1, 20))
def test_average_precision_is_that_of_a_slow_loop(relevant, k):
    total = 0.0
    for row in relevant:
        hits, precisions = 0, []
        for rank in range(k):
            if row[rank]:
                hits += 1
                precisions.append(hits / (rank + 1))
        total += sum(precisions) / max(len(precisions), 1)
    assert map_at_k(relevant, k) == pytest.approx(total / 3)
