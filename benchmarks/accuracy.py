"""Every loss on a device in float32 beside itself on the CPU in float64: value, gradient, and what is refused.

    python benchmarks/accuracy.py --out results/bench/gpu          # the GPU, where there is one
    python benchmarks/accuracy.py --out /tmp/bench --device cpu    # a smoke test

Each registered loss computes the same example in each of its modes, with void pixels: as it comes, under bfloat16
autocast (beside float64 of the same rounded logits), and compiled (some losses). ``accuracy.csv`` has a row for each
with the relative error of the value, and of the gradient ‖g − g₆₄‖ / ‖g₆₄‖. The last rows say what becomes of a label
that is out of range. The example has a rare class, so that a sum in low precision would show.
"""

from __future__ import annotations

import argparse
import csv
import importlib.metadata
import json
import warnings
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from lossatlas import losses

VOID = 255
CLASSES = 4
MODES = ("multiclass", "binary", "multilabel")
#: One loss of each kind: a compilation takes seconds.
COMPILED = ("ce", "focal", "dice", "tversky", "lovasz_softmax", "dice_ce")


def example(mode: str, side: int) -> tuple[Tensor, Tensor]:
    """Logits (4, C, side, side) float64, and a target in which the last class is rare and some pixels are void."""
    generator = torch.Generator().manual_seed(0)
    channels = 1 if mode == "binary" else CLASSES
    logits = 3 * torch.randn(4, channels, side, side, generator=generator, dtype=torch.float64)
    draw = torch.rand(4, side, side, generator=generator)
    if mode == "multiclass":
        target = torch.bucketize(draw, torch.tensor([0.6, 0.9, 0.998]))
    elif mode == "binary":
        target = (draw > 0.99).long()[:, None]
    else:
        target = (torch.rand(logits.shape, generator=generator) > 0.9).long()
    void = torch.rand(target.shape, generator=generator) < 0.05
    return logits, target.masked_fill(void, VOID)


def build(name: str, mode: str) -> losses.SegmentationLoss:
    """The loss with its defaults, and class weights where its name needs them."""
    weight = [2.5] if mode == "binary" else [0.5, 1.0, 2.0, 3.5]
    params: dict[str, Any] = {"weight": weight} if name.startswith("weighted") else {}
    return losses.build(name, mode=mode, ignore_index=VOID, **params)


def compute(loss: Any, logits: Tensor, target: Tensor) -> tuple[float, Tensor]:
    """Value, and gradient in float64 on the CPU."""
    leaf = logits.clone().requires_grad_()
    value = loss(leaf, target)
    value.backward()
    assert leaf.grad is not None
    return float(value.detach()), leaf.grad.double().cpu()


def compared(
    name: str, mode: str, device: str, side: int, *, compiled: bool
) -> Iterator[dict[str, Any]]:
    """Rows of one loss and mode."""
    logits, target = example(mode, side)
    there = target.to(device)
    forms = ["float32", "bfloat16 autocast", *(["compiled"] if compiled else [])]
    for form in forms:
        given = logits.to(torch.bfloat16 if form.startswith("bf") else torch.float32)
        value, gradient = compute(build(name, mode), given.double(), target)
        loss = build(name, mode).to(device)
        if form == "compiled":
            loss = torch.compile(loss, fullgraph=True)  # type: ignore[assignment]
        row = {"device": device, "loss": name, "mode": mode, "form": form}
        with torch.autocast(device, torch.bfloat16, enabled=form.startswith("bf")):
            got, got_gradient = compute(loss, given.to(device), there)
        yield row | {
            "value_error": abs(got - value) / max(abs(value), 1e-12),
            "gradient_error": float((got_gradient - gradient).norm() / gradient.norm()),
            "outcome": "computed",
        }


def refused(name: str, device: str, side: int) -> dict[str, Any]:
    """What becomes of a label that no class has."""
    logits, target = example("multiclass", side)
    target[0, 0, 0] = CLASSES + 3
    row = {"device": device, "loss": name, "mode": "multiclass", "form": "label out of range"}
    try:
        loss = build(name, "multiclass").to(device)
        value, _ = compute(loss, logits.float().to(device), target.to(device))
        outcome = f"no error, loss {value:.3g}"
    except Exception as error:
        outcome = f"{type(error).__name__}: {str(error).splitlines()[0][:100]}"
    return row | {"value_error": None, "gradient_error": None, "outcome": outcome}


def table(device: str, names: Iterable[str], side: int, *, compiled: bool) -> list[dict[str, Any]]:
    """All rows; an error of one loss is its outcome, and the next goes on."""
    rows: list[dict[str, Any]] = []
    names = list(names)
    for name in names:
        for mode in MODES:
            try:
                build(name, mode)
            except ValueError:
                continue  # not in this mode
            also = compiled and name in COMPILED and mode != "multilabel"
            try:
                rows += compared(name, mode, device, side, compiled=also)
            except Exception as error:
                outcome = f"{type(error).__name__}: {str(error)[:200]}"
                failed = {"form": "failed", "value_error": None, "gradient_error": None}
                rows.append(
                    {"device": device, "loss": name, "mode": mode} | failed | {"outcome": outcome}
                )
    rows += [refused(name, device, side) for name in names]  # last: it could end the device's work
    return rows


def main(arguments: Iterable[str] | None = None) -> None:
    """Compute, print the worst, and write."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("--out", type=Path, required=True, help="folder for the results")
    parser.add_argument("--device", choices=["cpu", "cuda"], help="else a GPU if there is one")
    parser.add_argument("--names", nargs="+", choices=losses.names(), default=losses.names())
    parser.add_argument("--side", type=int, default=128, help="pixels a side")
    parser.add_argument("--no-compile", action="store_true", help="leave the compiled losses out")
    options = parser.parse_args(None if arguments is None else list(arguments))
    device = options.device or ("cuda" if torch.cuda.is_available() else "cpu")
    if device == "cuda" and not torch.cuda.is_available():
        parser.error("--device cuda needs a GPU that torch can use, got none; leave it out")
    warnings.filterwarnings("ignore")
    rows = table(device, options.names, options.side, compiled=not options.no_compile)
    options.out.mkdir(parents=True, exist_ok=True)
    with (options.out / "accuracy.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, fieldnames=list(rows[0]), lineterminator="\n")
        writer.writeheader()
        for row in rows:
            writer.writerow({k: f"{v:.3g}" if isinstance(v, float) else v for k, v in row.items()})
    described = {
        "gpu": torch.cuda.get_device_name() if device == "cuda" else None,
        "torch": str(torch.__version__),
        "numpy": importlib.metadata.version("numpy"),
        "losses_version": losses.VERSION,
        "side": options.side,
    }
    (options.out / "accuracy.json").write_text(json.dumps(described, indent=2) + "\n")
    for form in dict.fromkeys(row["form"] for row in rows):
        of_form = [row for row in rows if row["form"] == form]
        errors = [row["gradient_error"] for row in of_form if row["gradient_error"] is not None]
        outcomes = {row["outcome"] for row in of_form}
        print(form, len(of_form), f"worst gradient {max(errors):.2g}" if errors else outcomes)
    print(f"written: {options.out}")


if __name__ == "__main__":
    main()
