"""A study of 100,000 runs is read, judged and tabulated; memory is bounded, and no part is looked for in all."""

from __future__ import annotations

import itertools
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

BEGIN = Path(__file__).parents[2] / "results" / "begin"
LOSSES = ("ce", "weighted_ce", "focal", "ohem_ce", "dice", "dice_ce", "tversky", "jaccard",
          "lovasz_softmax", "generalized_dice")  # fmt: skip
#: Pixels of a thousand that a loss leaves out, and how many more with another seed.
LESS, MORE = {"ce": 40, "dice": 10}, {"ce": 3}

REPORTED = """
import json, pathlib, re, sys, time
from lossatlas.claims.judge import judge
from lossatlas.report import records, tables
from lossatlas.report.scores import Scores
start = time.perf_counter()
read = records.load(sys.argv[1], "large")
verdict = judge(read)[0]
table = tables.comparison([Scores(read.parts[0])], read.parts[0].losses)
print(json.dumps({
    "runs": len(read.runs), "parts": len(read.parts), "outcome": verdict.outcome,
    "rows": len(table.frame), "seconds": round(time.perf_counter() - start, 1),
    "mib": int(re.search(r"VmHWM:\\s+(\\d+)", pathlib.Path("/proc/self/status").read_text())[1]) / 1024,
}))
"""


def large_study(folder: Path, places: int, seeds: int) -> Path:
    """Records of `places`² parts × 10 losses × `seeds`, made of one run of `begin`; ``ce`` finds least."""
    one = pd.read_parquet(BEGIN / "runs.parquet")
    one = one[one.dataset == "pi3"].head(1)
    key = ["run_id", "dataset", "model", "loss", "seed"]
    sets, models = [f"data{i}" for i in range(places)], [f"net{i}" for i in range(places)]
    runs = pd.DataFrame(
        itertools.product(sets, models, LOSSES, range(seeds)), columns=key[1:]
    ).assign(run_id=lambda d: [f"{i:016x}" for i in range(len(d))])
    tables = {
        name: pd.read_parquet(BEGIN / f"{name}.parquet").merge(one[["run_id"]])
        for name in ("per_class", "per_image", "curves")
    }
    image = tables["per_image"].drop_duplicates(["rule", "class_index"])
    image = pd.concat(
        image.assign(image_id=each, group=each, fp=100, pixels=4096) for each in ("one", "two")
    )
    wide = {
        name: runs.merge(rows.drop(columns=key).head(6), how="cross")
        for name, rows in {"runs": one, **tables, "per_image": image}.items()
    }
    lost = missed(wide["per_image"])
    wide["per_image"] = wide["per_image"].assign(tp=1000 - lost, fn=100 + lost)
    lost = missed(wide["runs"])
    dice = 2 * (1000 - lost) / (2 * (1000 - lost) + 200 + lost)
    columns = ["foreground_dice", "foreground_dice_tuned", "foreground_dice_theory"]
    wide["runs"] = wide["runs"].assign(loss_name=wide["runs"].loss, **dict.fromkeys(columns, dice))
    for name, table in wide.items():
        table.to_parquet(folder / f"{name}.parquet")
    np.savez(folder / "predictions.npz")
    study = json.loads((BEGIN / "study.json").read_text(encoding="utf-8"))
    holds = [
        {
            "quantity": "dice",
            "losses": ["dice", "ce"],
            "rule": "tuned",
            "over": "seeds",
            "is": "> 0.01",
        }
    ]
    study |= {
        "study": "large", "places": [], "datasets": sets, "models": models, "seeds": list(range(seeds)),
        "losses": [{"label": name, "name": name} for name in LOSSES],
        "classes": dict.fromkeys(sets, study["classes"]["pi3"]),
        "predictions": [{"claim": 4, "text": "Dice finds more.", "holds": holds}],
    }  # fmt: skip
    (folder / "study.json").write_text(json.dumps(study), encoding="utf-8")
    return folder


def missed(rows: pd.DataFrame) -> pd.Series:
    """Foreground pixels of an image that a run leaves out beside the first hundred."""
    more = rows.loss.map(MORE).fillna(1) * rows.seed % 7
    return (rows.loss.map(LESS).fillna(20) + more).astype(int)


def reported(folder: Path) -> dict:
    """What a new process says of the records, with its time and memory."""
    done = subprocess.run(
        [sys.executable, "-c", REPORTED, str(folder)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]
    print(done.stdout, done.stderr)
    return json.loads(done.stdout)


@pytest.mark.parametrize(
    ("places", "seeds"),
    [(2, 3), pytest.param(10, 100, marks=[pytest.mark.extended, pytest.mark.timeout(1800)])],
)
def test_a_study_of_100_000_runs_is_read_judged_and_tabulated(tmp_path, places, seeds):
    found = reported(large_study(tmp_path, places, seeds))
    assert found["runs"] == places**2 * len(LOSSES) * seeds
    assert found["parts"] == places**2 and found["rows"] >= len(LOSSES)
    assert found["outcome"] == "holds"
    assert found["mib"] < 2500
