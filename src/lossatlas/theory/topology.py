"""What soft clDice sees and Dice does not: a line, the line with a gap, and the line with a thinner rim."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from lossatlas import losses
from lossatlas.theory.calculus import ClosedFormError
from lossatlas.theory.check import (
    DIFFERENCE_TOLERANCE,
    autograd,
    finite_differences,
    relative_difference,
)

#: A logit whose sigmoid is 0 or 1 in float32.
_SURE = 200.0
#: Columns that the gap removes.
_GAP = 3


def scenes(width: int = 3) -> dict[str, Tensor]:
    """Three masks (1, 1, 21, 60) of 0 and 1: the true line, and two that miss the same number of pixels.

    Args:
        width: pixels across the line, odd and at least 3, so that a centre line remains below a thinner rim.
    """
    if width < 3 or width % 2 == 0:
        raise ValueError(f"width: expected an odd number from 3 on, got {width}")
    line = torch.zeros(1, 1, 21, 60)
    top = 10 - width // 2
    line[..., top : top + width, 5:55] = 1.0
    gap, rim = line.clone(), line.clone()
    gap[..., 28 : 28 + _GAP] = 0.0
    rim[..., top, 20 : 20 + _GAP * width] = 0.0
    return {"the true line": line, "with a gap": gap, "with a thinner rim": rim}


def compare(masks: Mapping[str, Tensor], iterations: int = 3) -> pd.DataFrame:
    """Dice and soft clDice of each mask as a prediction of the first one, and how many pixels it misses.

    Args:
        masks: as `scenes` makes them; the first is the truth.
        iterations: erosions of the soft skeleton.
    """
    truth = next(iter(masks.values()))
    dice = losses.DiceLoss(mode="binary")
    centre = losses.SoftClDiceLoss(mode="binary", iterations=iterations)
    return pd.DataFrame(
        [
            {
                "prediction": name,
                "missed pixels": int((truth - mask).sum()),
                "Dice loss": float(dice(_SURE * (2 * mask - 1), truth)),
                "soft clDice loss": float(centre(_SURE * (2 * mask - 1), truth)),
            }
            for name, mask in masks.items()
        ]
    )


def check_gradient(seed: int = 0) -> pd.DataFrame:
    """Autograd of soft clDice against finite differences on random logits, which have no ties.

    Raises:
        ClosedFormError: they differ by more than the tolerance of all checks.
    """
    rng = np.random.default_rng(seed)
    logits = rng.normal(size=(1, 1, 6, 9))
    target = np.zeros_like(logits)
    target[..., 2:4, 1:8] = 1.0
    loss = losses.SoftClDiceLoss(mode="binary", iterations=2)
    # a step far below the distances between neighbours, so that no minimum changes its pixel
    measured = finite_differences(loss, logits, target, step=1e-5)
    found = relative_difference(autograd(loss, logits, target), measured)
    if found > DIFFERENCE_TOLERANCE:
        raise ClosedFormError(f"soft clDice: autograd differs from finite differences by {found:g}")
    pushed = int((np.abs(measured) > 0).sum())
    return pd.DataFrame(
        [{"pixels": logits.size, "pixels pushed": pushed, "autograd vs differences": found}]
    )
