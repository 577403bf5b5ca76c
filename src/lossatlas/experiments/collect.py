"""From run folders to a study's records: small tables that the reports read, and nothing else does."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from lossatlas.experiments.components import load_datasets
from lossatlas.experiments.config import RunConfig
from lossatlas.experiments.evaluation import has_background
from lossatlas.experiments.provenance import code_version
from lossatlas.experiments.record import NoRunsError, is_complete, read_run, run_path
from lossatlas.experiments.study import Cell, Study, labels
from lossatlas.metrics import dice_from_counts

SCHEMA = 1
#: Test images shown for each data set and model: those on which the losses disagree most.
SHOWN_IMAGES = 6


def collect(
    study: Study,
    *,
    runs_dir: str | Path = "runs",
    results_dir: str | Path = "results",
    file: str | None = None,
) -> Path:
    """Gather the study's finished runs into ``results_dir/<study>/``.

    Runs that are missing are left out and counted in ``study.json``. The records are replaced as a whole, and
    only if the set of runs has changed: what depends on them is not made anew for nothing.

    Args:
        study: as read.
        runs_dir: the folder of the run folders.
        results_dir: the folder of the records.
        file: how the study was named on the command line, for the command in the records.

    Returns:
        the folder of the records.

    Raises:
        NoRunsError: not one run of the study is there.
        ValueError: a run's test set is not the one that its configuration gives today.
    """
    cells = [(cell, run) for cell in study.cells() for run in cell.runs()]
    there = [(cell, run) for cell, run in cells if is_complete(runs_dir, run)]
    folder = Path(results_dir) / study.study
    if not there:
        raise NoRunsError(
            f"no run of study {study.study!r} in {runs_dir}/: run `lossatlas run {study.study}` first"
        )
    records = {run.run_id: read_run(run_path(runs_dir, run)) for _, run in there}
    fingerprint = [
        SCHEMA,
        study.model_dump(),
        [[run_id, record["created_utc"]] for run_id, record in records.items()],
        outdated(records),
        file,
    ]
    if _is_current(folder, fingerprint):
        return folder

    keys = {run.run_id: _key(cell, run) for cell, run in there}
    folder.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(prefix=f".{study.study}-", dir=folder.parent))
    try:
        _runs_table(there, records).to_parquet(temporary / "runs.parquet", index=False)
        _per_class_table(keys, records).to_parquet(temporary / "per_class.parquet", index=False)
        per_image = _stack(runs_dir, there, keys, "per_image.parquet")
        per_image.to_parquet(temporary / "per_image.parquet", index=False)
        _stack(runs_dir, there, keys, "curves.parquet").to_parquet(
            temporary / "curves.parquet", index=False
        )
        np.savez_compressed(
            temporary / "predictions.npz", **_predictions(study, there, per_image, runs_dir)
        )
        description = _describe(study, records, len(cells) - len(there), file) | {
            "fingerprint": fingerprint
        }
        (temporary / "study.json").write_text(json.dumps(description, indent=1) + "\n")
        temporary.chmod(0o755)
        _replace(temporary, folder)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return folder


def _key(cell: Cell, run: RunConfig) -> dict[str, Any]:
    return {
        "run_id": run.run_id,
        "dataset": cell.dataset,
        "model": cell.model,
        "loss": cell.loss,
        "seed": run.seed,
    }


def _is_current(folder: Path, fingerprint: list[Any]) -> bool:
    try:
        return json.loads((folder / "study.json").read_text())["fingerprint"] == json.loads(
            json.dumps(fingerprint)
        )
    except (OSError, ValueError, KeyError):
        return False


def _replace(temporary: Path, folder: Path) -> None:
    """Move ``temporary`` to ``folder``; a folder cannot be renamed onto one that has files."""
    old = folder.with_name(f".{folder.name}-old")
    shutil.rmtree(old, ignore_errors=True)
    if folder.exists():
        os.replace(folder, old)
    os.replace(temporary, folder)
    shutil.rmtree(old, ignore_errors=True)


def _runs_table(there: list[tuple[Cell, RunConfig]], records: Mapping[str, Any]) -> pd.DataFrame:
    rows = []
    for cell, run in there:
        record = records[run.run_id]
        rows.append(
            _key(cell, run)
            | {
                "loss_name": cell.loss_name,
                "status": record["status"],
                "steps": run.steps,
                "wall_s": record["wall_s"],
                "train_s": record["train_s"],
                "peak_memory_mb": record["peak_memory_mb"],
                "parameters": record["parameters"],
                **record["metrics"],
                "final_loss": record["final_loss"],
                "code_version": record["code_version"],
                "config": json.dumps(record["config"], sort_keys=True),
            }
        )
    return pd.DataFrame(rows)


def _per_class_table(
    keys: Mapping[str, dict[str, Any]], records: Mapping[str, Any]
) -> pd.DataFrame:
    return pd.DataFrame(
        [keys[run_id] | row for run_id, record in records.items() for row in record["per_class"]]
    )


def _stack(
    runs_dir: str | Path,
    there: list[tuple[Cell, RunConfig]],
    keys: Mapping[str, dict[str, Any]],
    name: str,
) -> pd.DataFrame:
    """The runs' tables of one name below each other, each row with its run's key in front."""
    tables = []
    for _, run in there:
        table = pd.read_parquet(run_path(runs_dir, run) / name)
        for position, (column, value) in enumerate(keys[run.run_id].items()):
            table.insert(position, column, value)
        tables.append(table)
    return pd.concat(tables, ignore_index=True)


def _predictions(
    study: Study,
    there: list[tuple[Cell, RunConfig]],
    per_image: pd.DataFrame,
    runs_dir: str | Path,
) -> dict[str, Any]:
    """Images, truth and every loss's prediction (first seed) where the losses disagree most."""
    arrays: dict[str, Any] = {}
    datasets: dict[str, Any] = {}
    first_seed = study.seeds[0]
    for dataset in labels(study.datasets):
        for model in labels(study.models):
            cells = {
                cell.loss: run
                for cell, run in there
                if (cell.dataset, cell.model, run.seed) == (dataset, model, first_seed)
            }
            if not cells:
                continue
            if dataset not in datasets:
                some = next(iter(cells.values()))
                datasets[dataset] = load_datasets(some, splits=("test",))["test"]
            test_set = datasets[dataset]
            for run in cells.values():
                _require_same_test_set(run_path(runs_dir, run), test_set)
            of_model = per_image[
                (per_image.dataset == dataset)
                & (per_image.model == model)
                & (per_image.seed == first_seed)
            ]
            shown = disagreement(of_model, test_set.ids, has_background(test_set.classes))
            shown = shown[:SHOWN_IMAGES]
            prefix = f"{dataset}/{model}"
            arrays[f"{prefix}/images"] = np.asarray(test_set.images[shown])
            arrays[f"{prefix}/targets"] = np.asarray(test_set.labels[shown])
            arrays[f"{prefix}/ids"] = np.asarray([test_set.ids[i] for i in shown])
            for loss, run in cells.items():
                with np.load(run_path(runs_dir, run) / "predictions.npz") as saved:
                    arrays[f"{prefix}/{loss}"] = saved["predictions"][shown]
    return arrays


