"""Seven losses over several classes: each at the rate of validation, and all against cross-entropy."""

from __future__ import annotations

import dataclasses
import sys
from pathlib import Path

import pandas as pd
import pytest

sys.path.insert(0, str(Path(__file__).parent))
from hand_made import level, place, records

from lossatlas.claims import frames, several_classes
from lossatlas.report.front import FrontError

#: By label (validation, test): cross-entropy prefers the low rate, Dice the high one, which tests worse.
SCORES = {
    "ce_low": (0.6, 0.6),
    "ce_high": (0.5, 0.7),
    "dice_low": (0.5, 0.8),
    "dice_high": (0.6, 0.65),
}


@pytest.fixture
def known():
    of = place("streets", level(**{label: test for label, (_, test) in SCORES.items()}))
    of.runs["val_foreground_dice_tuned"] = of.runs.loss.map({k: v[0] for k, v in SCORES.items()})
    of.runs["loss_name"] = of.runs.loss.str.rsplit("_", n=1).str[0]
    return records(of)


def test_each_loss_counts_at_the_rate_that_validation_prefers(known):
    assert several_classes.preferred(known).loc["streets"].to_dict() == {
        "ce": "ce_low",
        "dice": "dice_high",
    }
    found = several_classes.less_ce(known, "dice", "tuned")
    assert found.index.tolist() == [("streets", "Dice")] and found["shown"].item() == "ahead"
    assert found.estimate.item() == pytest.approx(5, abs=0.3)
    runs = several_classes.at_preferred(known)
    assert list(dict.fromkeys(zip(runs.name, runs.loss, strict=True))) == [
        ("cross-entropy", "ce_low"), ("Dice", "dice_high"),
    ]  # fmt: skip


def test_squared_dice_has_the_colour_of_squared_dice(known):
    named = known.runs.assign(loss=known.runs.loss.str.replace("dice", "squared"))
    runs = several_classes.at_preferred(dataclasses.replace(known, runs=named))
    assert set(runs.loss_name[runs.name == "squared Dice"]) == {"dice_squared"}


def test_classes_come_with_their_share_the_rarest_last(known):
    ids = several_classes.at_preferred(known)[["run_id", "name"]]
    rows = [
        {"run_id": run, "dataset": "streets", "rule": rule, "class_name": name, "dice": dice, "target_fraction": share}
        for run in known.runs.run_id
        for rule in ("argmax", "tuned")
        for name, share, of in (("rare", 0.01, 0.2), ("frequent", 0.99, 0.9))
        for dice in [of if rule == "argmax" else 0.0]
    ]  # fmt: skip
    table = several_classes.of_classes(dataclasses.replace(known, per_class=pd.DataFrame(rows)))[
        "streets"
    ]
    assert table.index.tolist() == ["frequent", "rare"]
    assert table.columns.tolist() == ["% of pixels", *ids.name.unique()]
    assert table.loc["rare"].tolist() == pytest.approx([1, 20, 20])


def several(**test):
    """Records of both tasks with seven losses; all have .60 but for `test`, by task and loss."""
    parts = []
    for task in ("streets", "tissue"):
        of = {loss: {"argmax": 0.6, "tuned": 0.6} for loss in several_classes.NAMES}
        leads = (
            {"dice": 0.65, "squared": 0.68, "sum": 0.63, "lovasz": 0.63}
            if task == "streets"
            else {"weighted": 0.4}
        )
        for loss, dice in (leads | test.get(task, {})).items():
            of[loss]["argmax"] = dice
        for loss, dice in test.get(f"{task}_tuned", {}).items():
            of[loss]["tuned"] = dice
        parts.append(
            place(
                task, {f"{loss}_{rate}": at for loss, at in of.items() for rate in ("low", "high")}
            )
        )
    return records(*parts)


def test_what_the_first_page_says_of_several_classes_is_checked(monkeypatch):
    def told(of, long):
        known = {"many_classes": of, "many_classes_long": long}
        monkeypatch.setattr(frames, "load_if_run", lambda _, study: known[study])
        return several_classes.numbers("nowhere")

    later = level(ce_low=0.5, ce_high=0.5, squared_low=0.55, squared_high=0.55)
    long = records(place("streets", later))
    found = {"squared": "8.0", "sum": "3.0", "weights": "20", "long": "5.0", "long_offsets": "5.0"}
    assert told(several(), long) == found
    later["squared_low"] = later["squared_high"] = {"argmax": 0.55, "tuned": 0.5}
    with pytest.raises(FrontError, match="after 2,000 steps"):
        told(several(), records(place("streets", later)))
    for wrong in (
        {"streets": {"sum": 0.6}}, {"streets": {"focal": 0.65}}, {"streets": {"weighted": 0.5}},
        {"tissue": {"dice": 0.7}}, {"tissue": {"weighted": 0.6}}, {"streets_tuned": {"squared": 0.68}},
    ):  # fmt: skip
        with pytest.raises(FrontError, match="with the largest probability"):
            told(several(**wrong), long)
    assert told(None, long) == {}


def test_the_lead_in_each_group_of_images():
    part = place("streets", level(ce_low=0.5, ce_high=0.5, squared_low=0.6, squared_high=0.6))
    of_two = dataclasses.replace(part, groups=["a"] + ["b"] * (len(part.groups) - 1))
    counts = {name: of.copy() for name, of in part.counts.items()}
    for of in counts.values():  # in video a both find what cross-entropy does
        of[:, 0] = part.counts["ce_low"][:, 0]
    found = several_classes.lead_by_group(records(dataclasses.replace(of_two, counts=counts)))
    assert found["a"] == 0 and found["b"] == pytest.approx(10, abs=1)
