"""The first stage of a study: which optimiser and learning rate each loss is reported with.

Tuning runs train on the training split and are judged on the validation split alone. For every data set × model ×
loss that pair of optimiser and rate is chosen whose runs have the largest median foreground Dice at the threshold
tuned on the same split, over the tuning seeds, among the pairs of which no run collapsed. So no loss is marked down for
the threshold that its scores need, and no rate wins that ends one training in four.
"""

from __future__ import annotations

import json
import math
import os
import statistics
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

from lossatlas.experiments.config import ConfigError
from lossatlas.experiments.outcome import began
from lossatlas.experiments.record import is_complete, read_run, run_path
from lossatlas.experiments.recorded import Recorded
from lossatlas.experiments.study import Combination, Study

SCHEMA = 1
#: The rule in words, for the records.
RULE = (
    "largest median foreground Dice on the validation split at the threshold tuned there, over the tuning seeds, "
    "among the rates with the fewest runs that diverged or collapsed; of equals the lower rate"
)


@dataclass(frozen=True)
class Choice:
    """The optimiser and learning rate of one data set × model × loss.

    Attributes:
        optimizer, lr: what its reporting runs train with.
        score: median validation Dice that won.
        at_edge: the rate is the lowest or the highest of the grid, so a better one may lie outside.
    """

    optimizer: str
    lr: float
    score: float
    at_edge: bool = False


@dataclass(frozen=True)
class Tried:
    """The outcome of one tuning run: ``score`` is its validation Dice, NaN where it has none.

    ``constant`` is the validation Dice of the best constant prediction: a run that does not leave it behind has
    collapsed (:func:`lossatlas.experiments.outcome.began`).
    """

    optimizer: str
    lr: float
    seed: int
    score: float
    diverged: bool = False
    constant: float = 0.0

    @property
    def failed(self) -> bool:
        """Whether the run diverged, has no score, or collapsed."""
        return self.diverged or math.isnan(self.score) or not began(self.score, self.constant)


def choose(tried: Iterable[Tried]) -> Choice:
    """The optimiser and rate with the largest median score over the seeds, among those that fail least.

    A rate that is good when it holds and ends one training in four loses to one that holds: pairs are compared by the
    number of runs that diverged or collapsed first, then by the median of the scores, in which such a run counts 0.
    Of equals the lower rate is taken, then the optimiser named first.

    Args:
        tried: the tuning runs of one data set × model × loss; the same number of seeds for each pair.

    Raises:
        ValueError: there are none.
    """
    runs: dict[tuple[str, float], list[Tried]] = {}
    for run in tried:
        runs.setdefault((run.optimizer, run.lr), []).append(run)
    if not runs:
        raise ValueError("expected at least one tuning run, got none")
    failures = {pair: sum(run.failed for run in of_pair) for pair, of_pair in runs.items()}
    medians = {
        pair: statistics.median(0.0 if run.failed else run.score for run in of_pair)
        for pair, of_pair in runs.items()
    }
    order = {optimizer: rank for rank, (optimizer, _) in reversed(list(enumerate(runs)))}
    best = min(runs, key=lambda pair: (failures[pair], -medians[pair], pair[1], order[pair[0]]))
    rates = [lr for optimizer, lr in runs if optimizer == best[0]]
    return Choice(*best, score=medians[best], at_edge=best[1] in (min(rates), max(rates)))


@dataclass(frozen=True)
class Selection(Mapping[Combination, Choice]):
    """What the tuning chose, and for which combinations it could not."""

    choices: dict[Combination, Choice]
    missing: dict[Combination, int]

    def __getitem__(self, combination: Combination) -> Choice:
        return self.choices[combination]

    def __iter__(self) -> Any:
        return iter(self.choices)

    def __len__(self) -> int:
        return len(self.choices)


