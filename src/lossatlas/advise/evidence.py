"""The numbers of the decision table, from the studies' records.

``lossatlas decisions`` writes them into ``decisions.yaml``; a test holds the file to the records.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import yaml
from scipy import stats

from lossatlas.advise.facts import measure, rarest
from lossatlas.advise.table import FILE

_HEADER = """\
# The decision table that `lossatlas advise` reads.
#
# Rows: `when` the reader's data are so, `do` this. `status` says on what that rests: `studied` (differences of records,
# first minus second, with the 95 % interval over n paired seeds), `derived` (a chapter of the book derives it), or
# `no study yet`. `lossatlas decisions` writes the facts and the numbers from the records; write the rest by hand.
"""
_DIGITS = 4


def refresh(table: Mapping[str, Any], results: str | Path = "results") -> dict[str, Any]:
    """The table with the facts of its studied data sets and every number of its evidence made again.

    The facts of a data set whose files are not at hand stay as they are.

    Raises:
        RecordsError: a study's records are not there.
        ValueError: an arm of the evidence has too few runs.
    """
    fresh = copy.deepcopy(dict(table))
    for data in fresh["studied"]:
        data["facts"] = _facts_of(results, data["study"], data["dataset"]) or data["facts"]
    study_of = {data["dataset"]: data["study"] for data in fresh["studied"]}
    for row in fresh["rows"]:
        for item in row.get("evidence", []):
            first = item["first"]  # an arm may name a study beside that of its data set
            folder = Path(results) / (first.get("study") or study_of[first["dataset"]])
            item |= {"study": folder.name} | _numbers(folder, item)
    return fresh


def written(table: Mapping[str, Any]) -> str:
    """The text of ``decisions.yaml`` for a table."""
    text = yaml.safe_dump(
        dict(table), sort_keys=False, allow_unicode=True, width=110, default_flow_style=None
    )
    return _HEADER + text


def rewrite(file: Path = FILE, results: str | Path = "results") -> Path:
    """Write the table with fresh numbers; the file."""
    table = yaml.safe_load(file.read_text(encoding="utf-8"))
    file.write_text(written(refresh(table, results)), encoding="utf-8")
    return file


def _facts_of(results: str | Path, study: str, dataset: str) -> dict[str, float]:
    """The features of a studied data set, from its training masks; none where its files are not at hand.

    Of a cross-validated set they are those of its first fold.
    """
    from lossatlas.claims.quantities import unfolded
    from lossatlas.data import is_available, load_labels
    from lossatlas.experiments.study import load_study

    asked = load_study(study)
    named = {d.label: d.name for d in asked.datasets}
    if asked.pool is not None:
        dataset = next(label for label in named if unfolded(label) == dataset)
    source = named[dataset]
    if not is_available(source):
        return {}
    described = json.loads((Path(results) / study / "study.json").read_text(encoding="utf-8"))
    params = described["dataset_params"][dataset]
    masks = load_labels(source, "train", **params)
    row = rarest(measure(masks.labels, masks.classes, masks.ignore_index, count=len(masks)))
    return {
        name: float(f"{row[name]:.{_DIGITS}g}") for name in ("fraction", "area_share", "thinness")
    }


@cache
def _parts(folder: Path) -> dict[tuple[str, str], Any]:
    from lossatlas.claims.quantities import places
    from lossatlas.report.records import load

    return {(part.dataset, part.model): part for part in places(load(folder))}


def _numbers(folder: Path, item: Mapping[str, Any]) -> dict[str, Any]:
    """``effect``, ``interval`` and ``n`` of one piece of evidence."""
    first, second = item["first"], item.get("second")
    if second is None:
        return _share(folder, first, item["measure"])
    arms = {"first": first, "second": second}
    parts = {name: _parts(folder)[arm["dataset"], arm["model"]] for name, arm in arms.items()}
    seeds = {name: parts[name].seeds[arm["loss"]] for name, arm in arms.items()}
    shared = [seed for seed in seeds["first"] if seed in seeds["second"]]
    if len(shared) < 2:
        raise ValueError(f"{folder}: expected two seeds of {first} and {second}, got {len(shared)}")
    if item["measure"] == "foreground_dice":
        low, mid, high = _dice(arms, parts, shared)
    else:
        values = {
            name: _of_seeds(parts[name], arm["loss"], item["measure"]).loc[shared].tolist()
            for name, arm in arms.items()
        }
        test = stats.ttest_rel(values["first"], values["second"])
        bounds = test.confidence_interval(0.95)
        pairs = zip(values["first"], values["second"], strict=True)
        low, mid, high = bounds.low, sum(a - b for a, b in pairs) / len(shared), bounds.high
    return _rounded(mid, low, high, len(shared))


def _of_seeds(part: Any, loss: str, measure: str) -> Any:
    """A measure of each seed; over folds their mean."""
    return part.runs[part.runs.loss == loss].groupby("seed")[measure].mean()


def _dice(
    arms: Mapping[str, Mapping[str, Any]], parts: Mapping[str, Any], seeds: list[int]
) -> tuple[float, float, float]:
    """Difference in Dice with its interval, by the method of the book's pages."""
    from lossatlas.statistics.paired import paired_differences

    scores = {}
    for name, arm in arms.items():
        part = parts[name]
        counts = (part.by_rule | {"argmax": part.counts})[arm["rule"]][arm["loss"]]
        scores[name] = counts[[part.seeds[arm["loss"]].index(seed) for seed in seeds]]
    part = parts["first"]
    (found,) = paired_differences(
        scores, groups=part.groups, metric="foreground_dice", foreground=part.foreground
    )
    return found.low, found.estimate, found.high


def _share(folder: Path, arm: Mapping[str, Any], measure: str) -> dict[str, Any]:
    """Share of the trainings that began, with its exact interval."""
    runs = _parts(folder)[arm["dataset"], arm["model"]].runs
    began = runs[runs.loss == arm["loss"]][measure].astype(bool)
    exact = stats.binomtest(int(began.sum()), len(began)).proportion_ci(method="exact")
    return _rounded(float(began.mean()), exact.low, exact.high, len(began))


def _rounded(effect: float, low: float, high: float, n: int) -> dict[str, Any]:
    return {
        "effect": round(float(effect), _DIGITS),
        "interval": [round(float(low), _DIGITS), round(float(high), _DIGITS)],
        "n": n,
    }
