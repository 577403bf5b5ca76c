"""Calibration against hand arithmetic, a plain oracle and scikit-learn.

What it says of true probabilities is in ``tests/theory/test_metric_facts.py``.
"""

from __future__ import annotations

import numpy as np
import pytest
import torch
from counting import counted
from sklearn.metrics import brier_score_loss, log_loss

from lossatlas.metrics import Calibration
from lossatlas.metrics.calibration import _sum_bin_after_bin, _sum_by_bin


def draw(seed: int, channels: int, images: int = 3, side: int = 16):
    generator = torch.Generator().manual_seed(seed)
    logits = 2 * torch.randn(images, channels, side, side, generator=generator)
    target = torch.randint(max(channels, 2), (images, side, side), generator=generator)
    return logits, target


def oracle_ece(score: np.ndarray, outcome: np.ndarray, bins: int) -> float:
    """Bins (k/bins, (k+1)/bins]: a bin's share of the pixels times the gap of its means is the sum of its gaps."""
    bin_of = np.ceil(score * bins - 1e-6)
    gaps = [(score - outcome)[bin_of == k].sum() for k in np.unique(bin_of)]
    return float(np.abs(gaps).sum() / len(score))


def oracle(logits: torch.Tensor, target: torch.Tensor, bins: int = 15) -> dict[str, float]:
    values = logits.double().movedim(1, 0).flatten(1).numpy()
    truth = target.flatten().numpy()
    if len(values) == 1:
        values = np.concatenate([0 * values, values])
    probs = np.exp(values) / np.exp(values).sum(0)
    if len(probs) == 2:
        score, outcome = probs[1], (truth == 1).astype(float)
    else:
        score, outcome = probs.max(0), (probs.argmax(0) == truth).astype(float)
    kept = 1 - probs[0] > 0.01
    labels = list(range(len(probs)))
    said = probs[1] if len(probs) == 2 else probs.T
    return {
        "ece": oracle_ece(score, outcome, bins),
        "ece_foreground": oracle_ece(score[kept], outcome[kept], bins),
        "nll": log_loss(truth, probs.T, labels=labels),
        "brier": brier_score_loss(truth, said, labels=labels),
    }


@pytest.mark.parametrize("channels", [1, 2, 3, 6])
def test_every_number_equals_a_plain_oracle_and_scikit_learn(channels):
    logits, target = draw(channels, channels)
    found = counted(Calibration(channels), logits, target).compute()
    for name, value in oracle(logits, target).items():
        assert found[name] == pytest.approx(value, rel=1e-5), name


def test_a_case_by_hand():
    # Bins of width ½. p = .2 .3 | .9 .9, truth 0 1 | 1 0:
    # first bin mean .25 against ½, second .9 against ½: ½·.25 + ½·.4 = .325
    said = torch.tensor([0.2, 0.3, 0.9, 0.9])
    calibration = Calibration(1, bins=2)
    calibration.update(said.logit().reshape(1, 1, -1), torch.tensor([[0, 1, 1, 0]]))
    found = calibration.compute()
    assert found["ece"] == found["ece_foreground"] == pytest.approx(0.325, abs=1e-6)
    expected = -np.log([0.8, 0.3, 0.9, 0.1]).mean()
    assert found["nll"] == pytest.approx(expected, abs=1e-6)
    # (.2² + .7² + .1² + .9²)/4
    assert found["brier"] == pytest.approx((0.04 + 0.49 + 0.01 + 0.81) / 4, abs=1e-6)


@pytest.mark.parametrize("channels", [1, 5])
def test_batches_give_what_the_whole_gives_and_void_is_left_out(channels):
    logits, target = draw(4, channels, images=6)
    void = torch.rand(target.shape, generator=torch.Generator().manual_seed(0)) < 0.3
    marked = torch.where(void, 255, target)
    whole = counted(Calibration(channels, ignore_index=255), logits, marked)
    parts = Calibration(channels, ignore_index=255)
    for one, truth in zip(logits.split([1, 3, 2]), marked.split([1, 3, 2]), strict=True):
        parts.update(one, truth)
    kept = counted(Calibration(channels), logits.movedim(1, 0)[:, ~void][None], target[~void][None])
    for name, value in whole.compute().items():
        assert parts.compute()[name] == pytest.approx(value, rel=1e-9)
        assert kept.compute()[name] == pytest.approx(value, rel=1e-9)


