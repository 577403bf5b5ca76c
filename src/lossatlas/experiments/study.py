"""A study: data sets × models × losses × seeds under one budget, read from ``workflow/studies/*.yaml``."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import yaml
from pydantic import BeforeValidator, Field, model_validator

from lossatlas.experiments.config import (
    ConfigError,
    RunConfig,
    Training,
    TrainParameters,
    _Strict,
    near_matches,
    validated,
)

STUDIES = Path("workflow/studies")


class Component(_Strict):
    """A data set, model or loss of a study: its registry name, parameters, and the label tables show."""

    name: str
    params: dict[str, Any] = Field(default_factory=dict)
    # part of file names, and joined by hyphens to the name of a cell
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


def _distinct(components: Any) -> Any:
    labels = [c.get("label", c.get("name")) if isinstance(c, dict) else c for c in components or []]
    for label in labels:
        if labels.count(label) > 1:
            raise ValueError(
                f"distinct labels ({label!r} stands there twice: give one a label of its own)"
            )
    return components


Components = Annotated[list[Component], Field(min_length=1), BeforeValidator(_distinct)]


class Study(_Strict):
    """One question, and every run that answers it."""

    study: str = Field(pattern=r"^[a-z][a-z0-9_]*$")
    question: str
    datasets: Components
    models: Components
    losses: Components
    seeds: list[int] = Field(min_length=1)
    training: Training = Field(default_factory=Training)

    @model_validator(mode="after")
    def _no_run_twice(self) -> Study:
        """Two labels for one configuration would be one run, and the records could not tell which it is."""
        for what in ("datasets", "models", "losses"):
            components = getattr(self, what)
            for first, second in itertools.combinations(components, 2):
                if (first.name, first.params) == (second.name, second.params):
                    raise ValueError(
                        f"{what}: {first.label!r} and {second.label!r} to differ in name or parameters"
                    )
        return self

    def cells(self) -> Iterator[Cell]:
        """One cell for each data set × model × loss, in the order of the file."""
        for dataset, model, loss in itertools.product(self.datasets, self.models, self.losses):
            parameters = {
                "dataset": dataset.name,
                "dataset_params": dataset.params,
                "model": model.name,
                "model_params": model.params,
                "loss": loss.name,
                "loss_params": loss.params,
                "seeds": self.seeds,
                **self.training.model_dump(),
            }
            yield Cell(dataset.label, model.label, loss.label, loss.name, parameters)


@dataclass(frozen=True)
class Cell:
    """One execution of ``train.ipynb``: one data set, model and loss with all the study's seeds."""

    dataset: str
    model: str
    loss: str
    loss_name: str
    parameters: dict[str, Any]

    @property
    def name(self) -> str:
        """Names the cell's files within its study."""
        return f"{self.dataset}-{self.model}-{self.loss}"

    def runs(self) -> list[RunConfig]:
        """The configurations of the cell's runs, one a seed."""
        return validated(TrainParameters, self.parameters, what="parameter").runs()

    def notebook(self, study: str, runs_dir: str | Path = "runs") -> Path:
        """Where the workflow puts the executed notebook, whether it succeeds or fails."""
        return Path(runs_dir) / "cells" / study / f"{self.name}.ipynb"


def study_names(folder: Path = STUDIES) -> list[str]:
    """The studies that have a file."""
    return sorted(path.stem for path in folder.glob("*.yaml"))


def load_study(
    name: str, folder: Path = STUDIES, check: Callable[[RunConfig], None] | None = None
) -> Study:
    """Read and validate ``folder/name.yaml``, or the file itself where ``name`` ends in ``.yaml``.

    Args:
        name: the study's name, or a path.
        folder: where the study files are.
        check: called with the first run of every cell, to find what only the components know (parameters that
            nothing reads); it may raise ``ConfigError``.

    Raises:
        ConfigError: there is no such file, it is no YAML, or it has an unknown key, a wrong type, a label
            twice, a loss that does not exist …: one line a problem, each beginning with the file's name.
    """
    path = Path(name) if str(name).endswith(".yaml") else folder / f"{name}.yaml"
    if not path.is_file():
        raise ConfigError(
            f"no study {name!r} (expected {path}): {near_matches(path.stem, study_names(folder))}"
        )
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except yaml.YAMLError as error:
        raise ConfigError(f"{path}: expected YAML, got {str(error).splitlines()[0]}") from None
    if not isinstance(content, dict):
        raise ConfigError(
            f"{path}: expected keys such as study, datasets, losses; got {type(content).__name__}"
        )
    try:
        study = validated(Study, content, what="key")
        if study.study != path.stem:
            raise ConfigError(
                f"key 'study': expected {path.stem!r} as in the file's name, got {study.study!r}"
            )
        for cell in study.cells():
            first = cell.runs()[0]
            if check is not None:
                check(first)
    except ConfigError as error:
        lines = str(error).splitlines()
        raise ConfigError("\n".join(f"{path}: {line}" for line in dict.fromkeys(lines))) from None
    return study


def labels(components: Sequence[Component]) -> list[str]:
    """The labels, in the study's order."""
    return [component.label for component in components]
