"""Time and memory of every loss beside its peers: forward and backward, one process, interleaved.

    python benchmarks/losses.py --out results/bench                  # the published table
    python benchmarks/losses.py --out bench --device cuda            # the GPU alone
    python benchmarks/losses.py --out bench --quick                  # a smoke test (seconds)

Every round runs each contender twice and times the second step, as in a training, where a loss follows
itself: what ran before decides which memory is at hand, and made a loss up to twice as slow as another
of the same work. All run in every round, so that a busy machine slows all alike; a contender's time is
its median over the rounds, and its ratio the median of its ratios to cross-entropy (binary
cross-entropy on S2) *in the same round*. Peak memory is what the step allocates over what lived
before it: the running sum of the allocator's own events (torch.profiler) on the CPU, and
``torch.cuda.max_memory_allocated`` on a GPU. On the CPU with one thread, and with torch's default.
On a GPU the plain formulas run, and beside them the same compiled.

Writes losses.csv (one row per shape, number of threads, loss and library), missed.csv (the targets
that were missed, and the peers that are ahead), scaling.csv (time against pixels and classes),
floor.csv (the operations that no form can leave out), void.csv (what void pixels cost), losses.json
(machine, versions, how it was measured) and losses.png.
"""

from __future__ import annotations

import argparse
import csv
import datetime
import importlib
import importlib.metadata
import json
import math
import platform
import statistics
import sys
import time
import warnings
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pandas as pd
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.profiler import ProfilerActivity, profile

from lossatlas import losses

Loss = Callable[[Tensor, Tensor], Tensor]

SHAPES: dict[str, tuple[int, ...]] = {
    "S1": (4, 19, 256, 512),
    "S2": (8, 1, 512, 512),
    "S3": (2, 3, 96, 96, 96),
}
QUICK_SHAPES: dict[str, tuple[int, ...]] = {
    "S1": (1, 19, 16, 32),
    "S2": (2, 1, 32, 32),
    "S3": (1, 3, 8, 8, 8),
}
#: Share of void pixels where some are.
VOID = 0.05
PEERS = {"smp": "segmentation_models_pytorch", "monai": "monai", "kornia": "kornia"}
#: What is also measured compiled, where asked: one loss of each kind.
COMPILED = ("ce", "focal", "dice", "tversky", "dice_ce", "lovasz_softmax 4096 bins")


def contenders(channels: int) -> dict[tuple[str, str], Loss]:
    """Losses to time, by (loss, library); peers that are not installed are left out."""
    mode = "binary" if channels == 1 else "multiclass"
    found: dict[tuple[str, str], Loss] = {}
    if mode == "binary":
        found["ce", "torch"] = F.binary_cross_entropy_with_logits
    else:
        found["ce", "torch"] = F.cross_entropy
    weight = [1.0] * (2 if mode == "binary" else channels)
    for name in losses.names():
        if name in ("boundary", "hausdorff", "soft_cldice"):
            continue  # SciPy's distance transform or torch's pooling, not ours, would be timed
        params: dict[str, Any] = {"weight": weight} if name.startswith("weighted") else {}
        found[name, "lossatlas"] = losses.build(name, mode=mode, **params)
    for name in ("lovasz_softmax", "lovasz_hinge"):
        found[f"{name} 4096 bins", "lossatlas"] = losses.build(name, mode=mode, bins=4096)
    for library, module in PEERS.items():
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                peer = importlib.import_module(module if library == "smp" else f"{module}.losses")
        except ImportError:
            continue
        maker = {"smp": _smp, "monai": _monai, "kornia": _kornia}[library]
        found.update({(name, library): loss for name, loss in maker(peer, channels).items()})
    return found


def _smp(smp: Any, channels: int) -> dict[str, Loss]:
    mode = "binary" if channels == 1 else "multiclass"
    made = {
        "focal": smp.losses.FocalLoss(mode),
        "dice": smp.losses.DiceLoss(mode),
        "jaccard": smp.losses.JaccardLoss(mode),
        "tversky": smp.losses.TverskyLoss(mode, alpha=0.3, beta=0.7),
        "log_cosh_dice": smp.losses.DiceLoss(mode, log_loss=True),
    }
    if mode == "binary":
        made["lovasz_hinge"] = smp.losses.LovaszLoss(mode, per_image=True)
        made["ce"] = smp.losses.SoftBCEWithLogitsLoss()
    else:
        made["lovasz_softmax"] = smp.losses.LovaszLoss(mode)
        made["ce"] = smp.losses.SoftCrossEntropyLoss(smooth_factor=0.0)
    return made