def test_without_a_background_every_pixel_is_foreground():
    logits, target = draw(5, 3)
    found = counted(Calibration(3, background=None), logits, target).compute()
    assert found["ece_foreground"] == found["ece"]


def test_huge_logits_stay_finite_and_an_empty_set_is_undefined():
    calibration = Calibration(2)
    assert all(np.isnan(value) for value in calibration.compute().values())
    calibration.update(torch.tensor([[[1e4], [-1e4]]]), torch.tensor([[1]]))
    assert all(np.isfinite(v) for k, v in calibration.compute().items() if k != "ece_foreground")
    assert calibration.compute()["nll"] == pytest.approx(2e4)


@pytest.mark.parametrize("channels", [1, 2, 3, 5])
def test_an_infinite_logit_is_certainty(channels):
    sure = torch.zeros(1, channels, 2)
    sure[0, -1] = float("inf")
    right, wrong = torch.full((1, 2), max(channels - 1, 1)), torch.zeros(1, 2, dtype=torch.long)
    calibration = counted(Calibration(channels), sure, right)
    assert calibration.compute() == {"ece": 0, "ece_foreground": 0, "nll": 0, "brier": 0}
    found = counted(Calibration(channels), sure, wrong).compute()
    assert (found["ece"], found["nll"]) == (1, np.inf)
    assert found["brier"] == (2 if channels > 2 else 1)


@pytest.mark.parametrize("infinite", [float("inf"), -float("inf")])
def test_infinite_logits_of_one_pixel_share_it_equally(infinite):
    logits = torch.tensor([infinite, 0.0, infinite]) if infinite > 0 else torch.full((3,), infinite)
    calibration = counted(Calibration(3), logits.reshape(1, 3, 1), torch.tensor([[0]]))
    share = 1 / logits.isinf().sum().item()
    assert calibration.compute()["nll"] == pytest.approx(-np.log(share))


def test_an_infinite_logit_leaves_the_other_pixels_as_they_are():
    logits, target = draw(6, 3)
    known = counted(Calibration(3), logits, target)
    both = counted(Calibration(3), logits, target)
    both.update(torch.tensor([[[float("inf")], [0.0], [1.0]]]), np.array([[0]]))
    pixels = target.numel()
    for name in ("nll", "brier"):
        expected = known.compute()[name] * pixels / (pixels + 1)
        assert both.compute()[name] == pytest.approx(expected, rel=1e-12)


def test_wrong_input_says_what_was_expected():
    with pytest.raises(ValueError, match=r"expected \(N, 3, \*S\), got \(1, 2, 4\)"):
        Calibration(3).update(torch.zeros(1, 2, 4), torch.zeros(1, 4, dtype=torch.long))


def test_the_sums_of_a_gpu_are_those_of_the_cpu():
    generator = torch.Generator().manual_seed(0)
    index = torch.randint(7, (1000,), generator=generator)
    values = torch.rand(1000, generator=generator, dtype=torch.float64)
    expected = [values[index == b].sum().item() for b in range(9)]
    np.testing.assert_allclose(_sum_by_bin(index, values, 9), expected, rtol=1e-12)
    np.testing.assert_allclose(_sum_bin_after_bin(index, values, 9), expected, rtol=1e-12)


@pytest.mark.parametrize("background", [None, 0, 1])
def test_one_channel_has_the_background_of_two(background):
    logits, target = draw(6, 1)
    found = []
    for channels, values in ((1, logits), (2, torch.cat([torch.zeros_like(logits), logits], 1))):
        calibration = counted(Calibration(channels, background=background), 4 * values, target)
        found.append(calibration.compute())
    assert found[0] == pytest.approx(found[1], rel=1e-5)


@pytest.mark.parametrize("channels", [1, 2, 4])
def test_a_logit_that_is_nan_makes_every_number_nan(channels):
    logits, target = draw(7, channels)
    logits[0, :, 0, 0] = torch.nan
    calibration = counted(Calibration(channels), logits, target)
    assert all(np.isnan(value) for value in calibration.compute().values())
