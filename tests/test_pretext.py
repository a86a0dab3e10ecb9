"""What a teacher learns from, against formulas worked in NumPy."""

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose

from hashsearch.errors import InvalidModel
from training.pretext import PRETEXTS, Byol, VicReg
from training.resnet import Teacher


@pytest.fixture
def views(tiny_images):
    tiny = torch.from_numpy(tiny_images[:12]).permute(0, 3, 1, 2) / 128 - 1
    return tiny, tiny.flip(3)


def built(kind):
    torch.manual_seed(0)
    return kind(width=2, embedding=8)


def cosines(one, two):
    one, two = (part.detach().double().numpy() for part in (one, two))
    lengths = np.linalg.norm(one, axis=1) * np.linalg.norm(two, axis=1)
    return (one * two).sum(axis=1) / lengths


def test_a_teacher_of_full_width_is_resnet_18():
    with torch.device("meta"):
        teacher = Teacher(64)
    assert sum(weights.numel() for weights in teacher.parameters()) == 11_168_832
    kernels = [weights for weights in teacher.parameters() if weights.ndim == 4]
    assert len([kernel for kernel in kernels if kernel.shape[2] == 3]) == 17  # 18 with a classifier
    assert teacher.features(torch.zeros(1, 3, 32, 32, device="meta")).shape == (1, 512)
    assert teacher.trunk(torch.zeros(1, 3, 32, 32, device="meta")).shape == (1, 512, 4, 4)


@pytest.mark.parametrize("width", [0, -1, 5000, 2.5, "64"])
def test_a_teacher_of_no_width_is_refused(width):
    with pytest.raises(InvalidModel, match="the width must be an integer from 1 to 1024"):
        Teacher(width)


def test_byol_predicts_what_the_slow_copy_makes_of_the_other_view(views):
    model = built(Byol)
    one, two = views
    expected = 0.0
    for own, other in ((one, two), (two, one)):
        predicted = model.predictor(model._online(own))
        wanted = model.projector(model.teacher.features(other))
        expected += np.mean(2 - 2 * cosines(predicted, wanted))
    (found,) = model.terms(one, two).values()
    assert found.item() == pytest.approx(expected, rel=1e-4)


def test_vicreg_is_its_three_terms(views):
    model = built(VicReg)
    embedded = [model._online(view).detach().double().numpy() for view in views]
    found = {name: term.item() for name, term in model.terms(*views).items()}
    invariance = np.square(embedded[0] - embedded[1]).mean()
    variance = covariance = 0.0
    for rows in embedded:
        matrix = np.cov(rows.T)
        variance += np.maximum(0, 1 - np.sqrt(matrix.diagonal() + 1e-4)).mean() / 2
        covariance += (np.square(matrix).sum() - np.square(matrix.diagonal()).sum()) / 8
    expected = {"invariance": 25 * invariance, "variance": 25 * variance, "covariance": covariance}
    assert found == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("kind", PRETEXTS.values(), ids=PRETEXTS)
def test_gradients_reach_the_online_network_alone(kind, views):
    model = built(kind)
    sum(model.terms(*views).values()).backward()
    learners = {id(weights) for weights in model.learners()}
    for name, weights in model.named_parameters():
        learns = name.startswith(("online.", "predictor."))
        assert (id(weights) in learners) == learns
        assert (weights.grad is not None and bool(weights.grad.any())) == learns, name


@pytest.mark.parametrize("kind", PRETEXTS.values(), ids=PRETEXTS)
def test_the_slow_copy_starts_as_the_online_network_and_follows_it(kind):
    model = built(kind)
    encoder = model.online["encoder"]
    before = [weights.clone() for weights in model.teacher.parameters()]
    for slow, fast in zip(model.teacher.parameters(), encoder.parameters(), strict=True):
        assert torch.equal(slow, fast)
        fast.data += 1
    model.follow(torch.tensor(0.25))
    for old, slow in zip(before, model.teacher.parameters(), strict=True):
        assert_allclose(slow, old + 0.25, atol=1e-6)


@pytest.mark.parametrize("kind", PRETEXTS.values(), ids=PRETEXTS)
def test_what_travels_makes_both_networks_what_the_slow_one_was(kind, views):
    model, other = built(kind), kind(width=2, embedding=8)
    with torch.no_grad():
        for weights in model.online.parameters():
            weights += 0.1
    model.terms(*views)  # statistics
    model.follow(torch.tensor(0.5))
    other.load_portable(model.portable())
    ours, theirs = model.state_dict(), other.state_dict()
    for name, tensor in ours.items():
        if not name.startswith("online."):
            assert_allclose(theirs[name], tensor, rtol=2**-8, err_msg=name)
    for name in ("encoder", "projector"):
        slow = other.teacher if name == "encoder" else other.projector
        for key, tensor in slow.state_dict().items():
            assert torch.equal(other.online[name].state_dict()[key], tensor)


def test_what_travels_has_no_more_than_the_slow_network_and_the_predictor():
    model = Byol(width=64, embedding=256)
    numbers = sum(part.numel() for part in model.portable().values())
    assert 16.4e6 < numbers < 16.5e6
    stored = sum(part.numel() * part.element_size() for part in model.portable().values())
    assert stored < 32 * 2**20
