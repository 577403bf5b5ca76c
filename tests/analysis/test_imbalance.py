"""The report on a study of imbalance: what it computes, and that its words follow the numbers."""

from __future__ import annotations

import dataclasses
import functools
import json
import math
import re
from pathlib import Path

import imbalance_cases as cases
import nbformat
import numpy as np
import pandas as pd
import papermill
import pytest

from lossatlas.analysis import records
from lossatlas.analysis.figures import Drawing, Missing
from lossatlas.analysis.imbalance import Imbalance, checks, figures, sentences, share, tables
from lossatlas.analysis.imbalance.predictions import judge
from lossatlas.analysis.imbalance.training import early_share, sensitivity, shares
from lossatlas.analysis.records import RecordsError
from lossatlas.statistics.paired import Difference

REPORT = Path(__file__).parents[2] / "notebooks" / "reports" / "imbalance.ipynb"
THREE = (0.3, 0.1, 0.01)


@pytest.fixture(scope="module")
def told(tmp_path_factory):
    """Studies by the story that their records tell; made once each."""

    @functools.cache
    def study(half, tuned=None, **options):
        folder = tmp_path_factory.mktemp("results")
        options = {"fractions": THREE, "images": 8} | options
        cases.write_imbalance(folder, half=half, tuned=tuned or half, **options)
        return Imbalance(records.load(folder), draws=150)

    return study


@pytest.fixture(scope="module")
def threshold_story(told):
    """At ½ the overlap losses lead where the foreground is rare; tuned, all are alike."""
    return told(cases.only_a_threshold, cases.all_alike)


def difference(estimate, error=0.01, df=7.0):
    """A difference with Student's quantiles."""
    return Difference("a", "b", estimate, error, df, (1.0, 1.0), 0.95, (estimate,) * 8, 10, 10)


# ---------------------------------------------------------------- what is read


def test_fractions_come_from_the_records_and_never_from_the_labels(threshold_story):
    assert [at.part.dataset for at in threshold_story.fractions] == ["a", "b", "d"]
    for at, asked in zip(threshold_story.fractions, THREE, strict=True):
        assert at.value == pytest.approx(asked, rel=0.15)
        assert at.value == pytest.approx(
            at.part.per_class[at.part.per_class.class_index == 1].target_fraction.iloc[0]
        )
    assert [at.text for at in threshold_story.fractions] == ["30\xa0%", "10\xa0%", "1\xa0%"]


def test_a_fraction_far_from_what_was_asked_for_is_shown_as_measured(threshold_story):
    at = dataclasses.replace(threshold_story.fractions[0], asked=0.9)
    assert at.text != "90\xa0%"


def rewritten(folder, **changes):
    path = folder / "study.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))
    return folder


def test_studies_of_another_kind_are_refused(tmp_path, make_records):
    made = cases.write_imbalance(tmp_path / "s", fractions=(0.1,), seeds=(0, 1), images=3)
    with pytest.raises(RecordsError, match="expected a binary study"):
        Imbalance(records.load(rewritten(made, mode={"b": "multiclass"})))
    rewritten(made, mode={"b": "binary"}, models=["unet", "segnet"])
    with pytest.raises(RecordsError, match="expected one model"):
        Imbalance(records.load(made))
    old = make_records(tmp_path / "old", losses=("ce",), models=("unet",), images=3, seeds=(0,))
    with pytest.raises(RecordsError, match="missing: tuned, theory"):
        Imbalance(records.load(rewritten(old, mode={"digits": "binary"})))


def test_losses_are_found_by_what_they_are_and_not_by_their_label(threshold_story):
    assert threshold_story.named("focal") == "focal"
    assert threshold_story.named("focal", weighted=True) == "focal_inverse"
    assert threshold_story.named("weighted_ce") == "weighted_ce"
    assert threshold_story.named("lovasz_softmax") is None


# ---------------------------------------------------------------- comparisons


def test_a_difference_is_the_mean_over_the_seeds_of_what_the_runs_have(threshold_story):
    at = threshold_story.fractions[-1]
    runs = at.part.runs.pivot(index="seed", columns="loss", values="foreground_dice")
    tuned = at.part.runs.pivot(index="seed", columns="loss", values="foreground_dice_tuned")
    found = threshold_story.difference("dice", "ce", at)
    assert found.estimate == pytest.approx((runs.dice - runs.ce).mean())
    assert found.low < found.estimate < found.high and found.seeds == 8
    back = threshold_story.difference("ce", "dice", at)
    assert (back.estimate, back.low) == (-found.estimate, -found.high)
    mixed = threshold_story.difference("ce", "dice", at, rule="tuned", other_rule="argmax")
    assert mixed.estimate == pytest.approx((tuned.ce - runs.dice).mean())
    value = threshold_story.value("ce", at)
    assert value.low < value.estimate == pytest.approx(runs.ce.mean())


