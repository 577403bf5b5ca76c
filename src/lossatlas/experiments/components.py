"""From the names in a configuration to a data set, a model and a loss."""

from __future__ import annotations

import copy
import inspect
import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from torch import nn

from lossatlas import data, losses, models
from lossatlas.experiments.config import ConfigError, RunConfig, check_name

#: Schemes of class weights, each from the (images, classes) table of pixel counts of the training set.
CLASS_WEIGHTS: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "inverse_frequency": lambda counts: losses.weights.inverse_frequency(counts.sum(0)),
    "median_frequency": lambda counts: losses.weights.median_frequency(
        counts, definition="present"
    ),
    "median_frequency_dataset": lambda counts: losses.weights.median_frequency(
        counts, definition="dataset"
    ),
    "enet_log": lambda counts: losses.weights.enet_log(counts.sum(0)),
    "effective_number": lambda counts: losses.weights.effective_number(counts.sum(0)),
}

#: What a loss takes here in place of numbers of its own: the weights come from the training set.
_DEFAULT_CLASS_WEIGHTS = {"weighted_ce": "inverse_frequency", "weighted_dice": "inverse_frequency"}
#: A loss with a prior takes here, in place of numbers of its own, the pixels of each class in the training set: without
#: a prior it would be another loss under its name.
_PRIOR = "prior"
#: Losses that begin at the prior bias under ``bias_init: default``: means over pixels, whose first steps would
#: otherwise push every logit down. Others begin at 0 there, as their records have it: we feared that a gradient with
#: a factor p(1 - p) ≈ π is too small. The study `thresholds_bias` shows no harm, and a gain of Dice.
PRIOR_BIAS = frozenset(
    {
        "ce",
        "weighted_ce",
        "one_vs_all_ce",
        "balanced_ce",
        "ohem_ce",
        "topk_ce",
        "focal",
        "poly1",
        "asymmetric",
    }
)
#: Losses that add the prior to the logits themselves: their constant prediction has a bias of 0.
ADDS_PRIOR = frozenset({"logit_adjusted_ce"})
#: Set from the data set: a run whose mode disagrees with its data means nothing. Weights as numbers: `_own_weight`.
_FROM_DATASET = {"mode", "ignore_index", "weight", "process_group"}


def loss_parameters(name: str) -> dict[str, inspect.Parameter]:
    """The parameters that ``loss_params`` may hold: the loss's own, and ``class_weights`` where it has weights.

    ``weight`` is a list of numbers, one a class (for one channel also the foreground's alone, beside 1 of the
    background); ``class_weights`` names a scheme that takes them from the training set. One of the two may be given.
    """
    own = losses.parameters(name)
    known = {key: value for key, value in own.items() if key not in _FROM_DATASET | {"reduction"}}
    if "weight" in own:
        known["weight"] = own["weight"]
        known["class_weights"] = inspect.Parameter("class_weights", inspect.Parameter.KEYWORD_ONLY)
    return known


def build_loss_for(
    config: RunConfig,
    *,
    mode: str | None,
    ignore_index: int | None,
    image_counts: np.ndarray | None,
) -> nn.Module:
    """Build the loss of ``config`` for a data set.

    Args:
        config: the run.
        mode: ``"multiclass"`` or ``"binary"``; None leaves the loss's default (for checking alone).
        ignore_index: the label to leave out, or None.
        image_counts: (images, classes) pixel counts of the training set, for class weights and for the prior of a
            loss that has one; None builds the loss without either (for checking alone).

    Raises:
        ConfigError: an unknown scheme of class weights.
    """
    own = losses.parameters(config.loss)
    params = dict(config.loss_params)
    given = params.pop("weight", None)
    default = None if given is not None else _DEFAULT_CLASS_WEIGHTS.get(config.loss)
    scheme = params.pop("class_weights", default)
    if given is not None:
        if scheme is not None:
            raise ConfigError(
                f"loss_params: expected weight or class_weights, got {given!r} and {scheme!r}: keep one"
            )
        classes = None if image_counts is None else image_counts.shape[1]
        params["weight"] = _own_weight(given, mode, classes)
    elif scheme is not None:
        check_name("class_weights", scheme, CLASS_WEIGHTS)
        counts = torch.ones(1, 2) if image_counts is None else torch.from_numpy(image_counts)
        weight = CLASS_WEIGHTS[scheme](counts).float()
        if mode == "binary":
            # One channel has one weight: how much a foreground pixel counts beside a background pixel.
            weight = (weight[1] / weight[0]).reshape(1)
        params["weight"] = weight
    if _PRIOR in own and image_counts is not None and params.get(_PRIOR) is None:
        # a class without a pixel counts as half a pixel, as for the bias
        pixels = np.maximum(image_counts.sum(0), 0.5)
        params[_PRIOR] = (pixels / pixels.sum()).tolist()
    context: dict[str, Any] = {"ignore_index": ignore_index}
    if mode is not None:
        context["mode"] = mode
    return losses.build(config.loss, **params, **{k: v for k, v in context.items() if k in own})


