"""Where a number comes from: commit, packages, machine."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import resource
import subprocess
import sys
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

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


@cache
def commit() -> dict[str, Any]:
    """The git commit of the checkout and whether tracked files differ from it; empty outside a checkout."""
    root = Path(__file__).resolve().parent
    checkout = root.parents[2]  # of src/lossatlas/experiments
    if root.parents[1].name != "src" or not (checkout / "pyproject.toml").is_file():
        return {}  # installed: a repository around the environment is not ours

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
