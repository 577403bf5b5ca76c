"""Folders of pictures for the tests of the advice."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from PIL import Image


def save(folder: Path, pictures: Mapping[str, np.ndarray]) -> Path:
    """The folder, with a PNG of each name; 8 bits, and a single channel without its axis."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, picture in pictures.items():
        pixels = np.asarray(picture).astype(np.uint8)
        Image.fromarray(pixels[..., 0] if pixels.ndim == 3 else pixels).save(folder / f"{name}.png")
    return folder
