"""What the workflow costs beside the training: for studies of 1, 10, 100 and 1,000 runs that have nothing to train.

    python benchmarks/workflow.py --out results/bench            # about ten minutes on one core
    python benchmarks/workflow.py --out /tmp/bench --quick       # a smoke test

The runs are there already (copies of one that was trained for a step on 16×16 pixels), so that what is left is the
workflow itself. Two tables:

``workflow.csv``   a row a stage and size: ``plan`` (`lossatlas plan`), ``graph`` (Snakemake's graph with a job for each
                   run, nothing executed), ``jobs`` (Snakemake executes jobs of ``runs_per_job`` runs each, each job a
                   process that looks at its runs), ``collect`` (the records, made anew).
``engine.csv``     a row a process: a kernel that does nothing, one that imports what every training needs,
                   ``train.ipynb`` with one run and with several of one step, a job with one and with several such runs;
                   with the files and the bytes that a run leaves.

``wall_s`` is what a clock shows, and grows on a busy machine; ``core_s`` are the seconds that the processes were on a
core, children included, which do not; ``own_s`` leaves the children out. All are medians over the rounds.
``beyond_start_s`` is ``core_s`` less that of a study of one run, and ``exponent`` its slope in the logarithms from the
size before: 1 is a cost that is the same for each run. ``workflow.json`` says where and when.
"""

from __future__ import annotations

import argparse
import contextlib
import csv
import datetime
import importlib.metadata
import json
import math
import os
import platform
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import nbformat
import psutil
import yaml

from lossatlas.experiments import RunConfig, Study, load_study
from lossatlas.experiments.record import run_path
from lossatlas.workflow import PROFILE, snakemake

ROOT = Path(__file__).resolve().parents[1]
LOSSES = (
    "ce",
    "weighted_ce",
    "one_vs_all_ce",
    "focal",
    "ohem_ce",
    "dice",
    "jaccard",
    "tversky",
    "dice_ce",
    "lovasz_softmax",
)
SIZES = (1, 10, 100, 1000)
#: Of the studies that are executed: a process of its own for each run would be the training's start, measured below.
RUNS_PER_JOB = 20
#: Runs of one step that a notebook or a job makes, beside one.
SEVERAL = 6
#: What every training imports before it can begin.
KERNEL_IMPORTS = "import torch\nimport lightning_fabric"


def checkout(folder: Path) -> None:
    """The parts of a checkout that the workflow reads."""
    for name in ("notebooks", "workflow"):
        (folder / name).symlink_to(ROOT / name)