def outdated(records: Mapping[str, Any]) -> int:
    """How many of the runs were made by other code than today's."""
    return sum(record["code_version"] != code_version() for record in records.values())


def _require_same_test_set(folder: Path, test_set: Any) -> None:
    """A prediction may only be laid over the images that it was made for."""
    used = read_run(folder)["data_checksums"]["test"]
    if used != test_set.checksum:
        raise ValueError(
            f"{folder}: expected the test set of today ({test_set.checksum[:12]}…), the run used {used[:12]}…: "
            "delete the folder and run the study again"
        )


def disagreement(per_image: pd.DataFrame, ids: list[str], foreground_only: bool) -> np.ndarray:
    """Indices of the images, the most contested first, each combination of classes once before any twice.

    Contested is an image whose mean Dice over its classes spreads most (standard deviation) over the losses.
    Without the second rule the images would all show the one class on which the losses differ most.
    """
    kept = per_image[per_image.class_index > 0] if foreground_only else per_image
    counts = kept[["tp", "fp", "fn"]].to_numpy()
    dice = kept.assign(dice=np.asarray(dice_from_counts(counts), dtype=float))
    by_loss = dice.groupby(["image_id", "loss"]).dice.mean()
    spread = by_loss.groupby("image_id").std(ddof=0).reindex(ids).fillna(0.0)
    present = (
        kept[kept.tp + kept.fn > 0].groupby("image_id").class_index.agg(frozenset).reindex(ids)
    )
    ranked = np.argsort(-spread.to_numpy(), kind="stable")
    seen: dict[object, int] = {}
    turn: list[int] = []
    for index in ranked:
        combination = present.iloc[index]
        turn.append(seen.get(combination, 0))
        seen[combination] = turn[-1] + 1
    return ranked[np.argsort(turn, kind="stable")]


def _describe(
    study: Study, records: Mapping[str, Any], missing: int, file: str | None
) -> dict[str, Any]:
    """What a report says of the study, and where its numbers come from."""
    some = next(iter(records.values()))
    by_dataset: dict[str, Any] = {}
    for dataset in study.datasets:
        for record in records.values():
            config = record["config"]
            if (config["dataset"], config["dataset_params"]) == (dataset.name, dataset.params):
                by_dataset[dataset.label] = record
                break
    return {
        "schema": SCHEMA,
        "study": study.study,
        "question": study.question,
        "datasets": labels(study.datasets),
        "models": labels(study.models),
        "losses": [loss.model_dump() for loss in study.losses],
        "seeds": study.seeds,
        "steps": study.training.steps,
        "training": study.training.model_dump(),
        "classes": {label: record["classes"] for label, record in by_dataset.items()},
        "mode": {label: record["mode"] for label, record in by_dataset.items()},
        "data_checksums": {label: record["data_checksums"] for label, record in by_dataset.items()},
        "missing_runs": missing,
        "command": f"make book STUDY={file or study.study}",
        "provenance": {
            "commit": ", ".join(sorted({record.get("commit", "") for record in records.values()})),
            "outdated_runs": outdated(records),
            "dirty": any(record.get("dirty", False) for record in records.values()),
            "code_versions": sorted({record["code_version"] for record in records.values()}),
            "created_utc": max(record["created_utc"] for record in records.values()),
            "packages": some["packages"],
            "hardware": some["hardware"],
            "train_s": round(sum(record["train_s"] for record in records.values()), 1),
            "wall_s": round(sum(record["wall_s"] for record in records.values()), 1),
        },
    }
