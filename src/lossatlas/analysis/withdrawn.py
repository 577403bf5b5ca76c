"""Studies whose findings are withdrawn: ``results/withdrawn.json``, and the notice on their pages."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from IPython.display import Markdown


def withdrawn(results_dir: str | Path = "results") -> dict[str, Any]:
    """Date, reason and studies of ``results_dir/withdrawn.json``; no studies where there is no such file."""
    path = Path(results_dir) / "withdrawn.json"
    if not path.is_file():
        return {"studies": {}}
    found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    if found.get("schema") != 1:
        raise ValueError(f"{path}: expected schema 1, got {found.get('schema')!r}")
    return found


def is_withdrawn(study: str, results_dir: str | Path = "results") -> bool:
    """Whether the findings of a study are withdrawn."""
    return study in withdrawn(results_dir)["studies"]


def text(study: str, results_dir: str | Path = "results") -> str:
    """Why the findings of a study are withdrawn, in sentences; empty where they stand."""
    found = withdrawn(results_dir)
    if study not in found["studies"]:
        return ""
    return (
        f"The findings of the study `{study}` were withdrawn on {found['date']}: {found['why']} "
        "Its differences between losses are no evidence about losses. The comparison awaits a rerun "
        "with a network that can answer."
    )


def notice(records: str | Path) -> Markdown:
    """The box at the head of a study's page; nothing where its findings stand.

    Args:
        records: folder of the study's records, beside ``withdrawn.json``'s.
    """
    records = Path(records)
    told = text(records.name, records.parent)
    if not told:
        return Markdown("")
    return Markdown(
        ":::{admonition} Withdrawn\n:class: danger\n"
        f"{told}\n\nThe page stays for the record; {{doc}}`the retraction </retractions>` says how the error was "
        "found.\n:::"
    )
