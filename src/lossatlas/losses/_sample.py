"""The quantities every loss is a short formula of, with masking and soft labels put in once.

A :class:`Sample` is one checked pair of logits and target. It offers

* `pixels`: the surprisal u = -log p_t of the target at each pixel, through any function φ(u, q)
  with q = 1 - p_t;
* `regions`: per class I = Σ p t, S = Σ p, T = Σ t and their relatives.

The plain formulas live here, in differentiable PyTorch: they define the values, serve as double
backward, and are what ``torch.compile``, ``torch.export``, ``torch.func`` and accelerators see.
On the CPU, eager, ``_fast`` computes the same in chunks with closed-form backwards; which of the two
runs is decided in `fast`.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from torch import Tensor

from . import _check, _fast

#: φ(u, q): a per-pixel loss as a function of u = -log p_t and q = 1 - p_t.
Phi = Callable[[Tensor, Tensor], Tensor]


def itself(u: Tensor, q: Tensor) -> Tensor:
    """The surprisal as it is: φ of cross-entropy, for which q need not be computed."""
    return u


@dataclass(frozen=True)
class Regions:
    """Statistics per class of one image, shape (N, C), or of the batch, shape (C,)."""

    intersection: Tensor  #: I = Σ p t
    predicted: Tensor  #: S = Σ p, or Σ p² where `squared`
    target: Tensor  #: T = Σ t, or Σ t² where `squared`
    count: Tensor  #: number of valid pixels
    distance: Tensor  #: A = Σ |p - t|

    @property
    def present(self) -> Tensor:
        """Which classes have at least one target pixel."""
        return self.target > 0


@dataclass
class Sample:
    """One checked call: logits (N, C, P) in at least float32, target, mask.

    `target` is (N, P) integer for hard multiclass labels, else (N, C, P) floating.
    `valid` is None, or a mask of `target`'s shape ((N, P) for soft multiclass labels).
    """

    logits: Tensor
    target: Tensor
    valid: Tensor | None
    mode: str
    soft: bool
    spatial: tuple[int, ...]
    fast: bool = False  #: whether the chunked forms of ``_fast`` may be used
    shared: bool = False  #: whether both surprisal and regions will be asked for
    _cache: dict[str, Tensor] = field(default_factory=dict)

    def plainly(self) -> Callable[[Tensor], Sample]:
        """Make this sample of other logits, with plain formulas (for double backward)."""
        # Holds no reference to self, whose cache holds the graph that holds this.
        target, valid, mode, soft, spatial = (
            self.target,
            self.valid,
            self.mode,
            self.soft,
            self.spatial,
        )
        return lambda logits: Sample(logits, target, valid, mode, soft, spatial)

    @property
    def channels(self) -> int:
        """Number of channels C."""
        return self.logits.shape[1]

    @property
    def softmax(self) -> bool:
        """Whether classes exclude each other."""
        return self.mode == "multiclass"

    # ------------------------------------------------------------------ masks and labels

    def clean_logits(self) -> Tensor:
        """Logits with ignored ones replaced by 0, so that no inf or NaN there goes further.

        Among exclusive classes a logit of +inf is made 0 and the others of its pixel -inf, which is
        the same certainty and has no difference of infinities.
        """
        z = self.logits
        if self.valid is not None:
            z = torch.where(self.valid[:, None] if self.softmax else self.valid, z, 0.0)
        return _fast.certain(z) if self.softmax else z

    def clean_target(self) -> Tensor:
        """Target with ignored entries replaced by class (or probability) 0."""
        if self.valid is None:
            return self.target
        valid = self.valid[:, None] if self.softmax and self.soft else self.valid
        return torch.where(valid, self.target, 0)

    def truth(self) -> Tensor:
        """Target as probabilities t, (N, C, P); 0 at ignored pixels."""
        target = self.clean_target()
        if not self.softmax or self.soft:
            return target.to(self.logits.dtype)
        classes = torch.arange(self.channels, device=target.device)[:, None]
        truth = target[:, None] == classes
        if self.valid is not None:
            truth = truth & self.valid[:, None]
        return truth.to(self.logits.dtype)

    def valid_pixels(self) -> Tensor:
        """Mask as floats, of the shape of a map of this sample: (N, P) or (N, C, P)."""
        if self.valid is not None:
            return self.valid.to(self.logits.dtype)
        shape = self.logits[:, 0] if self.softmax else self.logits
        return torch.ones_like(shape)

    def log_probs(self) -> Tensor:
        """Log-probabilities log p of every class, (N, C, P), or of foreground under a sigmoid."""
        if "log_probs" not in self._cache:
            z = self.clean_logits()
            self._cache["log_probs"] = F.log_softmax(z, 1) if self.softmax else F.logsigmoid(z)
        return self._cache["log_probs"]

    def probs(self) -> Tensor:
        """Probabilities p, (N, C, P); 0 at ignored pixels."""
        z = self.clean_logits()
        p = torch.softmax(z, 1) if self.softmax else torch.sigmoid(z)
        if self.valid is None:
            return p
        return torch.where(self.valid[:, None] if self.softmax else self.valid, p, 0.0)

    # ------------------------------------------------------------------ per pixel

    def pixels(self, phi: Phi, weight: Tensor | None = None) -> Tensor:
        """Map of Σ_c w_c t_c φ(u_c, q_c): (N, P) for exclusive classes, (N, C, P) for sigmoids.

        `weight` is the table that :func:`class_table` makes. Ignored pixels hold 0.
        """
        if not self.softmax:
            z, t = self.clean_logits(), self.clean_target().to(self.logits.dtype)
            # An infinite surprisal of what is not the target costs nothing: not 0 times inf.
            positive = possible(-F.logsigmoid(z), t)
            negative = possible(-F.logsigmoid(-z), 1 - t)
            if phi is not itself:
                positive = phi(positive, torch.sigmoid(-z))
                negative = phi(negative, torch.sigmoid(z))
            if weight is not None:
                positive, negative = weight[1] * positive, weight[0] * negative
            value = t * positive + (1 - t) * negative
        elif self.soft:
            u = possible(-self.log_probs(), self.truth())
            value = phi(u, -torch.expm1(-u))
            value = ((value if weight is None else weight * value) * self.truth()).sum(1)
        else:
            u = self.label_surprisal()
            value = u if phi is itself else phi(u, -torch.expm1(-u))
            if weight is not None:
                value = weight[self.clean_target().long(), 0] * value
        return value if self.valid is None else torch.where(self.valid, value, 0.0)

    def surprisal(self) -> Tensor:
        """Map of the target's surprisal -log p_t, soft targets' cross-entropy."""
        return self.pixels(itself)

    def label_surprisal(self) -> Tensor:
        """Surprisal of hard labels of exclusive classes, (N, P)."""
        if self.fast:
            return self._statistics(surprisal=True, regions=self.shared, squared=False)[0]
        label = self.clean_target().long()
        return -self.log_probs().gather(1, label[:, None])[:, 0]

    def sigmoid_surprisals(self) -> tuple[Tensor, Tensor]:
        """-log p and -log(1-p) of every channel's sigmoid."""
        z = self.clean_logits()
        return -F.logsigmoid(z), -F.logsigmoid(-z)

    def pixel_sum(
        self, phi: Phi, dphi: Phi | None, weight: Tensor | None = None, scale: Tensor | None = None
    ) -> Tensor:
        """Sum of the map `pixels`, times `scale`.

        `dphi` is the derivative of `phi` by u, or None where φ is u itself.
        """
        if dphi is None:
            phi = itself
        shared = self.shared and self.softmax
        constant = not any(x is not None and x.requires_grad for x in (weight, scale))
        if not self.fast or shared or not constant:
            total = self.pixels(phi, weight).sum()
            return total if scale is None else total * scale
        again = self.plainly()
        factor = self.logits.new_ones(()) if scale is None else scale.to(self.logits.dtype)
        function = _fast.SoftmaxPixelSum if self.softmax else _fast.SigmoidPixelSum
        result: Tensor = function.apply(
            self.logits,
            self.target,
            self.valid,
            weight,
            factor,
            phi,
            dphi,
            lambda z: (again(z).pixel_sum(phi, dphi, weight, factor),),
        )
        return result

    def weight_sum(self, weight: Tensor | None = None) -> Tensor:
        """Sum of the map `weights`."""
        if not self.fast:
            return self.weights(weight).sum()
        if weight is None:
            entries = self.target.numel() if self.valid is None else int(self.valid.sum())
            return torch.tensor(float(entries), dtype=self.logits.dtype)
        truth, count = self.class_totals()
        if self.softmax:
            total = (truth * weight[:, 0]).sum()
        else:
            total = (truth * weight[1, :, 0] + (count - truth) * weight[0, :, 0]).sum()
        return total.to(self.logits.dtype)

    def class_totals(self) -> tuple[Tensor, Tensor]:
        """T = Σ t and the number of valid pixels, per image and class, (N, C), float64."""
        if "truth" not in self._cache:
            truth, count = _fast.class_totals(self.logits.shape, self.target, self.valid)
            self._cache["truth"], self._cache["count"] = truth, count
        return self._cache["truth"], self._cache["count"]

    def weights(self, weight: Tensor | None = None) -> Tensor:
        """Map of Σ_c w_c t_c, the weight each pixel carries; 0 at ignored pixels."""
        if not self.softmax:
            if weight is None:
                return self.valid_pixels()
            t = self.clean_target().to(self.logits.dtype)
            value = weight[1] * t + weight[0] * (1 - t)
        elif self.soft:
            truth = self.truth()
            value = (truth if weight is None else weight * truth).sum(1)
        elif weight is None:
            return self.valid_pixels()
        else:
            value = weight[self.clean_target().long(), 0]
        return value if self.valid is None else torch.where(self.valid, value, 0.0)

    def shaped(self, value: Tensor) -> Tensor:
        """A map with its spatial shape back: (N, *S), or (N, C, *S) for multilabel."""
        if self.mode == "multilabel":
            return value.reshape(value.shape[0], value.shape[1], *self.spatial)
        return value.reshape(value.shape[0], *self.spatial)

    # ------------------------------------------------------------------ per region

    def regions(self, *, squared: bool = False, distance: bool = False) -> Regions:
        """Statistics per image and class, (N, C)."""
        if self.fast and not (distance and self.soft):
            return self._fast_regions(squared)
        p, t = self.probs(), self.truth()
        wide = wide_dtype(self.logits)

        def total(x: Tensor) -> Tensor:
            return x.sum(-1, dtype=wide)

        intersection = total(p * t)
        predicted, target = total(p), total(t)
        # For hard targets |p - t| is p + t - 2 p t.
        apart = total((p - t).abs()) if distance else predicted + target - 2 * intersection
        count = (
            total(self.valid_pixels()).expand(predicted.shape)
            if not self.softmax
            else (total(self.valid_pixels())[:, None].expand(predicted.shape))
        )
        if squared:
            predicted, target = total(p * p), total(t * t)
        return Regions(intersection, predicted, target, count, apart)

    def _fast_regions(self, squared: bool) -> Regions:
        """Statistics by the chunked forms."""
        target, count = self.class_totals()
        if self.softmax:
            stats = self._statistics(surprisal=self.shared, regions=True, squared=squared)[1]
        else:
            key, again = f"sigmoid {squared}", self.plainly()
            if key not in self._cache:
                self._cache[key] = _fast.SigmoidStatistics.apply(
                    self.logits,
                    self.target,
                    self.valid,
                    squared,
                    lambda z: (_stacked(again(z).regions(squared=squared)),),
                )
            stats = self._cache[key]
            if squared and self.soft:
                target = _fast.class_totals(self.logits.shape, self.target**2, self.valid)[0]
        intersection, predicted = stats.unbind(0)
        apart = predicted + target - 2 * intersection
        return Regions(intersection, predicted, target, count, apart)

    def _statistics(
        self, *, surprisal: bool, regions: bool, squared: bool
    ) -> tuple[Tensor, Tensor]:
        """Surprisal map and region statistics of hard labels in one pass, remembered."""
        again = self.plainly()

        def plain(z: Tensor) -> tuple[Tensor, ...]:
            twin = again(z)
            u = twin.pixels(itself)
            return u, _stacked(twin.regions(squared=squared))

        key = f"softmax {squared}"
        have_u, have_stats = key + " u" in self._cache, key in self._cache
        if (surprisal and not have_u) or (regions and not have_stats):
            u, stats = _fast.SoftmaxStatistics.apply(
                self.logits, self.target, self.valid, surprisal, regions, squared, plain
            )
            if surprisal:
                self._cache[key + " u"] = u
            if regions:
                self._cache[key] = stats
        empty = self.logits[:0]
        return self._cache.get(key + " u", empty), self._cache.get(key, empty)


