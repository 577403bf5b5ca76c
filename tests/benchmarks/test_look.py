"""The rule that chooses the images of the page on thresholds."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

ROOT = Path(__file__).resolve().parents[2]


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


def test_the_window_is_the_one_with_the_most_foreground(look: Any) -> None:
    target = np.zeros((64, 96), dtype=bool)
    target[40, 50:60] = True
    y, x = look.fullest_window(target, side=32)
    assert target[y : y + 32, x : x + 32].sum() == 10 and (y, x) == (16, 32)
    with pytest.raises(SystemExit, match="at least 128 pixels"):
        look.fullest_window(target, side=128)


def test_a_pixel_without_a_label_is_no_error(look: Any) -> None:
    targets = np.array([[[1, 0], [look.VOID, look.VOID]]], dtype=np.uint8)
    masks = np.array([[[True, False], [True, True]]])
    assert look.dice_per_image(masks, targets).tolist() == [1.0]
    look.check(np.where(masks, 1.0, -1.0), targets, 1.0, "abc")


def test_real_images_are_not_in_the_file() -> None:
    for path in (ROOT / "results" / "look").glob("*.npz"):
        with np.load(path) as saved:
            for group in json.loads(str(saved["about"]))["groups"]:
                drawn = group["name"].split("/")[0] in ("pi3", "pi01")
                assert drawn == (f"{group['name']}/images" in saved.files)
