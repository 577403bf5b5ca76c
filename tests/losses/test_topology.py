"""Soft clDice: a gradient by hand, what it sees and what it does not, and MONAI's form beside ours."""

from __future__ import annotations

import pytest
import torch
from cases import example, gradient

from lossatlas import losses


def certain(mask: torch.Tensor) -> torch.Tensor:
    """Logits (N, 1, *S) that predict the mask (N, *S) with certainty."""
    return torch.where(mask > 0, torch.inf, -torch.inf)[:, None]


def street(width: int) -> torch.Tensor:
    """A mask (1, 15, 20) with a street across it, of odd width, around row 7."""
    mask = torch.zeros(1, 15, 20, dtype=torch.long)
    mask[:, 7 - width // 2 : 8 + width // 2] = 1
    return mask


def test_the_gradient_of_three_pixels_is_the_one_derived_by_hand() -> None:
    """b is the least of p = (a, b, c), t = (1, 0, 0): k(p) = p - b, P = (a - b) / (a + c - 2b), R = a."""
    a, b, c = 0.8, 0.1, 0.4
    p = torch.tensor([[[a, b, c]]], dtype=torch.float64)
    loss = losses.build("soft_cldice", mode="binary")
    value, slope = gradient(loss, p.logit(), torch.tensor([[1, 0, 0]]))
    below = a + c - 2 * b
    precision, recall = (a - b) / below, a
    by_precision = -2 * recall**2 / (precision + recall) ** 2
    by_recall = -2 * precision**2 / (precision + recall) ** 2
    expected = [
        by_precision * (c - b) / below**2 + by_recall,
        by_precision * (a - c) / below**2,
        by_precision * -(a - b) / below**2,
    ]
    assert value.item() == pytest.approx(1 - 2 * precision * recall / (precision + recall))
    torch.testing.assert_close(slope, torch.tensor([[expected]]).double() * p * (1 - p))


def test_width_costs_nothing_and_a_gap_does() -> None:
    loss, target = losses.build("soft_cldice", mode="binary"), street(1)
    dice = losses.build("dice", mode="binary")
    assert loss(certain(street(3)), target) == 0
    assert dice(certain(street(3)), target) == pytest.approx(0.5)
    gap = street(3)
    gap[..., 8:12] = 0
    assert loss(certain(gap), target) == pytest.approx(1 - 2 * 0.8 / 1.8)


def test_what_is_wider_than_the_erosions_reach_keeps_no_skeleton() -> None:
    """An empty prediction has P = 1 over its empty skeleton; R is 0, or 1 where the target's is empty too."""
    nothing = torch.zeros(1, 15, 20, dtype=torch.long)
    for iterations, width, expected in ((3, 7, 1.0), (2, 7, 0.0), (2, 5, 1.0)):
        loss = losses.build("soft_cldice", mode="binary", iterations=iterations)
        assert loss(certain(nothing), street(width)) == expected


def test_a_void_frame_is_the_edge_of_the_image() -> None:
    loss = losses.build("soft_cldice", mode="binary", ignore_index=255)
    logits, target = example("binary", shape=(6, 7), void=0.0)
    value, slope = gradient(loss, logits, target)
    framed = torch.full((2, 1, 10, 11), torch.nan, dtype=torch.float64)
    void = torch.full((2, 10, 11), 255)
    framed[..., 2:-2, 2:-2], void[..., 2:-2, 2:-2] = logits, target
    other, other_slope = gradient(loss, framed, void)
    torch.testing.assert_close(other, value)
    torch.testing.assert_close(other_slope[..., 2:-2, 2:-2], slope)
    assert other_slope.count_nonzero() == slope.count_nonzero()


@pytest.mark.parametrize("shape", [(12, 9), (6, 7, 5)])
@pytest.mark.parametrize("iterations", [0, 3])
def test_value_and_gradient_are_monais(shape: tuple[int, ...], iterations: int) -> None:
    cldice = pytest.importorskip("monai.losses.cldice")
    logits, target = example("binary", "onehot", images=3, shape=shape)
    ours = losses.build(
        "soft_cldice", mode="binary", iterations=iterations, smooth=1.0, per_image=True
    )
    # Its `smooth` is a term of the harmonic mean that the paper lacks.
    peer = cldice.SoftclDiceLoss(iter_=iterations, smooth=1e-15, sigmoid=True)
    torch.testing.assert_close(gradient(ours, logits, target), gradient(peer, logits, target))
