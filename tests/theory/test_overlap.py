"""What plain and squared Dice ask of many pixels whose class is uncertain."""

from __future__ import annotations

import numpy as np

from lossatlas.theory import overlap


def test_squared_dice_asks_for_the_chance_over_the_dice_and_plain_dice_for_0_or_1() -> None:
    answers, reached = overlap.best_answers()
    # the two conditions of a minimum, solved by iteration and without a gradient
    chance = answers["chance"].to_numpy()
    plain = squared = 0.5
    for _ in range(100):
        called = chance > plain / 2
        plain = 2 * chance[called].sum() / (called.sum() + chance.sum())
        asked = np.minimum(1, chance / squared)
        squared = 2 * (asked * chance).sum() / ((asked**2).sum() + chance.sum())
    assert abs(reached["Dice"] - plain) < 2e-3 and abs(reached["Dice, squared"] - squared) < 2e-3
    far = np.abs(chance - plain / 2) > 0.02  # nearer the descent is slow
    np.testing.assert_allclose(answers["Dice"][far], called[far], atol=0.02)
    np.testing.assert_allclose(answers["Dice, squared"], asked, atol=0.02)
