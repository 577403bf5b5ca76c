"""The quantities every loss is a short formula of, with masking and soft labels put in once.

A :class:`Sample` is one checked pair of logits and target. It offers

* `pixels`: the surprisal u = -log p_t of the target at each pixel, through any function φ(u, q)
  with q = 1 - p_t;
* `regions`: per class I = Σ p t, S = Σ p, T = Σ t and their relatives.

The plain formulas live here, in differentiable PyTorch: they define the values, serve as double
backward, and are what ``torch.compile``, ``torch.export``, ``torch.func`` and accelerators see.
On the CPU, eager, ``_chunked`` overrides some of the methods; ``_layout`` decides which of the two a
call becomes.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from torch import Tensor

from . import _check

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
    _cache: dict[str, Tensor] = field(default_factory=dict, kw_only=True)

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

    def masked_logits(self) -> Tensor:
        """Logits with ignored ones replaced by 0, so that no inf or NaN there goes further."""
        if self.valid is None:
            return self.logits
        return torch.where(self.valid[:, None] if self.softmax else self.valid, self.logits, 0.0)

    def clean_logits(self) -> Tensor:
        """Logits with ignored ones replaced by 0, in a form that a softmax takes.

        Among exclusive classes a logit of +inf is made 0 and the others of its pixel -inf, which is
        the same certainty and has no difference of infinities.
        """
        z = self.masked_logits()
        return certain(z) if self.softmax else z

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
                positive = of_surprisal(phi, positive, torch.sigmoid(-z))
                negative = of_surprisal(phi, negative, torch.sigmoid(z))
            if weight is not None:
                positive = weight[1] * possible(positive, weight[1])
                negative = weight[0] * possible(negative, weight[0])
            value = t * positive + (1 - t) * negative
        elif self.soft:
            u = possible(-self.log_probs(), self.truth())
            value = of_surprisal(phi, u, -torch.expm1(-u))
            value = value if weight is None else weight * possible(value, weight)
            value = (value * self.truth()).sum(1)
        else:
            u = self.label_surprisal()
            value = u if phi is itself else of_surprisal(phi, u, -torch.expm1(-u))
            if weight is not None:
                w = weight[self.clean_target().long(), 0]
                value = w * possible(value, w)
        return value if self.valid is None else torch.where(self.valid, value, 0.0)

    def surprisal(self) -> Tensor:
        """Map of the target's surprisal -log p_t, soft targets' cross-entropy."""
        return self.pixels(itself)

    def label_surprisal(self) -> Tensor:
        """Surprisal of hard labels of exclusive classes, (N, P)."""
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
        total = self.pixels(itself if dphi is None else phi, weight).sum()
        return total if scale is None else total * scale

    def weight_sum(self, weight: Tensor | None = None) -> Tensor:
        """Sum of the map `weights`."""
        return self.weights(weight).sum()

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

    # ------------------------------------------------------------------ pixels in order

    def chosen(self, u: Tensor, count: Tensor) -> Tensor:
        """Mask of the `count` largest of the flat map `u`, in which void pixels are negative."""
        # A rank for every pixel: no host needs to know how many are kept.
        order = u.argsort(descending=True)
        rank = torch.arange(u.shape[0], device=u.device)
        return torch.zeros_like(order).scatter(0, order, rank) < count

    def hard(self, u: Tensor, cut: float, fewest: Tensor) -> Tensor:
        """Mask of what lies above `cut`, or of the `fewest` largest where that is more."""
        above = u > cut
        return torch.where(above.sum() >= fewest, above, self.chosen(u, fewest))

    def hardest_map(
        self, cut: float | None, fewest: Callable[[Tensor], Tensor], weight: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        """Map w u of the pixels with u above `cut`, or at least the `fewest` largest; and its mask.

        `fewest` is a function of the number of valid pixels. Without a `cut` it alone decides.
        """
        u = self.surprisal()
        value = u if weight is None else self.pixels(itself, weight)
        key = u.detach()
        key = torch.where(key.isnan(), torch.inf, key)  # never left out: NaN in, NaN out
        n = torch.tensor(key.numel(), device=u.device)
        if self.valid is not None:
            key, n = torch.where(self.valid, key, -1.0), self.valid.sum()
        key, least = key.reshape(-1), fewest(n)
        kept = self.chosen(key, least) if cut is None else self.hard(key, cut, least)
        kept = kept.reshape(u.shape)
        if self.valid is not None:
            kept = kept & self.valid
        return torch.where(kept, value, 0.0), kept  # no factor: it would make NaN of an infinite u

    def hardest(
        self, cut: float | None, fewest: Callable[[Tensor], Tensor], weight: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        """Σ w u and Σ w over the pixels of `hardest_map`."""
        value, kept = self.hardest_map(cut, fewest, weight)
        return value.sum(), (self.weights(weight) * kept).sum()

    def lovasz(
        self,
        plain: Callable[[Sample], Tensor],
        coefficient: Callable[[Tensor, Tensor], Tensor],
        *,
        per_image: bool,
        hinge: bool,
        bins: int | None,
    ) -> Tensor:
        """Lovász loss of the formula `plain`.

        `coefficient` gives each class's share of T and the number of valid pixels; it and the
        keywords are for a form that makes value and gradient in one go.
        """
        return plain(self)


def possible(u: Tensor, t: Tensor) -> Tensor:
    """Surprisals with those made 0 that are infinite and have a share (or a weight) t of 0."""
    return torch.where(u.isposinf() & (t == 0), 0.0, u)


def finite(u: Tensor) -> Tensor:
    """Surprisals with infinite ones made the largest number; NaN stays."""
    return u.clamp_max(torch.finfo(u.dtype).max)


def of_surprisal(phi: Phi, u: Tensor, q: Tensor) -> Tensor:
    """φ(u, q), whose slope at an infinite u is that of u, and not 0 times inf."""
    return torch.where(u.isposinf(), u, phi(finite(u), q))


def certain(z: Tensor) -> Tensor:
    """Logits (N, C, P) in which a pixel with a logit of +inf has 0 there and -inf elsewhere.

    Their softmax is the same, so that the gradient by them is the gradient by `z`: it passes unchanged.
    """
    sure, same = z.isposinf(), z.clone()
    with torch.no_grad():  # what is written is not differentiated
        same.masked_fill_(sure.any(1, keepdim=True), -torch.inf).masked_fill_(sure, 0.0)
    return same


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
