"""A student's losses, against slow loops."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from numpy.testing import assert_allclose
from sklearn.neighbors import NearestNeighbors

from training.likeness import ANCHORS, Likeness, agreement, sharpness, soft_bits

N, DIRECTIONS = 60, 12


@pytest.fixture
def targets():
    return F.normalize(torch.randn(N, DIRECTIONS, generator=torch.Generator().manual_seed(0)))


@pytest.fixture
def student(targets):
    torch.manual_seed(1)
    return Likeness(targets, features=20)


@pytest.fixture
def batch():
    """Rows, features and outputs of eight images."""
    random = torch.Generator().manual_seed(0)
    rows = torch.randperm(N, generator=random)[:8]
    features = torch.randn(8, 20, generator=random)
    return rows, features, {"code": torch.randn(8, 16, generator=random)}


def drawn():
    return torch.Generator().manual_seed(5)


def cosine(one, two):
    return float(one @ two / (np.linalg.norm(one) * np.linalg.norm(two)))


def slow_divergence(wanted, found, temperature):
    """Kullback and Leibler's, of two lists of cosines."""
    p, q = (np.exp(np.array(cosines) / temperature) for cosines in (wanted, found))
    p, q = p / p.sum(), q / q.sum()
    return float((p * np.log(p / q)).sum())


def test_outputs_are_compared_with_those_of_the_rest_of_the_batch(student, targets, batch):
    rows, features, outputs = batch
    code = outputs["code"].numpy()
    found = []
    for one in range(8):
        others = [other for other in range(8) if other != one]
        wanted = [cosine(targets[rows[one]], targets[rows[other]]) for other in others]
        ours = [cosine(code[one], code[other]) for other in others]
        found.append(slow_divergence(wanted, ours, 0.2))
    measured = student.terms(rows, features, outputs, drawn())["code"]
    assert measured.item() == pytest.approx(np.mean(found), rel=1e-4)


def test_mapped_features_are_compared_with_targets_of_many_images(student, targets, batch):
    rows, features, outputs = batch
    anchors = torch.randint(N, (ANCHORS,), generator=drawn())
    mapped = (features @ student.bridge.weight.T + student.bridge.bias).detach().numpy()
    mapped = mapped / np.linalg.norm(mapped, axis=1, keepdims=True)
    every = targets.numpy()
    found = []
    for one, row in enumerate(rows.tolist()):
        others = every[anchors[anchors != row]]
        found.append(slow_divergence(others @ every[row], others @ mapped[one], 0.05))
    measured = student.terms(rows, features, outputs, drawn())
    assert measured["features"].item() == pytest.approx(np.mean(found), rel=1e-4)
    cosines = [cosine(one, every[row]) for one, row in zip(mapped, rows, strict=True)]
    assert measured["cosine"].item() == pytest.approx(1 - np.mean(cosines), rel=1e-4)


def test_outputs_as_alike_as_the_targets_diverge_by_nothing(student, targets, batch):
    rows, features, _ = batch
    found = student.terms(rows, features, {"code": targets[rows] * 3}, drawn())
    assert found["code"].item() == pytest.approx(0, abs=1e-5)


def test_pairs_of_one_image_are_compared_with_nothing(student, batch):
    """Two views of each image: what the other view of an image gives does not matter to it."""
    rows, features, outputs = batch
    code = outputs["code"]
    one = student.terms(rows, features, {"code": code}, drawn())["code"]
    two = student.terms(
        rows.repeat(2), features.repeat(2, 1), {"code": code.repeat(2, 1)}, drawn()
    )["code"]
    assert two.item() == pytest.approx(one.item(), rel=1e-4)


def test_the_loss_teaches_outputs_map_and_features(student, batch):
    rows, features, outputs = batch
    outputs["code"].requires_grad_()
    features.requires_grad_()
    sum(student.terms(rows, features, outputs, drawn()).values()).backward()
    assert outputs["code"].grad.isfinite().all()
    assert outputs["code"].grad.abs().sum(dim=1).min() > 0
    assert student.bridge.weight.grad.abs().sum() > 0
    assert features.grad.abs().sum(dim=1).min() > 0


def test_soft_bits_become_bits_as_the_training_goes_on():
    logits = torch.tensor([-2.0, -0.3, 0.3, 2.0])
    assert [sharpness(progress) for progress in (0, 1 / 3, 1)] == pytest.approx([1, 2, 8])
    early, late = (soft_bits(logits, torch.tensor(sharpness(p))) for p in (0.0, 1.0))
    assert_allclose(early, np.tanh(logits.numpy()))
    assert (late.abs() > 0.98).all()


def test_agreement_is_how_like_the_nearest_are_to_the_teacher(targets):
    random = torch.Generator().manual_seed(2)
    bits = torch.rand(N, 301, generator=random) < 0.5  # so many that few distances are equal
    gallery, asked = (bits[:45], bits[45:])
    peer = NearestNeighbors(n_neighbors=10, metric="hamming").fit(gallery)
    rows = peer.kneighbors(asked, return_distance=False)
    found = [
        np.mean([cosine(targets[45 + image], targets[row]) for row in near])
        for image, near in enumerate(rows)
    ]
    measured = agreement(gallery, targets[:45], asked, targets[45:])
    assert measured == pytest.approx(np.mean(found), abs=0.02)  # ties at the tenth place
    assert agreement(bits, targets, bits, targets, nearest=1) == pytest.approx(1)
