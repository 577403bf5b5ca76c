"""What a training run is: the parameters of a notebook, checked before any work.

``TrainParameters`` is one cell of a study: one loss × model × data set with all its seeds. It yields one
``RunConfig`` a seed, and the hash of a ``RunConfig`` names the run folder.
"""

from __future__ import annotations

import hashlib
import inspect
import json
import os
import re
import warnings
from collections.abc import Iterable, Mapping
from typing import Annotated, Any, Literal, TypeVar

import yaml
from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
    ValidationInfo,
    field_validator,
)

from lossatlas.basics import near_matches
from lossatlas.yaml12 import parse_yaml

# float16 is not among them: its scaled gradients overflow now and then by design, which the record of gradient
# norms and of divergence would take for the loss's doing.
Precision = Literal["32-true", "bf16-mixed"]
#: AdamW, or stochastic gradient descent with momentum 0.9 and without Nesterov's step, as SegNet was trained.
Optimizer = Literal["adamw", "sgd"]
#: How the bias of the last layer begins; see ``Training.bias_init``.
BiasInit = Literal["default", "zero", "prior"]
#: What an evaluation may measure beside what it always does; see ``Training.measures``.
Measure = Literal["plug_in", "thin", "oracle", "pixels"]
#: What changes no result and so is no part of a run's identity.
_NO_RESULT = {"checkpoint_s"}
#: Parameters that runs had not when the first records were published: a run that leaves them at their default is the
#: run that it was.
_LATER = ("measures", "two_channels")


class ConfigError(ValueError):
    """A parameter that cannot be trained with: says what was expected, what came, and what to do."""

    def _render_traceback_(self) -> list[str]:
        # IPython's hook: a notebook shows this line in place of a traceback through our own code.
        return [f"ConfigError: {self}"]


class _Strict(BaseModel):
    model_config = ConfigDict(strict=True, extra="forbid", frozen=True)


def _each_once(seeds: list[int]) -> list[int]:
    if len(set(seeds)) != len(seeds):
        raise ValueError("each seed once")
    return seeds


Seed = Annotated[int, Field(ge=0)]
Seeds = Annotated[list[Seed], Field(min_length=1), AfterValidator(_each_once)]


class Training(_Strict):
    """The budget of a run: how it is trained, whatever is trained.

    Attributes:
        steps: optimiser steps.
        batch_size: images a step.
        optimizer: ``"adamw"`` or ``"sgd"``.
        lr: the largest learning rate of the schedule.
        weight_decay: decoupled for AdamW, added to the gradient for SGD, as torch has them.
        warmup_fraction: part of the steps with a rising rate; a cosine to zero follows.
        augment: by the names of ``lossatlas.experiments.augment.NAMES``.
        evaluations: of the validation split, evenly spaced, the last step among them.
        bias_init: bias of the last layer before the first step. ``"prior"``: what a constant prediction needs, the
            log odds (or log frequencies) of the training set's classes, each times its class weight;
            ``"zero"``; ``"default"``, which was the default up to version 0.14: the prior for means over pixels and
            zero for other losses (``components.PRIOR_BIAS``).
        foreground_batches: share of the images of a batch that must contain foreground; the sampler draws them from
            the images that do. 0 shuffles all images alike.
        healthy_start: refuse to train where the network's first predictions are no start: an initial cross-entropy
            above 1.2 ln C with a bias of zero.
        boundary: also measure outlines and objects by size on the test split; takes seconds, not a training's time.
        measures: further measurements of a two-class test split. ``"plug_in"``: the rule that maximises each image's
            expected Dice under posteriors calibrated on validation; ``"thin"``: clDice and the F1 at 2 pixels, at ½ and
            at the tuned threshold (tenths of a second an image); ``"oracle"``: the counts of each image at the
            threshold that is best on the test split, a bound and no result; ``"pixels"``: the logits of two thousand
            of its pixels, the same ones for every network.
        two_channels: train a two-class data set with two softmax channels in place of one sigmoid.
        share_every: steps between two measurements of the foreground's share of the gradient at the logits;
            0 measures none.
        precision: of the forward pass; weights and losses stay in float32.
        micro_batch: images that pass through the network at a time; None takes the whole batch. The loss is
            always that of the whole batch.
        channels_last: memory format of images and convolutions; pays on a GPU.
        compile: ``torch.compile`` the network.
        checkpoint_s: seconds between two checkpoints of a run under way; it changes no result.
    """

    steps: int = Field(default=200, ge=1)
    batch_size: int = Field(default=16, ge=1)
    optimizer: Optimizer = "adamw"
    lr: float = Field(default=3e-3, gt=0, allow_inf_nan=False)
    weight_decay: float = Field(default=1e-4, ge=0, allow_inf_nan=False)
    warmup_fraction: float = Field(default=0.1, ge=0, lt=1)
    augment: dict[str, Any] = Field(default={"shift": True})
    evaluations: int = Field(default=5, ge=1)
    bias_init: BiasInit = "prior"
    foreground_batches: float = Field(default=0.0, ge=0, le=1)
    healthy_start: bool = False
    boundary: bool = False
    measures: list[Measure] = Field(default_factory=list)
    two_channels: bool = False
    share_every: int = Field(default=25, ge=0)
    precision: Precision = "32-true"
    micro_batch: int | None = Field(default=None, ge=1)
    channels_last: bool = False
    compile: bool = False
    checkpoint_s: float = Field(default=60.0, ge=0, allow_inf_nan=False)

    @field_validator("micro_batch")
    @classmethod
    def _a_micro_batch_is_part_of_a_batch(
        cls, micro_batch: int | None, info: ValidationInfo
    ) -> int | None:
        batch_size = info.data.get("batch_size")
        if micro_batch is not None and batch_size is not None and micro_batch > batch_size:
            raise ValueError(f"at most batch_size ({batch_size}) images")
        return micro_batch


