"""Compare losses on one's own folder within a budget: plan, train, report; the same call goes on."""

from __future__ import annotations

import json
import math
import re
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import yaml

from lossatlas.basics import replacing
from lossatlas.data.errors import DataError, room_for
from lossatlas.experiments import ConfigError
from lossatlas.experiments.study import Study, load_study

#: Losses that are compared where none are named.
LOSSES = ("ce", "dice", "dice_ce")
#: The recipe: no activation before the last layer and 16 channels into it. The bias of the last layer is the prior's
#: for every loss, or two losses would differ in their start as well.
MODEL = {"width": 8, "depth": 3, "decoder_channels": [32, 16, 16], "head_activation": "none"}
#: Learning rates and seeds of the tuning. Two seeds are few: what a budget of minutes allows.
RATES, TUNING_SEEDS = (0.003, 0.01, 0.03), (1000, 1001)
#: The rate where the budget has no room for tuning.
FIXED_RATE = 0.01
#: Longer side of the images, in pixels, unless another one is asked for.
SIDE = 256
#: Seeds and whether rates are tuned, from the best design to the cheapest.
_DESIGNS = ((8, True), (5, True), (3, True), (5, False), (3, False))
_GOOD_STEPS, _LEAST_STEPS, _MOST_STEPS = 400, 100, 2000
_RESERVE = 0.1  # of the budget: for collecting, the page, and a machine that slows down
_SHORT, _LONG = 4, 16  # steps of the runs that are timed
_EVALUATIONS = 4
_BATCH = 8


@dataclass(frozen=True)
class Plan:
    """What fits into the budget.

    Attributes:
        seeds: runs of each loss that are reported.
        tuned: whether a rate is chosen for each loss.
        steps: optimiser steps of every run.
        seconds: how long all takes, as measured on this machine.
    """

    seeds: int
    tuned: bool
    steps: int
    seconds: float

    def __str__(self) -> str:
        rates = (
            f"rates {', '.join(f'{rate:g}' for rate in RATES)} tuned on {len(TUNING_SEEDS)} seeds"
            if self.tuned
            else f"rate {FIXED_RATE:g}, not tuned"
        )
        return (
            f"{self.seeds} seeds a loss, {self.steps} steps, {rates}; about {minutes(self.seconds)}"
        )


def budget_seconds(text: str) -> float:
    """Seconds of a budget such as ``90s``, ``30m`` or ``2h``.

    >>> budget_seconds("30m")
    1800.0

    Raises:
        ConfigError: another text, or nothing above 0.
    """
    found = re.fullmatch(r"([0-9]*\.?[0-9]+)([smh])", text.strip())
    seconds = float(found[1]) * {"s": 1, "m": 60, "h": 3600}[found[2]] if found else 0.0
    if not seconds > 0:
        raise ConfigError(f"budget: expected a time such as 90s, 30m or 2h, got {text!r}")
    return seconds


def minutes(seconds: float) -> str:
    """A time for people.

    >>> minutes(95), minutes(1200)
    ('95 s', '20 min')
    """
    return f"{seconds:.0f} s" if seconds < 120 else f"{seconds / 60:.0f} min"


def plan(
    budget_s: float, step_s: Mapping[str, float], overhead_s: float, spent_s: float = 0.0
) -> Plan:
    """The best design that fits: more seeds and tuning first, then steps up to 2,000.

    Args:
        budget_s: seconds for all.
        step_s: seconds of a training step by loss.
        overhead_s: seconds of a run beside its steps: start, validation, evaluation.
        spent_s: of the budget, for reading and measuring.

    Raises:
        ConfigError: not even three seeds of 100 steps fit; says which budget would do.
    """
    usable = max(budget_s - spent_s, 0.0) * (1 - _RESERVE)
    a_step = sum(step_s.values())
    for least in (_GOOD_STEPS, _LEAST_STEPS):
        for seeds, tuned in _DESIGNS:
            runs = seeds + (len(RATES) * len(TUNING_SEEDS) if tuned else 0)
            fixed = runs * len(step_s) * overhead_s
            steps = math.floor((usable - fixed) / (runs * a_step))
            if steps >= least and (tuned is False or least == _GOOD_STEPS):
                steps = min(steps, _MOST_STEPS)
                return Plan(seeds, tuned, steps, fixed + runs * a_step * steps)
    runs = _DESIGNS[-1][0]
    needed = runs * (len(step_s) * overhead_s + a_step * _LEAST_STEPS) / (1 - _RESERVE) + spent_s
    # measured anew the next time: a tenth more, in whole minutes
    asked = math.ceil(1.1 * needed / 60) * 60
    raise ConfigError(
        f"budget: expected at least {asked // 60} min for {len(step_s)} losses on this machine, got "
        f"{minutes(budget_s)}, of which reading and measuring took {minutes(spent_s)}; give more time, fewer losses "
        "or a smaller --side"
    )


