"""The first stage of a study: which optimiser and learning rate each loss is reported with.

Tuning runs train on the training split and are judged on the validation split alone. For every data set × model ×
loss that pair of optimiser and rate is chosen whose runs have the largest median foreground Dice at the threshold
tuned on the same split, over the tuning seeds, among the pairs of which no run collapsed. So no loss is marked down for
the threshold that its scores need, and no rate wins that ends one training in four.

A winner at the edge of the grid widens it: the next half-decade is tried too, and so on (``tuning.widen`` times). Where
the study tunes on some of its data sets (``tuning.datasets``), each loss has one rate for all: the one that, on
the data set where it does worst, stays closest to the best rate there.
"""

from __future__ import annotations

import json
import math
import statistics
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

from lossatlas.basics import replacing
from lossatlas.experiments.config import ConfigError, RunConfig
from lossatlas.experiments.outcome import began
from lossatlas.experiments.record import is_complete, read_run, run_path
from lossatlas.experiments.recorded import Recorded
from lossatlas.experiments.study import Combination, Member, Study, load_study

SCHEMA = 1
#: The rule in words, for the records.
RULE = (
    "largest median foreground Dice on the validation split at the threshold tuned there, over the tuning seeds, "
    "among the rates with the fewest runs that diverged or collapsed; of equals the lower rate"
)
#: What is added to it where one choice serves several data sets.
JOINTLY = "; one choice for all data sets: the smallest of the largest losses against the best rate of a tuned one"


@dataclass(frozen=True)
class Choice:
    """The optimiser and learning rate of one data set × model × loss.

    Attributes:
        optimizer, lr: what its reporting runs train with.
        score: median validation Dice that won; the mean over data sets where the choice is for several.
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
    score: float
    diverged: bool = False
    constant: float = 0.0
    dataset: str = ""

    @property
    def failed(self) -> bool:
        """Whether the run diverged, has no score, or collapsed."""
        return self.diverged or math.isnan(self.score) or not began(self.score, self.constant)


def choose(tried: Iterable[Tried]) -> Choice:
    """The optimiser and rate with the largest median score over the seeds, among those that fail least.

    A rate that is good when it holds and ends one training in four loses to one that holds: pairs are compared by the
    number of runs that diverged or collapsed first, then by their regret: how far the median of the scores, in which
    such a run counts 0, lies below the best pair's, on the data set where it lies farthest below. Of equals the lower
    rate is taken, then the optimiser named first.

    Args:
        tried: the tuning runs of one model and loss, on the data sets for which one choice is made; the same seeds
            for each pair.

    Raises:
        ValueError: there are none.
    """
    runs: dict[tuple[str, float], dict[str, list[Tried]]] = {}
    for run in tried:
        runs.setdefault((run.optimizer, run.lr), {}).setdefault(run.dataset, []).append(run)
    if not runs:
        raise ValueError("expected at least one tuning run, got none")
    failures = {
        pair: sum(run.failed for of_pair in places.values() for run in of_pair)
        for pair, places in runs.items()
    }
    medians = {
        pair: {
            place: statistics.median(0.0 if run.failed else run.score for run in of_pair)
            for place, of_pair in places.items()
        }
        for pair, places in runs.items()
    }
    top = {
        place: max(of_pair[place] for of_pair in medians.values() if place in of_pair)
        for place in {place for of_pair in medians.values() for place in of_pair}
    }
    regret = {pair: max(top[p] - m for p, m in medians[pair].items()) for pair in runs}
    order = {optimizer: rank for rank, (optimizer, _) in reversed(list(enumerate(runs)))}
    best = min(runs, key=lambda pair: (failures[pair], regret[pair], pair[1], order[pair[0]]))
    rates = [lr for optimizer, lr in runs if optimizer == best[0]]
    return Choice(
        *best,
        score=statistics.fmean(medians[best].values()),
        at_edge=best[1] in (min(rates), max(rates)),
    )


def next_rate(lr: float, *, up: bool) -> float:
    """The next of the half-decades 1, 3, 10, 30 …, above or below ``lr``.

    >>> next_rate(0.03, up=True), next_rate(0.001, up=False)
    (0.1, 0.0003)
    """
    half_decades = round(2 * math.log10(lr)) + (1 if up else -1)
    decade, half = divmod(half_decades, 2)
    return float(f"{3 if half else 1}e{decade}")


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

    def rows(self, score: str) -> list[dict[str, Any]]:
        """A row a choice, with the validation Dice that won under the name ``score``."""
        return [
            dict(zip(("dataset", "model", "loss"), combination, strict=True))
            | {"optimizer": choice.optimizer, "lr": choice.lr, score: choice.score}
            | {"at_edge": choice.at_edge}
            for combination, choice in self.choices.items()
        ]


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
    return _stage(study, runs_dir, recorded)[1]


def tuning_runs(
    study: Study,
    runs_dir: str | Path = "runs",
    recorded: Mapping[str, Recorded] = MappingProxyType({}),
) -> list[tuple[Member, RunConfig]]:
    """Every run of the tuning stage: those of the study's grid, then those that a winner at its edge asks for."""
    return _stage(study, runs_dir, recorded)[0]


