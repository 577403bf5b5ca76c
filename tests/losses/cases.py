"""What the tests of the losses run over: names, oracles, modes, target kinds, options, and random inputs."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import oracles
import pytest
import torch

from lossatlas import losses

VOID = 255
MODES = ("multiclass", "binary", "multilabel")
CLASSES = 4
WEIGHT = {
    "multiclass": torch.tensor([0.5, 1.0, 2.0, 3.5], dtype=torch.float64),
    "multilabel": torch.tensor([0.5, 1.0, 2.0, 3.5], dtype=torch.float64),
    "binary": torch.tensor([2.5], dtype=torch.float64),
}


@dataclass(frozen=True)
class Spec:
    """One registered name beside its oracle."""

    name: str
    oracle: Callable[..., Any]
    # "pixel", "region" (a mean over classes), "sort", "ratio" (one for all classes), "distance",
    # "skeleton",
    # or a sum of a pixel and a region part: "mixed" (a class of its own) or "compound"
    family: str
    variants: tuple[dict[str, Any], ...] = ({},)  # parameters of its own, default first
    weighted: bool = False  # the name needs class weights

    def complete(self, mode: str, params: dict[str, Any]) -> dict[str, Any]:
        """The parameters with the class weights that a weighted name needs."""
        if self.weighted and params.get("weight") is None:
            return {**params, "weight": WEIGHT[mode]}
        return params

    def build(self, mode: str, **params: Any) -> losses.SegmentationLoss:
        """The library's module."""
        return losses.build(self.name, mode=mode, **self.complete(mode, params))

    def expect(self, logits: torch.Tensor, target: torch.Tensor, mode: str, **params: Any) -> Any:
        """The oracle's value."""
        merged = dict(self.complete(mode, params))
        if isinstance(merged.get("weight"), torch.Tensor):
            merged["weight"] = merged["weight"].numpy()
        return self.oracle(
            logits.detach().double().numpy(), target.detach().numpy(), mode=mode, **merged
        )

    @property
    def tolerance(self) -> float:
        """Relative; the distance maps are float32."""
        return 1e-6 if self.family == "distance" else 1e-10

    @property
    def on_grid(self) -> bool:
        """Whether it matters which pixels are neighbours."""
        return self.family in ("distance", "skeleton")

    @property
    def is_region(self) -> bool:
        """Whether ``per_image`` and ``classes`` apply."""
        return self.family != "pixel"

    @property
    def reductions(self) -> tuple[str, ...]:
        """The reductions it has: a sum of a per-pixel and a per-class loss has no finest unit."""
        return {"mixed": ("mean",), "compound": ("mean", "sum")}.get(
            self.family, ("mean", "sum", "none")
        )


def seed_of(*parts: Any) -> int:
    """A seed that depends on the names alone."""
    return zlib.crc32(repr(parts).encode())


