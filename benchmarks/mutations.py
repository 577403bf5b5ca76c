"""Do the tests of the losses fail when the losses are wrong?

    python benchmarks/mutations.py [WORDS]

applies each break of `BREAKS` (or those whose name has the words) to a copy of the package, and runs the test that
must fail. It prints a line for each break and ends with status 1 if a test passed in spite of its break. Before that,
every test must pass on the package as it is.
"""

from __future__ import annotations

import multiprocessing
import os
import shutil
import sys
import tempfile
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[1]
#: What pytest has said last, in the folder of the copy.
OUTPUT = "pytest.log"


class Break(NamedTuple):
    """A deliberate mistake: in ``file``, ``right`` becomes ``wrong``, and ``test`` must fail."""

    name: str
    file: str
    right: str
    wrong: str
    test: str


ORACLE = "test_oracles.py::test_the_value_equals_the_oracle_under_every_option"
ORACLE_GRADIENT = "test_oracles.py::test_the_gradient_equals_central_differences_of_the_oracle"
BY_HAND = "test_values.py::test_two_pixels_give_the_value_computed_by_hand"
TWO_PROCESSES = (
    "test_processes.py::test_two_processes_have_the_loss_and_the_gradient_of_the_whole_batch"
)
CHUNKS = "../losses_internal/test_fast.py::test_chunked_and_plain_forms_agree_across_chunk_borders"
# fmt: off
BREAKS = (
    Break("poly1 subtracts its term", "focal.py", "return u + self.epsilon * q", "return u - self.epsilon * q",
          f"{BY_HAND}[poly1]"),
    Break("the mask is dropped from the probabilities", "_sample.py",
          "        if self.valid is None:\n            return p\n", "        if True:\n            return p\n",
          "test_invariances.py::test_ignoring_equals_cropping[dice]"),
    Break("the mean divides by the pixels, not by their weights", "_base.py",
          "count = sum_over_processes(s.weight_sum(divisor), self.process_group)",
          "count = sum_over_processes(s.weight_sum(None), self.process_group)", f"{ORACLE}[ce]"),
    Break("Tversky's alpha and beta change places", "region.py", "self.alpha * fp + self.beta * fn",
          "self.alpha * fn + self.beta * fp", f"{BY_HAND}[tversky]"),
    Break("region losses drop the class weights", "_base.py", "        return weights * w\n",
          "        return weights\n", f"{ORACLE}[dice]"),
    Break("Lovász-Softmax ignores per_image", "lovasz.py", "if not self.per_image:\n            errors",
          "if True:\n            errors",
          "test_invariances.py::test_per_image_is_the_mean_over_images[lovasz_softmax]"),
    Break("an image without valid pixels counts in the mean over images", "_base.py", "images = (weights.sum(-1) > 0)",
          "images = (weights.sum(-1) >= 0)",
          "test_edges.py::test_an_all_ignored_image_leaves_the_per_image_mean[dice]"),
    Break("Jaccard's numerator has no smooth", "region.py", "overlap(r.intersection + self.smooth, union + self.smooth",
          "overlap(r.intersection, union + self.smooth", f"{ORACLE}[jaccard]"),
    Break("a region of hardly any probability keeps its slope", "_base.py", "least = denominator.abs() < _LEAST",
          "least = denominator.abs() < 0",
          "test_nan_and_inf.py::test_a_region_of_hardly_any_probability_has_a_finite_slope"),
    Break("focal's derivative has no gamma", "focal.py", "torch.addcmul(q, 1 - q, u, value=gamma)",
          "torch.addcmul(q, 1 - q, u)", f"{ORACLE_GRADIENT}[focal]"),
    Break("focal's value has gamma + 1", "focal.py", "(q if gamma >= 2 else _positive(q)) ** gamma",
          "(q if gamma >= 2 else _positive(q)) ** (gamma + 1)", f"{BY_HAND}[focal]"),
    Break("unified focal loss focuses the foreground, too", "focal.py",
          "background if self.asymmetric else background + foreground",
          "background + foreground", f"{ORACLE}[unified_focal]"),
    Break("soft labels have the distance of hard ones", "_chunked.py", "if distance and not self.labelled():",
          "if distance and self.softmax and self.soft:", f"{ORACLE}[dice_semimetric]"),
    Break("Lovász's increment of a background pixel is too large", "lovasz.py",
          "(t * union + (1 - t) * intersection) /", "(t * union + (1 - t) * (intersection + 1)) /",
          f"{ORACLE}[lovasz_softmax]"),
    Break("a bin of Lovász's histogram has its first pixel's increment", "lovasz.py",
          "torch.where(union > 0, (1 / safe + 1 / safe_after) / 2, 1 / safe_after)",
          "torch.where(union > 0, 1 / safe, 1 / safe_after)",
          "test_lovasz.py::test_the_histogram_stays_within_its_stated_bound[lovasz_softmax]"),
    Break("OHEM keeps the pixels on the other side of its threshold", "cross_entropy.py",
          "self.cut = -math.log(self.threshold)",
          "self.cut = -math.log1p(-self.threshold) if self.threshold < 1 else 0.0", f"{ORACLE}[ohem_ce]"),
    Break("top-k rounds its count down", "cross_entropy.py", "(self.k * _wide(n)).round().long().clamp_min(1)",
          "(self.k * _wide(n)).floor().long().clamp_min(1)", f"{ORACLE}[topk_ce]"),
    Break("one-vs-all takes the logarithm of 1 - p as it stands", "cross_entropy.py",
          "return torch.where(top, others, torch.log1p(-small.exp()))", "return torch.log1p(-log_p.exp())",
          "test_edges.py::test_a_perfect_prediction_costs_nothing[one_vs_all_ce]"),
    Break("label smoothing forgets the class weights", "cross_entropy.py",
          "(u if table is None else table * possible(u, table)).mean(1)", "u.mean(1)", f"{ORACLE}[ce]"),
    Break("an absent class counts", "_base.py", "counted = counted & r.present", "counted = counted",
          f"{ORACLE}[dice]"),
    Break("generalized Dice divides by the square of zero", "region.py", "r.target.clamp_min(1) ** 2", "r.target ** 2",
          f"{ORACLE}[generalized_dice]"),
    Break("the boundary's map has the other sign", "distance.py", "outer - inner", "inner - outer",
          f"{ORACLE}[boundary]"),
    Break("the parts of a compound share one ignore_index", "_base.py", "key = (part.mode, part.ignore_index)\n",
          "key = (part.mode, self.ignore_index)\n",
          "test_reductions.py::test_a_sum_of_losses_keeps_the_parameters_of_each"),
    Break("a ratio looks at its values, which a compiled graph cannot", "_base.py", "    nonzero = denominator != 0\n",
          "    nonzero = denominator != 0\n" "    if bool(nonzero.all()):\n" "        return numerator / denominator\n",
          "test_transforms.py::test_the_whole_graph_compiles[ce]"),
    Break("the gradient of a sum over processes is that of one process", "_processes.py",
          "return _Sum.apply(grad, ctx.group), None", "return grad, None", f"{TWO_PROCESSES}[ce]"),
    Break("totals over pixels stay in their process", "_base.py",
          "return sum_over_processes(total, self.process_group)\n\n    def reduced(self, value",
          "return total\n\n    def reduced(self, value", f"{TWO_PROCESSES}[ce]"),
    Break("the chunks of an image do not add up", "_chunked.py", ".unflatten(-2, (size[-2], -1)).sum(-2)",
          ".unflatten(-2, (size[-2], -1))[..., 0, :]", f"{CHUNKS}[dice-multiclass]"),
    Break("a chunk takes the slopes of another image", "_chunked.py", "first = number // repeats * images",
          "first = number % repeats * images", f"{CHUNKS}[dice-multiclass]"),
    Break("the product of 1 - x and 1 - y lacks a summand", "_chunked.py", "torch.addcmul(x, x, y, value=-1).add_(y)",
          "torch.addcmul(x, x, y, value=-1)",
          "../losses_internal/test_fast.py::test_the_logarithm_of_products_is_the_sum_of_logarithms[8]"),
    Break("the sum of surprisals has its own gradient alone", "_chunked.py", "p.add_(pull, alpha=by_sum.item())",
          "p.add_(pull)", f"{CHUNKS}[dice_ce-binary]"),
    Break("the logits of void pixels are read as they came", "_chunked.py", "                if logits:\n",
          "                if False:\n",
          "test_invariances.py::test_a_single_void_pixel_is_left_out_whatever_its_logit_holds"),
    Break("void pixels count as valid ones", "_valid.py",
          "return torch.stack([part.float().sum(-1) for part in parts])",
          "return torch.stack([(part >= 0).float().sum(-1) for part in parts])",
          "test_invariances.py::test_ignoring_equals_cropping[ce]"),
    Break("one valid pixel too few passes for none that is void", "_layout.py", "== valid.numel():",
          ">= valid.numel() - 1:", 
          "test_invariances.py::test_a_single_void_pixel_is_left_out_whatever_its_logit_holds"),
)
# fmt: on


