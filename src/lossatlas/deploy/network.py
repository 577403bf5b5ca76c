"""Read a trained network: from a run folder, its checkpoint, or an exported file. Nothing is unpickled."""

from __future__ import annotations

import hashlib
import json
import pickle
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from lossatlas import models
from lossatlas.data.errors import DataError
from lossatlas.data.preparation import Preparation
from lossatlas.metrics import DecisionRule
from lossatlas.models._common import AnySize

#: Name of the description beside an exported network, and the version of what it holds.
DESCRIPTION, SCHEMA = "model.json", 1


class DeployError(DataError):
    """A checkpoint that cannot be used: says what was expected, what came, and what to do."""


@dataclass(frozen=True)
class Deployed:
    """A network with all that a prediction needs.

    Attributes:
        network: in evaluation mode; images (N, C, H, W) to logits.
        model, params: its registry name and parameters.
        preparation: of an image.
        classes: names by index.
        rules: decision rules by name; ``argmax``, and ``tuned`` where a validation set chose it.
        origin: the run's id, loss and data set.
    """

    network: AnySize
    model: str
    params: dict[str, Any]
    preparation: Preparation
    classes: tuple[str, ...]
    rules: dict[str, DecisionRule]
    origin: dict[str, Any]

    def rule(self, name: str | None = None) -> tuple[str, DecisionRule]:
        """A rule and its name; None takes ``tuned`` where there is one.

        Raises:
            DeployError: there is no such rule.
        """
        name = name or ("tuned" if "tuned" in self.rules else "argmax")
        if name not in self.rules:
            raise DeployError(f"rule: expected one of {', '.join(self.rules)}, got {name!r}")
        return name, self.rules[name]


def weights_digest(network: AnySize) -> str:
    """Hex SHA-256 of the weights and their names: two networks with one digest are the same one."""
    found = hashlib.sha256()
    for name, value in network.state_dict().items():
        found.update(name.encode())
        found.update(value.cpu().contiguous().numpy().tobytes())
    return found.hexdigest()


def load(path: str | Path) -> Deployed:
    """Read a network from a run folder, from the ``last.ckpt`` in one, or from an exported ``.safetensors`` file.

    Raises:
        DeployError: no such file, a damaged one, or one that is no network of ours.
        DataError: the data set that the run was trained on is not at hand.
    """
    path = Path(path)
    path = path / "last.ckpt" if path.is_dir() else path
    if not path.is_file():
        raise DeployError(
            f"{path}: expected a run folder, its last.ckpt or an exported .safetensors file, found none"
        )
    return _exported(path) if path.suffix == ".safetensors" else _checkpoint(path)


def read_checkpoint(path: Path) -> dict[str, Any]:
    """Content of a ``last.ckpt``: ``model`` (weights by name) and ``config``; no code in it is run.

    Raises:
        DeployError: damaged, or with anything but tensors, numbers, texts, lists and dictionaries.
    """
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, zipfile.BadZipFile, RuntimeError, EOFError, OSError, ValueError,
            KeyError, IndexError, TypeError, AttributeError, UnicodeDecodeError) as error:  # fmt: skip
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise DeployError(
            f"{path}: expected a last.ckpt of weights alone, got a damaged file or one with other "
            f"objects ({reason[:120]}); nothing of it was run: train again or restore the file"
        ) from None
    if not isinstance(content, dict) or not {"model", "config"} <= set(content):
        raise DeployError(
            f"{path}: expected the keys model and config as a run leaves them, got "
            f"{sorted(map(str, content)) if isinstance(content, dict) else type(content).__name__}"
        )
    return content


def _checkpoint(path: Path) -> Deployed:
    content = read_checkpoint(path)
    try:
        return _of_run(content, path)
    except DataError:
        raise
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise DeployError(
            f"{path}: expected the configuration and weights that a run leaves, got others ({error!r}); train again "
            "or restore the file"
        ) from None


