"""What IoU and Dice do not see, and claims about networks and comparisons that need no training."""

from __future__ import annotations

import numpy as np
import pandas as pd
from scipy.ndimage import binary_erosion, distance_transform_edt
from scipy.stats import kendalltau

from lossatlas.theory.check import Array
from lossatlas.theory.descent import Adam
from lossatlas.theory.verdict import Verdict, decide, settles

#: DSC of 14 losses on four tasks (liver, liver tumour, pancreas, multi-organ), as published in Ma et
#: al. 2021, "Loss Odyssey in Medical Image Segmentation".
LOSS_ODYSSEY = {
    "CE": (0.9672, 0.5641, 0.8221, 0.8483),
    "WCE": (0.8284, 0.2697, 0.4744, 0.6904),
    "TopK": (0.6924, 0.5995, 0.8406, 0.8527),
    "Focal": (0.9587, 0.4675, 0.8016, 0.8173),
    "Dice": (0.9547, 0.6187, 0.8362, 0.8449),
    "GDice": (0.9474, 0.5486, 0.8285, 0.0132),
    "IoU": (0.9568, 0.6079, 0.8353, 0.8439),
    "Tversky": (0.9390, 0.6120, 0.8260, 0.8371),
    "Lovász": (0.9294, 0.6083, 0.8309, 0.6568),
    "DiceCE": (0.9624, 0.6009, 0.8249, 0.8512),
    "DiceFocal": (0.9566, 0.5951, 0.8416, 0.8554),
    "DiceTopK": (0.9690, 0.6125, 0.8375, 0.8512),
    "DiceBD": (0.9629, 0.6262, 0.8397, 0.8450),
    "DiceHD": (0.9556, 0.6291, 0.8408, 0.8531),
}


def surface(mask: Array) -> Array:
    """The pixels of a mask that touch its outside."""
    return mask & ~binary_erosion(mask, border_value=0)


def surface_distances(a: Array, b: Array) -> Array:
    """Distances (pixels) from each surface pixel of either mask to the other's surface."""
    sa, sb = surface(a), surface(b)
    return np.concatenate([distance_transform_edt(~sb)[sa], distance_transform_edt(~sa)[sb]])


def overlap_and_distance(a: Array, b: Array) -> dict[str, float]:
    """IoU, Dice, Hausdorff distance, its 95th percentile and the mean surface distance, in pixels."""
    hit = (a & b).sum()
    gaps = surface_distances(a, b)
    return {
        "IoU": float(hit / (a | b).sum()),
        "Dice": float(2 * hit / (a.sum() + b.sum())),
        "Hausdorff": float(gaps.max()),
        "HD95": float(np.percentile(gaps, 95)),
        "mean distance": float(gaps.mean()),
    }


def blind_spots(size: int = 64) -> pd.DataFrame:
    """One far pixel; a shift by one pixel of a fat and of a thin shape."""
    empty = np.zeros((size, size), dtype=bool)
    square, line = empty.copy(), empty.copy()
    square[10:30, 10:30] = True
    line[10:50, 20] = True
    far = square.copy()
    far[60, 60] = True
    cases = [
        ("a square, and one far pixel", square, far),
        ("a square shifted by one pixel", square, np.roll(square, 1, axis=1)),
        ("a thin line shifted by one pixel", line, np.roll(line, 1, axis=1)),
    ]
    return pd.DataFrame([{"case": name, **overlap_and_distance(a, b)} for name, a, b in cases])


def calibration_gap(fraction: float = 0.01, pixels: int = 200_000, seed: int = 0) -> pd.DataFrame:
    """Calibration error over all pixels and over the foreground's predictions, overconfident network.

    Logits are the true ones times 3. ECE with 15 equal bins; "foreground" are pixels with p > 0.1.
    """
    draw = np.random.default_rng(seed)
    true_logit = draw.normal(np.log(fraction / (1 - fraction)) - 2, 2.5, pixels)
    truth = draw.random(pixels) < 1 / (1 + np.exp(-true_logit))
    said = 1 / (1 + np.exp(-np.clip(3 * true_logit, -50, 50)))

    def ece(probs: Array, labels: Array) -> float:
        bins = np.minimum((probs * 15).astype(int), 14)
        return float(
            sum(
                abs(probs[bins == b].mean() - labels[bins == b].mean()) * (bins == b).mean()
                for b in range(15)
                if (bins == b).any()
            )
        )

    kept = said > 0.1
    return pd.DataFrame(
        [
            {"pixels": "all", "ECE": ece(said, truth)},
            {"pixels": "p > 0.1", "ECE": ece(said[kept], truth[kept])},
        ]
    )


