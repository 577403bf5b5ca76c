"""The parameters that losses share, declared once.

A loss declares its own parameters and passes on the rest::

    class FocalLoss(PixelLoss):
        def __init__(self, *, gamma: float = 2.0, **common: Unpack[PixelParameters]) -> None:
            super().__init__(**common)

Type checkers and editors read what ``**common`` takes from the TypedDict.  ``inspect.signature``
reads it from :func:`show_inherited`, which every subclass of ``SegmentationLoss`` goes through.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Protocol, TypeAlias, TypedDict

from torch import Tensor

from . import _check


class SupportsArray(Protocol):
    """What NumPy can read: its arrays and scalars among others."""

    def __array__(self) -> Any:
        """The values as a NumPy array."""


#: One number per class.
ClassNumbers: TypeAlias = Tensor | Sequence[float] | SupportsArray


class CommonParameters(TypedDict, total=False):
    """What every loss takes; see :class:`SegmentationLoss`."""

    mode: str
    weight: ClassNumbers | None
    ignore_index: int | None
    reduction: str


class PixelParameters(CommonParameters, total=False):
    """What losses that are a mean over pixels take; see :class:`PixelLoss`."""

    process_group: Any


class ClassParameters(CommonParameters, total=False):
    """What losses that are a mean over classes take; see :class:`RegionLoss`."""

    per_image: bool
    classes: str | Sequence[int] | None


class DistanceParameters(ClassParameters, total=False):
    """What losses over distance maps take; see :class:`RegionLoss`."""

    process_group: Any


class RegionParameters(DistanceParameters, total=False):
    """What losses over region statistics take; see :class:`RegionLoss`."""

    smooth: float


Parameters: TypeAlias = Mapping[str, inspect.Parameter]


def show_inherited(
    function: Callable[..., Any], *parents: Parameters, without: Iterable[str] = ()
) -> None:
    """Replace ``**common`` in the signature of `function` by the parameters of its `parents`."""
    own = inspect.signature(function)
    shown = {k: p for k, p in own.parameters.items() if p.kind is not p.VAR_KEYWORD}
    if len(shown) < len(own.parameters):
        for name, parameter in (item for parent in parents for item in parent.items()):
            if name not in without and parameter.kind is parameter.KEYWORD_ONLY:
                shown.setdefault(name, parameter)
    function.__signature__ = own.replace(parameters=list(shown.values()))  # type: ignore[attr-defined]


#: What other libraries call a parameter of ours.
_ELSEWHERE = {
    "include_background": "classes=[1, ...], the classes that count",
    "only_present": 'classes="present"',
    "sigmoid": 'mode="binary" or "multilabel"',
    "softmax": 'mode="multiclass"',
    "to_onehot_y": 'mode="multiclass", whose target holds class indices',
    "eps": "smooth, where it is more than a guard against 0/0; our losses need no guard",
    "batch": "per_image, the opposite",
    "lambda_dice": "scales, one number per part",
    "lambda_ce": "scales, one number per part",
}


def reject_unknown(
    owner: str, given: Iterable[str], known: Iterable[str], refused: Mapping[str, str]
) -> None:
    """Raise TypeError for the first of the names `given` that is not `known`.

    `refused` says of names that other losses take why this one does not.
    """
    known = list(known)
    for name in given:
        if name in refused:
            raise TypeError(f"{owner} takes no {name}: {refused[name]}")
        if name not in known:
            ours = _ELSEWHERE.get(name, "")
            own = ours.partition("=")[0].partition(",")[0] in known
            meant = f"here it is {ours}." if own else _check.near(name, known)
            raise TypeError(f"{owner} takes no parameter {name!r}; {meant}")
