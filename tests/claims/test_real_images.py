"""What the front page says of real images comes from the tasks that are complete."""

from __future__ import annotations

import dataclasses
import sys
from pathlib import Path

import pandas as pd
import pytest

sys.path.insert(0, str(Path(__file__).parent))
from hand_made import level, place, records

from lossatlas.claims import frames, real_images
from lossatlas.report.front import FrontError

CE = {"argmax": 0.60, "tuned": 0.70}


def thresholds(dice, *, of_vessels=("ce", "dice")):
    """Records of two tasks; of the second only some losses are there."""
    scores = {"ce": CE, "dice": dice}
    columns = {
        "foreground_dice": {loss: of["argmax"] for loss, of in scores.items()},
        "foreground_dice_tuned": {loss: of["tuned"] for loss, of in scores.items()},
    }
    cracks = place("cracks", scores, **columns)
    vessels = place("vessels", scores, **columns)
    there = vessels.runs[vessels.runs.loss.isin(of_vessels)]
    vessels = dataclasses.replace(vessels, runs=there, losses=list(of_vessels))
    return records(cracks, vessels, smallest_effect=0.01)


def numbers(known, monkeypatch, longer=None):
    of = {"thresholds": known, "thresholds_long": longer}
    monkeypatch.setattr(frames, "load_if_run", lambda _, study: of.get(study))
    return real_images.numbers("nowhere")


def test_a_task_counts_when_every_seed_of_both_losses_is_there(monkeypatch):
    behind = {"argmax": 0.59, "tuned": 0.68}
    known = thresholds(behind, of_vessels=("ce",))
    assert real_images.tasks(known) == ["cracks"]
    assert list(real_images.table(known).index) == ["cracks"]
    assert numbers(known, monkeypatch)["tasks"] == "1"
    whole = thresholds(behind)
    assert real_images.tasks(whole) == ["cracks", "vessels"]
    lost = dataclasses.replace(whole, runs=whole.runs[whole.runs.run_id != "vessels-unet-dice-3"])
    assert real_images.tasks(lost) == ["cracks"]


def test_the_numbers_are_medians_and_mean_differences_at_each_threshold(monkeypatch):
    known = thresholds({"argmax": 0.62, "tuned": 0.68})
    row = real_images.table(known).loc["cracks"]
    assert (row["ce at ½"], row["ce"], row["dice at ½"], row["dice"]) == (0.60, 0.70, 0.62, 0.68)
    assert row["half"] == pytest.approx(0.02, abs=1e-3)
    assert row["tuned"] == pytest.approx(-0.02, abs=1e-3)
    assert row["foreground"] == pytest.approx(0.5, abs=0.2)  # of the hand-made counts
    found = numbers(known, monkeypatch)
    assert (found["ahead_half"], found["ahead_tuned"]) == ("2", "0")
    assert found["range_tuned"]["low"].startswith("−0.02")


def test_dice_ahead_in_a_task_stops_the_build(monkeypatch):
    with pytest.raises(FrontError, match="Dice is ahead in no task"):
        numbers(thresholds({"argmax": 0.62, "tuned": 0.75}), monkeypatch)


def test_what_a_longer_training_gives_stands_beside_and_dice_is_not_ahead(monkeypatch):
    behind = thresholds({"argmax": 0.59, "tuned": 0.68})
    assert numbers(behind, monkeypatch)["longer"] == {}
    nearer = thresholds({"argmax": 0.6, "tuned": 0.695})
    found = numbers(behind, monkeypatch, nearer)["longer"]
    assert set(found) == {"cracks", "vessels"} and found["cracks"].startswith("−0.005 [")
    with pytest.raises(FrontError, match="after the longer training its intervals begin"):
        numbers(behind, monkeypatch, thresholds({"argmax": 0.6, "tuned": 0.72}))


def rates(ce, dice, name="cracks"):
    """Records of one task; `ce` and `dice` are (validation, test) of the low and the high rate."""
    of = {"ce_low": ce[0], "ce_high": ce[1], "dice_low": dice[0], "dice_high": dice[1]}
    made = place(name, level(**{label: test for label, (_, test) in of.items()}))
    made.runs["val_foreground_dice_tuned"] = made.runs.loss.map({k: v[0] for k, v in of.items()})
    return records(made)


