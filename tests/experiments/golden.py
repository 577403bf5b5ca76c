"""Golden runs: five steps of every configuration that a committed study uses, AdamW at a low rate, and how they end.

On the machine that made a case a change of one bit is found. On another a change of the formula, the data or the first
weights is (the first loss), and of the training what moves a loss by more than rounding does (TOLERANCE, OF_CHANGE).

``python tests/experiments/golden.py`` adds what is new to the table, and writes again what has another version than
when it was written. With ``--all`` it compares the other cases too; where bits have changed under the same version
it writes nothing and says which number to raise in ``lossatlas.experiments.versions``.

``--rounding``, after ``ROUNDING`` was raised: makes all runs and writes their bits, if every run is within the
tolerance of the table. If one is not, a formula has changed: it writes nothing and says so.
"""

from __future__ import annotations

import hashlib
import json
import sys
import tempfile
from collections import Counter
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from lossatlas import data
from lossatlas.experiments import RunConfig, Study, load_study, versions
from lossatlas.experiments.components import load_datasets
from lossatlas.experiments.provenance import _cpu_name
from lossatlas.experiments.record import read_run
from lossatlas.experiments.reevaluate import _threads
from lossatlas.experiments.study import study_names
from lossatlas.experiments.training import train_run
from lossatlas.experiments.versions import component_versions

ROOT = Path(__file__).resolve().parents[2]
TABLE = Path(__file__).with_name("golden.json")
#: On another processor, or with another torch, sums have other last digits, and five steps carry them on. The loss of
#: the first step agrees to this relative difference, those after it to the second. Logits do not: a bias before a batch
#: normalisation has no gradient but rounding, which AdamW turns into whole steps.
FIRST, TOLERANCE = 1e-4, 3e-2
#: A loss that hardly moves in five steps is held closer: to this share of its largest change since the first step, or
#: to a relative difference of LEAST. Over all cases, AVX2 beside AVX-512 on one machine, half of what is allowed was
#: used; a doubled rate is found in 338 of 361.
OF_CHANGE, LEAST = 0.2, 8e-3
#: Largest rate of a case under AdamW: it turns a gradient that is rounding alone into a step as long as any other, and
#: at a study's .03 five of them carry the last digit to a tenth of the loss. A rate is no option of the code.
RATE = 1e-3
STEPS = 5
#: Images of each split: of the training split so many with foreground, then so many others.
WITH_FOREGROUND, OTHERS = 8, 4
#: Pixels of an image above which there are only two and one, and of those a window.
SMALL = 20_000
WINDOW = 128
#: Width of a network times images a step above which a case takes two images a step: a step of a study that ran on a
#: GPU costs seconds on a CPU.
WIDE = 400
#: Images of a split that are made to choose them from.
IMAGES = 400


@dataclass(frozen=True)
class Golden:
    """What a run of five steps ended with.

    Attributes:
        versions: of the components, when it was made.
        weights, record: SHA-256 of the trained network, and of all that the evaluation found.
        losses: of each step.
        machine: where it was made, as :func:`machine`; in the table only where it differs from the table's.
        run_id: of its configuration: a study may change its plan, and keep the names of data set, network and loss.
    """

    versions: dict[str, int]
    weights: str
    record: str
    losses: list[float]
    machine: str = ""
    run_id: str = ""

    def is_near(self, other: Golden) -> bool:
        """Whether both are one run on two machines."""
        if not self.losses or len(self.losses) != len(other.losses):
            return self.losses == other.losses  # a run that diverges at once has none
        ours, theirs = np.array(self.losses), np.array(other.losses)
        size, change = np.abs(ours), np.abs(ours - ours[0]).max()
        allowed = np.minimum(TOLERANCE * size, np.maximum(OF_CHANGE * change, LEAST * size))
        allowed[0] = FIRST * size[0]
        return bool((np.abs(theirs - ours) <= allowed).all())


def machine() -> str:
    """What decides the last digits: the processor with the instructions that kernels choose by, and torch."""
    info = Path("/proc/cpuinfo")
    flags = set(info.read_text().split()) if info.is_file() else set()
    wide = sorted(flag for flag in flags if flag.startswith(("avx512", "amx", "avx_")))
    has = hashlib.sha256(" ".join(wide).encode()).hexdigest()[:8]
    capability = torch.backends.cpu.get_cpu_capability()
    return f"{_cpu_name()}, {capability} ({has}), torch {torch.__version__}"


def studies() -> list[str]:
    """The committed studies."""
    return study_names(ROOT / "studies")


def recorded() -> list[str]:
    """Those with records."""
    return [name for name in studies() if list((ROOT / "results" / name).glob("*.parquet"))]


def load(name: str) -> Study:
    """A committed study."""
    return load_study(name, ROOT / "studies")


