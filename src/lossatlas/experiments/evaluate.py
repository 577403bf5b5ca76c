"""A trained model's predictions on a split: decision rules, overlap, calibration, boundaries.

Every number is summed batch by batch, so that memory does not grow with the split (except for the
counts per image, and for the predicted classes where they are asked for).

A *decision rule* turns logits into classes (:class:`lossatlas.metrics.DecisionRule`). Three are reported:
``argmax`` (the largest logit; p > ½ for one sigmoid), ``tuned`` (:func:`tune`: the best mean foreground Dice
on the validation split) and ``theory`` (:func:`theory_rule`: what the loss's minimiser predicts). None of them
ever sees the test split.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from lossatlas import losses, metrics
from lossatlas.experiments.components import foreground_classes, has_background
from lossatlas.experiments.config import RunConfig
from lossatlas.experiments.forward import Logits
from lossatlas.experiments.health import reach
from lossatlas.experiments.outcome import began
from lossatlas.metrics import DecisionRule
from lossatlas.metrics.plug_in import separated


@dataclass(frozen=True)
class RuleResult:
    """What one decision rule makes of a split.

    Attributes:
        confusion: pooled over the split, void left out.
        per_image: (N, C, 3) counts of true positives, false positives and false negatives.
    """

    confusion: metrics.ConfusionMatrix
    per_image: np.ndarray


@dataclass(frozen=True)
class Evaluation:
    """What a split says of a model.

    Attributes:
        confusion, per_image: those of the rule ``argmax``.
        predictions: (N, H, W) uint8 classes by ``argmax``, or None if they were not asked for.
        mean_logits: (C, C) mean logit of the channel of class c (row) on the pixels of class k (column); NaN
            where the split has no pixel of k. A binary model's one channel is the row of its foreground.
        by_rule: the result of every rule; ``argmax`` is always there, and first.
        calibration: ``ece``, ``ece_foreground``, ``nll``, ``brier``, as :class:`lossatlas.metrics.Calibration`
            defines them.
        boundary: one row a class by ``argmax``, as :class:`lossatlas.metrics.BoundaryMetrics` gives them, with
            ``class_name``; in pixels, NSD at 1 pixel, BF at 0.75 % and boundary IoU at 2 % of the diagonal.
            Empty if it was not asked for.
        size_recall: one row a stratum of object size by ``argmax``, as :class:`lossatlas.metrics.ObjectRecall`
            gives them: all foreground classes, found where half of the object is covered. Empty if it was not
            asked for.
        thin: a row for ``argmax`` and one for ``tuned``: ``cldice`` and its parts
            (:class:`lossatlas.metrics.ClDice`, over all images together), and ``f1_at_2`` with its ``precision`` and
            ``recall`` at 2 pixels. Empty if it was not asked for.
    """

    confusion: metrics.ConfusionMatrix
    per_image: np.ndarray
    predictions: np.ndarray | None
    mean_logits: np.ndarray
    by_rule: dict[str, RuleResult] = field(default_factory=dict)
    calibration: dict[str, float] = field(default_factory=dict)
    boundary: list[dict[str, Any]] = field(default_factory=list)
    size_recall: list[dict[str, Any]] = field(default_factory=list)
    thin: list[dict[str, Any]] = field(default_factory=list)


@dataclass(frozen=True)
class Tuned:
    """The decision rule that validation chose, and what it is worth there.

    Attributes:
        rule: offsets with the best mean foreground Dice over the pooled validation split.
        dice_at_half: that mean Dice without offsets.
        dice_tuned: that mean Dice with them; never below ``dice_at_half``.
        class_dice: (C,) Dice of each class with them; NaN where a class is nowhere.
        has_background: whether class 0 is the background (and no part of the mean).

    Both means are over the foreground classes that the validation split contains (over all that it contains
    where there is no background).
    """

    rule: DecisionRule
    dice_at_half: float
    dice_tuned: float
    class_dice: tuple[float, ...]
    has_background: bool


@torch.inference_mode()
def evaluate(
    split: Logits,
    *,
    keep_predictions: bool = False,
    rules: Mapping[str, DecisionRule] | None = None,
    boundary: bool = False,
    plug_in: metrics.PlugInRule | None = None,
    thin: bool = False,
) -> Evaluation:
    """Judge a network on a split, batch by batch.

    Args:
        split: the network's logits on it.
        keep_predictions: also return the predicted classes of every image.
        rules: further decision rules by name; ``argmax`` is always among the results.
        boundary: also measure outlines and objects, on the CPU (about a millisecond a class and image of
            64×64, up to 60 of 360×480).
        plug_in: also decide by it, as the rule ``plug_in``; for one channel.
        thin: also measure centre lines and the F1 at 2 pixels, by ``argmax`` and ``tuned``; for two classes.

    Raises:
        ValueError: a rule has not one offset a channel.
    """
    dataset = split.dataset
    num_classes = len(dataset.classes)
    channels = 1 if dataset.mode == "binary" else num_classes
    known = {"argmax": DecisionRule.argmax(channels), **(rules or {})}
    for name, rule in known.items():
        if len(rule.offsets) != channels:
            raise ValueError(
                f"rule {name!r}: expected {channels} offsets, one a channel of a {dataset.mode} model of "
                f"{num_classes} classes, got {len(rule.offsets)}"
            )
    deciding: dict[str, Any] = dict(known)
    if plug_in is not None:
        deciding["plug_in"] = plug_in
    thinly = [name for name in ("argmax", "tuned") if thin and name in known]  # tenths of a second
    lines = {name: metrics.ClDice(num_classes, dataset.ignore_index) for name in thinly}
    near = {name: metrics.TolerantF1(2, dataset.ignore_index) for name in thinly}
    confusions = {
        name: metrics.ConfusionMatrix(num_classes, ignore_index=dataset.ignore_index)
        for name in deciding
    }
    counts: dict[str, list[np.ndarray]] = {name: [] for name in deciding}
    calibration = metrics.Calibration(
        channels,
        background=0 if has_background(dataset.classes) else None,
        ignore_index=dataset.ignore_index,
    )
    outlines = metrics.BoundaryMetrics(num_classes, dataset.ignore_index)
    objects = metrics.ObjectRecall(
        num_classes, dataset.ignore_index, classes=foreground_classes(dataset.classes)
    )
    predictions = []
    logit_sums = torch.zeros(num_classes, num_classes, dtype=torch.float64)
    for logits, target in split:
        logit_sums += _logit_sums(logits, target, num_classes).cpu()
        calibration.update(logits, target)
        for name, decide in deciding.items():
            prediction = decide(logits)
            if name in lines:
                lines[name].update(prediction.cpu().numpy(), target.cpu().numpy())
                near[name].update(prediction.cpu().numpy(), target.cpu().numpy())
            counts[name].append(confusions[name].update_per_image(prediction, target))
            if name == "argmax" and boundary:
                outlines.update(prediction, target)
                objects.update(prediction, target)
            if name == "argmax" and keep_predictions:
                predictions.append(prediction.to(torch.uint8).cpu().numpy())
    by_rule = {
        name: RuleResult(confusions[name], np.concatenate(counts[name])) for name in deciding
    }
    plain = by_rule["argmax"]
    return Evaluation(
        plain.confusion,
        plain.per_image,
        np.concatenate(predictions) if keep_predictions else None,
        _mean_logits(logit_sums, plain.per_image),
        by_rule,
        calibration.compute(),
        [{"class_name": dataset.classes[r["class_index"]], **r} for r in outlines.rows()]
        if boundary
        else [],
        objects.rows() if boundary else [],
        [_thin_row(name, lines[name], near[name]) for name in lines],
    )


def _thin_row(rule: str, lines: metrics.ClDice, near: metrics.TolerantF1) -> dict[str, Any]:
    (row,) = lines.rows()
    at_2 = near.compute()
    return {
        "rule": rule,
        "cldice": row["pooled_cldice"],
        "topology_precision": row["pooled_precision"],
        "topology_sensitivity": row["pooled_sensitivity"],
        "f1_at_2": at_2["f1"],
        "precision_at_2": at_2["precision"],
        "recall_at_2": at_2["recall"],
    }


@torch.inference_mode()
def calibrated(split: Logits) -> metrics.PlugInRule:
    """The plug-in rule whose posteriors are calibrated on the validation split.

    Where a threshold separates the classes there, every scale fits: the network's own probabilities stay.

    Raises:
        ValueError: the split has several classes, or one class alone.
    """
    val_set = split.dataset
    if val_set.mode != "binary":
        raise ValueError(f"plug_in: expected a binary data set, got {val_set.mode!r}")
    scores, labels = [], []
    for logits, target in split:
        kept = torch.ones_like(target, dtype=torch.bool)
        if val_set.ignore_index is not None:
            kept = target != val_set.ignore_index
        scores.append(logits[:, 0][kept].cpu().numpy())
        labels.append(target[kept].cpu().numpy())
    z, y = np.concatenate(scores), np.concatenate(labels)
    return metrics.PlugInRule() if separated(z, y) else metrics.calibrate(z, y)


@torch.inference_mode()
def tune(split: Logits) -> Tuned:
    """Choose the decision rule with the best mean foreground Dice on the validation split.

    Binary: every threshold, in steps of 1/1024 of a logit, from histograms (exact, memory constant;
    :class:`lossatlas.metrics.ThresholdSearch`). Multi-class: an offset a class, in steps of 1/64 of a logit, by
    coordinate ascent over at most 2¹⁹ pixels, sampled by class with a fixed seed where the split has more
    (:class:`lossatlas.metrics.OffsetSearch`); the Dice that is returned is then that of the whole split, from a
    second pass. A rule that is no improvement there is not taken.

    Args:
        split: the network's logits on the validation split.

    Raises:
        ValueError: the test split was given.
    """
    val_set = split.dataset
    if val_set.split == "test":
        raise ValueError(
            "tune: expected the validation split, got the test split; a rule chosen on what it is judged by "
            "says nothing about new images"
        )
    num_classes = len(val_set.classes)
    pixels = np.asarray(val_set.image_counts()).sum(0)
    search = _search(val_set)
    plain = DecisionRule.argmax(1 if val_set.mode == "binary" else num_classes)
    at_half = metrics.ConfusionMatrix(num_classes, val_set.ignore_index)
    for logits, target in split:
        search.update(logits, target)
        at_half.update(plain(logits), target)
    rule, _ = search.best()
    tuned = at_half
    if rule != plain:
        tuned = metrics.ConfusionMatrix(num_classes, val_set.ignore_index)
        if isinstance(search, metrics.ThresholdSearch):
            tuned.matrix[:] = search.matrix(rule.offsets[0])
        elif search.is_exact:
            for logits, target in search.kept():
                tuned.update(rule(logits), target)
        else:
            for logits, target in split:
                tuned.update(rule(logits), target)
    scored = [c for c in foreground_classes(val_set.classes) if pixels[c]]
    before, after = (_mean(matrix.dice()[scored]) for matrix in (at_half, tuned))
    if not after > before:
        rule, tuned, after = plain, at_half, before
    background = has_background(val_set.classes)
    return Tuned(rule, before, after, tuple(tuned.dice().tolist()), background)


def _search(dataset: Any) -> metrics.ThresholdSearch | metrics.OffsetSearch:
    """The search for the decision rule with the best mean foreground Dice on a split, still empty."""
    if dataset.mode == "binary":
        return metrics.ThresholdSearch(dataset.ignore_index)
    return metrics.OffsetSearch(
        np.asarray(dataset.image_counts()).sum(0),
        scored=foreground_classes(dataset.classes),
        ignore_index=dataset.ignore_index,
    )


@torch.inference_mode()
def oracle(split: Logits) -> dict[str, Any]:
    """What the best decision rule would make of a split, chosen on that split itself.

    It is a bound and no result: it says how well the logits rank, so that a wrong threshold or a ceiling cannot pass
    for ignorance.

    Args:
        split: the network's logits on the split that is judged.

    Returns:
        ``oracle_dice``, the mean foreground Dice (over at most 2¹⁹ sampled pixels for several classes);
        ``oracle_offsets``, one a channel, in logits; ``auprc``, the area under the precision-recall curve (None for
        several classes).
    """
    search = _search(split.dataset)
    for logits, target in split:
        search.update(logits, target)
    rule, dice = search.best()
    area = search.average_precision() if isinstance(search, metrics.ThresholdSearch) else None
    return {"oracle_dice": dice, "oracle_offsets": list(rule.offsets), "auprc": area}


#: Losses of single pixels whose class weights shift what the threshold is by ln w.
_OF_PIXELS = {
    "ce",
    "weighted_ce",
    "one_vs_all_ce",
    "balanced_ce",
    "ohem_ce",
    "topk_ce",
    "focal",
    "poly1",
}
#: Version of `theory_rule`, kept with a run: 2 knows that the focal loss bends the probability.
THEORY_VERSION = 2


def theory_rule(
    tuned: Tuned,
    loss_name: str,
    weight: Tensor | Sequence[float] | None,
    mode: str,
    num_classes: int,
    params: Mapping[str, Any] | None = None,
) -> DecisionRule:
    r"""The rule that theory predicts for a loss: where its minimiser is when the true probability is D̂*/2.

    The threshold on a true probability that maximises Dice is half of the best Dice that can be reached
    (Lipton et al. 2014), here η = D̂*/2 with the best on validation. A loss of single pixels with the class weights
    w is least, at a true probability η, where the network's p satisfies

    .. math:: \eta w_1 G(p) = (1-\eta) w_0 G(1-p), \qquad G(p) = -\frac{d}{dp} \ell(p),

    with ℓ(p) the loss of a pixel whose class has the probability p. For cross-entropy G(p) = 1/p, and the logit
    of p is logit η + ln(w₁/w₀): a shift by ln w. For the focal loss ℓ(p) = −(1−p)^γ ln p, which draws p
    towards ½; for Poly-1 G(p) = 1/p + ε. The offset is minus that logit. α of a focal loss is a weight.

    With several channels the threshold of class c is that against the background, as if there were these two; all
    are then moved so that the background's offset is 0. Where there is no background no threshold is defined, and the
    weights alone are undone.

    What is exact, and what is not: in the limit of data and training the rule is exact for two classes and the losses
    above. The minimiser of an overlap loss is 0 or 1 with the switch already at D*/2, where every threshold
    gives the same decision; the logit of D̂*/2 is used as for cross-entropy. Losses of the hardest pixels have no such
    minimiser: for them the rule is cross-entropy's and means little. The Lovász hinge is no function of a
    probability: its offset is 0.

    Args:
        tuned: what :func:`tune` found on validation.
        loss_name: the loss's name in :mod:`lossatlas.losses`.
        weight: class weights the loss was trained with, (C,) or, for one channel, also (1,); None if there are none.
            They are undone for losses of single pixels alone. A weight of 0 leaves nothing to undo.
        mode: ``"binary"`` (one channel) or ``"multiclass"``.
        num_classes: number of classes, background included.
        params: the loss's parameters: ``gamma`` and ``alpha`` of the focal loss, ``epsilon`` of Poly-1; those that are
            not there have the loss's defaults.

    Raises:
        ValueError: an unknown mode, or weights that do not fit the classes.
    """
    if mode not in ("binary", "multiclass"):
        raise ValueError(f"mode: expected 'binary' or 'multiclass', got {mode!r}")
    channels = 1 if mode == "binary" else num_classes
    if loss_name == "lovasz_hinge":
        return DecisionRule.argmax(channels)
    params = {**_defaults(loss_name), **(params or {})}
    log_weight = np.zeros(num_classes)
    if weight is not None and loss_name in _OF_PIXELS:
        log_weight += _log_weights(weight, mode, num_classes)
    if loss_name == "focal" and params["alpha"] is not None:
        log_weight += _log_weights(_alpha(params["alpha"], num_classes), mode, num_classes)
    shift = -log_weight
    if tuned.has_background or mode == "binary":
        logits = [
            _minimiser_logit(_half_dice_logit(dice) + w - log_weight[0], loss_name, params)
            for dice, w in zip(tuned.class_dice[1:], log_weight[1:], strict=True)
        ]
        shift = np.array([0.0, *(-z for z in logits)])
    shift -= shift[0]
    return DecisionRule(tuple((shift[1:] if mode == "binary" else shift).tolist()))


def _defaults(loss_name: str) -> dict[str, Any]:
    """Default values of the parameters on which the minimiser depends."""
    known = losses.parameters(loss_name) if loss_name in ("focal", "poly1") else {}
    return {name: parameter.default for name, parameter in known.items()}


def _alpha(alpha: Any, num_classes: int) -> list[float]:
    """α of the focal loss as a weight of each class: α for positives and 1 − α for the background."""
    if isinstance(alpha, int | float):
        return [1.0 - alpha, *[float(alpha)] * (num_classes - 1)]
    return [float(value) for value in alpha]


def _minimiser_logit(odds: float, loss_name: str, params: Mapping[str, Any]) -> float:
    """Logit z of the p that solves ln G(1 − p) − ln G(p) = `odds`, the weighted log odds of the truth.

    The left side rises with z; for cross-entropy it is z.
    """
    if loss_name == "focal":
        gamma = float(params["gamma"])

        # G(p) p = (1 − p)^γ (1 + γ p/(1 − p) (−ln p)); logarithms of p and 1 − p keep both ends exact
        def log_g(z: float) -> float:
            log_p, log_q = -np.logaddexp(0, -z), -np.logaddexp(0, z)
            return float(gamma * log_q + np.log1p(-gamma * np.exp(z) * log_p) - log_p)

    elif loss_name == "poly1":
        epsilon = float(params["epsilon"])

        def log_g(z: float) -> float:
            return float(np.log(1 + np.exp(-z) + epsilon))

    else:
        return odds
    from scipy import optimize  # half a second, which most losses do not need

    return float(optimize.brentq(lambda z: log_g(-z) - log_g(z) - odds, -_STEEP, _STEEP))


def _log_weights(weight: Tensor | Sequence[float], mode: str, num_classes: int) -> np.ndarray:
    values = torch.as_tensor(weight).detach().double().flatten().cpu().numpy()
    if mode == "binary" and len(values) == 1:
        values = np.array([1.0, values[0]])
    if len(values) != num_classes or not (np.isfinite(values) & (values >= 0)).all():
        raise ValueError(
            f"weight: expected {num_classes} finite numbers that are not negative, one a class, got "
            f"{values.tolist()}"
        )
    return np.log(np.where(values > 0, values, 1.0))


#: Logits between which the minimiser is looked for.
_STEEP = 60.0


def _half_dice_logit(dice: float) -> float:
    """logit(D/2) = ln(D/(2 − D)); 0 for a class that is never found, about which it says nothing."""
    return math.log(dice / (2 - dice)) if dice > 0 else 0.0


def _mean(values: np.ndarray) -> float:
    return float(values.mean()) if len(values) else math.nan


def _logit_sums(logits: Tensor, target: Tensor, num_classes: int) -> Tensor:
    """(C, C) sums of each channel's logits over the pixels of each class; void falls out.

    A class at a time: adding into places by index would add in any order on a GPU.
    """
    channels, labels = logits.movedim(1, 0).flatten(1), target.flatten()
    own = (channels[:, labels == k].sum(1, dtype=torch.float64) for k in range(num_classes))
    sums = torch.stack(list(own), dim=1)
    if len(channels) == num_classes:
        return sums
    return torch.cat([sums.new_full((num_classes - 1, num_classes), torch.nan), sums])  # binary


def _mean_logits(sums: Tensor, per_image: np.ndarray) -> np.ndarray:
    """Sums over the pixels of each class divided by their number."""
    pixels = _target_pixels(per_image).astype(float)
    pixels[pixels == 0] = np.nan
    return sums.numpy() / pixels


def constant_dice(fractions: np.ndarray, *, foreground_only: bool) -> float:
    """Mean Dice of the best constant prediction: one class everywhere.

    Predicting class c everywhere gives it Dice 2π_c/(1+π_c) and every other class of the set 0.

    Args:
        fractions: (C,) fraction π_c of the labelled pixels; classes with π_c = 0 are no part of the mean.
        foreground_only: leave class 0 out of the mean.
    """
    kept = np.asarray(fractions, dtype=float)[1 if foreground_only else 0 :]
    kept = kept[kept > 0]
    return float((2 * kept / (1 + kept)).max() / len(kept)) if len(kept) else float("nan")


def summary(
    evaluation: Evaluation, classes: tuple[str, ...], rule: str = "argmax"
) -> dict[str, float]:
    """The numbers of one row of a table, by one decision rule.

    All are in [0, 1] but ``volume_ratio``, the mean over the foreground classes of the pixels predicted over the
    pixels true (all classes where there is no background).
    """
    found = evaluation.by_rule[rule]
    confusion = found.confusion
    foreground = has_background(classes)
    per_image_dice = np.asarray(metrics.dice_from_counts(found.per_image))
    image_means = _nanmean(per_image_dice[:, int(foreground) :], axis=1)
    return {
        "mean_iou": confusion.mean_iou(),
        "mean_dice": confusion.mean_dice(),
        "foreground_iou": confusion.mean_iou(foreground_only=foreground),
        "foreground_dice": confusion.mean_dice(foreground_only=foreground),
        "pixel_accuracy": confusion.pixel_accuracy(),
        "mean_precision": confusion.mean_precision(foreground_only=foreground),
        "mean_recall": confusion.mean_recall(foreground_only=foreground),
        "mean_dice_per_image": float(_nanmean(image_means, axis=0)),
        "constant_dice": constant_dice(
            _fractions(_target_pixels(found.per_image)), foreground_only=foreground
        ),
        "volume_ratio": confusion.mean_volume_ratio(foreground_only=foreground),
    }


def per_class(
    evaluation: Evaluation, classes: tuple[str, ...], rule: str = "argmax"
) -> list[dict[str, Any]]:
    """One row a class: metrics over the pooled split by one decision rule, and the mean logits of its channel.

    The metrics are IoU, Dice, precision, recall and volume ratio. ``logit_own``, ``logit_other`` and
    ``logit_background`` are the mean logits of the class's channel on its own pixels, on those of the other
    foreground classes, and on the background (NaN where there is none); no rule changes them.
    """
    found = evaluation.by_rule[rule]
    confusion = found.confusion
    target_pixels = _target_pixels(found.per_image)
    columns = {
        name: np.asarray(getattr(confusion, name)(), dtype=float)
        for name in ("iou", "dice", "precision", "recall", "volume_ratio")
    }
    fractions = _fractions(target_pixels)
    others = [[k for k in foreground_classes(classes) if k != c] for c in range(len(classes))]
    logits = evaluation.mean_logits
    return [
        {
            "class_index": index,
            "class_name": name,
            **{column: float(values[index]) for column, values in columns.items()},
            "target_fraction": float(fractions[index]),
            "logit_own": float(logits[index, index]),
            "logit_other": _weighted_mean(
                logits[index, others[index]], target_pixels[others[index]]
            ),
            "logit_background": float(logits[index, 0]) if has_background(classes) else math.nan,
        }
        for index, name in enumerate(classes)
    ]


def _weighted_mean(values: np.ndarray, weights: np.ndarray) -> float:
    """Mean over the pixels of several classes; NaN if they have none."""
    kept = weights > 0
    return float(np.average(values[kept], weights=weights[kept])) if kept.any() else math.nan


def _target_pixels(per_image: np.ndarray) -> np.ndarray:
    """(C,) labelled pixels of each class: true positives and false negatives."""
    return per_image[:, :, [0, 2]].sum((0, 2))


def _fractions(pixels: np.ndarray) -> np.ndarray:
    """(C,) fraction of the labelled pixels that each class has."""
    return pixels / max(pixels.sum(), 1)


def _nanmean(values: np.ndarray, axis: int) -> np.ndarray:
    """Mean over the defined values; NaN where there is none (an image without any foreground)."""
    defined = ~np.isnan(values)
    count = defined.sum(axis)
    total = np.where(defined, values, 0).sum(axis)
    return np.where(count > 0, total / np.maximum(count, 1), np.nan)


@dataclass(frozen=True)
class Judged:
    """What the evaluation leaves of a run.

    Attributes:
        record: its part of ``run.json``.
        per_image: a row a decision rule, test image and class: ``tp``, ``fp``, ``fn``; ``argmax`` comes first.
        predictions: (N, H, W) uint8 classes of the test images by ``argmax``.
        pixels: a row a sampled pixel of the test split (:func:`lossatlas.metrics.sample_pixels`): ``pixel``, ``label``,
            ``weight`` and ``logit``, in steps of a float16; None if it was not asked for.
    """

    record: dict[str, Any]
    per_image: pd.DataFrame
    predictions: np.ndarray
    pixels: pd.DataFrame | None = None


def assess(
    model: torch.nn.Module,
    config: RunConfig,
    weight: Any,
    val_set: Any,
    test_set: Any,
    device: torch.device,
) -> Judged:
    """Choose the decision rules on the validation split alone, and judge the test split by each of them once.

    Args:
        model: the trained network, on ``device``.
        config: the run's loss and its parameters, and whether boundaries are measured.
        weight: (C,) class weights of the loss, or None.
        val_set: the rules are chosen on it.
        test_set: what is judged.
        device: where the network is.
    """
    validation, test = Logits(model, val_set, device), Logits(model, test_set, device)
    tuned = tune(validation)
    rules = {
        "tuned": tuned.rule,
        "theory": theory_rule(
            tuned,
            config.loss,
            weight,
            test_set.mode,
            len(test_set.classes),
            config.loss_params,
        ),
    }
    best = oracle(test)
    if "oracle" in config.measures:
        rules["oracle"] = DecisionRule(tuple(best["oracle_offsets"]))
    plug_in = calibrated(validation) if "plug_in" in config.measures else None
    evaluation = evaluate(
        test,
        keep_predictions=True,
        rules=rules,
        boundary=config.boundary,
        plug_in=plug_in,
        thin="thin" in config.measures,
    )
    assert evaluation.predictions is not None
    pooled = summary(evaluation, test_set.classes)
    record: dict[str, Any] = {
        "metrics": pooled,
        "oracle": best | {"began": began(best["oracle_dice"], pooled["constant_dice"])},
        "reach": reach(model, val_set, device),
        "per_class": per_class(evaluation, test_set.classes),
        "rules": _rules(evaluation, rules, test_set.classes),
        "theory_version": THEORY_VERSION,
        "calibration": evaluation.calibration,
        "boundary": evaluation.boundary,
        "size_recall": evaluation.size_recall,
        **({"thin": evaluation.thin} if evaluation.thin else {}),
        "validation": {
            "foreground_dice": tuned.dice_at_half,
            "foreground_dice_tuned": tuned.dice_tuned,
            "constant_dice": constant_dice(
                _fractions(np.asarray(val_set.image_counts()).sum(0)),
                foreground_only=has_background(val_set.classes),
            ),
        },
        "mode": test_set.mode,
        "classes": list(test_set.classes),
    }
    if plug_in is not None:
        own = {"scale": plug_in.scale, "shift": plug_in.shift}
        record["rules"]["plug_in"] = own | _found_by("plug_in", evaluation, test_set.classes)
    pixels = sampled(test) if "pixels" in config.measures else None
    return Judged(record, _per_image_table(evaluation, test_set), evaluation.predictions, pixels)


@torch.inference_mode()
def sampled(split: Logits) -> pd.DataFrame:
    """The logits of a sample of a split's pixels, the same pixels for every network; for one channel.

    Raises:
        ValueError: the split has several classes.
    """
    dataset = split.dataset
    if dataset.mode != "binary":
        raise ValueError(f"pixels: expected a binary data set, got {dataset.mode!r}")
    logits = torch.cat([z[:, 0].cpu() for z, _ in split]).reshape(-1).numpy()
    sample = metrics.sample_pixels(np.asarray(dataset.labels), dataset.ignore_index)
    return pd.DataFrame(
        {
            "pixel": sample.index.astype(np.int32),
            "label": sample.label.astype(bool),
            "weight": sample.weight.astype(np.float32),
            "logit": logits[sample.index].astype(np.float16).astype(np.float32),
        }
    )


def _rules(
    evaluation: Evaluation, rules: Mapping[str, DecisionRule], classes: tuple[str, ...]
) -> dict[str, Any]:
    """What each decision rule makes of the test split, and its offsets."""
    channels = len(rules["tuned"].offsets)
    return {
        name: {"offsets": list(rule.offsets)} | _found_by(name, evaluation, classes)
        for name, rule in {"argmax": DecisionRule.argmax(channels), **rules}.items()
    }


def _found_by(rule: str, evaluation: Evaluation, classes: tuple[str, ...]) -> dict[str, Any]:
    return {
        "metrics": summary(evaluation, classes, rule),
        "per_class": per_class(evaluation, classes, rule),
    }


def _per_image_table(evaluation: Evaluation, dataset: Any) -> pd.DataFrame:
    """(N, C, 3) counts of every rule as a table, one row an image and class; ``argmax`` comes first."""
    rules = list(evaluation.by_rule)
    images, classes, _ = evaluation.per_image.shape
    counts = np.concatenate(
        [found.per_image.reshape(-1, 3) for found in evaluation.by_rule.values()]
    )
    return pd.DataFrame(
        {
            "rule": np.repeat(np.asarray(rules, dtype=object), images * classes),
            "image_id": np.tile(
                np.repeat(np.asarray(dataset.ids, dtype=object), classes), len(rules)
            ),
            "group": np.tile(
                np.repeat(np.asarray(dataset.groups, dtype=object), classes), len(rules)
            ),
            "class_index": np.tile(np.arange(classes), images * len(rules)),
            "tp": counts[:, 0],
            "fp": counts[:, 1],
            "fn": counts[:, 2],
        }
    )
