"""A study: data sets × models × losses × seeds under one budget, read from ``studies/NAME/study.yaml``."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import yaml
from pydantic import BeforeValidator, Field, GetJsonSchemaHandler, field_validator, model_validator

from lossatlas.basics import near_matches
from lossatlas.experiments.config import (
    ConfigError,
    Optimizer,
    RunConfig,
    Seed,
    Seeds,
    Training,
    _Strict,
    validated,
)
from lossatlas.yaml12 import parse_yaml

if TYPE_CHECKING:
    from lossatlas.experiments.tuning import Choice

#: A folder a study: its ``study.yaml``, and its ``page.ipynb`` where the page that all studies share is not enough.
STUDIES = Path("studies")
STUDY_FILE = "study.yaml"
PAGE_FILE = "page.ipynb"
#: Made from the models below by ``lossatlas schema``; an editor checks a study's file with it.
SCHEMA_FILE = STUDIES / "schema.json"

Stage = Literal["tuning", "report"]
#: A data set, a model and a loss, by their labels.
Combination = tuple[str, str, str]


class Component(_Strict):
    """A data set, model or loss of a study: its registry name, parameters, and the label tables show.

    Attributes:
        name: in the registry of data sets, models or losses.
        params: what the registry's builder reads.
        training: keys of the study's ``training`` that differ for this component, such as ``{bias_init: prior}``.
        factors: what the component stands for in the study's design, such as ``{head: relu, bias: prior}``; each
            becomes a column of the records.
        tuned_as: of a loss whose study takes the rates of another (``rates_of``): the label there whose rate it trains
            with, where it is not its own.
        label: its name in tables and files.
    """

    name: str
    params: dict[str, Any] = Field(default_factory=dict)
    training: dict[str, Any] = Field(default_factory=dict)
    factors: dict[str, str | int | float | bool] = Field(default_factory=dict)
    tuned_as: str | None = None
    # part of file names, and joined by hyphens to the name of a job
    label: str = Field(pattern=r"^[A-Za-z0-9_.]+$")

    @model_validator(mode="before")
    @classmethod
    def _from_name(cls, value: Any) -> Any:
        """A bare name is short for a component without parameters; the label is the name unless given."""
        if isinstance(value, str):
            value = {"name": value}
        if isinstance(value, dict) and "name" in value:
            value = {"label": value["name"], **value}
        return value

    @field_validator("training")
    @classmethod
    def _of_the_budget(cls, training: dict[str, Any]) -> dict[str, Any]:
        """Another key of a run, such as its data set, would be trained with under the label of this component."""
        for key in training:
            if key not in Training.model_fields:
                raise ValueError(
                    f"keys of training, such as lr, steps or bias_init (got {key!r}): "
                    f"{near_matches(key, Training.model_fields)}"
                )
        return training

    @classmethod
    def __get_pydantic_json_schema__(
        cls, core_schema: Any, handler: GetJsonSchemaHandler
    ) -> dict[str, Any]:
        """The schema of what a file may hold, so with the bare name and without the need of a label."""
        full = handler.resolve_ref_schema(handler(core_schema))
        return {"anyOf": [{"type": "string"}, full | {"required": ["name"]}]}


def _distinct(components: Any) -> Any:
    if not isinstance(components, list):
        return components  # pydantic says what it expected
    labels = [c.get("label", c.get("name")) if isinstance(c, dict) else c for c in components]
    for label in labels:
        if labels.count(label) > 1:
            raise ValueError(
                f"distinct labels ({label!r} stands there twice: give one a label of its own)"
            )
    return components


Components = Annotated[list[Component], Field(min_length=1), BeforeValidator(_distinct)]


class Tuning(_Strict):
    """The first stage of a study: which optimiser and learning rate each loss is reported with.

    Every data set × model × loss trains with every optimiser × rate × tuning seed, and the validation split
    chooses (:mod:`lossatlas.experiments.tuning`). All losses get the same grid and the same budget.

    Attributes:
        lr: learning rates to try, at least two; half-decade steps such as 0.001, 0.003, 0.01, 0.03.
        optimizer: optimisers to try each rate with.
        seeds: seeds of this stage alone: what chooses a rate reports nothing.
        steps: optimiser steps of a tuning run; absent: those of ``training``.
        datasets: labels of the data sets on which rates are tried; each loss then has one rate for all data sets.
            Absent: on every data set, each with a rate of its own.
        widen: how often a winner at the edge of the grid may widen it by half a decade.
    """

    lr: list[Annotated[float, Field(gt=0, allow_inf_nan=False)]] = Field(min_length=2)
    optimizer: list[Optimizer] = Field(default=["adamw"], min_length=1)
    seeds: list[Seed] = Field(default=[1000, 1001, 1002, 1003], min_length=1)
    steps: int | None = Field(default=None, ge=1)
    datasets: list[str] | None = Field(default=None, min_length=1)
    widen: int = Field(default=2, ge=0)

    @field_validator("lr", "optimizer", "seeds", "datasets")
    @classmethod
    def _each_once(cls, values: list[Any] | None) -> list[Any] | None:
        if values is not None and len(set(values)) != len(values):
            raise ValueError("each value once")
        return values


#: The threshold ½, that of validation, theory's, each image's own by the plug-in rule, the best on the test split.
Rule = Literal["half", "tuned", "theory", "plug-in", "oracle"]
_NUMBER = r"[-+]?[0-9.]+([eE][-+]?[0-9]+)?"


class Check(_Strict):
    """How the records decide a prediction: a quantity, a condition, and the places where it must be met.

    Attributes:
        quantity: of ``lossatlas.claims.QUANTITIES``, such as ``dice`` or ``share that began``.
        losses: labels; of two losses the first less the second, paired by seed.
        rule: the decision rule, or one for each of the two losses; one loss named twice is compared by two rules.
        where: by factor its level, a list of levels, or a condition such as ``"< 0.02"``; absent: every place.
        against: the levels of another place, whose quantity is taken off: a difference between places.
        over: what is a sample: seeds and test images, or the seeds alone, with the test images that there are.
        also: studies whose places count too, such as the folds of a task that is cross-validated.
        at_least: so many places must meet the condition, each by its own test; absent: all must, after Holm's
            correction.
        is: ``"> 0"``, ``"< 0.1"``, ``"within 0.01"`` for equality, or ``"in [0.04, 0.096]"``.
    """

    quantity: str = Field(min_length=1)
    losses: list[str] = Field(min_length=1)
    rule: Rule | Annotated[list[Rule], Field(min_length=2, max_length=2)] = "half"
    where: dict[str, Any] = Field(default_factory=dict)
    against: dict[str, Any] | None = None
    over: Literal["seeds and images", "seeds"] = "seeds and images"
    also: list[str] = Field(default_factory=list)
    at_least: int | None = Field(default=None, ge=1)
    condition: str = Field(
        alias="is", pattern=rf"^((>|<|within)\s*{_NUMBER}|in \[{_NUMBER}, {_NUMBER}\])$"
    )


class Prediction(_Strict):
    """What is expected of a study, written down before it runs.

    Attributes:
        claim: the entry of the claims ledger that it speaks of: its number, or H1 to H5 for a headline finding.
        text: the prediction, in a sentence that the records can contradict.
        holds: the checks that decide it; it holds where all of them do.
        bearing: what it means for the claim where it holds: it speaks for the claim, against it, or stands beside
            it and decides nothing.
    """

    claim: str = Field(pattern=r"^H?[1-9][0-9]*$")
    text: str = Field(min_length=1)
    holds: list[Check] = Field(default_factory=list)
    bearing: Literal["for", "against", "beside"] = "for"

    @field_validator("claim", mode="before", json_schema_input_type=int | str)
    @classmethod
    def _from_number(cls, value: Any) -> Any:
        return str(value) if type(value) is int else value


class Study(_Strict):
    """One question, and every run that answers it.

    Attributes:
        study: the study's name, that of its folder.
        question: what it answers, as a question.
        title: the heading of its page; absent: the page's own heading, with the study's name.
        datasets, models, losses: names of the registries, or mappings of name, params and label.
        seeds: of the runs that are reported; equal seeds are paired across losses.
        training: the budget, the same for every run.
        tuning: the stage that chooses each loss's learning rate; absent: ``training.lr`` for all.
        rates_of: a study that tunes one rate a loss for all its data sets; this one trains with the same rates. A
            network that is not there takes the rates of the one that is; a component's own ``training.lr`` stays.
        pool: a factor of the data sets, such as the fold of a cross-validation: those that differ in it alone are
            judged as one place, in which a seed's networks together predict every test image once.
        left_out: by data set test images that no result counts, with the reason in a comment. They are in the records.
        predictions: what is expected, written down before the study runs.
        smallest_effect: the smallest difference of interest, in units of Dice (0.01 is one point).
        runs_per_job: runs that one process trains, one after the other: a small run takes less time than the start
            of a process.
        published: its records are committed, and the book has its page.
        keep_images: the records hold the test images on which the losses disagree most; false where the images are
            downloaded and may not be passed on.
        keep_pixels: the records hold the logits of the pixels that a run samples, where it measures ``pixels``; false
            where no prediction and no page reads them. The run's own folder has them in any case.
        keep_each_image: the records hold the counts of every test image; false where they hold one sum for the images
            of a group (a video, a patient), which every table then takes for an image. For many classes and images,
            and intervals over seeds alone. No other study takes its runs from such records.
    """

    study: str = Field(pattern=r"^[a-z][a-z0-9_]*$")
    question: str
    title: str | None = Field(default=None, min_length=1, pattern=r"^[^\n]*$")
    datasets: Components
    models: Components
    losses: Components
    seeds: Seeds
    training: Training = Field(default_factory=Training)
    tuning: Tuning | None = None
    rates_of: str | None = Field(default=None, pattern=r"^[a-z][a-z0-9_]*$")
    pool: str | None = None
    left_out: dict[str, list[str]] = Field(default_factory=dict)
    predictions: list[Prediction] = Field(default_factory=list)
    smallest_effect: float | None = Field(default=None, gt=0, lt=1)
    runs_per_job: int = Field(default=8, ge=1)
    published: bool = False
    keep_images: bool = True
    keep_pixels: bool = True
    keep_each_image: bool = True

    @model_validator(mode="after")
    def _no_run_twice(self) -> Study:
        """Two labels for one configuration would be one run, and the records could not tell which it is."""
        for what in ("datasets", "models", "losses"):
            for first, second in itertools.combinations(getattr(self, what), 2):
                if all(
                    getattr(first, key) == getattr(second, key)
                    for key in ("name", "params", "training")
                ):
                    raise ValueError(
                        f"{what}: {first.label!r} and {second.label!r} to differ in name or parameters"
                    )
        return self

    @model_validator(mode="after")
    def _factors_agree(self) -> Study:
        """A factor is a column: every component of its kind has it, and no other kind does."""
        seen: dict[str, str] = {}
        for what in ("datasets", "models", "losses"):
            components = getattr(self, what)
            names = sorted({name for component in components for name in component.factors})
            for name in names:
                without = [c.label for c in components if name not in c.factors]
                if without or name in seen:
                    where = f"of {seen[name]} alone" if name in seen else f"for {without[0]!r} too"
                    raise ValueError(f"{what}: factor {name!r} {where}")
                seen[name] = what
        return self

    @model_validator(mode="after")
    def _tuned_as_has_a_study(self) -> Study:
        others = [c.label for c in (*self.datasets, *self.models) if c.tuned_as]
        if others or (self.rates_of is None and any(loss.tuned_as for loss in self.losses)):
            raise ValueError("tuned_as for losses of a study with rates_of alone")
        return self

    @model_validator(mode="after")
    def _pool_is_a_factor(self) -> Study:
        if self.pool is not None and any(self.pool not in d.factors for d in self.datasets):
            raise ValueError(f"pool to be a factor of every data set (got {self.pool!r})")
        return self

    @model_validator(mode="after")
    def _left_out_of_its_data_sets(self) -> Study:
        _require_labels("left_out: data sets of the study", self.datasets, self.left_out)
        return self

    @model_validator(mode="after")
    def _images_are_kept_where_they_are_read(self) -> Study:
        per_image = any(check.quantity == "dice per image" for check in self._checks())
        if not self.keep_each_image and (self.left_out or per_image):
            what = "left_out" if self.left_out else "a prediction of 'dice per image'"
            raise ValueError(
                f"keep_each_image: to be true, for {what} needs the counts of single images"
            )
        return self

    @model_validator(mode="after")
    def _checks_name_losses(self) -> Study:
        named = [loss for check in self._checks() for loss in check.losses]
        _require_labels("predictions: labels of losses in a check", self.losses, named)
        return self

    @model_validator(mode="after")
    def _tuning_is_apart(self) -> Study:
        """What chooses a learning rate reports nothing; and there is one choice."""
        if self.tuning is not None:
            if self.rates_of is not None:
                raise ValueError("either tuning or rates_of: they choose the same rates")
            unknown = set(self.tuning.datasets or []) - set(labels(self.datasets))
            if unknown:
                raise ValueError(
                    f"tuning.datasets to be labels of datasets ({', '.join(labels(self.datasets))}; unknown: "
                    f"{', '.join(sorted(unknown))})"
                )
            shared = sorted(set(self.tuning.seeds) & set(self.seeds))
            if shared:
                raise ValueError(
                    f"tuning.seeds disjoint from seeds, which report (in both: {', '.join(map(str, shared))})"
                )
        return self

    @property
    def also(self) -> list[str]:
        """Other studies whose places the predictions count, each once: pages of this one read their records too."""
        return list(dict.fromkeys(name for check in self._checks() for name in check.also))

    def _checks(self) -> list[Check]:
        return [check for prediction in self.predictions for check in prediction.holds]

    # --- what is to be run

    def combinations(self) -> list[Combination]:
        """Every data set × model × loss by its labels, in the order of the file."""
        return list(
            itertools.product(labels(self.datasets), labels(self.models), labels(self.losses))
        )

    def members(self, stage: Stage) -> list[Member]:
        """The runs of a stage by their labels; configurations of the reporting stage wait for the tuning.

        Of the tuning stage those of the grid in the study's file; a winner at its edge asks for more
        (:func:`lossatlas.experiments.tuning.tuning_runs`).
        """
        if stage == "report":
            return [
                Member(stage, *combination, seed)
                for combination in self.combinations()
                for seed in self.seeds
            ]
        if self.tuning is None:
            return []
        tuned = self.tuning.datasets or labels(self.datasets)
        combinations = [each for each in self.combinations() if each[0] in tuned]
        grid = itertools.product(
            combinations, self.tuning.optimizer, self.tuning.lr, self.tuning.seeds
        )
        return [
            Member("tuning", *combination, seed, optimizer, lr)
            for combination, optimizer, lr, seed in grid
        ]

    def config(
        self, member: Member, selection: Mapping[Combination, Choice] | None = None
    ) -> RunConfig | None:
        """The configuration of one run; None if it reports and no learning rate has been chosen for it.

        Args:
            member: of ``members(stage)``.
            selection: what the tuning chose; not read where nothing is tuned.
        """
        values = self.values(member.combination) | {"seed": member.seed}
        own_rate = any("lr" in each.training for each in self._components(member.combination))
        if member.stage == "tuning" and self.tuning is not None:
            values |= {"optimizer": member.optimizer, "lr": member.lr}
            values |= {"steps": self.tuning.steps or values["steps"]}
        elif self.tuning is not None or (self.rates_of is not None and not own_rate):
            choice = (selection or {}).get(member.combination)
            if choice is None:
                return None
            values |= {"optimizer": choice.optimizer, "lr": choice.lr}
        return validated(RunConfig, values, what="parameter")

    def runs(
        self, members: Iterable[Member], selection: Mapping[Combination, Choice] | None = None
    ) -> list[tuple[Member, RunConfig]]:
        """Runs with their configurations, without those for which no learning rate has been chosen."""
        runs = [(member, self.config(member, selection)) for member in members]
        return [(member, config) for member, config in runs if config is not None]

    def reporting_runs(
        self, selection: Mapping[Combination, Choice] | None = None
    ) -> list[tuple[Member, RunConfig]]:
        """Every run that is reported, without those for which no learning rate has been chosen."""
        return self.runs(self.members("report"), selection)

    def examples(self) -> list[RunConfig]:
        """A few runs that use every data set, model and loss at least once: enough to check them all."""
        kinds = [labels(kind) for kind in (self.datasets, self.models, self.losses)]
        in_turn = zip(*map(itertools.cycle, kinds), strict=True)
        seed = {"seed": self.seeds[0]}
        return [
            validated(RunConfig, seed | self.values((dataset, model, loss)), what="parameter")
            for dataset, model, loss in itertools.islice(in_turn, max(map(len, kinds)))
        ]

    def factors(self, combination: Combination) -> dict[str, str | int | float | bool]:
        """What a data set, model and loss stand for in the design, by the names of the records' columns."""
        found: dict[str, str | int | float | bool] = {}
        for component in self._components(combination):
            found |= component.factors
        return found

    def _components(self, combination: Combination) -> list[Component]:
        """The data set, model and loss with these labels."""
        kinds = self.datasets, self.models, self.losses
        return [
            next(each for each in kind if each.label == label)
            for kind, label in zip(kinds, combination, strict=True)
        ]

    def values(self, combination: Combination) -> dict[str, Any]:
        """The configuration of a run but for its seed, at the rate of the budget: components change the study's."""
        components = self._components(combination)
        values = self.training.model_dump()
        for kind, component in zip(("dataset", "model", "loss"), components, strict=True):
            values |= {kind: component.name, f"{kind}_params": component.params}
        for component in components:
            values |= component.training
        return values