def receptive_field(layers: int, kernel: int = 3) -> int:
    """Side of the square (pixels) that stride-1 convolutions see."""
    return 1 + layers * (kernel - 1)


def task_correlations() -> pd.DataFrame:
    """Kendall's τ between the tasks' rankings of 14 losses, and each task's best loss."""
    tasks = ("liver", "liver tumour", "pancreas", "multi-organ")
    table = pd.DataFrame.from_dict(LOSS_ODYSSEY, orient="index", columns=list(tasks))
    rows = []
    for first, task in enumerate(tasks):
        row: dict[str, object] = {"task": task, "best loss": str(table[task].idxmax())}
        for second, other in enumerate(tasks):
            tau = kendalltau(table[task], table[other]).statistic
            row[other] = 1.0 if first == second else float(tau)
        rows.append(row)
    return pd.DataFrame(rows)


@settles(10)
def no_winner_a_priori() -> Verdict:
    """No loss of a published comparison is best on every task."""
    table = task_correlations()
    tasks = list(table["task"])
    taus = [table[b][i] for i, _ in enumerate(tasks) for j, b in enumerate(tasks) if j > i]
    winners = sorted(set(table["best loss"]))
    return decide(
        len(winners) > 1,
        f"Published scores of 14 losses on four tasks: the best are {', '.join(winners)}, one or another "
        f"by task. Kendall's τ between the tasks' rankings lies between {min(taus):.2f} and "
        f"{max(taus):.2f}.",
    )


@settles(11)
def overlap_covers_some_aspects() -> Verdict:
    """A far pixel, and a shift of thin and of fat shapes."""
    table = blind_spots().set_index("case")
    far, fat, thin = (table.iloc[i] for i in range(3))
    holds = far["IoU"] > 0.99 and far["Hausdorff"] > 20 and thin["IoU"] == 0 and fat["IoU"] > 0.9
    return decide(
        bool(holds),
        f"One far pixel leaves an IoU of {far['IoU']:.3f} and a Hausdorff distance of "
        f"{far['Hausdorff']:.0f} pixels. A shift by one pixel leaves an IoU of {fat['IoU']:.2f} to a "
        f"square and of {thin['IoU']:.0f} to a thin line; the Hausdorff distance is 1 for both.",
    )


@settles(37)
def encoder_decoder_is_an_autoencoder() -> Verdict:
    """An autoencoder returns its input; a segmenter returns class scores, learned by another loss."""
    import torch

    from lossatlas import models

    model = models.build("segnet_basic", in_channels=3, out_channels=11, width=4)
    scores = model(torch.zeros(1, 3, 32, 32))
    same = tuple(scores.shape) == (1, 3, 32, 32)
    return decide(
        same,
        f"SegNet-Basic takes 3 channels and returns {scores.shape[1]}, one score a class: a mean "
        "squared error to the input is not even defined, and what is compared is a label it never "
        "sees. The shape of encoder and decoder is shared; the target and the loss are not.",
        "Shared architecture, other task.",
    )


@settles(38)
def cnns_are_not_autoencoders() -> Verdict:
    """A convolutional network trained to return its input is one."""
    import torch

    from lossatlas import models

    torch.manual_seed(0)
    model = models.build("segnet_basic", in_channels=1, out_channels=1, width=4)
    images = torch.rand(4, 1, 16, 16).round()
    search = Adam(model.parameters(), lr=0.01)
    errors = []
    for _ in range(25):
        error = ((model(images) - images) ** 2).mean()
        search.step(error)
        errors.append(error.item())
    return decide(
        errors[-1] >= errors[0] / 2,
        "The same convolutional network, with one channel in and out and its input as target, lowers "
        f"the mean squared error from {errors[0]:.3f} to {errors[-1]:.3f} in 25 steps: a CNN can be an "
        "autoencoder. The words name different things, an operation and a task.",
        "Two taxonomies: layers, and what is learned.",
    )