def test_a_contrast_is_the_difference_of_the_means_of_its_cells(threshold_story):
    at = threshold_story.fractions[-1]
    mean = threshold_story.mean
    plus = [("dice", "argmax"), ("ce", "tuned"), ("focal", "argmax")]
    minus = [("ce", "argmax"), ("dice", "tuned"), ("tversky", "tuned")]
    found = threshold_story.contrast(at, plus, minus)
    by_hand = np.mean([mean(loss, at, rule=rule) for loss, rule in plus]) - np.mean(
        [mean(loss, at, rule=rule) for loss, rule in minus]
    )
    assert found.estimate == pytest.approx(by_hand)
    # of one cell a side it is the difference itself, interval and all
    alone = threshold_story.contrast(at, [("dice", "argmax")], [("ce", "argmax")])
    pair = threshold_story.difference("dice", "ce", at)
    assert alone.estimate == pytest.approx(pair.estimate)
    assert alone.standard_error == pytest.approx(pair.standard_error)


def test_one_seed_has_values_and_no_interval(told):
    study = told(cases.all_alike, seeds=(0,), images=4)
    at = study.fractions[0]
    assert study.difference("dice", "ce", at) is None
    assert study.contrast(at, [("dice", "argmax")], [("ce", "argmax")]) is None
    value = study.value("ce", at)
    assert np.isfinite(value.estimate) and np.isnan(value.low)
    assert study.leader(at, "argmax").level  # nobody is told apart
    answer = sentences.answer(study)
    assert answer.count("too few seeds to say which loss wins") == 2 and "nan" not in answer
    assert "too few seeds to say which others are behind" in sentences.by_fraction(study)
    assert "(no interval: 1 seed)" in sentences.by_fraction(study)
    assert isinstance(tables.agreement(study), Missing) and sentences.agreement(study) == ""


def test_a_study_of_one_fraction_is_reported(told):
    study = told(cases.only_a_threshold, cases.all_alike, fractions=(0.01,))
    assert sentences.agreement(study) == "" and isinstance(tables.agreement(study), Missing)
    assert "`ce` is behind at 1\xa0%" in sentences.answer(study)
    assert {outcome.outcome for outcome in judge(study) if outcome.claim in "37"} == {"held"}


def test_pairs_take_the_seeds_that_both_losses_have(told):
    gone = frozenset({("dice", 0.3, 0), ("ce", 0.3, 1)})
    study = told(cases.all_alike, missing=gone)
    first, second = study.fractions[:2]
    assert study.difference("dice", "ce", first).seeds == 6
    assert study.difference("dice", "focal", first).seeds == 7
    assert study.difference("dice", "ce", second).seeds == 8


def test_a_leader_is_alone_level_or_equal_as_the_numbers_say(told, threshold_story):
    rare = threshold_story.fractions[-1]
    half = threshold_story.leader(rare, "argmax")
    assert {half.loss, *half.level} == {"dice", "tversky"} and not half.alone
    tuned = threshold_story.leader(rare, "tuned")
    assert len(tuned.level) == len(tuned.equal) == 5
    study = told(cases.ce_ahead)
    ahead = study.leader(study.fractions[-1], "argmax")
    assert ahead.loss == "ce" and ahead.alone and not ahead.equal


# ---------------------------------------------------------------- the share of the threshold


def test_the_threshold_explains_all_of_a_gap_that_tuning_closes(threshold_story):
    at = threshold_story.fractions[-1]
    found = share.explained(threshold_story, at, "dice", ["ce"])
    runs = at.part.runs.groupby("loss")[["foreground_dice", "foreground_dice_tuned"]].mean()
    gaps = runs.loc["dice"] - runs.loc["ce"]
    assert found.share.estimate == pytest.approx(
        1 - gaps.foreground_dice_tuned / gaps.foreground_dice
    )
    assert found.share.low < 1.03 and found.share.high > 0.97 and found.share.low > 0.9


def test_the_threshold_explains_nothing_of_a_gap_that_stays(told):
    study = told(cases.overlap_ahead)
    found = share.explained(study, study.fractions[0], "dice", ["ce"])
    assert found.share.estimate == pytest.approx(0.0, abs=0.01)
    assert "less than half of it" in sentences.threshold(study)


def test_without_a_gap_there_is_no_share(told):
    study = told(cases.all_alike)
    for at in study.fractions:
        found = share.explained(study, at, "dice", ["ce"])
        assert found.share is None and found.text() == "no gap"
    assert isinstance(figures.explained_share(study), Missing)
    assert "no gap of 0.01 or more" in sentences.threshold(study)


def test_a_gap_that_is_too_uncertain_for_a_share_is_open_and_not_called_absent(told):
    whole = told(cases.all_alike)
    study = blank(whole, [("ce", 1, seed) for seed in range(2)])
    at = study.fractions[1]
    found = share.explained(study, at, "dice", ["ce"])
    assert found.half.estimate > 0.1
    assert found.share is None and found.text() == "too uncertain a gap"
    (check,) = share.mostly_closed(study, [(at, "dice", ["ce"])])
    assert check.applies and check.holds is None
    assert "10\xa0%: too uncertain a gap at ½ (+" in sentences.threshold(study)


