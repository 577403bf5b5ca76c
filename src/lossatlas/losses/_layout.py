"""One call becomes a sample: checked, laid out as (N, C, P), and in chunks where that is possible."""

from __future__ import annotations

import math
from collections.abc import Iterable

import torch
from torch import Tensor

from . import _check, _valid
from ._chunked import ChunkedSample
from ._sample import Sample


def _forward_mode() -> bool:
    """Whether forward-mode differentiation is on, which needs plain formulas."""
    return torch.autograd.forward_ad._current_level >= 0


def eager_cpu(tensor: Tensor) -> bool:
    """Whether values may be looked at for free: on the CPU, untraced, outside of torch.func."""
    return not torch.compiler.is_compiling() and (
        tensor.device.type == "cpu"
        and type(tensor) in (Tensor, torch.nn.Parameter)
        and not _check.is_functorch(tensor)
    )


def sample(
    logits: Tensor,
    target: Tensor,
    *,
    mode: str,
    ignore_index: int | None,
    needs: Iterable[str] = (),
) -> Sample:
    """Check one call and lay it out as a :class:`Sample`, in chunks where that is possible.

    `needs` are the primitives that will be asked for: "surprisal", "entropy" (its plain sum) or
    "regions". A chunked sample makes them in one pass.
    """
    _check.logits(logits, mode, target)
    soft = _check.target(target, logits, mode)
    channels, spatial = logits.shape[1], tuple(logits.shape[2:])
    ignore_index = _check.void_label(target, ignore_index)
    batch, pixels = logits.shape[0], math.prod(spatial)
    flat = logits.reshape(batch, channels, pixels)
    if logits.dtype in (torch.float16, torch.bfloat16):
        flat = flat.float()
    if mode == "multiclass" and not soft:
        labels = target.reshape(batch, pixels)
    else:
        labels = target.reshape(batch, channels, pixels)
    chunked = (
        (mode != "multiclass" or not soft)
        and eager_cpu(flat)
        and eager_cpu(labels)
        and not _check.in_functorch()
        and not labels.requires_grad
        and not _forward_mode()
    )
    if (
        chunked
    ):  # bits are looked at: the imaginary part of a conjugate is negated only when it is read
        flat, labels = flat.resolve_neg(), labels.resolve_neg()
    valid = None
    if ignore_index is not None:  # in the target's own dtype, in which it may have been rounded
        valid = _valid.differs(labels, ignore_index) if chunked else labels != ignore_index
        if mode == "multiclass" and soft:
            valid = valid.any(1)  # a pixel is void where every channel holds ignore_index
    _check.values(
        labels,
        soft=soft,
        mode=mode,
        channels=channels,
        ignore_index=ignore_index,
        valid=valid if chunked else None,
    )
    if soft and labels.dtype != flat.dtype:
        labels = labels.to(flat.dtype)
    if not chunked:
        return Sample(flat, labels, valid, mode, soft, spatial)
    if valid is not None and int(_valid.count(valid).sum()) == valid.numel():
        valid = None  # many images have no void pixel, and to leave none out costs half as much
    if not labels.is_floating_point() and channels <= 256:
        labels = labels.to(torch.uint8)  # read once: every pass over bytes costs an eighth
    elif labels.element_size() == 1:
        labels = labels.long()  # in whose dtype every class can be compared with them
    shared = {"surprisal", "regions"} <= set(needs)
    entropy = {"entropy", "regions"} <= set(needs) and mode != "multiclass"
    return ChunkedSample(flat, labels, valid, mode, soft, spatial, shared, entropy)