def example(
    mode: str,
    kind: str = "hard",
    *,
    seed: int = 0,
    images: int = 2,
    channels: int | None = None,
    shape: tuple[int, ...] = (3, 2),
    void: float = 0.0,
    scale: float = 1.5,
    dtype: torch.dtype = torch.float64,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Random logits and a target with unequal classes; ``void`` is the fraction of ignored entries.

    kind: "hard" labels, "soft" probabilities, "onehot" (the hard labels as floats).
    """
    rng = np.random.default_rng(seed)
    channels = channels or (1 if mode == "binary" else CLASSES)
    logits = torch.tensor(rng.normal(0, scale, (images, channels, *shape)))
    if mode == "multiclass":
        odds = 0.5 ** np.arange(channels)
        labels = torch.tensor(rng.choice(channels, (images, *shape), p=odds / odds.sum()))
        if kind == "hard":
            target = labels
        elif kind == "onehot":
            target = torch.nn.functional.one_hot(labels, channels).movedim(-1, 1).double()
        else:
            target = torch.tensor(np.moveaxis(rng.dirichlet(odds, (images, *shape)), -1, 1).copy())
        where = scatter(rng, (images, *shape), void)
        if void:
            target = target.masked_fill(where if kind == "hard" else where[:, None], VOID)
    else:
        full = (
            (images, *shape) if mode == "binary" and kind == "hard" else (images, channels, *shape)
        )
        hard = torch.tensor(rng.random(full) < 0.35)
        target = hard.long() if kind == "hard" else hard.double()
        if kind == "soft":
            target = torch.tensor(rng.beta(0.6, 1.0, full))
        if void:
            target = target.masked_fill(scatter(rng, full, void), VOID)
    if target.is_floating_point():
        target = target.to(dtype)
    return logits.to(dtype), target


def scatter(rng: np.random.Generator, shape: tuple[int, ...], fraction: float) -> torch.Tensor:
    """A random mask; where the fraction is neither 0 nor 1, neither empty nor full."""
    mask = rng.random(shape) < fraction
    if 0 < fraction < 1 and mask.size > 1:
        mask.flat[0], mask.flat[-1] = True, False
    return torch.tensor(mask)


def void_mask(logits: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """Which logits belong to ignored entries."""
    where = target == VOID
    if where.ndim < logits.ndim:
        where = where.unsqueeze(1)
    return where.expand_as(logits)


def gradient(
    loss: torch.nn.Module, logits: torch.Tensor, target: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Value and logit gradient."""
    z = logits.detach().clone().requires_grad_()
    value = loss(z, target)
    return value.detach(), torch.autograd.grad(value.sum(), z)[0]


def assert_equal(got: Any, expected: Any) -> None:
    """To the bit: tensors, or pairs of value and gradient."""
    torch.testing.assert_close(got, expected, rtol=0, atol=0)


@contextmanager
def default_dtype(dtype: torch.dtype) -> Iterator[None]:
    """What torch makes of Python's numbers inside, and float32 again after it."""
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(torch.float32)


@contextmanager
def named(*parts: Any) -> Iterator[None]:
    """Add the parts to whatever fails inside, so that a loop over scenes says which one it was."""
    try:
        yield
    except (Exception, pytest.fail.Exception) as error:
        error.add_note("Scene: " + ", ".join(str(part) for part in parts))
        raise


def text(options: dict[str, Any]) -> str:
    """Keywords as a reader writes them; of a tensor only its length."""

    def shown(value: Any) -> str:
        if isinstance(value, torch.Tensor):
            return f"{len(value)} numbers"
        return f"{value:.3g}" if isinstance(value, float) else str(value)

    return ", ".join(f"{key}={shown(value)}" for key, value in options.items())


@dataclass(frozen=True)
class Scene:
    """One loss with parameters of its own, in one mode, with one kind of target."""

    spec: Spec
    params: dict[str, Any]
    mode: str
    kind: str

    def __str__(self) -> str:
        return f"{self.spec.name}({text(self.params)}) {self.mode} {self.kind}"

    def build(self, **options: Any) -> losses.SegmentationLoss:
        """The library's module, with more keywords."""
        return self.spec.build(self.mode, **{**self.params, **options})

    def expect(self, logits: torch.Tensor, target: torch.Tensor, **options: Any) -> Any:
        """The oracle's value, with the same keywords."""
        return self.spec.expect(logits, target, self.mode, **{**self.params, **options})

    def example(self, salt: str = "", **how: Any) -> tuple[torch.Tensor, torch.Tensor]:
        """Inputs whose seed depends on the scene's names (and the salt) alone."""
        names = (self.spec.name, self.mode, self.kind)
        return example(self.mode, self.kind, seed=seed_of(*filter(None, (salt, *names))), **how)


def scenes(
    spec: Spec,
    *,
    variants: bool = False,
    kinds: tuple[str, ...] = ("hard", "soft"),
    modes: tuple[str, ...] = MODES,
) -> Iterator[Scene]:
    """Every scene of a loss: its default parameters, or all of its variants."""
    for params in spec.variants if variants else spec.variants[:1]:
        for mode in modes:
            for kind in kinds:
                yield Scene(spec, params, mode, kind)


def each(*names: str, where: Callable[[Spec], bool] = lambda spec: True) -> pytest.MarkDecorator:
    """Parametrisation by loss: all, or those named, where the condition holds. One id is one loss."""
    chosen = [s for s in SPECS.values() if (not names or s.name in names) and where(s)]
    return pytest.mark.parametrize("spec", chosen, ids=[s.name for s in chosen])


# fmt: off
SPECS: dict[str, Spec] = {
    s.name: s
    for s in (
        Spec("ce", oracles.cross_entropy, "pixel", ({}, {"label_smoothing": 0.1})),
        Spec("weighted_ce", oracles.cross_entropy, "pixel", weighted=True),
        Spec("one_vs_all_ce", oracles.one_vs_all, "pixel", ({}, {"negative_weight": 0.2})),
        Spec("balanced_ce", oracles.balanced_ce, "pixel", ({}, {"alpha": 0.8})),
        Spec("ohem_ce", oracles.ohem_ce, "pixel", ({}, {"threshold": 0.2, "min_kept": 0.5}, {"min_kept": 3})),
        Spec("topk_ce", oracles.topk_ce, "pixel", ({}, {"k": 0.5})),
        Spec("logit_adjusted_ce", oracles.logit_adjusted_ce, "pixel", ({}, {"tau": 2.0})),
        Spec("focal", oracles.focal, "pixel",
             ({}, {"gamma": 0.0}, {"gamma": 0.5, "alpha": 0.25}, {"gamma": 2.0, "normalizer": "positives"})),
        Spec("poly1", oracles.poly1, "pixel", ({}, {"epsilon": -0.5})),
        Spec("asymmetric", oracles.asymmetric, "pixel",
             ({}, {"gamma_positive": 1.5, "gamma_negative": 0.5, "margin": 0.0}, {"margin": 0.3})),
        Spec("dice", oracles.dice, "region", ({}, {"smooth": 1.0})),
        Spec("dice_squared", partial(oracles.dice, squared=True), "region", ({}, {"smooth": 0.5})),
        Spec("weighted_dice", oracles.dice, "region", weighted=True),
        Spec("inverse_dice", oracles.inverse_dice, "region", ({}, {"smooth": 1.0})),
        Spec("generalized_dice", oracles.generalized_dice, "ratio", ({}, {"smooth": 1.0})),
        Spec("log_cosh_dice", oracles.log_cosh_dice, "region", ({}, {"smooth": 1.0})),
        Spec("jaccard", oracles.jaccard, "region", ({}, {"smooth": 1.0})),
        Spec("tversky", oracles.tversky, "region", ({}, {"alpha": 0.8, "beta": 0.4, "smooth": 1.0})),
        Spec("focal_tversky", oracles.focal_tversky, "region", ({}, {"gamma": 2.0, "alpha": 0.5, "smooth": 1.0})),
        Spec("dice_semimetric", oracles.dice_semimetric, "region", ({}, {"smooth": 1.0})),
        Spec("lovasz_softmax", oracles.lovasz_softmax, "sort"),
        Spec("lovasz_hinge", partial(oracles.lovasz_hinge, per_image=True), "sort"),
        Spec("unified_focal", oracles.unified_focal, "mixed",
             ({}, {"asymmetric": False, "gamma": 0.2, "delta": 0.7, "weight_lambda": 0.3, "smooth": 1.0})),
        Spec("boundary", oracles.boundary, "distance"),
        Spec("hausdorff", oracles.hausdorff, "distance", ({}, {"alpha": 1.0})),
        Spec("soft_cldice", oracles.soft_cldice, "skeleton", ({}, {"iterations": 1, "smooth": 1.0})),
        Spec("dice_ce", oracles.dice_ce, "compound", ({}, {"scales": [0.3, 2.0], "smooth": 1.0})),
        Spec("dice_focal", oracles.dice_focal, "compound", ({}, {"gamma": 1.0, "alpha": 0.75})),
        Spec("dice_topk", oracles.dice_topk, "compound", ({}, {"k": 0.5})),
        Spec("ce_lovasz", oracles.ce_lovasz, "compound", ({}, {"scales": [0.3, 2.0]})),
        Spec("nnunet_dice_ce", oracles.nnunet_dice_ce, "compound", ({}, {"do_bg": True})),
        Spec("sam2_focal_dice", oracles.sam2_focal_dice, "compound", ({}, {"gamma": 1.0})),
    )
}
# fmt: on

#: One loss for each way of computing. A promise that the shared code keeps (layout, shape, masks,
#: precision, transforms) is tested on these: the other losses differ only in the formula after it.
PRIMITIVES = (
    "ce",  # the surprisal, summed
    "focal",  # a function of the surprisal
    "one_vs_all_ce",  # log-probabilities of every class
    "balanced_ce",  # weights made from the batch
    "ohem_ce",  # the pixels above a threshold
    "topk_ce",  # so many pixels, the hardest
    "dice",  # statistics of regions
    "dice_squared",  # with squares
    "generalized_dice",  # one ratio for all classes
    "dice_semimetric",  # with |p - t|
    "lovasz_softmax",  # a sort of errors
    "lovasz_hinge",  # of hinge errors
    "unified_focal",  # pixels and regions in one class
    "boundary",  # distance maps
    "hausdorff",  # of the prediction too
    "soft_cldice",  # windows around each pixel
    "dice_ce",  # a compound
)
