"""Synthetic records, as the experiments write them: the truth spoilt by a known amount per loss."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import matplotlib
import numpy as np
import pandas as pd
import pytest

matplotlib.use("agg")
sys.path.insert(0, str(Path(__file__).parent))  # helper modules lie beside the tests

#: loss -> (part of the objects found, part of them on classes of the rarer half)
FOUND = {
    "ce": (0.5, 0.05),
    "weighted_ce": (0.7, 0.3),
    "focal": (0.65, 0.15),
    "dice": (0.8, 0.5),
    "lovasz_softmax": (0.9, 0.75),
    "lovasz_hinge": (0.0, 0.0),
}


def _scenes(rng, images, side, classes, background):
    """Grey images and their labels: squares of the classes, the later the rarer."""
    start = 1 if background else 0
    chance = 1.0 / np.arange(1, classes - start + 1) ** 1.1
    labels = np.zeros((images, side, side), np.uint8)
    for label in labels:
        if not background:
            label[: side // 2] = 0
            label[side // 2 :] = 1
        for _ in range(4):
            top, left = rng.integers(0, side - 7, 2)
            label[top : top + 7, left : left + 7] = start + rng.choice(
                len(chance), p=chance / chance.sum()
            )
    noise = rng.normal(0, 12, labels.shape)
    grey = np.clip(40 + 18.0 * labels + noise, 0, 255).astype(np.uint8)
    return grey[..., None], labels


def _predict(rng, labels, classes, loss, background):
    """The truth with a part of each class's squares lost, and a few pixels too many."""
    found, rare = FOUND.get(loss, (0.6, 0.3))
    rest = 0
    prediction = np.full_like(labels, rest)
    for index in range(len(labels)):
        for c in range(1 if background else 0, classes):
            kept = rare if c > classes // 2 else found
            if rng.random() < kept + 0.05 * rng.normal():
                mask = labels[index] == c
                if loss == "weighted_ce":  # swollen: recall without precision
                    mask = mask | np.roll(mask, 1, 0) | np.roll(mask, 2, 1) | np.roll(mask, -2, 0)
                prediction[index][mask] = c
    return prediction


