"""Which version of its code a run was made with: one number a component, raised when its results change.

What a run computes is the contract, not how its code is written. A module may be renamed, moved or tidied: as long as
the golden runs (``tests/experiments/test_golden_runs.py``: a few steps of every configuration that a committed study
uses) end with the same bits, no number here changes and no record is stale. When they end with others, that test fails
until the version of what has changed is raised here; then, and only then, the runs made before are stale.
Where only the order of sums has changed, :data:`ROUNDING` is raised instead, and no run is stale.

The numbers stand here and not beside the code that they speak of, so that a command that only compares them need not
import torch.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any, Final

from lossatlas.experiments.config import RunConfig

#: From initial weights to final weights: batches, augmentation, optimiser, schedule.
TRAINING: Final = 1
#: From final weights to the record: decision rules, metrics, calibration.
EVALUATION: Final = 1
#: Raised when golden runs end with other bits, but every measure stays within the tolerance that another processor is
#: granted. The formulas are the same, so records stay valid; each record says which it was made with.
ROUNDING: Final = 4
#: The schemes of class weights.
WEIGHTS: Final = 1
#: By registry name; a component that is not listed has version 1.
LOSSES: Final[Mapping[str, int]] = {
    "logit_adjusted_ce": 2,  # 1: without the prior of the training set, so plain cross-entropy
}
MODELS: Final[Mapping[str, int]] = {}
DATA: Final[Mapping[str, int]] = {}


def training_versions(config: RunConfig) -> dict[str, int]:
    """The versions that the weights of a run depend on, by component.

    ``weights`` is among them where the run names a scheme of class weights, by its parameter or by its loss.
    """
    versions = {
        "data": DATA.get(config.dataset, 1),
        "model": MODELS.get(config.model, 1),
        "loss": LOSSES.get(config.loss, 1),
        "training": TRAINING,
    }
    if "class_weights" in config.loss_params or config.loss in ("weighted_ce", "weighted_dice"):
        versions["weights"] = WEIGHTS
    return versions


def component_versions(config: RunConfig) -> dict[str, int]:
    """:func:`training_versions`, and the version of the ``evaluation``."""
    return {**training_versions(config), "evaluation": EVALUATION}


def recorded_versions(config: RunConfig) -> dict[str, int]:
    """What a record says of the code that made it: :func:`component_versions`, and the ``rounding``."""
    return {**component_versions(config), "rounding": ROUNDING}


def changed_components(record: Mapping[str, Any]) -> list[str]:
    """Which components had another version when the run was made, or last evaluated, than today.

    Args:
        record: of a run, with its ``config`` and ``code``. One that names no components is ``["code"]``.
    """
    made = record.get("code")
    if not made:
        return ["code"]
    today = component_versions(RunConfig.model_validate(record["config"]))
    return [name for name, version in today.items() if made.get(name) != version]


def mixed_components(records: Iterable[Mapping[str, Any]]) -> dict[str, dict[Any, int]]:
    """Components of which some records were made with another version than others, with runs by version.

    All runs share the training and the evaluation; the runs of one loss share that loss, and so for models and data
    sets. Records without named components stand for themselves with the code as a whole. Runs of two roundings are one.

    Returns:
        for instance ``{"loss dice": {1: 8, 2: 2}}``; empty where nothing is mixed.
    """
    versions: dict[str, Counter[Any]] = {}
    for record in records:
        for kind, version in (record.get("code") or {"code": "unnamed"}).items():
            if kind == "rounding":
                continue
            name = record["config"].get("dataset" if kind == "data" else kind)
            what = f"{kind} {name}" if kind in ("data", "model", "loss") else kind
            versions.setdefault(what, Counter())[version] += 1
    return {what: dict(found) for what, found in versions.items() if len(found) > 1}
