"""Measures under ties, against every order that the ties leave open, and scikit-learn."""

from itertools import permutations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_allclose
from sklearn.metrics import average_precision_score

from hashsearch.evaluation.tiers import Tiers

SMALL = st.lists(st.tuples(st.integers(0, 3), st.booleans()), min_size=1, max_size=6)


def tiers_of(distances, relevant, n_tiers=None):
    """One query's; the relevant images are brought side by side first."""
    distances, relevant = np.asarray(distances), np.asarray(relevant, bool)
    order = np.argsort(~relevant, kind="stable")
    first = slice(0, int(relevant.sum()))
    if n_tiers is None:
        return Tiers.of_distances(distances[order], first)
    return Tiers.of_integers(distances[order], first, n_tiers)


def orders(distances, relevant):
    """The relevance of every ranking by these distances, ties in every order."""
    images = range(len(distances))
    for order in permutations(images):
        ranked = [distances[image] for image in order]
        if ranked == sorted(ranked):
            yield [relevant[image] for image in order]


def slow_average_precision(ranked, k, divisor):
    """By the definition: precision at each relevant image among the first k."""
    precisions = [sum(ranked[: rank + 1]) / (rank + 1) for rank in range(k) if ranked[rank]]
    return sum(precisions) / divisor if divisor else 0.0


@given(SMALL)
def test_every_measure_is_its_mean_over_the_orders_that_ties_leave_open(images):
    distances, relevant = map(list, zip(*images, strict=True))
    ranked = list(orders(distances, relevant))
    every = np.arange(1, len(images) + 1)
    for tiers in (
        tiers_of(np.array(distances, np.int32), relevant),
        tiers_of(np.array(distances, np.float32) / 7, relevant),
        tiers_of(distances, relevant, n_tiers=4),
    ):
        found = np.mean([np.cumsum(order) for order in ranked], axis=0)
        assert_allclose(tiers.found_at(every)[0], found, atol=1e-12)
        total = sum(relevant)
        whole = np.mean([slow_average_precision(o, len(o), total) for o in ranked])
        assert_allclose(tiers.average_precision()[0], whole, atol=1e-12)
        for k in every.tolist():
            by_found, by_all = tiers.average_precision_at(k)
            slow = [slow_average_precision(o, k, sum(o[:k])) for o in ranked]
            assert_allclose(by_found[0], np.mean(slow), atol=1e-9)
            slow = [slow_average_precision(o, k, total) for o in ranked]
            assert_allclose(by_all[0], np.mean(slow), atol=1e-9)


def test_without_ties_average_precision_is_scikit_learns():
    random = np.random.default_rng(0)
    distances = random.permutation(3000).astype(np.float32)
    relevant = random.random(3000) < 0.1
    expected = average_precision_score(relevant, -distances)
    assert tiers_of(distances, relevant).average_precision()[0] == pytest.approx(expected)
    nearest = np.argsort(distances)[:500]
    expected = average_precision_score(relevant[nearest], -distances[nearest])
    by_found, _ = tiers_of(distances, relevant).average_precision_at(500)
    assert by_found[0] == pytest.approx(expected)


def test_many_ties_are_measured_as_many_random_orders_are():
    """Distances of 256 bits among 2,000 images, and 400 orders drawn at random."""
    random = np.random.default_rng(1)
    relevant = random.random(2000) < 0.1
    distances = random.binomial(256, np.where(relevant, 0.46, 0.5))
    tiers = tiers_of(distances, relevant, n_tiers=257)
    drawn = []
    for _ in range(400):
        order = np.lexsort((random.random(2000), distances))
        ranked = relevant[order].astype(float)
        precision = ranked.cumsum() / np.arange(1, 2001) * ranked
        found = [ranked[:k].sum() for k in (1, 10, 137)]
        drawn.append([*found, precision[:137].sum() / max(found[-1], 1), precision.sum()])
    expected = [
        *tiers.found_at(np.array([1, 10, 137]))[0],
        tiers.average_precision_at(137)[0][0],
        tiers.average_precision()[0] * relevant.sum(),
    ]
    error = np.std(drawn, axis=0) / 20
    assert (np.abs(np.mean(drawn, axis=0) - expected) < 4 * error + 1e-9).all()


def test_integers_have_the_same_tiers_counted_or_sorted():
    random = np.random.default_rng(2)
    distances = random.integers(0, 40, 500).astype(np.int32)
    relevant = random.random(500) < 0.3
    counted, ranked = tiers_of(distances, relevant, n_tiers=257), tiers_of(distances, relevant)
    some = np.arange(1, 501)
    assert_allclose(counted.found_at(some), ranked.found_at(some))
    assert_allclose(counted.average_precision_at(77), ranked.average_precision_at(77))
    assert_allclose(counted.average_precision(), ranked.average_precision())


def test_precision_within_a_radius_counts_an_empty_ball_as_nothing():
    tiers = tiers_of([1, 1, 3], [True, False, True], n_tiers=5)
    found = [tiers.precision_within(radius)[0] for radius in range(5)]
    assert_allclose(found, [0, 1 / 2, 1 / 2, 2 / 3, 2 / 3])


def test_queries_are_measured_together_as_one_by_one():
    random = np.random.default_rng(3)
    distances = random.integers(0, 30, (5, 200))
    parts = [Tiers.of_integers(row, slice(40, 90), 257) for row in distances]
    together = Tiers.stacked(parts)
    ks = np.array([1, 20, 200])
    assert_allclose(together.found_at(ks), np.concatenate([p.found_at(ks) for p in parts]))
    one_by_one = np.concatenate([part.average_precision_at(33) for part in parts], axis=1)
    assert_allclose(together.average_precision_at(33), one_by_one)
    assert together.n_relevant.tolist() == [50] * 5
    ragged = [Tiers.of_distances(row.astype(np.float32), slice(40, 90)) for row in distances]
    assert_allclose(Tiers.stacked(ragged).found_at(ks), together.found_at(ks))
    assert_allclose(Tiers.stacked(ragged).average_precision_at(33), one_by_one)
