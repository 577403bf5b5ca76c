"""The same primitives on the CPU, in chunks, with closed-form backwards.

Each :class:`torch.autograd.Function` here computes what a plain formula of ``_sample`` (or
``lovasz``) computes, with these savings:

* chunks of about a megabyte, so that temporaries stay in the cache;
* one full-size buffer: the forward leaves the probabilities (or already the gradient) in it, the
  first backward turns it into the gradient in place and gives it away. A second backward over a
  retained graph recomputes it. Memory that is never allocated need not be touched either;
* no one-hot, and statistics summed in float64.

Differentiating a backward (``create_graph=True``) goes through the plain formula.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor

from . import _check

Phi = Callable[[Tensor, Tensor], Tensor]
Slices = tuple[slice, slice]

#: Elements in a chunk: a megabyte of float32, half of one where every temporary has its size.
_CHUNK = 1 << 18

#: Up to so many classes, comparing each class with the labels beats gathering and scattering.
_FEW = 6

#: Logits below this need no shift before the exponential: sums of e^±60 stay in float32's range.
_SAFE = 60.0


def sigmoid_chunks(shape: torch.Size) -> Iterator[Slices]:
    """Chunks for sigmoids, whose dozen temporaries are all as large as the chunk of logits."""
    return chunks(shape, _CHUNK // 2)


def chunks(shape: torch.Size, size: int | None = None) -> Iterator[Slices]:
    """Slices over images and pixels of (N, C, P) in chunks of about `size` elements."""
    n, c, p = shape
    size = _CHUNK if size is None else size
    if n == 0 or p == 0:
        return
    if c * p <= size:
        images = max(1, size // (c * p))
        for i in range(0, n, images):
            yield slice(i, min(i + images, n)), slice(0, p)
    else:
        pixels = max(1, size // c)
        for i in range(n):
            for j in range(0, p, pixels):
                yield slice(i, i + 1), slice(j, min(j + pixels, p))


def _cut(x: Tensor | None, at: Slices) -> Tensor | None:
    """Chunk of a map (N, P) or (N, C, P)."""
    if x is None:
        return None
    return x[at[0], at[1]] if x.ndim == 2 else x[at[0], :, at[1]]


def _labels(target: Tensor, valid: Tensor | None) -> Tensor:
    """Labels of a chunk as int64, 0 where void."""
    labels = target.long()
    return labels if valid is None else torch.where(valid, labels, 0)


def certain(z: Tensor) -> Tensor:
    """Logits (N, C, P) in which a pixel with a logit of +inf has 0 there and -inf elsewhere."""
    sure = z.isposinf()
    return torch.where(sure, 0.0, torch.where(sure.any(1, keepdim=True), -torch.inf, z))


def _top(z: Tensor) -> tuple[Tensor, Tensor]:
    """Logits of a chunk without +inf, and the largest of each pixel, (k, 1, m)."""
    top = z.amax(1, keepdim=True)
    if top.isposinf().any():  # rare, and seen in a map of one channel
        z = certain(z)
        top = z.amax(1, keepdim=True)
    return z, top


def _softmax(z: Tensor, labels: Tensor, valid: Tensor | None, out: Tensor) -> tuple[Tensor, Tensor]:
    """Exponentials of a chunk into `out`; return surprisal u and 1/Σ (0 where void), (k, m)."""
    if valid is not None:
        z = torch.where(valid[:, None], z, 0.0)
    z, top = _top(z)
    torch.sub(z, top, out=out)
    target = out.gather(1, labels[:, None])[:, 0]
    total = out.exp_().sum(1)
    u = total.log().sub_(target)
    inverse = total.reciprocal_()
    if valid is not None:
        u = torch.where(valid, u, 0.0)
        inverse = torch.where(valid, inverse, 0.0)
    return u, inverse


def _few_bound(z: Tensor, valid: Tensor | None) -> float:
    """Largest |z| of a chunk of few classes and finite logits; inf for any other chunk.

    Only then may masks be multiplied with logits, plane by plane. What void pixels hold does not
    count: else it would choose the form, and with it the last bits.
    """
    if z.shape[1] > _FEW:
        return math.inf
    if valid is not None:
        z = torch.where(valid[:, None], z, 0.0)
    low, high = z.aminmax()
    bound = max(-low.item(), high.item())
    return math.inf if math.isnan(bound) else bound


def _masks(labels: Tensor, valid: Tensor | None, classes: int, dtype: torch.dtype) -> list[Tensor]:
    """One-hot planes of a chunk's labels as floats, one per class; 0 where void."""
    code = labels.to(torch.uint8).to(dtype)  # two steps: each is vectorised, the direct one is not
    if valid is not None:
        code = torch.where(valid, code, -1.0)
    return [torch.eq(code, k, out=torch.empty_like(code)) for k in range(classes)]


def _exponentials_few(z: Tensor, out: Tensor) -> Tensor:
    """Exponentials of a chunk of few classes into `out`; return Σ per pixel.

    A reduction over a strided axis of two or three entries, a gather and a scatter each cost more
    than the few elementwise operations on whole planes that do the same.
    """
    planes = torch.exp(z, out=out).unbind(1)
    total = planes[0] + planes[1]
    for plane in planes[2:]:
        total.add_(plane)
    return total


