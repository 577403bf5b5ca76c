"""The front page: its numbers come from the records, and its sentences stop the build when they are false."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from lossatlas.report import front
from lossatlas.report.records import Records, load

ROOT = Path(__file__).resolve().parents[2]
RECORDS = ROOT / "results" / "begin"
PAGES = ("intro", "es", "fr", "zh", "decision_guide")


@pytest.fixture(scope="module")
def study() -> Records:
    return load(RECORDS)


@pytest.fixture(scope="module")
def numbers() -> dict[str, Any]:
    return front.numbers(RECORDS)


def test_the_counts_are_those_of_the_runs(numbers: dict[str, Any]) -> None:
    runs = pd.read_parquet(RECORDS / "runs.parquet")
    runs = runs[(runs.dataset == "pi3") & (runs.model == "relu4_zero") & (runs.loss == "ce")]
    found = numbers["gated"]["ce"]
    assert found["trainings"] == str(len(runs))
    assert found["nothing_at_half"] == str(sum(runs.foreground_dice == 0))


def test_the_difference_between_the_losses_is_the_mean_over_the_seeds(
    numbers: dict[str, Any],
) -> None:
    runs = pd.read_parquet(RECORDS / "runs.parquet")
    answering = runs[(runs.dataset == "pi3") & (runs.model == "none4_prior")]
    means = answering.groupby("loss").foreground_dice_tuned.mean()
    shown = numbers["open"]["gap_tuned"].replace("\N{MINUS SIGN}", "-")
    assert float(shown) == pytest.approx(means["dice"] - means["ce"], abs=6e-4)


def test_records_that_contradict_a_sentence_of_the_page_stop_the_build(study: Records) -> None:
    lost = (study.runs.model == "none4_prior") & (study.runs.loss == "ce")
    runs = study.runs.assign(foreground_dice=study.runs.foreground_dice.mask(lost, 0.0))
    with pytest.raises(front.FrontError, match="every training begins"):
        front._require(dataclasses.replace(study, runs=runs))


def test_ten_classes_without_dice_ahead_stop_the_build(monkeypatch: pytest.MonkeyPatch) -> None:
    quick = ROOT / "results" / "quick"
    found = front.ten_classes(quick)
    assert set(found) == {"unet", "segnet"} and found["segnet"].startswith("+")
    study = load(quick, "quick")
    for turned in ({"dice": "ce", "ce": "dice"}, {"dice": "ce"}):  # behind, and level
        parts = [
            dataclasses.replace(
                part,
                by_rule={
                    rule: counts | {loss: counts[other] for loss, other in turned.items()}
                    for rule, counts in part.by_rule.items()
                },
            )
            for part in study.parts
        ]
        changed = dataclasses.replace(study, parts=parts)
        monkeypatch.setattr(front, "load", lambda *_, changed=changed: changed)
        with pytest.raises(front.FrontError, match="ahead with ten classes"):
            front.ten_classes(quick)


@pytest.mark.parametrize(
    ("head", "value", "sentence"),
    [
        ("open", False, "no activation every training of four losses begins"),
        ("relu16", True, "half of the overlap losses' trainings do not begin"),
    ],
)
def test_records_at_the_rare_place_can_stop_the_build(
    head: str, value: bool, sentence: str, study: Records
) -> None:
    one = (study.runs.model == front.RARE_HEADS[head]) & (study.runs.loss == "dice")
    changed = (study.runs.dataset == front.RARE) & one
    runs = study.runs.assign(began=study.runs.began.astype(bool).mask(changed, value))
    with pytest.raises(front.FrontError, match=sentence):
        front._require(dataclasses.replace(study, runs=runs))


def test_what_begins_at_the_rare_place_is_counted_behind_each_last_layer_alone(
    numbers: dict[str, Any], study: Records
) -> None:
    runs = study.runs
    here = runs[(runs.dataset == front.RARE) & (runs.model == "relu16_prior")]
    began = here[here.loss.isin(["dice", "tversky"])].began.astype(bool)
    found = numbers["rare_with_prior"]
    assert found["relu16"] == {"began": str(began.sum()), "trainings": str(len(began))}
    assert found["open"] == {"began": "32", "trainings": "32"}
    lovasz = runs[(runs.dataset == front.RARE) & (runs.loss == "lovasz_softmax")].began
    counted = {"began": str(int(lovasz.sum())), "trainings": str(len(lovasz))}
    assert numbers["rare_lovasz"] == counted


def test_a_settled_difference_at_the_rare_place_stops_the_build(
    monkeypatch: pytest.MonkeyPatch, study: Records
) -> None:
    moved = dataclasses.replace(front._rare(study), estimate=-1.0)
    monkeypatch.setattr(front, "_rare", lambda _: moved)
    with pytest.raises(front.FrontError, match="do not settle"):
        front._require(study)


def test_the_figure_draws_a_line_for_each_seed_of_each_head() -> None:
    table = front.seeds_table(RECORDS)
    for language in front.WORDS:
        drawn = front.figure(table, language)
        lines = [len(axis.lines) for axis in drawn.axes]
        assert lines == list(table.groupby("head", sort=False).size())


@pytest.mark.parametrize("name", PAGES)
def test_no_result_is_typed_by_hand(name: str) -> None:
    text = (ROOT / "book" / f"{name}.md").read_text(encoding="utf-8")
    typed = re.findall(r"\d[.,]\d{2,}", re.sub(r"\{\{.*?\}\}", "", text))
    # 0.01 is the smallest effect of the study's file; 0.02 is the example of an exercise
    assert [value for value in typed if value.replace(",", ".") not in ("0.01", "0.02")] == []
    assert "{{" in text


def test_the_table_of_results_has_a_row_for_each_cell_metric_and_rule() -> None:
    runs = pd.read_parquet(RECORDS / "runs.parquet")
    table = front.results_table([RECORDS, RECORDS.parent / "thresholds", RECORDS.parent / "absent"])
    begin, real = table[table.study == "begin"], table[table.study == "thresholds"]
    assert len(begin) == 7 * len(runs.groupby(["dataset", "model", "loss"]))
    row = begin[
        (begin.network == "U-Net, ReLU, 4 channels, bias 0")
        & (begin.loss == "ce")
        & (begin.data == "digits, 3 %")
        & (begin.metric == "Dice")
        & (begin.threshold == "½")
    ].iloc[0]
    cell = runs[(runs.dataset == "pi3") & (runs.model == "relu4_zero") & (runs.loss == "ce")]
    assert row["median"] == f"{cell.foreground_dice.median():.3f}"
    assert (row["runs"], row["began"]) == (len(cell), cell.began.sum())
    assert not table.isin(["nan"]).any(axis=None)
    assert {"cracks", "pedestrians"} <= set(real.data) and set(real.network) == {"unet"}
