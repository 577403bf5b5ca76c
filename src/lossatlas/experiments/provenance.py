"""Where a number comes from: code, packages, machine."""

from __future__ import annotations

import hashlib
import importlib.metadata
import os
import platform
import resource
import subprocess
import sys
from functools import cache
from pathlib import Path
from typing import Any

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
    cuda = torch.cuda.get_device_name(device) if device.type == "cuda" else None
    return {
        "machine": platform.machine(),
        "cpu": _cpu_name(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "device": device.type,
        "gpu": cuda,
    }


def peak_memory_mb(device: torch.device) -> float:
    """Peak memory in MB (10⁶ bytes): allocated on a GPU, else the process's largest resident set so far.

    On the CPU the process includes Python and torch themselves, and earlier seeds of the same notebook.
    """
    if device.type == "cuda":
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