class _What(_Strict):
    """What is trained: names of the registries, and parameters that their builders read."""

    dataset: str = "digits"
    dataset_params: dict[str, Any] = Field(default_factory=dict)
    model: str = "unet"
    model_params: dict[str, Any] = Field(default_factory=dict)
    loss: str = "ce"
    loss_params: dict[str, Any] = Field(default_factory=dict)

    @field_validator("dataset_params", "model_params", "loss_params")
    @classmethod
    def _parameters_can_be_written_down(cls, params: dict[str, Any]) -> dict[str, Any]:
        plain = {k: os.fspath(v) if isinstance(v, os.PathLike) else v for k, v in params.items()}
        try:
            json.dumps(plain)
        except (TypeError, ValueError) as error:
            raise ValueError(f"text, numbers, booleans, lists and dictionaries ({error})") from None
        return plain


class RunConfig(Training, _What):
    """Everything that determines one run's result: one data set, model and loss, one seed, one budget.

    The defaults are the ones of ``notebooks/train.ipynb`` (a test holds them equal).
    """

    seed: Seed = 0

    @property
    def run_id(self) -> str:
        """Name of the run folder: the first 16 hexadecimal digits of the configuration's SHA-256.

        What changes no result (``checkpoint_s``) is left out.
        """
        values = self.model_dump(exclude=_NO_RESULT)
        for name in _LATER:
            if values[name] == type(self).model_fields[name].get_default(call_default_factory=True):
                del values[name]
        text = json.dumps(values, sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()[:16]


class TrainParameters(Training, _What):
    """The parameters of ``notebooks/train.ipynb``: a ``RunConfig`` with several seeds, and where to put it."""

    seeds: Seeds = Field(default_factory=lambda: [0])
    accelerator: Literal["auto", "cpu", "cuda", "mps"] = "auto"
    devices: int = Field(default=1, ge=1)
    runs_dir: str = "runs"

    @field_validator("devices")
    @classmethod
    def _every_device_has_as_many_images(cls, devices: int, info: ValidationInfo) -> int:
        batch_size = info.data.get("batch_size")
        if batch_size is not None and batch_size % devices:
            raise ValueError(f"a divisor of batch_size ({batch_size})")
        return devices

    @classmethod
    def parse(cls, values: Mapping[str, Any], *, build: bool = True) -> TrainParameters:
        """Check ``values`` and return the parameters.

        Every problem is found before anything is trained: unknown names, wrong types, values out of range,
        and parameters of the data set, model or loss that nothing would read.

        Args:
            values: by name; a list or a dictionary may come as text.
            build: also build the model and the loss once, which finds the last kind and takes a second, and see
                that runs can be written.

        Raises:
            ConfigError: one line a problem: expected, got, what to do.
        """
        known = cls.model_fields
        values = {name: _from_text(value, known.get(name)) for name, value in values.items()}
        parameters = validated(cls, values, what="parameter")
        if build:  # once: the runs differ in their seed alone
            from lossatlas.experiments.record import is_complete, require_room

            check_components(parameters.runs()[0])
            if not all(is_complete(parameters.runs_dir, run) for run in parameters.runs()):
                require_room(parameters.runs_dir)
        return parameters

    @classmethod
    def from_notebook(cls, namespace: Mapping[str, Any]) -> TrainParameters:
        """Collect the parameters cell's names from a notebook's ``globals()`` and check them.

        Papermill only warns at a parameter that the notebook does not have; here it is an error: every text,
        number, list or dictionary counts as a parameter, unless its name begins with an underscore. A parameter's own
        name counts whatever it holds: a tuple of seeds is no list, and is not passed over.
        """
        return cls.parse(
            {
                name: value
                for name, value in namespace.items()
                if not name.startswith("_")
                and name not in _IPYTHON_NAMES
                and (name in cls.model_fields or isinstance(value, _PLAIN))
            }
        )

    def runs(self) -> list[RunConfig]:
        """One configuration a seed."""
        shared = self.model_dump(exclude={"seeds", "accelerator", "devices", "runs_dir"})
        return [
            validated(RunConfig, {**shared, "seed": seed}, what="parameter") for seed in self.seeds
        ]


_Model = TypeVar("_Model", bound=BaseModel)
_IPYTHON_NAMES = {"In", "Out"}
_PLAIN = (str, int, float, list, dict, type(None))


def _from_text(value: Any, field: Any) -> Any:
    """Read ``"[0, 1]"``, ``"1e-3"``, ``"true"`` or ``"null"`` as what they say: papermill's ``-p`` hands over text."""
    if field is not None and isinstance(value, dict | list):
        return _numbers_of(value)  # papermill's -y reads YAML 1.1, to which 1e-1 is text
    if field is None or not isinstance(value, str) or field.annotation is str:
        return value
    try:
        parsed = parse_yaml(value)
    except (yaml.YAMLError, ValueError, RecursionError):
        return value
    wants = str(field.annotation)
    container = list if "list[" in wants else dict if "dict[" in wants else None
    return parsed if container is None or isinstance(parsed, container) else value


def _numbers_of(value: Any) -> Any:
    """A list or dictionary whose texts that spell a number, as ``1e-1``, are numbers."""
    if isinstance(value, dict):
        return {n: each if n == "root" else _numbers_of(each) for n, each in value.items()}
    if isinstance(value, list):
        return [_numbers_of(each) for each in value]
    if isinstance(value, str) and re.fullmatch(r"[-+]?\d+(\.\d*)?[eE][-+]?\d+", value):
        return float(value)
    return value


#: Characters of a wrong value that a message repeats.
_SHOWN = 200


def validated(cls: type[_Model], values: Any, *, what: str) -> _Model:
    """``cls(**values)`` with pydantic's report turned into short lines.

    Raises:
        ConfigError: all problems, one a line.
    """
    try:
        return cls.model_validate(values)
    except ValidationError as error:
        raise ConfigError(
            "\n".join(_line(cls, problem, what) for problem in error.errors())
        ) from None


def _line(cls: type[BaseModel], problem: Any, what: str) -> str:
    where = ".".join(str(part) for part in problem["loc"])
    got = f"{_short(problem['input'])} ({type(problem['input']).__name__})"
    if problem["type"] == "extra_forbidden":
        nested = len(problem["loc"]) > 1
        hint = "remove it" if nested else near_matches(where, cls.model_fields)
        return f"unknown {what} {where!r} (got {_short(problem['input'])}): {hint}"
    if problem["type"] == "missing":
        return f"{what} {where!r} is missing: add it"
    expected = problem["msg"].removeprefix("Value error, ").removeprefix("Input should be ")
    if not where:  # a rule over several keys: it names them, and what they have
        return f"expected {expected}"
    return f"{what} {where!r}: expected {expected}, got {got}"


def _short(value: Any) -> str:
    """What was given, on one line: of a long list or table the beginning."""
    text = repr(value)
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}…"


