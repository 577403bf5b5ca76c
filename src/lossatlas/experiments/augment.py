"""Augmentation by name: the data package's affine maps and colour, and a cyclic shift for canvases."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import fields
from typing import Any

import torch
from torch import Tensor

from lossatlas.data.augment import Augment
from lossatlas.experiments.config import ConfigError, check_name

Augmentation = Callable[[Tensor, Tensor, torch.Generator], tuple[Tensor, Tensor]]

#: What ``augment`` may hold; ``ignore_index`` comes from the data set.
NAMES = ("shift", *(f.name for f in fields(Augment) if f.name != "ignore_index"))


def shift(images: Tensor, target: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Cyclic shift of a whole batch by up to a quarter of its height and width.

    Cyclic, so that no pixel is lost and the class fractions of the batch stay as they are.

    Args:
        images: (B, C, H, W).
        target: (B, H, W), moved along.
        generator: of the two draws.
    """
    height, width = target.shape[-2:]
    down = int(torch.randint(-(height // 4), height // 4 + 1, (), generator=generator))
    right = int(torch.randint(-(width // 4), width // 4 + 1, (), generator=generator))
    return images.roll((down, right), (-2, -1)), target.roll((down, right), (-2, -1))


def build_augmentation(params: Mapping[str, Any], ignore_index: int | None) -> Augmentation | None:
    """The augmentation of a configuration: ``{"shift": True}``, ``{"horizontal_flip": True, "scale": [0.8, 1.25]}``.

    Args:
        params: by the names of ``NAMES``; nothing that is not named is done.
        ignore_index: label of pixels that come from outside the image.

    Returns:
        a function of (images, target, generator), or None if nothing is asked for.

    Raises:
        ConfigError: an unknown name, or a shift that is not True or False.
        lossatlas.data.DataError: another value that is out of range.
    """
    for name in params:
        check_name("augmentation", name, NAMES)
    wanted = params.get("shift", False)
    if not isinstance(wanted, bool):
        raise ConfigError(f"augment.shift: expected true or false, got {wanted!r}")
    others = {name: _tuple(value) for name, value in params.items() if name != "shift"}
    steps: list[Augmentation] = [shift] if wanted else []
    if others:
        steps.append(Augment(**{"horizontal_flip": False, **others, "ignore_index": ignore_index}))
    if not steps:
        return None

    def augment(
        images: Tensor, target: Tensor, generator: torch.Generator
    ) -> tuple[Tensor, Tensor]:
        for step in steps:
            images, target = step(images, target, generator)
        return images, target

    return augment


def _tuple(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value
