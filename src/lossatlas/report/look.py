"""The page on which a reader moves the threshold: logits of ``benchmarks/look.py``, embedded in the page.

A page that is opened as a file may not fetch another file, so the data stand in the page itself. Photographs of real
sets are not ours to pass on: whoever builds the page reads them, if the set is at hand there.
"""

from __future__ import annotations

import base64
import json
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from lossatlas.report import style

#: A logit z is kept as round(25 asinh z) + 128 in one byte: between -83 and 80, in steps of .04 near 0 and .4 at 10. A
#: network trained with Dice has its own threshold as far out as 67.
SCALE, ZERO = 25, 128
#: A pixel without a label, in the targets.
VOID = 2
_PLACES = {"pi3": "digits, 3 % foreground", "pi01": "digits, 0.1 % foreground"}
_LAYERS = {"relu4_zero": "ReLU, 4 channels, bias 0", "none4_prior": "no activation, prior bias"}
_COMMAND = "lossatlas run begin && python benchmarks/look.py"
#: From a group of real images to the title of its set, all its test images (N, H, W, C), targets (as of `truth`) and
#: ids; None where the set is not at hand.
Photographs = Callable[[dict[str, Any]], tuple[str, np.ndarray, np.ndarray, Sequence[str]] | None]


def embed(paths: Sequence[str | Path], photographs: Photographs) -> str:
    """The place of the pictures and their data, as raw HTML of a Markdown page; a sentence where they are missing.

    Args:
        paths: the files of ``benchmarks/look.py``, in the order of the page; one that is missing is passed over.
        photographs: reads the test images of a real set.

    Raises:
        ValueError: a real set is not the one whose logits are there.
    """
    there = [Path(path) for path in paths if Path(path).is_file()]
    if not there:
        return f"*The logits are not in this checkout. `{_COMMAND}` makes them.*\n"
    found = pictures(there, photographs)
    missing = found.pop("missing")
    text = json.dumps(found, ensure_ascii=False).replace("</", "<\\/")
    page = (
        "```{raw} html\n"
        '<div id="look"><p>Moving the threshold needs JavaScript. '
        '<a href="results.html">The table of results</a> has the numbers.</p></div>\n'
        f'<script type="application/json" id="look-data">{text}</script>\n```\n'
    )
    if missing:
        sets = " ".join(dict.fromkeys(missing.values()))
        page += (
            f"\n*Not shown here: {', '.join(missing)}. Their images may not be passed on and are not on the machine "
            f"that built this page. `lossatlas data get {sets}` and `make book` add them.*\n"
        )
    return page


def pictures(paths: Sequence[str | Path], photographs: Photographs) -> dict[str, Any]:
    """What the page's script reads, and under ``missing`` the data set of each group whose images are not at hand.

    A group has its runs and rules, its ``shape`` (images, height, width), and ``bytes``: images, targets, then the
    logits of each loss, one byte a pixel, as one zlib stream in base64.
    """
    groups: list[dict[str, Any]] = []
    missing: dict[str, str] = {}
    for path in paths:
        with np.load(path) as saved:
            about = json.loads(str(saved["about"]))
            # an older file has steps of a tenth, up to 12.7
            steps = {"scale": about.get("scale"), "unit": about.get("per_unit")}
            for group in about["groups"]:
                name = group["name"]
                place, model = name.split("/")
                if "dataset" in group:
                    read = photographs(group)
                    if read is None:
                        missing[place] = group["dataset"]
                        continue
                    images, targets = _chosen(group, *read[1:])
                    title = f"{place}: {read[0]}"
                else:
                    images, targets = saved[f"{name}/images"], saved[f"{name}/targets"]
                    title = f"{_PLACES[place]}; {_LAYERS[model]}"
                logits = [saved[f"{name}/{loss}"] for loss in group["losses"]]
                shown = {"title": title, "shape": images.shape}
                kept = {
                    key: group[key] for key in ("losses", "seed", "runs", "tuned", "rules", "ids")
                }
                groups.append(kept | shown | steps | {"bytes": _text([images, targets, *logits])})
    losses = {loss for group in groups for loss in group["losses"]}
    colours = {loss: style.loss_colour(loss) for loss in style.in_order(losses)}
    return {
        "zero": ZERO,
        "colours": colours,
        "groups": groups,
        "missing": missing,
    }


def _chosen(
    group: dict[str, Any], images: np.ndarray, targets: np.ndarray, ids: Sequence[str]
) -> tuple[np.ndarray, np.ndarray]:
    """Grey windows (N, side, side) of a group's test images, and their targets."""
    found = [str(ids[k]) for k in group["places"]]
    if found != group["ids"]:
        raise ValueError(
            f"{group['name']}: expected the test images {group['ids']}, got {found}: the data set is another one; run "
            "benchmarks/look.py again"
        )
    grey = np.stack([images[k].mean(-1).round().astype(np.uint8) for k in group["places"]])
    cut = group["corners"], group["side"]
    return windows(grey, *cut), windows(targets[group["places"]], *cut)


def truth(labels: np.ndarray, ignore_index: int | None) -> np.ndarray:
    """Targets in bytes: 1 foreground, 0 background, `VOID` a pixel without a label."""
    made = (labels == 1).astype(np.uint8)
    if ignore_index is not None:
        made[labels == ignore_index] = VOID
    return made


def in_bytes(logits: np.ndarray) -> np.ndarray:
    """Logits as they are kept: bytes of `SCALE` and `ZERO`."""
    return np.clip(np.rint(SCALE * np.arcsinh(logits)) + ZERO, 0, 255).astype(np.uint8)


def windows(arrays: np.ndarray, corners: Sequence[Sequence[int]], side: int) -> np.ndarray:
    """(N, side, side): of each (H, W) array the square whose upper left corner (y, x) is given."""
    return np.stack(
        [array[y : y + side, x : x + side] for array, (y, x) in zip(arrays, corners, strict=True)]
    )


def _text(arrays: Sequence[np.ndarray]) -> str:
    stream = b"".join(np.ascontiguousarray(array, dtype=np.uint8).tobytes() for array in arrays)
    return base64.b64encode(zlib.compress(stream, 9)).decode()