@dataclass(frozen=True)
class Member:
    """One run of a study by its labels; a tuning run also by what it tries."""

    stage: Stage
    dataset: str
    model: str
    loss: str
    seed: int
    optimizer: str | None = None
    lr: float | None = None

    @property
    def combination(self) -> Combination:
        """The labels of its data set, model and loss."""
        return (self.dataset, self.model, self.loss)

    def __str__(self) -> str:
        tried = f" · {self.optimizer} {self.lr:g}" if self.lr is not None else ""
        return f"{self.dataset} · {self.model} · {self.loss}{tried} · seed {self.seed}"


def study_names(folder: Path = STUDIES) -> list[str]:
    """The studies that have a file."""
    return sorted(path.parent.name for path in folder.glob(f"*/{STUDY_FILE}"))


def published_studies(folder: Path = STUDIES) -> list[Study]:
    """The studies whose file says ``published: true``."""
    studies = [load_study(name, folder) for name in study_names(folder)]
    return [study for study in studies if study.published]


def page_notebook(name: str, folder: Path = STUDIES) -> Path:
    """The notebook that shows a study: ``page.ipynb`` beside its file, else the page that all studies share.

    Args:
        name: the study's name, or the path of its file.
        folder: where the studies are.
    """
    path = _file(name, folder)
    own = path.with_name(PAGE_FILE)
    return own if path.name == STUDY_FILE and own.is_file() else folder / PAGE_FILE


