"""Logits of a few test images from finished runs, for the page that moves the threshold.

    python benchmarks/look.py --study begin --runs runs
    python benchmarks/look.py --study thresholds --runs runs

needs the run folders (`lossatlas run begin` trains them) and trains nothing. The images are chosen by rule, over
the whole test split, each loss at its threshold of validation: the two on which the losses disagree most (largest
minus smallest Dice), the two whose mean Dice is the median, the two whose mean Dice is the lowest; of real images one
each. Of the drawn digits the file holds images and labels too. Of real images it holds neither, for they are not ours
to pass on: only logits, in the window of each image that has the most foreground, and where that window lies.
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
from lossatlas.report.look import SCALE, VOID, ZERO, in_bytes, truth, windows

#: Data set and last layer of each group of pictures from drawn digits.
DRAWN = (("pi3", "relu4_zero"), ("pi3", "none4_prior"), ("pi01", "none4_prior"))
#: Losses whose logits are kept.
LOSSES = {
    "begin": ("ce", "focal", "dice", "tversky", "lovasz_softmax"),
    "thresholds": ("ce", "dice"),
}
#: Images by each of the three rules, and the side of a window of a real image.
EACH = {"begin": 2, "thresholds": 1}
SIDE = 128


def main() -> None:
    """Write the file."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--study", choices=list(LOSSES), default="begin")
    parser.add_argument("--runs", type=Path, default=Path("runs"), help="folder of the run folders")
    parser.add_argument("--results", type=Path, default=Path("results"), help="of the records")
    parser.add_argument(
        "--seed", type=int, help="default: the first in which a threshold rescues cross-entropy"
    )
    given = parser.parse_args()
    torch.set_num_threads(1)
    records = pd.read_parquet(given.results / given.study / "runs.parquet")
    drawn = given.study == "begin"
    wanted = DRAWN if drawn else [(place, "unet") for place in records.dataset.unique()]
    seed = given.seed if given.seed is not None else rescued_seed(records) if drawn else 0
    arrays: dict[str, np.ndarray] = {}
    about: dict[str, Any] = {"scale": SCALE, "zero": ZERO, "groups": []}
    for place, model in wanted:
        name = f"{place}/{model}"
        rows = records[(records.dataset == place) & (records.model == model)]
        own = seed if (rows.seed == seed).any() else int(rows.seed.min())
        runs = {
            row.loss: row
            for row in rows[rows.seed == own].itertuples()
            if row.loss in LOSSES[given.study]
        }
        if not all(has_network(given.runs, row.run_id) for row in runs.values()):
            print(f"{name}: left out, the run folders of seed {own} are not here")
            continue
        about["groups"].append({"name": name, "losses": list(runs), "seed": own})
        side = None if drawn else SIDE
        found = group(runs, given.runs, about["groups"][-1], EACH[given.study], side)
        arrays |= {f"{name}/{key}": value for key, value in found.items()}
    out = given.results / "look" / f"{given.study}.npz"
    np.savez_compressed(out, about=json.dumps(about), **arrays)
    print(f"{out}: seed {seed}, {out.stat().st_size / 1024:.0f} KiB")


def has_network(folder: Path, run_id: str) -> bool:
    """Whether the last network of a run is here."""
    return (folder / run_id / "last.ckpt").is_file()


def rescued_seed(records: pd.DataFrame) -> int:
    """The first seed in which cross-entropy finds nothing at ½ behind the ReLU, and its own threshold does."""
    place, model = DRAWN[0]
    of = records[(records.dataset == place) & (records.model == model) & (records.loss == "ce")]
    found = of[(of.foreground_dice == 0) & (of.foreground_dice_tuned > 0.5)]
    if found.empty:
        raise SystemExit("expected a seed that a threshold rescues, got none: name one with --seed")
    return int(found.seed.min())


