"""Views of a query, and rankings by the least distance to any of them."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.testing import assert_array_equal

from hashsearch.evaluation import measured
from hashsearch.evaluation.comparisons import Hamming, HammingOfViews
from hashsearch.evaluation.measure import measure
from hashsearch.evaluation.measured import Examples, Model, method_named
from hashsearch.evaluation.tasks import LabelledImages, split_task
from hashsearch.retrieval.transforms import N_VIEWS, by_least_distance, views
from hashsearch.search.exact import ExactIndex

TODAY = "2026-11-27"


def as_set(images: np.ndarray) -> set[bytes]:
    return {image.tobytes() for image in images}


def test_the_first_views_are_the_image_and_its_mirror_image(tiny_images):
    for tiny in tiny_images[:20]:
        found = views(tiny)
        assert (found.shape, found.dtype) == ((N_VIEWS, 32, 32, 3), np.uint8)
        assert_array_equal(found[0], tiny)
        assert_array_equal(found[1], tiny[:, ::-1])
        assert_array_equal(found[1::2], found[::2, :, ::-1])
        assert len(as_set(found)) == N_VIEWS


def test_a_mirrored_image_has_the_same_views(tiny_images):
    noise = np.random.default_rng(0).integers(0, 256, (20, 32, 32, 3), np.uint8)
    for tiny in (*tiny_images[:50], *noise):
        assert as_set(views(tiny[:, ::-1])) == as_set(views(tiny))


def test_shifts_repeat_the_edge():
    image = np.arange(32 * 32 * 3, dtype=np.uint32).astype(np.uint8).reshape(32, 32, 3)
    rows, columns = np.arange(32), np.arange(32)
    expected = [
        image[:, np.clip(columns + 2, 0, 31)],
        image[:, np.clip(columns - 2, 0, 31)],
        image[np.clip(rows + 2, 0, 31)],
        image[np.clip(rows - 2, 0, 31)],
    ]
    assert_array_equal(views(image)[2:10:2], expected)


def test_crops_show_the_centre_larger_and_the_image_with_a_margin():
    image = np.zeros((32, 32, 3), np.uint8)
    image[8:24, 8:24] = 255  # 16 of 32
    larger, smaller = (view.mean() / 255 for view in views(image)[10::2])
    assert larger == pytest.approx((16 / 28) ** 2, rel=0.01)
    assert smaller == pytest.approx((16 / 36) ** 2, rel=0.01)
    image[:] = 7
    assert (views(image) == 7).all()


@given(
    arrays(np.uint8, st.tuples(st.integers(1, 40), st.just(1))),
    arrays(np.uint8, st.tuples(st.integers(1, 5), st.just(1))),
)
def test_the_least_distance_to_any_view_ranks(codes, queries):
    found = ExactIndex(codes).search(queries, len(codes))
    positions, distances = by_least_distance(*(part.ravel() for part in found))
    least = np.bitwise_count(queries[:, np.newaxis] ^ codes).sum(axis=2).min(axis=0)
    expected = sorted(zip(least.tolist(), range(len(codes)), strict=True))
    assert list(zip(distances.tolist(), positions.tolist(), strict=True)) == expected


def test_distances_to_views_are_the_least_of_them():
    random = np.random.default_rng(0)
    gallery, queries = (random.integers(0, 256, (*n, 4), np.uint8) for n in ((90,), (7, 3)))
    comparison = HammingOfViews(32)
    rows = comparison.distances_to(gallery)(queries)
    each = [Hamming(32).distances_to(gallery)(query) for query in queries]
    assert_array_equal(rows, np.stack(each).min(axis=1))
    _, found = comparison.index(gallery).search(queries, 90)
    assert_array_equal(found, np.sort(rows, axis=1))


def test_a_measurement_with_transforms_finds_mirror_images_at_distance_0(
    tiny_images, model_folder, monkeypatch
):
    monkeypatch.setattr(
        measured,
        "changed",
        lambda images, seed: [("mirrored", images[:, :, ::-1]), ("lighter", images | 31)],
    )
    images = LabelledImages(tiny_images[:80], np.array(["even", "odd"] * 40))
    task = split_task("x", images, None, n_queries=20, pooled=False, seed=0)
    examples, model = Examples(task.gallery.images, 0), Model(model_folder)
    found = {}
    for name in ("codes", "transforms"):
        method = method_named(name, model, 64, seed=0)
        found[name] = measure(method, examples, task, ks=[1, 10], seed=0, date=TODAY)
    codes, transforms = found["codes"], found["transforms"]
    assert codes.changes["mirrored"][0] > 0 == transforms.changes["mirrored"][0]
    for change, (flipped, _) in transforms.changes.items():
        assert flipped <= codes.changes[change][0], change
    assert (transforms.image_bytes, transforms.entropy) == (codes.image_bytes, codes.entropy)
    assert transforms.hits != codes.hits
    # With the image as its only view, nothing changes.
    alone = replace(
        method_named("transforms", model, 64, 0), asks=lambda d: lambda x: d(x)[:, None]
    )
    again = measure(alone, examples, task, ks=[1, 10], seed=0, date=TODAY)
    assert again.measures == codes.measures
    assert again.changes == codes.changes
