"""A study's records, read and checked: the only thing that reports know of the experiments.

A folder of records holds ``study.json`` (what was asked, and where the numbers come from),
``runs.parquet`` (a row a run), ``per_class.parquet``, ``per_image.parquet`` and ``curves.parquet``
(each row with its run's key), and ``predictions.npz``. The tables of classes and images say ``rule``
(``argmax``, ``tuned`` on validation, ``theory``). Where the study tuned the learning rates there is
``tuning.parquet``.
"""

from __future__ import annotations

import difflib
import itertools
import json
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from lossatlas.report import style
from lossatlas.statistics.counts import METRICS, metric_of_seeds, pooled_metric

#: Version of the records that this code reads.
SCHEMA = 3
#: Decision rules: the largest logit (p > ½ for one sigmoid), tuned on validation, theory's; and, where runs measured
#: them, the best of each image under calibrated posteriors, and the best on the test split itself, which is a bound.
RULES = ("argmax", "tuned", "theory", "plug_in", "oracle")

_KEY = ["run_id", "dataset", "model", "loss", "seed"]
_PART = ["dataset", "model"]
_COLUMNS = {
    "runs": [
        *_KEY,
        *("loss_name", "status", "steps", "wall_s", "train_s", "peak_memory_mb", "parameters"),
        *("mean_iou", "mean_dice", "foreground_iou", "foreground_dice", "pixel_accuracy"),
        *("mean_precision", "mean_recall", "mean_dice_per_image", "constant_dice", "final_loss"),
        "config",
    ],
    "per_class": [
        *_KEY,
        *("rule", "class_index", "class_name", "iou", "dice", "precision", "recall"),
        "target_fraction",
    ],
    "per_image": [
        *_KEY,
        *("rule", "image_id", "group", "class_index", "tp", "fp", "fn", "pixels"),
    ],
    "curves": [
        *_KEY,
        *("step", "epoch", "loss_value", "grad_norm", "lr", "val_mean_dice", "val_mean_iou"),
    ],
}
_TUNING_COLUMNS = [
    *("dataset", "model", "loss", "optimizer", "lr", "seed", "run_id", "status"),
    *("val_foreground_dice", "val_foreground_dice_tuned", "chosen"),
]
_STUDY_KEYS = (
    *("schema", "study", "question", "datasets", "models", "losses", "seeds", "steps"),
    *("provenance", "classes", "mode", "command", "missing_runs"),
)
_IPYTHON_NAMES = frozenset({"In", "Out"})


class RecordsError(ValueError):
    """Records that cannot be read: says what was expected, what is there, and what to do."""

    def _render_traceback_(self) -> list[str]:
        # IPython's hook: a notebook shows this line in place of a traceback through our own code.
        return [f"RecordsError: {self}"]


@dataclass(frozen=True)
class Part:
    """One data set and one model of a study, under every loss that has a finished run.

    Attributes
    ----------
    losses
        Labels of the losses, in the book's order.
    seeds
        For each loss its seeds, ascending.
    classes
        Names of the classes; class 0 is "background" where there is one.
    image_ids, groups
        Test images and the group (video, patient) of each.
    counts
        For each loss true positives, false positives and false negatives by the rule ``argmax``,
        shape (seeds, images, classes, 3).
    by_rule
        The same counts by every rule that the records have, ``argmax`` among them.
    runs, curves
        The rows of the tables that belong to this part.
    images, targets, shown_ids, predictions
        Contested test images: uint8 (K, H, W, C) and (K, H, W), their ids, and each loss's
        predicted classes (K, H, W); empty where there are none.
    styles
        Line style of each loss.
    """

    dataset: str
    model: str
    losses: list[str]
    seeds: dict[str, list[int]]
    classes: list[str]
    image_ids: list[str]
    groups: list[str]
    counts: dict[str, np.ndarray]
    runs: pd.DataFrame
    per_class: pd.DataFrame
    curves: pd.DataFrame
    styles: dict[str, dict[str, Any]]
    images: np.ndarray = field(repr=False, default_factory=lambda: np.zeros((0, 1, 1, 1), np.uint8))
    targets: np.ndarray = field(repr=False, default_factory=lambda: np.zeros((0, 1, 1), np.uint8))
    shown_ids: list[str] = field(default_factory=list)
    predictions: dict[str, np.ndarray] = field(repr=False, default_factory=dict)
    by_rule: dict[str, dict[str, np.ndarray]] = field(repr=False, default_factory=dict)

    @property
    def foreground(self) -> list[int]:
        """Indices of the classes that means are over: all but a background."""
        return list(range(1 if self.classes[0] == "background" else 0, len(self.classes)))

    @property
    def fractions(self) -> np.ndarray:
        """(C,) part of the test set's labelled pixels that each class has."""
        counts = next(iter(self.counts.values()))[0]
        pixels = counts[..., [0, 2]].sum((0, 2)).astype(float)
        return pixels / max(pixels.sum(), 1.0)

    @property
    def by_rarity(self) -> list[int]:
        """Foreground classes from the most to the least frequent."""
        fractions = self.fractions
        return sorted(self.foreground, key=lambda index: (-fractions[index], index))

    @property
    def constant_dice(self) -> float:
        """Mean Dice of the best constant prediction."""
        return float(self.runs.constant_dice.mean())

    @property
    def title(self) -> str:
        """Markdown words for headings and captions."""
        return f"`{self.model}` on `{self.dataset}`"

    def run(self, loss: str, seed: int) -> pd.Series:
        """The row of one run."""
        return self.runs[(self.runs.loss == loss) & (self.runs.seed == seed)].iloc[0]


