"""``classes.yaml`` of one's own folder: what it may say, checked."""

from __future__ import annotations

import difflib
import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from lossatlas.basics import near_matches
from lossatlas.data.errors import DataError
from lossatlas.yaml12 import parse_yaml

KEYS = ("classes", "ignore_index", "palette", "values", "masks", "mean", "std", "intensity")
#: How the file may be called, in any case.
NAMES = ("classes.yaml", "classes.yml")
CUSTOMARY_VOID = 255


def read_settings(root: Path) -> dict[str, Any]:
    """Settings of ``classes.yaml``, checked; {} where there is none.

    Raises:
        DataError: not YAML, an unknown key, a value of the wrong kind, or a file whose name is nearly the right one.
    """
    file = _settings_file(root)
    if file is None:
        return {}
    try:
        settings = parse_yaml(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError, yaml.YAMLError) as error:
        where = str(error).replace("\n", " ")
        raise DataError(f"{file}: expected YAML, got {where}; correct the file") from None
    if isinstance(settings, list):
        settings = {"classes": settings}
    if not isinstance(settings, dict):
        raise DataError(
            f"{file}: expected keys {', '.join(KEYS)}, got {type(settings).__name__}; correct it"
        )
    for key in settings:
        if key not in KEYS:
            raise DataError(
                f"{file}: expected keys {', '.join(KEYS)}, got {key!r}; {near_matches(key, KEYS)}"
            )
    settings = {key: value for key, value in settings.items() if value is not None}
    names = settings.get("classes")
    if names is not None:
        usable = isinstance(names, list) and all(isinstance(n, str | int | float) for n in names)
        names = [_spelt(n) for n in names] if usable else names
        if not usable or not 2 <= len(names) <= 255 or len(set(names)) != len(names):
            raise DataError(
                f"{file}: expected classes to be a list of two or more different names, got "
                f"{names!r}; list them by index, background first"
            )
        settings["classes"] = names
    void = settings.get("ignore_index")
    if void is not None and (isinstance(void, bool) or not isinstance(void, int)):
        raise DataError(f"{file}: expected ignore_index to be an integer 0…255, got {void!r}")
    if void is not None and not 0 <= void <= 255:
        raise DataError(f"{file}: expected ignore_index from 0 to 255, got {void}")
    _check_values(settings, file)
    _check_pattern(settings, file)
    _check_palette(settings, file)
    _check_meaning(settings.get("classes", []), file)
    _check_numbers(settings, file)
    return settings


def _spelt(name: object) -> str:
    """A class name; ``background`` and ``void``, which decide what is measured, may be spelt in capitals."""
    plain = str(name).strip().casefold()
    return plain if plain in ("background", "void") else str(name)


def _settings_file(root: Path) -> Path | None:
    """``classes.yaml`` in any case, or ``classes.yml``; None where there is none."""
    names = [path for path in sorted(root.iterdir()) if path.is_file()]
    found = [path for path in names if path.name.casefold() in NAMES]
    if len(found) > 1:
        raise DataError(
            f"{root}: expected one classes.yaml, got {' and '.join(path.name for path in found)}; remove one"
        )
    if found:
        return found[0]
    for path in names:
        like = path.suffix.casefold() in (".yaml", ".yml")
        if like and difflib.get_close_matches(path.stem.casefold(), ["classes"], cutoff=0.8):
            raise DataError(f"{root}: expected classes.yaml, got {path.name}; rename it")
    return None


