"""Values small enough to compute by hand; the arithmetic stands beside each."""

from __future__ import annotations

import math
from math import log

import pytest
import torch

from lossatlas import losses

# Two pixels, one foreground (p = 0.8), one background (p = 0.4).
BINARY_P = [0.8, 0.4]
BINARY_T = [1, 0]
# I = 0.8, S = 1.2, T = 1, sum p^2 = 0.64 + 0.16 = 0.8, TP = 0.8, FP = 0.4, FN = 0.2.
BINARY = {
    "ce": (-log(0.8) - log(0.6)) / 2,
    "focal": (0.2**2 * -log(0.8) + 0.4**2 * -log(0.6)) / 2,
    "poly1": (-log(0.8) + 0.2 - log(0.6) + 0.4) / 2,
    "asymmetric": (-log(0.8) + 0.35**4 * -log(0.65)) / 2,  # the negative's x is 0.4 - 0.05
    "dice": 1 - 1.6 / 2.2,
    "dice_squared": 1 - 1.6 / 1.8,
    "inverse_dice": 1 - 2 * 0.6 / (0.8 + 1),  # 1-p = 0.2, 0.6 and 1-t = 0, 1
    "log_cosh_dice": log(math.cosh(1 - 1.6 / 2.2)),
    "jaccard": 1 - 0.8 / 1.4,
    "tversky": 1 - 0.8 / (0.8 + 0.3 * 0.4 + 0.7 * 0.2),
    "focal_tversky": (1 - 0.8 / 1.06) ** 0.75,
    "dice_semimetric": 1 - 2 * ((1.2 + 1 - 0.6) / 2) / 2.2,  # |p - t| sums to 0.2 + 0.4
    # errors 0.4 (background, first) and 0.2: the Jaccard loss goes 0 -> 1/2 -> 1
    "lovasz_softmax": 0.4 * 0.5 + 0.2 * 0.5,
    # hinge errors 1 - ln 4 < 0 -> 0 and 1 - ln 1.5
    "lovasz_hinge": (1 - log(1.5)) * 0.5,
    # k(p) = 0.8 - 0.4 on the foreground, so P = 1; k(t) = t, so R = 0.8
    "soft_cldice": 1 - 1.6 / 1.8,
    "dice_ce": 1 - 1.6 / 2.2 + (-log(0.8) - log(0.6)) / 2,
    "dice_focal": 1 - 1.6 / 2.2 + (0.2**2 * -log(0.8) + 0.4**2 * -log(0.6)) / 2,
    "ce_lovasz": 0.3 + (-log(0.8) - log(0.6)) / 2,
}

# Three pixels of three classes; labels 0, 1, 0, so class 2 is absent.
MULTICLASS_P = [[0.7, 0.2, 0.1], [0.3, 0.6, 0.1], [0.2, 0.3, 0.5]]
MULTICLASS_T = [0, 1, 0]
# class 0: I = 0.9, S = 1.2, T = 2, TP 0.9, FP 0.3, FN 1.1; class 1: I = 0.6, S = 1.1, T = 1, TP 0.6, FP 0.5, FN 0.4.
CE3 = (-log(0.7) - log(0.6) - log(0.2)) / 3
DICE3 = ((1 - 1.8 / 3.2) + (1 - 1.2 / 2.1)) / 2
FOCAL3 = (0.3**2 * -log(0.7) + 0.4**2 * -log(0.6) + 0.8**2 * -log(0.2)) / 3
# class 0: errors 0.8 (C), 0.3 (A), 0.3 (B, background); Jaccard loss 0, 1/2, 1 (then B changes nothing): 0.8/2 + 0.3/2.
# class 1: errors 0.4 (B, its only pixel: the loss jumps to 1), then background without effect: 0.4.
LOVASZ3 = (0.8 * 0.5 + 0.3 * 0.5 + 0.4) / 2
MULTICLASS = {
    "ce": CE3,
    "focal": FOCAL3,
    "poly1": CE3 + (0.3 + 0.4 + 0.8) / 3,
    # negatives' x = p - 0.05: (0.15, 0.05), (0.25, 0.05), (0.25, 0.45)
    "asymmetric": CE3 + sum(x**4 * -log(1 - x) for x in (0.15, 0.05, 0.25, 0.05, 0.25, 0.45)) / 3,
    "dice": DICE3,
    # sum p^2: class 0 0.49 + 0.09 + 0.04 = 0.62, class 1 0.04 + 0.36 + 0.09 = 0.49
    "dice_squared": ((1 - 1.8 / (0.62 + 2)) + (1 - 1.2 / (0.49 + 1))) / 2,
    "log_cosh_dice": (log(math.cosh(1 - 1.8 / 3.2)) + log(math.cosh(1 - 1.2 / 2.1))) / 2,
    "jaccard": ((1 - 0.9 / 2.3) + (1 - 0.6 / 1.5)) / 2,
    "tversky": (
        (1 - 0.9 / (0.9 + 0.3 * 0.3 + 0.7 * 1.1)) + (1 - 0.6 / (0.6 + 0.3 * 0.5 + 0.7 * 0.4))
    )
    / 2,
    "focal_tversky": ((1 - 0.9 / 1.76) ** 0.75 + (1 - 0.6 / 1.03) ** 0.75) / 2,
    "dice_semimetric": DICE3,
    # w = 1/2^2 and 1/1^2; the absent class has no weight: 2 (0.9/4 + 0.6) / (3.2/4 + 2.1)
    "generalized_dice": 1 - 2 * (0.9 / 4 + 0.6) / (3.2 / 4 + 2.1),
    "lovasz_softmax": LOVASZ3,
    # class 0, p = .7 .3 .2, eroded .3 .2 .2, opened .3 .3 .2: k(p) is on the first pixel, P = 1.
    # k(t) = t, R = 0.9 / 2.
    # class 1, p = .2 .6 .3: k(p) = 0 .3 .1, where .1 is what the second erosion adds: P = 0.75; R = 0.6.
    "soft_cldice": ((1 - 0.9 / 1.45) + (1 - 0.9 / 1.35)) / 2,
    "dice_ce": DICE3 + CE3,
    "dice_focal": DICE3 + FOCAL3,
    "ce_lovasz": CE3 + LOVASZ3,
}


def logits_of(p: list[float]) -> torch.Tensor:
    """(1, 1, P) logits with the given sigmoid."""
    q = torch.tensor(p, dtype=torch.float64)
    return torch.log(q / (1 - q))[None, None]


@pytest.mark.parametrize("name", BINARY)
def test_two_pixels_give_the_value_computed_by_hand(name: str) -> None:
    value = losses.build(name, mode="binary")(logits_of(BINARY_P), torch.tensor([BINARY_T]))
    assert value.item() == pytest.approx(BINARY[name], rel=1e-12)


@pytest.mark.parametrize("name", MULTICLASS)
def test_three_pixels_of_three_classes_give_the_value_computed_by_hand(name: str) -> None:
    logits = torch.tensor(MULTICLASS_P, dtype=torch.float64).log().T[None]  # (1, 3, 3): class first
    value = losses.build(name)(logits, torch.tensor([MULTICLASS_T]))
    assert value.item() == pytest.approx(MULTICLASS[name], rel=1e-12)