@dataclass(frozen=True)
class Records:
    """A study's records, checked."""

    folder: Path
    study: dict[str, Any]
    runs: pd.DataFrame
    per_class: pd.DataFrame
    per_image: pd.DataFrame
    curves: pd.DataFrame
    parts: list[Part]
    tuning: pd.DataFrame | None = None

    @property
    def name(self) -> str:
        """Name of the study."""
        return str(self.study["study"])

    @property
    def losses(self) -> list[str]:
        """Labels of the study's losses in the book's order, those without a run included."""
        return _ordered({loss["label"]: loss["name"] for loss in self.study["losses"]})

    @property
    def missing_runs(self) -> int:
        """Runs that the study asks for and that are not here."""
        return int(self.study["missing_runs"])


def check_parameters(namespace: Mapping[str, Any]) -> None:
    """Stop a report whose parameters are not exactly ``study`` and ``records``, both text.

    Papermill only warns at a name that the notebook does not have. Call this with the notebook's
    ``globals()`` in the cell after the parameters.

    Raises RecordsError with the near matches.
    """
    known = ("study", "records")
    for name, value in namespace.items():
        # every text, number, list or dictionary counts; what the notebook makes itself is of other types
        plain = isinstance(value, (str, int, float, list, dict, type(None)))
        if name.startswith("_") or name in _IPYTHON_NAMES or not plain:
            continue
        if name not in known:
            close = difflib.get_close_matches(name, known, n=1)
            hint = f"did you mean {close[0]!r}?" if close else f"known: {', '.join(known)}"
            raise RecordsError(f"unknown parameter {name!r}; {hint}")
        if not isinstance(value, str) or not value:
            raise RecordsError(f"{name}: expected text, got {value!r}")


def load(folder: str | Path, study: str | None = None) -> Records:
    """Read and check the records in `folder`.

    Parameters
    ----------
    folder
        ``results/<study>``.
    study
        The study that they must be of; None takes any.

    Raises
    ------
    RecordsError
        A file or a column is missing, the schema's version is another, the tables do not belong
        together, or the pooled counts contradict the metrics of a run.
    """
    folder = Path(folder)
    description = _read_study(folder, study)
    tables = {name: _read_table(folder, name) for name in _COLUMNS}
    _check_tables(folder, description, tables)
    predictions = _read_predictions(folder)
    tuned = (folder / "tuning.parquet").is_file()  # not where the study tuned nothing
    tuning = _read_table(folder, "tuning", _TUNING_COLUMNS) if tuned else None
    # Each table is split once: to look for a part's rows in the whole table takes as long as all parts have rows.
    rows = {name: table.groupby(_PART, sort=False).indices for name, table in tables.items()}
    needed = tables | {"per_image": tables["per_image"][_COLUMNS["per_image"]]}
    left_out = description.get("left_out", {})
    parts = []
    for key in itertools.product(description["datasets"], description["models"]):
        if key in rows["runs"]:
            of_part = {
                name: needed[name].take(np.asarray(at.get(key, []), np.intp))
                for name, at in rows.items()
            }
            part = _part(*key, description, of_part, predictions, folder)
            parts.append(_without(part, left_out.get(key[0], ())))
    if left_out:  # what a part leaves out is missing in the tables, too
        tables["runs"] = pd.concat([part.runs for part in parts]).sort_index()
        table = tables["per_image"]
        gone = [
            image in left_out.get(d, ())
            for d, image in zip(table.dataset, table.image_id, strict=True)
        ]
        tables["per_image"] = table[~np.array(gone)]
    return Records(folder, description, parts=parts, tuning=tuning, **tables)


