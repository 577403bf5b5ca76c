"""From run folders to a study's records: small tables that the reports read, and nothing else does.

``study.json``         what was asked, what was expected, and where the numbers come from
``runs.parquet``       a row a run that is reported, with its provenance
``per_class.parquet``  a row a run, decision rule and class, over the pooled test set
``per_image.parquet``  a row a run, decision rule, test image and class: pixel counts, and the image's labelled pixels;
                       of two classes the second alone, from which the first follows
``curves.parquet``     a row a run and step
``tuning.parquet``     a row a tuning run, those that are missing included (where the study tunes)
``boundary.parquet``, ``size_recall.parquet``  where the runs measured them
``predictions.npz``    the test images on which the losses disagree most, first seed
"""

from __future__ import annotations

import hashlib
import json
import math
import shutil
import tempfile
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from lossatlas.experiments.config import ConfigError, RunConfig
from lossatlas.experiments.provenance import changed_components, mixed_components
from lossatlas.experiments.record import (
    NoRunsError,
    is_complete,
    read_run,
    replace_folder,
    restore_folder,
    run_path,
)
from lossatlas.experiments.study import Member, Study, labels
from lossatlas.experiments.tuning import RULE, Selection, select

SCHEMA = 3
#: Test images shown for each data set and model: those on which the losses disagree most.
SHOWN_IMAGES = 6
#: Decision rules beside the largest logit; their columns carry the rule's name.
RULES = ("tuned", "theory")
#: What ``runs.parquet`` has of each of them.
_BY_RULE = ("foreground_dice", "foreground_iou", "mean_precision", "mean_recall", "volume_ratio")
_CALIBRATION = ("ece", "ece_foreground", "nll", "brier")
#: Steps of a run that ``curves.parquet`` keeps beside those at which something was measured.
_CURVE_ROWS = 400
#: Rows of a study's ``curves.parquet``, about: so that a large study stays within what a repository can carry.
_STUDY_CURVE_ROWS = 60_000
_FLOAT32 = (
    "loss_value",
    "grad_norm",
    "lr",
    "foreground_share",
    "foreground_pixels",
    "val_mean_dice",
    "val_mean_iou",
    "val_dice_tuned",
    "val_offset",
    "val_loss",
)
_INT32 = ("class_index", "tp", "fp", "fn", "pixels", "step", "epoch")


