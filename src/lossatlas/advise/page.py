"""The advice as one HTML page that reads without a network: no script, pictures inside."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from jinja2 import Environment, PackageLoader

from lossatlas.advise.advice import TITLES, basis, evidence_line, facts_lines
from lossatlas.advise.facts import MaskSet
from lossatlas.basics import replacing
from lossatlas.data.errors import writing

#: Masks that are shown, from the least to the most foreground.
_SHOWN = 5
#: Pixels of the longer side of a shown mask.
_SIDE = 200


def write_page(path: str | Path, advice: Mapping[str, Any], masks: MaskSet) -> Path:
    """Write the page; names from the data are escaped.

    Args:
        path: of the HTML file.
        advice: of `advice.advise`.
        masks: whose masks are shown.
    """
    # every value is escaped unless a filter says otherwise, and none does
    environment = Environment(loader=PackageLoader("lossatlas.advise", "."), autoescape=True)
    text = environment.get_template("page.html.jinja").render(
        advice=advice,
        facts=facts_lines(advice),
        titles=TITLES,
        basis=basis,
        evidence_line=evidence_line,
        pictures=_pictures(masks),
    )
    path = Path(path)
    if path.exists() and not path.is_file():  # a pipe, /dev/stdout: there is no name to take
        path.write_text(text, encoding="utf-8")
        return path
    with (
        writing("page", path.parent, "or name another file"),
        replacing(path.resolve()) as whole,  # a link stays one
    ):
        whole.write_text(text, encoding="utf-8")
    return path


def _pictures(masks: MaskSet) -> list[dict[str, str]]:
    """A few masks between the least and the most foreground, as PNG in text."""
    from PIL import Image

    stems = masks.layout.pairs
    looked_at = [
        stems[i] for i in np.unique(np.linspace(0, len(stems) - 1, 50).round().astype(int))
    ]
    filled = []
    for stem in looked_at:
        label = masks.read(stem)
        known = np.ones(label.shape, bool) if masks.void is None else label != masks.void
        filled.append((float(((label > 0) & known).sum() / max(known.sum(), 1)), stem))
    filled.sort()
    chosen = np.unique(np.linspace(0, len(filled) - 1, _SHOWN).round().astype(int))
    shown = []
    for share, stem in (filled[i] for i in chosen):
        image = Image.fromarray(_coloured(masks.read(stem), len(masks.classes), masks.void))
        # a thin object must not vanish: nearest neighbour would drop it
        image.thumbnail((_SIDE, _SIDE), Image.Resampling.BOX)
        buffer = io.BytesIO()
        image.save(buffer, "PNG")
        source = base64.b64encode(buffer.getvalue()).decode()
        shown.append({"name": stem, "share": f"{share:.3%}", "source": source})
    return shown


def _coloured(label: np.ndarray, classes: int, void: int | None) -> np.ndarray:
    """(H, W, 3) uint8: background dark, a colour a class, void grey."""
    from matplotlib import colormaps

    colours = np.zeros((256, 3), np.uint8)
    colours[0] = 32
    palette = np.asarray(colormaps["tab10"](np.arange(10)))[:, :3] * 255
    for c in range(1, classes):
        colours[c] = palette[c % len(palette)].astype(np.uint8)
    if void is not None:
        colours[void] = 128
    return colours[label]
