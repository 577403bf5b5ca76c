"""Write the page of what was tried against the package: python tests/tried.py.

Counts come from the tests themselves: the cases of a test are its parameters times the turns of its
longest loop with a literal ``range``.
"""

from __future__ import annotations

import ast
from pathlib import Path

TESTS = Path(__file__).parent
PAGE = TESTS.parent / "book" / "tried.md"

#: What is tried → (file, test).
ROWS: tuple[tuple[str, tuple[tuple[str, str], ...]], ...] = (
    ("`kill -9` of a training, at random moments", (
        ("experiments/test_resume.py", "test_a_run_killed_at_twenty_moments_ends_as_one_that_was_left_alone"),)),
    ("`kill -9` of a training under the workflow, then a stop of the workflow", (
        ("workflow/test_interruptions.py", "test_a_tuned_study_survives_a_killed_training_and_a_stop_and_goes_on"),)),
    ("`kill -9` of a comparison, of the training notebook, of a build of the book", (
        ("workflow/test_killed.py", "test_a_comparison_that_is_killed_goes_on_with_what_it_had"),
        ("workflow/test_killed.py", "test_a_notebook_that_is_killed_with_its_kernel_goes_on_with_what_it_had"),
        ("workflow/test_killed.py", "test_a_build_of_the_book_that_is_killed_goes_on_and_is_whole"),)),
    ("`kill -9` of what holds the lock of a build; two builds at once", (
        ("test_faults.py", "test_two_builds_of_the_book_never_meet_and_a_killed_one_holds_nobody_up"),)),
    ("a node of a cluster that dies", (
        ("workflow/test_slurm.py", "test_a_node_that_dies_in_the_middle_of_a_study_loses_nothing"),)),
    ("Ctrl-C, SIGTERM", (
        ("experiments/test_resume.py", "test_sigterm_saves_the_run_and_asks_to_be_tried_again"),
        ("experiments/test_resume.py", "test_ctrl_c_saves_the_run_too"),
        ("test_cli.py", "test_ctrl_c_ends_a_command_with_130_and_a_line"),)),
    ("a disk that is full, folders without rights", (
        ("data/test_fetch.py", "test_a_full_disk_is_named_before_and_during_the_download"),
        ("data/test_fetch.py", "test_a_folder_that_cannot_be_written_is_one_clear_line"),
        ("experiments/test_resume.py", "test_a_write_that_fails_leaves_the_last_checkpoint_and_no_litter"),
        ("test_faults.py", "test_a_disk_that_fills_up_leaves_no_half_mask_and_is_one_line"),
        ("test_faults.py", "test_folders_that_cannot_be_written_to_are_refused_before_any_work"),
        ("test_cli.py", "test_a_full_disk_missing_rights_and_ctrl_c_are_a_line"),)),
    ("corrupt checkpoints, records, caches, downloads", (
        ("data/test_cache.py", "test_a_damaged_entry_is_made_anew"),
        ("experiments/test_resume.py", "test_two_checkpoints_are_kept_and_a_broken_one_falls_back_to_the_one_before"),
        ("deploy/test_predict.py", "test_a_mutated_run_gives_a_network_or_an_error_of_ours"),
        ("data/test_fetch.py", "test_a_download_recovers_from_one_fault"),
        ("data/test_fetch.py", "test_a_fault_that_stays_is_one_clear_line_and_leaves_nothing"),)),
    ("archives that leave their folder, links, swelling archives", (
        ("data/test_fetch.py", "test_a_member_that_leaves_the_folder_stops_before_the_first_byte"),
        ("data/test_fetch.py", "test_a_link_in_an_archive_is_refused"),)),
    ("mutated studies", (
        ("experiments/test_mutated_studies.py", "test_a_thousand_mutated_studies_are_read_or_refused_by_name"),)),
    ("mutated configurations", (
        ("experiments/test_mutated_studies.py",
         "test_a_thousand_mutated_configurations_are_read_or_refused_by_name"),)),
    ("mutated images and masks", (
        ("data/test_reading.py", "test_mutated_files_are_read_or_refused_by_name"),)),
    ("mutated folders: check and load agree", (
        ("data/test_reading.py", "test_a_mutated_folder_passes_the_check_exactly_when_it_loads"),)),
    ("pickle, shells, objects in YAML: the whole source is searched", (
        ("repository/test_security.py", "test_no_file_is_unpickled_and_no_text_reaches_a_shell"),
        ("repository/test_security.py", "test_the_search_finds_what_it_looks_for"),
        ("deploy/test_predict.py", "test_a_checkpoint_with_code_in_it_is_refused_and_the_code_is_not_run"),)),
    ("names with `;`, `$()`, newlines, `../`, markup", (
        ("repository/test_security.py", "test_a_study_or_label_of_such_a_name_is_refused"),
        ("repository/test_security.py", "test_markup_and_commands_in_names_of_data_are_text"),)),
    ("a folder of 100,000 files", (
        ("data/test_scale.py", "test_a_folder_of_100_000_files_is_checked_in_bounded_memory"),)),
    ("a study of 100,000 runs, read, judged and tabulated", (
        ("report/test_scale.py", "test_a_study_of_100_000_runs_is_read_judged_and_tabulated"),)),
    ("an image of 20,000 × 20,000", (
        ("deploy/test_large_image.py",
         "test_an_image_of_20_000_by_20_000_is_predicted_and_evaluated_in_bounded_memory"),)),
)  # fmt: skip