def test_the_interval_of_the_share_covers_it_in_95_of_100_studies():
    rng = np.random.default_rng(1)
    seeds, times, hits = 8, 3000, 0
    for _ in range(times):
        # gap 0.10 at ½, 0.03 tuned: 70 % is the threshold; what both have in common correlates them
        both = rng.normal(0, 0.02, seeds)
        x = 0.10 + both + rng.normal(0, 0.02, seeds)
        y = 0.03 + both + rng.normal(0, 0.02, seeds)
        half, tuned = (
            difference(float(v.mean()), float(v.std(ddof=1) / np.sqrt(seeds))) for v in (x, y)
        )
        variance = float((x - y).var(ddof=1) / seeds)
        found = share._share(half, tuned, variance, 7.0)
        hits += found is not None and found.low <= 0.7 <= found.high
    assert 0.93 < hits / times < 0.97


def test_a_gap_that_is_not_told_apart_from_nothing_has_no_finite_share():
    assert share._share(difference(0.01), difference(0.0), 1e-4, 7.0) is None


# ---------------------------------------------------------------- checks


def test_a_check_holds_fails_or_is_open():
    found = checks.larger(
        [("a", difference(0.2)), ("b", difference(-0.2)), ("c", difference(0.01))]
    )
    assert [check.holds for check in found] == [True, False, None]
    assert [check.holds for check in checks.smaller([("a", difference(0.2))], 0.0)] == [False]
    same = checks.within([("a", difference(0.0)), ("b", difference(0.2))], 0.05)
    assert [check.holds for check in same] == [True, False]
    assert checks.larger([("a", None)])[0].holds is None


def test_ahead_needs_a_difference_of_interest():
    # surely above 0 and surely below 0.01: nobody cares
    (tiny,) = checks.ahead([("a", difference(0.005, 0.0005))], 0.01)
    (large,) = checks.ahead([("a", difference(0.05))], 0.01)
    (unknown,) = checks.ahead([("a", difference(0.01))], 0.01)
    assert (tiny.holds, large.holds, unknown.holds) == (False, True, None)


def test_many_places_make_a_check_more_cautious():
    borderline = difference(0.026)  # t = 2.6 with 7 degrees of freedom: p = 0.018 one-sided
    assert checks.larger([("a", borderline)])[0].holds is True
    found = checks.larger([(str(i), borderline) for i in range(5)])
    assert {check.holds for check in found} == {None}


@pytest.mark.parametrize(
    ("outcomes", "said"),
    [
        ([True, True], "true"),
        ([True, False], "conditional"),
        ([True, None], "conditional"),
        ([False, False], "false"),
        ([False, None], "false"),
        ([True, False, None], "conditional"),
        ([None, None], "undecided"),
        ([], "undecided"),
    ],
)
def test_outcomes_combine_to_one_verdict(outcomes, said):
    assert checks.combined([checks.Check("x", each, "") for each in outcomes]) == said


@pytest.mark.parametrize(
    ("outcomes", "said"),
    [
        ([False, None, None], "false at a, open elsewhere"),
        ([None, True, True], "true at b and c, open elsewhere"),
        ([True, False, None], "true at a, false at b, open elsewhere"),
        ([True, False, False], "true at a, false at b and c"),
        ([False, False, False], "false"),
        ([True, True, True], "true"),
        ([None, None, None], "open"),
        ([], "open"),
    ],
)
def test_a_verdict_says_where_it_holds(outcomes, said):
    found = [
        checks.Check(where, each, "")
        for where, each in zip("abc"[: len(outcomes)], outcomes, strict=True)
    ]
    assert checks.located(found) == said
    elsewhere = checks.Check("d", True, "", applies=False)
    assert checks.located([*found, elsewhere]) == said  # nothing was to be decided there


def test_two_rules_of_the_threshold_are_told_apart_only_where_they_differ():
    false, open_ = checks.Check("a", False, ""), checks.Check("b", None, "")
    assert checks.located_by_rule([false, open_], [false, open_]) == "false at a, open elsewhere"
    assert checks.located_by_rule([false], [open_]) == "at ½ false; tuned open"


def test_a_check_that_does_not_apply_counts_neither_way():
    one = checks.Check("a", True, "")
    none = checks.Check("b", None, "", applies=False)
    assert checks.combined([one, none]) == "true"
    assert checks.spread([one, none]) == "holds at a"


# ---------------------------------------------------------------- predictions


def outcomes(study):
    return {outcome.claim: outcome.outcome for outcome in judge(study)}


def test_the_study_s_own_predictions_are_all_judged(threshold_story):
    found = outcomes(threshold_story)
    assert found.pop("99") == "not judged"
    assert "not judged" not in found.values()


def test_every_prediction_holds_where_the_records_say_so(threshold_story):
    found = outcomes(threshold_story)
    for claim in ("H2", "H3", "H4", "7", "8", "18", "23"):
        assert found[claim] == "held", claim


def better_inverse(loss, fraction):
    """Inverse-frequency weights help focal loss."""
    return 0.6 + 0.2 * (loss == "focal_inverse")


def rarer_is_easier(loss, fraction):
    """Dice rises as the foreground gets rare."""
    return 0.8 if fraction < 0.05 else 0.5