def _check_palette(settings: dict[str, Any], file: Path) -> None:
    """``palette`` maps class names to what the masks show; without ``classes`` its order is their index."""
    palette = settings.get("palette")
    if palette is None:
        return
    if not isinstance(palette, Mapping):
        raise DataError(f"{file}: expected palette to map names to [r, g, b], got {palette!r}")
    spelt = {_spelt(name): colour for name, colour in palette.items()}
    if len(spelt) < len(palette):
        raise DataError(f"{file}: expected each name once in palette, got {[*palette]!r}")
    palette = settings["palette"] = spelt
    names = settings.setdefault("classes", [name for name in palette if name != "void"])
    if not 2 <= len(names) <= 255:
        raise DataError(
            f"{file}: expected palette to name 2 to 255 classes, background first, got {names!r}"
        )
    for name, colour in palette.items():
        if name not in (*names, "void"):
            raise DataError(
                f"{file}: expected palette names among the classes and 'void', got {name!r}; "
                f"{near_matches(name, [*names, 'void'])}"
            )
        good = isinstance(colour, list) and len(colour) == 3
        if not good or not all(type(v) is int and 0 <= v <= 255 for v in colour):
            raise DataError(
                f"{file}: expected the colour of {name!r} as three integers 0…255, got {colour!r}"
            )
    colours = [tuple(c) for c in palette.values()]
    if len(set(colours)) != len(colours):
        raise DataError(f"{file}: expected a colour of its own for each class, got one twice")
    missing = [n for n in names if n not in palette]
    if missing:
        raise DataError(f"{file}: expected a colour for each class, got none for {missing[0]!r}")


def _check_meaning(names: list[str], file: Path) -> None:
    """Class 0 is the background everywhere, and "void" is never a class."""
    if "void" in names:
        raise DataError(
            f"{file}: expected classes without 'void', which means pixels without a label, got {names!r}; take it off, "
            "and say what the masks store, as 'values: {0: background, 1: thing, 255: void}'"
        )
    if "background" in names[1:]:
        raise DataError(
            f"{file}: expected class 0 to be the background, got {names!r}; write background first, in values or "
            "palette with what the masks store for it, as 'values: {0: background, 255: thing}'"
        )


def _check_numbers(settings: dict[str, Any], file: Path) -> None:
    for key in ("mean", "std", "intensity"):
        value = settings.get(key)
        if value is None:
            continue
        numbers = isinstance(value, list) and all(
            isinstance(v, int | float) and not isinstance(v, bool) and math.isfinite(v)
            for v in value
        )
        if not numbers or not value or (key == "std" and min(value) <= 0):
            raise DataError(f"{file}: expected {key} to be a list of finite numbers, got {value!r}")
        # of images of any depth, since all are brought to 0…1 first
        if key != "intensity" and not 0 <= min(value) <= max(value) <= 1:
            raise DataError(
                f"{file}: expected {key} on the scale 0…1, got {value!r}; divide by 255, or for images of more than "
                "8 bits by what intensity spans"
            )
        if key == "intensity" and (len(value) != 2 or value[0] >= value[1]):
            raise DataError(f"{file}: expected intensity as [low, high], got {value!r}")


def _check_values(settings: dict[str, Any], file: Path) -> None:
    """``values`` maps what the masks store to class names; without ``classes`` it names them."""
    values = settings.get("values")
    if values is None:
        return
    if settings.get("palette") is not None:
        raise DataError(f"{file}: expected values or palette, got both; keep one")
    if isinstance(values, Mapping):  # JSON has no integer keys
        values = {
            int(k) if isinstance(k, str) and re.fullmatch("[0-9]+", k) else k: v
            for k, v in values.items()
        }
    if not isinstance(values, Mapping) or not all(
        type(k) is int and isinstance(v, str | int | float) for k, v in values.items()
    ):
        raise DataError(
            f"{file}: expected values to map integers to class names, as in "
            f"{{0: background, 255: thing}}, got {values!r}"
        )
    values = settings["values"] = {k: _spelt(v) for k, v in values.items()}
    named = list(dict.fromkeys(v for v in values.values() if v != "void"))
    names = settings.setdefault("classes", named)
    if len(names) < 2:
        raise DataError(f"{file}: expected values to name two or more classes, got {names!r}")
    for name in named:
        if name not in names:
            raise DataError(
                f"{file}: expected values to name classes or 'void', got {name!r}; "
                f"{near_matches(name, [*names, 'void'])}"
            )


def _check_pattern(settings: dict[str, Any], file: Path) -> None:
    pattern = settings.get("masks")
    if pattern is None:
        return
    if not isinstance(pattern, str) or pattern.count("{stem}") != 1:
        raise DataError(
            f"{file}: expected masks to be a file name with {{stem}} once, as in "
            f"'{{stem}}_mask.png', got {pattern!r}"
        )
    if "/" in pattern or "\\" in pattern:
        raise DataError(
            f"{file}: expected masks to be a file name in masks/, got the path {pattern!r}; "
            "name no folder"
        )
