"""The rule that chooses the images of the page on thresholds."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest


@pytest.fixture(scope="module")
def look(script: Any) -> Any:
    return script("benchmarks/look.py")


def test_the_images_are_those_of_the_rules_and_none_comes_twice(look: Any) -> None:
    dice = np.array(
        [[0.9, 0.1, 0.5, 0.8, 0.6, 0.7, 0.2, np.nan], [0.1, 0.1, 0.5, 0.8, 0.6, 0.3, 0.2, np.nan]]
    )
    places, rules = look.chosen(dice)
    assert places[:2] == [0, 5] and rules[:2] == ["most disagreement"] * 2
    assert places[2] == 2 and rules[2] == "median"
    assert places[4:] == [1, 6] and len(set(places)) == 6


def test_the_seed_is_the_first_that_a_threshold_rescues(look: Any) -> None:
    records = pd.DataFrame(
        {
            "dataset": "pi3",
            "model": "relu4_zero",
            "loss": "ce",
            "seed": [0, 1, 2, 3],
            "foreground_dice": [0.8, 0.0, 0.0, 0.0],
            "foreground_dice_tuned": [0.8, 0.1, 0.7, 0.8],
        }
    )
    assert look.rescued_seed(records) == 2


def test_a_network_that_does_not_give_its_record_is_refused(look: Any) -> None:
    targets = np.ones((1, 2, 2), dtype=bool)
    with pytest.raises(SystemExit, match="evaluate it first"):
        look.check(np.ones((1, 2, 2)), targets, 0.5, "abc")
