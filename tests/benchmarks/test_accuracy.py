"""The table of a device's accuracy has a row for every loss, mode and form, and sees a loss that is wrong there."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest
import torch

from lossatlas import losses


def table(module, folder: Path, *names: str) -> list[dict[str, str]]:
    options = ["--device", "cpu", "--side", "16", "--no-compile", "--names", *names]
    module.main(["--out", str(folder), *options])
    with (folder / "accuracy.csv").open() as file:
        return list(csv.DictReader(file))


@pytest.fixture
def accuracy(script):
    return script("benchmarks/accuracy.py")


def test_every_form_is_compared_and_a_stray_label_is_refused(accuracy, tmp_path):
    rows = table(accuracy, tmp_path, "ce", "tversky")
    forms = {(row["loss"], row["mode"], row["form"]) for row in rows}
    assert {("tversky", mode, "bfloat16 autocast") for mode in accuracy.MODES} <= forms
    plain = [row for row in rows if row["form"] == "float32"]
    assert len(plain) == 6 and all(float(row["gradient_error"]) < 1e-4 for row in plain)
    strays = [row["outcome"] for row in rows if row["form"] == "label out of range"]
    assert len(strays) == 2 and all(outcome.startswith("ValueError") for outcome in strays)


def test_a_loss_that_is_wrong_in_single_precision_shows(accuracy, tmp_path, monkeypatch):
    plain = losses.CrossEntropyLoss.forward

    def wrong(self, logits, target):
        value = plain(self, logits, target)
        return value * 1.01 if logits.dtype == torch.float32 else value

    monkeypatch.setattr(losses.CrossEntropyLoss, "forward", wrong)
    rows = [row for row in table(accuracy, tmp_path, "ce") if row["form"] == "float32"]
    assert all(float(row["gradient_error"]) > 5e-3 for row in rows)