def group(
    runs: dict[str, Any], folder: Path, about: dict[str, Any], each: int, side: int | None
) -> dict[str, np.ndarray]:
    """Logits of the chosen images in bytes, a loss a key; without `side` also the images and their targets.

    `about` learns ids, thresholds and runs; with `side` also the data set and the corner of each image's window.
    """
    logits: dict[str, np.ndarray] = {}
    about["runs"], about["tuned"] = {}, {}
    for loss, row in runs.items():
        config = RunConfig.model_validate(read_run(folder / row.run_id)["config"])
        sets = as_configured(config, load_datasets(config, ("train", "test")))
        images, targets, z = predicted(config, sets, folder / row.run_id)
        logits[loss] = z
        about["runs"][loss] = row.run_id
        about["tuned"][loss] = float(np.ravel(json.loads(row.offsets_tuned))[-1])
        check(z, targets, float(row.foreground_dice), row.run_id)
    dice = np.stack(
        [dice_per_image(z + about["tuned"][loss] > 0, targets) for loss, z in logits.items()]
    )
    places, about["rules"] = chosen(dice, each)
    about["ids"] = [str(sets["test"].ids[k]) for k in places]
    kept = {loss: in_bytes(z[places]) for loss, z in logits.items()}
    if side is None:
        return {"images": images[places], "targets": targets[places]} | kept
    corners = [fullest_window(targets[k] == 1, side) for k in places]
    about |= {
        "dataset": config.dataset,
        "params": config.dataset_params,
        "places": places,
        "corners": corners,
        "side": side,
    }
    return {loss: windows(z, corners, side) for loss, z in kept.items()}


def fullest_window(target: np.ndarray, side: int, step: int = 16) -> tuple[int, int]:
    """The upper left corner of the window with the most foreground, on a grid of `step` pixels; the first of equals."""
    height, width = target.shape
    if min(height, width) < side:
        raise SystemExit(
            f"expected images of at least {side} pixels a side, got {height} × {width}"
        )
    sums = np.pad(target.astype(np.int64).cumsum(0).cumsum(1), ((1, 0), (1, 0)))
    found = {
        (y, x): int(sums[y + side, x + side] - sums[y, x + side] - sums[y + side, x] + sums[y, x])
        for y in range(0, height - side + 1, step)
        for x in range(0, width - side + 1, step)
    }
    return max(found, key=lambda corner: found[corner])


def predicted(config: RunConfig, sets: dict[str, Any], folder: Path) -> tuple[np.ndarray, ...]:
    """Images (N, H, W) in bytes, targets (0, 1, or `VOID`) and logits of the test split by a run's last network."""
    model = build_model_for(config, sets["train"])
    model.load_state_dict(
        torch.load(folder / "last.ckpt", map_location="cpu", weights_only=True)["model"]
    )
    model.eval()
    test, z = sets["test"], []
    with torch.no_grad():
        for start in range(0, len(test), 4):
            images, _ = test.batch(range(start, min(start + 4, len(test))))
            z.append(model(images)[:, 0].numpy())
    return test.images[..., 0], truth(test.labels, test.ignore_index), np.concatenate(z)


def check(z: np.ndarray, targets: np.ndarray, recorded: float, run_id: str) -> None:
    """Stop unless the network gives the Dice that its record has."""
    masks, true = (z > 0) & (targets != VOID), targets == 1
    found = 2 * (masks & true).sum() / max(masks.sum() + true.sum(), 1)
    if abs(found - recorded) > 1e-3:
        raise SystemExit(
            f"run {run_id}: expected the record's Dice {recorded:.4f}, got {found:.4f}: evaluate it first"
        )


def dice_per_image(masks: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """(N,) Dice; NaN where an image has no foreground."""
    masks, true = masks & (targets != VOID), targets == 1
    hit, size = (masks & true).sum((1, 2)), masks.sum((1, 2)) + true.sum((1, 2))
    return np.where(true.any((1, 2)), 2 * hit / np.maximum(size, 1), np.nan)


def chosen(dice: np.ndarray, each: int = 2) -> tuple[list[int], list[str]]:
    """The places of `each` images by each rule, from (losses, images) of Dice; no image twice."""
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
        places += valid[:each]
        rules += [rule] * len(valid[:each])
    return places, rules


if __name__ == "__main__":
    main()