def _probabilities_few(z: Tensor, valid: Tensor | None, bound: float, out: Tensor) -> None:
    """Probabilities of a chunk of few classes into `out`, 0 where void."""
    if valid is not None:
        z = torch.where(valid[:, None], z, 0.0)
    inverse = _exponentials_few(z if bound < _SAFE else _shifted_few(z, out), out).reciprocal_()
    if valid is not None:
        inverse.mul_(valid)
    out.mul_(inverse[:, None])


def _shifted_few(z: Tensor, out: Tensor) -> Tensor:
    """Logits less the pixel's largest, into `out`."""
    top = torch.maximum(z[:, 0], z[:, 1])
    for k in range(2, z.shape[1]):
        torch.maximum(top, z[:, k], out=top)
    return torch.sub(z, top[:, None], out=out)


def _softmax_few(
    z: Tensor, masks: list[Tensor], valid: Tensor | None, out: Tensor, *, missed: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """As `_softmax`, plane by plane; if `missed`, return also q = 1 - p_t (else u once more)."""
    if valid is not None:
        z = torch.where(valid[:, None], z, 0.0)
    planes = _shifted_few(z, out).unbind(1)
    target = planes[0] * masks[0]
    for plane, mask in zip(planes[1:], masks[1:], strict=True):
        target.addcmul_(plane, mask)
    total = _exponentials_few(out, out)
    if missed:
        q = total.clone()
        for plane, mask in zip(planes, masks, strict=True):
            q.addcmul_(plane, mask, value=-1)
    u = total.log().sub_(target)
    inverse = total.reciprocal_()
    if valid is not None:
        u = torch.where(valid, u, 0.0)
        inverse = inverse.mul_(valid)
    return u, inverse, q.mul_(inverse) if missed else u


def _take(ctx: Any) -> Tensor | None:
    """The forward's buffer, once."""
    buffer: Tensor | None = ctx.buffer
    ctx.buffer = None
    return buffer


def _total(x: Tensor) -> Tensor:
    """Sum over pixels in float64: in float32 a few rare pixels would drown in the rounding of 2^17."""
    return x.sum(-1, dtype=torch.float64)


def _like(logits: Tensor) -> Tensor:
    """A contiguous tensor of the logits' shape, not yet filled."""
    return torch.empty_like(logits, memory_format=torch.contiguous_format)


def _plainly(*grads: Tensor | None) -> bool:
    """Whether a backward goes through the plain formula: it is differentiated, or many run at once.

    ``is_grads_batched=True`` (a Jacobian or a Hessian in one call) hands over batched tensors, whose
    values nobody may look at and into which no buffer can be changed in place.
    """
    return torch.is_grad_enabled() or any(_check.is_batched(g) for g in grads if g is not None)


def _again(
    ctx: Any, plain: Callable[[Tensor], tuple[Tensor, ...]], grads: tuple[Tensor | None, ...]
) -> Tensor:
    """Differentiable gradient of the plain formula, for a backward that is differentiated."""
    logits: Tensor = ctx.saved_tensors[0]
    with torch.enable_grad():
        outputs = plain(logits)
        pairs = [(o, g) for o, g in zip(outputs, grads, strict=True) if g is not None]
        grad: Tensor = torch.autograd.grad(
            [o for o, _ in pairs], logits, [g for _, g in pairs], create_graph=True
        )[0]
    return grad


class SoftmaxStatistics(torch.autograd.Function):
    """Surprisal (N, P) of hard labels and I, S (or Σ p²) of every class (2, N, C), in one pass."""

    @staticmethod
    def forward(
        ctx: Any,
        logits: Tensor,
        target: Tensor,
        valid: Tensor | None,
        surprisal: bool,
        regions: bool,
        squared: bool,
        plain: Callable[[Tensor], tuple[Tensor, ...]],
    ) -> tuple[Tensor, Tensor]:
        n, c, p = logits.shape
        keep = ctx.needs_input_grad[0]
        buffer = _like(logits) if keep else None
        u_all = logits.new_empty((n, p) if surprisal else (0, 0))
        stats = torch.zeros(2, n, c, dtype=torch.float64)
        with torch.autocast("cpu", enabled=False):
            for at in chunks(logits.shape):
                z, v = logits[at[0], :, at[1]], _cut(valid, at)
                out = torch.empty(z.shape, dtype=z.dtype) if buffer is None else _cut(buffer, at)
                assert out is not None
                bound = _few_bound(z, v)
                masks = _masks(target[at], v, c, z.dtype) if bound < math.inf else None
                if masks is not None and not surprisal:
                    _probabilities_few(z, v, bound, out)
                else:
                    if masks is not None:
                        u, inverse, _ = _softmax_few(z, masks, v, out, missed=False)
                    else:
                        labels = _labels(target[at], v)
                        u, inverse = _softmax(z, labels, v, out)
                    out.mul_(inverse[:, None])
                if surprisal:
                    u_all[at] = u
                if regions:
                    stats[1, at[0]] += _total(torch.mul(out, out) if squared else out)
                if regions and masks is not None:
                    for k, mask in enumerate(masks):
                        stats[0, at[0], k] += _total(torch.mul(out[:, k], mask))
                elif regions:
                    probs = out.gather(1, labels[:, None])[:, 0]
                    rows = torch.arange(z.shape[0])[:, None] * c + labels
                    stats[0, at[0]] += torch.bincount(
                        rows.view(-1), probs.double().view(-1), minlength=z.shape[0] * c
                    ).view(-1, c)
        ctx.save_for_backward(logits, target, valid)
        ctx.buffer, ctx.squared, ctx.plain, ctx.used = buffer, squared, plain, (surprisal, regions)
        ctx.set_materialize_grads(False)
        return u_all, stats

    @staticmethod
    def backward(ctx: Any, grad_u: Tensor | None, grad_stats: Tensor | None) -> Any:
        none = (None,) * 6
        grads = (grad_u if ctx.used[0] else None, grad_stats if ctx.used[1] else None)
        if grads == (None, None):
            return None, *none
        if _plainly(*grads):
            return _again(ctx, ctx.plain, grads), *none
        logits, target, valid = ctx.saved_tensors
        buffer = _take(ctx)
        fresh = buffer is None
        grad = _like(logits) if buffer is None else buffer
        by_i = by_s = None
        if grads[1] is not None:
            by_i, by_s = grads[1].to(logits.dtype).unbind(0)
        with torch.autocast("cpu", enabled=False):
            for at in chunks(logits.shape):
                v, p = _cut(valid, at), grad[at[0], :, at[1]]
                masks = _masks(target[at], v, p.shape[1], p.dtype) if p.shape[1] <= _FEW else None
                labels = target[at] if masks is not None else _labels(target[at], v)
                if fresh:  # to the last bit as in the forward
                    z = logits[at[0], :, at[1]]
                    bound = _few_bound(z, v)
                    if bound < math.inf:
                        _probabilities_few(z, v, _SAFE if ctx.used[0] else bound, p)
                    else:
                        _, inverse = _softmax(z, _labels(target[at], v), v, p)
                        p.mul_(inverse[:, None])
                # dL/dz = p (b - s) + [c = t] p_t a, where dL/dp = b + [c = t] a, s = Σ p dL/dp;
                # the surprisal adds g (p - [c = t]).
                row = None
                if grads[0] is not None:
                    row = grads[0][at] if v is None else torch.where(v, grads[0][at], 0.0)
                if masks is not None:
                    b = None if by_s is None else by_s[at[0], :, None]
                    a = None if by_i is None else by_i[at[0], :, None]
                    _few_classes_gradient(p, masks, a, b, row, ctx.squared)
                    continue
                if row is None:
                    row = torch.zeros(p.shape[0], p.shape[2], dtype=p.dtype)
                spike = -row
                if by_s is None or by_i is None:
                    p.mul_(row[:, None])
                else:
                    a = by_i[at[0]].gather(1, labels.flatten(1)).view_as(row)
                    hit = p.gather(1, labels[:, None])[:, 0] * a
                    b = by_s[at[0], None]
                    if ctx.squared:
                        slope = p * (2 * b.transpose(1, 2))
                        mean = (p * slope).sum(1)
                        coefficient = slope.add_((row - mean - hit)[:, None])
                    else:
                        mean = torch.bmm(b, p)[:, 0]
                        coefficient = b.transpose(1, 2) + (row - mean - hit)[:, None]
                    p.mul_(coefficient)
                    spike = spike + hit
                p.scatter_add_(1, labels[:, None], spike[:, None])
        return grad, *none


def _few_classes_gradient(
    p: Tensor,
    masks: list[Tensor],
    by_i: Tensor | None,
    by_s: Tensor | None,
    row: Tensor | None,
    squared: bool,
) -> None:
    """Turn probabilities into the logit gradient, plane by plane: p (dL/dp - s) + g (p - t)."""
    planes = p.unbind(1)
    offset = row
    slopes = []
    if by_i is not None and by_s is not None:
        for k, (plane, mask) in enumerate(zip(planes, masks, strict=True)):
            slope = mask * by_i[:, k]
            slope = slope.addcmul_(plane, 2 * by_s[:, k]) if squared else slope.add_(by_s[:, k])
            slopes.append(slope)
        mean = planes[0] * slopes[0]
        for plane, slope in zip(planes[1:], slopes[1:], strict=True):
            mean.addcmul_(plane, slope)
        offset = mean.neg_() if row is None else torch.sub(row, mean)
    for k, plane in enumerate(planes):
        factor = offset if not slopes or offset is None else slopes[k].add_(offset)
        if factor is not None:
            plane.mul_(factor)
        if row is not None:
            plane.addcmul_(masks[k], row, value=-1)


class SoftmaxPixelSum(torch.autograd.Function):
    """Σ w φ(u) of hard labels, times `scale`; the gradient is made with the value."""

    @staticmethod
    def forward(
        ctx: Any,
        logits: Tensor,
        target: Tensor,
        valid: Tensor | None,
        weight: Tensor | None,
        scale: Tensor,
        phi: Phi,
        dphi: Phi | None,
        plain: Callable[[Tensor], tuple[Tensor, ...]],
    ) -> Tensor:
        keep = ctx.needs_input_grad[0]
        total, buffer = _softmax_pixel_sum(logits, target, valid, weight, scale, phi, dphi, keep)
        ctx.save_for_backward(logits, target, valid, weight, scale)
        ctx.buffer, ctx.phi, ctx.dphi, ctx.plain = buffer, phi, dphi, plain
        return total

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Any:
        if _plainly(grad):
            return _again(ctx, ctx.plain, (grad,)), *(None,) * 7
        buffer = _take(ctx)
        if buffer is None:
            logits, target, valid, weight, scale = ctx.saved_tensors
            buffer = _softmax_pixel_sum(
                logits, target, valid, weight, scale, ctx.phi, ctx.dphi, True
            )[1]
        return _times(buffer, grad), *(None,) * 7


def _times(buffer: Tensor | None, grad: Tensor) -> Tensor:
    """The buffer times a scalar, in place; a factor of 1 costs nothing."""
    assert buffer is not None
    return buffer if grad.item() == 1 else buffer.mul_(grad)


def _softmax_pixel_sum(
    logits: Tensor,
    target: Tensor,
    valid: Tensor | None,
    weight: Tensor | None,
    scale: Tensor,
    phi: Phi,
    dphi: Phi | None,
    keep: bool,
) -> tuple[Tensor, Tensor | None]:
    buffer = _like(logits) if keep else None
    total = torch.zeros((), dtype=torch.float64)
    for at in chunks(logits.shape):
        z, v = logits[at[0], :, at[1]], _cut(valid, at)
        out = torch.empty(z.shape, dtype=z.dtype) if buffer is None else _cut(buffer, at)
        assert out is not None
        few = _few_bound(z, v) < math.inf
        masks = _masks(target[at], v, z.shape[1], z.dtype) if few else None
        if masks is not None:
            labels = target[at]
            u, inverse, q = _softmax_few(z, masks, v, out, missed=dphi is not None)
        else:
            labels = _labels(target[at], v)
            u, inverse = _softmax(z, labels, v, out)
            q = u if dphi is None else torch.expm1(-u).neg_()
        value = phi(u, q)
        slope = scale if dphi is None else dphi(u, q) * scale if keep else u
        if weight is not None:
            w = weight[:, 0][_labels(labels, v)]
            value, slope = value * w, slope * w
        if v is not None:
            value, slope = torch.where(v, value, 0.0), torch.where(v, slope, 0.0)
        total += value.sum(dtype=torch.float64)
        if not keep:
            continue
        out.mul_((inverse * slope)[:, None])
        if masks is None:
            out.scatter_add_(1, labels[:, None], slope.neg().expand(u.shape)[:, None])
        else:
            for plane, mask in zip(out.unbind(1), masks, strict=True):
                plane.addcmul_(mask, slope, value=-1)
    return (total * scale).to(logits.dtype), buffer


class SigmoidPixelSum(torch.autograd.Function):
    """Σ w [t φ(u₁) + (1-t) φ(u₀)] of sigmoids, times `scale`, as :class:`SoftmaxPixelSum`."""

    @staticmethod
    def forward(
        ctx: Any,
        logits: Tensor,
        target: Tensor,
        valid: Tensor | None,
        weight: Tensor | None,
        scale: Tensor,
        phi: Phi,
        dphi: Phi | None,
        plain: Callable[[Tensor], tuple[Tensor, ...]],
    ) -> Tensor:
        keep = ctx.needs_input_grad[0]
        total, buffer = _sigmoid_pixel_sum(logits, target, valid, weight, scale, phi, dphi, keep)
        ctx.save_for_backward(logits, target, valid, weight, scale)
        ctx.buffer, ctx.phi, ctx.dphi, ctx.plain = buffer, phi, dphi, plain
        return total

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Any:
        if _plainly(grad):
            return _again(ctx, ctx.plain, (grad,)), *(None,) * 7
        buffer = _take(ctx)
        if buffer is None:
            logits, target, valid, weight, scale = ctx.saved_tensors
            buffer = _sigmoid_pixel_sum(
                logits, target, valid, weight, scale, ctx.phi, ctx.dphi, True
            )[1]
        return _times(buffer, grad), *(None,) * 7


def _sigmoid_pixel_sum(
    logits: Tensor,
    target: Tensor,
    valid: Tensor | None,
    weight: Tensor | None,
    scale: Tensor,
    phi: Phi,
    dphi: Phi | None,
    keep: bool,
) -> tuple[Tensor, Tensor | None]:
    buffer = _like(logits) if keep else None
    total = torch.zeros((), dtype=torch.float64)
    for at in sigmoid_chunks(logits.shape):
        z, v = _cut(logits, at), _cut(valid, at)
        t = _cut(target, at)
        assert z is not None and t is not None
        t = t.to(z.dtype)
        if v is not None:
            z, t = torch.where(v, z, 0.0), torch.where(v, t, 0.0)

        def side(x: Tensor, w: Tensor | None, part: Tensor | None) -> tuple[Tensor, Tensor | None]:
            """Weighted φ and its slope by x, where the target's logit is -x."""
            u, q = _softplus(x), torch.sigmoid(x)
            value, slope = phi(u, q), None
            if keep:  # du/dx = q
                slope = q if dphi is None else dphi(u, q).mul_(q)
            for factor in (w, part):
                if factor is not None:
                    value = value * factor
                    slope = None if slope is None else slope * factor
            return value, slope

        if _all_hard(t):  # one side each
            sign = torch.rsub(t, 1, alpha=2)
            w = None if weight is None else weight[1] * t + weight[0] * (1 - t)
            value, slope = side(sign * z, w, None)
            slope = None if slope is None else slope.mul_(sign)
        else:
            w1, w0 = (None, None) if weight is None else (weight[1], weight[0])
            value, slope = side(-z, w1, t)
            negative, rise = side(z, w0, 1 - t)
            value = value + negative
            slope = None if slope is None or rise is None else rise - slope
        if v is not None:
            value = torch.where(v, value, 0.0)
        total += value.sum(dtype=torch.float64)
        if buffer is not None and slope is not None:
            if v is not None:
                slope = torch.where(v, slope, 0.0)
            torch.mul(slope, scale, out=_cut(buffer, at))
    return (total * scale).to(logits.dtype), buffer


class SigmoidHardest(torch.autograd.Function):
    """Mean (or sum) of the surprisals above a cut, or of so many largest ones, under sigmoids.

    `cut` keeps the surprisals above it where they are at least `fewest`; None, or too few of them,
    keeps the `fewest` largest.
    """

    @staticmethod
    def forward(
        ctx: Any,
        logits: Tensor,
        target: Tensor,
        valid: Tensor | None,
        weight: Tensor | None,
        cut: float | None,
        fewest: int,
        mean: bool,
        plain: Callable[[Tensor], tuple[Tensor, ...]],
    ) -> Tensor:
        keep = ctx.needs_input_grad[0]
        total, buffer = _sigmoid_hardest(logits, target, valid, weight, cut, fewest, mean, keep)
        ctx.save_for_backward(logits, target, valid, weight)
        ctx.buffer, ctx.how, ctx.plain = buffer, (cut, fewest, mean), plain
        return total

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Any:
        if _plainly(grad):
            return _again(ctx, ctx.plain, (grad,)), *(None,) * 7
        buffer = _take(ctx)
        if buffer is None:
            logits, target, valid, weight = ctx.saved_tensors
            cut, fewest, mean = ctx.how
            buffer = _sigmoid_hardest(logits, target, valid, weight, cut, fewest, mean, keep=True)[
                1
            ]
        return _times(buffer, grad), *(None,) * 7


def _sigmoid_hardest(
    logits: Tensor,
    target: Tensor,
    valid: Tensor | None,
    weight: Tensor | None,
    cut: float | None,
    fewest: int,
    mean: bool,
    keep: bool,
) -> tuple[Tensor, Tensor | None]:
    """The mean or sum, and its gradient if `keep`."""
    buffer = _like(logits) if keep or cut is None else None
    result = None
    if cut is not None:  # the smallest float32 above it: what is compared is >=
        cut = math.nextafter(cut, math.inf) if logits.dtype == torch.float64 else _above(cut)
        result = _kept_sums(logits, target, valid, weight, cut, buffer, known=None)
    if result is None or result[2] < fewest:
        surprisals = _like(logits) if buffer is None else buffer
        for at in sigmoid_chunks(logits.shape):
            z, t, v = _clean(logits, target, valid, at)
            u = _sigmoid_surprisal(z, t)
            surprisals[at[0], :, at[1]] = u if v is None else torch.where(v, u, -1.0)
        cut = drop_all_but(surprisals.view(-1), fewest)
        result = _kept_sums(logits, target, valid, weight, cut, buffer, known=surprisals)
    total, weights, _ = result
    scale = (1 / weights if weights > 0 else 0.0) if mean else 1.0
    if buffer is not None and scale != 1:
        buffer.mul_(scale)
    return logits.new_tensor(total * scale), buffer


def _above(x: float) -> float:
    """The smallest float32 above `x`."""
    single = torch.tensor(x, dtype=torch.float32)
    return torch.nextafter(single, torch.tensor(math.inf)).item() if single <= x else single.item()


def _kept_sums(
    logits: Tensor,
    target: Tensor,
    valid: Tensor | None,
    weight: Tensor | None,
    cut: float,
    buffer: Tensor | None,
    known: Tensor | None,
) -> tuple[float, float, float]:
    """Σ w u, Σ w and number of the pixels with u >= cut; their slopes w du/dz into `buffer`."""
    total = weights = count = 0.0
    for at in sigmoid_chunks(logits.shape):
        z, t, v = _clean(logits, target, valid, at)
        u = _sigmoid_surprisal(z, t) if known is None else known[at[0], :, at[1]]
        kept = torch.ge(u, cut, out=torch.empty_like(z))
        if v is not None and known is None:
            kept.mul_(v)
        count += kept.sum().item()
        if _all_hard(t):
            w = kept if weight is None else kept * (weight[1] * t + weight[0] * (1 - t))
            value = torch.mul(u, w)
            if buffer is not None:
                sign = torch.rsub(t, 1, alpha=2)
                slope = torch.mul(z, sign).sigmoid_().mul_(sign).mul_(w)
        else:
            w1, w0 = kept * t, kept * (1 - t)
            if weight is not None:
                w1, w0 = weight[1] * w1, weight[0] * w0
            w = w1 + w0
            value = w1 * _softplus(-z) + w0 * _softplus(z)
            slope = w0 * torch.sigmoid(z) - w1 * torch.sigmoid(-z)
        total += value.sum(dtype=torch.float64).item()
        weights += w.sum(dtype=torch.float64).item()
        if buffer is not None:
            buffer[at[0], :, at[1]] = slope
    return total, weights, count


def _clean(
    logits: Tensor, target: Tensor, valid: Tensor | None, at: Slices
) -> tuple[Tensor, Tensor, Tensor | None]:
    """Logits, probabilities and mask of a chunk, 0 where void."""
    z, t, v = logits[at[0], :, at[1]], target[at[0], :, at[1]], _cut(valid, at)
    t = t.to(z.dtype)
    return (z, t, v) if v is None else (torch.where(v, z, 0.0), torch.where(v, t, 0.0), v)


def _sigmoid_surprisal(z: Tensor, t: Tensor) -> Tensor:
    """Surprisal of labels, or cross-entropy of probabilities, under sigmoids."""
    if _all_hard(t):
        return _softplus(torch.rsub(t, 1, alpha=2).mul_(z))
    return t * _softplus(-z) + (1 - t) * _softplus(z)


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
    parts = u.split(_CHUNK // 2)
    counts = torch.zeros((1 << 15) + 1, dtype=torch.int64)
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


class SigmoidStatistics(torch.autograd.Function):
    """I and S (or Σ p²) of every channel's sigmoid, (2, N, C)."""

    @staticmethod
    def forward(
        ctx: Any,
        logits: Tensor,
        target: Tensor,
        valid: Tensor | None,
        squared: bool,
        plain: Callable[[Tensor], tuple[Tensor, ...]],
    ) -> Tensor:
        n, c, _ = logits.shape
        keep = ctx.needs_input_grad[0]
        buffer = _like(logits) if keep else None
        stats = torch.zeros(2, n, c, dtype=torch.float64)
        for at in sigmoid_chunks(logits.shape):
            z, t, v = _cut(logits, at), _cut(target, at), _cut(valid, at)
            assert z is not None and t is not None
            p = torch.empty(z.shape, dtype=z.dtype) if buffer is None else _cut(buffer, at)
            assert p is not None
            _sigmoid(z, v, p)
            t = t.to(p.dtype)
            if v is not None:
                t = torch.where(v, t, 0.0)
            stats[0, at[0]] += _total(torch.mul(p, t))
            stats[1, at[0]] += _total(torch.mul(p, p) if squared else p)
        ctx.save_for_backward(logits, target, valid)
        ctx.buffer, ctx.squared, ctx.plain = buffer, squared, plain
        return stats

    @staticmethod
    def backward(ctx: Any, grad_stats: Tensor) -> Any:
        if _plainly(grad_stats):
            return _again(ctx, ctx.plain, (grad_stats,)), *(None,) * 4
        logits, target, valid = ctx.saved_tensors
        buffer = _take(ctx)
        fresh = buffer is None
        grad = _like(logits) if buffer is None else buffer
        by_i, by_s = grad_stats.to(logits.dtype)[..., None].unbind(0)
        for at in sigmoid_chunks(logits.shape):
            p, t, v = _cut(grad, at), _cut(target, at), _cut(valid, at)
            assert p is not None and t is not None
            if fresh:
                _sigmoid(logits[at[0], :, at[1]], v, p)
            slope = t.to(p.dtype) * by_i[at[0]]
            s = by_s[at[0]]
            slope = slope.addcmul_(p, s, value=2) if ctx.squared else slope.add_(s)
            if v is not None:
                slope = torch.where(v, slope, 0.0)
            p.addcmul_(p, p, value=-1).mul_(slope)  # p (1 - p) dL/dp
        return grad, *(None,) * 4


def is_hard(target: Tensor, valid: Tensor | None) -> bool:
    """Whether every valid probability (N, C, P) is 0 or 1."""
    for at in chunks(target.shape):
        t, v = target[at[0], :, at[1]], _cut(valid, at)
        if not _all_hard(t if v is None else torch.where(v, t, 0)):
            return False
    return True


def _all_hard(t: Tensor) -> bool:
    """Whether all probabilities are 0 or 1: t (1 - t) >= 0 sums to 0 then alone."""
    return not t.is_floating_point() or not torch.addcmul(t, t, t, value=-1).sum().item()


def _softplus(x: Tensor) -> Tensor:
    """Return log(1 + eˣ) = max(x, 0) + log(1 + e^-|x|); torch's own is not vectorised this far."""
    return x.abs().neg_().exp_().log1p_().add_(x.clamp_min(0))


def _sigmoid(z: Tensor, valid: Tensor | None, out: Tensor) -> None:
    """Sigmoid of a chunk into `out`, 0 where void."""
    if valid is None:
        torch.sigmoid(z, out=out)
    else:
        torch.sigmoid(torch.where(valid, z, 0.0), out=out).mul_(valid)


def class_totals(shape: torch.Size, target: Tensor, valid: Tensor | None) -> tuple[Tensor, Tensor]:
    """T = Σ t and the number of valid pixels, per image and class, (N, C), float64."""
    n, c, p = shape
    truth = torch.zeros(n, c, dtype=torch.float64)
    if target.ndim == 2:  # hard labels; void ones are counted as a class C
        for at in chunks(torch.Size((n, 1, p))):
            labels, v = target[at], _cut(valid, at)
            if v is not None:
                labels = torch.where(v, labels.long(), c)
            if labels.shape[0] > 1:
                labels = labels.long() + (c + 1) * torch.arange(labels.shape[0])[:, None]
            counts = torch.bincount(
                labels.reshape(-1), minlength=(at[0].stop - at[0].start) * (c + 1)
            )
            truth[at[0]] += counts.view(-1, c + 1)[:, :c]
    else:
        for at in chunks(shape):
            t, v = target[at[0], :, at[1]], _cut(valid, at)
            truth[at[0]] += _total(t if v is None else torch.where(v, t, 0))
    if valid is None:
        return truth, torch.full_like(truth, p)
    count = valid.sum(-1).double()
    return truth, count[:, None].expand(n, c) if count.ndim == 1 else count


class LovaszSum(torch.autograd.Function):
    """Σ over images and classes of a coefficient times the Lovász extension of the errors.

    For exclusive classes and sigmoids (errors |t - p|), and for the hinge (errors 1 - z (2t - 1)).
    Labels are hard and logits float32. The gradient is made with the value.
    """

    @staticmethod
    def forward(
        ctx: Any,
        logits: Tensor,
        target: Tensor,
        valid: Tensor | None,
        coefficient: Tensor,
        per_image: bool,
        hinge: bool,
        bins: int | None,
        plain: Callable[[Tensor], tuple[Tensor, ...]],
    ) -> Tensor:
        total, buffer = _lovasz(logits, target, valid, coefficient, per_image, hinge, bins)
        ctx.save_for_backward(logits, target, valid, coefficient)
        ctx.buffer, ctx.how, ctx.plain = buffer, (per_image, hinge, bins), plain
        return total

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Any:
        if _plainly(grad):
            return _again(ctx, ctx.plain, (grad,)), *(None,) * 7
        buffer = _take(ctx)
        if buffer is None:
            logits, target, valid, coefficient = ctx.saved_tensors
            buffer = _lovasz(logits, target, valid, coefficient, *ctx.how)[1]
        return _times(buffer, grad), *(None,) * 7


def _lovasz(
    logits: Tensor,
    target: Tensor,
    valid: Tensor | None,
    coefficient: Tensor,
    per_image: bool,
    hinge: bool,
    bins: int | None,
) -> tuple[Tensor, Tensor]:
    n, c, p = logits.shape
    softmax = target.ndim == 2
    grad = _like(logits)
    top = inverse = None
    if not hinge:  # the probabilities, and what makes them again
        if softmax:
            top, inverse = logits.new_empty((n, p)), logits.new_empty((n, p))
        for at in chunks(logits.shape):
            _probabilities(logits, valid, at, grad[at[0], :, at[1]], top, inverse, first=True)
    # Σ_c p_c g_c of the softmax's backward, as it grows class by class.
    mean = torch.zeros((n, p), dtype=logits.dtype) if softmax and not hinge else None
    total = torch.zeros((), dtype=torch.float64)
    images = [slice(i, i + 1) for i in range(n)] if per_image else [slice(0, n)]
    factors = coefficient.view(-1, c).tolist()  # on the CPU: free
    for unit, row in zip(images, factors, strict=True):
        for k, factor in enumerate(row):
            where = grad[unit, k]
            if factor == 0:
                where.zero_()
                continue
            v = None
            if valid is not None:
                v = (valid[unit] if softmax else valid[unit, k]).reshape(-1)
            labels = target[unit] if softmax else target[unit, k]
            base, label = logits[unit, k] if hinge else where, k if softmax else 1
            errors = functools.partial(_errors, base, labels, label, v, hinge)
            if bins is None:
                value, slope = _sorted_extension(errors, factor)
            else:
                value, slope = _binned_extension(errors, factor, bins, hinge)
            slope = slope.view(where.shape)
            total += value
            if mean is not None:
                mean[unit].addcmul_(where, slope)
            elif not hinge:
                slope.mul_(where).mul_(1 - where)
            where.copy_(slope)
    if mean is not None:
        for at in chunks(logits.shape):
            z = logits[at[0], :, at[1]]
            probs = torch.empty(z.shape, dtype=z.dtype)
            _probabilities(logits, valid, at, probs, top, inverse, first=False)
            grad[at[0], :, at[1]].sub_(mean[at][:, None]).mul_(probs)
    return total.to(logits.dtype), grad


def _probabilities(
    logits: Tensor,
    valid: Tensor | None,
    at: Slices,
    out: Tensor,
    top: Tensor | None,
    inverse: Tensor | None,
    *,
    first: bool,
) -> None:
    """Probabilities of a chunk into `out`, 0 where void; the first time also what they need."""
    z, v = logits[at[0], :, at[1]], _cut(valid, at)
    if top is None or inverse is None:
        _sigmoid(z, v, out)
        return
    if v is not None:
        z = torch.where(v[:, None], z, 0.0)
    if first:
        z, largest = _top(z)
        top[at] = largest[:, 0]
    elif z.isposinf().any():
        z = certain(z)
    torch.sub(z, top[at][:, None], out=out)
    out.exp_()
    if first:
        scale = out.sum(1).reciprocal_()
        inverse[at] = scale if v is None else torch.where(v, scale, 0.0)
    out.mul_(inverse[at][:, None])


def _errors(
    base: Tensor, labels: Tensor, label: int, valid: Tensor | None, hinge: bool
) -> tuple[Tensor, Tensor]:
    """Errors and foreground of one class over one unit, flat: |t - p|, or 1 - z (2t - 1).

    Errors are -1 where void, and labels 0.
    """
    t = (labels if labels.is_floating_point() else labels == label).reshape(-1).to(base.dtype)
    if valid is not None:
        t = torch.where(valid, t, 0.0)
    sign = torch.rsub(t, 1, alpha=2)  # -1 on foreground: the error there falls as p rises
    errors = sign.mul_(base.reshape(-1)).add_(1 if hinge else t)
    if not hinge:
        errors.clamp_min_(0)  # p may round to a little more than 1
    return (errors if valid is None else torch.where(valid, errors, -1.0)), t


def _sorted_extension(
    make_errors: Callable[[], tuple[Tensor, Tensor]], factor: float
) -> tuple[float, Tensor]:
    """Lovász extension times `factor` by the exact order of the errors, and its slope by p or z.

    Among equal errors foreground goes first; errors of 0 or less cost nothing and have slope 0.
    Non-negative floats are ordered as their bits are, so the errors are sorted as integers, which
    is a radix sort; the lowest bit makes room for the label. Errors that differ in that bit alone
    count as equal, which moves an increment by the relative size of one pixel in the union.
    Nothing outlives its use: sorting needs the memory.
    """
    errors, t = make_errors()
    if torch.isnan(errors.sum()):  # sorting would hide it
        return math.nan, torch.full_like(errors, math.nan)
    rest = int(t.sum(dtype=torch.float64))
    keys = errors.view(torch.int32).clamp_min_(0).bitwise_or_(1)
    keys.bitwise_xor_(0x7FFFFFFE)  # largest first
    keys.bitwise_xor_(t.to(torch.int32))  # lowest bit: 0 for foreground
    del errors, t
    keys, order = keys.sort()
    size = keys.numel()
    # From here on only those with an error: the key of 0 is 0x7FFFFFFE or one more.
    count = int(torch.searchsorted(keys, 0x7FFFFFFE))
    keys, order = keys[:count], order[:count]
    if count == 0:
        return 0.0, torch.zeros(size, dtype=torch.float32)
    if rest == 0:  # the Jaccard loss is 1 as soon as there is one error
        value = factor * float(_error_of(keys[:1]))
        return value, torch.zeros(size, dtype=torch.float32).index_fill_(0, order[:1], factor)
    # Counts in float32 are exact up to 2^24, and sums and products of them as cheap as of others.
    exact = torch.float32 if size <= 1 << 24 else torch.float64
    background = (keys & 1).to(exact)
    # U = T + background before; I = U - rank. Foreground 1/U, background I / (U (U + 1)).
    union = background.cumsum(0).sub_(background).add_(rest)
    increments = union.addcmul(background, torch.arange(count, dtype=exact), value=-1)
    increments.div_(union).div_(union.add_(background))
    del union
    increments, background = increments.float(), background.float()
    value = factor * float(_error_of(keys).mul_(increments).sum(dtype=torch.float64))
    increments.mul_(background.mul_(2 * factor).sub_(factor))
    del keys, background
    return value, torch.zeros(size, dtype=torch.float32).index_copy_(0, order, increments)


def _error_of(keys: Tensor) -> Tensor:
    """The errors that sorted keys were made of, with a lowest bit of 0: ½ and 1 come back exactly."""
    return keys.bitwise_or(1).bitwise_xor_(0x7FFFFFFF).view(torch.float32)


def _binned_extension(
    make_errors: Callable[[], tuple[Tensor, Tensor]], factor: float, bins: int, hinge: bool
) -> tuple[float, Tensor]:
    """The same with the errors in bins; see ``lovasz.binned_lovasz_extension``."""
    errors, t = make_errors()
    if torch.isnan(errors.sum()):
        return math.nan, torch.full_like(errors, math.nan)
    largest = float(errors.max()) if hinge and errors.numel() else 1.0
    scale = bins / largest if largest > 0 else 1.0
    # Bin 0 holds the largest errors; one more after the last, negative ones, which cost nothing.
    index = (errors * scale).floor_().clamp_(-1, bins - 1).mul_(-2).add_(2 * bins - 2).add_(t)
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
    by_bin = torch.zeros(2 * bins + 2, dtype=errors.dtype)
    by_bin[:-2] = torch.stack([bg, fg], 1).view(-1)
    increments = by_bin.index_select(0, index)
    value = torch.mul(errors, increments).sum(dtype=torch.float64)
    return factor * float(value), increments.mul_(torch.rsub(t, factor, alpha=2 * factor))