def select(
    study: Study,
    runs_dir: str | Path = "runs",
    recorded: Mapping[str, Recorded] = MappingProxyType({}),
) -> Selection:
    """Read the tuning runs of ``study`` and choose for each data set × model × loss.

    A combination that still lacks a tuning run has no choice: equal budgets for all, or none.

    Args:
        study: as read.
        runs_dir: the folder of the run folders.
        recorded: runs of committed records by run id, for those without a folder.

    Raises:
        ValueError: a record has no validation metrics, because older code made it.
    """
    tried: dict[Combination, list[Tried]] = {}
    missing: dict[Combination, int] = {}
    for member, config in study.tuning_runs():
        if is_complete(runs_dir, config):
            record = read_run(run_path(runs_dir, config))
        elif config.run_id in recorded:
            record = recorded[config.run_id].record
        else:
            missing[member.combination] = missing.get(member.combination, 0) + 1
            continue
        tried.setdefault(member.combination, []).append(
            Tried(
                config.optimizer,
                config.lr,
                config.seed,
                validation_score(record, run_path(runs_dir, config)),
                diverged=record["status"] != "completed",
                constant=record["validation"].get("constant_dice") or 0.0,
            )
        )
    choices = {
        combination: choose(tried[combination])
        for combination in study.combinations()
        if combination in tried and combination not in missing
    }
    return Selection(choices, missing)


def validation_score(record: Mapping[str, Any], folder: Path) -> float:
    """The validation Dice that chooses: foreground, at the threshold tuned on the same split."""
    try:
        score = record["validation"]["foreground_dice_tuned"]
    except KeyError:
        raise ValueError(
            f"{folder / 'run.json'}: expected validation.foreground_dice_tuned, which tuning reads, and it is not "
            "there: the run was made by older code; delete the folder and run the study again"
        ) from None
    return math.nan if score is None else float(score)


def selection_path(study: Study, runs_dir: str | Path = "runs") -> Path:
    """Where the workflow keeps what the tuning chose."""
    return Path(runs_dir) / "cells" / study.study / "selection.json"


def write_selection(study: Study, selection: Selection, runs_dir: str | Path = "runs") -> Path:
    """Write ``selection.json``: there whole, or as it was."""
    path = selection_path(study, runs_dir)
    path.parent.mkdir(parents=True, exist_ok=True)
    content = {
        "schema": SCHEMA,
        "study": study.study,
        "rule": RULE,
        "choices": [
            {
                "dataset": dataset,
                "model": model,
                "loss": loss,
                "optimizer": choice.optimizer,
                "lr": choice.lr,
                "validation_foreground_dice_tuned": choice.score,
                "at_edge": choice.at_edge,
            }
            for (dataset, model, loss), choice in selection.items()
        ],
        "missing": [
            {"dataset": dataset, "model": model, "loss": loss, "tuning_runs": count}
            for (dataset, model, loss), count in selection.missing.items()
        ],
    }
    temporary = path.with_name(f".{path.name}-{os.getpid()}")
    temporary.write_text(json.dumps(content, indent=1) + "\n")
    os.replace(temporary, path)
    return path


def read_selection(
    study: Study,
    runs_dir: str | Path = "runs",
    recorded: Mapping[str, Recorded] = MappingProxyType({}),
) -> Selection | None:
    """What the tuning chose; None where nothing is tuned.

    Where the choice is not written down here and every tuning run has its record, it is made again from those.

    Raises:
        ConfigError: the tuning has not been evaluated yet, or by another version.
    """
    if study.tuning is None:
        return None
    path = selection_path(study, runs_dir)
    if not path.is_file():
        selection = select(study, runs_dir, recorded) if recorded else None
        if selection is not None and not selection.missing:
            return selection
        raise ConfigError(
            f"study {study.study}: no learning rates chosen yet (expected {path}): "
            f"`lossatlas run {study.study}` trains the tuning runs and chooses"
        )
    content = json.loads(path.read_text())
    if content.get("schema") != SCHEMA:
        raise ConfigError(
            f"{path}: expected schema {SCHEMA}, got {content.get('schema')!r}: "
            f"`lossatlas select {study.study}` makes it anew"
        )
    choices = {
        (each["dataset"], each["model"], each["loss"]): Choice(
            each["optimizer"],
            each["lr"],
            each["validation_foreground_dice_tuned"],
            each["at_edge"],
        )
        for each in content["choices"]
    }
    missing = {
        (each["dataset"], each["model"], each["loss"]): each["tuning_runs"]
        for each in content["missing"]
    }
    return Selection(choices, missing)