def write_study(folder: Path, name: str, runs: int, runs_per_job: int) -> Study:
    """A study of ``runs`` runs of one step, over as many losses as it can have."""
    losses = LOSSES[: math.gcd(runs, len(LOSSES))]
    content: dict[str, Any] = {
        "study": name,
        "question": "what does a run cost that trains nothing?",
        "datasets": [
            {
                "name": "digits",
                "params": {
                    "image_size": 16,
                    "objects": 1,
                    "train_size": 8,
                    "val_size": 4,
                    "test_size": 4,
                },
            }
        ],
        "models": [{"name": "unet", "params": {"width": 4, "depth": 2}}],
        "losses": list(losses),
        "seeds": list(range(runs // len(losses))),
        "training": {"steps": 1, "batch_size": 4, "evaluations": 1},
        "runs_per_job": runs_per_job,
    }
    path = folder / f"{name}.yaml"
    path.write_text(yaml.safe_dump(content))
    return load_study(str(path))


def train_one(folder: Path) -> tuple[RunConfig, Path]:
    """A run that is really trained, of which the others are copies."""
    study = write_study(folder, "one", 1, 1)
    subprocess.run(lossatlas("train", "one.yaml", "report-digits-unet-0"), cwd=folder, check=True)
    ((_, config),) = study.reporting_runs()
    return config, run_path(folder / "runs", config)


def copy_runs(study: Study, trained: Path, runs_dir: Path) -> None:
    """A whole record for every run of ``study``, as if each had been trained."""
    from lossatlas.experiments.versions import component_versions

    record = json.loads((trained / "run.json").read_text())
    versions: dict[str, dict[str, int]] = {}
    for _, config in study.reporting_runs():
        folder = run_path(runs_dir, config)
        if folder.is_dir():
            continue
        shutil.copytree(trained, folder)
        versions.setdefault(config.loss, component_versions(config))
        own = {"run_id": config.run_id, "config": config.model_dump(mode="json")}
        own["code"] = versions[config.loss]
        (folder / "run.json").write_text(json.dumps(record | own, indent=1) + "\n")


def lossatlas(*arguments: str) -> list[str]:
    """A command of the package, as the workflow types it."""
    return [str(Path(sys.executable).parent / "lossatlas"), *arguments]


def measured(command: Sequence[str], folder: Path) -> tuple[float, float, float]:
    """Seconds by the clock, on a core with all that it starts, and on a core of the command's own process."""

    def on_core() -> float:
        used = resource.getrusage(resource.RUSAGE_CHILDREN)
        return used.ru_utime + used.ru_stime

    before, began, own = on_core(), time.perf_counter(), 0.0
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    with tempfile.TemporaryFile("w+") as output:
        process = subprocess.Popen(
            command,
            cwd=folder,
            env=os.environ | {"PATH": path},
            stdout=output,
            stderr=subprocess.STDOUT,
        )
        # its own time can be asked for as long as it is there: the last answer misses a tenth of a second at most
        with contextlib.suppress(psutil.NoSuchProcess):
            watched = psutil.Process(process.pid)
            while process.poll() is None:
                times = watched.cpu_times()
                own = max(own, times.user + times.system)
                time.sleep(0.1)
        if process.wait():
            output.seek(0)
            raise SystemExit(
                f"{' '.join(command)}\n{output.read()[-3000:]}\nended with {process.returncode}"
            )
    return time.perf_counter() - began, on_core() - before, own


def repeated(
    command: Sequence[str], folder: Path, rounds: int, forget: Iterable[Path] = ()
) -> dict[str, float]:
    """Medians over the rounds; what is in ``forget`` is deleted before each."""
    times = []
    for _ in range(rounds):
        for path in forget:
            shutil.rmtree(path, ignore_errors=True)
        times.append(measured(command, folder))
    names = ("wall_s", "core_s", "own_s")
    return {
        name: statistics.median(found)
        for name, found in zip(names, zip(*times, strict=True), strict=True)
    }


def workflow(folder: Path, sizes: Sequence[int], rounds: int) -> list[dict[str, Any]]:
    """Every stage of studies whose runs are there."""
    _, trained = train_one(folder)
    rows: list[dict[str, Any]] = []
    for runs in sizes:
        few = rounds if runs < 1000 else 1
        study = write_study(folder, f"no_op_{runs}", runs, RUNS_PER_JOB)
        write_study(folder, f"each_{runs}", runs, 1)
        copy_runs(study, trained, folder / "runs")
        jobs = -(-runs // RUNS_PER_JOB)
        file = f"{study.study}.yaml"
        graph = snakemake(f"each_{runs}.yaml", 1, "runs", PROFILE)
        engine = snakemake(file, os.cpu_count(), "runs", PROFILE)
        cells, records = folder / "runs/cells" / study.study, folder / "results" / study.study
        for stage, in_jobs, command, forget in (
            ("plan", runs, lossatlas("plan", file), []),
            ("graph", runs, [*graph, "--dry-run"], []),
            ("jobs", jobs, engine, [cells]),
            ("collect", runs, lossatlas("collect", file), [records]),
        ):
            times = repeated(command, folder, few, forget)
            rows.append({"stage": stage, "runs": runs, "jobs": in_jobs, **times, "rounds": few})
            show(rows[-1])
    return grown(rows)


def grown(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The rows with what is beyond the study of one run, for each run, and how it grows."""
    last: dict[str, dict[str, Any]] = {}
    start = {row["stage"]: row["core_s"] for row in reversed(rows)}
    for row in rows:
        before = last.get(row["stage"])
        row["beyond_start_s"] = row["core_s"] - start[row["stage"]]
        row["ms_per_run"] = (
            1e3 * row["beyond_start_s"] / (row["runs"] - 1) if row["runs"] > 1 else math.nan
        )
        row["exponent"] = math.nan
        if before and before["beyond_start_s"] > 0 and row["beyond_start_s"] > 0:
            row["exponent"] = math.log(row["beyond_start_s"] / before["beyond_start_s"]) / math.log(
                row["runs"] / before["runs"]
            )
        last[row["stage"]] = row
    return rows


def kernel(folder: Path, source: str) -> list[str]:
    """papermill's command for a notebook with one cell."""
    path = folder / f"kernel_{len(source)}.ipynb"
    cell = nbformat.v4.new_code_cell(source)
    nbformat.write(nbformat.v4.new_notebook(cells=[cell]), path)
    return papermill(str(path))


def papermill(notebook: str, *arguments: str) -> list[str]:
    """The command that executes a notebook, as the workflow types it."""
    program = str(Path(sys.executable).parent / "papermill")
    return [program, notebook, "out.ipynb", "-k", "python3", "--no-progress-bar", *arguments]


def engine(folder: Path, rounds: int) -> list[dict[str, Any]]:
    """Kernels, notebooks and jobs that train a step for each of their runs."""
    several = write_study(folder, "several", SEVERAL, SEVERAL)
    write_study(folder, "single", 1, 1)
    runs = folder / "engine_runs"
    where = ["-p", "runs_dir", runs.name]
    ((_, config), *_) = several.reporting_runs()
    parameters = config.model_dump(exclude={"seed"})
    of_notebook = [
        papermill(
            "notebooks/train.ipynb",
            *where,
            "-y",
            json.dumps({**parameters, "seeds": list(range(n))}),
        )
        for n in (1, SEVERAL)
    ]
    job = ("report-digits-unet-0", "--runs-dir", runs.name)
    cases: list[tuple[str, int, list[str]]] = [
        ("an empty kernel", 0, kernel(folder, "1")),
        ("a kernel with the imports of a training", 0, kernel(folder, KERNEL_IMPORTS)),
        ("notebook", 1, of_notebook[0]),
        ("notebook", SEVERAL, of_notebook[1]),
        ("a process with the imports of a training", 0, [sys.executable, "-c", KERNEL_IMPORTS]),
        ("job", 1, lossatlas("train", "single.yaml", *job)),
        ("job", SEVERAL, lossatlas("train", "several.yaml", *job)),
    ]
    rows = []
    for what, count, command in cases:
        times = repeated(command, folder, rounds, [runs])
        folders = [path.parent for path in runs.glob("[!.]*/run.json")]
        train_s = sum(json.loads((path / "run.json").read_text())["train_s"] for path in folders)
        files = [path for each in folders for path in each.iterdir()]
        row = {"what": what, "runs": count, **times, "train_s": train_s if count else math.nan}
        row["files_per_run"] = len(files) / count if count else math.nan
        row["kb_per_run"] = (
            sum(path.stat().st_size for path in files) / 1e3 / count if count else math.nan
        )
        rows.append(row | {"rounds": rounds})
        show(rows[-1])
    return rows


def show(row: dict[str, Any]) -> None:
    """A row for whoever watches."""
    text = (f"{k} {v:.4g}" if isinstance(v, float) else f"{k} {v}" for k, v in row.items())
    print("  ".join(text), flush=True)


def write(rows: list[dict[str, Any]], path: Path) -> None:
    """Rows as CSV, floats to four significant digits, what is not defined left empty."""

    def text(value: Any) -> Any:
        if not isinstance(value, float):
            return value
        return "" if math.isnan(value) else f"{value:.4g}"

    with path.open("w", newline="") as file:
        table = csv.DictWriter(file, fieldnames=list(rows[0]), lineterminator="\n")
        table.writeheader()
        table.writerows({key: text(value) for key, value in row.items()} for row in rows)


def machine(load_before: float) -> dict[str, Any]:
    """Where and when this was measured."""
    packages = ("snakemake", "papermill", "torch")
    return {
        "cpu": platform.processor() or platform.machine(),
        "cores": os.cpu_count(),
        "load_average_before_and_after": [load_before, os.getloadavg()[0]],
        "runs_per_job": RUNS_PER_JOB,
        "versions": {name: importlib.metadata.version(name) for name in packages},
        "measured_utc": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "how": (__doc__ or "").rsplit("\n\n", 1)[-1].replace("\n", " ").strip(),
    }


def main(arguments: Iterable[str] | None = None) -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("--out", type=Path, required=True, help="folder for the results")
    parser.add_argument("--rounds", type=int, default=3, help="rounds of each measurement")
    parser.add_argument("--only", nargs="+", choices=["workflow", "engine"], default=None)
    parser.add_argument("--quick", action="store_true", help="1 and 10 runs: a smoke test")
    options = parser.parse_args(None if arguments is None else list(arguments))
    if options.rounds < 1:
        parser.error(f"--rounds must be at least 1, got {options.rounds}")
    rounds = 1 if options.quick else options.rounds
    wanted = options.only or ["workflow", "engine"]
    load_before = os.getloadavg()[0]
    options.out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="workflow-") as name:
        folder = Path(name)
        checkout(folder)
        if "workflow" in wanted:
            sizes = SIZES[:2] if options.quick else SIZES
            write(workflow(folder, sizes, rounds), options.out / "workflow.csv")
        if "engine" in wanted:
            write(engine(folder, rounds), options.out / "engine.csv")
    (options.out / "workflow.json").write_text(json.dumps(machine(load_before), indent=2) + "\n")
    print(f"written: {options.out}")


if __name__ == "__main__":
    main()
