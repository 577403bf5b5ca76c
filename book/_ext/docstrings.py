"""Docstrings as they are written for readers of the code, made what reStructuredText takes for the same."""

from __future__ import annotations

import re
from typing import Any

from lossatlas import losses

_STAR = re.compile(r"(?<![\\*])\*(?=S\b)")
_BAR = re.compile(r"(?<!\\)\|")
_REFERENCE = re.compile(r":(?:class|func):`([A-Za-z0-9_]+)`")


def _linked(found: re.Match[str]) -> str:
    """A link where the name has an entry in this book, else the name in the font of code."""
    name = found[1]
    return f":py:obj:`~lossatlas.losses.{name}`" if name in losses.__all__ else f"``{name}``"


def _prepare(app: Any, what: str, name: str, obj: Any, options: Any, lines: list[str]) -> None:
    r"""Escape the star of (N, \*S) and the bars of \|x\|, which begin no markup; link the classes."""
    in_math, prepared = False, []
    for line in lines:
        in_math = line.startswith(".. math::") or (in_math and line[:1] in ("", " "))
        if not in_math:
            line = _REFERENCE.sub(_linked, _STAR.sub(r"\\*", line))
            if ":math:" not in line:
                line = _BAR.sub(r"\\|", line)
        prepared.append(line)
    lines[:] = prepared


def setup(app: Any) -> dict[str, bool]:
    """Register the step; it comes before napoleon's, which runs at the default priority."""
    app.connect("autodoc-process-docstring", _prepare, priority=400)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
