"""A sample on the CPU: the same primitives in chunks, with gradients in closed form.

:class:`ChunkedSample` overrides what costs time in :class:`Sample`. It saves in three ways:

* chunks of half a megabyte, so that temporaries stay in the cache;
* one full-size buffer: the forward leaves the probabilities (or already the gradient) in it, and the
  first backward turns it into the gradient in place and gives it away. A second backward over a
  retained graph recomputes it;
* no one-hot, and every target read once.

Region statistics are sums of errors, Σ t (1-p) and Σ (1-t) p. Where exactness matters these terms
are small, so float32 adds them up without loss, which it cannot do with Σ p of a large class.

Differentiating a backward (``create_graph=True``) goes through the plain formula.
"""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from . import _check, _order, _valid
from ._sample import Phi, Regions, Sample, certain, finite, itself, possible

Outputs = tuple[Tensor, ...]
#: Outputs, or a scalar, with the buffer of the logits' shape that the gradient is made in, or is.
Made = tuple[Outputs, Tensor | None]
MadeOne = tuple[Tensor, Tensor | None]

#: Elements in a chunk, for each of torch's threads: half a megabyte of float32.
_CHUNK = 1 << 17

#: More threads than these share the chunks of as many: temporaries grow with the chunk.
_THREADS = 4

#: Up to so many classes, comparing each class with the labels beats gathering and scattering.
_FEW = 6

#: Sums of exponentials between these kept all their digits.
_SAFE = (1e-18, 1e36)


class Eager(torch.autograd.Function):
    """Outputs of a form, and the logits' gradient that the form makes of theirs.

    `compute` (logits, keep) returns the outputs and, if `keep`, a buffer of the logits' shape.
    `finish` (logits, buffer, gradients) makes the gradient, in the buffer, or from the logits where
    the buffer is None. `plain` is the differentiable formula. `held` are the tensors that all three
    read: autograd sees it if somebody changes them before the backward.
    """

    @staticmethod
    def forward(
        ctx: Any,
        logits: Tensor,
        compute: Callable[[Tensor, bool], Made],
        finish: Callable[[Tensor, Tensor | None, Outputs], Tensor],
        plain: Callable[[Tensor], Outputs],
        *held: Tensor | None,
    ) -> Outputs:
        """Outputs of `compute`, always as a tuple."""
        with torch.autocast("cpu", enabled=False):
            outputs, ctx.buffer = compute(logits, ctx.needs_input_grad[0])
        ctx.save_for_backward(logits, *held)
        ctx.finish, ctx.plain = finish, plain
        ctx.set_materialize_grads(False)
        return outputs

    @staticmethod
    def backward(ctx: Any, *grads: Tensor | None) -> Any:
        """Gradient of the logits, and None for the rest."""
        logits, *held = ctx.saved_tensors
        none = (None,) * (3 + len(held))
        if all(g is None for g in grads):
            return None, *none
        if _plainly(*grads):
            return _again(logits, ctx.plain, grads), *none
        buffer, ctx.buffer = ctx.buffer, None
        with torch.autocast("cpu", enabled=False):
            return ctx.finish(logits, buffer, grads), *none


def _whole(
    logits: Tensor,
    compute: Callable[[Tensor, bool], MadeOne],
    plain: Callable[[Tensor], Tensor],
    *held: Tensor | None,
) -> Tensor:
    """Scalar whose gradient `compute` makes together with the value."""

    def finish(z: Tensor, buffer: Tensor | None, grads: Outputs) -> Tensor:
        buffer = compute(z, True)[1] if buffer is None else buffer
        assert buffer is not None
        return buffer if grads[0].item() == 1 else buffer.mul_(grads[0])

    def outputs(z: Tensor, keep: bool) -> Made:
        value, buffer = compute(z, keep)
        return (value,), buffer

    result: Tensor = Eager.apply(logits, outputs, finish, lambda z: (plain(z),), *held)[0]
    return result


def _plainly(*grads: Tensor | None) -> bool:
    """Whether a backward goes through the plain formula: it is differentiated, or many run at once.

    ``is_grads_batched=True`` (a Jacobian or a Hessian in one call) hands over batched tensors, whose
    values nobody may look at and into which no buffer can be changed in place.
    """
    return torch.is_grad_enabled() or any(_check.is_batched(g) for g in grads if g is not None)


def _again(
    logits: Tensor, plain: Callable[[Tensor], Outputs], grads: tuple[Tensor | None, ...]
) -> Tensor:
    """Differentiable gradient of the plain formula."""
    with torch.enable_grad():
        pairs = [(o, g) for o, g in zip(plain(logits), grads, strict=True) if g is not None]
        outputs, given = zip(*pairs, strict=True)
        grad: Tensor = torch.autograd.grad(outputs, logits, given, create_graph=True)[0]
    return grad


