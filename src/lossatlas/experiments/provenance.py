"""Where a number comes from: code, packages, machine."""

from __future__ import annotations

import ast
import hashlib
import importlib.metadata
import os
import platform
import resource
import subprocess
import sys
from collections import Counter
from collections.abc import Iterable, Mapping
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lossatlas.experiments.config import RunConfig

if TYPE_CHECKING:  # torch takes seconds to import; who only compares code does without it
    import torch

_PACKAGES = (
    "torch",
    "lightning-fabric",
    "segmentation-models-pytorch",
    "numpy",
    "scikit-learn",
    "pillow",
)
#: The code that a run's result depends on; analysis, theory and the book may change without touching it.
_CODE = ("losses", "metrics", "data", "models", "experiments")


@cache
def code_version() -> str:
    """Hash of the sources that determine a run's result: the same code gives the same value in any checkout."""
    root = Path(__file__).resolve().parents[1]
    digest = hashlib.sha256()
    for part in _CODE:
        for path in sorted((root / part).rglob("*.py")):
            digest.update(path.relative_to(root).as_posix().encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()[:16]


#: What imports of these packages as a whole stand for is known by name: the run's own loss, model and data set.
_BY_NAME = ("lossatlas.losses", "lossatlas.models", "lossatlas.data")
#: Where the evaluation begins: no weight depends on it, so it is a component of its own.
_EVALUATION = "lossatlas.experiments.assessment"
#: Modules that the training imports and that change no number of it.
_NO_NUMBER = (
    "lossatlas.experiments.config",
    "lossatlas.experiments.progress",
    "lossatlas.experiments.provenance",
    "lossatlas.experiments.record",
    "lossatlas.experiments.study",
    "lossatlas.experiments.tuning",
)


def component_versions(config: RunConfig) -> dict[str, str]:
    """Hashes of the code that a run depends on: its ``loss``, ``model``, ``data``, ``training`` and ``evaluation``.

    Each is over the module that defines the component and all of ours that it imports, so that a change of one loss
    leaves the runs of the others as they are, and one of the evaluation what was trained. What a comment, a
    docstring or the formatting says does not count.
    """
    return {**training_versions(config), "evaluation": evaluation_version()}


def training_versions(config: RunConfig) -> dict[str, str]:
    """Those of :func:`component_versions` that the weights of a run depend on."""
    # the registries' tables say where a component is defined; building one would not (some are functions)
    from lossatlas.data.registry import source
    from lossatlas.experiments.components import _DEFAULT_CLASS_WEIGHTS
    from lossatlas.losses import _registry as losses_registry
    from lossatlas.models import _registry as models_registry

    loss = [losses_registry._BUILDERS[config.loss].__module__]
    if "class_weights" in config.loss_params or config.loss in _DEFAULT_CLASS_WEIGHTS:
        loss.append("lossatlas.losses.weights")
    fixed = repr(losses_registry._FIXED.get(config.loss, {}))
    return {
        "loss": _closure_hash(tuple(loss), fixed),
        "model": _closure_hash((models_registry._MODELS[config.model].__module__,)),
        "data": _closure_hash((type(source(config.dataset)).__module__,)),
        "training": _closure_hash(("lossatlas.experiments.training",)),
    }


def evaluation_version() -> str:
    """Hash of the code that judges a trained network."""
    return _closure_hash((_EVALUATION,))


def changed_components(record: Mapping[str, Any]) -> list[str]:
    """Which of the components had other code when the run was made, or last evaluated, than today.

    Args:
        record: a ``run.json``. One that names no components is compared as a whole: ``["code"]``.
    """
    if record["code_version"] == code_version() and "evaluated" not in record:
        return []  # nothing at all has changed
    made_with = record.get("code")
    if made_with is None:
        return ["code"]
    today = component_versions(RunConfig.model_validate(record["config"]))
    return [name for name, version in today.items() if made_with.get(name) != version]


def mixed_components(records: Iterable[Mapping[str, Any]]) -> dict[str, dict[str, int]]:
    """Components of which some of the records were made with other code than others, with runs by version.

    All runs share the training and the evaluation; the runs of one loss share that loss, and so for models and data
    sets. Records without named components stand for themselves with the code as a whole.

    Returns:
        for instance ``{"loss dice": {"1f0c…": 8, "77ab…": 2}}``; empty where nothing is mixed.
    """
    versions: dict[str, Counter[str]] = {}
    for record in records:
        made_with = record.get("code") or {"training": record["code_version"]}
        if "training" in made_with:  # which was one with the evaluation before they were told apart
            made_with = {"evaluation": made_with["training"], **made_with}
        for kind, version in made_with.items():
            name = record["config"].get("dataset" if kind == "data" else kind)
            what = kind if kind in ("training", "evaluation") else f"{kind} {name}"
            if kind == "loss" and "class_weights" in record["config"].get("loss_params", {}):
                what += " with class weights"  # whose code is part of the version
            versions.setdefault(what, Counter())[version] += 1
    return {what: dict(found) for what, found in versions.items() if len(found) > 1}


@cache
def _closure_hash(modules: tuple[str, ...], text: str = "") -> str:
    """Hash of ``text`` and of the code of ``modules`` and of all of ours that they import."""
    digest = hashlib.sha256(text.encode())
    for module in sorted(_closure(modules)):
        digest.update(
            module.encode() + b"\0" + _meaning(_source_file(module).read_bytes()).encode()
        )
    return digest.hexdigest()[:16]


def _closure(modules: tuple[str, ...]) -> set[str]:
    waiting, found = list(modules), set()
    while waiting:
        module = waiting.pop()
        if module not in found:
            found.add(module)
            waiting += _imports(module)
    return found


def _imports(module: str) -> set[str]:
    """Our modules that ``module`` imports, wherever the statement stands in it."""
    path = _source_file(module)
    package = module if path.name == "__init__.py" else module.rpartition(".")[0]
    found = set()
    for node in ast.walk(_tree(path.read_bytes())):
        names: list[str] = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                above = package.split(".")[: len(package.split(".")) - node.level + 1]
                base = ".".join([*above, *([base] if base else [])])
            # ``from package import module`` names a module, or what the package's own file defines
            named = [f"{base}.{alias.name}" for alias in node.names]
            names = [name if _is_module(name) else base for name in named]
        found |= {name for name in names if _is_module(name)}
    apart = {*_BY_NAME, *_NO_NUMBER, _EVALUATION}
    return found - {*apart, "lossatlas", "lossatlas.experiments"}


def _is_module(name: str) -> bool:
    return name.split(".")[0] == "lossatlas" and _source_file(name).is_file()


def _source_file(module: str) -> Path:
    path = Path(__file__).resolve().parents[2].joinpath(*module.split("."))
    return path / "__init__.py" if path.is_dir() else path.with_suffix(".py")


@cache
def _tree(source: bytes) -> ast.Module:
    return ast.parse(source)


@cache
def _meaning(source: bytes) -> str:
    """The code of a file without comments, docstrings and formatting: its syntax tree as text.

    Written out here and not with ``ast.dump``, whose text differs from one Python to the next.
    """

    def text(node: Any) -> str:
        if isinstance(node, list):
            return "[" + ",".join(map(text, node)) + "]"
        if not isinstance(node, ast.AST):
            return repr(node)
        fields = dict(ast.iter_fields(node))
        if (
            isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef)
            and ast.get_docstring(node, clean=False) is not None
        ):
            fields["body"] = node.body[1:]
        parts = [
            f"{name}={text(value)}" for name, value in fields.items() if value not in (None, [])
        ]
        return f"{type(node).__name__}({','.join(parts)})"

    return text(_tree(source))


