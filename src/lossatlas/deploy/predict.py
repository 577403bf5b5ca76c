"""Predict images of any size: whole, or by overlapping tiles that give what the whole would."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from lossatlas.basics import replacing
from lossatlas.data.errors import DataError, shorten, writing
from lossatlas.data.integrity import sha256_of
from lossatlas.deploy.network import Deployed, DeployError, weights_digest
from lossatlas.metrics import ConfusionMatrix, DecisionRule
from lossatlas.models._common import AnySize

UInt8Array = npt.NDArray[np.uint8]

#: Side of a tile in pixels.
TILE = 512
#: The file beside the masks that says which network and rule made them.
MADE_BY = "predicted.json"
#: Pixels that an image may have; Pillow's own limit refuses sections and satellite images.
MAX_PIXELS = 2**29
#: What a mask calls the digest of its image, in a text chunk of the PNG: the two can never part.
_IMAGE = "lossatlas:image-sha256"
_BLOCKS = (16, 32, 64, 128)  # sides of the pictures that the view is measured on, in multiples
_DRAWS = 8


@torch.no_grad()
def _plain(network: AnySize) -> AnySize:
    """A copy whose every path is open: positive weights, batch norm that changes nothing."""
    network = copy.deepcopy(network).cpu().eval()
    for part in network.modules():
        if isinstance(part, nn.BatchNorm2d):
            part.reset_running_stats()
    for weight in network.parameters():
        weight.fill_(1 / max(weight[0].numel(), 1) if weight.dim() > 1 else 1.0)
    return network


@lru_cache(maxsize=4)
def view(network: AnySize) -> int:
    """How far a logit can see, in pixels from it, rounded up to the network's multiple.

    It is measured: gradients of a block of logits with respect to random images, with positive
    weights so that no path is closed. One multiple is added for the paths that pooling chose
    otherwise.

    Raises:
        DeployError: the network sees the whole image, so that no tile can stand for a part of it.
    """
    plain, multiple = _plain(network), network.multiple
    generator = torch.Generator().manual_seed(0)
    for blocks in _BLOCKS:
        side, start = blocks * multiple, blocks // 2 * multiple
        reach = 0
        for _ in range(_DRAWS):
            images = torch.rand(1, network.in_channels, side, side, generator=generator)
            images.requires_grad_()
            plain(images)[..., start : start + multiple, start : start + multiple].sum().backward()
            assert images.grad is not None
            for other in (2, 3):  # along the columns, then along the rows
                seen = torch.nonzero(images.grad.abs().amax((0, 1, other)))
                first, last = int(seen.min()), int(seen.max())
                reach = max(reach, start - first, last - (start + multiple - 1))
        if reach < start - multiple:
            return (-(-reach // multiple) + 1) * multiple
    raise DeployError(
        "tile: the network sees the whole image, so tiles would change its answer; predict whole "
        "(--tile 0)"
    )


def tiles(
    height: int, width: int, *, tile: int, overlap: int, multiple: int
) -> Iterator[tuple[tuple[slice, slice], tuple[slice, slice]]]:
    """(window, core) of each tile: what is read, and the part of it that is kept, in pixels.

    The cores cover the image once. A window begins at a multiple of ``multiple``, so that pooling
    groups the same pixels as in the whole image, and is wider than its core by ``overlap`` unless
    the image ends.
    """
    side = max(tile, 2 * multiple) // multiple * multiple
    overlap = -(-overlap // multiple) * multiple
    step = max(side - 2 * overlap, multiple)

    def along(length: int) -> Iterator[tuple[slice, slice]]:
        if length <= side:
            yield slice(0, length), slice(0, length)
            return
        for start in range(0, length, step):
            stop = min(start + step, length)
            yield slice(max(start - overlap, 0), min(stop + overlap, length)), slice(start, stop)

    for rows, kept_rows in along(height):
        for columns, kept_columns in along(width):
            yield (rows, columns), (kept_rows, kept_columns)


@torch.inference_mode()
def predict_image(
    deployed: Deployed,
    image: npt.NDArray[Any],
    *,
    rule: DecisionRule | None = None,
    tile: int = TILE,
    overlap: int | None = None,
    probabilities: bool = False,
    device: str | torch.device = "cpu",
    where: object = "image",
) -> tuple[UInt8Array, npt.NDArray[np.float16] | None]:
    """Classes of an image, and their probabilities if asked for.

    Args:
        deployed: of :func:`lossatlas.deploy.load`.
        image: (H, W, C) as a file holds it, of any size.
        rule: decision rule; None takes the tuned one where there is one.
        tile: side of a tile in pixels; 0 takes the image whole. Memory follows the tile, not the image.
        overlap: pixels that a tile reads beyond what it keeps; None measures what the network needs,
            so that tiles give what the whole image would, to round-off.
        probabilities: also return them: (H, W) of the foreground for one channel, else (C, H, W).
        device: where the network runs.
        where: names the image in an error.

    Returns:
        (H, W) uint8 class indices, and float16 probabilities or None.

    Raises:
        DataError: channels or bits differ from training.
        DeployError: a tile that is no larger than twice its overlap.
    """
    rule = rule or deployed.rule()[1]
    prepared = deployed.preparation.eight_bits(image, where)
    height, width = prepared.shape[:2]
    try:
        network = deployed.network.to(device)
    except (RuntimeError, AssertionError) as error:  # no such device, or torch was built without it
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise DeployError(
            f"device: expected one that torch has here, such as cpu, got {device!r} ({reason[:100]})"
        ) from None
    if tile and max(height, width) > tile:
        if overlap is None:
            with torch.inference_mode(False):
                overlap = view(deployed.network)
        if tile <= 2 * overlap:
            raise DeployError(
                f"tile: expected more than twice the overlap of {overlap} pixels, got {tile}; take "
                f"--tile {2 * overlap + TILE // 2} or more, or 0 for the whole image"
            )
    else:
        tile, overlap = max(height, width), 0
    native = image.shape[:2]
    resized = (height, width) != native
    channels = deployed.network.out_channels
    # a resized image is small: its logits are kept whole, to be brought back to the image's size
    logits_whole = torch.empty(1, channels, height, width) if resized else None
    labels = np.empty(native, np.uint8)
    chances = np.empty(_shape(channels, native), np.float16) if probabilities else None
    windows = tiles(
        height, width, tile=tile, overlap=overlap or 0, multiple=deployed.network.multiple
    )
    for (rows, columns), (kept_rows, kept_columns) in windows:
        part = deployed.preparation.standardised(prepared[rows, columns]).to(device)
        inner = (
            slice(kept_rows.start - rows.start, kept_rows.stop - rows.start),
            slice(kept_columns.start - columns.start, kept_columns.stop - columns.start),
        )
        logits = network(part)[..., inner[0], inner[1]].float().cpu()
        if logits_whole is not None:
            logits_whole[..., kept_rows, kept_columns] = logits
        else:
            _decide(logits, rule, labels, chances, kept_rows, kept_columns)
    if logits_whole is not None:
        logits = nn.functional.interpolate(logits_whole, native, mode="bilinear")
        _decide(logits, rule, labels, chances, slice(None), slice(None))
    return labels, chances


def score(
    labels: UInt8Array, truth: UInt8Array, classes: int, *, void: int | None = None
) -> ConfusionMatrix:
    """The confusion of a mask with the truth, counted in strips of rows: memory follows a strip.

    Counts add up, so every metric equals that of the whole image.

    Args:
        labels, truth: class indices (H, W); either may be a memory map.
        classes: number of classes.
        void: value of the pixels of ``truth`` that are left out.

    Raises:
        DataError: masks of different size.
    """
    if labels.shape != truth.shape:
        raise DataError(
            f"expected masks of one size, got {labels.shape} and {truth.shape}; correct one"
        )
    confusion = ConfusionMatrix(classes, void)
    for start in range(0, len(labels), TILE):
        rows = slice(start, start + TILE)
        confusion.update(np.asarray(labels[rows])[None], np.asarray(truth[rows])[None])
    return confusion


def _shape(channels: int, native: tuple[int, ...]) -> tuple[int, ...]:
    return native if channels == 1 else (channels, *native)


def _decide(
    logits: torch.Tensor,
    rule: DecisionRule,
    labels: UInt8Array,
    chances: npt.NDArray[np.float16] | None,
    rows: slice,
    columns: slice,
) -> None:
    """Write classes and probabilities of (1, C, h, w) logits into their place."""
    labels[rows, columns] = rule(logits)[0].numpy()
    if chances is not None:
        found = logits[0].sigmoid()[0] if logits.shape[1] == 1 else logits[0].softmax(0)
        chances[..., rows, columns] = found.half().numpy()


def masks_to_write(
    images: str | Path, out: str | Path, *, probabilities: bool = False
) -> dict[Path, Path]:
    """Image file → mask file of the masks that :func:`predict_folder` would write.

    A mask that is there is kept, unless it says that it was made from another image. One that says nothing was
    written by another program, or corrected by hand.

    Raises:
        DataError: no images, or ``out`` is inside ``images``, or a mask would replace an image.
    """
    from lossatlas.data.folder import image_files

    images, out = Path(images), Path(out)
    masks = {path: out / f"{stem}.png" for stem, path in image_files(images).items()}
    sources = {path.resolve() for path in masks}
    replaced = [
        mask for mask in masks.values() if {mask.resolve(), _chances(mask).resolve()} & sources
    ]
    if replaced or (images.is_dir() and any(_is_below(mask, images) for mask in masks.values())):
        raise DataError(
            f"out: expected a folder outside {images}, got {out}, where masks would lie among the images; name "
            "another one"
        )
    return {
        path: mask
        for path, mask in masks.items()
        if not is_written(mask, probabilities) or _image_of(mask) not in (None, _digest(path))
    }


def _chances(mask: Path) -> Path:
    """The file of the probabilities beside a mask."""
    return mask.with_suffix(".npy")


def is_written(mask: Path, probabilities: bool = False) -> bool:
    """Whether a mask is there, and its probabilities where they are asked for."""
    return mask.is_file() and (not probabilities or _chances(mask).is_file())


def _digest(image: Path) -> str:
    """SHA-256 of an image's file; a slice has that of its volume."""
    from lossatlas.data import volumes

    file = image.parent if volumes.is_slice(image) else image
    status = file.stat()
    return _sha256(file, status.st_size, status.st_mtime_ns)


