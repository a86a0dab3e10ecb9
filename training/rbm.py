"""Restricted Boltzmann machines for pre-training a deep autoencoder's layers.

Source: Hinton and Salakhutdinov 2006, Science 313:504; Krizhevsky and Hinton
2011; the practice of Hinton 2010, UTML TR 2010-003.
"""

import torch
from torch import Tensor


class RestrictedBoltzmannMachine:
    """An RBM with logistic hidden units, trained by one-step contrastive divergence (CD-1).

    weight: (n_hidden, n_visible), hidden_bias: (n_hidden,), visible_bias: (n_visible,);
    all are changed in place. gaussian: whether visible units are Gaussian with unit
    variance; otherwise they are binary.
    """

    def __init__(self, weight: Tensor, hidden_bias: Tensor, visible_bias: Tensor, gaussian: bool):
        self.weight, self.hidden_bias, self.visible_bias = weight, hidden_bias, visible_bias
        self.gaussian = gaussian
        self._velocities = [torch.zeros_like(part) for part in self._parameters()]

    def hidden(self, visible: Tensor) -> Tensor:
        """(n, n_visible) to (n, n_hidden): probabilities that the hidden units are 1."""
        return torch.sigmoid(torch.addmm(self.hidden_bias, visible, self.weight.T))

    def visible(self, hidden: Tensor) -> Tensor:
        """(n, n_hidden) to (n, n_visible): means of Gaussian units, or probabilities."""
        total = torch.addmm(self.visible_bias, hidden, self.weight)
        return total if self.gaussian else torch.sigmoid(total)

    def learn(
        self,
        data: Tensor,
        *,
        rate: float,
        momentum: float,
        weight_cost: float,
        generator: torch.Generator,
    ) -> Tensor:
        """Take one CD-1 step with gradients averaged over a batch.

        data: (n, n_visible). Hidden states are sampled only in the positive phase;
        probabilities are used everywhere else. Returns the mean squared error of the
        one-step reconstruction.
        """
        positive = self.hidden(data)
        drawn = torch.rand(positive.shape, generator=generator, device=positive.device)
        fantasy = self.visible((drawn < positive).to(data.dtype))
        negative = self.hidden(fantasy)
        of_weight, of_hidden_bias, of_visible_bias = self._velocities
        share = rate / len(data)
        of_weight.addmm_(positive.T, data, beta=momentum, alpha=share)
        of_weight.addmm_(negative.T, fantasy, alpha=-share)
        of_weight.add_(self.weight, alpha=-rate * weight_cost)
        of_hidden_bias.mul_(momentum).add_((positive - negative).mean(dim=0), alpha=rate)
        of_visible_bias.mul_(momentum).add_((data - fantasy).mean(dim=0), alpha=rate)
        for parameter, velocity in zip(self._parameters(), self._velocities, strict=True):
            parameter.add_(velocity)
        return (data - fantasy).square().mean()

    def state_dict(self) -> dict[str, Tensor]:
        """The momentum buffers; the parameters are in the state of the layers that own them."""
        return {str(number): velocity for number, velocity in enumerate(self._velocities)}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        for number, velocity in enumerate(self._velocities):
            velocity.copy_(state[str(number)])

    def _parameters(self) -> tuple[Tensor, Tensor, Tensor]:
        return self.weight, self.hidden_bias, self.visible_bias
