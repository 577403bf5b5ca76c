"""What the records of a study say, as pandas frames: the arithmetic of a page stays in sight on the page."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from lossatlas.claims.judge import judge
from lossatlas.claims.quantities import Share, entries
from lossatlas.experiments.study import load_study, study_names
from lossatlas.report.records import Records, load
from lossatlas.statistics.paired import Difference, holm, minimum_detectable_effect


def load_if_run(folder: str | Path, study: str) -> Records | None:
    """The records of a study; None where it has no reported run yet."""
    there = (Path(folder) / "study.json").is_file()
    return load(folder, study) if there else None


def whole(results: str | Path, *names: str) -> list[Records]:
    """The records of these studies, each in the folder of its name; none while one of them lacks runs."""
    sets = [load_if_run(Path(results) / name, name) for name in names]
    known = [each for each in sets if each is not None and not each.study["missing_runs"]]
    return known if len(known) == len(names) else []


def state(study: str, records: Records | None) -> str:
    """How much of a study has run, in a sentence, with the command that goes on.

    Parameters
    ----------
    study
        its name.
    records
        of it, or None.
    """
    asked = load_study(study)
    wanted = len(asked.members("report"))
    command = f"`lossatlas run {study}`"
    if records is None:
        tuning = len(asked.members("tuning"))
        also = f" and {tuning} tuning runs" if tuning else ""
        return f"**Not run.** {command} trains its {wanted} reported runs{also}."
    done = len(records.runs)
    if done < wanted:
        return (
            f"**{done} of {wanted} runs.** What follows is from these, and a prediction that needs others is open. "
            f"{command} trains them, on any machine."
        )
    return f"All {wanted} runs are here, and the predictions are judged."


def waiting(results: str | Path = "results") -> pd.DataFrame:
    """Studies that lack runs: their question, the runs that are collected and asked for, the command that goes on."""
    rows = []
    for name in study_names():
        asked, file = load_study(name), Path(results) / name / "study.json"
        wanted = len(asked.members("report"))
        there = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}
        missing = int(there.get("missing_runs", wanted))
        if missing:
            command = f"`lossatlas run {name}`"
            rows.append((asked.question, wanted - missing, wanted, command))
    columns = ["question", "runs there", "runs asked for", "command"]
    return pd.DataFrame(rows, columns=columns)


def differences(
    records: Records,
    quantity: str,
    losses: Sequence[str],
    rule: str | Sequence[str] = "half",
    where: Mapping[str, Any] | None = None,
    **options: Any,
) -> pd.DataFrame:
    """A quantity at every place: ``estimate``, ``low``, ``high`` (95 %), ``p``, ``sd`` over seeds, ``seeds``, ``why``.

    Indexed by place; a place whose runs are missing has NaN, and says why. ``p`` is the two-sided p-value of no
    difference, uncorrected (see :func:`shown`). The parameters are those of
    :func:`lossatlas.claims.quantities.entries`. A share of runs has no interval here.
    """
    rows = []
    for each in entries(records, quantity, losses, rule, where, **options):
        value = each.value
        row: dict[str, Any] = {"place": each.place, "why": each.why}
        if isinstance(value, Difference):
            row |= {"estimate": value.estimate, "low": value.low, "high": value.high}
            row |= {"p": value.p_value()}
            row |= {"sd": pd.Series(value.per_seed).std(), "seeds": value.seeds}
        elif isinstance(value, Share):
            row |= {"estimate": value.estimate, "seeds": value.trials}
        rows.append(row)
    columns = ["estimate", "low", "high", "p", "sd", "seeds", "why"]
    return pd.DataFrame(rows).set_index("place").reindex(columns=columns)


def shown(p_values: pd.Series) -> pd.Series:
    """Which differences of a list a page may call shown: p ≤ 0.05 after Holm's correction for the whole list."""
    values = p_values.astype(float)
    return pd.Series(holm(values.to_numpy()) <= 0.05, index=values.index, name="shown")


def verdicts(found: pd.DataFrame, scale: float = 100) -> pd.DataFrame:
    """Differences as a page shows them: in points, and what is left after a correction for their number.

    Args:
        found: as :func:`differences` gives it.
        scale: of the numbers; 100 makes points of Dice.

    Returns:
        ``estimate``, ``low``, ``high``, and ``shown``: "ahead" or "behind" where p ≤ 0.05 after Holm's correction for
        the rows, else "open".
    """
    numbers = scale * found[["estimate", "low", "high"]].astype(float)
    sign = np.sign(numbers.estimate) * shown(found.p)
    return numbers.assign(shown=sign.map({1: "ahead", -1: "behind", 0: "open"}))


def predictions(records: Records) -> pd.DataFrame:
    """What was predicted and what came: ``claim``, ``prediction`` and ``outcome``, with places where they differ."""
    rows = [
        {"claim": each.claim, "prediction": each.text, "outcome": each.where}
        for each in judge(records)
    ]
    return pd.DataFrame(rows, columns=["claim", "prediction", "outcome"])


def against(
    records: Records, quantity: str, reference: str, rule: str | Sequence[str] = "half"
) -> pd.DataFrame:
    """Every other loss minus a reference, for other trainings on the same test images.

    Indexed by loss and place, where both were trained. Columns: ``estimate``, ``low``, ``high`` (95 %), ``p``,
    ``seeds``, and ``smallest difference found``: what the planned seeds find with a chance of 80 %.

    Args:
        records: of a study.
        quantity: what is compared; see :func:`differences`.
        reference: label of the loss that is subtracted.
        rule: threshold of both.
    """
    planned = len(records.study["seeds"])
    least = minimum_detectable_effect(planned) if planned > 1 else math.inf
    tables = {}
    for loss in records.losses:
        if loss == reference:
            continue
        found = differences(records, quantity, [loss, reference], rule, over="seeds")
        tables[loss] = found.assign(**{"smallest difference found": found.sd * least})
    if not tables:
        names = ["estimate", "low", "high", "p", "seeds", "smallest difference found"]
        return pd.DataFrame(
            columns=names, index=pd.MultiIndex.from_tuples([], names=["loss", "place"])
        )
    made = pd.concat(tables, names=["loss"]).dropna(subset="estimate")
    return made.drop(columns=["sd", "why"]).astype({"seeds": int})
