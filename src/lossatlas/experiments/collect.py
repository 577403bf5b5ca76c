"""From run folders to a study's records: small tables that the reports read, and nothing else does.

Records grow: what they hold already stays, and the runs that are new here are added. So a study may be trained on
several machines, one after the other.

``study.json``         what was asked, what was expected, and where the numbers come from
``runs.parquet``       a row a run that is reported, with its provenance
``per_class.parquet``  a row a run, decision rule and class, over the pooled test set
``per_image.parquet``  a row a run, decision rule, test image and class: true and false positives, the class's and the
                       image's labelled pixels; of two classes the second alone, from which the first follows
``curves.parquet``     a row a run and step, not every one of a long run; losses and gradient norms to 1 part in 4,000
``tuning.parquet``     a row a tuning run, those that are missing included (where the study tunes)
``boundary.parquet``, ``size_recall.parquet``, ``thin.parquet``  where the runs measured them
``pixels.parquet``     logits of a sample of the test pixels, the same for every run on a data set, where measured
``predictions.npz``    the test images on which the losses disagree most, first seed
"""

from __future__ import annotations

import hashlib
import json
import math
import shutil
import tempfile
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from lossatlas.basics import replacing
from lossatlas.experiments.config import ConfigError, RunConfig
from lossatlas.experiments.record import (
    CURVES,
    NoRunsError,
    is_complete,
    read_run,
    replace_folder,
    require_same_data,
    restore_folder,
    run_path,
)
from lossatlas.experiments.recorded import Recorded, recorded_runs
from lossatlas.experiments.study import Member, Study, labels
from lossatlas.experiments.tuning import (
    Selection,
    read_selection,
    rule_in_words,
    select,
    tuning_runs,
)
from lossatlas.experiments.versions import changed_components, mixed_components

SCHEMA = 3
#: Test images shown for each data set and model: those on which the losses disagree most.
SHOWN_IMAGES = 6
#: Decision rules beside the largest logit; their columns carry the rule's name.
RULES = ("tuned", "theory")
#: The same of runs that measured it.
MEASURED_RULES = ("plug_in", "oracle")
#: What ``runs.parquet`` has of each of them.
_BY_RULE = ("foreground_dice", "foreground_iou", "mean_precision", "mean_recall", "volume_ratio")
_VALIDATION = ("foreground_dice", "foreground_dice_tuned", "constant_dice")
_CALIBRATION = ("ece", "ece_foreground", "nll", "brier")
#: Steps of a run that ``curves.parquet`` keeps beside those at which something was measured.
_CURVE_ROWS = 400
#: Rows of a study's ``curves.parquet`` to aim at, so that a large study stays within what a repository can carry:
#: beside them every step with a measurement, at least 25 a run, and runs of other records as those have them.
_STUDY_CURVE_ROWS = 20_000
#: What differs at every step is kept to so many bits, about 1 part in 4,000: noise fills a repository otherwise.
_NOISY, _NOISY_BITS = ("loss_value", "grad_norm"), 11
#: Runs whose largest tables are in memory together.
_RUNS_AT_A_TIME = 64
_INT32 = ("class_index", "tp", "fp", "fn", "target", "pixels", "step", "epoch")


