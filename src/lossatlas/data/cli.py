"""``lossatlas data …``: fetch, list, verify, find, check and describe data sets."""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Mapping
from typing import Any

from lossatlas.data import fetch
from lossatlas.data.checking import check_folder
from lossatlas.data.dataset import SPLITS
from lossatlas.data.errors import DataError
from lossatlas.data.registry import SOURCES, load_labels, source
from lossatlas.data.statistics import WeightScheme, format_report, report


def add_parser(
    subparsers: Any, weight_schemes: Mapping[str, WeightScheme] | None = None
) -> argparse.ArgumentParser:
    """Add the command ``data`` to a parser's subcommands; ``run(namespace)`` gives the exit status.

    ``weight_schemes`` are the class weights that ``stats`` prints, by name; this package knows
    none, for it stands beside ``lossatlas.losses``, not above it. A
    :class:`lossatlas.data.DataError` of a command is left to the caller to print as one line.
    """
    parser: argparse.ArgumentParser = subparsers.add_parser("data", help=__doc__)
    commands = parser.add_subparsers(dest="data_command", required=True, metavar="COMMAND")

    listing = commands.add_parser("list", help="every data set: classes, licence, whether at hand")
    listing.add_argument("--json", action="store_true", help="machine-readable")
    listing.set_defaults(run=_list)

    get = commands.add_parser("get", help="download a data set, verified, into data/raw")
    get.add_argument("name", nargs="+")
    get.add_argument("--force", action="store_true", help="fetch again and replace what is there")
    get.set_defaults(run=_get)

    verify = commands.add_parser(
        "verify", help="hash every file of a set again and list what is wrong"
    )
    verify.add_argument("name", nargs="+")
    verify.set_defaults(run=_verify)

    path = commands.add_parser("path", help="print the folder that holds a data set")
    path.add_argument("name")
    path.set_defaults(run=_path)

    check = commands.add_parser("check", help="report everything that is wrong in your own folder")
    check.add_argument("root", help="folder with images/ and masks/")
    check.add_argument("--ignore-index", type=int, help="value of void pixels in the masks")
    for side in ("height", "width"):
        check.add_argument(f"--{side}", type=int, help=f"{side} that loading resizes to")
    check.add_argument("--seed", type=int, default=0, help="of the splits, without split files")
    check.add_argument("--json", action="store_true", help="machine-readable, every name")
    check.set_defaults(run=_check)

    stats = commands.add_parser("stats", help="how unbalanced a data set is, split by split")
    stats.add_argument("name")
    stats.add_argument("--split", choices=SPLITS, help="one split alone (default: all)")
    stats.add_argument(
        "-p",
        "--param",
        nargs=2,
        action="append",
        default=[],
        metavar=("NAME", "VALUE"),
        help="a parameter of the data set, the value in YAML (repeat for more)",
    )
    stats.add_argument("--no-shapes", action="store_true", help="leave out components and thinness")
    stats.add_argument(
        "--shape-images",
        type=int,
        default=60,
        help="images that components and thinness are taken from, evenly spaced (default: 60)",
    )
    stats.add_argument("--json", action="store_true", help="machine-readable")
    stats.set_defaults(run=lambda given: _stats(given, weight_schemes or {}))
    return parser


def facts(name: str) -> dict[str, Any]:
    """What the registry knows of a data set, as JSON-able values."""
    known = source(name)
    base = known.find() if hasattr(known, "find") else None
    return {
        "name": name,
        "title": known.title,
        "classes": list(known.classes),
        "void": known.void,
        "licence": known.licence,
        "citation": known.citation,
        "source": known.source,
        "available": bool(known.is_available()),
        "path": str(base) if base else None,
        "fetchable": fetch.fetchable(name),
    }


def _list(given: argparse.Namespace) -> int:
    rows = [facts(name) for name in SOURCES]
    if given.json:
        print(json.dumps(rows, indent=1, ensure_ascii=False))
        return 0
    for row in rows:
        how = "`data get`" if row["fetchable"] else "bring the files"
        where = row["path"] or ("built in" if row["available"] else f"not here ({how})")
        classes = f"{len(row['classes'])} classes"
        print(f"{row['name']:<12} {classes:<11} {row['title']}; {row['licence']}\n{'':<12} {where}")
    return 0


def _fetched(name: str) -> Any:
    known = source(name)
    if not hasattr(known, "find") or name == "folder":
        raise DataError(
            f"{name}: expected a set on disk, got one that needs no file; use it as it is"
        )
    return known


def _get(given: argparse.Namespace) -> int:
    for name in given.name:
        known = _fetched(name)
        before = known.find()
        base = fetch.get(known, force=given.force)
        if before is not None and not given.force:
            print(f"{name}: at hand in {base}; --force fetches it again")
    return 0


def _verify(given: argparse.Namespace) -> int:
    wrong = 0
    for name in given.name:
        known = _fetched(name)
        problems = fetch.verify(known)
        for problem in problems:
            print(f"{name}: {problem}")
        if not problems:
            state = "every checksum is right" if known.registered else "no checksum is known"
            print(f"{name}: {state} in {known.find()}")
        wrong += len(problems)
    return 1 if wrong else 0


def _path(given: argparse.Namespace) -> int:
    print(_fetched(given.name).locate())
    return 0


def _stats(given: argparse.Namespace, schemes: Mapping[str, WeightScheme]) -> int:
    params = {name: _value(name, text) for name, text in given.param}
    results = [
        report(
            load_labels(given.name, split, **params),
            schemes,
            shapes=not given.no_shapes,
            shape_images=given.shape_images,
        )
        for split in ([given.split] if given.split else SPLITS)
    ]
    if given.json:
        print(json.dumps(_without_nan(results), indent=1, ensure_ascii=False))
    else:
        print("\n\n".join(format_report(result) for result in results))
    return 0


def _value(name: str, text: str) -> Any:
    """The value of a parameter, as a study's file would have it."""
    import yaml

    from lossatlas.yaml12 import parse_yaml

    try:
        return parse_yaml(text)
    except (yaml.YAMLError, ValueError, RecursionError):
        raise DataError(
            f"{name}: expected a value in YAML, got {text!r}; quote or close it"
        ) from None


def _without_nan(value: Any) -> Any:
    """Replace NaN, which JSON does not have, by None."""
    if isinstance(value, dict):
        return {key: _without_nan(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_without_nan(item) for item in value]
    return None if isinstance(value, float) and math.isnan(value) else value


def _check(given: argparse.Namespace) -> int:
    findings = check_folder(
        given.root,
        ignore_index=given.ignore_index,
        seed=given.seed,
        height=given.height,
        width=given.width,
    )
    count = {s: sum(f.severity == s for f in findings) for s in ("error", "warning", "note")}
    if given.json:
        print(json.dumps([vars(f) for f in findings], indent=1, ensure_ascii=False))
    else:
        for finding in findings:
            print(finding)
        print(
            f"{given.root}: {count['error']} kinds of error, {count['warning']} of warning, "
            f"{count['note']} of note"
        )
    return 1 if count["error"] or count["warning"] else 0
