"""No pickle from disk, no shell made of names, no objects from YAML, no markup from data."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SOURCES = sorted((ROOT / "src").rglob("*.py"))


def calls(path: Path):
    """(dotted name, node) of every call in a file."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Call):
            yield ast.unparse(node.func), node


def keyword(node: ast.Call, name: str):
    """The value of a keyword argument where it is a constant."""
    return next((ast.literal_eval(k.value) for k in node.keywords if k.arg == name), None)


def unsafe(path: Path) -> list[str]:
    """Calls of a file that run code from a file, or hand text to a shell."""
    found = []
    for name, node in calls(path):
        last = name.rpartition(".")[2]
        if (
            (name == "torch.load" and keyword(node, "weights_only") is not True)
            or (name in ("np.load", "numpy.load") and keyword(node, "allow_pickle"))
            or (re.match(r"c?[pP]ickle\.", name) and last in ("load", "loads", "Unpickler"))
            or name in ("eval", "exec", "os.system", "os.popen", "joblib.load", "pd.read_pickle")
            or (name.startswith("subprocess.") and any(k.arg == "shell" for k in node.keywords))
            or (name in ("yaml.unsafe_load", "yaml.full_load", "yaml.load_all"))
            or (
                name == "yaml.load"
                and ast.unparse(next((k.value for k in node.keywords if k.arg == "Loader"), node))
                not in ("Loader", "yaml.SafeLoader")
            )
        ):
            found.append(f"{path.name}:{node.lineno}: {ast.unparse(node)}")
    return found


def test_no_file_is_unpickled_and_no_text_reaches_a_shell():
    assert len(SOURCES) > 100
    assert [line for path in SOURCES for line in unsafe(path)] == []


@pytest.mark.parametrize(
    "line",
    [
        "torch.load(p)",
        "torch.load(p, weights_only=False)",
        "np.load(p, allow_pickle=True)",
        "pickle.load(f)",
        "subprocess.run(c, shell=True)",
        "os.system(c)",
        "yaml.load(t, Loader=yaml.Loader)",
        "eval(t)",
    ],
)
def test_the_search_finds_what_it_looks_for(tmp_path, line):
    (tmp_path / "a.py").write_text(line)
    assert len(unsafe(tmp_path / "a.py")) == 1


def test_the_loader_of_yaml_makes_no_objects(tmp_path):
    import yaml

    from lossatlas.yaml12 import Loader, parse_yaml

    assert issubclass(Loader, yaml.SafeLoader)
    with pytest.raises(yaml.YAMLError):
        parse_yaml(f"!!python/object/apply:os.mkdir ['{tmp_path}/made']")
    assert not (tmp_path / "made").exists()


def test_every_name_in_a_command_of_the_workflow_is_quoted():
    text = (ROOT / "workflow" / "Snakefile").read_text(encoding="utf-8")
    shells = re.findall(r'"((?:exec|lossatlas|MALLOC|--|>>)[^"]*)"', text)
    names = re.findall(r"\{([^}]+)\}", " ".join(shells))
    plain = {"threads", "accelerator"}  # a number, and one of four words
    assert len(names) >= 10
    assert [name for name in names if not name.endswith(":q") and name not in plain] == []


NAMES = [
    "a; touch made",
    "$(touch made)",
    "`touch made`",
    "a\ntouch made",
    "../../made",
    "-rf",
    "a|b",
]


@pytest.mark.parametrize("name", NAMES)
def test_a_study_or_label_of_such_a_name_is_refused(tmp_path, monkeypatch, name):
    import yaml

    from lossatlas.experiments import ConfigError, load_study

    monkeypatch.chdir(tmp_path)
    content = {
        "study": "mine", "question": "which?", "datasets": ["digits"], "models": ["unet"],
        "losses": ["ce"], "seeds": [0], "training": {"steps": 3},
    }  # fmt: skip
    for change in ({"study": name}, {"losses": ["ce", {"name": "ce", "label": name}]}):
        Path("mine.yaml").write_text(yaml.safe_dump(content | change), encoding="utf-8")
        with pytest.raises(ConfigError):
            load_study("mine.yaml")
    assert [path.name for path in tmp_path.iterdir()] == ["mine.yaml"]


def test_markup_and_commands_in_names_of_data_are_text(tmp_path, monkeypatch, capsys):
    """A folder, files and classes with such names are checked and advised on; a page shows them as text."""
    import numpy as np
    import yaml
    from PIL import Image

    from lossatlas.cli import main

    monkeypatch.chdir(tmp_path)
    script = "<script>alert(1)</script>"
    root = tmp_path / "a; touch made $(touch made) <b>"
    for part in ("images", "masks"):
        (root / part).mkdir(parents=True)
        for index in range(12):
            pixels = np.zeros((16, 16), np.uint8)
            pixels[index : index + 3, 2:9] = 1 if part == "masks" else 200
            Image.fromarray(pixels).save(root / part / f"$(touch made) <img src=x> {index}\n.png")
    classes = yaml.safe_dump({"classes": ["background", script]})
    (root / "classes.yaml").write_text(classes, encoding="utf-8")
    assert main(["data", "check", str(root)]) in (0, 1)
    assert main(["advise", str(root), "--html", "advice.html"]) == 0, capsys.readouterr().err
    page = Path("advice.html").read_text(encoding="utf-8")
    assert script not in page and "&lt;script&gt;alert(1)" in page
    assert "<img src=x>" not in page and "touch made) <b>" not in page
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted([root.name, "advice.html"])
