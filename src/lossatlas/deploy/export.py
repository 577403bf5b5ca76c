"""A trained network as a file for other programs, with its preparation and decision rules beside it."""

from __future__ import annotations

import json
import os
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch

from lossatlas.data.errors import writing
from lossatlas.deploy.network import (
    DESCRIPTION,
    SCHEMA,
    Deployed,
    DeployError,
    read_description,
    weights_digest,
)
from lossatlas.models._common import AnySize

FORMATS = ("onnx", "safetensors")
#: ONNX Runtime's logits may differ from torch's by this much, relative to the largest.
TOLERANCE = 1e-4
_SIDE = 8  # of the example, in the network's multiples


class _Padded(torch.nn.Module):
    """The network for sides that are multiples already: no padding, so that the graph has no branch."""

    def __init__(self, network: AnySize) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Logits (N, K, H, W) of images (N, C, H, W)."""
        return self.network.forward_padded(images)


def describe(deployed: Deployed, file: str, rule: str) -> dict[str, Any]:
    """What a program must know beside the weights, as JSON-able values."""
    rules = {name: list(each.offsets) for name, each in deployed.rules.items()}
    binary = deployed.network.out_channels == 1
    return {
        "schema": SCHEMA,
        "file": file,
        "model": deployed.model,
        "model_params": deployed.params,
        "in_channels": deployed.network.in_channels,
        "out_channels": deployed.network.out_channels,
        "weights": weights_digest(deployed.network),
        "side_multiple": deployed.network.multiple,
        "input": "float32 (N, C, H, W), prepared as 'preparation' says; output: logits (N, K, H, W)",
        "preparation": deployed.preparation.as_json(),
        "classes": list(deployed.classes),
        "rule": rule,
        "rules": rules,
        "threshold": deployed.rules[rule].probability if binary else None,
        "decision": "add the rule's offsets to the logits; one channel: foreground where the sum is "
        "above 0, that is, sigmoid(logit) above 'threshold'; several: the class of the largest sum",
        "origin": deployed.origin,
    }


def refuse_another(deployed: Deployed, out: str | Path) -> None:
    """Raise where a folder holds another network: its weights would lie beside this one's description.

    Raises:
        DeployError: names the folder.
    """
    found = read_description(Path(out))
    if "weights" in found:
        same = found["weights"] == weights_digest(deployed.network)
    else:  # written before descriptions had a digest, or no description
        same = not found or found.get("origin") == deployed.origin
    if not same:
        raise DeployError(
            f"{out}: expected no network there but this one, got that of run "
            f"{(found.get('origin') or {}).get('run_id')}; name another --out, or remove the folder"
        )


def export(
    deployed: Deployed, out: str | Path, *, format: str = "onnx", rule: str | None = None
) -> tuple[Path, str]:
    """Write ``out/model.onnx`` or ``out/model.safetensors``, and ``out/model.json``.

    Args:
        deployed: of :func:`lossatlas.deploy.load`.
        out: a folder; made if it is not there.
        format: one of `FORMATS`. An ONNX file takes any batch, and sides that are multiples of
            ``side_multiple``.
        rule: the decision rule that the description recommends; None takes ``tuned`` where there is one.

    Returns:
        the file, and a line that says how it was checked.

    Raises:
        DeployError: an unknown format, a library is missing, the exported network gives other logits, or ``out``
            holds another network.
        DataError: ``out`` cannot be written to, or the disk is full.
    """
    if format not in FORMATS:
        raise DeployError(f"format: expected one of {', '.join(FORMATS)}, got {format!r}")
    name = deployed.rule(rule)[0]
    deployed.network.cpu()
    out = Path(out)
    refuse_another(deployed, out)
    final = out / f"model.{format}"
    write = _safetensors if format == "safetensors" else _onnx
    with writing("network", out, "or name another --out"):
        out.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".export-", dir=out) as folder:
            temporary = Path(folder) / final.name
            checked = write(deployed, temporary)
            description = temporary.with_name(DESCRIPTION)
            text = json.dumps(describe(deployed, final.name, name), indent=1, ensure_ascii=False)
            description.write_text(text + "\n", encoding="utf-8")
            os.replace(temporary, final)
            os.replace(description, out / DESCRIPTION)
    return final, checked


def _safetensors(deployed: Deployed, path: Path) -> str:
    from safetensors.torch import load_file, save

    weights = {k: v.contiguous() for k, v in deployed.network.state_dict().items()}
    path.write_bytes(save(weights))  # its own way to write tells of a full disk by another error
    back = load_file(path)
    if not all(torch.equal(back[name], value) for name, value in weights.items()):
        raise DeployError(f"{path}: expected the weights that were written, got others; try again")
    return "checked: read back, every weight equal"


def _onnx(deployed: Deployed, path: Path) -> str:
    network, multiple = deployed.network, deployed.network.multiple
    try:
        import onnxscript  # noqa: F401 - what torch's exporter needs
    except ImportError:
        raise DeployError(
            "onnx: expected the packages onnx and onnxscript, which torch exports with, found none; "
            "`pip install 'lossatlas[export]'`, or take --format safetensors"
        ) from None
    generator = torch.Generator().manual_seed(0)
    side = _SIDE * multiple
    images = torch.randn(2, network.in_channels, side, side, generator=generator)
    rows, columns = (torch.export.Dim(name, min=2, max=4096) for name in ("rows", "columns"))
    shapes = {"images": {0: torch.export.Dim("batch"), 2: multiple * rows, 3: multiple * columns}}
    torch.onnx.export(
        _Padded(network).eval(),
        (images,),
        str(path),
        input_names=["images"],
        output_names=["logits"],
        dynamic_shapes=shapes,
        external_data=False,
        dynamo=True,
        verbose=False,
    )
    try:
        import onnxruntime
    except ImportError:
        return "not checked: onnxruntime is not installed"
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    # another batch and another size than the graph was made with
    other = torch.randn(
        1, network.in_channels, side + multiple, side - multiple, generator=generator
    )
    worst = 0.0
    for given in (images, other):
        with torch.inference_mode():
            expected = network(given).numpy()
        (found,) = session.run(None, {"images": given.numpy()})
        worst = max(
            worst, float(np.abs(found - expected).max() / max(np.abs(expected).max(), 1e-6))
        )
    if worst > TOLERANCE:
        raise DeployError(
            f"onnx: expected ONNX Runtime's logits within {TOLERANCE:g} of torch's, got {worst:.2g}; "
            "report it with the model's parameters, or take --format safetensors"
        )
    return f"checked with ONNX Runtime: logits within {worst:.1e} of the largest"