@pytest.mark.parametrize(
    ("claim", "story", "share_of"),
    [
        ("H2", cases.all_alike, lambda loss, fraction: 0.2 if loss == "dice" else fraction),
        ("H2", cases.all_alike, lambda loss, fraction: 0.5 if loss == "dice" else 0.4 - fraction),
        ("H3", cases.ce_ahead, None),
        ("H4", cases.overlap_ahead, None),
        ("7", cases.overlap_ahead, None),
        ("7", cases.all_alike, None),
        ("8", cases.ce_ahead, None),
        ("18", better_inverse, None),
        ("23", rarer_is_easier, None),
    ],
)
def test_every_prediction_is_contradicted_where_the_records_say_so(told, claim, story, share_of):
    study = told(story, share=share_of) if share_of else told(story)
    assert outcomes(study)[claim] == "contradicted"
    text = sentences.predictions(study)
    assert re.search(
        r"The records contradict \d of 8 predictions, .* open; 1 could not", text.split("**")[1]
    )
    first = text[text.index("**Contradicted**") :].split("**Held**")[0]
    assert f"(#claim-{claim.lower()})" in first and re.search(r"fails (at|everywhere)", first)


def test_a_prediction_of_another_wording_is_not_judged_by_the_old_check(threshold_story):
    described = threshold_story.records.study | {
        "predictions": [{"claim": "7", "text": "Dice never beats cross-entropy."}]
    }
    study = Imbalance(dataclasses.replace(threshold_story.records, study=described))
    (outcome,) = judge(study)
    assert outcome.outcome == "not judged" and "wording" in outcome.reason
    assert "1 prediction, and none could be judged" in sentences.predictions(study)


def test_a_prediction_waits_for_the_runs_that_it_needs(told):
    study = told(cases.only_a_threshold, cases.all_alike, missing=frozenset({("dice", 0.1, 3)}))
    found = {outcome.claim: outcome for outcome in judge(study)}
    assert found["7"].outcome == "not judged" and "1 of the runs" in found["7"].reason
    assert found["18"].outcome == "held"  # it needs the focal losses alone


# ---------------------------------------------------------------- sentences


def halves(study):
    """The answer's two sentences: at ½, and tuned."""
    first, second = sentences.answer(study).splitlines()
    assert first.startswith("- **At ½:**")
    assert second.startswith("- **At the threshold tuned on validation:**")
    return first, second


def test_the_answer_names_a_loss_that_wins(told):
    for sentence in halves(told(cases.ce_ahead)):
        assert "`ce` wins at every fraction; at 1\xa0% `ce` is highest, above `" in sentence
        assert "n = 8 seeds × 8 images" in sentence and "[+" in sentence


def test_the_answer_names_where_a_loss_wins_and_where_none_does(told):
    def dice_when_rare(loss, fraction):
        return 0.7 + 0.1 * (loss == "dice" and fraction < 0.05)

    first, _ = halves(told(dice_when_rare))
    assert "`dice` wins at 1\xa0%; no loss wins alone at the other fractions" in first
    assert "never shown to be behind the highest: `dice`" in first
    assert "`ce` is behind at 1\xa0%, where `dice` is above it by +0.1" in first


def test_the_answer_says_that_no_loss_wins(told):
    for sentence in halves(told(cases.all_alike)):
        assert (
            "no loss wins alone at any fraction; none is shown to be behind the highest anywhere"
            in sentence
        )


def test_the_answer_tells_the_rules_apart(threshold_story):
    first, second = halves(threshold_story)
    assert (
        "never shown to be behind the highest: `dice` and `tversky`; `ce` is behind at 1\xa0%"
        in first
    )
    assert "none is shown to be behind the highest anywhere; at 1\xa0% the highest" in second


def test_the_answer_does_without_cross_entropy(told):
    losses = Hashable({name: cases.LOSSES[name] for name in ("focal", "dice")})
    first, _ = halves(told(cases.overlap_ahead, losses=losses))
    assert (
        "`dice` wins at every fraction; at 1\xa0% the highest, `dice`, is above the second by"
        in first
    )


class Hashable(dict):
    """A mapping that a cache can keep."""

    def __hash__(self):
        return hash(tuple(self))


def test_a_complete_study_says_so_and_a_partial_one_says_how_much(told, threshold_story):
    assert sentences.completeness(threshold_story) == (
        "All 144 runs that the study asks for are there."
    )
    gone = frozenset(("dice", 0.1, seed) for seed in range(8))
    study = told(cases.all_alike, missing=gone)
    text = sentences.completeness(study)
    assert "**136 of 144 runs are there.**" in text and "preliminary" in text
    assert "8 of 144 runs are missing" in sentences.limits(study)
    assert "dice" not in study.fractions[1].part.losses
    assert sentences.threshold(study) and sentences.by_fraction(study)


def test_a_fraction_without_any_run_is_named(told):
    gone = frozenset((loss, 0.1, seed) for loss in cases.LOSSES for seed in range(8))
    study = told(cases.all_alike, missing=gone)
    assert [at.text for at in study.fractions] == ["30\xa0%", "1\xa0%"]
    assert "Without any run: `b`" in sentences.completeness(study)


