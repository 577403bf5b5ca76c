"""Floats in order, by their bits: the largest of a map, and the Lovász extension of one class.

Non-negative floats are ordered as their bits are, which makes a histogram or a sort of integers
out of a selection or a sort of floats. On the CPU alone: values are looked at.
"""

from __future__ import annotations

import functools
import math
import time
from collections.abc import Callable

import torch
from torch import Tensor

from . import _valid

#: Elements of a map that are counted at a time: half a megabyte of float32.
_PART = 1 << 17


def drop_all_but(u: Tensor, count: int) -> float:
    """Set all but the `count` largest of a flat map to -1; return the smallest that is left.

    Negative entries are void. Non-negative floats are ordered as their bits are: a histogram of
    the upper half of the bits finds the few among which the last one kept must be.
    """
    if count <= 0:
        u.fill_(-1.0)
        return 0.0
    u.add_(0.0)  # a surprisal of -0.0 would pass for void
    if u.dtype != torch.float32:
        chosen = u.topk(min(count, u.numel()), sorted=False)
        u.fill_(-1.0).index_copy_(0, chosen.indices, chosen.values)
        return max(0.0, chosen.values.min().item()) if u.numel() else 0.0
    parts = u.split(_PART)
    counts = torch.zeros((1 << 15) + 1, dtype=torch.int64, device="cpu")
    for part in parts:
        upper = (part.view(torch.int32) >> 16).clamp_min_(-1).add_(1)
        counts += torch.bincount(upper, minlength=counts.numel())
    above = counts.flip(0).cumsum(0)
    place = int(torch.searchsorted(above, count))
    if place >= counts.numel() - 1:  # no more than `count` are valid
        return 0.0
    upper_half = counts.numel() - 2 - place
    near = torch.cat([p[(p.view(torch.int32) >> 16) == upper_half] for p in parts])
    near = near.sort(descending=True).values
    rank = count - (int(above[place - 1]) if place else 0)
    cut = near[rank - 1].item()
    surplus = int((near[rank:] == cut).sum())
    if surplus:
        u[(u == cut).nonzero()[:surplus, 0]] = -1.0
    return cut


def errors(
    base: Tensor, labels: Tensor, label: int, valid: Tensor | None, hinge: bool
) -> tuple[Tensor, Tensor]:
    """Errors and foreground of one class over one unit, flat: |t - p|, or 1 - z (2t - 1).

    Errors are -1 where void, and labels 0.
    """
    if not labels.is_floating_point():  # vectorised: a comparison with bools is not
        labels = torch.eq(labels, label, out=torch.empty_like(labels))
    kept = None if valid is None else _valid.bits(valid, base)
    t = _valid.masked(labels.reshape(-1).to(base.dtype), kept)
    sign = torch.rsub(t, 1, alpha=2)  # -1 on foreground: the error there falls as p rises
    errors = sign.mul_(base.reshape(-1)).add_(1 if hinge else t)
    if not hinge:
        errors.clamp_min_(0)  # p may round to a little more than 1
    return _valid.filled(errors, kept, -1.0), t


def sorted_extension(
    make_errors: Callable[[], tuple[Tensor, Tensor]], factor: float
) -> tuple[float, Tensor]:
    """Lovász extension times `factor` by the exact order of the errors, and its slope by p or z.

    Among equal errors foreground goes first; errors of 0 or less cost nothing and have slope 0.
    Non-negative floats are ordered as their bits are, so the errors are sorted as integers; the
    lowest bit makes room for the label. Errors that differ in that bit alone count as equal, which
    moves an increment by the relative size of one pixel in the union.
    Nothing outlives its use: sorting needs the memory.
    """
    errors, t = make_errors()
    if _has_nan(errors):  # sorting would hide it
        return math.nan, torch.full_like(errors, math.nan)
    rest = int(t.sum(dtype=torch.float64))
    keys = errors.view(torch.int32).clamp_min_(0).bitwise_or_(1)
    keys.bitwise_xor_(0x7FFFFFFE)  # largest first
    keys.bitwise_xor_(t.to(torch.int32))  # lowest bit: 0 for foreground
    del errors, t
    size = keys.numel()
    keys, order = _sorted(keys)
    # From here on only those with an error: the key of 0 is 0x7FFFFFFE or one more.
    count = int(torch.searchsorted(keys, 0x7FFFFFFE))
    keys, order = keys[:count], order[:count]
    if count == 0:
        return 0.0, torch.zeros(size, dtype=torch.float32, device="cpu")
    if rest == 0:  # the Jaccard loss is 1 as soon as there is one error
        value = factor * float(_error_of(keys[:1]))
        return value, torch.zeros(size, dtype=torch.float32, device="cpu").index_fill_(
            0, order[:1], factor
        )
    # Counts in float32 are exact up to 2^24, and sums and products of them as cheap as of others.
    exact = torch.float32 if size <= 1 << 24 else torch.float64
    background = (keys & 1).to(exact)
    # U = T + background before; I = U - rank. Foreground 1/U, background I / (U (U + 1)).
    union = background.cumsum(0).sub_(background).add_(rest)
    increments = union.addcmul(background, torch.arange(count, dtype=exact, device="cpu"), value=-1)
    increments.div_(union).div_(union.add_(background))
    del union
    increments, background = increments.float(), background.float()
    value = factor * _total(_error_of(keys).mul_(increments))
    increments.mul_(background.mul_(2 * factor).sub_(factor))
    del keys, background
    return value, torch.zeros(size, dtype=torch.float32, device="cpu").index_copy_(
        0, order, increments
    )