def check_params(
    kind: str, name: str, given: Mapping[str, Any], known: Mapping[str, inspect.Parameter]
) -> None:
    """Raise ``ConfigError`` for a parameter that ``name`` does not read."""
    for key in given:
        if key not in known:
            there = near_matches(key, known) if known else "it takes none"
            raise ConfigError(f"{kind}_params: {name!r} reads no parameter {key!r}: {there}")


def check_name(kind: str, name: str, known: Iterable[str]) -> None:
    """Raise ``ConfigError`` for a name that is not in ``known``, with the near matches."""
    known = list(known)
    if name not in known:
        raise ConfigError(f"unknown {kind} {name!r}: {near_matches(name, known)}")


def check_components(config: RunConfig) -> None:
    """Check the names and the parameters of data set, model and loss against what they read.

    The model and the loss are built once on two classes, so that a bad value is found here and not after the
    data has been read.
    """
    # A library below smp asks for notebook widgets, and warns in every executed notebook if there are none.
    warnings.filterwarnings("ignore", message="IProgress not found")
    # The heavy imports wait until the cheap checks have passed.
    from lossatlas import data, losses, models
    from lossatlas.experiments.augment import build_augmentation
    from lossatlas.experiments.components import build_loss_for, loss_parameters

    check_name("data set", config.dataset, data.names())
    check_name("model", config.model, models.names())
    check_name("loss", config.loss, losses.names())
    check_params("dataset", config.dataset, config.dataset_params, data.parameters(config.dataset))
    check_params("model", config.model, config.model_params, models.parameters(config.model))
    check_params("loss", config.loss, config.loss_params, loss_parameters(config.loss))
    try:
        build_augmentation(config.augment, ignore_index=None)
    except data.DataError as error:
        raise ConfigError(f"augment: {error}") from error
    try:
        models.build(config.model, in_channels=1, out_channels=2, **config.model_params)
    except (TypeError, ValueError) as error:
        raise ConfigError(f"model_params of {config.model!r}: {error}") from error
    try:
        build_loss_for(config, mode=None, ignore_index=None, image_counts=None)
    except (TypeError, ValueError) as error:
        raise ConfigError(f"loss_params of {config.loss!r}: {error}") from error
