"""What focal loss does to a pixel's gradient."""

from __future__ import annotations

import pytest
import torch

from lossatlas import losses
from lossatlas.theory import focal


@pytest.mark.parametrize("p_t", [0.05, 0.1, 0.298, 0.5, 0.9])
@pytest.mark.parametrize("gamma", [1.0, 2.0, 5.0])
def test_the_factor_on_the_gradient_is_the_librarys(p_t: float, gamma: float) -> None:
    z = torch.tensor(p_t, dtype=torch.double).logit()[None, None].requires_grad_()
    target = torch.ones(1, 1, dtype=torch.double)
    slopes = [
        torch.autograd.grad(loss(z, target), z)[0].item()
        for loss in (
            losses.build("focal", mode="binary", gamma=gamma),
            losses.build("ce", mode="binary"),
        )
    ]
    assert focal.gradient_factor(p_t, gamma) == pytest.approx(slopes[0] / slopes[1], rel=1e-9)


def test_a_hard_pixel_is_pushed_harder_than_by_cross_entropy() -> None:
    assert focal.gradient_factor(0.29) > 1 > focal.gradient_factor(0.31)