def _file(name: str, folder: Path) -> Path:
    return Path(name) if str(name).endswith(".yaml") else folder / name / STUDY_FILE


def _name(path: Path) -> str:
    """The name that a study's file must have inside: that of its folder, or its own where it stands alone."""
    return path.resolve().parent.name if path.name == STUDY_FILE else path.stem


def load_study(
    name: str, folder: Path = STUDIES, check: Callable[[RunConfig], None] | None = None
) -> Study:
    """Read and validate ``folder/name/study.yaml``, or the file itself where ``name`` ends in ``.yaml``.

    A key ``base`` names another study, whose keys this one takes unless it has its own; ``null`` takes a key away.

    Args:
        name: the study's name, or a path.
        folder: where the studies are.
        check: called with a few runs that use every data set, model and loss at least once, to find what only
            the components know (parameters that nothing reads); it may raise ``ConfigError``.

    Raises:
        ConfigError: there is no such file, it is no YAML, or it has an unknown key, a wrong type, a label
            twice, a loss that does not exist …: one line a problem, each beginning with the file's name.
    """
    path = _file(name, folder)
    content = _read(path, folder)
    try:
        study = validated(Study, content, what="key")
        if study.study != _name(path):
            what = "folder" if path.name == STUDY_FILE else "file"
            raise ConfigError(
                f"key 'study': expected {_name(path)!r}, the name of its {what}, got {study.study!r}"
            )
        examples = study.examples()
        if check is not None:
            for example in examples:
                check(example)
    except ConfigError as error:
        lines = str(error).splitlines()
        raise ConfigError("\n".join(f"{path}: {line}" for line in dict.fromkeys(lines))) from None
    return study


