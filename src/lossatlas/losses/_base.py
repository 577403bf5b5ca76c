"""What every loss shares: common parameters, checking, reductions, sums and scalar multiples."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Mapping, Sequence
from numbers import Real
from typing import Any, ClassVar, Unpack

import torch
from torch import Tensor, nn

from . import _check
from ._layout import sample
from ._parameters import ClassNumbers, CommonParameters, reject_unknown, show_inherited
from ._processes import sum_over_processes
from ._sample import Regions, Sample, class_table


def ratio(numerator: Tensor, denominator: Tensor, empty: float = 0.0) -> Tensor:
    """Quotient that is `empty`, with zero gradient, where the denominator is 0."""
    nonzero = denominator != 0
    safe = torch.where(nonzero, denominator, 1.0)
    return torch.where(nonzero, numerator / safe, empty)


#: Sums of probabilities below this have slopes that overflow in float32, and in products with them.
_LEAST = torch.finfo(torch.float32).tiny / torch.finfo(torch.float32).eps


def overlap(numerator: Tensor, denominator: Tensor, empty: float = 1.0) -> Tensor:
    """Quotient of sums over a region; its gradient is 0 where the denominator is next to nothing.

    Such a region has no target pixel and hardly a probability: its slope by I, 1 over the denominator, overflows,
    and meets a target of 0, with which it would make NaN of a true gradient of 0.
    """
    least = denominator.abs() < _LEAST
    numerator = torch.where(least, numerator.detach(), numerator)
    return ratio(numerator, torch.where(least, denominator.detach(), denominator), empty)


def power(base: Tensor, exponent: float) -> Tensor:
    """Power x^a of x >= 0 whose gradient at x = 0 is 0 where the true one is infinite (a < 1)."""
    if exponent >= 1:
        return base.clamp_min(0) ** exponent
    # The root of the smallest normal number: its power and slope are finite, and below it all is 0.
    tiny = torch.finfo(base.dtype).tiny ** 0.5
    return torch.where(base <= tiny, 0.0, base.clamp_min(tiny) ** exponent)  # NaN stays NaN


def product(a: Tensor | None, b: Tensor | None) -> Tensor | None:
    """Product of two class tables, where None is 1."""
    if a is None or b is None:
        return b if a is None else a
    return a * b


def balance_table(alpha: Tensor | float | None, s: Sample) -> Tensor | None:
    """α as a class table: a float is α for positives and 1-α for negatives."""
    if alpha is None:
        return None
    if isinstance(alpha, Tensor):
        return class_table(alpha, s, name="alpha")
    size = s.channels if s.softmax else 2
    pair = torch.full((size,), alpha, dtype=s.logits.dtype, device=s.logits.device)
    first = torch.arange(size, device=pair.device) == 0
    values = torch.where(first, 1 - pair, pair)
    return values[:, None] if s.softmax else values[:, None, None]


class SegmentationLoss(nn.Module):
    """Base class of every loss: called with logits and target, returns a tensor.

    Parameters
    ----------
    mode : {"multiclass", "binary", "multilabel"}
        "multiclass": softmax over C >= 2 exclusive classes; "binary": sigmoid of a single channel;
        "multilabel": a sigmoid per channel.
    weight : tensor, array or sequence of shape (C,), optional
        One finite, non-negative number per class. In binary mode (background, foreground), or the
        foreground's alone, for which a number will do. It is a non-persistent buffer: it moves
        with ``.to`` and is not in ``state_dict``, since it is a parameter of the loss, not learnt.
    ignore_index : int, optional
        Label of void pixels. They leave every sum, count and sort, may hold any logit, even inf or
        NaN, and get a gradient of exactly 0. With soft multiclass targets a pixel is void where
        every channel holds this value; with multilabel targets each entry stands for itself.
    reduction : {"mean", "sum", "none"}
        "none" returns the finest unit there is; its sum is what "sum" returns.

    Shapes
    ------
    logits (N, C, *S), any number of spatial dimensions from 0, unnormalised, floating point.
    Target: multiclass (N, *S) integer classes or (N, C, *S) probabilities; binary (N, *S) or
    (N, 1, *S), 0/1 or probabilities; multilabel (N, C, *S), 0/1 or probabilities.
    float16 and bfloat16 logits are computed in, and give a value in, float32.

    Raises
    ------
    TypeError, ValueError
        For arguments, shapes, dtypes and labels that do not fit, with what was expected, what
        came, and the remedy. On an accelerator a label out of range trips a device assertion.
    """

    weight: Tensor | None
    #: Whether the weights are to be rounded to the logits' dtype: they came without one of their own.
    _round_weight = False
    #: Which primitives the formula uses, "surprisal" (and its plain sum, "entropy") or "regions":
    #: compounds share them.
    needs: tuple[str, ...] = ()
    #: Arguments of a call besides logits and target.
    takes: tuple[str, ...] = ()
    #: Parameters that other losses of the family take and this one does not, each with the reason.
    refused: ClassVar[Mapping[str, str]] = {}

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        if "__init__" in vars(cls):
            parent = inspect.signature(super(cls, cls).__init__).parameters
            show_inherited(cls.__init__, parent, without=cls.refused)

    def __init__(
        self,
        *,
        mode: str = "multiclass",
        weight: ClassNumbers | None = None,
        ignore_index: int | None = None,
        reduction: str = "mean",
        **unknown: Any,
    ) -> None:
        super().__init__()
        self.reject_unknown(unknown)
        self.mode = _check.choice("mode", mode, _check.MODES)
        self.ignore_index = None if ignore_index is None else _check.label(ignore_index)
        self.reduction = _check.choice("reduction", reduction, _check.REDUCTIONS)
        self.register_buffer("weight", _check.class_weights("weight", weight), persistent=False)
        self._round_weight = not _check.is_floating(weight)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Any:
        # Numbers are kept in float64, which not every device has: there, the nearest it has.
        def moved(x: Tensor) -> Tensor:
            try:
                return fn(x)
            except TypeError:
                if x.dtype != torch.float64:
                    raise
                return fn(x.float())

        numbers = {name: self._buffers[name] for name in self._non_persistent_buffers_set}
        super()._apply(moved, recurse)
        # Numbers per class go where the module goes and keep their values: a weight of 70,000 is inf in
        # float16, and no checkpoint holds what `to_empty` would lose.
        for name, before in numbers.items():
            after = self._buffers[name]
            if before is None or after is None or after is before or before.is_meta:
                continue
            wide = torch.promote_types(after.dtype, torch.float32)
            self._buffers[name] = before.to(
                after.device, after.dtype if after.dtype == before.dtype else wide
            )
        return self

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *rest: Any) -> None:
        # Checkpoints of before held the class weights. What the loss was built with counts.
        for name in self._non_persistent_buffers_set:
            state_dict.pop(prefix + name, None)
        super()._load_from_state_dict(state_dict, prefix, *rest)

    @classmethod
    def reject_unknown(cls, given: Iterable[str]) -> None:
        """Raise TypeError for names that are no parameter, with the near matches or the reason."""
        known = inspect.signature(cls).parameters
        reject_unknown(cls.__name__, given, known, cls.refused)

    def forward(self, logits: Tensor, target: Tensor) -> Tensor:
        """Loss of `logits` against `target`; see the class for shapes."""
        return self.of(
            sample(
                logits,
                target,
                mode=self.mode,
                ignore_index=self.ignore_index,
                needs=self.needs,
            )
        )

    def of(self, s: Sample) -> Tensor:
        """Loss of a sample that is already checked (what a compound shares among its parts)."""
        raise TypeError(f"{type(self).__name__} defines no formula: override `of`.")

    def extra_repr(self) -> str:
        """Parameters that are plain values, as the constructor takes them."""
        shown = {k: v for k, v in vars(self).items() if not k.startswith("_") and k != "training"}
        return ", ".join(f"{k}={v!r}" for k, v in shown.items())

    def __add__(self, other: object) -> CompoundLoss:
        """Sum of two losses."""
        if not isinstance(other, SegmentationLoss):
            return NotImplemented
        return CompoundLoss([self, other])

    def __radd__(self, other: object) -> SegmentationLoss:
        """The loss itself for the 0 that ``sum`` begins with."""
        begins = isinstance(other, Real) and not isinstance(other, bool) and other == 0
        return self if begins else NotImplemented

    def __sub__(self, other: object) -> CompoundLoss:
        """Raise TypeError: a difference of losses has no lower bound."""
        raise TypeError(
            "losses add and multiply, they do not subtract: a difference has no lower bound, so that "
            "training would enlarge the second loss; if you mean that, write a + (-1) * b."
        )

    __rsub__ = __sub__

    def __mul__(self, scale: object) -> CompoundLoss:
        """Multiple of a loss by a number."""
        scale = _check.plain(scale, "the scale of a loss")
        if isinstance(scale, bool) or not isinstance(scale, Real):
            return NotImplemented
        return CompoundLoss([self], [float(scale)])

    __rmul__ = __mul__
    __array_ufunc__ = None  # so that NumPy leaves numpy.float64(2) * loss to us

    def __truediv__(self, divisor: object) -> CompoundLoss:
        """Loss divided by a number."""
        divisor = _check.plain(divisor, "the divisor of a loss")
        if isinstance(divisor, bool) or not isinstance(divisor, Real):
            return NotImplemented
        return CompoundLoss([self], [1 / float(divisor)])


show_inherited(SegmentationLoss.__init__)


class PixelLoss(SegmentationLoss):
    """Base of losses that are a mean over pixels of φ(u), u = -log p_t the target's surprisal.

    Takes `process_group` besides the common parameters: "world", or a process group over which
    numerator and denominator are summed, so that every process holds the value of the whole batch.
    The gradient with respect to a process's own logits is then that of the sum of the processes'
    (equal) losses, so that the average that DistributedDataParallel takes is the whole batch's.
    """

    def __init__(self, *, process_group: Any = None, **common: Unpack[CommonParameters]) -> None:
        super().__init__(**common)
        self.process_group = _check.process_group(process_group)

    needs: tuple[str, ...] = ("surprisal",)

    #: Whether φ is u itself, so that its derivative need not be evaluated.
    identity = False

    def phi(self, u: Tensor, q: Tensor) -> Tensor:
        """Loss of a pixel whose target has surprisal u = -log p_t; q = 1 - p_t."""
        raise TypeError(f"{type(self).__name__} defines no formula: override `phi`.")

    def dphi(self, u: Tensor, q: Tensor) -> Tensor:
        """Derivative dφ/du, with dq/du = 1 - q."""
        raise TypeError(f"{type(self).__name__} defines no derivative: override `dphi`.")

    def of(self, s: Sample) -> Tensor:
        """Weighted mean (or sum, or map) of φ(u)."""
        table = class_table(self.weight, s)
        return self.mean(s, table, table)

    def mean(self, s: Sample, table: Tensor | None, divisor: Tensor | None) -> Tensor:
        """Mean of φ(u) times `table`, over the weights that the table `divisor` gives."""
        if self.reduction == "none":
            return s.shaped(s.pixels(self.phi, table))
        dphi = None if self.identity else self.dphi
        if self.reduction == "sum":
            total = s.pixel_sum(self.phi, dphi, table)
        else:
            count = sum_over_processes(s.weight_sum(divisor), self.process_group)
            total = s.pixel_sum(self.phi, dphi, table, ratio(torch.ones_like(count), count))
        return sum_over_processes(total, self.process_group)

    def reduced(self, value: Tensor, s: Sample, divisor: Tensor | None) -> Tensor:
        """Map, or sum, or mean of a map of weighted losses."""
        if self.reduction == "none":
            return s.shaped(value)
        total = sum_over_processes(value.sum(), self.process_group)
        if self.reduction == "sum":
            return total
        return ratio(total, sum_over_processes(s.weight_sum(divisor), self.process_group))


class RegionLoss(SegmentationLoss):
    """Base of losses over the statistics of each class: I = Σ p t, S = Σ p, T = Σ t.

    Parameters of its own, besides the common ones
    ----------------------------------------------
    per_image : bool
        Statistics of each image, averaged over the images, instead of over the whole batch.
    classes : {"present", "all"} or list of int, optional
        Which classes are averaged: those with a target pixel, all, or exactly those listed, present
        or not. None means "present", and in binary mode, where the foreground alone is looked at,
        "all": an image without foreground counts.
    smooth : float
        Added to numerator and denominator.
    process_group : "world" or a process group, optional
        Processes over which the statistics are summed, so that every process holds the loss of the
        whole batch. The gradient with respect to a process's own logits is that of the sum of the
        processes' (equal) losses: what DistributedDataParallel averages to the whole batch's.

    Reductions: "none" gives each class's loss, (C,), or (N, C) with `per_image`, times `weight`,
    and 0 for classes that do not count; "mean" is their weighted mean, over classes, then over
    images.
    """

    needs: tuple[str, ...] = ("regions",)
    squared = False
    distance = False

    def __init__(
        self,
        *,
        per_image: bool = False,
        classes: str | Sequence[int] | None = None,
        smooth: float = 0.0,
        process_group: Any = None,
        **common: Unpack[CommonParameters],
    ) -> None:
        super().__init__(**common)
        self.per_image = _check.flag("per_image", per_image)
        self.classes = _check.class_list(classes)
        if self.mode == "binary" and isinstance(self.classes, tuple):
            raise ValueError(
                f'classes={list(self.classes)} has no meaning in mode="binary", which looks at the '
                'foreground only; leave it out, or use "present" or "all".'
            )
        self.smooth = _check.number("smooth", smooth, low=0)
        self.process_group = _check.process_group(process_group)

    def formula(self, r: Regions) -> Tensor:
        """Loss of each class, of the statistics' shape."""
        raise TypeError(f"{type(self).__name__} defines no formula: override `formula`.")

    def of(self, s: Sample) -> Tensor:
        """Mean (or sum, or list) over the classes that count."""
        r = self.statistics(s)
        return self.reduced(self.formula(r), self.class_weights(r, s), s)

    def statistics(self, s: Sample) -> Regions:
        """Statistics of each image (N, C), or of the batch of all processes (C,)."""
        r = s.regions(squared=self.squared, distance=self.distance)
        if self.per_image:
            return r
        parts = torch.stack([r.intersection, r.predicted, r.target, r.count, r.distance]).sum(1)
        return Regions(*sum_over_processes(parts, self.process_group).unbind(0))

    def class_weights(self, r: Regions, s: Sample) -> Tensor:
        """Weight of each unit: `weight` where the class counts, else 0."""
        counted = r.count > 0
        classes = self.classes or ("all" if s.mode == "binary" else "present")
        if classes == "present":
            counted = counted & r.present
        elif isinstance(classes, tuple):
            if max(classes) >= s.channels:
                raise ValueError(
                    f"classes={list(classes)} must be indices below the number of channels "
                    f"C={s.channels}; leave out the others."
                )
            listed = torch.tensor([c in classes for c in range(s.channels)])
            counted = counted & listed.to(counted.device)
        weights = counted.to(r.target.dtype)
        if self.weight is None:
            return weights
        w = (self.weight.to(s.logits.dtype) if self._round_weight else self.weight).to(weights)
        if s.mode == "binary":
            _check.vector_length("weight", w, (1, 2), s.mode)
            return weights * w[-1:]
        _check.vector_length("weight", w, (s.channels,), s.mode)
        return weights * w

    def reduced(self, loss: Tensor, weights: Tensor, s: Sample) -> Tensor:
        """Reduction of the classes' losses."""
        weighted = weights * loss
        if self.reduction == "none":
            return weighted.to(s.logits.dtype)
        if self.reduction == "sum":
            total = weighted.sum()
            if self.per_image:
                total = sum_over_processes(total, self.process_group)
            return total.to(s.logits.dtype)
        per_unit = ratio(weighted.sum(-1), weights.sum(-1))
        if not self.per_image:
            return per_unit.to(s.logits.dtype)
        images = (weights.sum(-1) > 0).to(loss.dtype)
        both = sum_over_processes(torch.stack([per_unit.sum(), images.sum()]), self.process_group)
        return ratio(both[0], both[1]).to(s.logits.dtype)


