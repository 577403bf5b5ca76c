"""The real data, where they are beside the checkout."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

MIRROR = Path(__file__).resolve().parents[2].parent / "shared" / "data"


@pytest.fixture(autouse=True)
def _mirror_beside_the_checkout(monkeypatch):
    if "LOSSATLAS_MIRROR" not in os.environ and MIRROR.is_dir():
        monkeypatch.setenv("LOSSATLAS_MIRROR", str(MIRROR))