def test_each_loss_takes_the_rate_that_validation_prefers_and_not_the_one_that_tests_best():
    known = rates(ce=[(0.6, 0.9), (0.7, 0.65)], dice=[(0.6, 0.60), (0.5, 0.95)])
    found = real_images.better_rates([known]).loc["cracks"]
    assert (found.ce, found.dice) == ("ce_high", "dice_low")
    assert found.estimate == pytest.approx(-0.05, abs=2e-3) and found.high < 0


def test_dice_ahead_at_the_better_rates_stops_the_build(monkeypatch):
    behind = rates([(0.6, 0.7), (0.5, 0.7)], [(0.6, 0.6), (0.5, 0.9)])
    ahead = rates([(0.6, 0.7), (0.5, 0.7)], [(0.6, 0.8), (0.5, 0.6)], "defects")
    of = {"thresholds_rate": behind, "thresholds_rate_kolektor": None}
    monkeypatch.setattr(frames, "load_if_run", lambda _, study: of.get(study))
    assert real_images._of_better_rates(Path("nowhere")) == {}
    of["thresholds_rate_kolektor"] = behind
    assert real_images._of_better_rates(Path("nowhere"))["low"].startswith("−0.1")
    of["thresholds_rate_kolektor"] = ahead
    with pytest.raises(FrontError, match="better of two rates"):
        real_images._of_better_rates(Path("nowhere"))


def from_prior(monkeypatch, **dice):
    """What is said of two tasks whose cross-entropy has .70, and Dice from 0 and from the prior what `dice` gives."""
    parts = []
    for task, (zero, prior) in dice.items():
        of = {"ce": 0.70, "dice": zero, "dice_prior": prior}
        scores = {f"{loss}_{rate}": {"argmax": test, "tuned": test}
                  for loss, test in of.items() for rate in ("low", "high")}  # fmt: skip
        parts.append(place(task, scores))
    known = records(*parts)
    of = {"thresholds_bias": known, "thresholds_bias_kolektor": known}
    monkeypatch.setattr(frames, "load_if_run", lambda _, study: of[study])
    return of


def test_dice_from_the_prior_is_compared_once_its_study_is_whole(monkeypatch):
    of = from_prior(monkeypatch, cracks=(0.68, 0.69), vessels=(0.66, 0.698))
    found = real_images.from_the_prior("nowhere")
    assert (found["tasks"], found["behind"], found["open"]) == ("2", "2", "0")
    assert found["low"].startswith("−0.01") and found["high"].startswith("−0.00")
    of["thresholds_bias_kolektor"] = None
    assert real_images.from_the_prior("nowhere") == {}
    from_prior(monkeypatch, cracks=(0.68, 0.69), vessels=(0.66, 0.70))
    found = real_images.from_the_prior("nowhere")
    assert (found["behind"], found["open"]) == ("1", "1")


def test_the_figure_has_each_loss_from_the_prior_at_the_rate_of_validation(monkeypatch):
    of = from_prior(monkeypatch, pedestrians=(0.60, 0.69), vessels=(0.66, 0.698))
    runs = of["thresholds_bias"].runs
    runs["val_foreground_dice_tuned"] = runs.loss.isin(["ce_high", "dice_prior_low"]).astype(float)
    known = of["thresholds_bias"]
    for part in known.parts:  # so that another label shows
        for counts in part.by_rule["argmax"], part.by_rule["tuned"]:
            counts["ce_low"] = counts["dice_prior_high"] = 0 * counts["ce_low"]
    for name, part in zip(of, known.parts, strict=True):
        here = runs[runs.dataset == part.dataset]
        of[name] = dataclasses.replace(known, parts=[part], runs=here)
    found = real_images.seeds_from_the_prior("nowhere")
    assert found.columns.tolist() == ["head", "seed", "ce at ½", "ce tuned", "dice", "dice tuned"]
    medians = found.groupby("head")[["ce tuned", "dice tuned"]].median()
    assert medians.loc["vessels"].tolist() == pytest.approx([0.70, 0.698], abs=2e-3)
    with pytest.raises(FrontError, match="on pedestrians the threshold lifts"):
        real_images._medians(Path("nowhere"))  # at 1/2 as at the threshold
    of["thresholds_bias_kolektor"] = None
    assert real_images.seeds_from_the_prior("nowhere") is None


