"""The decision table: its numbers are those of the records, and its rows hold when they say."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import yaml

from lossatlas.advise import evidence, table

RESULTS = Path(__file__).parents[2] / "results"
DERIVATIONS = Path(__file__).parents[2] / "notebooks" / "derivations"


def test_the_committed_table_is_the_one_that_the_records_give():
    committed = table.FILE.read_text(encoding="utf-8")
    fresh = evidence.written(evidence.refresh(yaml.safe_load(committed), RESULTS))
    assert fresh == committed, "run `lossatlas decisions` and commit the file"


def test_facts_of_a_set_that_is_not_at_hand_stay(monkeypatch):
    committed = table.load_table()
    monkeypatch.setattr("lossatlas.data.is_available", lambda name: name == "digits")
    fresh = evidence.refresh(committed, RESULTS)
    assert fresh["studied"] == committed["studied"]
    assert {data["study"] for data in fresh["studied"]} == {
        "begin",
        "thresholds",
        "thresholds_kolektor",
    }


def test_a_row_rests_on_records_a_derivation_or_says_that_nothing_was_studied():
    for row in table.load_table()["rows"]:
        assert row["decision"] in table.DECISIONS
        if row["status"] == "studied":
            assert row["evidence"]
            assert all({"effect", "interval", "n", "study"} <= set(e) for e in row["evidence"])
        elif row["status"] == "derived":
            assert (DERIVATIONS / f"{row['derivation']}.ipynb").is_file(), row
        else:
            assert row["status"] == "no study yet"
            assert "evidence" not in row


def test_no_sentence_of_the_table_holds_a_number_that_no_record_made():
    for row in table.load_table()["rows"]:
        digits = [
            c for c in row["do"].replace("smooth = 0", "").replace("16 channels", "") if c.isdigit()
        ]
        # a threshold's range and the factor p(1 − p) are formulas
        assert not digits or "p(1" in row["do"] or "0 or 1" in row["do"], row["do"]


def test_a_dice_difference_has_the_sign_and_the_size_that_the_runs_show():
    import pandas as pd

    runs = pd.read_parquet(RESULTS / "begin" / "runs.parquet")
    here = runs[(runs.dataset == "pi3") & (runs.model == "none4_prior")]
    wide = here.pivot(index="seed", columns="loss", values="foreground_dice_tuned")
    items = [e for row in table.load_table()["rows"] for e in row.get("evidence", [])]
    (item,) = [
        e
        for e in items
        if (e["first"].get("rule"), e["first"]["loss"], e["first"]["model"]) == ("tuned", "dice", "none4_prior")
        and e["first"]["dataset"] == "pi3"
        and e["second"]["loss"] == "ce"
    ]  # fmt: skip
    paired = (wide.dice - wide.ce).dropna()
    assert item["n"] == len(paired)
    assert item["effect"] == pytest.approx(paired.mean(), abs=1e-3)
    assert item["interval"][0] < item["effect"] < item["interval"][1]


def test_a_measure_of_a_cross_validated_set_is_the_mean_over_its_folds():
    import pandas as pd

    runs = pd.read_parquet(RESULTS / "thresholds_kolektor" / "runs.parquet")
    wide = runs.pivot_table(index="seed", columns="loss", values="ece_foreground", aggfunc="mean")
    assert runs.dataset.nunique() == 5
    (item,) = [
        e
        for row in table.load_table()["rows"]
        for e in row.get("evidence", [])
        if e["measure"] == "ece_foreground" and e["first"]["dataset"] == "defects"
    ]
    assert item["n"] == len(wide) == 8
    assert item["effect"] == pytest.approx((wide.dice - wide.ce).mean(), abs=1e-4)


def row_like(data, **changes):
    return {"name": "thing", "tiny_share": 0.0, "thinness": 2.0, **data["facts"], **changes}


def test_a_studied_set_is_its_own_nearest():
    known = table.load_table()
    for data in known["studied"]:
        found = table.nearest(row_like(data), known)
        assert found.data["id"] == data["id"] and found.factor == 1 and found.near


def test_data_far_from_every_study_are_said_to_be_like_nothing():
    known = table.load_table()
    data = known["studied"][0]
    thinnest = max(known["studied"], key=lambda each: each["facts"]["thinness"])
    thin = table.nearest(row_like(thinnest, thinness=10 * thinnest["facts"]["thinness"]), known)
    assert not thin.near and thin.feature == "thinness" and thin.factor == pytest.approx(10)
    assert "nothing studied here is like your data" in str(thin)
    unknown = table.nearest(row_like(data, thinness=None), known)
    assert math.isinf(unknown.factor) and not unknown.near


def test_only_data_near_a_study_get_its_rows():
    known = table.load_table()
    facts = {"foreground": [{}], "empty_share": 0.0}
    data = known["studied"][0]
    near, far = row_like(data), row_like(data, fraction=0.9)
    for row, studied in ((near, True), (far, False)):
        here = table.situation(facts, row, "mask", table.nearest(row, known))
        rows = table.matching(known, here)
        assert any(r["status"] == "studied" for r in rows["loss"]) is studied
        assert all(rows[decision] for decision in table.DECISIONS)


def test_every_situation_gets_a_row_for_every_decision():
    known = table.load_table()
    facts = {"foreground": [{}, {}], "empty_share": 0.5, "annotators": [{"dice": {"thing": 0.5}}]}
    for data in known["studied"]:
        for need in table.NEEDS:
            for fraction in (data["facts"]["fraction"], 0.9):
                row = row_like(data, fraction=fraction, thinness=20.0, tiny_share=1.0)
                here = table.situation(facts, row, need, table.nearest(row, known))
                assert here["noisy"] and here["thin"] and here["tiny"] and here["multiclass"]
                rows = table.matching(known, here)
                missing = [d for d in table.DECISIONS if not rows[d] and d != "threshold"]
                assert not missing