def measure(
    configs: Mapping[str, Mapping[str, Any]], datasets: dict[str, Any]
) -> tuple[dict[str, float], float]:
    """(seconds of a step by loss, seconds of a run beside its steps), from a few short runs, which are deleted.

    Args:
        configs: parameters of a run by loss.
        datasets: the splits.
    """
    from lossatlas.experiments.config import RunConfig, validated
    from lossatlas.experiments.training import train_run

    def timed(values: Mapping[str, Any], steps: int, folder: str) -> float:
        config = validated(RunConfig, {**values, "steps": steps, "seed": 0}, what="parameter")
        started = time.perf_counter()
        train_run(config, datasets, runs_dir=folder)
        return time.perf_counter() - started

    with tempfile.TemporaryDirectory() as folder:
        first = next(iter(configs.values()))
        timed(first, 1, folder)  # the first run of a process also loads libraries
        short = timed(first, _SHORT, folder)
        long = {loss: timed(values, _LONG, folder) for loss, values in configs.items()}
    step = max((next(iter(long.values())) - short) / (_LONG - _SHORT), 1e-4)
    overhead = max(short - _SHORT * step, 0.0)
    return {loss: max((t - overhead) / _LONG, 1e-4) for loss, t in long.items()}, overhead


@dataclass(frozen=True)
class Request:
    """What was asked for: the same request goes on with the same study.

    Attributes:
        root: the folder, absolute.
        losses: names, each perhaps with parameters: ``dice:squared=true``.
        budget_s: seconds.
        side: longer side of the images; 0 leaves their size.
        ignore_index: of the masks, where ``classes.yaml`` has none.
    """

    root: str
    losses: list[str]
    budget_s: float
    side: int = SIDE
    ignore_index: int | None = None

    def dataset_params(self, say: Callable[[str], None] = print) -> dict[str, Any]:
        """Parameters of the data set ``folder``.

        Images are made smaller to one size. Those of one shape keep it; `say` is told where there are several.
        """
        params: dict[str, Any] = {"root": self.root}
        if self.ignore_index is not None:
            params["ignore_index"] = self.ignore_index
        if self.side:
            from lossatlas.data.folder import read_layout
            from lossatlas.data.reading import read_image

            layout = read_layout(Path(self.root))
            for fault in layout.faults():
                raise fault
            shapes = {read_image(layout.root / f).array.shape[:2] for f in layout.images.values()}
            height, width = max(h for h, _ in shapes), max(w for _, w in shapes)
            ratios = sorted(h / w for h, w in shapes)
            if ratios[-1] > 1.05 * ratios[0]:
                say(
                    f"{self.root}: images of {len(shapes)} sizes, from {ratios[0]:.2f} to {ratios[-1]:.2f} as high as "
                    "wide: they are all brought to one shape, and objects are squeezed; cut them to one shape first, "
                    "or give a void label and --side 0, which pads"
                )
            scale = self.side / max(height, width)
            if scale < 1 or len(shapes) > 1:
                scale = min(scale, 1.0)
                params |= {
                    "height": max(round(height * scale), 1),
                    "width": max(round(width * scale), 1),
                }
        return params


def study_file(request: Request, planned: Plan, params: Mapping[str, Any], batch_size: int) -> str:
    """The text of the study's file."""
    content: dict[str, Any] = {
        "study": "compare",
        "title": f"Losses compared on {Path(request.root).name}",
        "question": f"Which loss segments {Path(request.root).name} best at an equal budget?",
        "smallest_effect": 0.01,
        "datasets": [{"name": "folder", "params": dict(params)}],
        "models": [{"name": "unet", "params": dict(MODEL)}],
        "losses": [component(asked) for asked in request.losses],
        "seeds": list(range(planned.seeds)),
        "runs_per_job": 4,
        "training": training(planned.steps, batch_size),
    }
    if planned.tuned:
        # the plan has no time for a wider grid: a winner at its edge is reported as such
        content["tuning"] = {"lr": list(RATES), "seeds": list(TUNING_SEEDS), "widen": 0}
    header = f"# Written by `lossatlas compare`: {planned}.\n"
    return header + yaml.safe_dump(content, sort_keys=False, allow_unicode=True)