def test_runs_that_diverged_are_counted_and_named(told):
    ended = frozenset({("dice", 0.01, 0), ("dice", 0.01, 1), ("ce", 0.1, 2)})
    study = told(cases.all_alike, diverged=ended)
    text = sentences.completeness(study)
    assert "3 of them diverged (`ce` 1, `dice` 2)" in text
    assert study.mean("dice", study.fractions[-1]) < 0.6  # two of eight runs at nearly 0


def test_dice_at_half_and_tuned_may_choose_other_rates(told):
    study = told(cases.all_alike)
    assert "another rate in 0 of 18 cases" in sentences.rates(study)
    table = study.records.tuning
    swapped = table.assign(val_foreground_dice=1 - table.val_foreground_dice_tuned)
    other = Imbalance(dataclasses.replace(study.records, tuning=swapped))
    assert "another rate in 18 of 18 cases" in sentences.rates(other)


def test_a_rate_at_the_edge_of_the_grid_is_said(told):
    study = told(cases.all_alike)
    assert "was chosen in 0 of 18 cases: the grid was wide enough" in sentences.rates(study)
    table = study.records.tuning
    edge = table.assign(chosen=table.lr == 0.03)
    other = Imbalance(dataclasses.replace(study.records, tuning=edge))
    assert "in 18 of 18 cases: a better one may lie outside" in sentences.rates(other)
    assert "(edge)" in tables.rates(other).frame.iloc[0, 0]


def test_a_loss_that_learns_nothing_is_not_called_sensitive(told):
    def idle(loss, fraction, lr):
        if loss == "focal":  # noise: only one rate is within 90 % of the best
            return 0.004 if lr == 0.01 else 0.002
        return 0.8 if lr <= (0.003 if loss == "dice" else 0.01) else 0.3

    text = sentences.rates(told(cases.all_alike, rate_score=idle))
    where = ", ".join(f"`focal` at {each}" for each in ("30\xa0%", "10\xa0%"))
    assert f"At no rate a validation Dice above 0.1: {where} and `focal` at 1\xa0%." in text
    assert "2.0 with `dice`, the most, those cases left out." in text


def blank(study, gone):
    """The study with runs (loss, place of the fraction, seed) that predict nothing under every rule."""
    study = Imbalance(study.records, draws=150)
    for loss, place, seed in gone:
        at = study.fractions[place]
        by_rule = {rule: dict(table) for rule, table in at.part.by_rule.items()}
        for table in by_rule.values():
            counts = table[loss] = table[loss].copy()
            counts[seed, :, 1, 2] += counts[seed, :, 1, 0]
            counts[seed, :, 1, :2] = 0
        part = dataclasses.replace(at.part, by_rule=by_rule, counts=by_rule["argmax"])
        study.fractions[place] = dataclasses.replace(at, part=part)
    return study


def test_runs_that_learnt_nothing_are_counted_and_the_middle_of_the_seeds_is_told(told):
    whole = told(cases.all_alike)
    assert "Every run is better" in sentences.collapses(whole)
    study = blank(whole, [("ce", 2, 0), ("ce", 2, 1), ("dice", 1, 2)])
    text = sentences.collapses(study)
    assert "3 of 144 runs are no better than a constant prediction" in text
    assert "(`ce` 2 and `dice` 1)" in text
    half, tuned = text.split("minus `ce` is at ½ ")[1].split("; tuned ")
    for told_of in (half, tuned):
        middle = re.findall(r"([+−]?\d\.\d+) at", told_of)
        assert (
            all(abs(float(each.replace("−", "-"))) < 0.01 for each in middle) and len(middle) == 3
        )
    frame = tables.collapses(study).frame
    assert frame.loc["ce", "1\xa0%"] == "2 / 2 of 8" and frame.loc["dice", "1\xa0%"] == "0 / 0 of 8"
    assert study.collapsed("ce", study.fractions[2], "tuned") == [0, 1]


def test_the_interquartile_mean_is_moved_little_by_runs_that_learnt_nothing(told):
    whole = told(cases.all_alike)
    study = blank(whole, [("ce", 2, 0), ("ce", 2, 1)])
    before, after = (
        float(tables.interquartile(each).frame.loc["ce", "at ½"].split()[0])
        for each in (whole, study)
    )
    means = [each.mean("ce", each.fractions[2]) for each in (whole, study)]
    assert means[0] - means[1] > 0.1 > 0.03 > abs(before - after)


def test_a_gap_that_tuning_widens_is_said_to_widen(told):
    text = sentences.threshold(told(half_apart, cases.overlap_ahead))
    assert "1\xa0%: tuned thresholds widen it, −" in text


def half_apart(loss, fraction):
    """At ½ the overlap losses are a little ahead."""
    return 0.5 + 0.05 * (loss in cases.OVERLAP)