def _own_weight(given: Any, mode: str | None, classes: int | None) -> torch.Tensor:
    """Class weights as numbers: (C,), or (1,) for one channel, where the background counts 1."""
    numbers = isinstance(given, list) and all(type(w) in (int, float) for w in given)
    if not numbers or not given or not all(0 <= w < math.inf for w in given) or not any(given):
        raise ConfigError(
            f"weight: expected a list of finite numbers of at least 0, one a class and not all 0, got {given!r}: "
            "write [1, 5]"
        )
    weight = torch.tensor(given, dtype=torch.float32)
    if classes is not None and len(given) not in ((1, 2) if mode == "binary" else (classes,)):
        raise ConfigError(
            f"weight: expected {classes} numbers, one a class, background first, got {len(given)}: {given!r}"
        )
    if mode == "binary" and len(given) == 2:
        if not given[0]:
            raise ConfigError(
                f"weight: expected a background weight above 0, got {given!r}: one channel has the ratio alone"
            )
        return (weight[1] / weight[0]).reshape(1)
    return weight


def build_loss_on(config: RunConfig, dataset: Any) -> nn.Module:
    """The loss of ``config`` for a training split: its mode, its void label, class weights from its pixels."""
    return build_loss_for(
        config,
        mode=dataset.mode,
        ignore_index=dataset.ignore_index,
        image_counts=np.asarray(dataset.image_counts()),
    )


def load_datasets(
    config: RunConfig, splits: tuple[str, ...] = ("train", "val", "test")
) -> dict[str, Any]:
    """The data sets of ``config`` by split.

    Raises:
        lossatlas.data.DataError: files are missing or wrong; says what to do.
    """
    return {split: data.load(config.dataset, split, **config.dataset_params) for split in splits}


def as_configured(config: RunConfig, datasets: Mapping[str, Any]) -> dict[str, Any]:
    """The splits as the run sees them: of two classes with one channel, or with two (``config.two_channels``).

    Raises:
        ConfigError: two channels are asked for a data set that has them, or more, already.
    """
    if not config.two_channels:
        return dict(datasets)
    seen = {}
    for split, dataset in datasets.items():
        if dataset.mode != "binary":
            raise ConfigError(
                f"two_channels: expected a binary data set, got {dataset.name!r} of mode {dataset.mode!r}: set it to "
                "false"
            )
        seen[split] = copy.copy(dataset)
        seen[split].mode = "multiclass"
    return seen