def _monai(monai: Any, channels: int) -> dict[str, Loss]:
    many = channels > 1
    act: dict[str, Any] = {"softmax": True, "to_onehot_y": True} if many else {"sigmoid": True}
    made = {
        "focal": monai.FocalLoss(gamma=2.0, use_softmax=many, to_onehot_y=many),
        "dice": monai.DiceLoss(**act),
        "dice_squared": monai.DiceLoss(squared_pred=True, **act),
        "jaccard": monai.DiceLoss(jaccard=True, **act),
        "generalized_dice": monai.GeneralizedDiceLoss(**act),
        "tversky": monai.TverskyLoss(alpha=0.3, beta=0.7, **act),
        "dice_ce": monai.DiceCELoss(**act),
        "dice_focal": monai.DiceFocalLoss(**act),
    }

    def column(loss: Loss) -> Loss:
        """MONAI wants labels as (N, 1, *S)."""
        return lambda z, t: loss(z, t.unsqueeze(1) if many else t)

    return {name: column(loss) for name, loss in made.items()}


def _kornia(kornia: Any, channels: int) -> dict[str, Loss]:
    if channels == 1:
        return {
            "focal": lambda z, t: kornia.binary_focal_loss_with_logits(
                z, t, alpha=None, gamma=2.0, reduction="mean"
            ),
            "lovasz_hinge": lambda z, t: kornia.lovasz_hinge_loss(z, t[:, 0].long()),
        }
    return {
        "focal": lambda z, t: kornia.focal_loss(z, t, alpha=None, gamma=2.0, reduction="mean"),
        "dice": lambda z, t: kornia.dice_loss(z, t),
        "tversky": lambda z, t: kornia.tversky_loss(z, t, alpha=0.3, beta=0.7),
        "lovasz_softmax": lambda z, t: kornia.lovasz_softmax_loss(z, t),
    }