def test_theory_s_threshold_is_told_from_the_tuned_one(told, threshold_story):
    text = sentences.theory(threshold_story)
    assert "less than 0.01 of Dice to the tuned one in 18 of 18 cases" in text
    at = threshold_story.fractions[-1]
    counts = {rule: dict(table) for rule, table in at.part.by_rule.items()}
    counts["theory"]["dice"] = counts["argmax"]["ce"]  # 0.3 lower
    worse = dataclasses.replace(at, part=dataclasses.replace(at.part, by_rule=counts))
    study = Imbalance(threshold_story.records, draws=150)
    study.fractions[-1] = worse
    text = sentences.theory(study)
    assert "in 17 of 18 cases" in text and "it loses most with `dice` at 1\xa0%, −0.3" in text


def test_theory_is_left_out_where_it_says_nothing_or_was_wrong(told):
    study = told(cases.all_alike, theory_version=1)
    assert set(study.without_theory) == {"focal", "focal_inverse"}
    assert np.isnan(study.mean("focal", study.fractions[0], rule="theory"))
    assert study.column("focal", study.fractions[0], "volume_ratio_theory").empty
    assert study.mean("focal", study.fractions[0], rule="tuned") > 0
    text = sentences.theory(study)
    assert "It is not shown for `focal` and `focal_inverse`: the rule of these runs" in text
    assert tables.dice(study).frame.loc["focal", "30\xa0%"].endswith(" / –")
    for drawing in (figures.dice_by_rule(study), figures.dice_by_loss(study)):
        assert "nan" not in drawing.alt.replace("focal theory nan, nan, nan", "")


def test_runs_that_order_the_pixels_and_find_nothing_at_half_are_told(told):
    whole = told(cases.all_alike)
    study = blank(whole, [("ce", 2, 0), ("ce", 2, 3)])
    at = study.fractions[2]
    table = at.part.by_rule["tuned"]
    table["ce"] = whole.fractions[2].part.by_rule["tuned"]["ce"]
    text = sentences.collapses(study)
    assert text.startswith("Every run is better than a constant prediction at its tuned threshold.")
    assert "2 more are no better than that at ½ alone" in text
    assert "So do 2 of 8 seeds of `ce` at 1\xa0%, with a tuned Dice of 0." in text


def test_thresholds_are_logits_and_far_ones_are_named(told):
    study = told(cases.all_alike)
    assert tables.thresholds(study).frame.loc["dice", "1\xa0%"] == "−0.5 (−0.5, −0.5)"
    assert sentences.thresholds(study) == ""
    runs = study.fractions[1].part.runs
    runs.loc[runs.loss == "dice", "offsets_tuned"] = "[-17.0]"
    assert "thresholds of `dice` at 10\xa0% (+17.0)" in sentences.thresholds(study)


def test_a_followup_says_what_became_of_dice_minus_cross_entropy(told):
    text = sentences.followup(told(cases.only_a_threshold, cases.all_alike))
    assert text.startswith("- `") and "`dice` minus `ce` is at ½ " in text and "; tuned " in text
    assert text.count(" at 1\xa0%") == 2


def test_a_study_finds_those_that_follow_it_and_links_to_their_pages(tmp_path):
    first = cases.write_imbalance(tmp_path / "first", study="first", fractions=(0.1,), images=6)
    own = json.loads((first / "study.json").read_text()).get("report")
    others = {
        "second": {"follows": "first", "report": own},
        "third": {"follows": None, "report": own},
        "fourth": {"follows": "first", "report": "another kind of report"},
    }
    for name, keys in others.items():
        folder = cases.write_imbalance(tmp_path / name, study=name, fractions=(0.1,), images=6)
        study = json.loads((folder / "study.json").read_text())
        (folder / "study.json").write_text(json.dumps(study | keys))
    study = Imbalance(records.load(first), draws=100)
    assert [other.name for other in study.followups()] == ["second"]
    text = sentences.asked_again(study)
    assert "- [`second`](second.ipynb), 40 steps, rates tuned with " in text and "third" not in text
    assert "fourth" not in text
    assert sentences.asked_again(Imbalance(records.load(folder), draws=100)) == ""


def test_curves_that_still_rise_are_said_to(told):
    assert "There the comparison is also one of speed" in sentences.training(told(cases.all_alike))


def test_equality_is_claimed_only_where_it_is_shown(told, threshold_story):
    assert "15 differences from the highest loss 15 are shown" in sentences.equality(
        threshold_story
    )
    study = told(cases.ce_ahead)
    assert "0 are shown to be smaller than 0.01" in sentences.equality(study)
    assert "15 to be above 0" in sentences.equality(study)


def test_improvement_follows_the_runs(told):
    ahead = sentences.improvement(told(cases.overlap_ahead))
    assert "the interval lies above ½ for `dice` and `tversky`" in ahead
    assert "no loss's interval lies above ½" in sentences.improvement(told(cases.ce_ahead))


def by_name(loss, fraction):
    """The same order at every fraction, but for the rarest: there it is turned round."""
    place = sorted(cases.LOSSES).index(loss)
    return 0.4 + 0.05 * (place if fraction > 0.02 else 5 - place)


