"""Where the tests find data: a scratch cache, the mirror if there is one, tiny drawn fixtures."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

sys.path.insert(0, str(Path(__file__).parent))
CHECKOUT = Path(__file__).resolve().parents[2]


def _mirror() -> Path | None:
    """Mirror of LOSSATLAS_MIRROR or of ``../shared/data`` beside the checkout."""
    named = os.environ.get("LOSSATLAS_MIRROR", "")
    for candidate in (Path(named) if named else None, CHECKOUT.parent / "shared" / "data"):
        if candidate is not None:
            for folder in (candidate, CHECKOUT / candidate):
                if folder.is_dir():
                    return folder.resolve()
    return None


MIRROR = _mirror()


@pytest.fixture(autouse=True)
def scratch(tmp_path, monkeypatch):
    """No test reads or writes the user's downloads, cache or mirror."""
    monkeypatch.setenv("LOSSATLAS_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("LOSSATLAS_DATA", str(tmp_path / "raw"))
    monkeypatch.setenv("LOSSATLAS_DOWNLOAD", "0")
    monkeypatch.delenv("LOSSATLAS_MIRROR", raising=False)


@pytest.fixture
def mirror(monkeypatch):
    """Folder of the mirror, also set as LOSSATLAS_MIRROR; skip where there is none."""
    if MIRROR is None:
        pytest.skip("no mirror: set LOSSATLAS_MIRROR, or put it in ../shared/data")
    monkeypatch.setenv("LOSSATLAS_MIRROR", str(MIRROR))
    return MIRROR


def _draw_camvid(root: Path, counts=(3, 2, 2), size=(12, 16), suffix=".png", void=11) -> Path:
    """Write a tiny set in CamVid's original layout and return ``root``."""
    rng = np.random.default_rng(0)
    base = root / "CamVid"
    for split, count in zip(("train", "val", "test"), counts, strict=True):
        (base / split).mkdir(parents=True)
        (base / f"{split}annot").mkdir()
        lines = []
        for i in range(count):
            name = f"000{1 + i % 2}TP_{split}{i:03d}"
            image = rng.integers(0, 256, (*size, 3), dtype=np.uint8)
            label = rng.integers(0, 11, size, dtype=np.uint8)
            label[0] = void
            options = {"lossless": True} if suffix == ".webp" else {}
            Image.fromarray(image).save(base / split / f"{name}{suffix}", **options)
            Image.fromarray(label).save(base / f"{split}annot" / f"{name}.png")
            lines.append(
                f"/SegNet/CamVid/{split}/{name}.png /SegNet/CamVid/{split}annot/{name}.png"
            )
        (base / f"{split}.txt").write_text("\n".join(lines) + "\n")
    return root


@pytest.fixture
def draw_camvid():
    """The function that draws a tiny CamVid."""
    return _draw_camvid