@dataclass(frozen=True)
class Found:
    """One run of the study: its folder, or else what records hold of it.

    Attributes:
        member, config: the run, by its labels and by its configuration.
        record: ``run.json``; None where the run has no folder here.
        recorded: its place in committed records; None where the run has a folder.
    """

    member: Member
    config: RunConfig
    record: Mapping[str, Any] | None = None
    recorded: Recorded | None = None

    @property
    def key(self) -> dict[str, Any]:
        """The columns that every table of the records begins with."""
        return {
            "run_id": self.config.run_id,
            "dataset": self.member.dataset,
            "model": self.member.model,
            "loss": self.member.loss,
            "seed": self.member.seed,
        }


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

    A run with a folder is taken from there; one without stays as the records have it, those of another study
    included. Runs that are missing are left out and counted in ``study.json``. The records are replaced as a whole,
    and only if the set of runs has changed: what depends on them is not made again for nothing.

    Args:
        study: as read.
        runs_dir: the folder of the run folders.
        results_dir: the folder of the records.
        file: how the study was named on the command line, for the command in the records.
        mixed: take runs of different versions together; ``study.json`` and the column ``code`` then say which.
        fewer: replace records that have runs which the study no longer asks for.

    Returns:
        the folder of the records.

    Raises:
        MixedCodeError: some runs were made with other versions than others, and ``mixed`` is not given.
        FewerRunsError: the records have runs which the study no longer asks for, and ``fewer`` is not given.
        NoRunsError: not one run that the study reports is there. Its tuning runs are recorded all the same, so that
            another machine can go on.
        ConfigError: runs on one data set were made with different images or masks, or with another test set than
            that of today.
    """
    folder = Path(results_dir) / study.study
    restore_folder(folder)
    there = _gather(study, runs_dir, results_dir)
    runs, tuning, selection, table = there.runs, there.tuning, there.selection, there.table
    if not runs:
        _record_tuning(folder, tuning)
    refused = _refusal(study, there, folder, runs_dir, file or study.study, mixed, fewer)
    if refused is not None:
        raise refused
    fingerprint = _fingerprint(study, table, tuning, file)
    if _is_current(folder, fingerprint):
        return folder

    from lossatlas.data.errors import require_writable  # imports torch

    require_writable("records", folder.parent, "or name another folder with --results-dir")
    folder.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(prefix=f".{study.study}-", dir=folder.parent))
    try:
        _save(table, temporary / "runs.parquet")
        _save(_per_class_table(runs), temporary / "per_class.parquet")
        for name in ("boundary", "size_recall", "thin"):
            rows = _rows(runs, name)
            if len(rows):
                _save(rows, temporary / f"{name}.parquet")
        pixels = _pixels(runs if study.keep_pixels else [], runs_dir)
        if len(pixels):
            _save(pixels, temporary / "pixels.parquet")
        if study.tuning:
            _save(tuning, temporary / "tuning.parquet")
        kept = (lambda counts: counts) if study.keep_each_image else _groups_as_images
        _stack(
            *(runs_dir, runs, "per_image.parquet", temporary),
            lambda counts: _small(_with_target(_of_two(kept(counts)))),
            _image_by_image,
        )
        rows_a_run = max(25, min(_CURVE_ROWS, _STUDY_CURVE_ROWS // len(study.members("report"))))
        _stack(
            *(runs_dir, runs, "curves.parquet", temporary),
            lambda curve: _small(_thin(curve, rows_a_run)),
        )
        np.savez_compressed(
            temporary / "predictions.npz", **_predictions(study, runs, runs_dir, folder)
        )
        description = _describe(study, selection, runs, table, tuning, file)
        description["provenance"]["mixed_code"] = there.different
        (temporary / "study.json").write_text(
            json.dumps(description | {"fingerprint": fingerprint}, indent=1) + "\n"
        )
        temporary.chmod(0o755)
        replace_folder(temporary, folder)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return folder


@dataclass(frozen=True)
class _Gathered:
    """What there is of a study, in run folders and in records, before anything is written.

    Attributes:
        runs: those that the study reports, and ``table`` a row each; empty where there are none.
        tuning: a row a tuning run, those that are missing included.
        different: by component the versions that do not go together, with their runs; empty where all do.
        other_data: why runs on one data set do not go together; None where all do.
    """

    selection: Selection | None
    runs: list[Found]
    table: pd.DataFrame
    tuning: pd.DataFrame
    different: Mapping[str, Mapping[Any, int]]
    other_data: str | None


def _gather(study: Study, runs_dir: str | Path, results_dir: str | Path) -> _Gathered:
    recorded = recorded_runs(results_dir, study.study, stale=True)
    # a study that tunes chooses again, from what its runs are worth now
    selection = (select if study.tuning else read_selection)(study, runs_dir, recorded)
    runs = _find(study.reporting_runs(selection), runs_dir, recorded)
    wanted = tuning_runs(study, runs_dir, recorded)
    tried = _find(wanted, runs_dir, recorded)
    tuning = _tuning_table(study, selection, wanted, tried)
    table = _runs_table(study, runs)
    of_tuning = tuning[tuning.status != "missing"] if len(tuning) else tuning
    both = pd.concat([table, of_tuning], ignore_index=True)
    different = mixed_components(_codes(both)) if len(both) else {}
    return _Gathered(
        selection, runs, table, tuning, different, _other_data([*runs, *tried], runs_dir)
    )


@dataclass(frozen=True)
class Preview:
    """What :func:`collect` would do to a study's records, in runs that it reports.

    Attributes:
        kept: they hold these already, as they are.
        renewed: they hold these, and their rows would change: the runs were trained or evaluated again since.
        added: new to them.
        lost: they hold these, and the study no longer asks for them, or tuning chose another rate.
        missing: not there yet, neither as a folder nor in records.
        refused: why collecting would refuse: no run, or ``mixed`` or ``fewer`` not given; None where it would not.
    """

    kept: int
    renewed: int
    added: int
    lost: int
    missing: int
    refused: str | None = None


def preview(
    study: Study,
    *,
    runs_dir: str | Path = "runs",
    results_dir: str | Path = "results",
    file: str | None = None,
    mixed: bool = False,
    fewer: bool = False,
) -> Preview:
    """What :func:`collect` would do with the same arguments; writes nothing.

    Test sets are not loaded: that a run's is another than today's is found by collecting.
    """
    folder = Path(results_dir) / study.study
    there = _gather(study, runs_dir, results_dir)
    times = _times(there.table) if there.runs else {}
    before = _recorded_times(folder)
    shared = times.keys() & before.keys()
    renewed = sum(times[run] != before[run] for run in shared)
    refused = _refusal(study, there, folder, runs_dir, file or study.study, mixed, fewer)
    return Preview(
        kept=len(shared) - renewed,
        renewed=renewed,
        added=len(times.keys() - before.keys()),
        lost=len(before.keys() - times.keys()),
        missing=len(study.members("report")) - len(there.runs),
        refused=None if refused is None else str(refused),
    )


def _refusal(
    study: Study,
    there: _Gathered,
    folder: Path,
    runs_dir: str | Path,
    name: str,
    mixed: bool,
    fewer: bool,
) -> ConfigError | NoRunsError | None:
    """Why the runs do not become the records of the folder; None where they do."""
    if not there.runs:
        return NoRunsError(_no_runs(study, folder, there.tuning, runs_dir, name))
    if there.other_data:
        return ConfigError(there.other_data)
    if there.different and not mixed:
        return MixedCodeError(study, name, there.different)
    lost = _recorded_times(folder).keys() - set(there.table.run_id)
    return FewerRunsError(folder, lost, name) if lost and not fewer else None


def _record_tuning(folder: Path, tuning: pd.DataFrame) -> None:
    """Record the tuning alone, if it has begun, so that another machine can go on."""
    if _count_tuned(tuning):
        folder.mkdir(parents=True, exist_ok=True)
        with replacing(folder / "tuning.parquet") as temporary:
            _save(tuning, temporary)


def _count_tuned(tuning: pd.DataFrame) -> int:
    return int((tuning.status != "missing").sum()) if len(tuning) else 0


def _no_runs(
    study: Study, folder: Path, tuning: pd.DataFrame, runs_dir: str | Path, name: str
) -> str:
    """What to say where not one run that the study reports is there."""
    tried = _count_tuned(tuning)
    kept = f"; {tried} of its {len(tuning)} tuning runs are recorded in {folder}" if tried else ""
    return (
        f"no run of study {study.study!r} in {runs_dir}/{kept}: run `lossatlas run {name}`"
        f"{', which goes on from there' if tried else ' first'}"
    )


def _find(
    wanted: Iterable[tuple[Member, RunConfig]],
    runs_dir: str | Path,
    recorded: Mapping[str, Recorded],
) -> list[Found]:
    """The runs that are there, in the order of the study; a folder comes before a record."""
    found = []
    for member, config in wanted:
        if is_complete(runs_dir, config):
            found.append(Found(member, config, record=read_run(run_path(runs_dir, config))))
        elif config.run_id in recorded:
            found.append(Found(member, config, recorded=recorded[config.run_id]))
    return found


def _codes(table: pd.DataFrame) -> list[dict[str, Any]]:
    """The configuration and the versions of every row, as :mod:`versions` reads them."""
    return [
        {"config": json.loads(config), "code": json.loads(code)}
        for config, code in zip(table["config"], table["code"], strict=True)
    ]


class MixedCodeError(ConfigError):
    """Runs of one study were made with different code: together they would compare code, not losses."""

    def __init__(self, study: Study, file: str, different: Mapping[str, Mapping[Any, int]]) -> None:
        what = "; ".join(
            f"{component}: {' and '.join(map(str, versions.values()))} runs"
            for component, versions in different.items()
        )
        remedy = (
            f"`lossatlas evaluate {file}` re-evaluates those of another version than today's and trains nothing"
            if set(different) == {"evaluation"}
            else f"`lossatlas run --stale {file}` retrains those of another version than today's"
        )
        super().__init__(
            f"study {study.study}: expected runs of one version of the code, got several ({what}): {remedy}, "
            f"`lossatlas collect --mixed {file}` takes them together and marks them"
        )


class FewerRunsError(ConfigError):
    """Records would lose runs that the study no longer asks for."""

    def __init__(self, folder: Path, lost: Collection[str], file: str) -> None:
        some = ", ".join(sorted(lost)[:3]) + (", …" if len(lost) > 3 else "")
        super().__init__(
            f"{folder}: expected the study to ask for every run that its records hold, it does not ask for "
            f"{len(lost)} of them ({some}); the records were left as they are: mend the study, or "
            f"`lossatlas collect --fewer {file}` drops those runs"
        )


def _times(table: pd.DataFrame) -> dict[str, tuple[str, str]]:
    """When each run of a table was trained, and when it was last evaluated."""
    columns = (table[name].astype(str) for name in ("run_id", "created_utc", "evaluated_utc"))
    return {run: (trained, evaluated) for run, trained, evaluated in zip(*columns, strict=True)}


def _recorded_times(folder: Path) -> dict[str, tuple[str, str]]:
    """:func:`_times` of the records of a folder; none where there are none that can be read."""
    columns = ["run_id", "created_utc", "evaluated_utc"]
    try:
        return _times(pq.read_table(folder / "runs.parquet", columns=columns).to_pandas())
    except (OSError, pa.ArrowInvalid):
        return {}


def _fingerprint(study: Study, table: pd.DataFrame, tuning: pd.DataFrame, file: str | None) -> str:
    """Changes when the records would: with the study, its runs, or the versions that they are compared with."""
    # a choice that is the default stays out: records from before there was a choice are the same ones
    defaults = {"keep_pixels": True, "keep_each_image": True, "left_out": {}}
    out = {"published"} | {
        name for name, value in defaults.items() if getattr(study, name) == value
    }
    content = [
        SCHEMA,
        study.model_dump(exclude=out),
        table[["run_id", "created_utc", "evaluated_utc"]].to_numpy().tolist(),
        tuning.to_json(),
        _outdated_components(table),
        file,
    ]
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()


def _is_current(folder: Path, fingerprint: str) -> bool:
    try:
        return json.loads((folder / "study.json").read_text())["fingerprint"] == fingerprint
    except (OSError, ValueError, KeyError):
        return False


def _runs_table(study: Study, runs: Sequence[Found]) -> pd.DataFrame:
    """A row a run; of a recorded run the row that is there, under the labels of this study."""
    names = {loss.label: loss.name for loss in study.losses}
    rows = []
    for run in runs:
        own = run.key | {
            "loss_name": names[run.member.loss],
            **study.factors(run.member.combination),
        }
        rows.append(own | (_row(run) if run.record else _recorded_row(run, own)))
    return pd.DataFrame(rows)


def _recorded_row(run: Found, own: Mapping[str, Any]) -> dict[str, Any]:
    """The row of a run as records hold it, without the columns that the study gives it."""
    assert run.recorded is not None
    return {str(k): v for k, v in run.recorded.row.items() if k not in own}


def _row(run: Found) -> dict[str, Any]:
    record = run.record
    assert record is not None
    return {
        "status": record["status"],
        "steps": run.config.steps,
        "optimizer": run.config.optimizer,
        "lr": run.config.lr,
        "wall_s": record["wall_s"],
        "train_s": record["train_s"],
        "peak_memory_mb": record["peak_memory_mb"],
        "parameters": record["parameters"],
        **record["metrics"],
        **{name: record.get("calibration", {}).get(name, math.nan) for name in _CALIBRATION},
        **_by_rule(record),
        **{f"val_{k}": record.get("validation", {}).get(k, math.nan) for k in _VALIDATION},
        "final_loss": record["final_loss"],
        **_health(record),
        **_provenance(record),
        "config": json.dumps(record["config"], sort_keys=True),
    }


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
    for rule in (*RULES, *MEASURED_RULES):
        metrics = rules.get(rule, {}).get("metrics", {})
        if metrics or rule in RULES:
            columns |= {f"{name}_{rule}": metrics.get(name, math.nan) for name in _BY_RULE}
    for rule in RULES:
        columns[f"offsets_{rule}"] = json.dumps(rules.get(rule, {}).get("offsets"))
    columns["theory_version"] = record.get("theory_version", 1)
    return columns


def _provenance(record: Mapping[str, Any]) -> dict[str, Any]:
    """Where one run comes from, in columns; packages and hardware as JSON, alike in most rows."""
    trained = {"utc": record["created_utc"], "commit": record.get("commit", "")}
    evaluated = record.get("evaluated", trained)
    return {
        "created_utc": record["created_utc"],
        "evaluated_utc": evaluated["utc"],
        "evaluated_commit": evaluated.get("commit", ""),
        "commit": record.get("commit", ""),
        "dirty": bool(record.get("dirty", False)),
        "code": json.dumps(record.get("code") or {}, sort_keys=True),
        "packages": json.dumps(record["packages"], sort_keys=True),
        "hardware": json.dumps(record["hardware"], sort_keys=True),
        "energy_j": record.get("energy_j") or math.nan,
        "interruptions": record.get("interruptions", 0),
        "hashes": json.dumps(record.get("hashes", {}), sort_keys=True),
    }


def _per_class_table(runs: Sequence[Found]) -> pd.DataFrame:
    """Argmax first, then the other rules, as ``per_image`` has them."""

    def of_record(run: Found, record: Mapping[str, Any]) -> pd.DataFrame:
        by_rule = {"argmax": record["per_class"]}
        for rule in (*RULES, *MEASURED_RULES):
            by_rule[rule] = record.get("rules", {}).get(rule, {}).get("per_class", [])
        return pd.DataFrame({"rule": rule} | row for rule, rows in by_rule.items() for row in rows)

    return _together(runs, "per_class", of_record)


def _rows(runs: Sequence[Found], name: str) -> pd.DataFrame:
    """The rows that every record lists under ``name``; none where nothing was measured."""
    return _together(runs, name, lambda _, record: pd.DataFrame(record.get(name) or []))


def _pixels(runs: Sequence[Found], runs_dir: str | Path) -> pd.DataFrame:
    """The sampled pixels of every run that measured them; none where none did."""

    def of_folder(run: Found, _: Mapping[str, Any]) -> pd.DataFrame:
        path = run_path(runs_dir, run.config) / "pixels.parquet"
        return pd.read_parquet(path) if path.is_file() else pd.DataFrame()

    return _together(runs, "pixels", of_folder)


def _together(
    runs: Sequence[Found], name: str, own: Callable[[Found, Mapping[str, Any]], pd.DataFrame]
) -> pd.DataFrame:
    """One table of all runs, each row with its run's key in front: ``own`` rows, or those that records hold."""
    tables = [
        _recorded_rows(run, name) if run.record is None else _keyed(run, own(run, run.record))
        for run in runs
    ]
    filled = [table for table in tables if len(table)]
    return pd.concat(filled, ignore_index=True) if filled else pd.DataFrame()


