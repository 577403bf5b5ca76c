"""What IoU and Dice do not see, and claims about networks and comparisons that need no training."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import torch
from matplotlib.figure import Figure

from lossatlas import metrics, models
from lossatlas.report.published import LOSS_ODYSSEY, ODYSSEY_TASKS
from lossatlas.theory.check import Array
from lossatlas.theory.descent import Adam
from lossatlas.theory.verdict import Verdict, decide, notes, settles

#: Tolerance of the surface Dice, and band of the boundary IoU, on this page, in pixels.
TOLERANCE, BAND = 1.0, 2.0

#: What is drawn of a score over the thickness: its name, colour, line. No loss has these colours.
_LINES = {
    "IoU": ("#332288", "-"),
    "boundary IoU": ("#882255", "--"),
    "NSD": ("#117733", (0, (1, 1.2))),
    "Dice": ("#666666", (0, (5, 1.4, 1, 1.4))),
}


def overlap_and_distance(pred: Array, truth: Array) -> dict[str, float]:
    """Every score and distance of one pair of masks, in pixels, as :mod:`lossatlas.metrics` has them."""
    counts = metrics.confusion_per_image(pred[None].astype(int), truth[None].astype(int), 2)[0, 1]
    return {
        "IoU": float(metrics.iou_from_counts(counts)),
        "Dice": float(metrics.dice_from_counts(counts)),
        "boundary IoU": metrics.boundary_iou(pred, truth, distance=BAND),
        "NSD": metrics.normalized_surface_dice(pred, truth, tolerance=TOLERANCE),
        "Hausdorff": metrics.hausdorff_distance(pred, truth),
        "HD95": metrics.hausdorff_distance(pred, truth, percentile=95),
        "ASSD": metrics.average_surface_distance(pred, truth),
    }


def drawn_cases(size: int = 64) -> dict[str, tuple[Array, Array]]:
    """Prediction and truth: one far pixel; a shift by one pixel of a fat and of a thin shape."""
    empty = np.zeros((size, size), dtype=bool)
    square, line = empty.copy(), empty.copy()
    square[10:30, 10:30] = True
    line[10:50, 20] = True
    far = square.copy()
    far[60, 60] = True
    return {
        "a square, and one far pixel": (far, square),
        "a square shifted by one pixel": (np.roll(square, 1, axis=1), square),
        "a thin line shifted by one pixel": (np.roll(line, 1, axis=1), line),
    }


def blind_spots(size: int = 64) -> pd.DataFrame:
    """Every score of the drawn cases, one row a case."""
    cases = drawn_cases(size)
    return pd.DataFrame([{"case": name, **overlap_and_distance(*cases[name])} for name in cases])


def scores_by_width(widths: Sequence[int], shift: int = 1) -> pd.DataFrame:
    """Scores of a shifted bar, one row a thickness w, with the closed form of its IoU, (w − s)/(w + s).

    Measured on the bar's cross-section, a line of pixels: so long a bar has no ends.
    """
    rows = []
    for width in widths:
        truth = np.zeros(width + shift + 8, dtype=bool)
        truth[4 : 4 + width] = True
        scores = overlap_and_distance(np.roll(truth, shift), truth)
        closed = max(width - shift, 0) / (width + shift)
        rows.append({"thickness": width, **scores, "(w − s)/(w + s)": closed})
    return pd.DataFrame(rows)


def shift_figure(thickest: int = 32, size: int = 64) -> Figure:
    """The drawn cases, and under them the scores of a bar shifted by one pixel against its thickness."""
    ticks = [2**k for k in range(thickest.bit_length())]
    figure = plt.figure(figsize=(5.0, 4.9), layout="constrained")
    above, below = figure.subfigures(2, 1, height_ratios=(1, 1.75))
    titles = ("a far pixel", "fat, shifted by 1", "thin, shifted by 1")
    panels = above.subplots(1, 3)
    for panel, title, (pred, truth) in zip(panels, titles, drawn_cases(size).values(), strict=True):
        # white: neither, grey: both, dark: truth alone, red: prediction alone
        kind = np.where(truth & pred, 1, np.where(truth, 2, np.where(pred, 3, 0)))
        palette = np.array([[255, 255, 255], [190, 190, 190], [51, 34, 136], [204, 51, 17]])
        panel.imshow(palette[kind], interpolation="nearest")
        if title == titles[0]:  # one pixel is easily overlooked
            y, x = np.argwhere(pred & ~truth)[0]
            panel.plot(x, y, "o", ms=11, mfc="none", mec="#666666")
        panel.set(xticks=[], yticks=[])
        panel.set_title(title, fontsize=9.5)
        panel.spines[:].set_visible(True)
    table, axes = scores_by_width(range(1, thickest + 1)), below.subplots()
    for name, (colour, line) in _LINES.items():
        look = {"color": colour, "linestyle": line, "lw": 2, "marker": "."}
        axes.plot(table["thickness"], table[name], label=name, **look)
    axes.set_xscale("log", base=2, subs=[])
    axes.set_xticks(ticks, [str(tick) for tick in ticks])
    axes.set(xlabel="thickness of a bar shifted by one pixel", ylabel="score", ylim=(-0.03, 1.05))
    axes.grid(True, alpha=0.3)
    below.legend(loc="outside lower center", ncols=2)
    return figure


def missed_specks(size: int = 64, specks: int = 5) -> tuple[float, pd.DataFrame]:
    """A large object found and every small one missed: the Dice, and the recall of objects by size."""
    truth = np.zeros((1, size, size), dtype=int)
    truth[0, 8:32, 8:32] = 1
    found = truth.copy()
    for k in range(specks):
        truth[0, 44:46, 6 + 10 * k : 8 + 10 * k] = 1
    recall = metrics.ObjectRecall(2)
    recall.update(found, truth)
    table = pd.DataFrame(recall.rows()).query("objects > 0")
    dice = metrics.dice_from_counts(metrics.confusion_per_image(found, truth, 2)[0, 1])
    named = {"stratum": "size (pixels)"}
    return float(dice), table.drop(columns="smallest").rename(columns=named)


def rank_reversal() -> pd.DataFrame:
    """Two networks on two images of 100 pixels: the mean IoU prefers one, the mean Dice the other."""
    # pixels that truth and prediction share, of the 100 that either has
    shared = {"A": (20, 90), "B": (50, 58)}
    rows = []
    for network, numbers in shared.items():
        truth = np.ones((2, 100), dtype=int)
        pred = np.stack([np.arange(100) < number for number in numbers]).astype(int)
        counts = metrics.confusion_per_image(pred, truth, 2)[:, 1]
        iou, dice = metrics.iou_from_counts(counts), metrics.dice_from_counts(counts)
        shown = f"{iou[0]:.2f}, {iou[1]:.2f}", f"{dice[0]:.3f}, {dice[1]:.3f}"
        rows.append((network, *shown, float(iou.mean()), float(dice.mean())))
    columns = ["network", "IoU", "Dice", "mean IoU", "mean Dice"]
    return pd.DataFrame(rows, columns=columns)


def _drawn_pixels(fraction: float, pixels: int, seed: int) -> tuple[Array, Array]:
    """Log-odds of a rare foreground, and labels drawn from exactly these odds."""
    draw = np.random.default_rng(seed)
    odds = draw.normal(np.log(fraction / (1 - fraction)) - 2, 2.5, pixels)
    return odds, (draw.random(pixels) < 1 / (1 + np.exp(-odds))).astype(int)


def _calibration(logits: Array, labels: Array) -> dict[str, float]:
    found = metrics.Calibration(channels=1)
    found.update(torch.from_numpy(logits)[None, None], torch.from_numpy(labels)[None])
    return found.compute()


def calibration_gap(fraction: float = 0.01, pixels: int = 200_000, seed: int = 0) -> pd.DataFrame:
    """Calibration of a network that knows the true odds, of one too sure, and of one with class weights.

    "Three times too sure" multiplies the log-odds by 3. "Weighted" adds ln((1 − π)/π), what
    inverse-frequency weights do to cross-entropy's minimiser; π is the drawn foreground's fraction.
    """
    odds, labels = _drawn_pixels(fraction, pixels, seed)
    share = labels.mean()
    networks: dict[str, Callable[[Array], Array]] = {
        "true odds": lambda z: z,
        "three times too sure": lambda z: 3 * z,
        "inverse-frequency weights": lambda z: z + np.log((1 - share) / share),
    }
    names = {"ece": "ECE", "ece_foreground": "ECE, foreground", "nll": "NLL", "brier": "Brier"}
    rows = {network: _calibration(f(odds), labels) for network, f in networks.items()}
    table = pd.DataFrame.from_dict(rows, orient="index")[[*names]].rename(columns=names)
    return table.rename_axis("network").reset_index()


def choice_of_pixels(fraction: float = 0.01, pixels: int = 200_000, seed: int = 0) -> pd.DataFrame:
    """ECE of true probabilities, by which pixels it is taken over: it should be 0."""
    odds, labels = _drawn_pixels(fraction, pixels, seed)
    union = (labels == 1) | (odds > 0)
    whole = _calibration(odds, labels)
    found = {
        "all": whole["ece"],
        "p > 0.01": whole["ece_foreground"],
        "truth or prediction is foreground": _calibration(odds[union], labels[union])["ece"],
    }
    return pd.DataFrame({"pixels": list(found), "ECE of true odds": list(found.values())})


def receptive_field(layers: int, kernel: int = 3) -> int:
    """Side of the square (pixels) that stride-1 convolutions see."""
    return 1 + layers * (kernel - 1)


def task_correlations() -> pd.DataFrame:
    """Kendall's τ between the tasks' rankings of 14 losses, and each task's best loss."""
    table = pd.DataFrame.from_dict(LOSS_ODYSSEY, orient="index", columns=list(ODYSSEY_TASKS))
    taus = table.corr("kendall").rename_axis("task").reset_index()
    taus.insert(1, "best loss", table.idxmax().to_list())
    return taus