@lru_cache(maxsize=1)  # the slices of a volume come one after another
def _sha256(path: Path, size: int, mtime_ns: int) -> str:
    return sha256_of(path)


def _image_of(mask: Path) -> str | None:
    """The digest of the image that a mask was made from; None where it does not say."""
    from PIL import Image

    with suppress(OSError), _large_images(), Image.open(mask) as found:
        digest: str | None = found.info.get(_IMAGE)
        return digest
    return None


def _is_below(path: Path, folder: Path) -> bool:
    return path.resolve().is_relative_to(folder.resolve())


def refuse_others(
    deployed: Deployed, images: str | Path, out: str | Path, rule: str | None
) -> None:
    """Raise where a folder holds masks that another network or rule has made, or that nobody has signed.

    A folder of images below ``out`` holds no masks.

    Raises:
        DeployError: names the folder.
    """
    images, out = Path(images), Path(out)
    if all(images.is_dir() and _is_below(path, images) for path in out.rglob("*.png")):
        return
    made_by = _made_by(out)
    if made_by is None:
        raise DeployError(
            f"{out}: expected {MADE_BY} beside the masks that are there, which names their network, found none; name "
            "another --out, or remove them"
        )
    if made_by != _identity(deployed, rule):
        raise DeployError(
            f"{out}: expected masks of this network and rule, to go on with them, got those of another; name another "
            "--out, or remove them"
        )