def _read_study(folder: Path, study: str | None) -> dict[str, Any]:
    path = folder / "study.json"
    if not path.is_file():
        raise RecordsError(
            f"expected a study's records in {folder} (study.json and four tables), found none: "
            f"run `make book STUDY={study or folder.name}`, or correct the parameter records"
        )
    try:
        description = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise RecordsError(
            f"{path}: expected JSON, got {error}; collect the records anew"
        ) from None
    schema = description.get("schema") if isinstance(description, dict) else None
    if schema != SCHEMA:
        raise RecordsError(
            f"{path}: expected records of schema {SCHEMA}, got {schema!r}: "
            f"collect them again with this version of lossatlas"
        )
    absent = [key for key in _STUDY_KEYS if key not in description]
    if absent:
        raise RecordsError(
            f"{path}: expected the keys {', '.join(_STUDY_KEYS)}; missing: {', '.join(absent)}"
        )
    if study is not None and description["study"] != study:
        raise RecordsError(
            f"{path}: expected the study {study!r}, got {description['study']!r}: "
            f"correct the parameter study or records"
        )
    return description


def _read_table(folder: Path, name: str, columns: list[str] | None = None) -> pd.DataFrame:
    path = folder / f"{name}.parquet"
    columns = columns or _COLUMNS[name]
    if not path.is_file():
        raise RecordsError(f"{path}: expected a table, found no file; collect the records anew")
    table = pd.read_parquet(path)
    if "target" in table and "fn" not in table:  # what is labelled is found or missed
        table = table.assign(fn=table.target - table.tp)
    absent = [column for column in columns if column not in table.columns]
    if absent:
        raise RecordsError(
            f"{path}: expected the columns {', '.join(columns)}; missing: "
            f"{', '.join(absent)}; collect the records anew"
        )
    # a run that diverged at its first step has a result and no curve
    if table.empty and name != "curves":
        raise RecordsError(f"{path}: expected at least one row, got none; run the study first")
    return table


def _check_tables(
    folder: Path, description: dict[str, Any], tables: dict[str, pd.DataFrame]
) -> None:
    """The tables speak of the same runs, and the runs of what study.json announces."""
    runs = tables["runs"]
    twice = runs.run_id[runs.duplicated(["dataset", "model", "loss", "seed"])].tolist()
    if twice:
        raise RecordsError(
            f"{folder}/runs.parquet: expected one run for each data set, model, loss and seed, got "
            f"two for run {twice[0]}; collect the records anew"
        )
    announced = {
        "dataset": description["datasets"],
        "model": description["models"],
        "loss": [loss["label"] for loss in description["losses"]],
        "seed": description["seeds"],
    }
    for column, known in announced.items():
        strange = sorted(set(runs[column]) - set(known), key=str)
        if strange:
            raise RecordsError(
                f"{folder}/runs.parquet: {column} {strange[0]!r} is not in study.json "
                f"({', '.join(map(str, known))}); collect the records anew"
            )
    ids = set(runs.run_id)
    for name in ("per_class", "per_image"):
        others = set(tables[name].run_id.unique()) ^ ids
        if others:
            raise RecordsError(
                f"{folder}/{name}.parquet: expected the runs of runs.parquet, but run "
                f"{min(others)} is in one of them only; collect the records anew"
            )


def _read_predictions(folder: Path) -> dict[str, np.ndarray]:
    path = folder / "predictions.npz"
    if not path.is_file():
        raise RecordsError(f"{path}: expected predictions, found no file; collect the records anew")
    with np.load(path, allow_pickle=False) as saved:
        return {name: saved[name] for name in saved.files}


