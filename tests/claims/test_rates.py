"""A loss at its better rate: validation chooses, and the seed that is compared takes no part in the choice."""

from __future__ import annotations

import dataclasses
import sys
from pathlib import Path

import pandas as pd
import pytest

sys.path.insert(0, str(Path(__file__).parent))
from hand_made import SEEDS, place, records

from lossatlas.claims import frames, rates

BOTH = {"ce": ["ce_low", "ce_high"], "dice": ["dice_low", "dice_high"]}
TEST = {"ce_low": 0.70, "ce_high": 0.60, "dice_low": 0.65, "dice_high": 0.68}


def study(validation):
    """Records with a test Dice by label and the validation scores of every seed by label."""
    part = place("digits", {loss: {"argmax": dice, "tuned": dice} for loss, dice in TEST.items()})
    scores = [validation[run.loss][run.seed] for run in part.runs.itertuples()]
    runs = part.runs.assign(val_foreground_dice_tuned=scores)
    return records(dataclasses.replace(part, runs=runs))


def level(**scores):
    return {label: [scores.get(label, 0.5)] * SEEDS for label in TEST}


def test_a_loss_has_the_rate_that_validation_prefers_whatever_the_test_images_say():
    known = study(level(ce_high=0.6, dice_high=0.6))
    found = rates.preferred(known, BOTH)
    assert found.losses == ["ce", "dice"]
    assert found.runs.groupby("loss").size().tolist() == [SEEDS, SEEDS]
    gap = frames.differences(found, "dice", ["dice", "ce"], "tuned")
    # .68 − .60, though ce_low is better on the test images
    assert gap.estimate.round(2).tolist() == [0.08]


def test_the_seed_that_is_compared_does_not_choose_its_own_rate():
    scores = level(dice_high=0.6)
    scores["ce_low"] = [0.9] + [0.5] * (SEEDS - 1)  # the first seed alone prefers the low rate
    scores["ce_high"] = [0.1] + [0.52] * (SEEDS - 1)
    found = rates.preferred(study(scores), BOTH)
    taken = found.runs[found.runs.loss == "ce"].set_index("seed").run_id
    assert "ce_high" in taken[0]  # the seven others prefer the high rate
    assert all("ce_low" in taken[seed] for seed in range(1, SEEDS))  # here the first seed decides


def test_counts_are_those_of_the_chosen_runs():
    scores = level(dice_high=0.6)
    scores["ce_low"] = [0.9] + [0.5] * (SEEDS - 1)
    scores["ce_high"] = [0.1] + [0.52] * (SEEDS - 1)
    known = study(scores)
    part, given = rates.preferred(known, BOTH).parts[0], known.parts[0]
    assert (part.counts["ce"][0] == given.counts["ce_high"][0]).all()
    assert (part.by_rule["tuned"]["ce"][1:] == given.by_rule["tuned"]["ce_low"][1:]).all()
    assert (part.by_rule["tuned"]["dice"] == given.by_rule["tuned"]["dice_high"]).all()


def test_seeds_without_a_run_at_every_rate_are_missing():
    known = study(level(ce_low=0.6, dice_low=0.6))
    part = known.parts[0]
    gone = (part.runs.loss == "ce_high") & (part.runs.seed > 0)
    few = dataclasses.replace(part, runs=part.runs[~gone])
    found = rates.preferred(dataclasses.replace(known, parts=[few]), BOTH)
    assert found.parts[0].losses == ["dice"]
    gap = frames.differences(found, "dice", ["dice", "ce"], "tuned").iloc[0]
    assert pd.isna(gap.estimate) and gap.why == "8 of the 16 runs that it needs are missing"


def test_a_label_that_the_study_lacks_is_named():
    with pytest.raises(ValueError, match=r"labels of losses of hand_made .* got 'ce_mid'"):
        rates.preferred(study(level()), {"ce": ["ce_low", "ce_mid"]})