def test_an_order_that_carries_over_is_told_from_one_that_turns_round(told):
    study = told(by_name)
    frame = tables.agreement(study).frame
    assert list(frame.index) == ["30\xa0%, 10\xa0%", "30\xa0%, 1\xa0%", "10\xa0%, 1\xa0%"]
    assert frame.loc["30\xa0%, 10\xa0%", "at ½"] == "1.000 [1.000, 1.000], own 1.000"
    assert frame.loc["30\xa0%, 1\xa0%", "tuned"].startswith("−1.000 [−1.000, −1.000]")
    text = sentences.agreement(study)
    assert "6 losses at 30\xa0% and at 1\xa0% is −1.000" in text and "ρ −1.000" in text


# ---------------------------------------------------------------- training


def test_batches_without_foreground_have_no_part_in_the_share(threshold_story):
    at = threshold_story.fractions[-1]
    curves = at.part.curves.copy()
    empty = (curves.seed == 0) & (curves.step == 1)
    curves.loc[empty & curves.foreground_share.notna(), "foreground_share"] = 0.0
    changed = dataclasses.replace(at, part=dataclasses.replace(at.part, curves=curves))
    kept = shares(changed)
    assert not ((kept.seed == 0) & (kept.step == 1)).any()
    assert early_share(threshold_story, "dice", changed) == pytest.approx([0.5] * 7)


def test_early_is_the_first_batch_with_foreground_when_least_is_learnt(threshold_story):
    at = threshold_story.fractions[0]
    curves = at.part.curves
    later = curves[curves.step == 1].assign(step=4, foreground_share=0.1)
    part = dataclasses.replace(at.part, curves=pd.concat([later, curves]))
    changed = dataclasses.replace(at, part=part)
    assert early_share(threshold_story, "dice", changed) == pytest.approx([0.5] * 8)


def test_sensitivity_counts_a_diverged_run_as_nothing(told):
    study = told(cases.all_alike)
    at = study.fractions[0]
    whole = sensitivity(study, "dice", at)
    assert whole.rates == (0.001, 0.003, 0.01, 0.03) and whole.chosen == 0.003
    assert whole.working().tolist() == [3, 3] and not whole.at_edge and whole.diverged == 0
    table = study.records.tuning.copy()
    rows = (table.dataset == at.part.dataset) & (table.loss == "dice") & (table.lr == 0.001)
    table.loc[rows, "status"] = "diverged at step 2"
    other = sensitivity(Imbalance(dataclasses.replace(study.records, tuning=table)), "dice", at)
    assert other.scores[0].tolist() == [0.0, 0.0] and other.working().tolist() == [2, 2]
    assert other.diverged == 2


# ---------------------------------------------------------------- figures and tables

FIGURES = [
    figures.dice_by_rule,
    figures.dice_by_loss,
    figures.gaps,
    figures.explained_share,
    figures.precision_recall,
    figures.volume_ratio,
    figures.calibration,
    figures.rate_sensitivity,
    figures.gradient_share,
    lambda study: figures.curves(study, study.fractions[-1]),
    lambda study: figures.improvement(study, "ce"),
]


@pytest.mark.parametrize("draw", FIGURES)
def test_a_figure_is_five_inches_wide_with_caption_and_alternative_text(threshold_story, draw):
    drawing = draw(threshold_story)
    assert isinstance(drawing, Drawing)
    assert drawing.figure.get_size_inches()[0] == 5.0
    assert len(drawing.caption) > 20 and len(drawing.alt) > 20
    small = [
        text
        for axis in drawing.figure.axes
        for text in (*axis.get_xticklabels(), *axis.get_yticklabels(), axis.title)
        if text.get_text() and text.get_fontsize() < 9
    ]
    assert not small


def test_calibration_is_shown_beside_a_network_that_knows_the_fraction_alone(threshold_story):
    pi = np.array([at.value for at in threshold_story.fractions])
    wanted = {
        "NLL": -pi * np.log(pi) - (1 - pi) * np.log(1 - pi),
        "Brier score": pi * (1 - pi),
    }
    axes = figures.calibration(threshold_story).figure.axes
    panels = {axis.get_title() or axis.get_title(loc="left"): axis for axis in axes}
    assert set(wanted) < set(panels)
    for title, axis in panels.items():
        dotted = [line.get_ydata() for line in axis.lines if line.get_linestyle() == ":"]
        dotted = [y for y in dotted if len(y) == len(pi)]
        assert [np.round(y, 9).tolist() for y in dotted] == (
            [np.round(wanted[title], 9).tolist()] if title in wanted else []
        )


def test_losses_whose_probabilities_are_worth_less_than_the_fraction_are_named(threshold_story):
    (line,) = [x for x in sentences.calibration(threshold_story).splitlines() if "Mean NLL" in x]
    for at in threshold_story.fractions:
        constant = -at.value * math.log(at.value) - (1 - at.value) * math.log1p(-at.value)
        means = {x: threshold_story.column_mean(x, at, "nll").estimate for x in at.part.losses}
        above = [f"`{loss}`" for loss, mean in means.items() if mean > constant]
        part = next((p for p in line.split("; ") if f"at {at.text} " in p), "")
        assert all(name in part for name in above) or ("every loss" in part) is (
            len(above) == len(means)
        )
        assert bool(part) is bool(above)


