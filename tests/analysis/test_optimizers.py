"""The report on two optimisers: what it reads from tuning runs whose answer is known."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest
from imbalance_cases import write_imbalance

from lossatlas.analysis import optimizers, verdicts
from lossatlas.analysis.records import RecordsError, load
from lossatlas.theory import ledger

LOSSES = {"ce": {"name": "ce", "params": {}}, "dice": {"name": "dice", "params": {}}}
RATES = (0.003, 0.01, 0.03, 0.1)
#: The gradient's norm at the first step, and with it the rate that SGD needs.
NORM = {"ce": 10.0, "dice": 1.0}
BEST = {("ce", "sgd"): 0.01, ("dice", "sgd"): 0.1, ("ce", "adamw"): 0.01, ("dice", "adamw"): 0.01}


def score(loss, optimizer, rate):
    """Highest at the best rate, and the less the further from it."""
    return 0.8 - 0.1 * abs(np.log10(rate / BEST[loss, optimizer]))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Records in which SGD's best rate is inversely proportional to the gradient, and AdamW's is not."""
    folder = write_imbalance(
        tmp_path_factory.mktemp("optimizers"),
        losses=LOSSES,
        fractions=(0.1,),
        seeds=(0, 1),
        images=4,
        study="optimizers",
        predictions=[],
    )
    rows = [
        dict(dataset="b", model="unet", loss=loss, optimizer=optimizer, lr=rate, seed=seed)
        | dict(run_id=f"{loss}-{optimizer}-{rate}-{seed}", status="completed", steps=40)
        | dict(chosen=rate == BEST[loss, optimizer])
        | dict(val_foreground_dice=score(loss, optimizer, rate))
        | dict(val_foreground_dice_tuned=score(loss, optimizer, rate))
        for (loss, optimizer) in BEST
        for rate in RATES
        for seed in (1000, 1001)
    ]
    pd.DataFrame(rows).to_parquet(folder / "tuning.parquet")
    curves = pd.read_parquet(folder / "curves.parquet")
    curves["grad_norm"] = curves.loss.map(NORM)
    curves.to_parquet(folder / "curves.parquet")
    study = json.loads((folder / "study.json").read_text())
    (folder / "study.json").write_text(json.dumps(study | {"report": "optimizers"}))
    return folder


@pytest.fixture(scope="module")
def one(folder):
    """The one data set of these records."""
    (one,) = optimizers.compare(load(folder))
    return one


def changed(folder, tmp_path, change):
    """The same records with other tuning runs."""
    table = change(pd.read_parquet(folder / "tuning.parquet"))
    for path in folder.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    table.to_parquet(tmp_path / "tuning.parquet")
    return load(tmp_path)


def test_the_best_rate_of_every_loss_and_optimiser_is_found(one):
    assert {key: sweep.best for key, sweep in one.sweeps.items()} == BEST
    assert one.span("sgd") == pytest.approx(10) and one.span("adamw") == 1


def test_a_best_rate_at_the_edge_of_the_grid_is_said(one, folder):
    assert one.sweeps["dice", "sgd"].at_edge and not one.sweeps["ce", "sgd"].at_edge
    assert "`dice` with SGD at 9.9\N{NO-BREAK SPACE}% (0.1)" in optimizers.limits(
        load(folder), [one]
    )
    assert optimizers.table(one).frame.loc["dice", "SGD: best rate"] == "0.1 (edge)"


def test_a_run_that_diverged_counts_nothing(folder, tmp_path):
    def end(table):
        dice = (table.loss == "dice") & (table.optimizer == "sgd") & (table.lr == 0.1)
        table.loc[dice, "status"] = "diverged at step 3"
        table.loc[dice, "val_foreground_dice_tuned"] = 0.9
        return table

    (one,) = optimizers.compare(changed(folder, tmp_path, end))
    sweep = one.sweeps["dice", "sgd"]
    assert sweep.best == 0.03 and sweep.diverged == 2 and sweep.scores[-1].tolist() == [0, 0]


def test_the_scale_is_the_gradient_of_the_first_step(one):
    assert one.gradient_norms("ce").tolist() == [10, 10]
    text = optimizers.scale([one])
    assert "10 times the smallest" in text
    assert "ρ = −1.000 with SGD" in text and "with AdamW every loss has the same best rate" in text


def test_the_answer_says_by_how_much_the_rates_differ_and_whether_the_order_is_the_same(one):
    text = optimizers.answer([one])
    assert "a factor of 1 with AdamW, a factor of 10 with SGD" in text
    assert "the order is the same" in text and "within 1 point of AdamW for every loss" in text