def _stage(
    study: Study, runs_dir: str | Path, recorded: Mapping[str, Recorded]
) -> tuple[list[tuple[Member, RunConfig]], Selection]:
    if study.tuning is None:
        return [], Selection({}, {})
    groups: dict[tuple[str, ...], list[Member]] = {}
    for member in study.members("tuning"):
        groups.setdefault(_group(study, member.combination), []).append(member)
    choices: dict[tuple[str, ...], Choice] = {}
    missing: dict[tuple[str, ...], int] = {}
    base: list[tuple[Member, RunConfig]] = []
    wider: list[tuple[Member, RunConfig]] = []
    for group, of_grid in groups.items():
        members, tried, rounds = of_grid, [], 0
        while True:
            runs = study.runs(members)
            (wider if rounds else base).extend(runs)
            found = [_tried(*run, runs_dir, recorded) for run in runs]
            tried += [run for run in found if run is not None]
            if None in found:
                missing[group] = found.count(None)
                break
            choices[group] = choose(tried)
            if not choices[group].at_edge or rounds == study.tuning.widen:
                break
            rounds += 1
            rates = {run.lr for run in tried}
            up = choices[group].lr == max(rates)
            lr = next_rate(choices[group].lr, up=up)
            first = of_grid[0].lr
            members = [replace(member, lr=lr) for member in of_grid if member.lr == first]
    of = {combination: _group(study, combination) for combination in study.combinations()}
    selection = Selection(
        {c: choices[g] for c, g in of.items() if g in choices and g not in missing},
        {c: missing[g] for c, g in of.items() if g in missing},
    )
    return base + wider, selection


def _group(study: Study, combination: Combination) -> tuple[str, ...]:
    """What one choice is made for: a data set × model × loss, or a model × loss on all data sets."""
    assert study.tuning is not None
    return combination if study.tuning.datasets is None else combination[1:]


def _tried(
    member: Member,
    config: RunConfig,
    runs_dir: str | Path,
    recorded: Mapping[str, Recorded],
) -> Tried | None:
    """How a tuning run ended; None where it is not there."""
    if is_complete(runs_dir, config):
        record = read_run(run_path(runs_dir, config))
    elif config.run_id in recorded:
        record = recorded[config.run_id].record
    else:
        return None
    return Tried(
        config.optimizer,
        config.lr,
        validation_score(record, run_path(runs_dir, config)),
        diverged=record["status"] != "completed",
        constant=record["validation"].get("constant_dice") or 0.0,
        dataset=member.dataset,
    )


def rule_in_words(study: Study) -> str:
    """How the study chooses, in words."""
    jointly = study.tuning is not None and study.tuning.datasets is not None
    return RULE + (JOINTLY if jointly else "")


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
        "rule": rule_in_words(study),
        "choices": selection.rows("validation_foreground_dice_tuned"),
        "missing": [
            {"dataset": dataset, "model": model, "loss": loss, "tuning_runs": count}
            for (dataset, model, loss), count in selection.missing.items()
        ],
    }
    with replacing(path) as temporary:
        temporary.write_text(json.dumps(content, indent=1) + "\n")
    return path


def read_selection(
    study: Study,
    runs_dir: str | Path = "runs",
    recorded: Mapping[str, Recorded] = MappingProxyType({}),
) -> Selection | None:
    """What the tuning chose; None where nothing is tuned.

    Where the choice is not written down here, whole or for a loss, it is made again from the records, for each loss
    whose tuning runs all have one. A study that takes the rates of another (``rates_of``) has that one's choice for
    each model and loss.

    Raises:
        ConfigError: the tuning has not been evaluated yet, or by another version.
    """
    if study.rates_of is not None:
        other = load_study(study.rates_of)
        chosen = read_selection(other, runs_dir, recorded)
        if chosen is None or other.tuning is None or other.tuning.datasets is None:
            raise ConfigError(
                f"study {study.study}: rates_of: expected a study that tunes one rate for all its data sets (key "
                f"tuning.datasets), got {study.rates_of!r}"
            )
        found = {combination[1:]: choice for combination, choice in chosen.items()}
        # one network there: what it was tuned with serves every network here
        alone = other.models[0].label if len(other.models) == 1 else ""
        labels = {loss.label: loss.tuned_as or loss.label for loss in study.losses}
        rates = {
            (dataset, model, loss): found.get(
                (model, labels[loss]), found.get((alone, labels[loss]))
            )
            for dataset, model, loss in study.combinations()
        }
        return Selection({key: choice for key, choice in rates.items() if choice}, {})
    if study.tuning is None:
        return None
    path = selection_path(study, runs_dir)
    if not path.is_file():
        if recorded and (selection := select(study, runs_dir, recorded)):
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
    # another machine may have tuned the rest
    if recorded and not choices.keys() >= set(study.combinations()):
        of_records = select(study, runs_dir, recorded)
        choices = {**of_records, **choices}
        missing = {key: count for key, count in of_records.missing.items() if key not in choices}
    return Selection(choices, missing)