def write_records(
    folder,
    *,
    losses=tuple(FOUND),
    models=("unet", "segnet"),
    seeds=(0, 1, 2),
    images=24,
    side=32,
    background=True,
    groups=None,
    steps=60,
    study="quick",
):
    """Write a study's records to `folder` and return it."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(7)
    names = [f"digit {i}" for i in range(10)] if background else [f"Thing{i}" for i in range(6)]
    classes = ["background", *names] if background else names
    dataset = "digits" if background else "street"
    grey, labels = _scenes(rng, images, side, len(classes), background)
    ids = [f"test-{i:03d}" for i in range(images)]
    group = [f"g{i % groups}" if groups else name for i, name in enumerate(ids)]
    start = 1 if background else 0
    fractions = np.bincount(labels.ravel(), minlength=len(classes)) / labels.size
    present = fractions[start:][fractions[start:] > 0]
    constant = float((2 * present / (1 + present)).max() / len(present))
    runs, per_class, per_image, curves, saved = [], [], [], [], {}
    for model in models:
        saved[f"{dataset}/{model}/images"] = grey[:6]
        saved[f"{dataset}/{model}/targets"] = labels[:6]
        saved[f"{dataset}/{model}/ids"] = np.array(ids[:6])
        for loss in losses:
            for seed in seeds:
                predicted = _predict(rng, labels, len(classes), loss, background)
                if seed == seeds[0]:
                    saved[f"{dataset}/{model}/{loss}"] = predicted[:6]
                run_id = f"{model}-{loss}-{seed}"
                key = {
                    "run_id": run_id,
                    "dataset": dataset,
                    "model": model,
                    "loss": loss,
                    "seed": seed,
                }
                of_class = np.arange(len(classes))[:, None, None]
                found, truth = predicted[:, None] == of_class, labels[:, None] == of_class
                kinds = found & truth, found & ~truth, ~found & truth
                counts = np.stack([kind.sum((2, 3)) for kind in kinds], axis=-1)
                rows = pd.MultiIndex.from_product(
                    [ids, range(len(classes))], names=["image_id", "class_index"]
                )
                table = pd.DataFrame(counts.reshape(-1, 3), rows, ["tp", "fp", "fn"]).reset_index()
                table["group"] = np.repeat(group, len(classes))
                per_image.append(table.assign(**key, rule="argmax", pixels=side * side))
                tp, fp, fn = counts.sum(0).T.astype(float)
                one = counts[:, start:].astype(float)
                with np.errstate(all="ignore"):
                    recorded = {
                        "iou": tp / (tp + fp + fn),
                        "dice": 2 * tp / (2 * tp + fp + fn),
                        "precision": np.where((tp + fp == 0) & (fn > 0), 0.0, tp / (tp + fp)),
                        "recall": tp / (tp + fn),
                        "target_fraction": fractions,
                    }
                    image_dice = 2 * one[..., 0] / (2 * one[..., 0] + one[..., 1] + one[..., 2])
                of_run = pd.DataFrame(recorded).assign(class_name=classes, **key, rule="argmax")
                per_class.append(of_run.rename_axis("class_index").reset_index())
                means = {
                    name: float(np.nanmean(values[start:])) for name, values in recorded.items()
                }
                known = [row[~np.isnan(row)] for row in image_dice]
                step = np.arange(1, steps + 1)
                level = {"ce": 2.4, "focal": 2.0}.get(loss, 1.0)
                value = level * (0.3 + 0.7 * np.exp(-step / 20)) + rng.normal(0, 0.05, steps)
                dice = means["dice"]
                at = np.isin(step, [round(steps * (k + 1) / 5) for k in range(5)])
                curves.append(
                    pd.DataFrame(
                        {
                            **key,
                            "step": step,
                            "epoch": step // 20,
                            "loss_value": value,
                            "grad_norm": np.exp(rng.normal(-1 - step / 40, 0.2)),
                            "lr": 3e-3,
                            "val_mean_dice": np.where(at, dice * step / steps, np.nan),
                            "val_mean_iou": np.where(at, 0.7 * dice * step / steps, np.nan),
                        }
                    )
                )
                config = {
                    "dataset": dataset,
                    "dataset_params": {},
                    "model": model,
                    "model_params": {},
                }
                config |= {"loss": loss, "loss_params": {}, "seed": seed}
                config |= {"steps": steps, "batch_size": 16, "lr": 0.003}
                runs.append(
                    key
                    | {
                        "loss_name": loss,
                        "status": "completed",
                        "steps": steps,
                        "wall_s": 10.0,
                        "train_s": 8.0 + rng.random(),
                        "peak_memory_mb": 400.0,
                        "parameters": 122411,
                        "mean_iou": float(np.nanmean(recorded["iou"])),
                        "mean_dice": float(np.nanmean(recorded["dice"])),
                        "foreground_iou": means["iou"],
                        "foreground_dice": dice,
                        "pixel_accuracy": float(tp.sum() / (tp + fn).sum()),
                        "mean_precision": means["precision"],
                        "mean_recall": means["recall"],
                        "mean_dice_per_image": float(np.mean([k.mean() for k in known if len(k)])),
                        "constant_dice": constant,
                        "final_loss": float(value[-1]),
                        "config": json.dumps(config),
                    }
                )
    pd.DataFrame(runs).to_parquet(folder / "runs.parquet", index=False)
    for name, rows in {"per_class": per_class, "per_image": per_image, "curves": curves}.items():
        pd.concat(rows, ignore_index=True).to_parquet(folder / f"{name}.parquet", index=False)
    np.savez_compressed(folder / "predictions.npz", **saved)
    description = {
        "schema": 3,
        "study": study,
        "question": "On small canvases with rare digits, how much does the loss alone change?",
        "datasets": [dataset],
        "models": list(models),
        "losses": [{"label": name, "name": name, "params": {}} for name in losses],
        "seeds": list(seeds),
        "steps": steps,
        "training": {"steps": steps, "batch_size": 16, "lr": 0.003},
        "classes": {dataset: classes},
        "mode": {dataset: "multiclass"},
        "missing_runs": 0,
        "command": f"make book STUDY={study}",
        "provenance": {
            "commit": "0123456789abcdef0123456789abcdef01234567",
            "dirty": False,
            "created_utc": "2025-01-02T03:04:05+00:00",
            "packages": {"python": "3.11.9", "torch": "2.8.0"},
            "hardware": {
                "machine": "x86_64",
                "cpu": "A processor",
                "cores": 2,
                "threads": 1,
                "device": "cpu",
                "gpu": None,
            },
            "train_s": 300.0,
            "wall_s": 360.0,
        },
    }
    (folder / "study.json").write_text(json.dumps(description))
    return folder


@pytest.fixture(scope="session")
def make_records():
    """The writer itself, for tests that want other records."""
    return write_records


@pytest.fixture(scope="session")
def folder(tmp_path_factory):
    """Records of two models, six losses and three seeds."""
    return write_records(tmp_path_factory.mktemp("results") / "quick")


@pytest.fixture(scope="session")
def study(folder):
    """The same, loaded."""
    from lossatlas.report import records

    return records.load(folder, "quick")


@pytest.fixture(scope="session")
def part(study):
    """The first model's part."""
    return study.parts[0]


@pytest.fixture(scope="session")
def scores(part):
    """Its means and differences."""
    from lossatlas.report.scores import Scores

    return Scores(part)


@pytest.fixture(autouse=True)
def _own_defaults():
    """What one test sets of matplotlib's defaults, the next does not see."""
    with matplotlib.rc_context():
        yield
