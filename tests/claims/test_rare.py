"""What the book says of a foreground near 0.1 % is counted from three studies and stops the build where it is wrong."""

from __future__ import annotations

import dataclasses
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))
from hand_made import level, place, records

from lossatlas.claims import frames, rare
from lossatlas.report.front import FrontError


def study(draws, **described):
    """Records of a place at 0.1 % for each draw, whose tuned Dice are those of `draws` (cross-entropy, Dice)."""
    parts = []
    for name, (ce, dice) in draws.items():
        of = {"ce": ce, "dice": dice}
        parts.append(place(name, level(**of), foreground=0.001, foreground_dice_tuned=of))
    return records(*parts, **described)


def test_the_losses_are_compared_between_the_two_fractions_of_a_draw():
    def at(foreground, draw, ce, dice):
        name, factors = f"{foreground} {draw}", {"foreground": foreground, "objects": 533}
        return place(name, level(ce=ce, dice=dice), draw=draw, **factors)

    first = at(0.01, 1, 0.8, 0.79), at(0.001, 1, 0.58, 0.5)
    found = rare.apart([records(*first, at(0.01, 2, 0.8, 0.7), at(0.001, 2, 0.6, 0.55))])
    assert found.estimate.round(1).tolist() == [-7.0, 5.0]
    assert (found.low <= found.estimate).all() and found.p.between(0, 1).all()


def test_few_objects_are_compared_with_many_by_seed():
    def at(name, objects, ce, dice):
        of = {"ce": ce, "dice": dice}
        scores = level(ce=0.5, dice=0.5)
        return place(name, scores, foreground=0.01, objects=objects, foreground_dice_tuned=of)

    known = records(at("n53", 53, 0.76, 0.76), at("n5333", 5333, 0.8, 0.78))
    few = (known.runs.dataset == "n53") & (known.runs.loss == "dice")
    # every other seed up, the others down
    known.runs["foreground_dice_tuned"] += few * 0.01 * (-1) ** known.runs.seed
    found = rare.few_objects(known)
    assert found.estimate == pytest.approx(2.0)
    # eight values one point from their mean: a deviation of √(8/7), over √8, by Student's 2.365 of seven degrees
    assert found.high - found.estimate == pytest.approx(2.3646 / 7**0.5, rel=1e-4)
    assert found.estimate - found.low == pytest.approx(found.high - found.estimate)


def eight_settings(**other):
    """Records of `imbalance_rare_batch`: every training of a loss has the tuned Dice given here."""
    scores = {"ce": 0.72, "focal": 0.72, "ohem_ce": 0.72, "weighted_ce": 0.6, "focal_inverse": 0.58}
    scores |= {
        "dice_low": 0.64,
        "dice_ce_low": 0.63,
        "dice_ce_high": 0.61,
        "dice_high": 0.37,
    } | other
    return records(place("b16", level(**scores)))


def numbers(
    monkeypatch,
    first=(0.57, 0.52),
    second=(0.58, 0.50),
    batch=(0.72, 0.66),
    began=False,
    sixteen=None,
    **described,
):
    of = {
        "imbalance": study({"pi01": first}),
        "imbalance_draw": study({"d1": second, "d2": (0.56, 0.52)}),
        "imbalance_batch": study({"b16": batch}, **described),
        "imbalance_losses": study({"pi01": first}),
        "imbalance_rare_batch": eight_settings(**(sixteen or {})),
    }
    runs = of["imbalance_losses"].runs.replace({"loss": {"dice": "lovasz_softmax_low"}})
    runs = runs.assign(began=began | (runs.loss == "ce"))
    of["imbalance_losses"] = dataclasses.replace(of["imbalance_losses"], runs=runs)
    monkeypatch.setattr(frames, "load_if_run", lambda _, name: of[name])
    return rare.numbers("nowhere")


def test_the_gain_by_more_images_and_the_draws_are_counted(monkeypatch):
    assert numbers(monkeypatch) == {
        "ce": "+15", "dice": "+14", "low": "−8", "high": "−4", "draws": "3", "lovasz": "8",
        "weights": "12 to 14", "overlap": "8 to 11",
    }  # fmt: skip


def test_nothing_is_said_while_a_run_is_missing(monkeypatch):
    assert numbers(monkeypatch, missing_runs=1) == {}


@pytest.mark.parametrize(
    ("wrong", "sentence"),
    [
        ({"batch": (0.72, 0.51)}, "more images a step help both"),
        ({"batch": (0.72, 0.57)}, "by more than the losses differ"),
        ({"second": (0.58, 0.59)}, "in the mean of every draw"),
        ({"began": True}, "no training of Lovász-softmax begins"),
        ({"sixteen": {"focal": 0.78}}, "all but OHEM and focal loss are shown behind"),
        ({"sixteen": {"ohem_ce": 0.66}}, "all but OHEM and focal loss are shown behind"),
        ({"sixteen": {"dice_low": 0.72}}, "all but OHEM and focal loss are shown behind"),
    ],
)
def test_records_that_contradict_the_pages_stop_the_build(monkeypatch, wrong, sentence):
    with pytest.raises(FrontError, match=sentence):
        numbers(monkeypatch, **wrong)