@notes(10)
def winners_of_a_published_table() -> str:
    """Which losses are best on the tasks of a published comparison, and what that would say."""
    table = task_correlations()
    tasks = list(table["task"])
    taus = table[tasks].to_numpy()[np.triu_indices(len(tasks), 1)]
    winners = sorted(set(table["best loss"]))
    alone = "conditional" if len(winners) > 1 else "false"
    return (
        f"Published scores of {len(LOSS_ODYSSEY)} losses on {len(tasks)} tasks: the best are "
        f"{', '.join(winners)}. Kendall's τ between the tasks' rankings lies between {taus.min():.2f} and "
        f"{taus.max():.2f}. That table alone would make the claim **{alone}**: it comes from one group, with "
        "one run for each score and no interval."
    )


@settles(11)
def overlap_covers_some_aspects() -> Verdict:
    """A far pixel, and a shift of thin and of fat shapes."""
    table = blind_spots().set_index("case")
    far, fat, thin = (table.iloc[i] for i in range(3))
    holds = far["IoU"] > 0.99 and far["Hausdorff"] > 20 and thin["IoU"] == 0 and fat["IoU"] > 0.9
    holds &= fat["ASSD"] <= 1 and thin["ASSD"] == 1 and fat["NSD"] == thin["NSD"] == 1
    return decide(
        bool(holds),
        f"One far pixel leaves an IoU of {far['IoU']:.3f} and a Hausdorff distance of "
        f"{far['Hausdorff']:.0f} pixels. A shift by one pixel leaves an IoU of {fat['IoU']:.2f} to a "
        f"square and of {thin['IoU']:.0f} to a thin line; the Hausdorff distance is 1 for both, the mean "
        f"surface distance {fat['ASSD']:.2f} and {thin['ASSD']:.0f}, and the surface Dice at a tolerance of "
        f"one pixel {fat['NSD']:.0f} for both.",
    )


