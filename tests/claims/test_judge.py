"""Predictions are data: one judge decides them all, and says where."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "report"))
from conftest import write_records

from lossatlas.claims import judge, quantities
from lossatlas.claims.quantities import Share, entries
from lossatlas.report import records as reader
from lossatlas.report.records import RecordsError

#: Objects found: dice 0.8, ce 0.5, lovasz_softmax 0.9; dice minus ce is far above 0.
AHEAD = {"quantity": "dice", "losses": ["dice", "ce"], "is": "> 0"}


def predict(folder, *predictions):
    path = folder / "study.json"
    study = json.loads(path.read_text()) | {"predictions": list(predictions)}
    path.write_text(json.dumps(study))
    return reader.load(folder)


def with_columns(folder, **columns):
    path = folder / "runs.parquet"
    runs = pd.read_parquet(path)
    for name, value in columns.items():
        runs[name] = value(runs)
    runs.to_parquet(path, index=False)


def rewrite(folder, change):
    """Change every table of the records that has a row or more for each run."""
    for name in ("runs", "per_image", "per_class", "curves"):
        path = folder / f"{name}.parquet"
        change(pd.read_parquet(path)).to_parquet(path, index=False)


def decided(folder, *checks):
    """What the judge says of one prediction with these checks."""
    made = predict(folder, {"claim": "7", "text": "Ahead.", "holds": list(checks)})
    (found,) = judge.judge(made)
    return found


@pytest.fixture
def folder(tmp_path):
    """Records of two models, which stand for two places: 1 % and 30 % of foreground."""
    made = write_records(tmp_path / "tiny", seeds=(0, 1, 2, 3), losses=("ce", "dice", "focal"))
    with_columns(
        made,
        foreground=lambda runs: runs.model.map({"unet": 0.01, "segnet": 0.3}),
        began=lambda runs: ~((runs.loss == "ce") & (runs.seed < 2)),
        auprc=lambda runs: np.where(runs.loss == "dice", 0.8, 0.5) + 0.01 * runs.seed,
    )
    return made


def test_a_prediction_holds_fails_or_is_open_with_its_places(folder):
    found = judge.judge(
        predict(
            folder,
            {"claim": "7", "text": "Dice is ahead.", "holds": [AHEAD]},
            {"claim": "7", "text": "Dice is behind.", "holds": [AHEAD | {"is": "< 0"}]},
            {
                "claim": "8",
                "text": "By less than a point.",
                "holds": [AHEAD | {"is": "within 0.01"}],
            },
            {"claim": "9", "text": "No one says how this is checked."},
        )
    )
    assert [each.outcome for each in found] == ["holds", "fails", "fails", "open"]
    (checks,) = found[0].checks.values()
    assert [check.place for check in checks] == ["1 %", "30 %"]
    assert all("n = 4 seeds" in check.found for check in checks)
    assert list(found[0].checks) == ["dice − ce: dice at ½ > 0"]


def test_a_place_is_named_by_its_level_a_list_or_a_condition(folder):
    records = predict(folder)
    for where, places in (
        ({"foreground": 0.01}, ["1 %"]),
        ({"foreground": [0.01, 0.3]}, ["1 %", "30 %"]),
        ({"foreground": "< 0.02"}, ["1 %"]),
        ({"model": "segnet"}, ["30 %"]),
    ):
        assert [e.place for e in entries(records, "dice", ["dice", "ce"], where=where)] == places


def test_what_differs_by_place_says_where(folder):
    """Dice is ahead at 30 %; at 1 % its runs and those of cross-entropy are swapped."""

    def swapped(table):
        other = table.loss.map({"ce": "dice", "dice": "ce"}).fillna(table.loss)
        table = table.assign(loss=other.where(table.model == "unet", table.loss))
        return table.sort_values(["model", "loss", "seed"], kind="stable")

    rewrite(folder, swapped)
    found = decided(folder, AHEAD)
    assert (found.outcome, found.where) == ("fails", "holds at 30 %, fails at 1 %")
    entry = judge.claims([found])["7"]
    assert entry["verdict"] == "conditional"
    assert entry["said"] == "true at 30 %, false at 1 %"
    assert entry["because"] == "“Ahead.” holds at 30 %, fails at 1 %."


def test_a_share_of_runs_has_its_exact_tails(folder):
    records = predict(folder)
    (entry, _) = entries(records, "share that began", ["ce", "dice"])
    assert entry.value == Share(6, 8)
    assert entry.value.text() == "6 of 8"
    # P(X ≥ 6 | 8, ½) = 37/256, P(X ≤ 6 | 8, ½) = 247/256
    assert entry.value.p_above(0.5) == pytest.approx(37 / 256)
    assert entry.value.p_below(0.5) == pytest.approx(247 / 256)


def test_a_quantity_of_runs_is_paired_by_seed_with_student_s_interval(folder):
    (entry, _) = entries(predict(folder), "area under precision-recall", ["dice", "ce"])
    assert entry.value.estimate == pytest.approx(0.3)
    assert entry.value.seeds == 4 and entry.value.standard_error == pytest.approx(0, abs=1e-12)


def test_missing_runs_leave_a_prediction_open(folder):
    gone = "model == 'unet' and loss == 'ce' and seed == 0"
    rewrite(folder, lambda table: table.query(f"not ({gone})"))
    found = decided(folder, AHEAD)
    assert found.where == "holds at 30 %, open elsewhere"
    (checks,) = found.checks.values()
    assert checks[0].found == "1 of the 8 runs that it needs are missing"
    at_one = decided(folder, AHEAD | {"where": {"foreground": 0.01}})
    assert judge.claims([at_one])["7"]["verdict"] == "awaiting"


def test_a_place_without_any_run_leaves_a_prediction_open(folder):
    """What holds wherever there are runs does not hold everywhere while a place has none."""
    description = json.loads((folder / "study.json").read_text())
    places = [
        {"dataset": "digits", "model": m, "foreground": f}
        for m, f in (("unet", 0.01), ("segnet", 0.3))
    ]
    description["places"] = [*places, {"dataset": "more", "model": "unet", "foreground": 0.03}]
    (folder / "study.json").write_text(json.dumps(description))
    records = predict(folder, {"claim": "7", "text": "Ahead.", "holds": [AHEAD]})
    (found,) = judge.judge(records)
    assert (found.outcome, found.where) == ("open", "holds at 1 % and 30 %, open elsewhere")
    assert [
        e.place for e in entries(records, "dice", ["dice", "ce"], where={"foreground": 0.03})
    ] == ["more, unet"]
    assert len(entries(records, "dice", ["dice", "ce"], where={"foreground": "< 0.02"})) == 1


def test_all_runs_without_a_decision_are_open_and_missing_ones_awaited(tmp_path):
    made = write_records(tmp_path / "tiny", seeds=(0, 1, 2), losses=("ce", "dice"))
    with_columns(made, began=lambda runs: True)
    share = {"quantity": "share that began", "losses": ["ce"], "is": "> 0.9"}
    assert judge.claims([decided(made, share)])["7"]["verdict"] == "open"


def test_two_seeds_decide_nothing(tmp_path):
    made = write_records(tmp_path / "tiny", seeds=(0, 1), losses=("ce", "dice"))
    assert decided(made, AHEAD).outcome == "open"


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"quantity": "beauty"}, "unknown quantity 'beauty', expected one of dice"),
        ({"losses": ["dice", "hinge"]}, "unknown loss 'hinge'"),
        ({"where": {"colour": 1}}, "unknown factor 'colour'"),
        ({"where": {"foreground": 0.5}}, "expected a place with"),
        ({"is": "about 0"}, "expected '> 0', '< 0.1', 'within 0.01' or .*got 'about 0'"),
    ],
)
def test_a_check_that_cannot_be_made_says_what_was_expected(folder, change, words):
    with pytest.raises(ValueError, match=words):
        decided(folder, AHEAD | change)


def test_the_verdicts_are_written_for_the_ledger(folder):
    predict(folder, {"claim": "7", "text": "Ahead.", "holds": [AHEAD]})
    path = judge.write(folder)
    content = json.loads(path.read_text())
    assert content["verdicts"]["7"]["verdict"] == "true"
    assert judge.describe(path) == "  7  true"
    predict(folder, {"claim": "7", "text": "Ahead."})
    with pytest.raises(RecordsError, match="expected a prediction with a check"):
        judge.write(folder)


def test_every_quantity_is_named_once():
    assert len(set(quantities.QUANTITIES)) == len(quantities.QUANTITIES)


def test_a_place_holds_only_where_all_conditions_of_the_prediction_do(folder):
    near = AHEAD | {"is": "within 0.01", "at_least": 1}  # at no place
    far = AHEAD | {"is": "within 0.9"}  # at both
    found = decided(folder, near, far)
    assert (found.outcome, found.where) == ("fails", "fails")
    assert decided(folder, AHEAD, far).where == "holds"


def test_equality_fails_where_the_interval_lies_wholly_beyond_the_margin():
    spread = np.array([-0.02, -0.01, -0.005, 0.0, 0.0, 0.005, 0.01, 0.02])
    outcomes = set()
    for middle in np.linspace(-0.05, 0.05, 401):
        value = quantities._of_seeds(middle + spread, ["dice", "ce"])
        beyond = value.high < -0.01 or value.low > 0.01
        outcomes.add(beyond)
        assert (judge._tails(value, "in", -0.01, 0.01)[1] <= judge.ALPHA) == beyond, middle
    assert outcomes == {True, False}


def test_equality_that_fails_says_to_which_side(folder):
    """Dice is 0.3 ahead of cross-entropy at both places."""
    ahead = {"quantity": "dice", "losses": ["dice", "ce"], "is": "within 0.01"}
    behind = ahead | {"losses": ["ce", "dice"]}
    predictions = [
        {"claim": "1", "text": "Equal.", "holds": [ahead]},
        {"claim": "2", "text": "Equal.", "holds": [behind]},
        {"claim": "3", "text": "Equal.", "holds": [ahead, behind]},
        {"claim": "4", "text": "Behind.", "holds": [AHEAD | {"is": "< 0"}]},
        {"claim": "5", "text": "Near.", "holds": [ahead | {"is": "within 0.9"}]},
    ]
    found = judge.claims(judge.judge(predict(folder, *predictions)))
    told = {claim: entry["because"] for claim, entry in found.items()}
    assert told["1"] == "“Equal.” fails. Where it fails, dice − ce is above the margin."
    assert told["2"] == "“Equal.” fails. Where it fails, ce − dice is below the margin."
    assert told["3"] == "“Equal.” fails."  # two differences
    assert told["4"] == "“Behind.” fails." and told["5"] == "“Near.” holds."


@pytest.mark.parametrize(
    ("bearing", "outcome", "verdict"),
    [
        ("for", "holds", "true"),
        ("for", "fails", "false"),
        ("against", "holds", "false"),
        ("against", "fails", "true"),
        ("against", "open", "open"),
        ("beside", "holds", "open"),
        ("beside", "fails", "open"),
    ],
)
def test_a_prediction_speaks_for_its_claim_against_it_or_beside_it(bearing, outcome, verdict):
    checks = {"dice − ce: dice > 0": [judge.Check("cracks", outcome, "+1")]}
    found = judge.claims([judge.Judgement("4", "It begins.", checks, bearing=bearing)])["4"]
    assert found["verdict"] == verdict and "It begins." in found["because"]


def test_a_prediction_against_its_claim_says_where_the_claim_is_false():
    checks = {
        "dice: share > 0.5": [
            judge.Check("rate 1, batch 4", "holds", ""),
            judge.Check("rate 2, batch 4", "holds", ""),
            judge.Check("rate 3, batch 4", "open", ""),
        ]
    }
    (entry,) = judge.claims(
        [judge.Judgement("4", "It begins.", checks, bearing="against")]
    ).values()
    assert entry["verdict"] == "false"
    assert entry["said"] == "false at rate 1, batch 4; and rate 2, batch 4; open elsewhere"
    checks["dice: share > 0.5"].append(judge.Check("rate 4, batch 4", "holds", ""))
    (entry,) = judge.claims(
        [judge.Judgement("4", "It begins.", checks, bearing="against")]
    ).values()
    assert entry["said"] == "false at 3 of 4 places, open elsewhere"


def test_a_place_of_many_factors_is_counted_and_not_named():
    long = "AdamW, rate 0.01, batches of 16 less batches of 4"
    checks = {"a": [judge.Check(long, "holds", ""), judge.Check("rate 0.03", "fails", "")]}
    assert (
        judge.Judgement("12", "It.", checks).where == "holds at 1 of 2 places, fails at rate 0.03"
    )


def test_two_conditions_at_one_place_do_not_differ_by_place():
    checks = {
        "dice > 0": [judge.Check("rare", "fails", "")],
        "dice_ce > 0": [judge.Check("rare", "open", "")],
    }
    assert judge.Judgement("10", "It.", checks).where == "fails"
    checks["tversky > 0"] = [judge.Check("rare", "holds", "")]
    (entry,) = judge.claims([judge.Judgement("10", "It.", checks)]).values()
    assert entry["verdict"] == "conditional", "one condition holds, another fails"


def test_a_prediction_with_one_check_twice_is_refused(folder):
    with pytest.raises(ValueError, match="expected different checks in the prediction 'Ahead"):
        decided(folder, AHEAD, dict(AHEAD))
