"""Models by name."""

from __future__ import annotations

import inspect

from torch import nn

from lossatlas.models._common import AnySize, near_matches
from lossatlas.models.plain import Plain
from lossatlas.models.segnet import SegNet, SegNetBasic
from lossatlas.models.unet import UNet

_MODELS: dict[str, type[AnySize]] = {
    "unet": UNet,
    "segnet": SegNet,
    "segnet_basic": SegNetBasic,
    "plain": Plain,
}


def names() -> list[str]:
    """Names that `build` knows, in the book's order."""
    return list(_MODELS)


def parameters(name: str) -> dict[str, inspect.Parameter]:
    """Keyword parameters of a model by name, channels excluded.

    ValueError with the near matches for an unknown name.
    """
    signature = inspect.signature(_lookup(name))
    return {
        key: parameter
        for key, parameter in signature.parameters.items()
        if parameter.kind is inspect.Parameter.KEYWORD_ONLY
    }


def build(name: str, in_channels: int, out_channels: int, **params: object) -> AnySize:
    """Freshly initialised model: images (N, in_channels, H, W) to logits (N, out_channels, H, W).

    Raises
    ------
    ValueError
        Unknown model, or a value out of range.
    TypeError
        A parameter that the model does not read, or a value of the wrong type.

    >>> build("segnet_basic", 3, 11, size="published").multiple
    16
    """
    model = _lookup(name)
    known = parameters(name)
    for key in params:
        if key not in known:
            raise TypeError(
                f"model {name!r} has no parameter {key!r}; {near_matches(key, known)} "
                f"({name} reads {', '.join(known)})"
            )
    return model(in_channels, out_channels, **params)


def count_parameters(model: nn.Module) -> int:
    """Number of trainable weights (batch norm's scale and shift included, its statistics not)."""
    return sum(part.numel() for part in model.parameters() if part.requires_grad)


def _lookup(name: object) -> type[AnySize]:
    if name not in _MODELS:
        raise ValueError(f"unknown model {name!r}; {near_matches(name, _MODELS)}")
    return _MODELS[str(name)]