def cases(name: str) -> dict[str, RunConfig]:
    """Every loss × model × data set of a study with every optimiser, by name, for five steps at the first seed.

    How many images there are, which draw they are, and a rate above RATE under AdamW are no options of the code: cases
    that differ in that alone are one. So is what an earlier study has already.
    """
    seen = {
        each.run_id
        for earlier in studies()
        if earlier < name
        for each in _configs(earlier).values()
    }
    return {case: config for case, config in _configs(name).items() if config.run_id not in seen}


@cache
def compared() -> dict[str, dict[str, RunConfig]]:
    """By study, the cases that `make test` compares: those with a level that no case before them had.

    A level is a data set, network or loss with its options, or all other options together: so every level of every
    design is trained at least once. Real images are counted apart, for not every machine has them. All cases are
    compared with LOSSATLAS_EXTENDED=1, which the weekly workflow sets, and by this file's command.
    """
    seen: dict[bool, set[str]] = {True: set(), False: set()}
    kept: dict[str, dict[str, RunConfig]] = {}
    for name in studies():
        kept[name] = {}
        for case, config in cases(name).items():
            before = seen[config.dataset == "digits"]
            if levels(config) - before:
                before |= levels(config)
                kept[name][case] = config
    return kept


def levels(config: RunConfig) -> set[str]:
    """Data set, network and loss of a case, each with its options, and its other options together."""
    values = config.model_dump(exclude={"seed", "steps", "evaluations", "share_every"})
    of_part = {
        part: {k: v for k, v in values.items() if k.startswith(part)}
        for part in ("dataset", "model", "loss")
    }
    rest = {k: v for k, v in values.items() if not k.startswith(tuple(of_part))}
    return {json.dumps(part, sort_keys=True) for part in (*of_part.values(), rest)}


@cache
def _configs(name: str) -> dict[str, RunConfig]:
    study = load(name)
    optimizers = study.tuning.optimizer if study.tuning else [None]
    found: dict[str, RunConfig] = {}
    for combination in study.combinations():
        for optimizer in optimizers:
            values = study.values(combination) | {"seed": study.seeds[0]}
            values |= {"steps": STEPS, "evaluations": 1, "share_every": 2}
            values |= {"optimizer": optimizer} if optimizer else {}
            if values["optimizer"] == "adamw":
                values["lr"] = min(values["lr"], RATE)
            if values["model_params"].get("width", 0) * values["batch_size"] > WIDE:
                values["batch_size"] = 2
            params = {
                k: v for k, v in values["dataset_params"].items() if k not in ("seed", "fold")
            }
            sizes = {
                k: min(v, IMAGES)
                for k, v in params.items()
                if k.endswith("_size") and k[:-5] in ("train", "val", "test")
            }
            config = RunConfig(**values | {"dataset_params": params | sizes})
            if config.run_id not in {each.run_id for each in found.values()}:
                case = f"{study.study}: {' · '.join(combination)} · {config.optimizer}"
                found[case] = config
    return found


@cache
def datasets_of(key: str) -> dict[str, Any] | None:
    """A few images of each split of a data set, by :func:`key`; None where it is not on this machine."""
    name, params = json.loads(key)
    if not data.is_available(name, **params):
        return None
    loaded = load_datasets(RunConfig(dataset=name, dataset_params=params))
    return {split: _part(each) for split, each in loaded.items()}


def key(config: RunConfig) -> str:
    """The data set of a case."""
    return json.dumps([config.dataset, config.dataset_params], sort_keys=True)


def _part(whole: Any) -> Any:
    counts = np.asarray(whole.image_counts())
    rare = np.delete(counts, counts.sum(0).argmax(), axis=1).sum(1) > 0
    small = whole.labels[0].size <= SMALL
    with_foreground, others = (WITH_FOREGROUND, OTHERS) if small else (2, 1)
    chosen = [*np.flatnonzero(rare)[:with_foreground], *np.flatnonzero(~rare)[:others]]
    images, labels = whole.images[chosen], whole.labels[chosen]
    if not small:  # a window with foreground: the whole image costs seconds a case
        common = int(counts.sum(0).argmax())
        row, column = np.argwhere((labels[0] != common) & (labels[0] != whole.ignore_index))[0]
        top = min(int(row), labels.shape[1] - WINDOW)
        left = min(int(column), labels.shape[2] - WINDOW)
        window = (slice(None), slice(top, top + WINDOW), slice(left, left + WINDOW))
        images, labels = images[window], labels[window]
    return data.SegmentationDataset(
        name=whole.name,
        split=whole.split,
        classes=whole.classes,
        mode=whole.mode,
        images=np.ascontiguousarray(images),
        labels=np.ascontiguousarray(labels),
        ids=[whole.ids[i] for i in chosen],
        groups=[whole.groups[i] for i in chosen],
        mean=whole.mean,
        std=whole.std,
        ignore_index=whole.ignore_index,
        params=whole.params,
    )