def possible(u: Tensor, t: Tensor) -> Tensor:
    """Surprisals with those made 0 that are infinite and have a share t of 0 in the target."""
    return torch.where(u.isposinf() & (t == 0), 0.0, u)


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


def _stacked(r: Regions) -> Tensor:
    """I and S as one tensor, as the chunked forms give them."""
    return torch.stack([r.intersection, r.predicted])


def wide_dtype(logits: Tensor) -> torch.dtype:
    """Dtype of sums over many pixels: float64 where that is cheap, on the CPU."""
    return torch.float64 if logits.device.type == "cpu" else logits.dtype


def class_table(weight: Tensor | None, sample: Sample, *, name: str = "weight") -> Tensor | None:
    """Per-class numbers in the form `pixels` takes.

    Exclusive classes: (C, 1). Sigmoids: (2, C, 1), for negatives and positives; one number per
    channel counts for both, and in binary mode (background, foreground) or (foreground,).
    """
    if weight is None:
        return None
    weight = weight.to(device=sample.logits.device, dtype=sample.logits.dtype)
    if sample.mode == "binary":
        _check.vector_length(name, weight, (1, 2), sample.mode)
        if weight.shape[0] == 1:
            weight = torch.cat([torch.ones_like(weight), weight])
        return weight[:, None, None]
    _check.vector_length(name, weight, (sample.channels,), sample.mode)
    if sample.mode == "multilabel":
        return weight[None, :, None].expand(2, -1, -1)
    return weight[:, None]


