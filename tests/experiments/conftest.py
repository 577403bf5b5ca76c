"""The real data, where they are beside the checkout."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))  # a helper module lies beside the tests
MIRROR = Path(__file__).resolve().parents[2].parent / "shared" / "data"


@pytest.fixture(autouse=True)
def _mirror_beside_the_checkout(monkeypatch):
    if "LOSSATLAS_MIRROR" not in os.environ and MIRROR.is_dir():
        monkeypatch.setenv("LOSSATLAS_MIRROR", str(MIRROR))
