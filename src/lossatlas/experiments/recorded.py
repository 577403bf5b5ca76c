"""Runs whose record is committed: they are done, wherever the book is built next.

A run folder is large and stays on the machine that trained it; the tables of ``results/`` travel with the project. A
run that they hold, made with today's versions (:mod:`lossatlas.experiments.versions`), is not trained again.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lossatlas.experiments.heartbeat import tried_again
from lossatlas.experiments.versions import changed_components

#: The tables that have a row a run.
_TABLES = ("tuning", "runs")


@dataclass(frozen=True)
class Recorded:
    """A run in the records of a study.

    Attributes:
        folder: the study's records.
        row: what the table with the run's row says of it.
    """

    folder: Path
    row: Mapping[str, Any]

    @property
    def record(self) -> dict[str, Any]:
        """What ``run.json`` would say, as far as the row has it: what decides whether, and how, the run is done."""
        return {
            "run_id": self.row["run_id"],
            "status": self.row["status"],
            "config": json.loads(self.row["config"]),
            "code": json.loads(self.row["code"]),
            "wall_s": float(self.row["wall_s"]),
            "validation": {
                name: _number(self.row.get(f"val_{name}"))
                for name in ("foreground_dice", "foreground_dice_tuned", "constant_dice")
            },
        }

    @property
    def is_current(self) -> bool:
        """Whether all that the run depends on has the same version today."""
        return not changed_components(self.record)


def recorded_runs(
    results_dir: str | Path | None,
    study: str,
    *,
    runs_dir: str | Path | None = None,
    stale: bool = False,
) -> dict[str, Recorded]:
    """The runs that the records in a folder hold, by run id; a run that two studies ask for is one.

    Args:
        results_dir: the folder of the records of all studies; None, or an empty name, for none.
        study: the study that asks: where two studies hold a run, its own records count, then those with the pixels.
        runs_dir: the folder of the run folders; runs that are to be trained again there are left out.
        stale: also give those of the study's own that were made with other versions than today's.
    """
    if not results_dir or not Path(results_dir).is_dir():
        return {}
    own = Path(results_dir) / study
    but = set() if runs_dir is None else tried_again(runs_dir)
    found: dict[str, Recorded] = {}
    others = [
        path
        for path in sorted(Path(results_dir).iterdir())
        if path != own and _has_each_image(path)
    ]
    for folder in [*sorted(others, key=lambda path: (path / "pixels.parquet").is_file()), own]:
        for table in _TABLES:
            for row in _rows(folder / f"{table}.parquet"):
                run = Recorded(folder, row)
                if row["run_id"] not in but and ((stale and folder == own) or run.is_current):
                    found[row["run_id"]] = run
    return found


def _has_each_image(folder: Path) -> bool:
    """Whether records hold the counts of single test images, as another study may need them."""
    file = folder / "study.json"
    return not file.is_file() or json.loads(file.read_text()).get("keep_each_image", True)


def _rows(path: Path) -> list[dict[str, Any]]:
    """The rows of a table that name their configuration and code; none where there is no such table."""
    import pandas as pd  # half a second, which a folder without records need not cost

    if not path.is_file():
        return []
    table = pd.read_parquet(path)
    if not {"run_id", "config", "code", "status", "wall_s"} <= set(table):
        return []  # a table of an older schema
    rows = table[table.config.notna()].to_dict("records")
    return [{str(name): value for name, value in row.items()} for row in rows]


def _number(value: Any) -> float | None:
    return None if value is None or math.isnan(value) else float(value)
