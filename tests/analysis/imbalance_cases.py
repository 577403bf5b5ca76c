"""Synthetic records of a study of imbalance: every loss gets the Dice that a test asks for.

``write_imbalance`` makes counts whose Dice is, up to noise, ``half(loss, fraction)`` by the largest logit and
``tuned(loss, fraction)`` by the other two rules. Images and seeds shift all losses alike, as paired runs do.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import yaml

FRACTIONS = (0.3, 0.1, 0.03, 0.01, 0.001)
LOSSES = {
    "ce": {"name": "ce", "params": {}},
    "weighted_ce": {"name": "weighted_ce", "params": {}},
    "focal": {"name": "focal", "params": {}},
    "focal_inverse": {"name": "focal", "params": {"class_weights": "inverse_frequency"}},
    "dice": {"name": "dice", "params": {}},
    "tversky": {"name": "tversky", "params": {}},
}
OVERLAP = {"dice", "tversky"}
SIDE = 256
STUDY = Path(__file__).parents[2] / "workflow" / "studies" / "imbalance.yaml"
#: Those of the study itself, and one that nobody has a check for.
PREDICTIONS = [
    *yaml.safe_load(STUDY.read_text(encoding="utf-8"))["predictions"],
    {"claim": "99", "text": "The moon is full."},
]
PREDICTIONS = [{**prediction, "claim": str(prediction["claim"])} for prediction in PREDICTIONS]


def label(fraction):
    """A label from which nobody can read the fraction."""
    return "abcdefghij"[FRACTIONS.index(fraction)] if fraction in FRACTIONS else f"f{fraction:g}"


# --- the stories that records can tell


def only_a_threshold(loss, fraction):
    """At ½ the overlap losses are far ahead where the foreground is rare."""
    base = 0.8 - 0.1 * np.log10(0.3 / fraction) / 2.5
    return base if loss in OVERLAP or fraction > 0.02 else base - 0.3


def all_alike(loss, fraction):
    """No loss is ahead; the task gets harder."""
    return 0.8 - 0.1 * np.log10(0.3 / fraction) / 2.5


def overlap_ahead(loss, fraction):
    """The overlap losses are ahead everywhere."""
    return all_alike(loss, fraction) - (0.0 if loss in OVERLAP else 0.2)


def ce_ahead(loss, fraction):
    """Cross-entropy is ahead everywhere."""
    return all_alike(loss, fraction) - (0.0 if loss == "ce" else 0.2)


def counts_of(pixels, dice, volume):
    """Counts of images with `pixels` of foreground, for a Dice and a ratio of predicted to true volume."""
    tp = np.minimum(dice * (1 + volume) / 2, np.minimum(1.0, volume)) * pixels
    tp = np.rint(tp)
    return np.stack([tp, np.rint(volume * pixels) - tp, pixels - tp], axis=-1).clip(0)


def write_imbalance(
    folder,
    *,
    half=only_a_threshold,
    tuned=all_alike,
    losses=LOSSES,
    fractions=FRACTIONS,
    seeds=tuple(range(8)),
    images=12,
    noise=0.002,
    volume=lambda loss, fraction: 1.3 if loss == "weighted_ce" else 1.0,
    ece=lambda loss, fraction: 0.02 if loss in OVERLAP else 0.005,
    share=lambda loss, fraction: 0.5 if loss in OVERLAP else fraction,
    rate_score=lambda loss, fraction, lr: 0.8 if lr <= 0.01 else 0.3,
    missing=(),
    diverged=(),
    predictions=PREDICTIONS,
    study="imbalance",
    theory_version=2,
):
    """Write a study's records to `folder` and return it.

    `half`, `tuned`, `volume`, `ece`, `share` are functions of (loss, fraction), `rate_score` of
    (loss, fraction, rate); `missing` and `diverged` are sets of (loss, fraction, seed).
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(3)
    pixels_all = SIDE * SIDE
    runs, per_class, per_image, curves, tuning = [], [], [], [], []
    seed_shift = dict(zip(seeds, rng.normal(0, 0.02, len(seeds)), strict=True))
    for fraction in fractions:
        dataset = label(fraction)
        pixels = np.rint(fraction * pixels_all * rng.uniform(0.8, 1.2, images))
        image_shift = rng.normal(0, 0.03, images)
        for loss, component in losses.items():
            for seed in seeds:
                own = rng.normal(0, noise, images) + rng.normal(0, noise)
                if (loss, fraction, seed) in missing:
                    continue
                ended = (loss, fraction, seed) in diverged
                run_id = f"{dataset}-{loss}-{seed}"
                key = dict(run_id=run_id, dataset=dataset, model="unet", loss=loss, seed=seed)
                summary = {}
                for rule in ("argmax", "tuned", "theory"):
                    aim = (half if rule == "argmax" else tuned)(loss, fraction)
                    aim = 0.0 if ended else aim
                    dice = np.clip(aim + image_shift + seed_shift[seed] + own, 0.0, 0.98)
                    ratio = volume(loss, fraction) if rule == "argmax" else 1.0
                    foreground = counts_of(pixels, dice, ratio)
                    tp, fp, fn = foreground.T
                    background = np.stack([pixels_all - tp - fp - fn, fn, fp], axis=-1)
                    for index, counts in enumerate((background, foreground)):
                        per_image += [
                            key
                            | dict(rule=rule, image_id=f"test_{i:05d}", group=f"test_{i:05d}")
                            | dict(class_index=index, tp=int(a), fp=int(b), fn=int(c))
                            for i, (a, b, c) in enumerate(counts)
                        ]
                        row = metrics(counts.sum(0))
                        share_of = (counts[:, 0] + counts[:, 2]).sum() / (pixels_all * images)
                        per_class.append(
                            key
                            | dict(rule=rule, class_index=index)
                            | dict(class_name=("background", "digit")[index])
                            | row
                            | dict(target_fraction=share_of)
                        )
                    suffix = "" if rule == "argmax" else f"_{rule}"
                    summary |= {
                        f"foreground_dice{suffix}": row["dice"],
                        f"foreground_iou{suffix}": row["iou"],
                        f"mean_precision{suffix}": row["precision"],
                        f"mean_recall{suffix}": row["recall"],
                        f"volume_ratio{suffix}": row["volume_ratio"],
                    }
                curves += curve(key, summary["foreground_dice"], share(loss, fraction), ended)
                badness = ece(loss, fraction) + rng.normal(0, 1e-4)
                runs.append(
                    key
                    | dict(loss_name=component["name"], steps=40, optimizer="adamw", lr=0.003)
                    | dict(status="diverged at step 3" if ended else "completed")
                    | dict(wall_s=10.0, train_s=8.0, peak_memory_mb=300.0, parameters=7000)
                    | summary
                    | dict(mean_iou=0.7, mean_dice=0.8, pixel_accuracy=0.97)
                    | dict(mean_dice_per_image=summary["foreground_dice"], final_loss=0.2)
                    | dict(constant_dice=2 * fraction / (1 + fraction))
                    | dict(ece=badness, ece_foreground=10 * badness)
                    | dict(nll=3 * badness, brier=2 * badness)
                    | dict(
                        offsets_tuned="[0.5]", offsets_theory="[0.4]", theory_version=theory_version
                    )
                    | dict(val_foreground_dice=half(loss, fraction))
                    | dict(val_foreground_dice_tuned=tuned(loss, fraction))
                    | dict(config=json.dumps({"loss": loss, "seed": seed, "lr": 0.003}))
                )
            tuning += rates(dataset, loss, fraction, rate_score)
    pd.DataFrame(runs).to_parquet(folder / "runs.parquet", index=False)
    pd.DataFrame(per_class).to_parquet(folder / "per_class.parquet", index=False)
    pd.DataFrame(per_image).to_parquet(folder / "per_image.parquet", index=False)
    pd.DataFrame(curves).to_parquet(folder / "curves.parquet", index=False)
    pd.DataFrame(tuning).to_parquet(folder / "tuning.parquet", index=False)
    np.savez_compressed(folder / "predictions.npz")
    description = {
        "schema": 2,
        "study": study,
        "question": "Which loss wins as the foreground falls?",
        "datasets": [label(fraction) for fraction in fractions],
        "dataset_params": {label(f): {"task": "binary", "foreground": f} for f in fractions},
        "models": ["unet"],
        "losses": [{"label": name, **component} for name, component in losses.items()],
        "seeds": list(seeds),
        "steps": 40,
        "training": {"steps": 40, "batch_size": 4, "lr": 0.003, "optimizer": "adamw"},
        "tuning": {
            "lr": [0.001, 0.003, 0.01, 0.03],
            "optimizer": ["adamw"],
            "seeds": [1000, 1001],
            "rule": "largest mean foreground Dice on the validation split",
            "missing_runs": 0,
            "choices": [
                {"dataset": label(f), "model": "unet", "loss": loss, "optimizer": "adamw"}
                | {"lr": 0.003, "val_foreground_dice_tuned": 0.8, "at_edge": False}
                for f in fractions
                for loss in losses
            ],
        },
        "predictions": list(predictions),
        "smallest_effect": 0.01,
        "classes": {label(f): ["background", "digit"] for f in fractions},
        "mode": {label(f): "binary" for f in fractions},
        "missing_runs": len(missing),
        "command": f"make book STUDY={study}",
        "provenance": {
            "commit": "0123456789abcdef0123456789abcdef01234567",
            "dirty": False,
            "created_utc": "2025-01-02T03:04:05+00:00",
            "packages": {"python": "3.11.9", "torch": "2.8.0"},
            "hardware": {"cpu": "A processor", "cores": 2, "threads": 1, "device": "cpu"},
        },
    }
    (folder / "study.json").write_text(json.dumps(description))
    return folder