def run(config: RunConfig, datasets: dict[str, Any]) -> Golden:
    """Train and evaluate a case."""
    with _threads(1), tempfile.TemporaryDirectory() as folder:
        made = train_run(config, datasets, runs_dir=folder, accelerator="cpu")
        record = read_run(made)
        network = torch.load(made / "last.ckpt", weights_only=True)["model"]
        counts = pd.read_parquet(made / "per_image.parquet")
        curves = pd.read_parquet(made / "curves.parquet")
        with np.load(made / "predictions.npz") as saved:
            predicted = saved["predictions"].tobytes()
    weights = hashlib.sha256()
    for name, value in network.items():
        weights.update(name.encode() + value.contiguous().numpy().tobytes())
    evaluated = hashlib.sha256(predicted + counts.to_csv(index=False).encode())
    found = {
        name: record.get(name) for name in ("metrics", "rules", "calibration", "oracle", "reach")
    }
    evaluated.update(json.dumps(found, sort_keys=True).encode())
    return Golden(
        component_versions(config),
        weights.hexdigest()[:16],
        evaluated.hexdigest()[:16],
        [float(f"{value:.6g}") for value in curves.loss_value],
        machine(),
        config.run_id,
    )


def read() -> tuple[int, dict[str, Golden]]:
    """The rounding revision of the committed table, and its cases."""
    if not TABLE.is_file():
        return versions.ROUNDING, {}
    content = json.loads(TABLE.read_text())
    most = {"machine": content["machine"]}
    cases = {name: Golden(**most | case) for name, case in content["cases"].items()}
    return content.get("rounding", 1), cases


def same_bits(before: Golden | None, rounding: int) -> bool:
    """Whether a case of a table of this rounding revision must come out with the same bits here."""
    made_here = before is not None and before.machine == machine()
    return made_here and rounding == versions.ROUNDING


def write(table: dict[str, Golden]) -> None:
    """Write the table; a case names its machine where it is not the one of most cases."""
    most = Counter(case.machine for case in table.values()).most_common(1)[0][0]
    lines = []
    for name in sorted(table):
        values = asdict(table[name])
        if values["machine"] == most:
            del values["machine"]
        lines.append(f"  {json.dumps(name)}: {json.dumps(values)}")
    body = ",\n".join(lines)
    head = f'"machine": {json.dumps(most)},\n "rounding": {versions.ROUNDING},\n'
    TABLE.write_text(f'{{{head} "cases": {{\n{body}\n}}}}\n')


def verdict(before: Golden | None, now: Golden, same_bits: bool) -> str:
    """``"equal"``, ``"new"`` (not in the table, or planned otherwise), ``"raised"`` (another version) or what is wrong.

    `same_bits`: whether both were made on one machine with one rounding revision, and must have the same bits.
    """
    if before is None or before.run_id != now.run_id:
        return "new"
    if before.versions != now.versions:
        return "raised"
    if not before.is_near(now):
        return (
            f"another run, beyond the tolerance between machines ({FIRST:g} of the first loss, at most "
            f"{TOLERANCE:g} of the others): raise the version of the training, "
            "model, loss or data; the runs made before are then stale"
        )
    if same_bits and before.weights != now.weights:
        return (
            "other weights under the same versions. If a formula has changed, raise the version of the training, "
            "model, loss or data: the runs made before are then stale. If only the order of sums has changed, raise "
            "ROUNDING and run `python tests/experiments/golden.py --rounding`: records stay valid"
        )
    if same_bits and before.record != now.record:
        return "another evaluation of the same weights under the same version: raise EVALUATION"
    return "equal"


def main(everything: bool = False, rounding: bool = False) -> int:
    """Bring the table up to date.

    With `everything` also compare the cases that it has with today's versions; with `rounding` make them all and take
    their bits, if all are within the tolerance.
    """
    made, table = read()
    if rounding == (made == versions.ROUNDING):
        print(
            f"the table was made with ROUNDING {made}, which is still its value: expected a raised one in "
            "lossatlas.experiments.versions; raise it first"
            if rounding
            else f"the table was made with ROUNDING {made}, which is now {versions.ROUNDING}: add --rounding"
        )
        return 1
    wrong, kept = [], {}
    for name in studies():
        for case, config in cases(name).items():
            there = table.get(case)
            current = (
                there is not None
                and there.run_id == config.run_id
                and there.versions == component_versions(config)
            )
            skip = current and not everything and not rounding
            datasets = None if skip else datasets_of(key(config))
            if datasets is None:
                kept |= {case: table[case]} if case in table else {}
                if rounding and case in table:
                    wrong.append(f"{case}: its data set is not on this machine, get it first")
                continue
            kept[case] = run(config, datasets)
            found = verdict(table.get(case), kept[case], same_bits(there, made))
            if found not in ("equal", "new", "raised"):
                wrong.append(f"{case}: {found}")
    if wrong:
        print("\n".join(wrong))
        return 1
    write(kept)
    print(f"{len(kept)} golden runs in {TABLE}")
    return 0


if __name__ == "__main__":
    sys.exit(main("--all" in sys.argv, "--rounding" in sys.argv))
