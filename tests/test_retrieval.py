"""Retrieval's measures, against slow loops and scikit-learn."""

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score
from sklearn.neighbors import KNeighborsClassifier

from hashsearch.codes import pack_bits
from training.retrieval import (
    Question,
    distinct,
    retrieval_by_bits,
    retrieval_by_features,
)

N_GALLERY, N_QUERIES = 1200, 40  # more than the 1,000 ranks that are measured
KINDS = np.array(["bird", "cat", "dog", "horse"])
MEASURES = {"precision_at_1", "precision_at_10", "map_at_1000", "knn_accuracy"}


def question_of(gallery_labels, query_labels) -> Question:
    """Labels without images, which codes and features stand for."""
    none = np.empty((0, 32, 32, 3), np.uint8)
    return Question("tests", none, gallery_labels, none, query_labels)


@pytest.fixture(scope="module")
def question() -> Question:
    """Ordered by label, as data sets come, with a label that the gallery does not have."""
    random = np.random.default_rng(0)
    gallery = np.sort(random.choice(KINDS, N_GALLERY, p=(0.1, 0.2, 0.3, 0.4)))
    return question_of(gallery, random.choice([*KINDS, "zebra"], N_QUERIES))


def bits_about(labels, n_bits, random) -> np.ndarray:
    """Random bits that tell a little of the labels."""
    chances = 0.3 + 0.4 * np.random.default_rng(1).random((len(KINDS) + 1, n_bits))
    rows = np.searchsorted([*KINDS, "zebra"], labels)
    return (random.random((len(labels), n_bits)) < chances[rows]).astype(np.uint8)


def features_about(labels, random) -> torch.Tensor:
    """Of many lengths, so that cosine similarity and a product rank differently."""
    means = np.random.default_rng(1).normal(size=(len(KINDS) + 1, 16))
    rows = np.searchsorted([*KINDS, "zebra"], labels)
    drawn = means[rows] + 2 * random.normal(size=(len(labels), 16))
    return torch.from_numpy(drawn * random.uniform(0.1, 10, (len(labels), 1))).float()


def reordered(question, order):
    return question_of(question.gallery_labels[order], question.query_labels)


def slow_ranking(labels, label):
    """Precision at 1 and at 10, and mAP@1000, of a gallery's labels in their ranked order."""
    relevant = [other == label for other in labels]
    found, precisions = 0, []
    for rank, hit in enumerate(relevant[:1000], start=1):
        found += hit
        if hit:
            precisions.append(found / rank)
    average = sum(precisions) / found if found else 0.0
    return relevant[0], sum(relevant[:10]) / 10, average


def slow_vote(distances, labels, label, n_bits):
    """The 200 nearest images' vote, one image at a time; 1 if it is for the label."""
    last = sorted(distances)[199]
    nearer = sum(distance < last for distance in distances)
    equal = sum(distance == last for distance in distances)
    votes = dict.fromkeys(labels, 0.0)
    for distance, other in zip(distances, labels, strict=True):
        share = 1.0 if distance < last else (200 - nearer) / equal if distance == last else 0.0
        votes[other] += share * np.exp((1 - 2 * distance / n_bits) / 0.1)
    return max(votes, key=votes.get) == label


@pytest.mark.parametrize("n_bits", [6, 28, 256])
def test_by_bits_the_200_nearest_vote_and_those_tied_for_the_last_places_share_them(
    question, n_bits
):
    random = np.random.default_rng(n_bits)
    gallery = bits_about(question.gallery_labels, n_bits, random)
    queries = bits_about(question.query_labels, n_bits, random)
    labels = question.gallery_labels.tolist()
    distances = (queries[:, np.newaxis] != gallery).sum(axis=2).tolist()
    right = [
        slow_vote(row, labels, label, n_bits)
        for row, label in zip(distances, question.query_labels, strict=True)
    ]
    measured = retrieval_by_bits(question, gallery, queries)
    assert 0.3 < np.mean(right) < 1
    assert measured["knn_accuracy"] == pytest.approx(np.mean(right), abs=1e-4)


