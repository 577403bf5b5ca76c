"""Quantities of hand-made records, whose answer is known before."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

sys.path.insert(0, str(Path(__file__).parent))
from hand_made import CE, DICE, IMAGES, place, records

from lossatlas.claims import curves, judge, pixels
from lossatlas.claims.quantities import entries


def test_the_published_gap_is_the_sum_of_its_four_parts():
    known = records(place("cracks", {"ce": CE, "dice": DICE}))

    def part(losses, rules):
        (entry,) = entries(known, "dice", losses, rules)
        return entry.value.estimate

    gap = part(["dice", "ce"], "half")
    threshold = part(["ce", "ce"], ["tuned", "half"])
    cost = part(["ce", "ce"], ["oracle", "tuned"])
    ranking = part(["dice", "ce"], "oracle")
    slack = part(["dice", "dice"], ["oracle", "half"])
    assert [gap, threshold, cost, ranking, slack] == pytest.approx(
        [0.09, 0.10, 0.01, -0.01, 0.01], abs=1e-6
    )
    assert gap == pytest.approx(threshold + cost + ranking - slack)


def test_a_pair_of_rules_names_both_and_over_seeds_knows_of_no_images():
    known = records(place("cracks", {"ce": CE, "dice": DICE}))
    (both,) = entries(known, "dice", ["dice", "ce"], ["half", "tuned"])
    (seeds,) = entries(known, "dice", ["dice", "ce"], ["half", "tuned"], over="seeds")
    assert both.value.estimate == pytest.approx(seeds.value.estimate)
    assert both.value.images == IMAGES and seeds.value.images == 0
    (entry,) = entries(known, "dice", ["ce", "ce"], ["plug-in", "tuned"])
    assert (entry.value.first, entry.value.second) == ("ce (plug-in)", "ce (tuned)")


def test_a_difference_between_places_adds_their_errors():
    known = records(
        place("common", {"ce": {"argmax": 0.8}, "dice": {"argmax": 0.8}}, foreground=0.3),
        place("rare", {"ce": {"argmax": 0.5}, "dice": {"argmax": 0.6}}, foreground=0.01),
        study="x",
    )
    asked = ("dice", ["dice", "ce"], "half", {"foreground": 0.01})
    (entry,) = entries(known, *asked, against={"foreground": 0.3})
    assert entry.place == "1 % against 30 %"
    assert entry.value.estimate == pytest.approx(0.1, abs=1e-6)
    alone = [
        entries(known, "dice", ["dice"], where={"foreground": f})[0].value for f in (0.01, 0.3)
    ]
    (own,) = entries(known, "dice", ["dice"], where=asked[3], against={"foreground": 0.3})
    assert own.value.standard_error == pytest.approx(
        np.hypot(*(each.standard_error for each in alone))
    )
    with pytest.raises(ValueError, match="levels of one place"):
        entries(known, *asked, against={"foreground": "> 0"})


def test_two_networks_on_the_same_images_are_paired():
    """What both share, a hard image or an easy one, cancels."""
    hard = 0.2 * np.random.default_rng(1).random(IMAGES)
    known = records(
        place("cracks", {"ce": {"argmax": 0.7 - hard}}, model="unet"),
        place("cracks", {"ce": {"argmax": 0.65 - hard}}, model="plain"),
    )
    where, against = {"model": "plain"}, {"model": "unet"}
    (entry,) = entries(known, "dice", ["ce"], where=where, against=against)
    assert entry.place == "cracks, plain against unet"
    assert entry.value.estimate == pytest.approx(-0.05, abs=1e-6)
    assert (entry.value.images, entry.value.standard_error < 1e-6) == (IMAGES, True)
    (alone,) = entries(known, "dice", ["ce"], where=where)
    assert alone.value.standard_error > 0.01


def test_the_folds_of_a_cross_validation_are_one_place():
    folds = [
        place(f"fold{k}", {"ce": {"argmax": d}, "dice": {"argmax": d + 0.1}}, fold=k, nll=0.1 + k)
        for k, d in enumerate((0.4, 0.6))
    ]
    (entry,) = entries(records(*folds, pool="fold"), "dice", ["ce"])
    assert entry.place == "fold"
    assert entry.value.estimate == pytest.approx(0.5, abs=1e-3)
    assert entry.value.images == 2 * IMAGES
    (entry,) = entries(records(*folds, pool="fold"), "negative log-likelihood", ["dice"])
    assert entry.value.estimate == pytest.approx(0.6)
    less = folds[1].runs[~((folds[1].runs.loss == "ce") & (folds[1].runs.seed == 0))]
    folds[1] = folds[1].__class__(**{**vars(folds[1]), "runs": less})
    (entry,) = entries(records(*folds, pool="fold"), "dice", ["ce"])
    assert entry.awaits and entry.why == "1 of the 16 runs that it needs are missing"


def test_regret_is_against_the_loss_that_validation_prefers():
    scores = {
        "ce": {"argmax": 0.5, "tuned": 0.60},
        "dice": {"argmax": 0.7, "tuned": 0.66},
        "focal": {"argmax": 0.8, "tuned": 0.62},
    }
    known = records(place("cracks", scores))
    (entry,) = entries(known, "regret", ["ce"], "tuned")
    assert entry.value.estimate == pytest.approx(0.06, abs=1e-6)
    assert entries(known, "regret", ["dice"], "tuned")[0].value.estimate == 0


def test_rankings_that_agree_have_a_correlation_of_one_and_opposite_ones_of_minus_one():
    def ranked(name, a, b, c):
        levels = {"ce": a, "dice": b, "focal": c}
        return place(name, {k: {"argmax": v} for k, v in levels.items()})

    losses = ["ce", "dice", "focal"]
    same = records(ranked("x", 0.1, 0.5, 0.9), ranked("y", 0.2, 0.4, 0.6))
    (entry,) = entries(same, "rank correlation", losses)
    assert (entry.place, entry.value.estimate) == ("2 places together", 1.0)
    other = records(ranked("x", 0.1, 0.5, 0.9), ranked("y", 0.6, 0.4, 0.2))
    assert entries(other, "rank correlation", losses)[0].value.estimate == -1.0
    ties = records(ranked("x", 0.1, 0.5, 0.9), ranked("y", 0.5, 0.5, 0.5))
    (entry,) = entries(ties, "rank correlation", losses)
    assert (entry.value, entry.why) == (None, "at a place all losses are equal")


def test_the_best_rate_is_that_of_the_place_where_a_seed_does_best():
    known = records(
        *(
            place(f"r{k}", {"ce": {"argmax": c}, "dice": {"argmax": d}}, rate=rate)
            for k, (rate, c, d) in enumerate([(0.03, 0.7, 0.3), (0.1, 0.5, 0.4), (0.3, 0.2, 0.6)])
        )
    )
    (entry,) = entries(known, "best rate", ["dice", "ce"])
    assert entry.value.estimate == pytest.approx(1.0), "0.3 against 0.03: a decade"


def test_masks_agree_across_losses_as_across_seeds_where_the_loss_is_but_noise(tmp_path):
    rng = np.random.default_rng(0)
    label = np.arange(400) < 150
    part = place("cracks", {"ce": CE, "dice": DICE, "focal": CE})
    part.runs["offsets_tuned"] = json.dumps([0.0])

    def rows(run):
        z = np.where(label, 1.0, -1.0) + rng.normal(0, 0.5, 400)
        if run.loss == "focal":
            z = z + 1.2  # inflated masks
        columns = {"pixel": range(400), "label": label, "weight": 1.0, "logit": z}
        return pd.DataFrame(columns).assign(run_id=run.run_id)

    pd.concat(rows(run) for run in part.runs.itertuples()).to_parquet(tmp_path / "pixels.parquet")
    known = records(part, folder=tmp_path)
    (same,) = entries(known, "mask agreement", ["dice", "ce"], "tuned")
    assert same.value.estimate == pytest.approx(0, abs=0.01)
    assert same.value.p_above(-0.01) < 0.05 and same.value.p_below(0.01) < 0.05
    (other,) = entries(known, "mask agreement", ["focal", "ce"], "tuned")
    assert other.value.estimate < -0.03 and other.value.p_below(0) < 0.01


def test_the_line_of_weighted_logits_over_plain_ones_has_its_slope_and_intercept(tmp_path):
    rng = np.random.default_rng(0)
    part = place("cracks", {"ce": CE, "weighted_ce": CE})
    truth = rng.normal(-2, 3, 500)

    def rows(run):
        shift = 4.1 if run.loss == "weighted_ce" else 0.0
        z = truth + shift + rng.normal(0, 0.5, 500)
        return pd.DataFrame({"pixel": range(500), "weight": 1.0, "logit": z}).assign(
            run_id=run.run_id
        )

    pd.concat(rows(run) for run in part.runs.itertuples()).to_parquet(tmp_path / "pixels.parquet")
    known = records(part, folder=tmp_path)
    slope, intercept = (
        entries(known, f"logit {what}", ["weighted_ce", "ce"])[0].value
        for what in ("slope", "intercept")
    )
    assert slope.estimate == pytest.approx(1.0, abs=0.02), "noise in both flattens nothing"
    assert intercept.estimate == pytest.approx(4.1, abs=0.1)
    assert pixels.line(2 * truth, truth)[0] == pytest.approx(2.0)


def test_measures_of_thin_things_come_by_rule_from_their_table(tmp_path):
    part = place("cracks", {"ce": CE, "dice": DICE})
    rows = [
        {"run_id": run.run_id, "rule": rule, "cldice": 0.5 + 0.1 * (rule == "tuned")}
        for run in part.runs.itertuples()
        for rule in ("argmax", "tuned")
    ]
    pd.DataFrame(rows).to_parquet(tmp_path / "thin.parquet")
    (entry,) = entries(records(part, folder=tmp_path), "clDice", ["ce"], "tuned")
    assert entry.value.estimate == pytest.approx(0.6)
    (entry,) = entries(records(part, folder=tmp_path / "none"), "clDice", ["ce"])
    assert entry.value is None and "have no clDice" in entry.why


def a_curve(noise=0.0, steps=600, follows=True):
    step = np.arange(1, steps + 1)
    wave = noise * (-1.0) ** step
    loss = np.exp(-step / 100) + 0.1 + wave
    tuned = np.full(steps, np.nan)
    at = np.arange(49, steps, 50)
    tuned[at] = (1 - np.exp(-step / 100))[at] if follows else np.exp(-step / 100)[at]
    return pd.DataFrame(
        {
            "step": step,
            "loss_value": loss,
            "val_dice_tuned": tuned,
            "val_mean_dice": tuned,
            "val_loss": np.where(np.isnan(tuned), np.nan, loss),
            "easy_negative_share": np.where(step <= 50, 0.7, 0.2),
        }
    )


def test_a_noisier_curve_is_noisier_and_says_less():
    quiet, loud = a_curve(0.001), a_curve(0.02)
    assert curves.noise(loud) == pytest.approx(20 * curves.noise(quiet), rel=0.15)
    assert curves.informativeness(quiet) > 10 * curves.informativeness(loud)
    tail = quiet[quiet.step > 450].loss_value
    assert curves.noise(quiet) < tail.std() / tail.mean(), "the trend is no noise"


def test_what_follows_convergence_has_a_rank_correlation_of_one():
    assert curves.training_follows(a_curve()) == pytest.approx(1)
    assert curves.validation_follows(a_curve()) == pytest.approx(1)
    assert curves.half_follows(a_curve()) == pytest.approx(1)
    assert curves.training_follows(a_curve(follows=False)) == pytest.approx(-1)
    assert curves.tuned_over_training(a_curve(follows=False)) == pytest.approx(-2)
    assert curves.easy_negatives(a_curve()) == 0.7
    assert curves.easy_negatives_late(a_curve()) == 0.2


# --- the judge's rules as data

WITHIN = {"quantity": "dice", "losses": ["dice", "ce"], "is": "within 0.01", "over": "seeds"}


def six(*gaps):
    return [
        place(f"task{k}", {"ce": {"argmax": 0.6}, "dice": {"argmax": 0.6 + gap}})
        for k, gap in enumerate(gaps)
    ]


def judged(parts, *checks, **study):
    predictions = [{"claim": "H4", "text": "Equal.", "holds": list(checks)}]
    return judge.judge(records(*parts, predictions=predictions, **study))[0]


def test_five_of_six_places_are_enough_where_the_file_says_so():
    gaps = (0.001, 0.0, -0.002, 0.003, 0.0, 0.02)
    assert judged(six(*gaps), WITHIN).outcome == "fails"
    counted = judged(six(*gaps), WITHIN | {"at_least": 5})
    assert (counted.outcome, counted.where) == ("holds", "holds")
    assert judge.claims([counted])["H4"]["verdict"] == "true"
    no_outlier = WITHIN | {"is": "within 0.03"}
    assert judged(six(*gaps), WITHIN | {"at_least": 5}, no_outlier).outcome == "holds"
    far = six(*gaps[:-1], 0.05)
    assert judged(far, WITHIN | {"at_least": 5}, no_outlier).outcome == "fails"
    two = judged(six(*gaps[:-2], 0.02, 0.02), WITHIN | {"at_least": 5})
    assert two.outcome == "fails"


def test_a_missing_study_whose_places_count_leaves_a_count_open(tmp_path):
    counted = WITHIN | {"at_least": 5, "also": ["elsewhere"]}
    parts = six(0.0, 0.0, 0.0, 0.0, 0.02)
    found = judged(parts, counted, folder=tmp_path / "here")
    assert found.outcome == "open"
    checks = [c for of in found.checks.values() for c in of]
    assert checks[-1].place == "elsewhere" and checks[-1].awaits
    assert judge.claims([found])["H4"]["verdict"] == "awaiting"


def test_an_interval_of_a_paper_is_a_condition():
    near = {"quantity": "dice", "losses": ["dice", "ce"], "is": "in [0.04, 0.096]"}
    assert judged(six(0.07), near).outcome == "holds"
    assert judged(six(0.12), near).outcome == "fails"
    assert judged(six(0.0), near).outcome == "fails"


def test_a_loss_without_counts_by_a_rule_is_named_and_the_others_are_compared():
    part = place("cracks", {"ce": CE, "dice": DICE})
    del part.by_rule["tuned"]["dice"]
    (missing,) = entries(records(part), "dice", ["dice", "ce"], "tuned")
    assert (
        missing.value is None
        and missing.why == "the records of 'dice' have no counts by the rule 'tuned'"
    )
    (there,) = entries(records(part), "dice", ["ce"], "tuned")
    assert there.value is not None
