"""``lossatlas data …``: fetch, list, verify, find, check and describe data sets."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any

import click

from lossatlas.data import fetch
from lossatlas.data.checking import check_folder
from lossatlas.data.dataset import SPLITS
from lossatlas.data.errors import DataError
from lossatlas.data.registry import SOURCES, load_labels, source
from lossatlas.data.statistics import WeightScheme, format_report, report

_json = click.option("--json", "as_json", is_flag=True, help="Machine-readable output.")


@click.group()
def data() -> None:
    """Fetch, list, verify, find, check and describe data sets."""
    # A DataError of a command is left to the caller to print as one line.


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


@data.command("list", epilog="Example: lossatlas data list --json")
@_json
def list_sets(as_json: bool) -> None:
    """List every data set: classes, licence, whether it is here."""
    rows = [facts(name) for name in SOURCES]
    if as_json:
        print(json.dumps(rows, indent=1, ensure_ascii=False))
        return
    for row in rows:
        how = "`data get`" if row["fetchable"] else "bring the files"
        where = row["path"] or ("built in" if row["available"] else f"not here ({how})")
        classes = f"{len(row['classes'])} classes"
        print(f"{row['name']:<12} {classes:<11} {row['title']}; {row['licence']}\n{'':<12} {where}")


def _fetched(name: str) -> Any:
    known = source(name)
    if not hasattr(known, "find") or name == "folder":
        raise DataError(
            f"{name}: expected a set on disk, got one that needs no file; use it as it is"
        )
    return known


@data.command(epilog="Example: lossatlas data get camvid")
@click.argument("names", nargs=-1, required=True, metavar="NAME...")
@click.option("--force", is_flag=True, help="Fetch again and replace what is there.")
@click.option("--dry-run", is_flag=True, help="Say what would be fetched; fetch nothing.")
def get(names: tuple[str, ...], force: bool, dry_run: bool) -> None:
    """Download a data set, verified, into data/raw."""
    for name in names:
        known = _fetched(name)
        before = known.find()
        at_hand = before is not None and not force
        if dry_run:
            print(f"{name}: at hand in {before}" if at_hand else f"{name}: fetch {known.source}")
            continue
        base = fetch.get(known, force=force)
        if at_hand:
            print(f"{name}: at hand in {base}; --force fetches it again")


@data.command(epilog="Example: lossatlas data verify camvid crackforest")
@click.argument("names", nargs=-1, required=True, metavar="NAME...")
@_json
def verify(names: tuple[str, ...], as_json: bool) -> int:
    """Hash every file of a set again and list what is wrong."""
    wrong = {name: [str(each) for each in fetch.verify(_fetched(name))] for name in names}
    if as_json:
        print(json.dumps(wrong, indent=1, ensure_ascii=False))
    for name, problems in {} if as_json else wrong.items():
        for problem in problems:
            print(f"{name}: {problem}")
        if not problems:
            print(f"{name}: every checksum is right in {_fetched(name).find()}")
    return 1 if any(wrong.values()) else 0


@data.command(epilog="Example: lossatlas data path camvid")
@click.argument("name")
@_json
def path(name: str, as_json: bool) -> None:
    """Print the folder that holds a data set."""
    found = str(_fetched(name).locate())
    print(json.dumps({"name": name, "path": found}, ensure_ascii=False) if as_json else found)


@data.command(epilog="Example: lossatlas data stats digits -p foreground 0.02 --split train")
@click.argument("name")
@click.option("--split", type=click.Choice(SPLITS), help="One split alone (default: all).")
@click.option(
    "-p",
    "--param",
    "params",
    nargs=2,
    multiple=True,
    metavar="NAME VALUE",
    help="A parameter of the data set, the value in YAML (repeat for more).",
)
@click.option("--no-shapes", is_flag=True, help="Leave out components and thinness.")
@click.option(
    "--shape-images",
    type=int,
    default=60,
    show_default=True,
    help="Images that components and thinness are taken from, evenly spaced.",
)
@_json
@click.pass_obj
def stats(
    schemes: Mapping[str, WeightScheme] | None,
    name: str,
    split: str | None,
    params: tuple[tuple[str, str], ...],
    no_shapes: bool,
    shape_images: int,
    as_json: bool,
) -> None:
    """Show how unbalanced a data set is, split by split."""
    # The caller gives the class weights that are printed, by name, as the context's object: this
    # package stands beside `lossatlas.losses`, not above it, and knows none.
    values = {key: _value(key, text) for key, text in params}
    results = [
        report(
            load_labels(name, each, **values),
            schemes or {},
            shapes=not no_shapes,
            shape_images=shape_images,
        )
        for each in ([split] if split else SPLITS)
    ]
    if as_json:
        print(json.dumps(_without_nan(results), indent=1, ensure_ascii=False))
    else:
        print("\n\n".join(format_report(result) for result in results))


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


@data.command(epilog="Example: lossatlas data check my/folder --json")
@click.argument("root")
@click.option("--ignore-index", type=int, help="Value of void pixels in the masks.")
@click.option("--height", type=int, help="Height that loading resizes to.")
@click.option("--width", type=int, help="Width that loading resizes to.")
@click.option("--seed", type=int, default=0, help="Of the splits, without split files.")
@_json
def check(
    root: str,
    ignore_index: int | None,
    height: int | None,
    width: int | None,
    seed: int,
    as_json: bool,
) -> int:
    """Report everything that is wrong in your own folder.

    ROOT is a folder with images/ and masks/. Exit status 1: an error or a warning was found.
    """
    findings = check_folder(root, ignore_index=ignore_index, seed=seed, height=height, width=width)
    count = {s: sum(f.severity == s for f in findings) for s in ("error", "warning", "note")}
    if as_json:
        print(json.dumps([vars(f) for f in findings], indent=1, ensure_ascii=False))
    else:
        for finding in findings:
            print(finding)
        print(
            f"{root}: {count['error']} kinds of error, {count['warning']} of warning, "
            f"{count['note']} of note"
        )
    return 1 if count["error"] or count["warning"] else 0
