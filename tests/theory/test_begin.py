"""The ceiling over the logits: proved, seen in a real head, and met by the toy."""

from __future__ import annotations

import pytest

from lossatlas.theory import begin


def test_every_step_of_the_proof_is_checked() -> None:
    assert len(begin.prove_ceiling()) == 5


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_negative_head_weights_hold_every_logit_below_the_bias_behind_a_relu_alone(
    seed: int,
) -> None:
    assert begin.highest_above_bias("relu", seed) <= 0
    assert begin.highest_above_bias("none", seed) > 1


def test_no_gradient_reaches_a_channel_that_is_off() -> None:
    assert begin.gradient_into_off_channels() == 0


def test_cross_entropy_meets_the_ceiling_and_each_cure_removes_it() -> None:
    toy = begin.Toy(steps=150)

    def above(loss: str, activation: str, prior: bool) -> float:
        last = toy.descend(loss, activation, prior, seed=0).iloc[-1]
        return float(last.highest - last.bias)

    assert above("ce", "relu", False) == pytest.approx(0, abs=1e-4)
    assert above("ce", "none", False) > 1
    assert above("ce", "relu", True) > 1
    assert above("dice", "relu", False) > 1