def _keyed(run: Found, rows: pd.DataFrame) -> pd.DataFrame:
    for position, (column, value) in enumerate(run.key.items()):
        rows.insert(position, column, value)
    return rows


def _recorded_rows(run: Found, name: str) -> pd.DataFrame:
    """The rows of a run in a table of the records that hold it, under the labels of this study."""
    assert run.recorded is not None
    rows = _by_run(run.recorded.folder / f"{name}.parquet").get(run.config.run_id)
    if rows is None:
        return pd.DataFrame()
    return _keyed(run, _with_target(rows.drop(columns=list(run.key))))


@lru_cache(maxsize=8)
def _tables(path: Path, _changed: int) -> dict[str, pd.DataFrame]:
    return {str(run): rows for run, rows in pd.read_parquet(path).groupby("run_id", sort=False)}


def _by_run(path: Path) -> dict[str, pd.DataFrame]:
    """A table of records, by run; empty where there is none. Kept between calls while the file is the same."""
    return _tables(path, path.stat().st_mtime_ns) if path.is_file() else {}


def _tuning_table(
    study: Study,
    selection: Selection | None,
    wanted: Iterable[tuple[Member, RunConfig]],
    runs: Sequence[Found],
) -> pd.DataFrame:
    """Every tuning run: the sensitivity to the learning rate is a result of its own."""
    there = {run.config.run_id: run for run in runs}
    rows = []
    for member, config in wanted:
        run = there.get(config.run_id, Found(member, config))
        choice = selection.get(member.combination) if selection is not None else None
        rows.append(
            {
                **{k: v for k, v in run.key.items() if k not in ("seed", "run_id")},
                **study.factors(member.combination),
                "optimizer": config.optimizer,
                "lr": config.lr,
                "seed": member.seed,
                "run_id": config.run_id,
                "steps": config.steps,
                **_tried(run),
                "chosen": choice is not None
                and (choice.optimizer, choice.lr) == (config.optimizer, config.lr),
            }
        )
    return pd.DataFrame(rows)