@dataclass
class ChunkedSample(Sample):
    """A sample on the CPU, eager, with hard labels where classes exclude each other."""

    shared: bool = False  #: whether both surprisal and regions will be asked for
    entropy: bool = False  #: whether the regions and the plain sum of surprisals will be asked for

    def label_surprisal(self) -> Tensor:
        """Surprisal of hard labels of exclusive classes, (N, P)."""
        return self._softmax_statistics(surprisal=True, regions=self.shared, squared=False)[0]

    def pixel_sum(
        self, phi: Phi, dphi: Phi | None, weight: Tensor | None = None, scale: Tensor | None = None
    ) -> Tensor:
        """Sum of the map `pixels`, times `scale`."""
        learnt = any(x is not None and x.requires_grad for x in (weight, scale))
        if learnt or (self.shared and self.softmax):
            return super().pixel_sum(phi, dphi, weight, scale)
        if self.entropy and dphi is None and weight is None:
            total = self._sigmoid_statistics(squared=False)[1]
            return total if scale is None else total * scale
        again = self.plainly()
        factor = self.logits.new_ones(()) if scale is None else scale.to(self.logits.dtype)
        how = (self.target, self.valid, weight)
        form = _softmax_pixel_sum if self.softmax else _sigmoid_pixel_sum
        return _whole(
            self.logits,
            lambda z, keep: form(
                _Source(z, *how), factor, itself if dphi is None else phi, dphi, keep
            ),
            lambda z: again(z).pixel_sum(phi, dphi, weight, factor),
            *how,
            factor,
        )

    def weight_sum(self, weight: Tensor | None = None) -> Tensor:
        """Sum of the map `weights`."""
        if weight is None:
            entries = self.target.numel() if self.valid is None else _valid.count(self.valid).sum()
            return self.logits.new_tensor(float(entries))
        truth, count = self.class_totals()
        if self.softmax:
            total = (truth * weight[:, 0]).sum()
        else:
            total = (truth * weight[1, :, 0] + (count - truth) * weight[0, :, 0]).sum()
        return total.to(self.logits.dtype)

    def regions(self, *, squared: bool = False, distance: bool = False) -> Regions:
        """Statistics per image and class, (N, C)."""
        if distance and not self.labelled():
            return super().regions(squared=squared, distance=distance)
        if self.softmax:
            _, stats = self._softmax_statistics(
                surprisal=self.shared, regions=True, squared=squared
            )
        else:
            stats, _ = self._sigmoid_statistics(squared)
        intersection, predicted, target = stats.unbind(0)
        if squared and self.soft:
            target = self.class_totals(squared=True)[0]
        apart = predicted + target - 2 * intersection
        return Regions(intersection, predicted, target, self.valid_counts(), apart)

    def labelled(self) -> bool:
        """Whether every valid t is 0 or 1."""
        return not self.soft or _all_hard(
            _valid.masked(self.target, _bits(self.valid, self.target))
        )

    def class_totals(self, *, squared: bool = False) -> tuple[Tensor, Tensor]:
        """T = Σ t (or Σ t²) and the number of valid pixels, per image and class, (N, C), float64."""
        key = f"truth {squared}"
        if key not in self._cache:
            how = (self.logits.shape, self.target, self.valid)
            self._cache[key] = _class_totals(*how, squared)
        return self._cache[key], self.valid_counts()

    def valid_counts(self) -> Tensor:
        """Number of valid pixels per image and class, (N, C), float64."""
        n, c, p = self.logits.shape
        if self.valid is None:
            return torch.full((n, c), float(p), dtype=torch.float64, device="cpu")
        if "valid" not in self._cache:
            self._cache["valid"] = _valid.count(self.valid)
        count = self._cache["valid"]
        return count[:, None].expand(n, c) if count.ndim == 1 else count

    def chosen(self, u: Tensor, count: Tensor) -> Tensor:
        """Mask of the `count` largest of the flat map `u`, in which void pixels are negative."""
        left = u.clone()
        return left >= _order.drop_all_but(left, int(count))

    def hard(self, u: Tensor, cut: float, fewest: Tensor) -> Tensor:
        """Mask of what lies above `cut`, or of the `fewest` largest where that is more."""
        above = u > cut
        return above if int(above.sum()) >= int(fewest) else self.chosen(u, fewest)

    def hardest(
        self, cut: float | None, fewest: Callable[[Tensor], Tensor], weight: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        """Σ w u and Σ w over the pixels of largest surprisal."""
        if self.softmax or (weight is not None and weight.requires_grad):
            return super().hardest(cut, fewest, weight)
        n = self.target.numel() if self.valid is None else int(_valid.count(self.valid).sum())
        how = (self.target, self.valid, weight)
        again, least, kept = self.plainly(), int(fewest(torch.tensor(n, device="cpu"))), []

        def compute(z: Tensor, keep: bool) -> MadeOne:
            total, weights, buffer = _sigmoid_hardest(_Source(z, *how), cut, least, keep)
            kept.append(total if math.isnan(total) else weights)  # NaN is above no cut
            return z.new_tensor(total), buffer

        plain = lambda z: again(z).hardest(cut, fewest, weight)[0]  # noqa: E731
        total = _whole(self.logits, compute, plain, *how)
        return total, total.new_tensor(kept[0])

    def lovasz(
        self,
        plain: Callable[[Sample], Tensor],
        coefficient: Callable[[Tensor, Tensor], Tensor],
        *,
        per_image: bool,
        hinge: bool,
        bins: int | None,
    ) -> Tensor:
        """Σ over images and classes of a coefficient times the Lovász extension of the errors."""
        if self.logits.dtype != torch.float32 or not self.labelled():
            return super().lovasz(plain, coefficient, per_image=per_image, hinge=hinge, bins=bins)
        factors = coefficient(*self.class_totals())
        how, again = (self.target, self.valid), self.plainly()
        return _whole(
            self.logits,
            lambda z, keep: _lovasz(_Source(z, *how), factors, per_image, hinge, bins),
            lambda z: plain(again(z)),
            *how,
            factors,
        )

    def _softmax_statistics(
        self, *, surprisal: bool, regions: bool, squared: bool
    ) -> tuple[Tensor, Tensor]:
        """Surprisal map (N, P) and I, S, T (3, N, C) of hard labels in one pass, remembered."""
        key_u, key = "surprisal", f"statistics {squared}"
        ask_u, ask = surprisal and key_u not in self._cache, regions and key not in self._cache
        if ask_u or ask:
            again, how = self.plainly(), (self.target, self.valid)

            def plain(z: Tensor) -> Outputs:
                twin = again(z)
                return twin.surprisal(), _stacked(twin.regions(squared=squared))

            u, stats = Eager.apply(
                self.logits,
                lambda z, keep: _softmax_statistics(_Source(z, *how), keep, ask_u, ask, squared),
                lambda z, buffer, grads: _softmax_gradient(
                    _Source(z, *how), buffer, grads[0], grads[1], ask_u, squared
                ),
                plain,
                *how,
            )
            self._cache.update({key_u: u} if ask_u else {})
            self._cache.update({key: stats} if ask else {})
        empty = self.logits[:0]
        return self._cache.get(key_u, empty), self._cache.get(key, empty)

    def _sigmoid_statistics(self, squared: bool) -> tuple[Tensor, Tensor]:
        """I, S, T of every channel's sigmoid, (3, N, C), and Σ u if `entropy`; remembered."""
        key = f"statistics {squared}"
        if key not in self._cache:
            again, how, entropy = self.plainly(), (self.target, self.valid), self.entropy

            def plain(z: Tensor) -> Outputs:
                twin = again(z)
                return _stacked(twin.regions(squared=squared)), twin.surprisal().sum()

            self._cache[key], self._cache[key + " sum"] = Eager.apply(
                self.logits,
                lambda z, keep: _sigmoid_statistics(_Source(z, *how), keep, squared, entropy),
                lambda z, buffer, grads: _sigmoid_gradient(
                    _Source(z, *how), buffer, grads[0], grads[1], squared
                ),
                plain,
                *how,
            )
        return self._cache[key], self._cache[key + " sum"]


def _stacked(r: Regions) -> Tensor:
    """I, S and T as the chunked forms give them."""
    return torch.stack([r.intersection, r.predicted, r.target.expand_as(r.predicted)])


def _size(shape: torch.Size) -> tuple[int, int]:
    """Images and pixels in a chunk of logits (N, C, P): whole images, or pixels of one."""
    _, c, p = shape
    # Of several classes there are maps of a pixel each beside those of the logits: fewer, larger chunks.
    # Threads share a chunk: each gets as much as one alone would.
    threads = min(torch.get_num_threads(), _THREADS)
    elements = _CHUNK * threads * (1 if c == 1 else 2 if c <= _FEW else 4)
    return max(1, elements // max(1, c * p)), max(1, min(p, elements // c))


def _cuts(x: Tensor, shape: torch.Size) -> list[Tensor]:
    """Chunks of a map (N, P) or (N, C, P) of logits of `shape`; none of an empty one.

    All views in one call: narrowing chunk by chunk costs as much as an operation on a chunk.
    """
    n, c, p = shape
    if n == 0 or p == 0:
        return []
    images, pixels = _size(shape)
    if images == c == 1 and p % pixels == 0 and x.is_contiguous():
        return [*x.view(-1, *(1,) * (x.ndim - 1), pixels).unbind()]
    return [part for rows in x.split(images) for part in rows.split(pixels, -1)]


def _added(parts: list[Tensor], *size: int) -> Tensor:
    """Sums of the chunks, each (..., k, C), as sums of the images in float64, of `size` (..., N, C)."""
    if not parts:
        return torch.zeros(size, dtype=torch.float64, device="cpu")
    total: Tensor = torch.cat(parts, -2).double().unflatten(-2, (size[-2], -1)).sum(-2)
    return total


@dataclass(slots=True)
class _Piece:
    """Chunk of a call: logits and probabilities are 0 where void, labels are as they came."""

    rows: slice  #: its images
    z: Tensor
    target: Tensor
    valid: Tensor | None  #: as bits, see :mod:`._valid`
    out: Tensor  #: chunk of the buffer, or memory of its own
    maps: tuple[Tensor, ...]  #: chunks of the other maps


@dataclass
class _Source:
    """What a form reads: see :class:`Sample`; `weight` is a class table."""

    logits: Tensor
    target: Tensor
    valid: Tensor | None
    weight: Tensor | None = None

    def pieces(self, buffer: Tensor | None, *maps: Tensor, logits: bool = True) -> Iterator[_Piece]:
        """The chunks, with those of the buffer (or with memory of their own) and of other maps.

        Without `logits` those of void pixels are as they came: for who does not read them.
        """
        shape = self.logits.shape
        images, pixels = _size(shape)
        repeats = -(-shape[2] // pixels)
        soft = self.target.ndim == 3

        def cuts(x: Tensor | None) -> Iterable[Any]:
            return itertools.repeat(None) if x is None else _cuts(x, shape)

        others = zip(*map(cuts, maps), strict=True) if maps else itertools.repeat(())
        columns = map(cuts, (self.logits, self.target, self.valid, buffer))
        for number, (z, t, v, out, more) in enumerate(zip(*columns, others, strict=False)):
            first = number // repeats * images
            if soft and t.dtype != z.dtype:
                t = t.to(z.dtype)
            if v is not None:
                v = _valid.bits(v, z)
                if logits:
                    z = _valid.masked(z, v[:, None] if v.ndim < z.ndim else v)
                t = _valid.masked(t, v) if soft else t
            if out is None:
                out = torch.empty(z.shape, dtype=z.dtype, device="cpu")
            yield _Piece(slice(first, first + z.shape[0]), z, t, v, out, more)


def _like(logits: Tensor) -> Tensor:
    """A contiguous tensor of the logits' shape, not yet filled."""
    return torch.empty_like(logits, memory_format=torch.contiguous_format)


def _bits(valid: Tensor | None, like: Tensor) -> Tensor | None:
    """A mask of bools, or none, as bits for numbers as wide as those of `like`."""
    return None if valid is None else _valid.bits(valid, like)


class _Labels:
    """Labels of a chunk, (k, m): as indices, or, for few classes, as one-hot planes of floats.

    For few classes a gather, a scatter and a reduction over the strided axis each cost more than
    the elementwise operations on whole planes that do the same. Masks multiply, so that infinite
    logits need indices.
    """

    def __init__(self, piece: _Piece, *, planes: bool) -> None:
        self.valid = piece.valid
        self.masks: list[Tensor] = []
        if planes:
            # Two steps: each is vectorised, the direct one is not.
            code = piece.target.to(torch.uint8).to(piece.z.dtype)
            if self.valid is not None:
                code = _valid.filled(code, self.valid, -1.0)
            classes = range(piece.z.shape[1])
            self.masks = [torch.eq(code, k, out=torch.empty_like(code)) for k in classes]
            self.index = piece.target
        else:
            self.index = _valid.masked(piece.target, self.valid).long()

    def pick(self, x: Tensor) -> Tensor:
        """Of (k, C, m) what stands at the labels, (k, m); of void pixels anything, or 0."""
        if not self.masks:
            return x.gather(1, self.index[:, None])[:, 0]
        planes = x.unbind(1)
        total = planes[0] * self.masks[0]
        for plane, mask in zip(planes[1:], self.masks[1:], strict=True):
            total.addcmul_(plane, mask)
        return total

    def subtract(self, x: Tensor, value: Tensor) -> None:
        """Subtract `value` (k, m), 0 where void, at the labels of x (k, C, m)."""
        if not self.masks:
            x.scatter_add_(1, self.index[:, None], value.neg().expand(self.index.shape)[:, None])
            return
        for plane, mask in zip(x.unbind(1), self.masks, strict=True):
            plane.addcmul_(mask, value, value=-1)


def _sum(x: Tensor) -> float:
    """Sum of a chunk; float32 is enough, since torch adds in a tree and chunks are added in float64."""
    return x.sum().item()


def _sum_classes(x: Tensor) -> Tensor:
    """Sum over the classes, (k, m)."""
    if x.shape[1] > _FEW:
        return x.sum(1)
    planes = x.unbind(1)
    total = planes[0] + planes[1]
    for plane in planes[2:]:
        total.add_(plane)
    return total


def _shifted(z: Tensor, out: Tensor) -> Tensor:
    """Logits less the pixel's largest, into `out`."""
    top = z.amax(1) if z.shape[1] > _FEW else functools.reduce(torch.maximum, z.unbind(1))
    return torch.sub(z, top[:, None], out=out)


def _surprisal(piece: _Piece) -> tuple[_Labels, Tensor, Tensor]:
    """Exponentials into the piece's `out`; return labels, u and 1/Σ, both 0 where void.

    Infinite logits are rare: they show as NaN in the sum, and then everything is done with care.
    """
    for careful in (False, True):
        labels = _Labels(piece, planes=not careful and piece.z.shape[1] <= _FEW)
        target = labels.pick(_shifted(certain(piece.z) if careful else piece.z, piece.out))
        total = _sum_classes(piece.out.exp_())
        u = _valid.masked(total.log().sub_(target), labels.valid)
        if not math.isnan(_sum(u)):
            break
    return labels, u, _valid.masked(total.reciprocal_(), labels.valid)


def _softmax(z: Tensor, valid: Tensor | None, out: Tensor, *, shifted: bool) -> None:
    """Probabilities into `out`, 0 where void; `shifted` to the last bit as `_surprisal` has them."""
    if not shifted:  # most logits need no shift before the exponential
        total = _sum_classes(torch.exp(z, out=out))
        low, high = total.aminmax()
        shifted = not (low.item() > _SAFE[0] and high.item() < _SAFE[1])  # NaN compares false
    if shifted:
        total = _sum_classes(_shifted(z, out).exp_())
        if math.isnan(_sum(total)):
            total = _sum_classes(_shifted(certain(z), out).exp_())
    out.mul_(_valid.masked(total.reciprocal_(), valid)[:, None])


def _softmax_statistics(
    s: _Source, keep: bool, surprisal: bool, regions: bool, squared: bool
) -> Made:
    """Surprisal (N, P), and I, S (or Σ p²), T of every class, (3, N, C); probabilities."""
    n, c, p = s.logits.shape
    buffer = _like(s.logits) if keep else None
    u_all = s.logits.new_empty((n, p) if surprisal else (0, 0))
    sums: list[Tensor] = []
    for piece in s.pieces(buffer, *([u_all] if surprisal else [])):
        if surprisal:
            labels, u, inverse = _surprisal(piece)
            piece.out.mul_(inverse[:, None])
            piece.maps[0].copy_(u)
        else:
            labels = _Labels(piece, planes=c <= _FEW)
            _softmax(piece.z, piece.valid, piece.out, shifted=False)
        if regions:
            add = _sums_few if labels.masks else _sums_many
            sums.append(add(piece.out, labels, squared))
    stats = _from_errors(*_added(sums, 3, n, c)) if regions else torch.zeros(0, device="cpu")
    return (u_all, stats), buffer


def _from_errors(truth: Tensor, missed: Tensor, excess: Tensor) -> Tensor:
    """I, S and T of T, Σ t (1-p) and S - I."""
    intersection = (truth - missed).clamp_min(0)
    return torch.stack([intersection, intersection + excess, truth])


def _sums_few(p: Tensor, labels: _Labels, squared: bool) -> Tensor:
    """T, Σ t (1-p) and S - I of few classes, (3, k, C)."""
    rows = []
    for plane, mask in zip(p.unbind(1), labels.masks, strict=True):
        error = plane - mask
        wrong = torch.mul(plane, error).sum(-1) if squared else error.sum(-1)
        missed = error.mul_(mask).sum(-1).neg_()
        rows.append(torch.stack([mask.sum(-1), missed, wrong if squared else wrong + missed]))
    return torch.stack(rows, -1)


def _sums_many(p: Tensor, labels: _Labels, squared: bool) -> Tensor:
    """T, Σ t (1-p) and S - I by index, (3, k, C)."""
    k, c, _ = p.shape
    hit = labels.pick(p)
    missed = _valid.masked(torch.rsub(hit, 1), labels.valid)
    ones = None if labels.valid is None else labels.valid.double().neg_().reshape(-1)
    rows = labels.index if k == 1 else labels.index + c * torch.arange(k, device="cpu")[:, None]
    rows = rows.reshape(-1)
    truth = torch.bincount(rows, ones, minlength=k * c).view(k, c).double()
    lost = torch.bincount(rows, missed.double().reshape(-1), minlength=k * c).view(k, c)
    # With p - 1 in the place of p at the label the sum over pixels is S - T.
    if squared:
        p = p * p
        wrong = p.scatter_(1, labels.index[:, None], (-missed * hit)[:, None]).sum(-1).double()
    else:
        wrong = p.scatter_(1, labels.index[:, None], missed.neg()[:, None]).sum(-1).double() + lost
        p.scatter_(1, labels.index[:, None], hit[:, None])
    return torch.stack([truth, lost, wrong])


def _softmax_gradient(
    s: _Source,
    buffer: Tensor | None,
    by_u: Tensor | None,
    by_stats: Tensor | None,
    shifted: bool,
    squared: bool,
) -> Tensor:
    """Gradient by the logits: dL/dz = p (b - s) + [c = t] p_t a, and g (p - [c = t]) of u.

    Here dL/dp = b + [c = t] a and s = Σ p dL/dp.
    """
    fresh = buffer is None
    grad = _like(s.logits) if buffer is None else buffer
    c = s.logits.shape[1]
    a = b = None
    if by_stats is not None:
        a, b, _ = by_stats.to(s.logits.dtype).unbind(0)
    for piece in s.pieces(grad, *([] if by_u is None else [by_u]), logits=fresh):
        p, labels = piece.out, _Labels(piece, planes=c <= _FEW)
        if fresh:
            _softmax(piece.z, piece.valid, p, shifted=shifted)
        g = None if by_u is None else _valid.masked(piece.maps[0], piece.valid)
        if a is None or b is None:
            assert g is not None
            p.mul_(g[:, None])
            labels.subtract(p, g)
        else:
            form = _few_gradient if labels.masks else _many_gradient
            form(p, labels, a[piece.rows], b[piece.rows, :, None], g, squared)
    return grad


def _few_gradient(
    p: Tensor, labels: _Labels, a: Tensor, b: Tensor, g: Tensor | None, squared: bool
) -> None:
    """Turn probabilities into the gradient, plane by plane."""
    planes, slopes = p.unbind(1), []
    for k, (plane, mask) in enumerate(zip(planes, labels.masks, strict=True)):
        slope = mask * a[:, k, None]
        slopes.append(slope.addcmul_(plane, 2 * b[:, k]) if squared else slope.add_(b[:, k]))
    mean = planes[0] * slopes[0]
    for plane, slope in zip(planes[1:], slopes[1:], strict=True):
        mean.addcmul_(plane, slope)
    offset = mean.neg_() if g is None else torch.sub(g, mean)
    for plane, slope in zip(planes, slopes, strict=True):
        plane.mul_(slope.add_(offset))
    if g is not None:
        labels.subtract(p, g)


def _many_gradient(
    p: Tensor, labels: _Labels, a: Tensor, b: Tensor, g: Tensor | None, squared: bool
) -> None:
    """Turn probabilities into the gradient, with the labels as indices."""
    at_label = a[0][labels.index] if a.shape[0] == 1 else a.gather(1, labels.index)
    hit = labels.pick(p).mul_(at_label)
    if squared:
        slope = p * (2 * b)
        mean = (p * slope).sum(1)
    else:
        slope, mean = b, torch.bmm(b.transpose(1, 2), p)[:, 0]
    offset = -mean - hit if g is None else g - mean - hit
    p.mul_(slope + offset[:, None])
    labels.subtract(p, -hit if g is None else g - hit)


def _softmax_pixel_sum(
    s: _Source, scale: Tensor, phi: Phi, dphi: Phi | None, keep: bool
) -> MadeOne:
    """Σ w φ(u) of hard labels, times `scale`, and its gradient."""
    buffer = _like(s.logits) if keep else None
    total = 0.0
    for piece in s.pieces(buffer):
        labels, u, inverse = _surprisal(piece)
        q = u if dphi is None else torch.expm1(-u).neg_()
        for careful in (False, True):  # infinite surprisals are rare, and show in the sum
            slope = (
                scale
                if dphi is None
                else dphi(finite(u) if careful else u, q) * scale
                if keep
                else u
            )
            value = phi(u, q)
            if s.weight is not None:
                w = s.weight[:, 0][_valid.masked(labels.index, piece.valid).long()]
                value, slope = (possible(value, w) if careful else value) * w, slope * w
            if value is not u:  # of void pixels u is 0
                value = _valid.masked(value, piece.valid)
            part = _sum(value)
            if math.isfinite(part):
                break
        total += part
        if keep:
            slope = _valid.masked(slope, piece.valid)
            piece.out.mul_(inverse.mul_(slope)[:, None])
            labels.subtract(piece.out, slope)
    return total * scale, buffer


def _sigmoid_pixel_sum(
    s: _Source, scale: Tensor, phi: Phi, dphi: Phi | None, keep: bool
) -> MadeOne:
    """Σ w [t φ(u₁) + (1-t) φ(u₀)] of sigmoids, times `scale`, and its gradient."""
    if dphi is None and s.weight is None:
        return _binary_cross_entropy(s, scale, keep)
    buffer = _like(s.logits) if keep else None
    total = 0.0
    for piece in s.pieces(buffer):
        z, t, hard = piece.z, piece.target, not s.target.is_floating_point()

        def side(
            x: Tensor, w: Tensor | None, part: Tensor | None, *, careful: bool
        ) -> tuple[Tensor, Tensor | None]:
            """Weighted φ and its slope by x, where the target's logit is -x."""
            u, q = _softplus(x), torch.sigmoid(x)
            value, slope = phi(u, q), None
            if keep:  # du/dx = q
                slope = q if dphi is None else dphi(finite(u) if careful else u, q).mul_(q)
            for factor in (w, part):
                if factor is not None:
                    value = (possible(value, factor) if careful else value) * factor
                    slope = None if slope is None else slope.mul_(factor)
            return value, slope

        for careful in (False, True):  # infinite surprisals are rare, and show in the sum
            if hard or _all_hard(t):  # one side each
                sign = torch.rsub(t, 1, alpha=2)
                w = None if s.weight is None else s.weight[1] * t + s.weight[0] * (1 - t)
                value, slope = side(sign * z, w, None, careful=careful)
                slope = None if slope is None else slope.mul_(sign)
            else:
                w1, w0 = (None, None) if s.weight is None else (s.weight[1], s.weight[0])
                value, slope = side(-z, w1, t, careful=careful)
                negative, rise = side(z, w0, 1 - t, careful=careful)
                value = value + negative
                slope = None if slope is None or rise is None else rise - slope
            amount = _sum(_valid.masked(value, piece.valid))
            if math.isfinite(amount):
                break
        total += amount
        if slope is not None:
            torch.mul(_valid.masked(slope, piece.valid), scale, out=piece.out)
    return total * scale, buffer


def _binary_cross_entropy(s: _Source, scale: Tensor, keep: bool) -> MadeOne:
    """Σ softplus(z) - t z, times `scale`, and its gradient p - t."""
    buffer = _like(s.logits) if keep else None
    total = 0.0
    for piece in s.pieces(buffer):
        total += _entropy(piece)
        if keep:
            torch.sigmoid(piece.z, out=piece.out).sub_(piece.target).mul_(scale)
            _valid.masked_(piece.out, piece.valid)
    return total * scale, buffer


def _entropy(piece: _Piece) -> float:
    """Σ u of a piece of sigmoids; `out` is scratch memory."""
    # max(z, 0) - t z is exact for t = 0 and 1; then log(1 + e^-|z|) = -log(1 - sigmoid(-|z|)).
    u = piece.z.clamp_min(0).addcmul_(piece.z, piece.target, value=-1)
    rest = torch.abs(piece.z, out=piece.out).neg_().sigmoid_()
    _valid.masked_(rest, piece.valid)  # a half where void
    total = _sum(u) - _log_complement_sum(rest)
    if math.isfinite(total):
        return total
    # Infinite logits: what is not the target costs nothing.
    return _sum(_valid.masked(_sigmoid_surprisal(piece.z, piece.target), piece.valid))


def _log_complement_sum(q: Tensor) -> float:
    """Σ log(1 - q) of numbers from 0 to ½: of products of eight, for the logarithm is what costs.

    `q` is scratch memory.
    """
    q = q.reshape(-1)
    for _ in range(3):
        if q.numel() % 2:
            break
        x, y = q.chunk(2)
        q = torch.addcmul(x, x, y, value=-1).add_(y)  # 1 - (1 - x) (1 - y), without cancellation
    return _sum(q.neg_().log1p_())


def _sigmoid(z: Tensor, valid: Tensor | None, out: Tensor) -> None:
    """Sigmoid of a chunk into `out`, 0 where void."""
    _valid.masked_(torch.sigmoid(z, out=out), valid)


def _sigmoid_statistics(s: _Source, keep: bool, squared: bool, entropy: bool) -> Made:
    """I, S (or Σ p²), T of every channel, (3, N, C), and Σ u if `entropy`; probabilities."""
    buffer = _like(s.logits) if keep else None
    n, c, _ = s.logits.shape
    total = 0.0
    sums: list[Tensor] = []
    for piece in s.pieces(buffer):
        p, t = piece.out, piece.target
        total += _entropy(piece) if entropy else 0.0
        _sigmoid(piece.z, piece.valid, p)
        missed = torch.addcmul(t, t, p, value=-1).sum(-1)
        excess = ((p - t).mul_(p) if squared else torch.addcmul(p, p, t, value=-1)).sum(-1)
        sums.append(torch.stack([t.sum(-1), missed, excess]))
    return (_from_errors(*_added(sums, 3, n, c)), s.logits.new_tensor(total)), buffer


def _sigmoid_gradient(
    s: _Source,
    buffer: Tensor | None,
    by_stats: Tensor | None,
    by_sum: Tensor | None,
    squared: bool,
) -> Tensor:
    """Gradient by the logits, p (1-p) dL/dp, and g (p - t) of Σ u."""
    fresh = buffer is None
    grad = _like(s.logits) if buffer is None else buffer
    by_stats = s.logits.new_zeros(3, *s.logits.shape[:2]) if by_stats is None else by_stats
    a, b, _ = by_stats.to(s.logits.dtype)[..., None].unbind(0)
    numbers = [x.flatten().tolist() for x in (a, b)] if s.logits.shape[1] == 1 else []
    for piece in s.pieces(grad, logits=fresh):
        p, t, rows = piece.out, piece.target, piece.rows
        if fresh:
            _sigmoid(piece.z, piece.valid, p)
        pull = None if by_sum is None else p - t
        if numbers and t.shape[0] == 1:  # numbers go into the operation before
            by_t, by_p = (x[rows.start] for x in numbers)
            # Where the number is a tensor, adding it is no operation of its own.
            slope = (
                (t * by_t).add_(p, alpha=2 * by_p)
                if squared
                else torch.add(t.new_tensor(by_p), t, alpha=by_t)
            )
        else:
            slope = t * a[rows]
            slope = slope.addcmul_(p, b[rows], value=2) if squared else slope.add_(b[rows])
        slope = _valid.masked(slope, piece.valid)
        torch.ops.aten.sigmoid_backward.grad_input(slope, p, grad_input=p)
        if pull is not None and by_sum is not None:
            p.add_(pull, alpha=by_sum.item())
    return grad


def _class_totals(shape: torch.Size, target: Tensor, valid: Tensor | None, squared: bool) -> Tensor:
    """T = Σ t, or Σ t², per image and class, (N, C), float64."""
    n, c, p = shape
    counts: list[Tensor] = []
    soft = target.ndim == 3
    shape = shape if soft else torch.Size((n, 1, p))
    voids = itertools.repeat(None) if valid is None else _cuts(valid, shape)
    for labels, v in zip(_cuts(target, shape), voids, strict=False):
        k = labels.shape[0]
        if soft:
            t = _valid.masked(labels, _bits(v, labels))
            counts.append((t * t if squared and t.is_floating_point() else t).sum(-1))
            continue
        if v is not None:  # void labels are counted as a class C
            labels = labels.long() if c > 255 else labels
            labels = _valid.filled(labels, _valid.bits(v, labels), c)
        if k > 1:
            labels = labels.long() + (c + 1) * torch.arange(k, device="cpu")[:, None]
        counts.append(torch.bincount(labels.reshape(-1), minlength=k * (c + 1)).view(k, c + 1))
    return _added(counts, n, c if soft else c + 1)[:, :c]


def _all_hard(t: Tensor) -> bool:
    """Whether all probabilities are 0 or 1: t (1 - t) >= 0 sums to 0 then alone."""
    return not t.is_floating_point() or not torch.addcmul(t, t, t, value=-1).sum().item()


def _softplus(x: Tensor) -> Tensor:
    """Return log(1 + eˣ) = max(x, 0) - log(1 - sigmoid(-|x|)); torch's own is not vectorised this far.

    A sigmoid takes half the time of an exponential.
    """
    return x.clamp_min(0).sub_(x.abs().neg_().sigmoid_().neg_().log1p_())


def _sigmoid_hardest(
    s: _Source, cut: float | None, fewest: int, keep: bool
) -> tuple[float, float, Tensor | None]:
    """Σ w u and Σ w of the pixels with u above a cut, or of the `fewest` largest; the gradient."""
    buffer = _like(s.logits) if keep or cut is None else None
    result = None
    if cut is not None:  # the smallest float32 above it: what is compared is >=
        cut = math.nextafter(cut, math.inf) if s.logits.dtype == torch.float64 else _above(cut)
        result = _kept_sums(s, cut, buffer, known=None)
    if result is None or result[2] < fewest:
        surprisals = _like(s.logits) if buffer is None else buffer
        for piece in s.pieces(surprisals):
            u, v = _sigmoid_surprisal(piece.z, piece.target), piece.valid
            piece.out.copy_(_valid.filled(u, v, -1.0))
        cut = _order.drop_all_but(surprisals.view(-1), fewest)
        result = _kept_sums(s, cut, buffer, known=surprisals)
    return result[0], result[1], buffer


def _above(x: float) -> float:
    """The smallest float32 above `x`."""
    single = torch.tensor(x, dtype=torch.float32, device="cpu")
    return (
        torch.nextafter(single, torch.full_like(single, math.inf)).item()
        if single <= x
        else single.item()
    )


def _kept_sums(
    s: _Source, cut: float, buffer: Tensor | None, known: Tensor | None
) -> tuple[float, float, float]:
    """Σ w u, Σ w and number of the pixels with u >= cut; their slopes w du/dz into `buffer`."""
    total = weights = count = 0.0
    for piece in s.pieces(buffer, *([] if known is None else [known])):
        z, t, v = piece.z, piece.target, piece.valid
        hard = not s.target.is_floating_point() or _all_hard(t)
        sign = torch.rsub(t, 1, alpha=2)
        x = sign * z
        u = piece.maps[0] if piece.maps else None
        if u is None:
            u = _softplus(x) if hard else _sigmoid_surprisal(z, t)
        kept = torch.ge(u, cut, out=torch.empty_like(z))
        if known is None:
            _valid.masked_(kept, v)
        number = _sum(kept)
        count += number
        if hard:
            w = kept if s.weight is None else kept * (s.weight[1] * t + s.weight[0] * (1 - t))
            value = torch.mul(u, w)
            if buffer is not None:
                torch.sigmoid(x, out=piece.out).mul_(sign).mul_(w)
        else:
            w1, w0 = kept * t, kept * (1 - t)
            if s.weight is not None:
                w1, w0 = s.weight[1] * w1, s.weight[0] * w0
            w = w1 + w0
            value = w1 * _softplus(-z) + w0 * _softplus(z)
            if buffer is not None:
                torch.sub(w0 * torch.sigmoid(z), w1 * torch.sigmoid(-z), out=piece.out)
        total += _sum(value)
        weights += number if w is kept else _sum(w)
    return total, weights, count


def _sigmoid_surprisal(z: Tensor, t: Tensor) -> Tensor:
    """Surprisal of labels, or cross-entropy of probabilities, under sigmoids."""
    if _all_hard(t):
        return _softplus(torch.rsub(t, 1, alpha=2).mul_(z))
    return t * possible(_softplus(-z), t) + (1 - t) * possible(_softplus(z), 1 - t)


def _lovasz(
    s: _Source, coefficient: Tensor, per_image: bool, hinge: bool, bins: int | None
) -> tuple[Tensor, Tensor]:
    """Σ of coefficients times extensions, of errors |t - p| or, for the hinge, 1 - z (2t - 1)."""
    n, c, p = s.logits.shape
    softmax = s.target.ndim == 2
    grad = _like(s.logits)
    if not hinge:
        for piece in s.pieces(grad):
            _probabilities(piece)
    # Σ_c p_c g_c of the softmax's backward, as it grows class by class.
    mean = s.logits.new_zeros((n, p)) if softmax and not hinge else None
    total = torch.zeros((), dtype=torch.float64, device="cpu")
    images = [slice(i, i + 1) for i in range(n)] if per_image else [slice(0, n)]
    factors = coefficient.view(-1, c).tolist()  # on the CPU: free
    for unit, row in zip(images, factors, strict=True):
        for k, factor in enumerate(row):
            where = grad[unit, k]
            if factor == 0:
                where.zero_()
                continue
            v = None
            if s.valid is not None:
                v = (s.valid[unit] if softmax else s.valid[unit, k]).reshape(-1)
            labels = s.target[unit] if softmax else s.target[unit, k]
            base, label = s.logits[unit, k] if hinge else where, k if softmax else 1
            errors = functools.partial(_order.errors, base, labels, label, v, hinge)
            if bins is None:
                value, slope = _order.sorted_extension(errors, factor)
            else:
                value, slope = _order.binned_extension(errors, factor, bins, hinge)
            slope = slope.view(where.shape)
            total += value
            if mean is not None:
                mean[unit].addcmul_(where, slope)
            elif not hinge:
                slope.mul_(where).mul_(1 - where)
            where.copy_(slope)
    if mean is not None:
        for piece in s.pieces(None, grad, mean):
            _probabilities(piece)
            slope, offset = piece.maps
            slope.sub_(offset[:, None]).mul_(piece.out)
    return total.to(s.logits.dtype), grad


def _probabilities(piece: _Piece) -> None:
    """Softmax or sigmoid of a chunk into its `out`, 0 where void."""
    if piece.target.ndim == 2:
        _softmax(piece.z, piece.valid, piece.out, shifted=True)
    else:
        _sigmoid(piece.z, piece.valid, piece.out)
