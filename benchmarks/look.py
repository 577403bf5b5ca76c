"""Logits of a few test images from finished runs of the study `begin`, for the page that moves the threshold.

    python benchmarks/look.py --runs runs --out results/look/begin.npz

needs the run folders (`lossatlas run begin` trains them) and trains nothing. The images are chosen by rule, over
the whole test split, each loss at its threshold of validation: the two on which the losses disagree most (largest minus
smallest Dice), the two whose mean Dice is the median, the two whose mean Dice is the lowest.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from lossatlas.experiments import RunConfig
from lossatlas.experiments.components import as_configured, build_model_for, load_datasets
from lossatlas.experiments.record import read_run

#: Data set and last layer of each group of pictures.
GROUPS = (("pi3", "relu4_zero"), ("pi3", "none4_prior"), ("pi01", "none4_prior"))
LOSSES = ("ce", "focal", "dice", "tversky", "lovasz_softmax")
#: A logit z is kept as round(10 z) + 128 in one byte: between -12.8 and 12.7, in steps of a tenth.
PER_UNIT, ZERO = 10, 128


def main() -> None:
    """Write the file."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--runs", type=Path, default=Path("runs"), help="folder of the run folders")
    parser.add_argument("--records", type=Path, default=Path("results/begin"))
    parser.add_argument(
        "--seed", type=int, help="default: the first in which a threshold rescues cross-entropy"
    )
    parser.add_argument("--out", type=Path, default=Path("results/look/begin.npz"))
    given = parser.parse_args()
    torch.set_num_threads(1)
    records = pd.read_parquet(given.records / "runs.parquet")
    seed = rescued_seed(records) if given.seed is None else given.seed
    arrays: dict[str, np.ndarray] = {}
    about: dict[str, Any] = {"per_unit": PER_UNIT, "zero": ZERO, "groups": []}
    for place, model in GROUPS:
        name, rows = (
            f"{place}/{model}",
            records[(records.dataset == place) & (records.model == model)],
        )
        own = seed if (rows.seed == seed).any() else int(rows.seed.min())
        rows = rows[rows.seed == own]
        runs = {row.loss: row for row in rows.itertuples() if row.loss in LOSSES}
        about["groups"].append({"name": name, "losses": list(runs), "seed": own})
        arrays |= {
            f"{name}/{key}": value
            for key, value in group(runs, given.runs, about["groups"][-1]).items()
        }
    np.savez_compressed(given.out, about=json.dumps(about), **arrays)
    print(f"{given.out}: seed {seed}, {given.out.stat().st_size / 1024:.0f} KiB")


def rescued_seed(records: pd.DataFrame) -> int:
    """The first seed in which cross-entropy finds nothing at ½ behind the ReLU, and its own threshold does."""
    place, model = GROUPS[0]
    of = records[(records.dataset == place) & (records.model == model) & (records.loss == "ce")]
    found = of[(of.foreground_dice == 0) & (of.foreground_dice_tuned > 0.5)]
    if found.empty:
        raise SystemExit("expected a seed that a threshold rescues, got none: name one with --seed")
    return int(found.seed.min())


def group(runs: dict[str, Any], folder: Path, about: dict[str, Any]) -> dict[str, np.ndarray]:
    """Images (6, H, W), targets, and each loss's logits of one group, in bytes; `about` learns ids and thresholds."""
    logits: dict[str, np.ndarray] = {}
    about["runs"], about["tuned"] = {}, {}
    for loss, row in runs.items():
        record = read_run(folder / row.run_id)
        config = RunConfig.model_validate(record["config"])
        test = as_configured(config, load_datasets(config, ("train", "test")))
        images, targets, z = predicted(config, test, folder / row.run_id)
        logits[loss] = z
        about["runs"][loss] = row.run_id
        about["tuned"][loss] = float(np.ravel(json.loads(row.offsets_tuned))[-1])
        check(z, targets, float(row.foreground_dice), row.run_id)
    dice = np.stack(
        [dice_per_image(z + about["tuned"][loss] > 0, targets) for loss, z in logits.items()]
    )
    places, about["rules"] = chosen(dice)
    about["ids"] = [str(test["test"].ids[k]) for k in places]
    return {"images": images[places], "targets": targets[places].astype(np.uint8)} | {
        loss: np.clip(np.rint(PER_UNIT * z[places]) + ZERO, 0, 255).astype(np.uint8)
        for loss, z in logits.items()
    }


def predicted(config: RunConfig, sets: dict[str, Any], folder: Path) -> tuple[np.ndarray, ...]:
    """Images (N, H, W) in bytes, targets and logits of the test split by a run's last network."""
    model = build_model_for(config, sets["train"])
    model.load_state_dict(
        torch.load(folder / "last.ckpt", map_location="cpu", weights_only=True)["model"]
    )
    model.eval()
    images, targets = sets["test"].batch(range(len(sets["test"])))
    with torch.no_grad():
        z = torch.cat([model(batch) for batch in images.split(16)])[:, 0].numpy()
    return sets["test"].images[..., 0], targets.numpy() == 1, z


def check(z: np.ndarray, targets: np.ndarray, recorded: float, run_id: str) -> None:
    """Stop unless the network gives the Dice that its record has."""
    hit = ((z > 0) & targets).sum()
    found = 2 * hit / max((z > 0).sum() + targets.sum(), 1)
    if abs(found - recorded) > 1e-3:
        raise SystemExit(
            f"run {run_id}: expected the record's Dice {recorded:.4f}, got {found:.4f}: evaluate it first"
        )


def dice_per_image(masks: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """(N,) Dice; NaN where an image has no foreground."""
    hit, size = (masks & targets).sum((1, 2)), masks.sum((1, 2)) + targets.sum((1, 2))
    return np.where(targets.any((1, 2)), 2 * hit / np.maximum(size, 1), np.nan)


def chosen(dice: np.ndarray) -> tuple[list[int], list[str]]:
    """The places of six images and the rule of each, from (losses, images) of Dice; no image twice."""
    mean, spread = dice.mean(0), dice.max(0) - dice.min(0)
    orders = {
        "most disagreement": np.argsort(-spread, kind="stable"),
        "median": np.argsort(abs(mean - np.nanmedian(mean)), kind="stable"),
        "worst": np.argsort(mean, kind="stable"),
    }
    places: list[int] = []
    rules: list[str] = []
    for rule, order in orders.items():
        valid = [int(k) for k in order if not np.isnan(mean[k]) and int(k) not in places]
        places += valid[:2]
        rules += [rule, rule]
    return places, rules


if __name__ == "__main__":
    main()