def _tried(run: Found) -> dict[str, Any]:
    """How a tuning run ended, and where it comes from."""
    made = _row(run) if run.record else _recorded_row(run, {}) if run.recorded else {}
    columns = ("created_utc", "evaluated_utc", "commit", "code", "config", "wall_s", "hardware")
    return {
        "status": made.get("status", "missing"),
        **{f"val_{name}": made.get(f"val_{name}", math.nan) for name in _VALIDATION},
        "began": made.get("began"),
        **{name: made.get(name) for name in columns},
    }


def _stack(
    runs_dir: str | Path,
    runs: Sequence[Found],
    name: str,
    folder: Path,
    change: Callable[[pd.DataFrame], pd.DataFrame],
    order: Callable[[pd.DataFrame], pd.DataFrame] = lambda rows: rows,
) -> None:
    """Write the runs' tables of one name below each other, each row with its run's key in front.

    A few runs at a time, in an order of their own, so that the memory does not grow with the study. A column that an
    older run lacks is empty in its rows.
    """

    def read(run: Found) -> pd.DataFrame:
        if run.record is None:  # the tables of records have been through ``change``
            return _recorded_rows(run, Path(name).stem)
        return _keyed(run, change(pd.read_parquet(run_path(runs_dir, run.config) / name)))

    kinds: dict[Any, Found] = {}  # a run of each kind of table
    for run in runs:
        there = None if run.recorded is None else run.recorded.folder
        kind = there or tuple(pq.read_schema(run_path(runs_dir, run.config) / name).names)
        kinds.setdefault(kind, run)
    columns = list(dict.fromkeys(column for run in kinds.values() for column in read(run)))

    writer: pq.ParquetWriter | None = None
    try:
        for start in range(0, len(runs), _RUNS_AT_A_TIME):
            tables = [read(run) for run in runs[start : start + _RUNS_AT_A_TIME]]
            filled = [table for table in tables if len(table)] or tables[:1]
            together = _small(pd.concat(filled, ignore_index=True).reindex(columns=columns))
            rows = pa.Table.from_pandas(order(together), preserve_index=False)
            writer = writer or pq.ParquetWriter(
                folder / name, rows.schema, **_how_to_write(rows.schema)
            )
            writer.write_table(rows.cast(writer.schema))
    finally:
        if writer is not None:
            writer.close()


