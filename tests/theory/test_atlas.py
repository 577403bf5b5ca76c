"""The curves of the family figures are those of the library."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from lossatlas.theory import atlas
from lossatlas.theory.atlas import library_loss, profile
from lossatlas.theory.calculus import ClosedFormError

NAMES = [
    "ce",
    "weighted_ce",
    "one_vs_all_ce",
    "balanced_ce",
    "focal",
    "poly1",
    "dice",
    "jaccard",
    "dice_semimetric",
]


@pytest.mark.parametrize("target", [1.0, 0.0, 0.3])
@pytest.mark.parametrize("name", NAMES)
def test_a_curve_is_the_librarys_loss_of_one_pixel_among_400(name: str, target: float) -> None:
    """Soft labels as well: focal loss and Poly-1 mix the losses of both labels."""
    probs = np.array([0.1, 0.6])
    foreground = 40 - (1 if target >= 0.5 else 0)
    others = torch.tensor([0.9] * foreground + [0.1] * (399 - foreground), dtype=torch.double)
    values = []
    for prob in probs:
        pixels = torch.cat([torch.tensor([prob], dtype=torch.double), others])
        labels = torch.cat([torch.tensor([target], dtype=torch.double), (others > 0.5).double()])
        values.append(
            library_loss(name, 0.1)(pixels.logit()[None, None], labels[None, None]).item()
        )
    drawn = profile(name, target, probs)["value"].to_numpy()
    assert drawn[1] - drawn[0] == pytest.approx(values[1] - values[0], rel=0.01)


def test_one_nan_among_the_shares_stops_the_build(monkeypatch):
    right, calls = atlas.share_values, iter(range(10_000))

    def other(*arguments):
        return right(*arguments) * (float("nan") if next(calls) == 3 else 1)

    monkeypatch.setattr(atlas, "share_values", other)
    with pytest.raises(ClosedFormError, match="closed form and autograd differ"):
        atlas.worst_disagreement()