def test_what_a_threshold_does_to_recall_is_counted_and_stops_the_build_where_it_stays():
    def known(half, tuned):
        """Two tasks; Dice marks so many pixels more than cross-entropy, half of them rightly."""
        parts = []
        for task in ("cracks", "vessels"):
            part = place(task, {"ce": CE, "dice": CE}, volume_ratio={"ce": 0.5, "dice": 1.2})
            for rule, more in (("argmax", half), ("tuned", tuned)):
                part.by_rule[rule]["dice"][..., 1, :] += [more // 2, more, -(more // 2)]
            parts.append(part)
        return dataclasses.replace(records(*parts), runs=pd.concat(each.runs for each in parts))

    found = real_images.at_thresholds(known(200, 0))
    assert (found["tasks"], found["apart"]) == ("2", "2")
    assert (found["dice_low"], found["ce_high"]) == ("1.2", "0.5")
    assert real_images.at_thresholds(known(0, 0))["apart"] == "0"
    with pytest.raises(FrontError, match="neither recall nor precision"):
        real_images.at_thresholds(known(200, 200))


def test_the_table_of_the_front_page_has_both_losses_from_the_prior(monkeypatch):
    of = from_prior(monkeypatch, cracks=(0.60, 0.69), vessels=(0.66, 0.698))
    found = real_images.shown_from_the_prior("nowhere")
    assert found.columns.tolist() == ["task", "Dice − CE", "from", "to"]
    assert found.task.tolist() == ["cracks", "vessels"]
    assert found["Dice − CE"].str.startswith("−0.0").all()  # from 0 cracks is a tenth behind
    of["thresholds_bias_kolektor"] = None
    assert real_images.shown_from_the_prior("nowhere") is None


def test_a_difference_counts_as_shown_where_it_stays_so_after_a_correction_for_all_tasks(
    monkeypatch,
):
    p_values = pd.Series({"a": 0.001, "b": 0.03, "c": 0.04, "d": 0.9})
    assert frames.shown(p_values).to_dict() == {"a": True, "b": False, "c": False, "d": False}
    assert frames.shown(p_values[["b"]]).all()
    from_prior(monkeypatch, cracks=(0.68, 0.69), vessels=(0.66, 0.698))
    monkeypatch.setattr(frames, "shown", lambda p: p < -1)
    found = real_images.from_the_prior("nowhere")
    assert (found["behind"], found["open"]) == ("0", "2")


def test_dice_at_one_half_is_ahead_of_a_tuned_cross_entropy_on_pedestrians_alone(monkeypatch):
    def study(**at_half):
        """Tuned, both losses from the prior have .70 in every task; Dice at ½ has what `at_half` gives."""
        of = {"ce": 0.70, "dice": 0.66, "dice_prior": 0.70}
        parts = [
            place(task, {f"{loss}_{rate}": {"argmax": half if loss == "dice_prior" else 0.5, "tuned": tuned}
                         for loss, tuned in of.items() for rate in ("low", "high")})
            for task, half in at_half.items()
        ]  # fmt: skip
        known = records(*parts)
        monkeypatch.setattr(frames, "load_if_run", lambda *_: known)

    study(pedestrians=0.75, cracks=0.69)
    assert real_images.from_the_prior("nowhere")["untuned"].startswith("+0.05")
    study(pedestrians=0.69, cracks=0.69)
    with pytest.raises(FrontError, match="on pedestrians alone"):
        real_images.from_the_prior("nowhere")
    study(pedestrians=0.75, cracks=0.75)
    with pytest.raises(FrontError, match="on pedestrians alone"):
        real_images.from_the_prior("nowhere")


def test_a_start_that_brings_the_losses_no_nearer_stops_the_build(monkeypatch):
    from_prior(monkeypatch, cracks=(0.69, 0.65), vessels=(0.69, 0.74))  # which cancel in a mean
    with pytest.raises(FrontError, match="brings the losses nearer"):
        real_images.from_the_prior("nowhere")


def test_a_loss_by_the_prior_stops_the_build(monkeypatch):
    from_prior(monkeypatch, cracks=(0.60, 0.69), vessels=(0.70, 0.69))
    with pytest.raises(FrontError, match="higher from the prior"):
        real_images.from_the_prior("nowhere")


def test_another_task_than_defects_on_which_dice_is_behind_stops_the_build(monkeypatch):
    from_prior(monkeypatch, cracks=(0.66, 0.70), defects=(0.66, 0.69))
    assert real_images.from_the_prior("nowhere")["behind"] == "1"
    from_prior(monkeypatch, cracks=(0.66, 0.69), defects=(0.66, 0.70))
    with pytest.raises(FrontError, match="behind on defects alone"):
        real_images.from_the_prior("nowhere")


def test_dice_ahead_from_the_prior_stops_the_build(monkeypatch):
    from_prior(monkeypatch, cracks=(0.65, 0.69), vessels=(0.65, 0.72))
    with pytest.raises(FrontError, match="with the prior bias its intervals"):
        real_images.from_the_prior("nowhere")


def renamed(known, new):
    """The records with the task `cracks` under another name."""
    named = {"cracks": new}
    parts = [dataclasses.replace(p, dataset=named.get(p.dataset, p.dataset)) for p in known.parts]
    for part in parts:
        part.runs["dataset"] = part.dataset
    runs = known.runs.assign(dataset=known.runs.dataset.replace(named))
    changed = dataclasses.replace(known, parts=parts, runs=runs)
    changed.study["datasets"] = [new, "vessels"]
    return changed


def test_hard_examples_are_counted_and_stop_the_build_where_they_are_ahead():
    behind = records(place("cracks", {"ce": CE, "ohem_ce": {"argmax": 0.5, "tuned": 0.6}}))
    found = real_images.hard_examples(behind)
    assert (found["tasks"], found["behind"]) == ("1", "1")
    assert found["low"] == found["high"] and found["low"].startswith("−0.1")
    ahead = records(place("cracks", {"ce": CE, "ohem_ce": {"argmax": 0.6, "tuned": 0.8}}))
    with pytest.raises(FrontError, match="OHEM is ahead in no task"):
        real_images.hard_examples(ahead)


def test_hard_examples_are_compared_at_one_rate_alone(monkeypatch):
    ohem = place(
        "cracks", {"ohem_ce": {"argmax": 0.5, "tuned": 0.6}}, foreground_dice_tuned=0.6, lr=0.003
    )
    ce = place(
        "cracks", {"ce_low": {"argmax": 0.6, "tuned": 0.7}}, foreground_dice_tuned=0.7, lr=0.003
    )
    of = {"thresholds": records(ohem), "thresholds_rate": records(ce)}
    monkeypatch.setattr(frames, "load_if_run", lambda _, study: of.get(study))
    assert real_images.at_one_rate("nowhere", "ohem_ce")["cracks"] == pytest.approx(-0.1)
    of["thresholds_rate"].runs["lr"] = 0.01
    assert real_images.at_one_rate("nowhere", "ohem_ce").empty
    of["thresholds_rate"] = None
    assert real_images.at_one_rate("nowhere", "ohem_ce").empty


def test_a_gap_at_mitochondria_that_a_longer_training_does_not_narrow_stops_the_build(monkeypatch):
    short = renamed(thresholds({"argmax": 0.59, "tuned": 0.68}), "mitochondria")
    nearer = renamed(thresholds({"argmax": 0.6, "tuned": 0.695}), "mitochondria")
    assert "mitochondria" in numbers(short, monkeypatch, nearer)["longer"]
    wider = renamed(thresholds({"argmax": 0.6, "tuned": 0.67}), "mitochondria")
    with pytest.raises(FrontError, match="narrows the gap at mitochondria"):
        numbers(short, monkeypatch, wider)


def test_the_threshold_that_brings_pedestrians_back_is_checked(monkeypatch):
    changed = renamed(thresholds({"argmax": 0.59, "tuned": 0.68}), "pedestrians")
    changed.runs.loc[changed.runs.loss == "ce", "foreground_dice_tuned"] = 0.5
    with pytest.raises(FrontError, match="brings cross-entropy back on pedestrians"):
        numbers(changed, monkeypatch)


def test_the_folds_of_a_cross_validation_are_one_more_task(monkeypatch):
    known = thresholds({"argmax": 0.59, "tuned": 0.68})
    known.study["predictions"] = [{"holds": [{"also": ["folds"]}]}]
    scores = [
        {"ce": {"argmax": 0.4, "tuned": ce}, "dice": {"argmax": 0.4, "tuned": 0.5}}
        for ce in (0.5, 0.7)
    ]
    folds = [place(f"defects{fold}", of) for fold, of in enumerate(scores)]
    other = records(*folds, pool="fold")
    monkeypatch.setattr(frames, "load_if_run", lambda _, study: other if study == "folds" else None)
    whole = real_images.with_folds(known)
    assert real_images.tasks(whole) == ["cracks", "vessels", "defects"]
    row = real_images.table(whole).loc["defects"]
    assert row["ce"] == pytest.approx(0.6, abs=2e-3)  # as many images in either fold
    assert row["tuned"] == pytest.approx(-0.1, abs=3e-3)
    assert len(real_images.seeds_table(whole).query("head == 'defects'")) == 8

    short = {loss: seeds[:-1] for loss, seeds in folds[1].seeds.items()}
    cut = {
        rule: {loss: counts[:-1] for loss, counts in of.items()}
        for rule, of in folds[1].by_rule.items()
    }
    runs = folds[1].runs[folds[1].runs.seed < 7]
    lost = dataclasses.replace(folds[1], seeds=short, by_rule=cut, runs=runs)
    other = records(folds[0], lost, pool="fold")
    waiting = real_images.with_folds(known)
    assert real_images.tasks(waiting) == ["cracks", "vessels"]
    assert waiting.study["datasets"] == ["cracks", "vessels", "defects"], "it is planned"
    other = None
    assert real_images.with_folds(known).study["datasets"] == ["cracks", "vessels", "folds"]


#: Cross-entropy and Dice from the prior, as `thresholds_bias` calls them.
BOTH = ("ce_low", "dice_prior_low")


def test_dice_better_calibrated_than_cross_entropy_stops_the_build(monkeypatch):
    def known(dice, nll=0.2, brier=0.2):
        columns = {"ece_foreground": (0.04, dice), "nll": (0.1, nll), "brier": (0.1, brier)}
        columns = {name: dict(zip(BOTH, of, strict=True)) for name, of in columns.items()}
        part = place("cracks", dict.fromkeys(BOTH, CE), **columns)
        return records(part)

    monkeypatch.setattr(frames, "load_if_run", lambda *_: known(0.2))
    expected = {"tasks": "1", "ce": "0.04", "low": "0.20", "high": "0.20"}
    assert real_images.calibration("nowhere") == expected
    monkeypatch.setattr(frames, "load_if_run", lambda *_: known(0.2368))
    outwards = {"low": "0.23", "high": "0.24"}
    assert real_images.calibration("nowhere") == expected | outwards
    monkeypatch.setattr(frames, "load_if_run", lambda *_: known(0.03))
    with pytest.raises(FrontError, match="better calibrated"):
        real_images.calibration("nowhere")
    monkeypatch.setattr(frames, "load_if_run", lambda *_: known(0.2, nll=0.05))
    with pytest.raises(FrontError, match="likelihood"):
        real_images.calibration("nowhere")
    monkeypatch.setattr(frames, "load_if_run", lambda *_: known(0.2, brier=0.05))
    with pytest.raises(FrontError, match="Brier"):
        real_images.calibration("nowhere")


def test_the_calibration_error_at_most_is_that_of_the_worst_training(monkeypatch):
    errors = dict(zip(BOTH, ([0.01] * 7 + [0.06], [0.3] * 7 + [0.14]), strict=True))
    scores = dict(zip(BOTH, (0.1, 0.2), strict=True))
    part = place("cracks", dict.fromkeys(BOTH, CE), nll=scores, brier=scores)
    runs = part.runs.assign(ece_foreground=part.runs.groupby("loss").cumcount())
    runs["ece_foreground"] = [
        errors[loss][i] for loss, i in zip(runs.loss, runs.ece_foreground, strict=True)
    ]
    known = dataclasses.replace(records(part), runs=runs)
    monkeypatch.setattr(frames, "load_if_run", lambda *_: known)
    expected = {"tasks": "1", "ce": "0.06", "low": "0.14", "high": "0.30"}
    assert real_images.calibration("nowhere") == expected


def test_what_the_front_page_says_of_the_sums_is_checked(monkeypatch):
    def known(half=0.65, tuned=0.6, pedestrians=0.65, vessels=0.6, lovasz=0.6):
        parts = []
        for task, at_half in {
            "cracks": half,
            "pedestrians": pedestrians,
            "vessels": vessels,
        }.items():
            sums = {"argmax": at_half, "tuned": tuned}
            scores = level(ce=0.6, tversky=0.59, jaccard=0.61, lovasz_softmax=lovasz)
            parts.append(place(task, {"dice_ce": sums, "dice_focal": sums} | scores))
        return records(*parts)

    monkeypatch.setattr(frames, "load_if_run", lambda *_: known())
    found = real_images.other_losses("nowhere")
    assert found["sums"]["low"] == "+0.0" and found["ratios"] == {"low": "−1.0", "high": "+1.0"}
    for wrong in (
        {"half": 0.6},
        {"half": 0.55, "pedestrians": 0.55},
        {"tuned": 0.65},
        {"tuned": 0.55},
        {"pedestrians": 0.6},
        {"vessels": 0.55},
    ):
        monkeypatch.setattr(frames, "load_if_run", lambda *_, wrong=wrong: known(**wrong))
        with pytest.raises(FrontError, match="the sums with Dice are shown ahead at ½"):
            real_images.other_losses("nowhere")
    monkeypatch.setattr(frames, "load_if_run", lambda *_: known(lovasz=0.65))
    with pytest.raises(FrontError, match="Lovász-softmax is not shown ahead"):
        real_images.other_losses("nowhere")


def test_what_a_loss_is_worth_is_given_once_its_runs_are_there_and_checked(monkeypatch):
    def known(long=(0.62, 0.61), rate=0.56, dice=0.595, models=("plain8", "long", "rate")):
        reached = {"plain8": (0.6, dice), "long": long, "rate": (0.6, rate)}
        parts = []
        for model in models:
            ce, of_dice = reached[model]
            parts.append(place("cracks", level(ce=ce, dice=of_dice), model=model))
        made = records(*parts)
        made.study["places"] = [{"dataset": "cracks", "model": model} for model in reached]
        return made

    monkeypatch.setattr(frames, "load_if_run", lambda *_: known())
    found = real_images.yardstick("nowhere")
    assert found == {"loss": "−0.5", "steps_ce": "+2.0", "steps_dice": "+1.5", "rate": "−3.5"}
    for few in (("long", "rate"), ("plain8", "rate")):
        monkeypatch.setattr(frames, "load_if_run", lambda *_, few=few: known(models=few))
        assert real_images.yardstick("nowhere") == {}
    for wrong in ({"long": (0.604, 0.61)}, {"long": (0.62, 0.599)}, {"rate": 0.592}):
        monkeypatch.setattr(frames, "load_if_run", lambda *_, wrong=wrong: known(**wrong))
        with pytest.raises(FrontError, match="what a loss is worth"):
            real_images.yardstick("nowhere")


def test_what_the_guide_says_of_lovasz_softmax_is_checked(monkeypatch):
    def known(alone=0.4, beside=0.6, rare=0.52):
        tasks = {"vessels": beside, "mitochondria": 0.6, "synapses": 0.6, "pedestrians": rare}
        parts = []
        for task, of_sum in tasks.items():
            scores = level(ce=0.6, one_sigmoid=alone, two_channels=0.5, ce_lovasz=of_sum)
            parts.append(place(task, scores))
        return records(*parts)

    monkeypatch.setattr(frames, "load_if_run", lambda *_: known())
    expected = {"least": "20", "most": "20", "with_ce": "8", "two_channels": "10"}
    assert real_images.lovasz("nowhere") == expected
    for wrong in ({"alone": 0.61}, {"beside": 0.5}, {"rare": 0.61}):
        monkeypatch.setattr(frames, "load_if_run", lambda *_, wrong=wrong: known(**wrong))
        with pytest.raises(FrontError, match="on Lovász-softmax"):
            real_images.lovasz("nowhere")


def test_squared_dice_ahead_elsewhere_stops_the_build(monkeypatch):
    tasks = ("cracks", "pedestrians", "mitochondria")

    def known(**squared):
        parts = []
        for task in tasks:
            of = {"ce": 0.7, "dice": 0.68, "squared": squared.get(task, 0.7)}
            parts.append(place(task, {f"{loss}_{rate}": {"argmax": at, "tuned": at}
                                      for loss, at in of.items() for rate in ("low", "high")}))  # fmt: skip
        runs = pd.concat(part.runs for part in parts)
        return dataclasses.replace(records(*parts), runs=runs)

    asked = {"pedestrians": 0.75, "mitochondria": 0.69}
    monkeypatch.setattr(real_images, "pedestrians_long", lambda _: pd.DataFrame())
    for wrong in ({"cracks": 0.72}, {"pedestrians": 0.7}, {"cracks": 0.66}):
        contradicting = known(**asked | wrong)
        monkeypatch.setattr(frames, "load_if_run", lambda *_, of=contradicting: of)
        with pytest.raises(FrontError, match="squared Dice is shown ahead"):
            real_images.squared_dice("nowhere")
    monkeypatch.setattr(frames, "load_if_run", lambda *_: known(**asked))
    found = real_images.squared_dice("nowhere")
    assert (found["tasks"], found["ahead"]) == ("3", "3")
    assert float(found["pedestrians"]) == pytest.approx(5, abs=0.2)
    assert float(found["mitochondria"]) == pytest.approx(1, abs=0.2)
    monkeypatch.setattr(frames, "load_if_run", lambda *_: None)
    assert real_images.squared_dice("nowhere") == {}


def test_a_longer_training_that_says_something_else_of_pedestrians_stops_the_build(monkeypatch):
    def known(low, high, preferred):
        scores = level(ce_low=0.4, ce_high=0.36, squared_low=low, squared_high=high)
        of = records(place("pedestrians", scores))
        better = of.runs.loss.isin(["ce_low", preferred])
        return dataclasses.replace(of, runs=of.runs.assign(val_foreground_dice_tuned=better + 0.0))

    monkeypatch.setattr(frames, "load_if_run", lambda *_: known(0.45, 0.4, "squared_high"))
    found = real_images.pedestrians_long("nowhere")
    assert found["shown"].tolist() == ["ahead", "ahead", "open"]
    assert found.estimate.tolist() == pytest.approx([5, 4, 0], abs=0.3)
    for wrong in (
        (0.4, 0.4, "squared_high"),
        (0.45, 0.36, "squared_low"),
        (0.45, 0.4, "squared_low"),
    ):
        monkeypatch.setattr(frames, "load_if_run", lambda *_, wrong=wrong: known(*wrong))
        with pytest.raises(FrontError, match="four times the steps"):
            real_images.pedestrians_long("nowhere")
    monkeypatch.setattr(frames, "load_if_run", lambda *_: None)
    assert real_images.pedestrians_long("nowhere").empty
