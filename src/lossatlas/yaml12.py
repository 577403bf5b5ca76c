"""YAML as people and JSON spell it: one reader for studies, ``classes.yaml`` and the command line.

PyYAML follows YAML 1.1: ``no`` is False, ``1e-3`` is text, ``010`` is 8, ``1:30`` is 90 and
``2024-01-01`` a date. Here, as in YAML 1.2 and JSON, true and false alone are booleans, ``1e-3`` is a
number, and the others are text or what their digits say. Needs PyYAML alone.
"""

from __future__ import annotations

import re
from typing import Any

import yaml

_REPLACED = (":bool", ":float", ":int", ":timestamp")


class Loader(yaml.SafeLoader):
    """A safe loader (it makes no objects) of YAML 1.2's numbers and booleans."""


Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if not tag.endswith(_REPLACED)]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
Loader.add_implicit_resolver(
    "tag:yaml.org,2002:bool", re.compile("^(?:true|True|TRUE|false|False|FALSE)$"), list("tTfF")
)
Loader.add_implicit_resolver(
    "tag:yaml.org,2002:int", re.compile("^[-+]?[0-9](?:_?[0-9])*$"), list("-+0123456789")
)
Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(
        r"^[-+]?(?:(?:[0-9]+\.[0-9]*|\.[0-9]+)(?:[eE][-+]?[0-9]+)?|[0-9]+[eE][-+]?[0-9]+"
        r"|\.(?:inf|Inf|INF))$|^\.(?:nan|NaN|NAN)$"
    ),
    list("-+0123456789."),
)


def _integer(loader: Loader, node: yaml.ScalarNode) -> int:
    return int(loader.construct_scalar(node))


def _mapping(loader: Loader, node: yaml.MappingNode) -> dict[Any, Any]:
    """A dictionary; PyYAML would keep the last of two equal keys without a word."""
    seen: set[Any] = set()
    for key, _ in node.value:
        if isinstance(key, yaml.ScalarNode):
            name = loader.construct_object(key)
            if name in seen:
                raise yaml.constructor.ConstructorError(
                    None, None, f"expected each key once, got {name!r} twice", key.start_mark
                )
            seen.add(name)
    return loader.construct_mapping(node, deep=True)


Loader.add_constructor("tag:yaml.org,2002:int", _integer)
Loader.add_constructor("tag:yaml.org,2002:map", _mapping)


def parse_yaml(text: str) -> Any:
    """Value of a YAML text.

    >>> parse_yaml("[no, 1e-3, true, null, 010, 1:30]")
    ['no', 0.001, True, None, 10, '1:30']

    Raises:
        yaml.YAMLError: no YAML.
    """
    return yaml.load(text, Loader=Loader)