def test_another_order_and_a_lag_of_sgd_are_said(folder, tmp_path):
    def lower(table):
        table.loc[
            (table.loss == "ce") & (table.optimizer == "sgd"), "val_foreground_dice_tuned"
        ] -= 0.1
        return table

    text = optimizers.answer(optimizers.compare(changed(folder, tmp_path, lower)))
    assert "not the same" in text and "`dice` > `ce` with SGD" in text
    assert "beyond 1 point for `ce` -0.100" in text.replace("−", "-")


def test_fewer_working_rates_are_counted_both_ways(one, folder, tmp_path):
    assert optimizers.instability([one]).count(": fewer.") == 1  # SGD: dice's best is at the edge

    def worse(table):
        narrow = (table.loss == "ce") & (table.lr != 0.01)
        table.loc[narrow, "val_foreground_dice_tuned"] = 0.1
        return table

    text = optimizers.instability(optimizers.compare(changed(folder, tmp_path, worse)))
    assert text.count(": not fewer.") == 2


def test_dice_lags_at_the_equal_rates_where_it_does(one):
    text = optimizers.at_equal_rates([one])
    sgd = next(line for line in text.splitlines() if "SGD" in line)
    adamw = next(line for line in text.splitlines() if "AdamW" in line)
    assert "behind at 2 of 4" in sgd and "behind at 0 of 4" in adamw


def test_figures_and_table_draw_every_loss(one):
    for drawing in (optimizers.sensitivity([one]), optimizers.best_against_scale([one])):
        assert drawing.png().startswith(b"\x89PNG")
        assert "ce" in drawing.alt and "dice" in drawing.alt
    assert list(optimizers.table(one).frame.index) == ["ce", "dice"]


def test_one_optimiser_or_a_missing_run_is_no_comparison(folder, tmp_path):
    with pytest.raises(RecordsError, match="two optimisers"):
        optimizers.compare(changed(folder, tmp_path, lambda t: t[t.optimizer == "sgd"]))

    def lose(table):
        table.loc[table.index[0], "status"] = "missing"
        return table

    with pytest.raises(RecordsError, match="1 are missing"):
        optimizers.compare(changed(folder, tmp_path, lose))


def test_a_loss_without_a_gradient_at_the_first_step_is_named_and_left_out(folder, tmp_path):
    study = changed(folder, tmp_path, lambda table: table)
    curves = pd.read_parquet(tmp_path / "curves.parquet")
    curves.loc[curves.loss == "dice", "grad_norm"] = 0.0
    curves.to_parquet(tmp_path / "curves.parquet")
    comparisons = optimizers.compare(load(study.folder))
    text = optimizers.scale(comparisons)
    assert "the first step gives `dice` no gradient" in text and "inf" not in text
    assert (
        "dice at 9.9\N{NO-BREAK SPACE}%: no gradient"
        in optimizers.best_against_scale(comparisons).alt
    )


def test_predictions_are_judged_by_the_runs_and_contradictions_come_first(one, folder, tmp_path):
    records = load(folder)
    assert optimizers.predictions(records, [one]) == ""  # this study predicts nothing
    predicted = [{"claim": claim, "text": text} for claim, text in optimizers._PREDICTED]
    records.study["predictions"] = predicted
    lines = optimizers.predictions(records, [one]).splitlines()
    assert [line.split("**")[1] for line in lines] == ["Contradicted"] + 3 * ["Held"]
    assert "`dice` lags behind `ce`" in lines[0]  # at 0.1 its rate is better

    def turned(table):
        sgd = table.optimizer == "sgd"
        table.loc[sgd & (table.loss == "dice"), "val_foreground_dice_tuned"] = 0.2
        return table

    lower = optimizers.compare(changed(folder, tmp_path, turned))
    lines = optimizers.predictions(records, lower).splitlines()
    assert "fewer do" in lines[0] and "lags behind" in "".join(
        line for line in lines if "Held" in line
    )


# --- the ledger's claims on learning rates


def told(records):
    """Verdicts on the claims 4 and 24, and the findings."""
    found, awaiting = verdicts.verdicts(records)
    assert not awaiting
    return {claim: finding.verdict for claim, finding in found.items()}, found


def with_scores(folder, tmp_path, scores):
    """Records with other validation Dice: by (loss, optimiser), one a rate."""

    def change(table):
        for (loss, optimizer), values in scores.items():
            for rate, value in zip(RATES, values, strict=True):
                rows = (table.loss == loss) & (table.optimizer == optimizer) & (table.lr == rate)
                table.loc[rows, "val_foreground_dice_tuned"] = value
        return table

    return changed(folder, tmp_path, change)


