"""Void pixels on the CPU, left out by their bits.

A choice by a mask of bools costs up to thirty times as much as a multiplication, and a multiplication
keeps the NaN of a void pixel. So a mask is integers as wide as the numbers, with all bits set where a
pixel is valid, and none where it is void.
"""

from __future__ import annotations

import torch
from torch import Tensor

#: Elements of a map that are looked at together: half a megabyte of float32 stays in the cache.
_PART = 1 << 17
_INTEGERS = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}


def differs(labels: Tensor, label: int) -> Tensor:
    """Where labels are others than `label`, as bools.

    A comparison is vectorised only if its result has the dtype of its operands, and a conversion of
    floats to bytes only if these are signed.
    """
    found = torch.ne(labels, label, out=torch.empty_like(labels))
    return found.to(torch.int8).view(torch.bool)


def bits(valid: Tensor, like: Tensor) -> Tensor:
    """The mask of bools as bits, for numbers as wide as those of `like`."""
    return valid.view(torch.uint8).to(_integers(like), copy=True).neg_()


def count(valid: Tensor) -> Tensor:
    """Number of valid pixels along the last axis, float64."""
    rows = max(1, valid.numel() // max(1, valid.shape[-1]))
    parts = valid.view(torch.uint8).split(max(1, _PART // rows), -1)
    return torch.stack([part.float().sum(-1) for part in parts]).sum(0, dtype=torch.float64)


def ends(x: Tensor, valid: Tensor) -> tuple[float, float]:
    """Smallest and largest of a map with 0 where void; NaN if it holds one. Bools of its shape."""
    parts = zip(x.reshape(-1).split(_PART), valid.reshape(-1).split(_PART), strict=True)
    found = [torch.stack(torch.aminmax(masked(part, bits(v, part)))) for part, v in parts]
    low, high = torch.stack(found).unbind(1)
    return low.min().item(), high.max().item()


def masked(x: Tensor, valid: Tensor | None) -> Tensor:
    """A map with 0 where void, whatever it holds there; `valid` are bits, signed where `x` is wider than a byte."""
    if valid is None:
        return x
    kind = _integers(x)
    return (x.view(kind) & valid.to(kind)).view(x.dtype)


def masked_(x: Tensor, valid: Tensor | None) -> Tensor:
    """The same in place."""
    if valid is not None:
        integers = x.view(_integers(x))
        integers.bitwise_and_(valid.to(integers.dtype))
    return x


def filled(x: Tensor, valid: Tensor | None, value: float) -> Tensor:
    """A map with `value` where void."""
    if valid is None:
        return x
    kind = _integers(x)
    valid = valid.to(kind)
    of_value = torch.tensor(value, dtype=x.dtype, device="cpu").view(kind)
    return (x.view(kind) & valid).bitwise_or_(~valid & of_value).view(x.dtype)


def _integers(x: Tensor) -> torch.dtype:
    return _INTEGERS[x.element_size()]
