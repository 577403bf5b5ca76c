"""Commands for people with data of their own: ``advise``, and the upkeep of its table."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any


def add_parsers(commands: Any) -> None:
    """Add the commands to a parser's subcommands; a ``DataError`` of theirs is the caller's to print."""
    _add_advise(commands)
    table = commands.add_parser(
        "decisions", help="write the numbers of advise's decision table from the records"
    )
    table.set_defaults(run=_decisions)


def _add_advise(commands: Any) -> None:
    parser = commands.add_parser(
        "advise",
        help="advice for the masks of a folder: loss, threshold, sampling, bias, metrics",
        description="Measure the masks of a folder and say what the studies and the derivations advise.",
        epilog="examples: lossatlas advise my/folder --html advice.html; "
        "lossatlas advise first/masks --also second/masks --need probability --json",
    )
    parser.add_argument("root", help="a folder with masks/, or of masks alone")
    parser.add_argument(
        "--need",
        default="mask",
        choices=("mask", "probability", "boundary"),
        help="what the network is for (default: mask)",
    )
    parser.add_argument(
        "--also", action="append", default=[], metavar="FOLDER", help="another annotator's masks"
    )
    parser.add_argument("--ignore-index", type=int, help="value of void pixels in the masks")
    parser.add_argument("--json", action="store_true", help="machine-readable")
    parser.add_argument(
        "--html", type=Path, metavar="FILE", help="also write one page with pictures"
    )
    parser.set_defaults(run=_advise)


def _advise(given: argparse.Namespace) -> None:
    from lossatlas.advise import advise
    from lossatlas.advise.advice import describe
    from lossatlas.advise.facts import read_masks

    advice = advise(given.root, need=given.need, also=given.also, ignore_index=given.ignore_index)
    if given.html is not None:
        from lossatlas.advise.page import write_page

        write_page(given.html, advice, read_masks(given.root, ignore_index=given.ignore_index))
    if given.json:
        print(json.dumps(advice, indent=1, ensure_ascii=False, allow_nan=False))
    else:
        print(describe(advice))
        if given.html is not None:
            print(f"\n{given.html}")


def _decisions(given: argparse.Namespace) -> None:
    from lossatlas.advise import evidence
    from lossatlas.pipeline import require_checkout

    require_checkout()
    print(evidence.rewrite(Path("src/lossatlas/advise/decisions.yaml")))
