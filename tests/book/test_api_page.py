"""The chapter of the losses leaves no public name out."""

from __future__ import annotations

from pathlib import Path

from lossatlas import losses

PAGE = Path(__file__).resolve().parents[2] / "book" / "api.md"


def test_every_public_name_of_the_losses_has_its_entry():
    text = PAGE.read_text()
    missing = [
        name
        for name in losses.__all__
        if not any(line.endswith(f"losses.{name}") for line in text.splitlines())
    ]
    assert not missing