@settles(37)
def encoder_decoder_is_an_autoencoder() -> Verdict:
    """An autoencoder returns its input; a segmenter returns class scores, learned by another loss."""
    model = models.build("segnet_basic", in_channels=3, out_channels=11, width=4)
    scores = model(torch.zeros(1, 3, 32, 32))
    same = tuple(scores.shape) == (1, 3, 32, 32)
    return decide(
        same,
        f"SegNet-Basic takes 3 channels and returns {scores.shape[1]}, one score a class: a mean "
        "squared error to the input is not even defined, and what is compared is a label it never "
        "sees. The shape of encoder and decoder is shared; the target and the loss are not.",
        "Shared architecture, other task. The author hedges (“I think”, “if so”), and log loss for classes is "
        "what a segmenter uses too: on labels, where an autoencoder has its input.",
    )


@settles(38)
def a_cnn_as_autoencoder() -> Verdict:
    """A convolutional network trained to return its input is one."""
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
        errors[-1] < errors[0] / 2,
        "A convolutional network with one channel in and out, and its input as target, lowers the mean squared error "
        f"from {errors[0]:.3f} to {errors[-1]:.3f} in 25 steps: possible, as the author thinks. That it is useful is "
        "outside this book.",
        "An earlier edition had the source deny what it proposes.",
    )