def metrics(counts):
    """Pooled metrics of counts (3,)."""
    tp, fp, fn = counts
    return {
        "iou": tp / (tp + fp + fn),
        "dice": 2 * tp / (2 * tp + fp + fn),
        "precision": tp / (tp + fp) if tp + fp else 0.0,
        "recall": tp / (tp + fn),
        "volume_ratio": (tp + fp) / (tp + fn),
    }


def curve(key, dice, share, ended):
    """Ten measured steps of a run, rows; one where it diverged."""
    return [
        key
        | dict(step=step, epoch=0, loss_value=np.exp(-step / 30), grad_norm=np.exp(-step / 20))
        | dict(lr=0.003, foreground_share=share if step % 8 == 1 else np.nan)
        | dict(val_mean_dice=dice * step / 40 if step in (9, 21, 29, 37) else np.nan)
        | dict(val_mean_iou=0.7 * dice * step / 40 if step in (9, 21, 29, 37) else np.nan)
        for step in range(1, 2 if ended else 41, 4)
    ]


def rates(dataset, loss, fraction, rate_score):
    """The tuning runs: four rates, two seeds."""
    return [
        dict(dataset=dataset, model="unet", loss=loss, optimizer="adamw", lr=lr, seed=seed)
        | dict(run_id=f"{dataset}-{loss}-{lr}-{seed}", steps=40)
        | dict(status="completed", chosen=lr == 0.003)
        | dict(val_foreground_dice=rate_score(loss, fraction, lr) - 0.05)
        | dict(val_foreground_dice_tuned=rate_score(loss, fraction, lr))
        for lr in (0.001, 0.003, 0.01, 0.03)
        for seed in (1000, 1001)
    ]
