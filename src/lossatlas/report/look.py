"""The page on which a reader moves the threshold: logits of ``benchmarks/look.py``, embedded in the page.

A page that is opened as a file may not fetch another file, so the data stand in the page itself.
"""

from __future__ import annotations

import base64
import json
from pathlib import Path

import numpy as np

from lossatlas.report import style

_PLACES = {"pi3": "3 % foreground", "pi01": "0.1 % foreground"}
_LAYERS = {"relu4_zero": "ReLU, 4 channels, bias 0", "none4_prior": "no activation, prior bias"}
_COMMAND = "lossatlas run begin && python benchmarks/look.py"


def embed(path: str | Path) -> str:
    """The place of the pictures and their data, as raw HTML of a Markdown page; a sentence where they are missing.

    Args:
        path: the file of ``benchmarks/look.py``.
    """
    path = Path(path)
    if not path.is_file():
        return f"*The logits are not in this checkout. `{_COMMAND}` makes them.*\n"
    data = json.dumps(pictures(path), ensure_ascii=False).replace("</", "<\\/")
    return (
        "```{raw} html\n"
        '<div id="look"><p>Moving the threshold needs JavaScript. '
        '<a href="results.html">The table of results</a> has the numbers.</p></div>\n'
        f'<script type="application/json" id="look-data">{data}</script>\n```\n'
    )


def pictures(path: str | Path) -> dict[str, object]:
    """What the page's script reads: for each group its runs and rules, and images, masks and logits in base64."""
    with np.load(path) as saved:
        about = json.loads(str(saved["about"]))
        groups = []
        for group in about["groups"]:
            name = group["name"]
            place, layer = name.split("/")
            arrays = {key: _text(saved[f"{name}/{key}"]) for key in ("images", "targets")}
            groups.append(
                group
                | arrays
                | {
                    "title": f"{_PLACES[place]}; {_LAYERS[layer]}",
                    "shape": saved[f"{name}/images"].shape,
                    "logits": {loss: _text(saved[f"{name}/{loss}"]) for loss in group["losses"]},
                }
            )
    losses = {loss for group in groups for loss in group["losses"]}
    colours = {loss: style.loss_colour(loss) for loss in style.in_order(losses)}
    return {"unit": about["per_unit"], "zero": about["zero"], "colours": colours, "groups": groups}


def _text(array: np.ndarray) -> str:
    return base64.b64encode(np.ascontiguousarray(array, dtype=np.uint8).tobytes()).decode()