def function(file: str, name: str) -> tuple[ast.Module, ast.FunctionDef]:
    """A test and its module."""
    tree = ast.parse((TESTS / file).read_text(encoding="utf-8"))
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef) and node.name == name:
            return tree, node
    raise SystemExit(f"tests/{file}: expected {name}, found no such test; correct tests/tried.py")


def length(node: ast.expr, tree: ast.Module) -> int:
    """Items of a literal list, of a literal ``range``, or of a constant of the module; else 1."""
    if isinstance(node, ast.Name):
        named = [n.value for n in tree.body if isinstance(n, ast.Assign)
                 and ast.unparse(n.targets[0]) == node.id]  # fmt: skip
        return length(named[0], tree) if named else 1
    if isinstance(node, (ast.List, ast.Tuple)):
        return len(node.elts)
    if isinstance(node, ast.Dict):
        return len(node.keys)
    if isinstance(node, ast.Call) and ast.unparse(node.func) == "range":
        ends = [n.value for n in node.args if isinstance(n, ast.Constant)]
        return ends[0] if len(ends) == len(node.args) == 1 else 1
    return 1


def number(item: ast.expr) -> int:
    """A parameter that is a number, in ``pytest.param`` or not."""
    return int(ast.literal_eval(item.args[0] if isinstance(item, ast.Call) else item))


def cases(file: str, name: str) -> int:
    """Parameters of a test, times the turns of its longest loop over a literal ``range``."""
    tree, node = function(file, name)
    count = 1
    for each in node.decorator_list:
        if isinstance(each, ast.Call) and ast.unparse(each.func) == "pytest.mark.parametrize":
            if f"range({ast.literal_eval(each.args[0])})" in ast.unparse(node):
                values = each.args[1]
                assert isinstance(values, ast.List)
                return max(
                    number(item) for item in values.elts
                )  # turns of the loop; the longest holds the shorter
            count *= length(each.args[1], tree)
    turns = [
        length(n.iter, tree)
        for n in ast.walk(node)
        if isinstance(n, ast.For) and isinstance(n.iter, ast.Call)
    ]
    return count * max(turns, default=1)


def jobs(file: str, name: str) -> set[str]:
    """What runs a test: ``make test``, the weekly job, or each some of its parameters."""
    tree, node = function(file, name)
    marks = [ast.unparse(d) for d in node.decorator_list]
    of_module = [ast.unparse(n) for n in tree.body if isinstance(n, ast.Assign)]
    if "pytest.mark.extended" in marks or any("mark.extended" in n for n in of_module):
        return {"weekly"}
    return (
        {"`make test`", "weekly"} if any("mark.extended" in m for m in marks) else {"`make test`"}
    )


def text() -> str:
    """The page."""
    lines = [
        "# What was tried",
        "",
        "**Question.** What has been done to the package to break it, and how often?",
        "",
        "Every line is a test that `make test` runs, or the weekly job. A case is one file, one signal or one",
        "mutation; the script `tests/tried.py` counts them in the tests.",
        "",
        "| what | cases | run | test |",
        "|---|---:|---|---|",
    ]
    total = 0
    for what, tests in ROWS:
        count = sum(cases(*each) for each in tests)
        total += count
        when = ", ".join(sorted(set().union(*(jobs(*each) for each in tests))))
        files = ", ".join(dict.fromkeys(f"`{file}`" for file, _ in tests))
        lines.append(f"| {what} | {count:,} | {when} | {files} |")
    lines += [
        "",
        f"**Answer.** In {total:,} cases. Each is a test that must pass. A fault that is missing here is welcome "
        "as an issue.",
        "",
        "**Limits.** What no test does is not here: other operating systems, a GPU, many nodes of a cluster.",
    ]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    PAGE.write_text(text(), encoding="utf-8")
    print(PAGE)