def _nothing(s: Sample) -> Tensor:
    """A loss of 0 with zero gradient, whatever the logits hold."""
    return s.logits[:0].sum()


class CompoundLoss(SegmentationLoss):
    r"""Weighted sum of losses, Σ_k s_k L_k, that shares the work of its parts.

    ``DiceLoss() + CrossEntropyLoss()`` and ``0.5 * DiceLoss() + CrossEntropyLoss()`` build one;
    compounds add and multiply on. Parts of one mode and one ``ignore_index`` share a single pass
    over the logits; parts that differ in them are evaluated on their own.

    Parameters
    ----------
    parts : sequence of SegmentationLoss
        The L_k. Each keeps its own parameters; none may have ``reduction="none"``, since losses per
        pixel and per class do not add up.
    scales : sequence of float, optional
        The s_k, by default 1.

    Limits: 0 where every part is 0; an all-ignored or empty batch gives 0 with zero gradient. A part
    of scale 0 is not evaluated, also where it would be infinite.

    Examples
    --------
    >>> import torch
    >>> from lossatlas import losses
    >>> loss = 0.5 * losses.DiceLoss() + losses.CrossEntropyLoss()
    >>> logits, target = torch.zeros(1, 2, 4), torch.tensor([[0, 0, 1, 1]])
    >>> round(loss(logits, target).item(), 4)  # 0.5 * 0.5 + ln 2
    0.9431
    """

    def __init__(
        self, parts: Iterable[SegmentationLoss], scales: Sequence[float] | None = None
    ) -> None:
        parts = list(parts)
        if not parts:
            raise ValueError("CompoundLoss needs at least one part, got none.")
        for part in parts:
            if not isinstance(part, SegmentationLoss):
                raise TypeError(
                    f"every part must be a loss of this library, got {type(part).__name__}."
                )
            if part.reduction == "none":
                raise ValueError(
                    'a part of a compound must have reduction "mean" or "sum", got '
                    f'{type(part).__name__} with "none"; per-pixel and per-class losses do not add.'
                )
        modes = {part.mode for part in parts}
        if {"multiclass", "binary"} <= modes:
            raise ValueError(
                "the parts of a compound see the same logits, got "
                + ", ".join(f"{type(part).__name__}(mode={part.mode!r})" for part in parts)
                + ": give all the same mode."
            )
        if isinstance(scales, (Real, str)):
            raise TypeError(f"scales must be a list with one number per part, got {scales!r}.")
        scales = [1.0] * len(parts) if scales is None else list(scales)
        if len(scales) != len(parts):
            raise ValueError(
                f"scales must have one number per part: expected {len(parts)}, got {len(scales)}."
            )
        super().__init__(mode=parts[0].mode, ignore_index=parts[0].ignore_index)
        flat: list[tuple[SegmentationLoss, float]] = []
        for part, scale in zip(parts, scales, strict=True):
            scale = _check.number("a scale", scale)
            if isinstance(part, CompoundLoss):
                flat += [(p, scale * s) for p, s in part.terms()]
            else:
                flat.append((part, scale))
        self.parts = nn.ModuleList(p for p, _ in flat)
        self.scales: tuple[float, ...] = tuple(s for _, s in flat)

    def __setattr__(self, name: str, value: Any) -> None:
        """Set an attribute, but none of those that every loss has: the parts would not hear of it."""
        if name in ("mode", "weight", "ignore_index", "reduction") and "scales" in vars(self):
            raise AttributeError(
                f"{name} of a compound is that of its parts: build them, or a compound that has a name, with "
                f"{name}=..., got {value!r}."
            )
        super().__setattr__(name, value)

    def terms(self) -> list[tuple[SegmentationLoss, float]]:
        """Parts with their scales."""
        return list(zip(self.parts, self.scales, strict=True))  # type: ignore[arg-type]

    def forward(self, logits: Tensor, target: Tensor, **given: Tensor | None) -> Tensor:
        """Weighted sum of the parts' losses of `logits` against `target`.

        What else is `given` by name, as ``distance=`` for a boundary loss, goes to the parts that take it.
        """
        taken = {name for part, _ in self.terms() for name in part.takes}
        if unknown := sorted(set(given) - taken):
            known = f"take {', '.join(sorted(taken))}" if taken else "take logits and target alone"
            raise TypeError(f"unknown argument {unknown[0]!r}: the parts of this compound {known}.")
        samples: dict[tuple[str, int | None], Sample] = {}
        needs: dict[tuple[str, int | None], set[str]] = {}
        for part, _ in self.terms():
            needs.setdefault((part.mode, part.ignore_index), set())
        for part, scale in self.terms():
            if scale != 0:
                needs[part.mode, part.ignore_index].update(part.needs)
        total: Tensor | None = None
        for part, scale in self.terms():
            key = (part.mode, part.ignore_index)
            if key not in samples:
                samples[key] = sample(
                    logits, target, mode=key[0], ignore_index=key[1], needs=needs[key]
                )
            if scale == 0:
                continue
            maps = {name: given[name] for name in part.takes if name in given}
            value = scale * part.of(samples[key], **maps)
            total = value if total is None else total + value
        return _nothing(next(iter(samples.values()))) if total is None else total

    def of(self, s: Sample) -> Tensor:
        """Weighted sum of the parts' losses of one sample."""
        values = [scale * part.of(s) for part, scale in self.terms() if scale != 0]
        return torch.stack(values).sum() if values else _nothing(s)

    def extra_repr(self) -> str:
        """Only what is the compound's own."""
        return f"scales={self.scales!r}"
