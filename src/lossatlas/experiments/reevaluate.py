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
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from lossatlas.experiments import provenance, tuning, versions
from lossatlas.experiments.components import (
    as_configured,
    build_loss_on,
    build_model_for,
    load_datasets,
)
from lossatlas.experiments.config import ConfigError, RunConfig
from lossatlas.experiments.evaluate import assess
from lossatlas.experiments.processes import OneProcess
from lossatlas.experiments.record import (
    exclusive,
    is_complete,
    read_run,
    replace_folder,
    require_same_data,
    restore_folder,
    restore_runs,
    run_path,
    unfinished_folder,
    write_run,
)
from lossatlas.experiments.status import survey
from lossatlas.experiments.study import Combination, Member, Study
from lossatlas.experiments.versions import changed_components

#: What an evaluation writes; all else in a run folder is the training's.
_OF_THE_EVALUATION = ("run.json", "per_image.parquet", "predictions.npz", "pixels.parquet")


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
        ConfigError: the run is not there; it was trained on other data than ``datasets``, or with other code of its
            model or loss than there is today.
    """
    folder = run_path(runs_dir, config)
    restore_folder(folder)
    if not is_complete(runs_dir, config):
        raise ConfigError(f"{folder}: expected a finished run, got none: train it first")
    record = read_run(folder)
    _require_same_network(folder, record)
    require_same_data(runs_dir, [config], datasets)
    device = OneProcess(accelerator, "32-true").fabric.device
    datasets = as_configured(config, datasets)
    train_set = datasets["train"]
    model = build_model_for(config, train_set).to(device)
    if config.channels_last:  # as it was trained: another memory format gives other last digits
        model.to(memory_format=torch.channels_last)
    saved = torch.load(folder / "last.ckpt", map_location=device, weights_only=True)
    model.load_state_dict(saved["model"])
    weight = getattr(build_loss_on(config, train_set).to(device), "weight", None)
    with _threads(record["hardware"].get("threads")):
        found = assess(model, config, weight, datasets["val"], datasets["test"], device)

    record |= found.record
    record["code"] = record["code"] | {"evaluation": versions.EVALUATION}
    record["evaluated"] = {
        # finer than a training's: a short one can end, and be evaluated again, within its second
        "utc": datetime.datetime.now(datetime.UTC).isoformat(timespec="milliseconds"),
        **provenance.commit(),
        "packages": provenance.packages(),
        "hardware": provenance.hardware(device),
    }
    new = unfinished_folder(folder)
    try:
        for path in folder.iterdir():
            if path.is_file() and path.name not in _OF_THE_EVALUATION:
                _link(path, new / path.name)
        write_run(
            new,
            record=record,
            per_image=found.per_image,
            predictions=found.predictions,
            pixels=found.pixels,
        )
        replace_folder(new, folder)
    finally:
        shutil.rmtree(new, ignore_errors=True)
    return folder


def _link(source: Path, target: Path) -> None:
    """One file under two names, which costs no space; a copy where the file system has no such links."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)


@contextmanager
def _threads(count: int | None) -> Iterator[None]:
    """As many threads as the training had: sums in another order have other last digits."""
    before = torch.get_num_threads()
    torch.set_num_threads(count or before)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _require_same_network(folder: Path, record: Mapping[str, Any]) -> None:
    """Weights mean something in the network that they were trained in, and class weights in their loss."""
    changed = [name for name in changed_components(record) if name in ("model", "loss")]
    if changed:
        raise ConfigError(
            f"{folder}: expected the code that the run was trained with, that of its {' and '.join(changed)} has "
            "changed since: train it anew"
        )


def reassess_study(
    study: Study,
    *,
    runs_dir: str | Path = "runs",
    accelerator: str = "auto",
    everything: bool = False,
    but: Collection[Member] = (),
    say: Callable[[str], None] = print,
) -> int:
    """Judge the finished runs of a study again whose evaluation had another version than today's; those of both stages.

    One process does it, a data set after the other. What is through stays, so that the same call goes on where one
    was stopped. Where the tuning's runs were judged, the learning rates are chosen anew.

    Args:
        study: as read.
        runs_dir: the folder of the run folders.
        accelerator: Fabric's name of the device.
        everything: also the runs that today's code has judged.
        but: runs that are left as they are.
        say: told how far it is, a line a data set.

    Returns:
        how many runs were judged.

    Raises:
        ConfigError: another process is at it; or a run was trained on other data, or with other code of its model
            or loss, than there is today. Nothing of its data set has been judged then.
    """
    with exclusive(runs_dir):
        restore_runs(runs_dir)
        wanted = [
            (run.member, run.config)
            for run in survey(study, runs_dir)
            if run.folder is not None
            and run.config is not None
            and run.member not in but
            and (everything or "evaluation" in changed_components(run.record))
        ]
        groups: dict[str, list[RunConfig]] = {}
        for _, config in wanted:
            key = json.dumps([config.dataset, config.dataset_params], sort_keys=True)
            groups.setdefault(key, []).append(config)
        for configs in groups.values():
            _reassess_on_one_data_set(configs, runs_dir, accelerator)
            described = ", ".join(f"{k}={v}" for k, v in configs[0].dataset_params.items())
            count = f"{len(configs)} run{'s' if len(configs) > 1 else ''}"
            say(f"{configs[0].dataset} ({described or 'as it is'}): {count} evaluated again")
        if any(member.stage == "tuning" for member, _ in wanted):
            _choose_again(study, runs_dir, say)
    return len(wanted)


def _reassess_on_one_data_set(
    configs: Sequence[RunConfig], runs_dir: str | Path, accelerator: str
) -> None:
    datasets = load_datasets(configs[0])
    for config in configs:
        folder = run_path(runs_dir, config)
        _require_same_network(folder, read_run(folder))
    require_same_data(runs_dir, configs, datasets)
    for config in configs:
        reassess_run(config, datasets, runs_dir=runs_dir, accelerator=accelerator)


def _choose_again(study: Study, runs_dir: str | Path, say: Callable[[str], None]) -> None:
    """Choose the learning rates from what the tuning runs are worth now; say which have moved."""
    if not tuning.selection_path(study, runs_dir).is_file():
        return
    before: Mapping[Combination, tuning.Choice] = tuning.read_selection(study, runs_dir) or {}
    after = tuning.select(study, runs_dir)
    moved = [
        f"{' · '.join(key)} from {before[key].optimizer} {before[key].lr:g} to {choice.optimizer} {choice.lr:g}"
        for key, choice in after.items()
        if key in before
        and (before[key].optimizer, before[key].lr) != (choice.optimizer, choice.lr)
    ]
    tuning.write_selection(study, after, runs_dir)
    if moved:
        say(f"learning rates that are chosen otherwise now: {'; '.join(moved)}")
        say(f"`lossatlas run {study.study}` trains the runs that they ask for")
