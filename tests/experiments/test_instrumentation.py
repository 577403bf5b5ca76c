"""The foreground's share of the gradient at the logits, and the easy negatives' share of the loss."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from lossatlas import losses
from lossatlas.experiments.instrumentation import ForegroundShare, background_class


def by_hand(gradient, target, background, void):
    """The two sums, pixel by pixel."""
    foreground = whole = 0.0
    for n, i, j in np.ndindex(*target.shape):
        pull = float(gradient[n, :, i, j].abs().sum())
        if int(target[n, i, j]) != void:
            whole += pull
            foreground += pull * (int(target[n, i, j]) != background)
    return foreground / whole


@pytest.mark.parametrize("background", [0, 2])
@pytest.mark.parametrize("void", [None, 255])
def test_the_share_equals_a_loop_over_the_pixels(background, void):
    torch.manual_seed(0)
    gradient = torch.randn(2, 3, 4, 5)
    target = torch.randint(3, (2, 4, 5))
    if void is not None:
        target[:, 0] = void
    share, _ = ForegroundShare(background, void)(torch.zeros_like(gradient), gradient, target)
    assert share.item() == pytest.approx(by_hand(gradient, target, background, void), rel=1e-5)


def test_void_pixels_count_neither_above_nor_below_even_where_their_gradient_is_nan():
    gradient = torch.tensor([[[[1.0, 3.0, float("nan")]]]])
    target = torch.tensor([[[0, 1, 9]]])
    share, _ = ForegroundShare(0, 9)(torch.zeros_like(gradient), gradient, target)
    assert share.item() == pytest.approx(0.75)


def test_a_gradient_that_is_zero_everywhere_has_no_share():
    logits = torch.zeros(1, 2, 3)
    assert ForegroundShare(0, None)(logits, logits, torch.ones(1, 3, dtype=torch.long))[0].isnan()


def test_cross_entropy_at_equal_logits_gives_the_foreground_its_fraction():
    """|∂CE/∂z| is the same at every pixel where all logits are equal, so the share is the fraction π."""
    logits = torch.zeros(1, 3, 8, 8, requires_grad=True)
    target = torch.zeros(1, 8, 8, dtype=torch.long)
    target[0, :2, :2] = 1
    (gradient,) = torch.autograd.grad(losses.build("ce")(logits, target), logits)
    share, easy = ForegroundShare(0, None)(logits, gradient, target)
    assert share.item() == pytest.approx(4 / 64)
    assert easy.item() == 0, "at equal logits no pixel is easy"


@pytest.mark.parametrize("void", [None, 255])
@pytest.mark.parametrize("channels", [1, 3])
def test_the_easy_negatives_share_of_cross_entropy_equals_a_loop_over_the_pixels(channels, void):
    torch.manual_seed(0)
    logits = 3 * torch.randn(2, channels, 4, 5)
    target = torch.randint(max(2, channels), (2, 4, 5))
    if void is not None:
        target[:, 0] = void
    easy = whole = 0.0
    for n, i, j in np.ndindex(*target.shape):
        z = logits[n, :, i, j].double()
        p = torch.softmax(z if channels > 1 else torch.cat([torch.zeros(1), z]), 0)
        label = int(target[n, i, j])
        if label == void:
            continue
        whole -= float(p[label].log())
        if label == 0 and p[0] > 0.9:
            easy -= float(p[0].log())
    assert easy > 0
    _, share = ForegroundShare(0, void)(logits, torch.ones_like(logits), target)
    assert share.item() == pytest.approx(easy / whole, rel=1e-5)


def test_the_background_is_class_0_by_its_name_and_else_the_commonest_class():
    counts = np.array([[1, 5, 2], [1, 5, 9]])
    assert background_class(("background", "a", "b"), counts) == 0
    assert background_class(("sky", "a", "b"), counts) == 2