def _of_run(content: Mapping[str, Any], path: Path) -> Deployed:
    config, weights = content["config"], content["model"]
    # a run keeps its weights in the order of the layers
    convolutions = [value for value in weights.values() if value.dim() == 4]
    if not convolutions:
        raise DeployError(f"{path}: expected the weights of convolutions, got none")
    channels = convolutions[0].shape[1], convolutions[-1].shape[0]
    network = _network(config["model"], config["model_params"], channels, weights, path)
    record = _record(path.parent / "run.json")
    rules = {"argmax": DecisionRule.argmax(network.out_channels)}
    if record:
        rules["tuned"] = _tuned(record, network.out_channels, path.parent / "run.json")
    names, kept = record.get("classes"), record.get("preparation")
    # what the data are like today says nothing about the run: a record keeps what it needs of them
    if names is None or kept is None:
        from lossatlas.data import load as load_data

        train = load_data(config["dataset"], "train", **config["dataset_params"])
        names = names or train.classes
        kept = kept or Preparation.of_dataset(train).as_json()
    preparation = Preparation.of_json(kept)
    if preparation.channels != network.in_channels:
        raise DeployError(
            f"{path}: expected images of {network.in_channels} channels in data set "
            f"{config['dataset']}, got {preparation.channels}; the data have changed since"
        )
    origin = {key: config[key] for key in ("dataset", "loss", "seed")}
    return Deployed(
        network, config["model"], dict(config["model_params"]), preparation, tuple(names), rules,
        origin | {"run_id": record.get("run_id")},
    )  # fmt: skip


def _tuned(record: Mapping[str, Any], channels: int, file: Path) -> DecisionRule:
    """The rule that the run's validation set chose."""
    try:
        rule = DecisionRule(tuple(record["rules"]["tuned"]["offsets"]))
    except (KeyError, TypeError, ValueError) as error:
        raise DeployError(
            f"{file}: expected rules.tuned.offsets as a run leaves them, got none that can be read "
            f"({error!r}); restore the file, or move it away to predict without a tuned threshold"
        ) from None
    if len(rule.offsets) != channels:
        raise DeployError(
            f"{file}: expected {channels} offsets, one a channel, got {len(rule.offsets)}; restore the file"
        )
    return rule


def _exported(path: Path) -> Deployed:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    description = read_description(path.parent)
    if description.get("schema") != SCHEMA:
        raise DeployError(
            f"{path.with_name(DESCRIPTION)}: expected the description that `lossatlas export` writes "
            f"(schema {SCHEMA}), got {description.get('schema', 'none')}; export the network again"
        )
    try:
        weights = load_file(path)
    except (SafetensorError, OSError) as error:
        raise DeployError(f"{path}: expected safetensors, got {error}; export it again") from None
    try:
        deployed = Deployed(
            network=_network(
                description["model"],
                description["model_params"],
                (description["in_channels"], description["out_channels"]),
                weights,
                path,
            ),
            model=description["model"],
            params=description["model_params"],
            preparation=Preparation.of_json(description["preparation"]),
            classes=tuple(description["classes"]),
            rules={name: DecisionRule(tuple(v)) for name, v in description["rules"].items()},
            origin=description["origin"],
        )
    except DataError:
        raise
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise DeployError(
            f"{path.with_name(DESCRIPTION)}: expected the description that `lossatlas export` writes, "
            f"got one that cannot be read ({error!r}); export the network again"
        ) from None
    about = path.with_name(DESCRIPTION)
    if "weights" not in description and description.get("file") != path.name:
        raise DeployError(
            f"{about}: expected the description of {path.name}, got that of {description.get('file')} by an older "
            f"version, which does not say whose weights it describes; export the network again, or write "
            f'"file": "{path.name}" into it if both files are of one network'
        )
    # both formats of a network share the description
    digest = weights_digest(deployed.network)
    if description.get("weights", digest) != digest:
        raise DeployError(
            f"{about}: expected the description of {path.name}, got that of another network; "
            "export the network again, to a folder of its own"
        )
    return deployed


def _network(
    model: str,
    params: Mapping[str, Any],
    channels: tuple[int, int],
    weights: Mapping[str, torch.Tensor],
    path: Path,
) -> AnySize:
    """The network of so many input and output ``channels`` with its weights."""
    network = models.build(model, *channels, **params)
    try:
        network.load_state_dict(dict(weights))
    except RuntimeError as error:
        raise DeployError(
            f"{path}: expected the weights of {model}, got others "
            f"({str(error).splitlines()[-1].strip()[:120]}); the code has changed since"
        ) from None
    return network.eval()


def read_description(folder: Path) -> dict[str, Any]:
    """What is written beside an exported network; {} where there is none."""
    return _record(folder / DESCRIPTION)


def _record(path: Path) -> dict[str, Any]:
    """Content of a JSON file; {} where there is none."""
    if not path.is_file():
        return {}
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise DataError(f"{path}: expected JSON, got {error}; restore the file") from None
    if not isinstance(found, dict):
        raise DataError(f"{path}: expected a JSON object, got {type(found).__name__}")
    return found
