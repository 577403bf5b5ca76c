"""Whether a network could answer at all: how it began, how far its logits reach, what is dead before the head.

A loss is compared with another by what their networks predict. A network that no loss could have moved (a ceiling
over its logits, a head whose channels are off, a start far from every answer) says nothing about the loss; these
numbers, part of every record, show it.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lossatlas.experiments.forward import evaluating, images_at_once

#: A step whose gradient is smaller moves nothing that float32 would show.
LEAST_GRADIENT = 1e-6
#: The largest initial cross-entropy of a healthy start, in units of ln C.
HEALTHY_START = 1.2
#: Images by which a start is judged, at most.
_FIRST_IMAGES = 16


class UnhealthyStartError(RuntimeError):
    """The network's first predictions are no start, and the study asks to refuse such a run."""


@torch.no_grad()
def initial_cross_entropy(model: nn.Module, dataset: Any, device: torch.device) -> float:
    """Cross-entropy of the untrained network on the first images of a split, with the batch's own statistics.

    The head's bias is taken as 0, so that a prior does not hide what the weights do. The network is left as it was.

    Args:
        model: untrained; its last layer is ``model.output_layer``.
        dataset: a ``SegmentationDataset``.
        device: where the model is.
    """
    kept = {name: value.clone() for name, value in model.state_dict().items()}
    was_training = model.training
    model.train()
    if (layer := _output_layer(model)) is not None:
        nn.init.zeros_(layer.bias)
    # large ones say enough by fewer
    count = min(_FIRST_IMAGES, 4 * images_at_once(dataset, device), len(dataset))
    images, target = dataset.batch(np.arange(count))
    logits = model(images.to(device)).float()
    target = target.to(device).long()
    void = -100 if dataset.ignore_index is None else dataset.ignore_index
    if logits.shape[1] == 1:
        logits = torch.cat([torch.zeros_like(logits), logits], 1)
    value = float(F.cross_entropy(logits, target, ignore_index=void))
    model.load_state_dict(kept)
    model.train(was_training)
    return value


def is_healthy(initial_ce: float, classes: int) -> bool:
    """Whether an initial cross-entropy is at most 1.2 ln C: no worse than a coin, with some room."""
    return initial_ce <= HEALTHY_START * math.log(max(classes, 2))


@torch.inference_mode()
def reach(model: nn.Module, dataset: Any, device: torch.device) -> dict[str, Any]:
    """How far the logits reach on a split, and how many channels before the head are dead.

    Args:
        model: trained; ``model.output_layer`` is its last layer and ``model.head_activation`` what stands before it.
        dataset: a ``SegmentationDataset``, the validation split.
        device: where the model is.

    Returns:
        ``logit_min``, ``logit_max``: over every pixel and channel.
        ``dead_channels``: share of the channels before the head that have one value on every pixel.
        ``head_bias``: of a single logit, else None.
        ``ceiling``: for a single logit behind a ReLU, the largest logit that the channels still alive allow,
        b + Σ w max(f) over the positive w; else None. Where it is b, no pixel can rise above the bias.
    """
    layer = _output_layer(model)
    seen: list[Tensor] = []
    low, high = math.inf, -math.inf
    least = most = None
    batch_size = images_at_once(dataset, device)
    with _listening(layer, seen), evaluating(model):
        for start in range(0, len(dataset), batch_size):
            images, _ = dataset.batch(np.arange(start, min(start + batch_size, len(dataset))))
            logits = model(images.to(device)).float()
            low, high = min(low, float(logits.min())), max(high, float(logits.max()))
            while seen:
                features = seen.pop().float().movedim(1, 0).flatten(1)
                smallest, largest = features.amin(1), features.amax(1)
                least = smallest if least is None else torch.minimum(least, smallest)
                most = largest if most is None else torch.maximum(most, largest)
    found: dict[str, Any] = {
        "logit_min": low,
        "logit_max": high,
        "dead_channels": None,
        "head_bias": None,
        "ceiling": None,
    }
    if layer is None or least is None or most is None:
        return found
    found["dead_channels"] = float((least == most).float().mean())
    if layer.out_channels == 1 and layer.bias is not None:
        bias = float(layer.bias)
        found["head_bias"] = bias
        if getattr(model, "head_activation", None) == "relu":
            positive = layer.weight[0].float().clamp_min(0).sum((1, 2))
            found["ceiling"] = bias + float((positive * most).sum())
    return found


def steps(curves: pd.DataFrame) -> dict[str, float | None]:
    """Share of the steps that moved the weights, and share of the batches without foreground; None without a step."""
    if not len(curves):
        return {"effective_steps": None, "empty_batches": None}
    return {
        "effective_steps": float((curves.grad_norm > LEAST_GRADIENT).mean()),
        "empty_batches": float((curves.foreground_pixels == 0).mean()),
    }


def _output_layer(model: nn.Module) -> Any:
    return getattr(model, "output_layer", None)


@contextmanager
def _listening(layer: nn.Module | None, seen: list[Tensor]) -> Iterator[None]:
    """Inside, whatever enters ``layer`` is put into ``seen``."""
    if layer is None:
        yield
        return
    handle = layer.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    try:
        yield
    finally:
        handle.remove()