def training(steps: int, batch_size: int) -> dict[str, Any]:
    """The budget of every run."""
    return {
        "steps": steps,
        "batch_size": batch_size,
        "lr": FIXED_RATE,
        "evaluations": _EVALUATIONS,
        "bias_init": "prior",
        "channels_last": True,
    }


@dataclass(frozen=True)
class Comparison:
    """What ``compare`` leaves: its study's file (not written by a dry run), the records, the page, and what failed."""

    study: Path
    plan: str
    records: Path | None = None
    page: Path | None = None
    failed: tuple[str, ...] = ()


def compare(
    request: Request,
    out: str | Path,
    *,
    dry_run: bool = False,
    say: Callable[[str], None] = print,
) -> Comparison:
    """Plan, train and report; called again with the same request it goes on where it stopped.

    Args:
        request: what is compared.
        out: a folder: ``compare.yaml`` (the study), ``runs/``, ``results/``, ``index.html``. It is made once the
            plan stands.
        dry_run: stop after the plan, and write nothing.
        say: told what happens, a line at a time.

    Raises:
        DataError: the folder does not load, or ``out`` has no room; names what is wrong.
        ConfigError: an unknown loss, a budget that is too small, ``out`` of another request, or every run failed.
    """
    from lossatlas import losses as registry
    from lossatlas.experiments.config import check_name

    components = [component(asked) for asked in request.losses]
    for each in components:
        check_name("loss", each["name"], registry.names())
    if len(components) < 2 or any(components.count(each) > 1 for each in components):
        raise ConfigError(f"losses: expected two or more, each once, got {request.losses}")
    with room_for(
        "comparison", out, "or name another --out; what is finished stays, the same command goes on"
    ):
        return _compare(request, Path(out), dry_run, say)


def _compare(request: Request, out: Path, dry_run: bool, say: Callable[[str], None]) -> Comparison:
    """As :func:`compare`, once the losses are known."""
    file, asked = out / "compare.yaml", out / "request.json"
    if file.is_file() and not _replaced(request, out, asked):
        planned = file.read_text(encoding="utf-8").splitlines()[0].split(": ", 1)[1]
        say(f"going on with {file}: {planned}")
    else:
        planned, texts = _plan(request, say)
        if not dry_run:
            out.mkdir(parents=True, exist_ok=True)
            for path, text in zip((asked, file), texts, strict=True):
                with replacing(path) as temporary:
                    temporary.write_text(text, encoding="utf-8")
    if dry_run:
        say("dry run: nothing is trained or written")
        return Comparison(file, planned)
    study = load_study(str(file))
    _same_data(study.datasets[0].params, asked)
    failed = _train(study, out / "runs", say)
    from lossatlas.experiments.collect import collect
    from lossatlas.experiments.record import NoRunsError

    try:
        records = collect(study, runs_dir=out / "runs", results_dir=out / "results", file=str(file))
    except NoRunsError:
        why = failed[0] if failed else "no reason is known"
        raise ConfigError(
            f"{out}: expected a run of the comparison to end, got none: {why}; mend that, and the same command goes on"
        ) from None
    from lossatlas.advise.comparison_page import write_page

    page = write_page(out / "index.html", records)
    return Comparison(file, planned, records, page, tuple(failed))