def _thin(curve: pd.DataFrame, rows: int = _CURVE_ROWS) -> pd.DataFrame:
    """At most about ``rows`` evenly spaced steps, and every step at which something was measured."""
    every = -(-len(curve) // rows)
    measured = curve.reindex(columns=["val_mean_dice", "foreground_share"]).notna().any(axis=1)
    kept = curve[(curve.step % max(1, every) == 0) | measured | (curve.step == 1)]
    return kept.assign(
        **{name: _rounded(kept[name], _NOISY_BITS) for name in _NOISY if name in kept}
    )


def _rounded(values: pd.Series, bits: int) -> np.ndarray:
    """The nearest float32 with so many bits after the first; the others are 0, and a file packs them to nothing.

    Numbers below 1e-38 lose more, and the largest become infinite.

    >>> _rounded(pd.Series([1.0, 1.3, float("inf")]), 2)
    array([1.  , 1.25,  inf], dtype=float32)
    """
    single = values.to_numpy(np.float32)
    unit = np.uint32(1 << 23 - bits)
    nearest = ((single.view(np.uint32) + unit // 2) // unit * unit).view(np.float32)
    return np.where(np.isfinite(single), nearest, single)


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


def _groups_as_images(counts: pd.DataFrame) -> pd.DataFrame:
    """Counts of each rule, class and group of images in the place of those of each image."""
    keys = ["rule", "group", "class_index"]
    sums = counts.groupby(keys, sort=False)[["tp", "fp", "fn"]].sum().reset_index()
    sums.insert(1, "image_id", sums.group)
    return sums


def _with_target(rows: pd.DataFrame) -> pd.DataFrame:
    """Counts with the class's labelled pixels in the place of its false negatives; other tables as they are.

    The labelled pixels of an image are the same in every run, which compresses to nothing.
    """
    if "fn" not in rows:
        return rows
    return rows.assign(fn=rows.tp + rows.fn).rename(columns={"fn": "target"})


def _image_by_image(rows: pd.DataFrame) -> pd.DataFrame:
    """Rows of the same image below each other: the runs' counts of one image are alike, and compress to two thirds."""
    keys = ("dataset", "model", "rule", "class_index", "image_id")
    places = [pd.factorize(rows[name])[0] for name in keys if name in rows]
    return rows.iloc[np.lexsort(places[::-1])]


def _small(table: pd.DataFrame) -> pd.DataFrame:
    """Counts and curves need no more than 32 bits."""
    kinds = dict.fromkeys(CURVES, np.float32) | dict.fromkeys(_INT32, np.int32)
    return table.astype({name: kinds[name] for name in table.columns if name in kinds})


def _how_to_write(schema: pa.Schema) -> dict[str, Any]:
    """Options of Parquet: the bytes of floats are split, which compresses curves to three fifths."""
    floats = [field.name for field in schema if pa.types.is_floating(field.type)]
    return {
        "compression": "zstd",
        "compression_level": 19,
        "use_dictionary": [name for name in schema.names if name not in floats],
        "column_encoding": dict.fromkeys(floats, "BYTE_STREAM_SPLIT"),
    }


def _save(table: pd.DataFrame, path: Path) -> None:
    schema = pa.Schema.from_pandas(table, preserve_index=False)
    table.to_parquet(path, index=False, **_how_to_write(schema))


def _predictions(
    study: Study, runs: Sequence[Found], runs_dir: str | Path, folder: Path
) -> dict[str, Any]:
    """Images, truth and every loss's prediction (first seed, largest logit) where the losses disagree most.

    Where some of the runs are in the records alone, the images are those that the records show. None where the
    study keeps no images.
    """
    if not study.keep_images:
        return {}
    # what needs torch waits until here: records that are up to date are told from others without it
    from lossatlas.experiments.components import has_background, load_datasets

    arrays: dict[str, Any] = {}
    before = _load_arrays(folder / "predictions.npz")
    first_seed = study.seeds[0]
    for dataset in labels(study.datasets):
        test_set: Any = None
        for model in labels(study.models):
            prefix = f"{dataset}/{model}"
            panel = (dataset, model, first_seed)
            of_panel = [
                run for run in runs if (*run.member.combination[:2], run.member.seed) == panel
            ]
            kept = {
                run.member.loss: before[f"{prefix}/{run.member.loss}"]
                for run in of_panel
                if run.record is None and f"{prefix}/{run.member.loss}" in before
            }
            here = {run.member.loss: run.config for run in of_panel if run.record is not None}
            if here and test_set is None:
                some = next(iter(here.values()))
                test_set = load_datasets(some, splits=("test",))["test"]
            require_same_data(runs_dir, here.values(), {"test": test_set})
            if kept:
                for name in ("images", "targets", "ids"):
                    arrays[f"{prefix}/{name}"] = before[f"{prefix}/{name}"]
                arrays |= {f"{prefix}/{loss}": shown for loss, shown in kept.items()}
            elif here:
                counts = pd.concat(
                    pd.read_parquet(run_path(runs_dir, config) / "per_image.parquet").assign(
                        loss=loss
                    )
                    for loss, config in here.items()
                )
                if "rule" in counts:
                    counts = counts[counts.rule == "argmax"]
                chosen = disagreement(counts, test_set.ids, has_background(test_set.classes))
                chosen = chosen[:SHOWN_IMAGES]
                arrays[f"{prefix}/images"] = np.asarray(test_set.images[chosen])
                arrays[f"{prefix}/targets"] = np.asarray(test_set.labels[chosen])
                arrays[f"{prefix}/ids"] = np.asarray([test_set.ids[i] for i in chosen])
            for loss, config in here.items():
                shown = [list(test_set.ids).index(str(i)) for i in arrays[f"{prefix}/ids"]]
                with np.load(run_path(runs_dir, config) / "predictions.npz") as saved:
                    arrays[f"{prefix}/{loss}"] = saved["predictions"][shown]
    return arrays


def _load_arrays(path: Path) -> dict[str, np.ndarray]:
    if not path.is_file():
        return {}
    with np.load(path, allow_pickle=False) as saved:
        return dict(saved)


def _outdated_components(table: pd.DataFrame) -> dict[str, int]:
    """By component (loss, model, data, training, evaluation), how many runs were made with another version of it."""
    return dict(Counter(name for run in _codes(table) for name in changed_components(run)))


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
    runs: Sequence[Found],
    table: pd.DataFrame,
    tuning: pd.DataFrame,
    file: str | None,
) -> dict[str, Any]:
    """What a report says of the study, and where its numbers come from."""
    a_run_on: dict[str, Found] = {}
    for run in runs:
        a_run_on.setdefault(run.member.dataset, run)
    latest = table.sort_values("created_utc", kind="stable").iloc[-1]
    return {
        "schema": SCHEMA,
        "study": study.study,
        "question": study.question,
        "title": study.title,
        "datasets": labels(study.datasets),
        "dataset_params": {dataset.label: dataset.params for dataset in study.datasets},
        "models": labels(study.models),
        "places": [
            {"dataset": dataset, "model": model, **study.factors((dataset, model, loss))}
            for dataset, model, loss in study.combinations()
            if loss == study.losses[0].label
        ],
        "losses": [loss.model_dump() for loss in study.losses],
        "seeds": study.seeds,
        "steps": study.training.steps,
        "training": study.training.model_dump(),
        "tuning": _describe_tuning(study, selection, tuning),
        "predictions": [prediction.model_dump(by_alias=True) for prediction in study.predictions],
        "smallest_effect": study.smallest_effect,
        "pool": study.pool,
        "left_out": study.left_out,
        "keep_each_image": study.keep_each_image,
        **{
            name: {label: _data_of(run)[name] for label, run in a_run_on.items()}
            for name in ("classes", "mode", "data_checksums")
        },
        "missing_runs": len(study.members("report")) - len(runs),
        "command": f"make book STUDY={file or study.study}",
        "provenance": {
            "commit": ", ".join(sorted(set(table.commit))),
            "outdated_runs": sum(bool(changed_components(run)) for run in _codes(table)),
            "outdated_components": _outdated_components(table),
            "dirty": bool(table.dirty.any()),
            "created_utc": max(table.created_utc),
            "evaluated_again": _evaluated_again(table),
            "packages": json.loads(latest.packages),
            "hardware": json.loads(latest.hardware),
            "train_s": round(float(table.train_s.sum()), 1),
            "wall_s": round(float(table.wall_s.sum()), 1),
        },
    }


def _data_of(run: Found) -> dict[str, Any]:
    """The classes, the mode and the checksums of a run's data set, as far as they are recorded."""
    names = ("classes", "mode", "data_checksums")
    if run.recorded is None:
        return {k: v for k, v in (run.record or {}).items() if k in names}
    study = _read_json(run.recorded.folder / "study.json")
    there = run.recorded.row["dataset"]
    return {k: study[k][there] for k in names if there in study.get(k, {})}


def _read_json(path: Path) -> dict[str, Any]:
    """A file of records; {} where there is none. Kept between calls while the file is the same."""
    return _parsed(path, path.stat().st_mtime_ns) if path.is_file() else {}


@lru_cache(maxsize=64)
def _parsed(path: Path, _changed: int) -> dict[str, Any]:
    content: dict[str, Any] = json.loads(path.read_text())
    return content


def _other_data(runs: Sequence[Found], runs_dir: str | Path) -> str | None:
    """Why runs on one data set do not go together: they were made with different images or masks.

    A data set that other code reads is another one as well, which is told as mixed code.
    """
    groups: dict[tuple[str, Any], dict[str, list[Found]]] = {}
    for run in runs:
        made = run.record if run.recorded is None else run.recorded.record
        checksums = json.dumps(_data_of(run).get("data_checksums"), sort_keys=True)
        if made is not None and checksums != "null":
            place = (run.member.dataset, (made.get("code") or {}).get("data"))
            groups.setdefault(place, {}).setdefault(checksums, []).append(run)
    for (dataset, _), by_checksums in groups.items():
        newest, *older = sorted(by_checksums.values(), key=_latest, reverse=True)
        if older:
            from lossatlas.data.errors import shorten  # imports torch

            places = dict.fromkeys(
                run_path(runs_dir, run.config) if run.recorded is None else run.recorded.folder
                for group in older
                for run in group
            )
            return (
                f"data set {dataset}: expected runs on the same images and masks, got other ones in {shorten(places)} "
                f"than in {run_path(runs_dir, newest[0].config)}: delete the older runs and run the study again, or "
                "bring their data back and delete the newer ones"
            )
    return None


def _latest(runs: Sequence[Found]) -> str:
    """When the newest of the runs was trained."""
    return max(
        str(((run.record or {}) if run.recorded is None else run.recorded.row).get("created_utc"))
        for run in runs
    )


def _evaluated_again(table: pd.DataFrame) -> dict[str, Any] | None:
    """How many runs were evaluated again after their training, by which code, and when; None for none."""
    again = table[table.evaluated_utc != table.created_utc]
    if not len(again):
        return None
    return {
        "runs": len(again),
        "commit": ", ".join(sorted(set(again.evaluated_commit.fillna("")))),
        "utc": max(again.evaluated_utc),
    }


def _describe_tuning(
    study: Study, selection: Selection | None, tuning: pd.DataFrame
) -> dict[str, Any] | None:
    """The grid, the rule in words, and what was chosen; None where nothing was tuned."""
    if study.tuning is None or selection is None:
        return None
    return {
        **study.tuning.model_dump(),
        "rule": rule_in_words(study),
        "missing_runs": int((tuning.status == "missing").sum()),
        "choices": selection.rows("val_foreground_dice_tuned"),
    }