def sample(logits: Tensor, target: Tensor, *, mode: str, ignore_index: int | None) -> Sample:
    """Check one call and lay it out as a :class:`Sample`."""
    _check.logits(logits, mode)
    soft = _check.target(target, logits, mode)
    channels, spatial = logits.shape[1], tuple(logits.shape[2:])
    ignore_index = _check.void_label(target, ignore_index)
    _check.values(target, soft=soft, mode=mode, channels=channels, ignore_index=ignore_index)
    batch, pixels = logits.shape[0], math.prod(spatial)
    flat = logits.reshape(batch, channels, pixels)
    if logits.dtype in (torch.float16, torch.bfloat16):
        flat = flat.float()
    if mode == "multiclass" and not soft:
        labels = target.reshape(batch, pixels)
    else:
        labels = target.reshape(batch, channels, pixels)
        if soft and labels.dtype != flat.dtype:
            labels = labels.to(flat.dtype)
    valid = None
    if ignore_index is not None:
        valid = labels != ignore_index
        if mode == "multiclass" and soft:
            valid = valid.any(1)  # a pixel is void where every channel holds ignore_index
    fast = (
        (mode != "multiclass" or not soft)
        and eager_cpu(flat)
        and eager_cpu(labels)
        and not labels.requires_grad
        and not _forward_mode()
    )
    return Sample(flat, labels, valid, mode, soft, spatial, fast)