def _sorted(keys: Tensor) -> tuple[Tensor, Tensor]:
    """Non-negative int32 keys in ascending order, and where each was; equal keys keep their order."""
    sort: Callable[[Tensor], tuple[Tensor, Tensor]] = _fastest_sort()
    return sort(keys)


@functools.cache
def _fastest_sort() -> Callable[[Tensor], tuple[Tensor, Tensor]]:
    """The faster of two sorts that give the same, measured once, in about ten milliseconds.

    NumPy's takes a third of the time of torch's on one processor and four times as long on another:
    it depends on how fast vectors are compressed there.
    """
    keys = torch.arange(1 << 16, dtype=torch.int32, device="cpu").mul_(40503).bitwise_and_(0xFFFF)
    try:
        _sorted_by_numpy(keys[:2])
    except RuntimeError:  # NumPy is not installed
        return _sorted_by_torch

    def spent(sort: Callable[[Tensor], tuple[Tensor, Tensor]]) -> float:
        times = []
        for _ in range(3):
            start = time.perf_counter()
            sort(keys)
            times.append(time.perf_counter() - start)
        return min(times)

    return min(_sorted_by_numpy, _sorted_by_torch, key=spent)


def _sorted_by_torch(keys: Tensor) -> tuple[Tensor, Tensor]:
    """A stable sort of the keys."""
    values, order = keys.sort(stable=True)
    return values, order


def _sorted_by_numpy(keys: Tensor) -> tuple[Tensor, Tensor]:
    """Key and place, sorted as one number."""
    packed = keys.long().bitwise_left_shift_(32)
    packed.bitwise_or_(torch.arange(keys.numel(), device="cpu"))
    packed.numpy().sort()
    keys = (packed >> 32).int()
    return keys, packed.bitwise_and_(0xFFFFFFFF)


def _error_of(keys: Tensor) -> Tensor:
    """The errors that sorted keys were made of, with a lowest bit of 0: ½ and 1 come back exactly."""
    return keys.bitwise_or(1).bitwise_xor_(0x7FFFFFFF).view(torch.float32)


def _has_nan(errors: Tensor) -> bool:
    """Whether an error is NaN; a sum alone is NaN for opposite infinities, too."""
    return bool(errors.sum().isnan()) and bool(errors.isnan().any())


def _total(costs: Tensor) -> float:
    """Σ of errors times increments; an infinite error without an increment costs nothing: not 0 times inf."""
    total = costs.sum(dtype=torch.float64).item()
    return costs.nansum(dtype=torch.float64).item() if math.isnan(total) else total


def binned_extension(
    make_errors: Callable[[], tuple[Tensor, Tensor]], factor: float, bins: int, hinge: bool
) -> tuple[float, Tensor]:
    """The same with the errors in bins; see ``lovasz.binned_lovasz_extension``."""
    errors, t = make_errors()
    if _has_nan(errors):
        return math.nan, torch.full_like(errors, math.nan)
    largest = float(errors.max()) if hinge and errors.numel() else 1.0
    bounded = errors
    if math.isinf(largest):
        largest = torch.finfo(errors.dtype).max
        bounded = errors.clamp_max(largest)
    scale = bins / largest if largest > 0 else 1.0
    # Bin 0 holds the largest errors; one more after the last, negative ones, which cost nothing.
    index = (bounded * scale).floor_().clamp_(-1, bins - 1).mul_(-2).add_(2 * bins - 2).add_(t)
    index = index.to(torch.int32)
    counts = torch.bincount(index, minlength=2 * bins + 2)[: 2 * bins].view(bins, 2).double()
    background, foreground = counts[:, 0], counts[:, 1]
    rest = t.sum(dtype=torch.float64)
    inter_after = rest - foreground.cumsum(0)
    union_after = rest + background.cumsum(0)
    inter, union = inter_after + foreground, union_after - background
    after = union_after.clamp_min(1)
    safe = union.clamp_min(1)
    fg = (1 / safe + 1 / after) / 2
    bg = torch.where(union > 0, (inter + inter_after) / (2 * safe * after), 1 / after)
    by_bin = errors.new_zeros(2 * bins + 2)
    by_bin[:-2] = torch.stack([bg, fg], 1).view(-1)
    increments = by_bin.index_select(0, index)
    value = factor * _total(torch.mul(errors, increments))
    return value, increments.mul_(torch.rsub(t, factor, alpha=2 * factor))