#: What a study does not take from its base: what is its own to say.
_NOT_INHERITED = ("study", "title", "question", "predictions", "published")


def _read(path: Path, folder: Path, under: tuple[str, ...] = ()) -> dict[str, Any]:
    """The keys of a study's file, laid over those of its ``base``."""
    if not path.is_file():
        raise ConfigError(
            f"no study {_name(path)!r} (expected {path}): {near_matches(_name(path), study_names(folder))}"
        )
    try:
        content = parse_yaml(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise ConfigError(f"{path}: expected YAML, got {str(error).splitlines()[0]}") from None
    if not isinstance(content, dict):
        raise ConfigError(
            f"{path}: expected keys such as study, datasets, losses; got {type(content).__name__}"
        )
    base = content.pop("base", None)
    if base is None:
        return content
    if not isinstance(base, str):
        raise ConfigError(f"{path}: base: expected the name of a study, got {base!r}")
    chain = (*under, _name(path))
    if base in chain:
        raise ConfigError(f"{path}: base: expected another study, got {' → '.join((*chain, base))}")
    inherited = _read(_file(base, folder), folder, chain)
    kept = {key: value for key, value in inherited.items() if key not in _NOT_INHERITED}
    return {key: value for key, value in (kept | content).items() if value is not None}


def labels(components: Sequence[Component]) -> list[str]:
    """The labels, in the study's order."""
    return [component.label for component in components]


def _require_labels(what: str, components: Sequence[Component], named: Iterable[str]) -> None:
    known = labels(components)
    for label in named:
        if label not in known:
            raise ValueError(f"{what} ({', '.join(known)}; unknown: {label!r})")


def json_schema() -> str:
    """The JSON schema of a study's file, as ``studies/schema.json`` holds it."""
    schema = Study.model_json_schema()
    schema["title"] = "A Loss Atlas study"
    schema["properties"]["base"] = {
        "type": "string",
        "description": "another study, whose keys this one takes unless it has its own",
    }
    schema["required"] = ["study", "question"]  # the others may come from the base
    for model in (schema, *schema["$defs"].values()):
        # of a docstring the first sentence; an editor shows it in a small box
        if "description" in model:
            model["description"] = model["description"].split("\n\n")[0]
    return json.dumps(schema, indent=1, ensure_ascii=False) + "\n"
