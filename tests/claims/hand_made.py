"""Records made by hand: places whose Dice is known by loss and decision rule."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd

from lossatlas.report.records import RULES, Part, Records

SEEDS, IMAGES, TRUE = 8, 12, 1000
NOISE = np.random.default_rng(0).normal(0, 0.002, (SEEDS, IMAGES))


def counts(dice):
    """(S, N, 2, 3) counts of images with 1000 foreground pixels each, whose Dice is `dice` plus a little noise."""
    tp = np.round(TRUE * (np.broadcast_to(np.asarray(dice, float), (SEEDS, IMAGES)) + NOISE))
    tp = tp.astype(int)
    wrong = TRUE - tp
    back = np.stack([TRUE + 0 * tp, wrong, wrong], -1)
    return np.stack([back, np.stack([tp, wrong, wrong], -1)], -2)


def place(dataset, scores, model="unet", **columns):
    """A place; `scores` gives the Dice by loss and rule, ``{"ce": {"argmax": 0.6, "tuned": 0.7}}``."""
    by_rule = {
        rule: {loss: counts(of[rule]) for loss, of in scores.items()}
        for rule in RULES
        if all(rule in of for of in scores.values())
    }
    rows = [
        {
            "run_id": f"{dataset}-{model}-{loss}-{seed}",
            "dataset": dataset,
            "model": model,
            "loss": loss,
            "seed": seed,
            "lr": 0.01,
            "commit": "0123456789abcdef",
            "val_foreground_dice_tuned": of.get("tuned", of["argmax"]),
            **{k: v[loss] if isinstance(v, dict) else v for k, v in columns.items()},
        }
        for loss, of in scores.items()
        for seed in range(SEEDS)
    ]
    return Part(
        dataset=dataset,
        model=model,
        losses=list(scores),
        seeds={loss: list(range(SEEDS)) for loss in scores},
        classes=["background", "object"],
        image_ids=[f"i{k}" for k in range(IMAGES)],
        groups=[f"i{k}" for k in range(IMAGES)],
        counts=by_rule["argmax"],
        by_rule=by_rule,
        runs=pd.DataFrame(rows),
        per_class=pd.DataFrame(),
        curves=pd.DataFrame({"run_id": []}),
        styles={},
    )


def records(*parts, folder=Path("nowhere"), **study):
    losses = [{"label": loss, "name": loss} for loss in parts[0].losses]
    described = {
        "study": "hand_made",
        "losses": losses,
        "seeds": list(range(SEEDS)),
        "missing_runs": 0,
        "datasets": list(dict.fromkeys(part.dataset for part in parts)),
        "models": list(dict.fromkeys(part.model for part in parts)),
        **study,
    }
    runs, nothing = pd.concat([part.runs for part in parts], ignore_index=True), pd.DataFrame()
    return Records(folder, described, runs, nothing, nothing, nothing, list(parts))


def level(**scores):
    """Scores of losses that have the same Dice by ½ and tuned, for `place`."""
    return {loss: {"argmax": dice, "tuned": dice} for loss, dice in scores.items()}


CE = {"argmax": 0.60, "tuned": 0.70, "oracle": 0.71, "plug_in": 0.72}
DICE = {"argmax": 0.69, "tuned": 0.695, "oracle": 0.70, "plug_in": 0.70}
