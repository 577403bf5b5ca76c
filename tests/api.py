"""The public names and signatures, written to ``tests/api.txt``: python tests/api.py.

What stands in that file keeps its meaning within a major version; CONTRIBUTING says how a name goes.
"""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click

FILE = Path(__file__).with_name("api.txt")
MODULES = ("losses", "losses.functional", "data", "deploy", "advise")


def signature(value: Any) -> str:
    """Parameters and defaults, without annotations, which are free to become more exact."""
    try:
        found = inspect.signature(value)
    except (TypeError, ValueError):
        return ""
    bare = [each.replace(annotation=inspect.Parameter.empty) for each in found.parameters.values()]
    return str(found.replace(parameters=bare, return_annotation=inspect.Signature.empty))


def names(module: str) -> Iterator[str]:
    """A line for each public name of a module; of the classes beside the losses also their methods.

    A loss is built and called; its other methods serve the package.
    """
    loaded = importlib.import_module(f"lossatlas.{module}")
    for name in sorted(loaded.__all__):
        value = getattr(loaded, name)
        if inspect.ismodule(value):
            yield f"{module}.{name}"
            continue
        if not callable(value):
            yield f"{module}.{name}: {type(value).__name__}"
            continue
        yield f"{module}.{name}{signature(value)}"
        if inspect.isclass(value) and module != "losses" and not issubclass(value, Exception):
            for method, found in sorted(vars(value).items()):
                if not method.startswith("_") and inspect.isfunction(found):
                    yield f"{module}.{name}.{method}{signature(found)}"


def commands() -> Iterator[str]:
    """A line for each command with its arguments and options."""
    from lossatlas.cli import cli
    from lossatlas.data.cli import data

    groups = (("lossatlas", cli.commands), ("lossatlas data", data.commands))
    for prefix, group in groups:
        for name, command in sorted(group.items()):
            if isinstance(command, click.Group):
                continue
            given = [
                p.opts[-1] if isinstance(p, click.Option) else p.human_readable_name
                for p in command.params
            ]
            yield " ".join([prefix, name, *given])


def text() -> str:
    """The whole file."""
    lines = [line for module in MODULES for line in names(module)]
    return "\n".join([*lines, *commands()]) + "\n"


if __name__ == "__main__":
    FILE.write_text(text(), encoding="utf-8")
    print(FILE)