def broken(source: Path, each: Break) -> str:
    """The text of the file with the break in it.

    Raises:
        ValueError: the right text is there no more, or more than once.
    """
    text = (source / each.file).read_text()
    if (count := text.count(each.right)) != 1:
        raise ValueError(
            f"{each.name}: expected {each.right!r} once in {each.file}, got {count} times: "
            "write the break for the code as it is now"
        )
    return text.replace(each.right, each.wrong)


def _test(source: Path, tests: list[str]) -> None:
    """In a process of its own: run ``tests`` on the package in ``source`` and end with pytest's status."""
    import pytest

    sys.path.insert(0, str(source))
    os.environ["PYTHONPATH"] = str(source)  # for the processes that a test starts
    os.chdir(ROOT)
    output = os.open(source / OUTPUT, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(output, 1)
    os.dup2(output, 2)
    options = ["-x", "-q", "-p", "no:cacheprovider", "--timeout=1200"]
    code = pytest.main([*options, *tests])
    sys.stdout.flush()
    os._exit(int(code))


def status(source: Path, tests: list[str]) -> int | None:
    """Pytest's: 0 all passed, 1 some failed, above that nothing was tested."""
    process = multiprocessing.get_context("fork").Process(target=_test, args=(source, tests))
    process.start()
    process.join()
    return process.exitcode


def main(words: str = "") -> int:
    """Apply the breaks one after the other; 1 if a test missed its break."""
    import torch  # once: the processes are forks of this one

    torch.set_num_threads(1)
    chosen = [each for each in BREAKS if words in each.name]
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder)
        shutil.copytree(ROOT / "src/lossatlas", source / "lossatlas")
        losses = source / "lossatlas/losses"
        before = status(source, sorted({f"tests/losses/{each.test}" for each in chosen}))
        if before != 0:
            print((source / OUTPUT).read_text()[-3000:])
            print(f"expected the tests to pass before any break, got pytest's status {before}")
            return 1
        missed = 0
        for each in chosen:
            right = (losses / each.file).read_text()
            (losses / each.file).write_text(broken(losses, each))
            found = status(source, [f"tests/losses/{each.test}"])
            (losses / each.file).write_text(right)
            missed += found != 1
            print("caught" if found == 1 else f"MISSED ({found})", each.name, sep="  ", flush=True)
    print(f"{len(chosen) - missed} of {len(chosen)} breaks are caught")
    return int(missed > 0)


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:2]))
