"""Which class each score asks for, against all choices and against the exact worth of one pixel."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from lossatlas.theory import class_choice
from lossatlas.theory.class_choice import SCORES, Totals


def few_kinds(seed: int) -> np.ndarray:
    """Five kinds of pixels, 400 of each, and the chances of three classes."""
    kinds = np.random.default_rng(seed).dirichlet((4.0, 1.0, 0.3), size=5)
    return np.repeat(kinds, 400, axis=0)


@pytest.mark.parametrize("score", SCORES)
@pytest.mark.parametrize("seed", range(4))
def test_no_choice_of_a_class_for_each_kind_of_pixel_is_better(score: str, seed: int) -> None:
    q = few_kinds(seed)
    found = class_choice.best_totals(q, score).scores()[score]
    every = (np.repeat(kinds, 400) for kinds in itertools.product(range(3), repeat=5))
    assert found >= max(Totals.of(q, chosen).scores()[score] for chosen in every) - 1e-4


@pytest.mark.parametrize("score", SCORES)
def test_gains_are_what_one_more_pixel_is_worth(score: str) -> None:
    q = class_choice.drawn_chances(seed=1)
    # pixels 0 to 9 in no class: their overlap and size are taken out of the sums
    totals = Totals.of(q[10:], q[10:].argmax(1))
    without = Totals(totals.overlap, totals.size, q.sum(0))
    gains = without.gains(q[:10], score)
    worth = np.empty_like(gains)
    for pixel, c in np.ndindex(*worth.shape):
        one = np.eye(q.shape[1])[c]
        more = Totals(without.overlap + q[pixel] * one, without.size + one, without.truth)
        worth[pixel, c] = more.scores()[score] - without.scores()[score]
    factor = worth.ravel() @ gains.ravel() / (gains.ravel() @ gains.ravel())
    np.testing.assert_allclose(worth, factor * gains, atol=2e-2 * np.abs(worth).max())


@pytest.mark.parametrize("seed", range(3))
def test_each_score_is_best_by_its_own_rule_and_offsets_come_near_for_the_mean_dice(
    seed: int,
) -> None:
    table = class_choice.rules(seed).set_index("rule")
    assert [*table.index[table[list(SCORES)].to_numpy().argmax(0)]] == [*table.index[:4]]
    largest, recall, dice, _, offsets = table["mean Dice"]
    assert recall < largest < offsets < dice and dice - offsets < (dice - largest) / 3
