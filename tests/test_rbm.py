import numpy as np
import pytest
import torch

from training.rbm import RestrictedBoltzmannMachine


def logistic(x):
    return 1 / (1 + np.exp(-x))


def slow_gradients(weight, hidden_bias, visible_bias, data, drawn, gaussian):
    """CD-1, one image and one weight at a time."""
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
    return change, hidden_change, visible_change


@pytest.mark.parametrize("gaussian", [True, False])
def test_steps_of_contrastive_divergence_are_those_of_a_slow_loop(gaussian):
    rate, momentum, weight_cost = 0.1, 0.9, 0.01
    random = np.random.default_rng(0)
    data = random.normal(size=(5, 6)) if gaussian else random.random((5, 6))
    slow = [random.normal(size=size) for size in ((4, 6), 4, 6)]
    parts = [torch.from_numpy(part.copy()) for part in slow]
    machine = RestrictedBoltzmannMachine(*parts, gaussian=gaussian)
    velocities = [np.zeros_like(part) for part in slow]
    for step in range(3):
        machine.learn(
            torch.from_numpy(data),
            rate=rate,
            momentum=momentum,
            weight_cost=weight_cost,
            generator=torch.Generator().manual_seed(step),
        )
        drawn = torch.rand(5, 4, generator=torch.Generator().manual_seed(step)).numpy()
        gradients = slow_gradients(*slow, data, drawn, gaussian)
        for number, gradient in enumerate(gradients):
            decay = weight_cost * slow[0] if number == 0 else 0
            velocities[number] = momentum * velocities[number] + rate * (gradient - decay)
        slow = [part + velocity for part, velocity in zip(slow, velocities, strict=True)]
    for part, expected in zip(parts, slow, strict=True):
        np.testing.assert_allclose(part, expected, atol=1e-5)


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