def inputs(shape: tuple[int, ...], device: str) -> tuple[Tensor, Tensor]:
    """Random logits, and labels in blobs: classes of unequal size, as in a picture."""
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(shape, generator=generator)
    channels, spatial = shape[1], shape[2:]
    coarse = [max(1, s // 16) for s in spatial]
    noise = torch.rand((shape[0], 1, *coarse), generator=generator)
    field = F.interpolate(noise, size=spatial, mode="nearest")[:, 0]
    if channels == 1:  # a tenth is foreground; a float map, as BCE wants it
        return logits.to(device), (field < 0.1).float()[:, None].to(device)
    labels = (field**2 * channels).long().clamp_max(channels - 1)
    return logits.to(device), labels.to(device)


def step(loss: Loss, logits: Tensor, target: Tensor) -> float:
    """One forward and backward; returns the loss."""
    logits.grad = None
    value = loss(logits, target)
    value.backward()
    return float(value.detach())


def seconds(loss: Loss, logits: Tensor, target: Tensor) -> float:
    """Wall time of a step."""
    if logits.is_cuda:
        torch.cuda.synchronize()
    start = time.perf_counter()
    step(loss, logits, target)
    if logits.is_cuda:
        torch.cuda.synchronize()
    return time.perf_counter() - start


def peak_mib(loss: Loss, logits: Tensor, target: Tensor) -> float:
    """Most memory that a step holds beyond its inputs."""
    logits.grad = None
    if logits.is_cuda:
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        step(loss, logits, target)
        torch.cuda.synchronize()
        return (torch.cuda.max_memory_allocated() - before) / 2**20
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as run:
        step(loss, logits, target)
    events = [e for e in run.profiler.kineto_results.events() if e.name() == "[memory]"]
    live = peak = 0
    for event in sorted(events, key=lambda e: e.start_ns()):
        live += event.nbytes()
        peak = max(peak, live)
    return peak / 2**20


def measure(
    shape: str, size: tuple[int, ...], device: str, rounds: int, *, compiled: bool
) -> list[dict[str, Any]]:
    """Rows of one shape, with as many threads as torch has now."""
    logits, target = inputs(size, device)
    logits.requires_grad_()
    running = contenders(size[1])
    if compiled:
        for name in COMPILED:
            running[name, "lossatlas compiled"] = torch.compile(
                running[name, "lossatlas"], fullgraph=True
            )
    memory: dict[tuple[str, str], float] = {}
    values: dict[tuple[str, str], float] = {}
    for key in list(running):  # a warm-up; who cannot take this input leaves
        try:
            values[key] = step(running[key], logits, target)
            memory[key] = peak_mib(running[key], logits, target)
        except Exception as error:
            print(f"  {shape} {key}: left out, {type(error).__name__}: {str(error)[:80]}")
            del running[key]
    times: dict[tuple[str, str], list[float]] = {key: [] for key in running}
    for i in range(rounds):
        for key, loss in running.items():
            step(loss, logits, target)  # untimed: its memory is at hand, not that of the one before
            times[key].append(seconds(loss, logits, target))
        progress(
            f"{shape} on {device}, {torch.get_num_threads()} threads: round {i + 1} of {rounds}"
        )
    base, base_mib = times["ce", "torch"], memory["ce", "torch"]
    # The floor: logits read twice, the gradient written once.
    floor_bytes = 3 * logits.numel() * logits.element_size()
    return [
        {
            "device": device,
            "threads": torch.get_num_threads(),
            "shape": shape,
            "size": "x".join(map(str, size)),
            "loss": name,
            "library": library,
            "median_ms": 1e3 * statistics.median(times[name, library]),
            "time_ratio": statistics.median(
                t / b for t, b in zip(times[name, library], base, strict=True)
            ),
            "peak_mib": memory[name, library],
            "memory_ratio": memory[name, library] / base_mib,
            "gb_per_s_of_floor": floor_bytes / statistics.median(times[name, library]) / 1e9,
            "value": values[name, library],
            "rounds": rounds,
        }
        for name, library in running
    ]


def floor(shape: str, size: tuple[int, ...], rounds: int) -> list[dict[str, Any]]:
    """Time of operations that a loss cannot do without, over cross-entropy's, on the CPU.

    Whole tensors without chunks, so a chunked loss may fall below the first; sorting is per class
    over the batch, and for one channel per image, as the Lovász losses do by default.
    """
    logits, target = inputs(size, "cpu")
    base = F.binary_cross_entropy_with_logits if size[1] == 1 else F.cross_entropy
    leaf = logits.clone().requires_grad_()
    units = logits.flatten(1) if size[1] == 1 else logits.transpose(0, 1).flatten(1)
    keys = units.abs().contiguous().view(torch.int32)
    labels = (target if size[1] > 1 else target.long()).reshape(-1)
    contents: dict[tuple[str, str], Callable[[], object]] = {
        ("every loss", "a subtraction and an exponential"): lambda: torch.exp(
            logits - logits.flatten()[0]
        ),
        ("lovasz exact", "sort of int32 keys with their order"): lambda: [k.sort() for k in keys],
        ("lovasz bins", "one count per logit"): lambda: [
            torch.bincount(labels, minlength=8192) for _ in range(size[1])
        ],
    }
    times: dict[tuple[str, str], list[float]] = {key: [] for key in contents}
    for i in range(rounds + 1):  # the first round is a warm-up
        reference = seconds(base, leaf, target)
        for key, work in contents.items():
            start = time.perf_counter()
            work()
            if i:
                times[key].append((time.perf_counter() - start) / reference)
    return [
        {"shape": shape, "loss": loss, "what": what, "ratio": statistics.median(ratios)}
        for (loss, what), ratios in times.items()
    ]


def void(shape: str, size: tuple[int, ...], rounds: int) -> list[dict[str, Any]]:
    """Time with void pixels over the same loss's time without an ``ignore_index``, on the CPU; peers that have one."""
    logits, target = inputs(size, "cpu")
    logits.requires_grad_()
    mode = "binary" if size[1] == 1 else "multiclass"
    g = torch.Generator().manual_seed(1)
    some = target.masked_fill(torch.rand(target.shape, generator=g) < VOID, 255)
    pairs: dict[tuple[str, str], tuple[Loss, Loss]] = {
        (name, "lossatlas"): (
            losses.build(name, mode=mode),
            losses.build(name, mode=mode, ignore_index=255),
        )
        for name in ("ce", "focal", "dice", "ohem_ce", "lovasz_softmax")
    }
    if mode == "multiclass":
        pairs["ce", "torch"] = (F.cross_entropy, _ignoring(F.cross_entropy))
    times: dict[tuple[str, str, str], list[float]] = {}
    for i in range(rounds + 1):  # the first round is a warm-up
        for (name, library), (plain, ignoring) in pairs.items():
            spent = []
            for loss, labels in ((plain, target), (ignoring, target), (ignoring, some)):
                step(loss, logits, labels)
                spent.append(seconds(loss, logits, labels))
            for what, t in zip(
                ("no pixel is void", f"{VOID:.0%} are void"), spent[1:], strict=True
            ):
                times.setdefault((name, library, what), []).extend([t / spent[0]] if i else [])
    return [
        {
            "shape": shape,
            "loss": name,
            "library": library,
            "data": what,
            "ratio": statistics.median(t),
        }
        for (name, library, what), t in times.items()
    ]


def _ignoring(loss: Callable[..., Tensor]) -> Loss:
    return lambda z, t: loss(z, t, ignore_index=255)


def scaling(device: str, quick: bool, rounds: int) -> list[dict[str, Any]]:
    """Time of some losses against the number of pixels (C=4) and of classes (2^16 pixels)."""
    chosen = {
        "ce": losses.CrossEntropyLoss(),
        "focal": losses.FocalLoss(),
        "dice": losses.DiceLoss(),
        "lovasz_softmax": losses.LovaszSoftmaxLoss(),
        "lovasz_softmax 4096 bins": losses.LovaszSoftmaxLoss(bins=4096),
    }
    sides = [64, 128] if quick else [256, 512, 1024, 2048, 4096]
    classes = [2, 5] if quick else [2, 5, 19, 50, 150]
    sizes = [("pixels", (1, 4, n, n)) for n in sides]
    sizes += [("classes", (1, c, 64, 64) if quick else (1, c, 256, 256)) for c in classes]
    rows = []
    for axis, size in sizes:
        logits, target = inputs(size, device)
        logits.requires_grad_()
        for name, loss in chosen.items():
            step(loss, logits, target)
            spent = [seconds(loss, logits, target) for _ in range(rounds)]
            elements = math.prod(size)
            rows.append(
                {
                    "device": device,
                    "axis": axis,
                    "size": "x".join(map(str, size)),
                    "pixels": elements // size[1],
                    "classes": size[1],
                    "loss": name,
                    "median_ms": 1e3 * statistics.median(spent),
                    "ns_per_logit": 1e9 * statistics.median(spent) / elements,
                }
            )
        progress(f"scaling on {device}: {axis} {size}")
    return rows


def machine() -> dict[str, Any]:
    """Where and with what this was measured."""
    model = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        lines = [s for s in cpuinfo.read_text().splitlines() if s.startswith("model name")]
        model = lines[0].split(":", 1)[1].strip() if lines else model
    versions = {}
    for package in ("torch", "segmentation-models-pytorch", "monai", "kornia"):
        try:
            versions[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            versions[package] = "not installed"
    return {
        "losses_version": losses.VERSION,
        "losses_code": importlib.import_module("lossatlas.report.benchmark").code(
            Path(losses.__file__).parent
        ),
        "cpu": model,
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "capability": torch.backends.cpu.get_cpu_capability(),
        "threads": torch.get_num_threads(),
        "timed_after": "itself",
        "system": platform.system(),
        "python": platform.python_version(),
        "versions": versions,
        "measured_utc": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "how": (__doc__ or "").split("\n\n")[2].replace("\n", " "),
    }


def picture(rows: list[dict[str, Any]], path: Path) -> None:
    """Time ratios as a dot plot, one panel per shape; without matplotlib, none."""
    try:
        import matplotlib
    except ImportError:
        print("matplotlib is not installed: no picture")
        return
    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    rows = [r for r in rows if r["threads"] == 1 or r["device"] != "cpu"]
    panels = sorted({(r["device"], r["shape"]) for r in rows})
    fig, axes = plt.subplots(1, len(panels), figsize=(5.2 * len(panels), 8), squeeze=False)
    styles = {
        "lossatlas": ("o", "#0072B2"),
        "lossatlas compiled": ("o", "#56B4E9"),
        "torch": ("s", "#000000"),
        "smp": ("^", "#D55E00"),
        "monai": ("v", "#009E73"),
        "kornia": ("D", "#CC79A7"),
    }
    for ax, panel in zip(axes[0], panels, strict=True):
        here = [r for r in rows if (r["device"], r["shape"]) == panel]
        names = list(dict.fromkeys(r["loss"] for r in here))[::-1]
        for library, (marker, colour) in styles.items():
            mine = [r for r in here if r["library"] == library]
            if mine:
                ax.scatter(
                    [r["time_ratio"] for r in mine],
                    [names.index(r["loss"]) for r in mine],
                    marker=marker,
                    color=colour,
                    label=library,
                    zorder=3,
                )
        ax.axvline(1, color="0.6", linewidth=1)
        ax.set_xscale("log")
        ax.set_yticks(range(len(names)), names)
        ax.grid(axis="y", color="0.92")
        size = here[0]["size"].replace("x", "×")
        ax.set_title(f"{panel[1]} ({size}), {panel[0]}", fontsize=10)
        ax.set_xlabel("time ÷ torch's (binary) cross-entropy")
    axes[0][0].legend(fontsize=8, loc="lower right")
    fig.tight_layout()
    fig.savefig(path, dpi=110)
    plt.close(fig)


def progress(line: str) -> None:
    """A line where somebody watches."""
    if sys.stderr.isatty():
        print(f"\r{line:<60}", end="", file=sys.stderr, flush=True)


def write(rows: list[dict[str, Any]], path: Path) -> None:
    """Rows as CSV, floats to four significant digits."""
    with path.open("w", newline="") as file:
        table = csv.DictWriter(file, fieldnames=list(rows[0]), lineterminator="\n")
        table.writeheader()
        for row in rows:
            table.writerow({k: f"{v:.4g}" if isinstance(v, float) else v for k, v in row.items()})


def main(arguments: Iterable[str] | None = None) -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("--out", type=Path, required=True, help="folder for the results")
    parser.add_argument("--rounds", type=int, default=9, help="rounds per shape")
    parser.add_argument("--shapes", nargs="+", choices=list(SHAPES), default=list(SHAPES))
    parser.add_argument("--no-scaling", action="store_true", help="leave the scaling out")
    parser.add_argument("--quick", action="store_true", help="tiny inputs: a smoke test")
    parser.add_argument("--no-floor", action="store_true", help="leave out the unavoidable")
    parser.add_argument(
        "--device", choices=["cpu", "cuda"], help="this one alone; else the CPU, and a GPU if any"
    )
    parser.add_argument(
        "--compiled", action="store_true", help="also compiled formulas on the CPU, as on a GPU"
    )
    options = parser.parse_args(None if arguments is None else list(arguments))
    if options.rounds < 1:
        parser.error(f"--rounds must be at least 1, got {options.rounds}")
    gpu = torch.cuda.is_available()
    if options.device == "cuda" and not gpu:
        parser.error("--device cuda needs a GPU that torch can use, got none; leave it out")
    devices = [options.device] if options.device else ["cpu", "cuda"] if gpu else ["cpu"]
    default = torch.get_num_threads()
    torch.set_num_threads(1)
    warnings.filterwarnings("ignore")
    rounds = 2 if options.quick else options.rounds
    sizes = QUICK_SHAPES if options.quick else SHAPES
    options.out.mkdir(parents=True, exist_ok=True)
    if not options.no_floor:
        found = [row for s in options.shapes for row in floor(s, sizes[s], rounds)]
        write(found, options.out / "floor.csv")
        for row in found:
            print(f"{row['shape']} {row['loss']:14} {row['what']:40} {row['ratio']:6.2f}x")
    if "cpu" in devices:
        ignored = [row for s in options.shapes for row in void(s, sizes[s], rounds)]
        write(ignored, options.out / "void.csv")
    rows: list[dict[str, Any]] = []
    scale_rows: list[dict[str, Any]] = []
    for device in devices:
        compiled = options.compiled or device == "cuda"
        for threads in sorted({1, default}) if device == "cpu" else [default]:
            torch.set_num_threads(threads)
            for shape in options.shapes:
                rows += measure(shape, sizes[shape], device, rounds, compiled=compiled)
        torch.set_num_threads(1)
        if not options.no_scaling:
            scale_rows += scaling(device, options.quick, 2 if options.quick else 3)
    write(rows, options.out / "losses.csv")
    if scale_rows:
        write(scale_rows, options.out / "scaling.csv")
    report = importlib.import_module("lossatlas.report.benchmark")
    report.missed(pd.DataFrame(rows)).to_csv(options.out / "missed.csv", index=False)
    (options.out / "losses.json").write_text(json.dumps(machine(), indent=2) + "\n")
    picture(rows, options.out / "losses.png")
    for row in rows:
        print(
            f"{row['device']:4} {row['threads']} {row['shape']} {row['loss']:26} "
            f"{row['library']:18} "
            f"{row['median_ms']:9.2f} ms {row['time_ratio']:6.2f}x "
            f"{row['peak_mib']:8.1f} MiB {row['memory_ratio']:6.2f}x"
        )
    print(f"written: {options.out}")


if __name__ == "__main__":
    main()