@pytest.mark.parametrize(("cats", "winner"), [(100, "cat"), (90, "dog")])
def test_images_at_the_last_distance_have_40_votes_between_them_where_40_are_left(cats, winner):
    """160 images at distance 0; 100 dogs at distance 1, whose votes weigh 0.925 at 256 bits.

    The dogs have 60 + 37 votes against 100 cats, and 70 + 37 against 90.
    """
    labels = np.repeat(["cat", "dog"], [cats, 260 - cats])
    gallery = np.zeros((260, 256), np.uint8)
    gallery[160:, 0] = 1
    question = question_of(labels, np.array([winner]))
    measured = retrieval_by_bits(question, gallery, np.zeros((1, 256), np.uint8))
    assert measured["knn_accuracy"] == 1


@pytest.mark.parametrize("n_bits", [6, 28, 256])
def test_by_bits_a_ranking_is_measured_as_random_orders_of_its_ties_are(question, n_bits):
    random = np.random.default_rng(n_bits)
    gallery = bits_about(question.gallery_labels, n_bits, random)
    queries = bits_about(question.query_labels, n_bits, random)
    distances = (queries[:, np.newaxis] != gallery).sum(axis=2)
    rankings = []
    for row, label in zip(distances, question.query_labels, strict=True):
        for _ in range(40):
            order = np.lexsort((random.random(N_GALLERY), row))
            rankings.append(slow_ranking(question.gallery_labels[order], label))
    measured = retrieval_by_bits(question, gallery, queries)
    assert measured.keys() == MEASURES
    found = [measured[name] for name in ("precision_at_1", "precision_at_10", "map_at_1000")]
    # Standard errors of 1,600 drawn orders are below 0.0125, 0.004 and 0.001.
    assert found == pytest.approx(np.mean(rankings, axis=0), abs=0.03)
    assert found[2] == pytest.approx(np.mean(rankings, axis=0)[2], abs=0.003)


def test_by_features_a_ranking_is_that_of_a_sort_by_cosine_similarity(question):
    random = np.random.default_rng(2)
    gallery = features_about(question.gallery_labels, random)
    queries = features_about(question.query_labels, random)
    rankings = []
    for query, label in zip(queries.double().numpy(), question.query_labels, strict=True):
        rows = gallery.double().numpy()
        cosines = rows @ query / np.linalg.norm(rows, axis=1) / np.linalg.norm(query)
        nearest = np.argsort(-cosines)
        rankings.append(slow_ranking(question.gallery_labels[nearest], label))
        relevant = question.gallery_labels[nearest[:1000]] == label
        if relevant.any():
            expected = average_precision_score(relevant, cosines[nearest[:1000]])
            assert rankings[-1][2] == pytest.approx(expected)
    measured = retrieval_by_features(question, gallery, queries)
    assert measured.keys() == MEASURES
    found = [measured[name] for name in ("precision_at_1", "precision_at_10", "map_at_1000")]
    assert found == pytest.approx(np.mean(rankings, axis=0), abs=1e-4)


def test_by_features_the_nearest_vote_as_scikit_learns_neighbors_do(question):
    random = np.random.default_rng(3)
    gallery = features_about(question.gallery_labels, random)
    queries = features_about(question.query_labels, random)
    neighbors = KNeighborsClassifier(
        200, metric="cosine", weights=lambda distances: np.exp((1 - distances) / 0.1)
    ).fit(gallery, question.gallery_labels)
    accuracy = neighbors.score(queries, question.query_labels)
    measured = retrieval_by_features(question, gallery, queries)
    assert measured["knn_accuracy"] == pytest.approx(accuracy, abs=1e-4)
    assert 0.3 < accuracy < 1


