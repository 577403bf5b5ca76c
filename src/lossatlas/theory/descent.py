"""Plain gradient descent and Adam for the small trainings of the derivations.

``torch.optim`` would do the same, but its first step imports torch's compiler: ten seconds that a
chapter of a book need not wait for.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch


class Descent:
    """Gradient descent, p ← p − lr·g."""

    def __init__(self, parameters: Iterable[torch.Tensor], lr: float) -> None:
        self.parameters = list(parameters)
        self.lr = lr

    def step(self, loss: torch.Tensor) -> None:
        """One step down the loss."""
        gradients = torch.autograd.grad(loss, self.parameters)
        with torch.no_grad():
            for place, (parameter, gradient) in enumerate(
                zip(self.parameters, gradients, strict=True)
            ):
                parameter -= self.lr * self.direction(place, gradient)

    def direction(self, place: int, gradient: torch.Tensor) -> torch.Tensor:
        """The gradient itself."""
        return gradient


class Adam(Descent):
    """Adam (Kingma and Ba 2015) with β = (0.9, 0.999), ε = 1e-8."""

    def __init__(self, parameters: Iterable[torch.Tensor], lr: float) -> None:
        super().__init__(parameters, lr)
        self.first = [torch.zeros_like(parameter) for parameter in self.parameters]
        self.second = [torch.zeros_like(parameter) for parameter in self.parameters]
        self.count = [0] * len(self.parameters)

    def direction(self, place: int, gradient: torch.Tensor) -> torch.Tensor:
        """The running mean of gradients over the root of the running mean of their squares."""
        self.count[place] += 1
        n = self.count[place]
        self.first[place] = 0.9 * self.first[place] + 0.1 * gradient
        self.second[place] = 0.999 * self.second[place] + 0.001 * gradient**2
        mean = self.first[place] / (1 - 0.9**n)
        return mean / ((self.second[place] / (1 - 0.999**n)).sqrt() + 1e-8)