def test_a_loss_has_its_colour_in_every_panel(threshold_story):
    drawing = figures.dice_by_rule(threshold_story)
    for axis in drawing.figure.axes:
        colours = [line.get_color() for line in axis.lines if len(line.get_xdata()) == len(THREE)]
        assert colours == [threshold_story.styles[loss]["color"] for loss in threshold_story.losses]


@pytest.mark.parametrize("draw", FIGURES)
def test_a_figure_of_a_partial_study_is_drawn_or_says_why_not(told, draw):
    gone = frozenset(
        [("dice", 0.01, seed) for seed in range(8)]
        + [("tversky", 0.3, seed) for seed in range(1, 8)]
    )
    assert isinstance(draw(told(cases.only_a_threshold, missing=gone)), (Drawing, Missing))


def test_the_table_has_three_thresholds_and_the_highest_at_half_in_bold(threshold_story):
    table = tables.dice(threshold_story)
    cell = table.frame.loc["dice", "1\xa0%"]
    assert len(cell.split(" / ")) == 3
    assert sum(column == "1\xa0%" for _, column in table.bold) == 1
    assert {loss for loss, column in table.bold if column == "1\xa0%"} <= {"dice", "tversky"}


def test_the_table_of_equality_marks_equal_and_behind(told, threshold_story):
    marks = {cell[-1] for cell in tables.equality(threshold_story).frame["1\xa0%"]}
    assert marks == {"t", "="}  # "highest", and all others equal
    marks = {cell[-1] for cell in tables.equality(told(cases.ce_ahead)).frame["1\xa0%"]}
    assert marks == {"t", "<"}


def test_the_table_of_data_sets_counts_images_and_runs(threshold_story):
    frame = tables.fractions(threshold_story).frame
    assert frame["runs"].tolist() == ["48 of 48"] * 3
    assert frame["with foreground"].tolist() == ["8"] * 3


# ---------------------------------------------------------------- the notebook


def small(folder, **options):
    losses = {name: cases.LOSSES[name] for name in ("ce", "weighted_ce", "dice", "tversky")}
    return cases.write_imbalance(
        folder, losses=losses, fractions=(0.1, 0.01), seeds=(0, 1), images=4, **options
    )


def test_the_report_runs_on_partial_records_and_says_what_is_missing(tmp_path):
    gone = {("dice", 0.01, 0), ("tversky", 0.1, 0), ("tversky", 0.1, 1)}
    made, path = small(tmp_path / "s", missing=gone), tmp_path / "page.ipynb"
    papermill.execute_notebook(
        REPORT, path, {"records": str(made)}, kernel_name="python3", progress_bar=False
    )
    notebook = nbformat.read(path, as_version=4)
    outputs = [o for cell in notebook.cells for o in cell.get("outputs", [])]
    assert all(o.output_type in ("display_data", "execute_result") for o in outputs)
    assert all(o.data.get("text/plain") != "None" for o in outputs)
    text = nbformat.writes(notebook)
    headings = [c.source.splitlines()[0] for c in notebook.cells if c.source.startswith("## ")]
    assert headings[:2] == ["## What contradicts the predictions", "## The answer"]
    assert "13 of 16 runs are there" in text
    assert "papermill notebooks/train.ipynb" in text and "b-dice-1" in text


def test_the_cells_of_the_report_run_one_after_the_other_and_none_shows_nothing(
    tmp_path, monkeypatch
):
    """On a study that tuned nothing and measured no share of the gradient."""
    made = small(tmp_path / "s", share=lambda loss, fraction: np.nan)
    (made / "tuning.parquet").unlink()
    rewritten(made, tuning=None, predictions=[])
    shown = []
    monkeypatch.setattr("IPython.display.display", lambda each, **_: shown.append(each))
    namespace = {}
    for cell in nbformat.read(REPORT, as_version=4).cells:
        if cell.cell_type == "code":
            exec(cell.source, namespace)
            if "parameters" in cell.metadata.tags:
                namespace["records"] = str(made)
    assert None not in shown and sum(isinstance(each, Missing) for each in shown) >= 3
    words = " ".join(each.data for each in shown if hasattr(each, "data"))
    assert "The study tuned no learning rate" in words
    assert "wrote down no predictions" in words


def test_records_of_schema_2_keep_the_largest_logit_apart_from_the_other_rules(threshold_story):
    part = threshold_story.fractions[0].part
    assert set(part.by_rule) == {"argmax", "tuned", "theory"}
    assert part.counts is part.by_rule["argmax"]
    assert set(part.per_class.rule) == {"argmax"}
    assert isinstance(threshold_story.records.tuning, pd.DataFrame)


def test_counts_of_another_rule_that_contradict_the_table_are_refused(tmp_path):
    made = cases.write_imbalance(tmp_path / "s", fractions=(0.1,), seeds=(0, 1), images=3)
    runs = pd.read_parquet(made / "runs.parquet")
    runs.loc[3, "foreground_dice_tuned"] += 0.01
    runs.to_parquet(made / "runs.parquet", index=False)
    with pytest.raises(RecordsError, match="foreground_dice_tuned"):
        records.load(made)
