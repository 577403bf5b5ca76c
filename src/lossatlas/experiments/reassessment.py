"""Trained networks judged again: when the evaluation has changed, and the weights have not.

A run folder keeps the network after its last step. Here the decision rules are chosen anew and the test split is
judged anew, by today's code; the training's part of the record stays. ``run.json`` then says under ``evaluated``
when and by which commit.
"""

from __future__ import annotations

import datetime
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from lossatlas.experiments import provenance
from lossatlas.experiments.assessment import assess
from lossatlas.experiments.components import build_loss_on, build_model_for, load_datasets
from lossatlas.experiments.config import ConfigError, RunConfig
from lossatlas.experiments.plan import survey
from lossatlas.experiments.processes import OneProcess
from lossatlas.experiments.record import (
    is_complete,
    read_run,
    replace_folder,
    restore_folder,
    run_path,
    write_run,
)
from lossatlas.experiments.study import Study


def reassess_run(
    config: RunConfig,
    datasets: Mapping[str, Any],
    *,
    runs_dir: str | Path = "runs",
    accelerator: str = "auto",
) -> Path:
    """Judge the trained network of a run again, and replace what its record says of it.

    Args:
        config: the run.
        datasets: ``train`` (of which the class weights are), ``val`` and ``test``.
        runs_dir: the folder of the run folders.
        accelerator: Fabric's name of the device; ``"auto"`` takes a GPU where there is one.

    Returns:
        the run folder; it is the old one, whole, until it is the new one.

    Raises:
        ConfigError: the run is not there, or was trained on other data than ``datasets``.
    """
    folder = run_path(runs_dir, config)
    restore_folder(folder)
    if not is_complete(runs_dir, config):
        raise ConfigError(f"{folder}: expected a finished run, got none: train it first")
    record = read_run(folder)
    _require_same_data(folder, record, datasets)
    device = OneProcess(accelerator, "32-true").fabric.device
    train_set = datasets["train"]
    model = build_model_for(config, train_set).to(device)
    saved = torch.load(folder / "last.ckpt", map_location=device, weights_only=True)
    model.load_state_dict(saved["model"])
    weight = getattr(build_loss_on(config, train_set).to(device), "weight", None)
    found = assess(model, config, weight, datasets["val"], datasets["test"], device)

    code = record.get("code") or {"training": record["code_version"]}
    record |= found.record
    record["code"] = code | {"evaluation": provenance.evaluation_version()}
    record["evaluated"] = {
        "utc": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        **provenance.commit(),
        "packages": provenance.packages(),
        "hardware": provenance.hardware(device),
    }
    new = Path(tempfile.mkdtemp(prefix=f".{folder.name}-evaluated-", dir=folder.parent))
    try:
        for path in folder.iterdir():  # the network, the notebook: links, which cost no space
            os.link(path, new / path.name)
        for name in ("run.json", "curves.parquet", "per_image.parquet", "predictions.npz"):
            (new / name).unlink()
        curves = pd.read_parquet(folder / "curves.parquet")
        write_run(
            new,
            record=record,
            curves=curves,
            per_image=found.per_image,
            predictions=np.asarray(found.predictions),
        )
        new.chmod(0o755)
        replace_folder(new, folder)
    finally:
        shutil.rmtree(new, ignore_errors=True)
    return folder


def _require_same_data(
    folder: Path, record: Mapping[str, Any], datasets: Mapping[str, Any]
) -> None:
    """A network may only be judged on the data that it was trained and tested with."""
    for split, used in record["data_checksums"].items():
        today = datasets[split].checksum
        if used != today:
            raise ConfigError(
                f"{folder}: expected the {split} split that the run was made with ({used[:12]}…), got {today[:12]}…: "
                "train it anew"
            )


def reassess_study(
    study: Study,
    *,
    runs_dir: str | Path = "runs",
    accelerator: str = "auto",
    everything: bool = False,
    say: Callable[[str], None] = print,
) -> int:
    """Judge the finished runs of a study again whose evaluation had other code than today's; those of both stages.

    Each data set is read once. What is through stays, so that the same call goes on where one was stopped.

    Args:
        study: as read.
        runs_dir: the folder of the run folders.
        accelerator: Fabric's name of the device.
        everything: also the runs that today's code has judged.
        say: told how far it is, a line a data set.

    Returns:
        how many runs were judged.
    """
    today = provenance.evaluation_version()
    groups: dict[str, list[RunConfig]] = {}
    for run in survey(study, runs_dir):
        version = run.record.get("code", {}).get("evaluation")
        if run.record and run.config is not None and (everything or version != today):
            key = json.dumps([run.config.dataset, run.config.dataset_params], sort_keys=True)
            groups.setdefault(key, []).append(run.config)
    for configs in groups.values():
        _reassess_on_one_data_set(configs, runs_dir, accelerator)
        described = ", ".join(f"{k}={v}" for k, v in configs[0].dataset_params.items())
        say(
            f"{configs[0].dataset} ({described or 'as it is'}): {len(configs)} runs evaluated again"
        )
    return sum(map(len, groups.values()))


def _reassess_on_one_data_set(
    configs: Sequence[RunConfig], runs_dir: str | Path, accelerator: str
) -> None:
    datasets = load_datasets(configs[0])
    for config in configs:
        _require_same_data(
            run_path(runs_dir, config), read_run(run_path(runs_dir, config)), datasets
        )
    for config in configs:
        reassess_run(config, datasets, runs_dir=runs_dir, accelerator=accelerator)