@cache
def commit() -> dict[str, Any]:
    """The git commit of the checkout and whether tracked files differ from it; empty outside a checkout."""
    root = Path(__file__).resolve().parent

    def git(*arguments: str) -> str:
        done = subprocess.run(["git", "-C", str(root), *arguments], capture_output=True, text=True)
        return done.stdout.strip() if done.returncode == 0 else ""

    try:
        head = git("rev-parse", "HEAD")
        return {"commit": head, "dirty": bool(git("status", "--porcelain", "-uno"))} if head else {}
    except OSError:  # no git on this machine
        return {}


def packages() -> dict[str, str]:
    """Versions of Python and of the packages that compute."""
    return {"python": platform.python_version()} | {
        name: importlib.metadata.version(name) for name in _PACKAGES
    }


def hardware(device: torch.device) -> dict[str, Any]:
    """The machine in words, and the threads that the run used."""
    import torch

    cuda = torch.cuda.get_device_name(device) if device.type == "cuda" else None
    return {
        "machine": platform.machine(),
        "cpu": _cpu_name(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "device": device.type,
        "gpu": cuda,
    }


def energy_j(device: torch.device) -> float | None:
    """Energy that the device's driver has counted so far, in joules; None where it counts none.

    The counter is the whole device's: the difference of two readings holds what other processes drew meanwhile.
    """
    if device.type != "cuda":
        return None
    try:
        import pynvml
        import torch

        pynvml.nvmlInit()
        identity = str(torch.cuda.get_device_properties(device).uuid)
        uuid = identity if identity.startswith("GPU-") else f"GPU-{identity}"
        handle = pynvml.nvmlDeviceGetHandleByUUID(uuid)
        return float(pynvml.nvmlDeviceGetTotalEnergyConsumption(handle)) / 1000  # millijoules
    except Exception:  # no such package, no such counter, a part of a device: no energy
        return None


def energy_since(before: float | None, device: torch.device) -> float | None:
    """Joules since the reading ``before`` of :func:`energy_j`; None where the driver counts none."""
    now = energy_j(device)
    return None if before is None or now is None else round(now - before, 1)


def peak_memory_mb(device: torch.device) -> float:
    """Peak memory in MB (10⁶ bytes): allocated on a GPU, else the process's largest resident set so far.

    On the CPU the process includes Python and torch themselves, and earlier seeds of the same notebook.
    """
    if device.type == "cuda":
        import torch

        return torch.cuda.max_memory_allocated(device) / 1e6
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 1e6 if sys.platform == "darwin" else peak * 1024 / 1e6


@cache
def _cpu_name() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor()