def test_signs_as_features_rank_as_the_bits_do(question):
    """Of 4,096 random bits, few distances are equal."""
    random = np.random.default_rng(4)
    gallery = bits_about(question.gallery_labels, 4096, random)
    queries = bits_about(question.query_labels, 4096, random)
    signs = (torch.from_numpy(bits).float() * 2 - 1 for bits in (gallery, queries))
    expected = retrieval_by_bits(question, gallery, queries)
    assert retrieval_by_features(question, *signs) == pytest.approx(expected, abs=0.01)


@settings(deadline=None, max_examples=30)
@given(seed=st.integers(0, 2**32 - 1), n_bits=st.integers(1, 20))
def test_a_gallery_in_another_order_is_measured_alike(question, seed, n_bits):
    random = np.random.default_rng(seed)
    order = random.permutation(N_GALLERY)
    gallery = random.integers(0, 2, (N_GALLERY, n_bits), np.uint8)
    queries = random.integers(0, 2, (N_QUERIES, n_bits), np.uint8)
    expected = retrieval_by_bits(question, gallery, queries)
    assert retrieval_by_bits(reordered(question, order), gallery[order], queries) == expected
    features, asked = (torch.from_numpy(random.normal(size=(n, 8))) for n in (N_GALLERY, N_QUERIES))
    directions, own = (part / part.norm(dim=1, keepdim=True) for part in (features, asked))
    similarities = (own @ directions.T).sort(descending=True).values
    for k in (1, 10, 200):  # float32 would exchange two neighbours where a measure ends
        assume((similarities[:, k - 1] - similarities[:, k]).min() > 1e-6)
    expected = retrieval_by_features(question, features, asked)
    found = retrieval_by_features(reordered(question, order), features[order], asked)
    assert found == pytest.approx(expected, abs=1e-3)  # and elsewhere it may


def test_equal_codes_everywhere_find_what_chance_does():
    labels = np.repeat(KINDS, 300)
    question = question_of(labels, np.repeat(KINDS, [1, 2, 3, 4]))
    measured = retrieval_by_bits(
        question, np.ones((1200, 8), np.uint8), np.zeros((10, 8), np.uint8)
    )
    assert measured["precision_at_1"] == measured["precision_at_10"] == 0.25
    assert measured["knn_accuracy"] == 0.25
    assert measured["map_at_1000"] == pytest.approx(0.25, abs=0.01)


def test_equal_features_everywhere_find_about_what_chance_does():
    labels = np.repeat(KINDS, 300)
    question = question_of(labels, KINDS)
    measured = retrieval_by_features(question, torch.ones(1200, 8), torch.ones(4, 8))
    assert measured["precision_at_1"] == 0.25
    assert measured["knn_accuracy"] == 0.25
    assert measured["map_at_1000"] == pytest.approx(0.25, abs=0.03)


def test_a_copy_of_each_query_is_found_first():
    labels = np.repeat(KINDS, 3)
    random = np.random.default_rng(5)
    gallery = random.integers(0, 2, (12, 64), np.uint8)
    question = question_of(labels, labels)
    signs = torch.from_numpy(gallery).float() * 2 - 1
    assert retrieval_by_bits(question, gallery, gallery)["precision_at_1"] == 1
    assert retrieval_by_features(question, signs, signs)["precision_at_1"] == 1


def test_a_gallery_smaller_than_the_ranks_is_measured_at_its_size():
    labels = KINDS[:3]
    question = question_of(labels, labels)
    bits = np.eye(3, dtype=np.uint8)
    perfect = {"precision_at_1": 1, "map_at_3": 1, "knn_accuracy": 1}
    assert retrieval_by_bits(question, bits, bits) == perfect
    assert retrieval_by_features(question, torch.eye(3), torch.eye(3)) == perfect


def test_distinct_codes_are_counted_once():
    bits = np.array([[0] * 12, [1] * 12, [0] * 12, [0] * 11 + [1]], np.uint8)
    assert distinct(pack_bits(bits)) == 3
    assert distinct(pack_bits(bits)[:0]) == 0