def _ordered(losses: Mapping[str, str]) -> list[str]:
    """Labels by the book's order of their registry names, then in the study's order."""
    names = style.in_order(set(losses.values()))
    labels = list(losses)
    return sorted(labels, key=lambda label: (names.index(losses[label]), labels.index(label)))


def _part(
    dataset: str,
    model: str,
    description: dict[str, Any],
    tables: dict[str, pd.DataFrame],
    saved: dict[str, np.ndarray],
    folder: Path,
) -> Part:
    runs = tables["runs"]
    there = set(runs.loss)
    names = {
        loss["label"]: loss["name"] for loss in description["losses"] if loss["label"] in there
    }
    labels = _ordered(names)
    classes = list(description["classes"].get(dataset, []))
    per_image, of_classes = tables["per_image"], tables["per_class"]
    first = per_image[per_image.run_id == runs.run_id.iloc[0]].drop_duplicates("image_id")
    image_ids = first.image_id.astype(str).tolist()
    of_loss = dict(iter(runs[["loss", "seed", "run_id"]].sort_values("seed").groupby("loss")))
    for name, table in (("per_class", of_classes), ("per_image", per_image)):
        without = set(runs.run_id) - set(table.run_id[table.rule == "argmax"].unique())
        if without:
            raise RecordsError(
                f"{folder}/{name}.parquet: expected rows of the rule argmax in every run, got none in run "
                f"{min(without)}; collect the records anew"
            )
    by_rule: dict[str, dict[str, np.ndarray]] = {}
    numbered = _numbered(per_image, image_ids)
    for rule in RULES:
        rows = numbered[(per_image.rule == rule).to_numpy()]
        if rows.empty:
            continue
        # a loss may have fewer measures than the others: then it has no counts by their rules
        counted = set(rows.run_id.unique())
        having = [
            label for label in labels if rule == "argmax" or counted & set(of_loss[label].run_id)
        ]
        run_ids = [run_id for label in having for run_id in of_loss[label].run_id]
        counts = _counts(_both_classes(rows), run_ids, len(image_ids), len(classes), folder)
        ends = np.cumsum([len(of_loss[label]) for label in having])[:-1]
        by_rule[rule] = dict(zip(having, np.split(counts, ends), strict=True))
    prefix = f"{dataset}/{model}/"
    kept = {name.removeprefix(prefix): of for name, of in saved.items() if name.startswith(prefix)}
    shown: dict[str, Any] = {}
    if "images" in kept:
        shown = {name: kept[name] for name in ("images", "targets")}
        shown["shown_ids"] = list(map(str, kept["ids"]))
        shown["predictions"] = {label: kept[label] for label in labels if label in kept}
    part = Part(
        dataset=dataset,
        model=model,
        losses=labels,
        seeds={label: [int(seed) for seed in of_loss[label].seed] for label in labels},
        classes=classes,
        image_ids=image_ids,
        groups=first.group.astype(str).tolist(),
        counts=by_rule["argmax"],
        by_rule=by_rule,
        runs=runs,
        per_class=of_classes[of_classes.rule == "argmax"],
        curves=tables["curves"],
        styles=style.study_styles(names),
        **shown,
    )
    _check_metrics(part, folder)
    return part


def _without(part: Part, images: Collection[str]) -> Part:
    """The part without some test images: counts and what follows from them are of the others.

    What was measured on all images together (calibration, the best threshold of the test images) stays as it was.
    """
    if not images:
        return part
    unknown = sorted(set(images) - set(part.image_ids))
    if unknown:
        raise RecordsError(
            f"left_out: expected test images of {part.dataset}, got {unknown[0]!r}; correct the study's file"
        )
    kept = [index for index, name in enumerate(part.image_ids) if name not in images]
    by_rule = {
        rule: {loss: counts[:, kept] for loss, counts in of.items()}
        for rule, of in part.by_rule.items()
    }
    runs = part.runs.copy()
    rows = {loss: of.index for loss, of in runs.sort_values("seed").groupby("loss")}
    for (rule, of), metric in itertools.product(by_rule.items(), METRICS):
        column = metric if rule == "argmax" else f"{metric}_{rule}"
        if column in runs:
            scores = {
                loss: metric_of_seeds(counts, metric, part.foreground)
                for loss, counts in of.items()
            }
            places = np.concatenate([rows[loss] for loss in scores])
            runs.loc[places, column] = np.concatenate([*scores.values()])
    return replace(
        part,
        image_ids=[part.image_ids[index] for index in kept],
        groups=[part.groups[index] for index in kept],
        counts=by_rule["argmax"],
        by_rule=by_rule,
        runs=runs,
    )


