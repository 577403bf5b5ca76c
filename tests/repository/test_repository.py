"""What the repository promises of itself."""

from __future__ import annotations

import itertools
import json
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml

from lossatlas.claims import judge
from lossatlas.experiments.study import published_studies
from lossatlas.report.records import load

ROOT = Path(__file__).resolve().parents[2]


def tracked():
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True)
    if listed.returncode:
        pytest.skip("not a git checkout")
    return [ROOT / name for name in listed.stdout.split("\0") if name and (ROOT / name).is_file()]


def test_no_import_runs_upward():
    program = Path(sys.executable).parent / "lint-imports"
    done = subprocess.run([program], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_core_needs_torch_and_numpy_alone():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    names = {re.split(r"[<>=!~ ]", requirement)[0] for requirement in project["dependencies"]}
    assert names == {"torch", "numpy"}
    assert {"experiments", "book", "dev"} <= set(project["optional-dependencies"])


def test_every_locked_version_has_hashes_and_no_registry_is_named():
    lock = (ROOT / "requirements.lock").read_text()
    entries = re.split(r"\n(?=[a-zA-Z0-9])", lock.split("\n", 1)[1])
    assert len(entries) > 100
    assert all("--hash=sha256:" in entry for entry in entries)
    assert "://" not in lock


def test_the_lock_has_every_package_that_the_project_asks_for():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    locked = set(
        re.findall(r"^([A-Za-z0-9._-]+)==", (ROOT / "requirements.lock").read_text(), re.M)
    )
    asked = [*project["dependencies"], *itertools.chain(*project["optional-dependencies"].values())]
    missing = {re.split(r"[<>=!~ ]", r)[0].lower().replace("_", "-") for r in asked} - locked
    assert not missing, f"run `make lock`: {missing}"


def test_committed_files_stay_small():
    sizes = {path: path.stat().st_size for path in tracked()}
    large = {str(p.relative_to(ROOT)): s for p, s in sizes.items() if s > 2 * 2**20}
    assert not large
    assert sum(sizes.values()) < 30 * 2**20


def test_the_records_hold_no_photograph():
    found = sorted((ROOT / "results").rglob("predictions.npz"))
    for path in found:
        with np.load(path) as saved:
            shown = {key.split("/")[0] for key in saved if key.endswith("/images")}
        runs = pd.read_parquet(path.parent / "runs.parquet", columns=["dataset", "config"])
        sets = {json.loads(text)["dataset"] for text in runs.config[runs.dataset.isin(shown)]}
        assert sets <= {"digits"}, f"{path}: keep_images: false in the study, and collect it again"
    assert len(found) > 5


def test_the_conda_entry_point_reads_the_same_lock():
    environment = yaml.safe_load((ROOT / "environment.yml").read_text())
    pip = next(d for d in environment["dependencies"] if isinstance(d, dict))["pip"]
    assert pip == ["--requirement=requirements.lock"]


def test_the_versions_agree():
    import lossatlas

    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert lossatlas.__version__ == project["version"] == str(citation["version"])


def test_every_make_target_of_the_readme_exists():
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.M))
    named = set(re.findall(r"make ([a-z]+)", (ROOT / "README.md").read_text()))
    assert named - {"and"} <= targets
    assert {"book", "test"} <= named


def test_the_readme_s_example_runs():
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.S)
    assert blocks
    for block in blocks:
        exec(compile(block, "README.md", "exec"), {})


def test_the_verdicts_of_published_studies_are_those_of_their_records():
    """What the ledger reads: a study whose predictions say how they are checked has been judged, as it is now."""
    for name in (study.study for study in published_studies(ROOT / "studies")):
        folder = ROOT / "results" / name
        if not folder.is_dir():
            continue  # its page says that it was not run
        study = json.loads((folder / "study.json").read_text())
        if not any(prediction.get("holds") for prediction in study["predictions"]):
            continue  # its page judges them
        verdicts = json.loads((folder / "verdicts.json").read_text())
        told = f"run `lossatlas verdicts {name}`"
        assert verdicts.get("fingerprint") == study["fingerprint"], told
        assert verdicts["verdicts"] == judge.claims(judge.judge(load(folder))), told