def _identity(deployed: Deployed, rule: str | None) -> dict[str, Any]:
    """What makes the masks: a digest of the weights, and the rule."""
    name, decision = deployed.rule(rule)
    network = weights_digest(deployed.network)
    return {"network": network, "rule": name, "offsets": list(decision.offsets)}


def _made_by(out: Path) -> dict[str, Any] | None:
    """What made the masks of a folder; None where it does not say."""
    try:
        content: dict[str, Any] = json.loads((out / MADE_BY).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return content


def predict_folder(
    deployed: Deployed,
    images: str | Path,
    out: str | Path,
    *,
    rule: str | None = None,
    probabilities: bool = False,
    masks: dict[Path, Path] | None = None,
    say: Any = None,
    **options: Any,
) -> int:
    """Predict every image of a folder and its subfolders, or one image.

    Each mask is ``out/STEM.png`` of class indices, subfolders kept; probabilities are ``out/STEM.npy``. A
    file is written under another name and renamed, so that none is ever half there; a mask that is
    there is made again only where it says that it was made from another image. ``out/predicted.json`` says which
    network and rule made them.

    Args:
        deployed: of :func:`lossatlas.deploy.load`.
        images: a folder, or a file.
        out: a folder outside ``images``; made if it is not there.
        rule: name of a decision rule; None takes ``tuned`` where there is one.
        probabilities: also write them.
        masks: of :func:`masks_to_write`, where it was asked before: large sets are read once.
        say: called with a line an image; None says nothing. On a terminal a bar shows how far it is.
        options: of :func:`predict_image`.

    Returns:
        number of masks written.

    Raises:
        DataError: no images, or some that cannot be read or differ from training: the masks of all others are
            there then. Or ``out`` holds masks of another network or rule, or cannot be written to.
    """
    from tqdm import tqdm

    from lossatlas.data.reading import read_image

    decision = deployed.rule(rule)[1]
    written, refused = 0, {}
    with _large_images():
        if masks is None:
            masks = masks_to_write(images, out, probabilities=probabilities)
        refuse_others(deployed, images, out, rule)
        if masks:
            made_by = json.dumps(_identity(deployed, rule), indent=1) + "\n"
            with _writing(out):
                Path(out).mkdir(parents=True, exist_ok=True)
                with replacing(Path(out) / MADE_BY) as whole:
                    whole.write_text(made_by, encoding="utf-8")
        for path, mask in tqdm(masks.items(), unit="image", disable=None, leave=False):
            try:
                digest = _digest(path)
                labels, found = predict_image(
                    deployed,
                    read_image(path).array,
                    rule=decision,
                    probabilities=probabilities,
                    where=path,
                    **options,
                )
            except DeployError:  # of the tiles or the device, so of every image
                raise
            except DataError as error:
                refused[path] = str(error)
                continue
            except OSError as error:
                refused[path] = f"{path}: expected a file that can be read, got {error.strerror}"
                continue
            with _writing(out):
                _write(mask, labels, found, digest)
            written += 1
            if say is not None:
                say(f"{mask}: {(labels > 0).mean():.3%} foreground")
    if refused:
        others = f" The masks of the other {written} are in {out}." if written else ""
        raise DataError(
            f"{len(refused)} of {len(masks)} images have no mask:{others} {shorten(refused.values())}",
            map(str, refused),
        )
    return written


def _writing(out: str | Path) -> AbstractContextManager[None]:
    return writing("masks", out, "or name another --out; masks that are there are kept")


def _write(
    mask: Path, labels: UInt8Array, found: npt.NDArray[np.float16] | None, digest: str
) -> None:
    """The mask of the image of a digest, after its probabilities: where it is there, so are they."""
    from PIL import Image, PngImagePlugin

    mask.parent.mkdir(parents=True, exist_ok=True)
    if found is not None:
        with replacing(_chances(mask)) as whole, whole.open("wb") as file:
            np.save(file, found)
    elif _image_of(mask) is not None:  # the probabilities of the mask that is replaced
        _chances(mask).unlink(missing_ok=True)
    about = PngImagePlugin.PngInfo()
    about.add_text(_IMAGE, digest)
    with replacing(mask) as whole:
        Image.fromarray(labels).save(whole, "PNG", pnginfo=about)


@contextmanager
def _large_images() -> Iterator[None]:
    """Let Pillow open images of up to `MAX_PIXELS`, which are the user's own here."""
    from PIL import Image

    before = Image.MAX_IMAGE_PIXELS
    Image.MAX_IMAGE_PIXELS = MAX_PIXELS
    try:
        yield
    finally:
        Image.MAX_IMAGE_PIXELS = before