def _replaced(request: Request, out: Path, asked: Path) -> bool:
    """Whether a new plan takes the place of the one in ``out``: of another request, and nothing is trained yet.

    Raises:
        ConfigError: runs of another request are there.
    """
    try:
        before = json.loads(asked.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        before = {}
    now = asdict(request)
    different = [key for key, value in now.items() if before.get(key) != value]
    if different and (out / "runs").exists():
        raise ConfigError(
            f"{out}: expected the request that it was begun with, got another "
            f"{' and '.join(different)}; repeat that command to go on, or name another --out"
        )
    return bool(different)


def _same_data(params: Mapping[str, Any], asked: Path) -> None:
    """Runs of other images or masks are another comparison: they are not finished with today's."""
    from lossatlas.data import load

    before = json.loads(asked.read_text(encoding="utf-8")).get("data", {})
    changed = [
        split
        for split, checksum in before.items()
        if load("folder", split, **params).checksum != checksum
    ]
    if changed:
        raise ConfigError(
            f"{params['root']}: expected the images and masks that {asked.parent} was begun with, got others in "
            f"{' and '.join(changed)}; bring them back to go on, or name another --out"
        )


def _plan(request: Request, say: Callable[[str], None]) -> tuple[str, tuple[str, str]]:
    """Load, measure and plan: the plan in words, and the texts of ``request.json`` and of the study's file."""
    from lossatlas.data import load
    from lossatlas.experiments.config import RunConfig, check_components, validated

    started = time.perf_counter()
    params = request.dataset_params(say)
    datasets = {split: load("folder", split, **params) for split in ("train", "val", "test")}
    for split, dataset in datasets.items():
        if not dataset.image_counts()[:, 1:].any():
            raise DataError(
                f"{request.root}: expected foreground in every split, got none in {split}; add images, "
                f"or choose the splits with train.txt, val.txt and test.txt"
            )
    height, width = datasets["train"].labels.shape[1:]
    sizes = ", ".join(f"{len(dataset)} {split}" for split, dataset in datasets.items())
    say(f"{request.root}: {sizes} images, trained at {height}×{width}")
    batch_size = min(_BATCH, len(datasets["train"]))
    what = {
        "dataset": "folder",
        "dataset_params": params,
        "model": "unet",
        "model_params": MODEL,
        **training(_SHORT, batch_size),
    }
    configs = {
        each["label"]: {**what, "loss": each["name"], "loss_params": each.get("params", {})}
        for each in map(component, request.losses)
    }
    for values in configs.values():
        check_components(validated(RunConfig, values, what="parameter"))
    step_s, overhead_s = measure(configs, datasets)
    spent = time.perf_counter() - started  # reading and measuring are part of the budget
    found = plan(request.budget_s, step_s, overhead_s, spent)
    checksums = {split: dataset.checksum for split, dataset in datasets.items()}
    say(f"plan: {found}")
    return f"{found}.", (
        json.dumps(asdict(request) | {"data": checksums}, indent=1) + "\n",
        study_file(request, found, params, batch_size),
    )


def _train(study: Study, runs_dir: Path, say: Callable[[str], None]) -> list[str]:
    """Train what is missing, one job after the other; a line for each run that failed."""
    from lossatlas.experiments import tuning

    # one that diverged is a rate that is not chosen
    failed = [each for each in _outcomes(study, "tuning", runs_dir) if each.status == "failed"]
    if study.tuning is not None:
        selection = tuning.select(study, runs_dir)
        tuning.write_selection(study, selection, runs_dir)
        for combination, choice in selection.items():
            edge = ", at the edge of what was tried" if choice.at_edge else ""
            say(f"{combination[2]}: rate {choice.lr:g}{edge}")
    failed += [e for e in _outcomes(study, "report", runs_dir) if e.status != "completed"]
    return [f"{each.member}: {each.status} {each.reason}".strip() for each in failed]


def _outcomes(study: Study, stage: Literal["tuning", "report"], runs_dir: Path) -> Iterator[Any]:
    """What came of each run of a stage, with a progress bar on a terminal and nothing elsewhere."""
    from tqdm import tqdm

    from lossatlas.experiments.jobs import jobs, train_job

    shown = "training" if stage == "report" else stage
    for job in tqdm(jobs(study, stage), desc=shown, unit="job", disable=None, leave=False):
        yield from train_job(study, job.name, runs_dir=runs_dir)


def component(asked: str) -> dict[str, Any]:
    """A loss of the study's file from its name and parameters; the label is made of both.

    >>> component("tversky:alpha=0.3:beta=0.7")
    {'name': 'tversky', 'label': 'tversky_alpha0.3_beta0.7', 'params': {'alpha': 0.3, 'beta': 0.7}}
    >>> component("dice:squared=true")["label"]
    'dice_squared'
    >>> component("ce")
    {'name': 'ce', 'label': 'ce'}

    Raises:
        ConfigError: a parameter is no ``key=value``.
    """
    name, *pairs = asked.split(":")
    params, label = {}, name
    for pair in pairs:
        key, equals, value = pair.partition("=")
        if not (key.isidentifier() and equals and value):
            raise ConfigError(
                f"losses: expected name:parameter=value, as in tversky:alpha=0.3:beta=0.7, got {asked!r}"
            )
        params[key] = yaml.safe_load(value)
        label += f"_{key}" if params[key] is True else f"_{key}{value}"
    label = re.sub(r"[^A-Za-z0-9_.]", "", label)
    return {"name": name, "label": label} | ({"params": params} if params else {})


def parse_losses(names: Sequence[str]) -> list[str]:
    """Names that were given with commas, blanks or both.

    >>> parse_losses(["ce,dice", "focal"])
    ['ce', 'dice', 'focal']
    """
    return [name for each in names for name in each.split(",") if name]