def _numbered(per_image: pd.DataFrame, image_ids: list[str]) -> pd.DataFrame:
    """The counts with each image by its place, -1 where it has none, and runs as a category: text compares slowly."""
    return pd.DataFrame(
        {
            "run_id": per_image.run_id.astype("category"),
            "image": pd.Index(image_ids).get_indexer(pd.Index(per_image.image_id.astype(str))),
            **{name: per_image[name] for name in ("class_index", "pixels", "tp", "fp", "fn")},
        }
    )


def _counts(
    rows: pd.DataFrame, run_ids: list[str], images: int, classes: int, folder: Path
) -> np.ndarray:
    """(runs, images, classes, 3) counts by one rule, in the order of `run_ids`; runs that it lacks are passed over."""
    of_category = pd.Index(run_ids).get_indexer(rows.run_id.cat.categories)
    codes = rows.run_id.cat.codes.to_numpy()
    run = np.where(codes < 0, -1, of_category[codes])
    rows, run = rows[run >= 0], run[run >= 0]
    image, index = rows.image.to_numpy(), rows.class_index.to_numpy(np.int64)
    known = (image >= 0) & (index >= 0) & (index < classes)
    place = (run * images + image) * classes + index
    shape = (len(run_ids), images, classes)
    times = np.bincount(place[known], minlength=int(np.prod(shape)))
    whole = (times.reshape(len(run_ids), -1) == 1).all(1)
    whole &= np.bincount(run[~known], minlength=len(run_ids)) == 0
    if not whole.all():
        wrong = int(np.argmin(whole))
        raise RecordsError(
            f"{folder}/per_image.parquet: expected a row for each of {images} images and "
            f"{classes} classes in every run, got {int((run == wrong).sum())} in run "
            f"{run_ids[wrong]}; collect the records anew"
        )
    values = np.empty((times.size, 3), np.int64)
    values[place] = rows[["tp", "fp", "fn"]].to_numpy(np.int64)
    return values.reshape(*shape, 3)


def _both_classes(rows: pd.DataFrame) -> pd.DataFrame:
    """Counts of both classes where there are two: the records have the second alone.

    What is neither found nor missed of the second is a true positive of the first, and the mistakes change sides.
    """
    if set(rows.class_index.unique()) != {1}:
        return rows
    first = rows.assign(
        class_index=0, tp=rows.pixels - rows.tp - rows.fp - rows.fn, fp=rows.fn, fn=rows.fp
    )
    return pd.concat([first, rows], ignore_index=True)


def _check_metrics(part: Part, folder: Path) -> None:
    """The runs' Dice follows from the counts: what is drawn and what is tabulated are one thing."""
    columns = {
        rule: "foreground_dice" if rule == "argmax" else f"foreground_dice_{rule}"
        for rule in part.by_rule
    }
    of_part = part.runs.reindex(columns=["loss", "seed", "run_id", *columns.values()])
    of_loss = dict(iter(of_part.sort_values("seed").groupby("loss")))
    for loss in part.losses:
        runs = of_loss[loss]
        for rule, column in columns.items():
            if loss not in part.by_rule[rule]:
                continue
            counts = part.by_rule[rule][loss].sum(1)
            recomputed = pooled_metric(counts, "foreground_dice", part.foreground)
            stated = runs[column].to_numpy(float)
            differs = ~np.isclose(recomputed, stated, atol=1e-6, equal_nan=True)
            if differs.any():
                at = int(np.argmax(differs))
                raise RecordsError(
                    f"{folder}: the counts of run {runs.run_id.iloc[at]} give a foreground Dice of "
                    f"{recomputed[at]:.6f}, runs.parquet has {column} {stated[at]:.6f}; "
                    f"collect the records anew"
                )