FLAT, PEAK = (0.8, 0.8, 0.8, 0.8), (0.1, 0.8, 0.1, 0.1)


@pytest.mark.parametrize(
    ("dice", "ce", "expected"),
    [(PEAK, FLAT, "true"), (FLAT, PEAK, "false"), (FLAT, FLAT, "false")],
)
def test_dice_is_unstable_where_fewer_rates_work(folder, tmp_path, dice, ce, expected):
    scores = {(loss, o): s for loss, s in (("dice", dice), ("ce", ce)) for o in ("adamw", "sgd")}
    assert told(with_scores(folder, tmp_path, scores))[0]["4"] == expected


def test_dice_is_unstable_under_one_optimiser_alone(folder, tmp_path):
    scores = {("dice", "sgd"): PEAK, ("ce", "sgd"): FLAT}
    scores |= {("dice", "adamw"): FLAT, ("ce", "adamw"): FLAT}
    verdict, found = told(with_scores(folder, tmp_path, scores))
    assert verdict["4"] == "conditional"
    assert "ewer rates work at 9.9\N{NO-BREAK SPACE}% with SGD" in found["4"].condition


def test_a_loss_that_learns_nothing_at_any_rate_has_no_rate_that_works(folder, tmp_path):
    low = (0.01, 0.02, 0.01, 0.01)
    scores = {("dice", o): low for o in ("adamw", "sgd")}
    scores |= {("ce", o): PEAK for o in ("adamw", "sgd")}
    verdict, found = told(with_scores(folder, tmp_path, scores))
    assert verdict["4"] == "true"
    assert "0 of 4 rates against 1" in found["4"].because


def test_runs_that_diverged_are_counted_and_one_of_them_decides_nothing(folder, tmp_path):
    def end(table):
        table["val_foreground_dice_tuned"] = np.where(table.lr == 0.01, 0.8, 0.1)
        one = (table.loss == "dice") & (table.lr == 0.1) & (table.optimizer == "sgd")
        table.loc[one & (table.seed == 1000), "status"] = "diverged at step 3"
        return table

    verdict, found = told(changed(folder, tmp_path, end))
    assert verdict["4"] == "false", "as many rates work"
    assert "Tuning runs that diverged: 1 against 0, of 16 each" in found["4"].because


def test_a_lead_in_one_seed_of_two_or_of_losses_that_learn_nothing_is_none(folder, tmp_path):
    def change(table):
        table["val_foreground_dice_tuned"] = np.where(table.lr == 0.01, 0.8, 0.01)
        dice = table.loss == "dice"
        table.loc[dice & (table.lr == 0.01) & (table.seed == 1000), "val_foreground_dice_tuned"] = (
            0.9
        )
        table.loc[dice & (table.lr == 0.1), "val_foreground_dice_tuned"] = 0.1
        return table

    verdict, found = told(changed(folder, tmp_path, change))
    assert verdict["24"] == "false"
    assert "ahead at 0, behind at 0 of 1 rates" in found["24"].because


@pytest.mark.parametrize(
    ("dice", "expected"),
    [((0.9,) * 4, "true"), ((0.7,) * 4, "false"), ((0.9, 0.7, 0.8, 0.8), "false")],
)
def test_dice_is_fast_where_it_is_ahead_at_equal_rates_and_never_behind(
    folder, tmp_path, dice, expected
):
    scores = {(loss, o): s for loss, s in (("dice", dice), ("ce", FLAT)) for o in ("adamw", "sgd")}
    verdict, found = told(with_scores(folder, tmp_path, scores))
    assert verdict["24"] == expected
    assert "2 tuning seeds a rate and no intervals" in found["24"].condition


def test_the_claims_of_such_a_study_are_written_for_the_ledger(folder, tmp_path):
    path = verdicts.write(changed(folder, tmp_path, lambda table: table).folder)
    content = json.loads(path.read_text(encoding="utf-8"))
    assert set(content["verdicts"]) == {"4", "24"}
    (claim,) = (claim for claim in ledger.load()[1] if claim.id == "24")
    target = tmp_path / "results" / "optimizers"
    target.mkdir(parents=True)
    (target / "verdicts.json").write_bytes(path.read_bytes())
    (line,) = ledger.further(claim, tmp_path / "results")
    assert line.startswith("The study `optimizers` says: **")
