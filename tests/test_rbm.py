import numpy as np
import pytest
import torch

from training.rbm import RestrictedBoltzmannMachine


def logistic(x):
    return 1 / (1 + np.exp(-x))


@pytest.mark.parametrize("gaussian", [True, False])
def test_a_step_of_contrastive_divergence_is_that_of_a_slow_loop(gaussian):
    random = np.random.default_rng(0)
    data = random.normal(size=(5, 6)) if gaussian else random.random((5, 6))
    weight, hidden_bias, visible_bias = (random.normal(size=s) for s in ((4, 6), 4, 6))
    parts = [torch.from_numpy(part.copy()) for part in (weight, hidden_bias, visible_bias)]
    machine = RestrictedBoltzmannMachine(*parts, gaussian=gaussian)
    machine.learn(
        torch.from_numpy(data),
        rate=0.1,
        momentum=0.0,
        weight_cost=0.01,
        generator=torch.Generator().manual_seed(1),
    )
    drawn = torch.rand(5, 4, generator=torch.Generator().manual_seed(1)).numpy()
    change = np.zeros_like(weight)
    hidden_change, visible_change = np.zeros(4), np.zeros(6)
    for number, visible in enumerate(data):
        positive = logistic(weight @ visible + hidden_bias)
        state = (drawn[number] < positive).astype(float)
        fantasy = weight.T @ state + visible_bias
        fantasy = fantasy if gaussian else logistic(fantasy)
        negative = logistic(weight @ fantasy + hidden_bias)
        for i in range(4):
            for j in range(6):
                change[i, j] += (positive[i] * visible[j] - negative[i] * fantasy[j]) / 5
        hidden_change += (positive - negative) / 5
        visible_change += (visible - fantasy) / 5
    np.testing.assert_allclose(parts[0], weight + 0.1 * (change - 0.01 * weight), atol=1e-5)
    np.testing.assert_allclose(parts[1], hidden_bias + 0.1 * hidden_change, atol=1e-5)
    np.testing.assert_allclose(parts[2], visible_bias + 0.1 * visible_change, atol=1e-5)


def test_momentum_adds_the_last_step_again():
    parts = [torch.zeros(2, 3), torch.zeros(2), torch.zeros(3)]
    machine = RestrictedBoltzmannMachine(*parts, gaussian=True)
    data = torch.ones(4, 3)
    settings = {"rate": 1e-6, "weight_cost": 0.0, "generator": torch.Generator().manual_seed(0)}
    machine.learn(data, momentum=0.9, **settings)
    first = parts[2].clone()
    machine.learn(data, momentum=0.9, **settings)
    torch.testing.assert_close(parts[2], first * 2.9, rtol=1e-3, atol=0)


def test_learning_lowers_the_error_of_reconstruction(tiny_images):
    pixels = torch.from_numpy(tiny_images.reshape(len(tiny_images), -1)).float()
    pixels = (pixels - pixels.mean(dim=0)) / pixels.std()
    torch.manual_seed(0)
    machine = RestrictedBoltzmannMachine(
        0.01 * torch.randn(64, 3072), torch.zeros(64), torch.zeros(3072), gaussian=True
    )
    errors = [
        machine.learn(
            pixels,
            rate=0.001,
            momentum=0.9,
            weight_cost=0.0002,
            generator=torch.Generator().manual_seed(step),
        )
        for step in range(100)
    ]
    assert errors[-1] < 0.8 * errors[0]
