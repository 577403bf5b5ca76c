"""Puts numbers that a program has read from records into the text of a page.

``book/generated/front/numbers.json`` is made by ``lossatlas.book.make_front``. A page writes ``{{ begin.seeds }}``;
where a number is missing, MyST's warning stops the build.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from sphinx.application import Sphinx
from sphinx.config import Config

NUMBERS = Path("generated/front/numbers.json")


def with_comma(value: Any) -> Any:
    """The same numbers with a decimal comma, as Spanish and French write them."""
    if isinstance(value, dict):
        return {name: with_comma(each) for name, each in value.items()}
    return str(value).replace(".", ",")


def substitute(app: Sphinx, config: Config) -> None:
    """Give every page the numbers by their names; those with ``coma`` in theirs have a decimal comma."""
    path = Path(app.confdir) / NUMBERS
    if path.is_file():
        found = json.loads(path.read_text(encoding="utf-8"))
        config.myst_substitutions = {
            **config.myst_substitutions,
            **found,
            "coma": with_comma(found["begin"]),
            **{
                f"coma_{name}": with_comma(found[name])
                for name in ("real", "several")
                if name in found
            },
        }


def setup(app: Sphinx) -> dict[str, bool]:
    """Connects to Sphinx's event for a configuration that has been read."""
    app.connect("config-inited", substitute, priority=100)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