def build_model_for(config: RunConfig, dataset: Any, weight: Any = None) -> nn.Module:
    """The model of ``config`` with the data set's channels, initialised from the run's seed alone.

    The seed is set here and nothing is drawn before, so every loss starts from bit-identical weights; the bias of the
    last layer alone may differ (``config.bias_init``).

    Args:
        config: the run.
        dataset: the training split.
        weight: class weights of the loss, for the bias of a mean over pixels: (C,), or (1,) of the foreground; None for
            none.
    """
    torch.manual_seed(config.seed)
    model = models.build(
        config.model,
        in_channels=dataset.in_channels,
        out_channels=dataset.out_channels,
        **config.model_params,
    )
    if starts_at_prior(config):
        with torch.no_grad():
            bias = model.output_layer.bias
            assert bias is not None  # every network of ours has one there
            # a class weight moves the best constant of a mean over pixels, and of no other loss
            of_pixels = weight if config.loss in PRIOR_BIAS else None
            bias.copy_(torch.as_tensor(prior_bias(dataset, of_pixels)).to(bias))
    return model


def starts_at_prior(config: RunConfig) -> bool:
    """Whether the last layer's bias begins at that of a constant prediction."""
    if config.bias_init == "default":
        return config.loss in PRIOR_BIAS
    return config.bias_init == "prior" and config.loss not in ADDS_PRIOR


def prior_bias(dataset: Any, weight: Any = None) -> np.ndarray:
    """Logits of the best constant prediction under (weighted) cross-entropy, (out_channels,).

    With the class frequencies π_c of the training set and the weights w_c: ln(w₁π₁ / w₀π₀) for one channel, else
    ln(w_c π_c) less its mean. A class without a pixel counts as half a pixel.
    """
    pixels = np.maximum(np.asarray(dataset.image_counts()).sum(0).astype(float), 0.5)
    weights = np.ones(len(pixels))
    if weight is not None:
        given = torch.as_tensor(weight).detach().double().flatten().cpu().numpy()
        if dataset.out_channels == 1 and len(given) == 1:
            given = np.array([1.0, given[0]])
        weights = np.where(given > 0, given, 1.0)
    logs = np.log(pixels / pixels.sum()) + np.log(weights)
    return logs[1:] - logs[:1] if dataset.out_channels == 1 else logs - logs.mean()


def require_same_shape(datasets: Mapping[str, Any]) -> None:
    """All splits must agree on classes and channels, else the metrics compare nothing."""
    described = {split: (d.classes, d.in_channels, d.mode) for split, d in datasets.items()}
    if len(set(described.values())) > 1:
        raise ConfigError(f"the splits differ in classes, channels or mode: {described}")


def require_foreground(datasets: Mapping[str, Any]) -> None:
    """Training masks of one class teach nothing, masks of void alone measure nothing: either ends in a Dice of nan."""
    for split, each in datasets.items():
        # the first labelled pixel settles it, so that a large split is not counted through
        if not any((labels != each.ignore_index).any() for labels in each.labels):
            raise ConfigError(
                f"{each.name}: expected labelled pixels in the split {split}, got void ({each.ignore_index}) alone; "
                "move images with labels to it"
            )
    dataset = datasets["train"]
    pixels = np.asarray(dataset.image_counts()).sum(0)
    if (pixels > 0).sum() < 2:
        found = ", ".join(name for name, n in zip(dataset.classes, pixels, strict=True) if n)
        raise ConfigError(
            f"{dataset.name}: expected two classes or more in the training masks, got {found} alone; say "
            "what their values mean, or add masks with foreground"
        )


def require_measurable(config: RunConfig, dataset: Any) -> None:
    """Some measures are defined for two classes, some for one channel: said before a training, not after it."""
    two, one = len(dataset.classes) == 2, dataset.mode == "binary"
    for name, possible, needs in (
        ("thin", two, "two classes"),
        ("plug_in", one, "two classes in one channel"),
        ("pixels", one, "two classes in one channel"),
    ):
        if name in config.measures and not possible:
            raise ConfigError(
                f"measures: {name!r} needs {needs}, {dataset.name} has {len(dataset.classes)} classes in "
                f"{dataset.out_channels} channels: leave it out"
            )


def has_background(classes: tuple[str, ...]) -> bool:
    """Whether class 0 is what is left over, so that foreground means are over the others."""
    return classes[0] == "background"


def foreground_classes(classes: tuple[str, ...]) -> range:
    """The indices of all classes but the background."""
    return range(int(has_background(classes)), len(classes))
