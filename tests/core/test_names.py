"""One meaning for a name: public classes and functions that are defined in two files are listed here with a reason."""

import ast
from collections import defaultdict
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("moa_attention", "nodes", "recipes", "benchmarks", "devtools")
SAME_MEANING = {
    "main": "the entry point of a command",
    "layer_specs": "the attention layers of a foreign file, one function for each file format",
    "train": "the loop of the adapter, and that of MoA Mini's base model",
    "ensure": "makes a part of the developer's environment, used with its module's name",
    "find": "finds a program or a host, used with its module's name",
    "run": "runs a command or a demonstration, used with its module's name",
}
"""Names that may be defined twice, and what they mean everywhere."""


def definitions() -> dict[str, list[str]]:
    """Files by the public classes and functions that they define."""
    found: dict[str, list[str]] = defaultdict(list)
    for package in PACKAGES:
        for path in sorted((ROOT / package).rglob("*.py")):
            for node in ast.parse(path.read_text(encoding="utf-8")).body:
                if isinstance(node, ast.ClassDef | ast.FunctionDef) and not node.name.startswith("_"):
                    found[node.name].append(path.relative_to(ROOT).as_posix())
    return found


def test_no_public_name_has_two_meanings():
    twice = {name: files for name, files in definitions().items() if len(files) > 1}
    assert "main" in twice
    assert not twice.keys() - SAME_MEANING.keys(), {name: twice[name] for name in twice.keys() - SAME_MEANING.keys()}
    unused = SAME_MEANING.keys() - twice.keys()
    assert not unused, f"no longer defined twice: {sorted(unused)}"