def collect(
    study: Study,
    *,
    runs_dir: str | Path = "runs",
    results_dir: str | Path = "results",
    file: str | None = None,
    mixed: bool = False,
    fewer: bool = False,
) -> Path:
    """Gather the study's finished runs into ``results_dir/<study>/``.

    Runs that are missing are left out and counted in ``study.json``. The records are replaced as a whole, and
    only if the set of runs has changed: what depends on them is not made anew for nothing.

    Args:
        study: as read.
        runs_dir: the folder of the run folders.
        results_dir: the folder of the records.
        file: how the study was named on the command line, for the command in the records.
        mixed: take runs of different code together; ``study.json`` and the column ``code`` then say which.
        fewer: replace records that have more runs than are there now.

    Returns:
        the folder of the records.

    Raises:
        MixedCodeError: some runs were made with other code than others, and ``mixed`` is not given.
        FewerRunsError: the records that are there have more runs, and ``fewer`` is not given.
        NoRunsError: not one run that the study reports is there.
        ValueError: a run's test set is not the one that its configuration gives today.
    """
    selection = select(study, runs_dir) if study.tuning else None
    there = [
        (member, config)
        for member, config in study.reporting_runs(selection)
        if is_complete(runs_dir, config)
    ]
    folder = Path(results_dir) / study.study
    restore_folder(folder)
    if not there:
        raise NoRunsError(
            f"no run of study {study.study!r} in {runs_dir}/: run `lossatlas run {file or study.study}` first"
        )
    records = {config.run_id: read_run(run_path(runs_dir, config)) for _, config in there}
    tuning_records = {
        config.run_id: read_run(run_path(runs_dir, config))
        for _, config in study.tuning_runs()
        if is_complete(runs_dir, config)
    }
    different = mixed_components([*records.values(), *tuning_records.values()])
    if different and not mixed:
        raise MixedCodeError(study, file or study.study, different)
    tuning = _tuning_table(study, selection, tuning_records)
    fingerprint = _fingerprint(study, records, tuning, file)
    if _is_current(folder, fingerprint):
        return folder
    recorded = _recorded_runs(folder)
    if recorded > len(records) and not fewer:
        raise FewerRunsError(folder, recorded, len(records), str(runs_dir), file or study.study)

    keys = {config.run_id: _key(member, config) for member, config in there}
    folder.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(prefix=f".{study.study}-", dir=folder.parent))
    try:
        _save(_runs_table(study, there, records), temporary / "runs.parquet")
        _save(_per_class_table(keys, records), temporary / "per_class.parquet")
        for name in ("boundary", "size_recall"):
            table = _rows(keys, records, name)
            if len(table):
                _save(table, temporary / f"{name}.parquet")
        if study.tuning:
            _save(tuning, temporary / "tuning.parquet")
        _stack(runs_dir, keys, "per_image.parquet", temporary, lambda t: _small(_of_two(t)))
        rows = max(50, min(_CURVE_ROWS, _STUDY_CURVE_ROWS // len(keys)))
        _stack(
            runs_dir, keys, "curves.parquet", temporary, lambda curve: _small(_thin(curve, rows))
        )
        np.savez_compressed(temporary / "predictions.npz", **_predictions(study, there, runs_dir))
        description = _describe(study, selection, records, tuning, file)
        description["provenance"]["mixed_code"] = different
        (temporary / "study.json").write_text(
            json.dumps(description | {"fingerprint": fingerprint}, indent=1) + "\n"
        )
        temporary.chmod(0o755)
        replace_folder(temporary, folder)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return folder


class MixedCodeError(ConfigError):
    """Runs of one study were made with different code: together they would compare code, not losses."""

    def __init__(self, study: Study, file: str, different: Mapping[str, Mapping[str, int]]) -> None:
        what = "; ".join(
            f"{component}: {' and '.join(map(str, versions.values()))} runs"
            for component, versions in different.items()
        )
        anew = (
            f"`lossatlas evaluate {file}` judges those of other code than today's anew and trains nothing"
            if set(different) == {"evaluation"}
            else f"`lossatlas run --stale {file}` trains those of other code than today's anew"
        )
        super().__init__(
            f"study {study.study}: expected runs of one version of the code, got several ({what}): {anew}, "
            f"`lossatlas collect --mixed {file}` takes them together and marks them"
        )


class FewerRunsError(ConfigError):
    """Records would be replaced by records of fewer runs."""

    def __init__(self, folder: Path, recorded: int, there: int, runs_dir: str, file: str) -> None:
        super().__init__(
            f"{folder}: expected at least the {recorded} runs that it has, got {there} in {runs_dir}/; it was left "
            f"as it is: `lossatlas run {file}` trains what is missing, `lossatlas collect --fewer {file}` replaces it"
        )


def _recorded_runs(folder: Path) -> int:
    """How many runs the records in a folder have; 0 where there are none that can be read."""
    try:
        return int(pq.ParquetFile(folder / "runs.parquet").metadata.num_rows)
    except (OSError, pa.ArrowInvalid):
        return 0


def concatenate(folders: Iterable[str | Path], table: str = "runs") -> pd.DataFrame:
    """The tables of one name of several studies below each other, with the study's name in the first column.

    Args:
        folders: records, as :func:`collect` leaves them.
        table: ``"runs"``, ``"per_class"``, ``"per_image"``, ``"curves"``, ``"tuning"`` ….

    Raises:
        ValueError: none is given, or they are of different schemas, so that one column would mean two things.
    """
    paths = [Path(folder) for folder in folders]
    studies = [json.loads((path / "study.json").read_text()) for path in paths]
    schemas = {study["schema"] for study in studies}
    if len(schemas) != 1:
        raise ValueError(
            f"expected records of one schema, got {sorted(schemas) or 'none'}: collect them again with this version"
        )
    tables = []
    for path, study in zip(paths, studies, strict=True):
        rows = pd.read_parquet(path / f"{table}.parquet")
        rows.insert(0, "study", study["study"])
        tables.append(rows)
    return pd.concat(tables, ignore_index=True)


def _fingerprint(
    study: Study, records: Mapping[str, Any], tuning: pd.DataFrame, file: str | None
) -> str:
    """Changes when the records would: with the study, its runs, or the code that they are compared with."""
    content = [
        SCHEMA,
        study.model_dump(),
        [[run_id, record["created_utc"], _evaluated(record)] for run_id, record in records.items()],
        tuning.to_json(),
        outdated(records.values()),
        _outdated_components(records.values()),
        file,
    ]
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()


def _evaluated(record: Mapping[str, Any]) -> str:
    """When a run was last evaluated: with its training, or again since."""
    again = record.get("evaluated")
    return str(again["utc"] if again else record["created_utc"])


def _key(member: Member, config: RunConfig) -> dict[str, Any]:
    return {
        "run_id": config.run_id,
        "dataset": member.dataset,
        "model": member.model,
        "loss": member.loss,
        "seed": member.seed,
    }


def _is_current(folder: Path, fingerprint: str) -> bool:
    try:
        return json.loads((folder / "study.json").read_text())["fingerprint"] == fingerprint
    except (OSError, ValueError, KeyError):
        return False


def _runs_table(
    study: Study, there: Sequence[tuple[Member, RunConfig]], records: Mapping[str, Any]
) -> pd.DataFrame:
    names = {loss.label: loss.name for loss in study.losses}
    rows = []
    for member, config in there:
        record = records[config.run_id]
        rows.append(
            _key(member, config)
            | {
                "loss_name": names[member.loss],
                **study.factors(member.combination),
                "status": record["status"],
                "steps": config.steps,
                "optimizer": config.optimizer,
                "lr": config.lr,
                "wall_s": record["wall_s"],
                "train_s": record["train_s"],
                "peak_memory_mb": record["peak_memory_mb"],
                "parameters": record["parameters"],
                **record["metrics"],
                **{
                    name: record.get("calibration", {}).get(name, math.nan) for name in _CALIBRATION
                },
                **_by_rule(record),
                **_validation(record),
                "final_loss": record["final_loss"],
                **_health(record),
                **_provenance(record),
                "config": json.dumps(record["config"], sort_keys=True),
            }
        )
    return pd.DataFrame(rows)


def _health(record: Mapping[str, Any]) -> dict[str, Any]:
    """Whether the network could answer: NaN, or no word, where a run is older than these numbers."""
    start, reach = record.get("start", {}), record.get("reach", {})
    steps, best = record.get("steps", {}), record.get("oracle", {})

    def number(value: Any) -> float:
        return math.nan if value is None else float(value)

    offsets = best.get("oracle_offsets") or []
    return {
        "initial_loss": number(start.get("loss")),
        "initial_ce": number(start.get("cross_entropy")),
        "initial_bias": start.get("bias"),
        **{
            name: number(reach.get(name))
            for name in ("logit_min", "logit_max", "dead_channels", "head_bias", "ceiling")
        },
        **{name: number(steps.get(name)) for name in ("effective_steps", "empty_batches")},
        "oracle_dice": number(best.get("oracle_dice")),
        "oracle_offset": number(offsets[0]) if len(offsets) == 1 else math.nan,
        "auprc": number(best.get("auprc")),
        "began": best.get("began"),
    }


def _by_rule(record: Mapping[str, Any]) -> dict[str, Any]:
    """What the other decision rules make of the test set, and the offsets that were tuned."""
    rules = record.get("rules", {})
    columns: dict[str, Any] = {}
    for rule in RULES:
        metrics = rules.get(rule, {}).get("metrics", {})
        columns |= {f"{name}_{rule}": metrics.get(name, math.nan) for name in _BY_RULE}
    for rule in RULES:
        columns[f"offsets_{rule}"] = json.dumps(rules.get(rule, {}).get("offsets"))
    columns["theory_version"] = record.get("theory_version", 1)
    return columns


def _validation(record: Mapping[str, Any]) -> dict[str, Any]:
    validation = record.get("validation", {})
    return {
        f"val_{name}": validation.get(name, math.nan)
        for name in ("foreground_dice", "foreground_dice_tuned")
    }


def _provenance(record: Mapping[str, Any]) -> dict[str, Any]:
    """Where one run comes from, in columns; packages and hardware as JSON, alike in most rows."""
    return {
        "created_utc": record["created_utc"],
        "evaluated_utc": _evaluated(record),
        "commit": record.get("commit", ""),
        "dirty": bool(record.get("dirty", False)),
        "code_version": record["code_version"],
        "code": json.dumps(record.get("code", {}), sort_keys=True),
        "packages": json.dumps(record["packages"], sort_keys=True),
        "hardware": json.dumps(record["hardware"], sort_keys=True),
        "energy_j": record.get("energy_j") or math.nan,
        "interruptions": record.get("interruptions", 0),
        "hashes": json.dumps(record.get("hashes", {}), sort_keys=True),
    }


def _per_class_table(
    keys: Mapping[str, dict[str, Any]], records: Mapping[str, Any]
) -> pd.DataFrame:
    """Argmax first, then the other rules, as ``per_image`` has them."""
    rows = []
    for run_id, record in records.items():
        rows += [keys[run_id] | {"rule": "argmax"} | row for row in record["per_class"]]
        for rule in RULES:
            of_rule = record.get("rules", {}).get(rule, {}).get("per_class", [])
            rows += [keys[run_id] | {"rule": rule} | row for row in of_rule]
    return pd.DataFrame(rows)


def _rows(
    keys: Mapping[str, dict[str, Any]], records: Mapping[str, Any], name: str
) -> pd.DataFrame:
    """The rows that every record lists under ``name``; none where nothing was measured."""
    return pd.DataFrame(
        [keys[run_id] | row for run_id, record in records.items() for row in record.get(name) or []]
    )


def _tuning_table(
    study: Study, selection: Selection | None, records: Mapping[str, Any]
) -> pd.DataFrame:
    """Every tuning run: the sensitivity to the learning rate is a result of its own."""
    rows = []
    for member, config in study.tuning_runs():
        record = records.get(config.run_id, {})
        choice = selection.get(member.combination) if selection is not None else None
        rows.append(
            {
                "dataset": member.dataset,
                "model": member.model,
                "loss": member.loss,
                **study.factors(member.combination),
                "optimizer": config.optimizer,
                "lr": config.lr,
                "seed": member.seed,
                "run_id": config.run_id,
                "steps": config.steps,
                "status": record.get("status", "missing"),
                **_validation(record),
                "began": record.get("oracle", {}).get("began"),
                "chosen": choice is not None
                and (choice.optimizer, choice.lr) == (config.optimizer, config.lr),
            }
        )
    return pd.DataFrame(rows)


def _stack(
    runs_dir: str | Path,
    keys: Mapping[str, dict[str, Any]],
    name: str,
    folder: Path,
    change: Callable[[pd.DataFrame], pd.DataFrame],
    runs_at_a_time: int = 64,
) -> None:
    """Write the runs' tables of one name below each other, each row with its run's key in front.

    A few runs at a time, so that the memory does not grow with the study.
    """
    writer: pq.ParquetWriter | None = None
    waiting: list[pd.DataFrame] = []

    def flush() -> None:
        nonlocal writer
        filled = [table for table in waiting if len(table)] or waiting[:1]
        rows = pa.Table.from_pandas(pd.concat(filled, ignore_index=True), preserve_index=False)
        writer = writer or pq.ParquetWriter(folder / name, rows.schema, compression="zstd")
        writer.write_table(rows.cast(writer.schema))
        waiting.clear()

    try:
        for run_id, key in keys.items():
            table = change(pd.read_parquet(Path(runs_dir) / run_id / name))
            for position, (column, value) in enumerate(key.items()):
                table.insert(position, column, value)
            waiting.append(table)
            if len(waiting) == runs_at_a_time:
                flush()
        if waiting:
            flush()
    finally:
        if writer is not None:
            writer.close()


def _thin(curve: pd.DataFrame, rows: int = _CURVE_ROWS) -> pd.DataFrame:
    """At most about ``rows`` evenly spaced steps, and every step at which something was measured."""
    every = -(-len(curve) // rows)
    measured = curve.reindex(columns=["val_mean_dice", "foreground_share"]).notna().any(axis=1)
    return curve[(curve.step % max(1, every) == 0) | measured | (curve.step == 1)].copy()


def _of_two(counts: pd.DataFrame) -> pd.DataFrame:
    """Counts with the image's labelled pixels; of two classes without the first, which the second determines.

    What is a true positive of the one is none of the other's, and a false positive of the one a false negative of
    the other: half of the largest table of a study.
    """
    image = [name for name in ("rule", "image_id") if name in counts]
    labelled = (counts.tp + counts.fn).groupby([counts[name] for name in image]).transform("sum")
    counts = counts.assign(pixels=labelled)
    two = set(counts.class_index) == {0, 1}
    return counts[counts.class_index == 1] if two else counts


def _small(table: pd.DataFrame) -> pd.DataFrame:
    """Counts and curves need no more than 32 bits."""
    kinds = {name: np.float32 for name in _FLOAT32} | {name: np.int32 for name in _INT32}
    return table.astype({name: kinds[name] for name in table.columns if name in kinds})


def _save(table: pd.DataFrame, path: Path) -> None:
    table.to_parquet(path, index=False, compression="zstd")


def _predictions(
    study: Study, there: Sequence[tuple[Member, RunConfig]], runs_dir: str | Path
) -> dict[str, Any]:
    """Images, truth and every loss's prediction (first seed, largest logit) where the losses disagree most."""
    # what needs torch waits until here: records that are up to date are told from others without it
    from lossatlas.experiments.components import has_background, load_datasets

    arrays: dict[str, Any] = {}
    first_seed = study.seeds[0]
    for dataset in labels(study.datasets):
        test_set: Any = None
        for model in labels(study.models):
            runs = {
                member.loss: config
                for member, config in there
                if (member.dataset, member.model, member.seed) == (dataset, model, first_seed)
            }
            if not runs:
                continue
            if test_set is None:
                some = next(iter(runs.values()))
                test_set = load_datasets(some, splits=("test",))["test"]
            for config in runs.values():
                _require_same_test_set(run_path(runs_dir, config), test_set)
            counts = pd.concat(
                [
                    pd.read_parquet(run_path(runs_dir, config) / "per_image.parquet").assign(
                        loss=loss
                    )
                    for loss, config in runs.items()
                ]
            )
            if "rule" in counts:
                counts = counts[counts.rule == "argmax"]
            shown = disagreement(counts, test_set.ids, has_background(test_set.classes))
            shown = shown[:SHOWN_IMAGES]
            prefix = f"{dataset}/{model}"
            arrays[f"{prefix}/images"] = np.asarray(test_set.images[shown])
            arrays[f"{prefix}/targets"] = np.asarray(test_set.labels[shown])
            arrays[f"{prefix}/ids"] = np.asarray([test_set.ids[i] for i in shown])
            for loss, config in runs.items():
                with np.load(run_path(runs_dir, config) / "predictions.npz") as saved:
                    arrays[f"{prefix}/{loss}"] = saved["predictions"][shown]
    return arrays


def outdated(records: Iterable[Mapping[str, Any]]) -> int:
    """How many of the runs depend on code that has changed since they were made."""
    return sum(bool(changed_components(record)) for record in records)


def _outdated_components(records: Iterable[Mapping[str, Any]]) -> dict[str, int]:
    """By component (loss, model, data, training, evaluation), how many runs were made with other code of it."""
    return dict(Counter(name for record in records for name in changed_components(record)))


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
    from lossatlas.metrics import dice_from_counts

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
    study: Study,
    selection: Selection | None,
    records: Mapping[str, Any],
    tuning: pd.DataFrame,
    file: str | None,
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
        "title": study.title,
        "follows": study.follows,
        "datasets": labels(study.datasets),
        "dataset_params": {dataset.label: dataset.params for dataset in study.datasets},
        "models": labels(study.models),
        "losses": [loss.model_dump() for loss in study.losses],
        "seeds": study.seeds,
        "steps": study.training.steps,
        "training": study.training.model_dump(),
        "tuning": _describe_tuning(study, selection, tuning),
        "report": study.report,
        "predictions": [prediction.model_dump() for prediction in study.predictions],
        "smallest_effect": study.smallest_effect,
        "classes": {label: record["classes"] for label, record in by_dataset.items()},
        "mode": {label: record["mode"] for label, record in by_dataset.items()},
        "data_checksums": {label: record["data_checksums"] for label, record in by_dataset.items()},
        "missing_runs": len(study.members("report")) - len(records),
        "command": f"make book STUDY={file or study.study}",
        "provenance": {
            "commit": ", ".join(sorted({record.get("commit", "") for record in records.values()})),
            "outdated_runs": outdated(records.values()),
            "outdated_components": _outdated_components(records.values()),
            "dirty": any(record.get("dirty", False) for record in records.values()),
            "code_versions": sorted({record["code_version"] for record in records.values()}),
            "created_utc": max(record["created_utc"] for record in records.values()),
            "evaluated_again": _evaluated_again(records),
            "packages": some["packages"],
            "hardware": some["hardware"],
            "train_s": round(sum(record["train_s"] for record in records.values()), 1),
            "wall_s": round(sum(record["wall_s"] for record in records.values()), 1),
        },
    }


def _evaluated_again(records: Mapping[str, Any]) -> dict[str, Any] | None:
    """How many runs were evaluated again after their training, by which code, and when; None for none."""
    again = [record["evaluated"] for record in records.values() if record.get("evaluated")]
    if not again:
        return None
    return {
        "runs": len(again),
        "commit": ", ".join(sorted({each.get("commit", "") for each in again})),
        "dirty": any(each.get("dirty", False) for each in again),
        "utc": max(each["utc"] for each in again),
    }


def _describe_tuning(
    study: Study, selection: Selection | None, tuning: pd.DataFrame
) -> dict[str, Any] | None:
    """The grid, the rule in words, and what was chosen; None where nothing was tuned."""
    if study.tuning is None or selection is None:
        return None
    return {
        **study.tuning.model_dump(),
        "rule": RULE,
        "missing_runs": int((tuning.status == "missing").sum()),
        "choices": [
            {
                "dataset": dataset,
                "model": model,
                "loss": loss,
                "optimizer": choice.optimizer,
                "lr": choice.lr,
                "val_foreground_dice_tuned": choice.score,
                "at_edge": choice.at_edge,
            }
            for (dataset, model, loss), choice in selection.items()
        ],
    }
