"""The rules of the code base, read off its syntax trees: which file may import what, and what no file may do."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
HOST_PACKAGES = {
    "comfy",
    "comfy_api",
    "comfy_execution",
    "comfy_extras",
    "folder_paths",
    "node_helpers",
    "server",
    "execution",
}
CORE = sorted((ROOT / "moa_attention").rglob("*.py"))
NODES = sorted((ROOT / "nodes").rglob("*.py"))
PACK = [ROOT / "__init__.py", *CORE, *NODES]
MAX_LINES = 300

PATCHING = {"comfy.model_patcher", "comfy.patcher_extension", "comfy.sampler_helpers", "comfy.samplers"}
PATCHING_NAMES = {
    "add_wrapper_with_key",
    "set_additional_models",
    "set_model_attn1_patch",
    "set_model_attn1_output_patch",
    "set_model_attn2_patch",
    "set_model_attn2_output_patch",
    "set_model_patch",
    "transformer_options",
}
FORBIDDEN_MODULES = {"subprocess", "requests", "urllib", "http", "socket", "pickle", "marshal", "ctypes"}
FORBIDDEN_CALLS = {
    "eval",
    "exec",
    "compile",
    "__import__",
    "os.system",
    "os.popen",
    "torch.load",
    "print",
}
FORBIDDEN_METHODS = {"cuda"}
FORBIDDEN_OUTSIDE_TRAINING = {"torch.autocast"}
"""At inference the host decides precisions; the trainer decides its own."""


def path_id(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def imports(path: Path) -> Iterator[tuple[int, str]]:
    """(relative level, module) of every import; for `from . import name` the name."""
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.Import):
            yield from ((0, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            if node.module:
                yield node.level, node.module
            else:
                yield from ((node.level, alias.name) for alias in node.names)


def names(path: Path) -> set[str]:
    """Every identifier, attribute and string constant that is code, docstrings excepted."""
    found = set()
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.Attribute):
            found.add(node.attr)
        elif isinstance(node, ast.Name):
            found.add(node.id)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            found.add(node.value)
    return found


def dotted(node: ast.expr) -> str:
    if isinstance(node, ast.Attribute):
        return f"{dotted(node.value)}.{node.attr}"
    return node.id if isinstance(node, ast.Name) else ""


def test_there_is_something_to_check():
    assert CORE
    assert NODES


@pytest.mark.parametrize("path", CORE, ids=path_id)
def test_the_core_imports_neither_host_nor_nodes(path: Path):
    depth = len(path.relative_to(ROOT / "moa_attention").parts)
    for level, module in imports(path):
        top = module.split(".")[0]
        assert top not in HOST_PACKAGES, f"the core imports {module}"
        assert level <= depth, f"{'.' * level}{module} leaves moa_attention"
        assert not (level == 0 and top in {"moa_attention", "nodes"}), (
            f"{module}: only relative imports inside the pack"
        )


@pytest.mark.parametrize("path", NODES, ids=path_id)
def test_nodes_import_the_core_relatively(path: Path):
    for level, module in imports(path):
        assert not (level == 0 and module.split(".")[0] == "moa_attention"), (
            f"{module}: only relative imports inside the pack"
        )


@pytest.mark.parametrize("path", [p for p in NODES if p.name != "patch.py"], ids=path_id)
def test_only_one_file_touches_model_patching(path: Path):
    used = {module for level, module in imports(path) if level == 0}
    assert not used & PATCHING, "model patching belongs into nodes/patch.py"
    assert not names(path) & PATCHING_NAMES, "model patching belongs into nodes/patch.py"


@pytest.mark.parametrize("path", PACK, ids=path_id)
def test_no_forbidden_module_or_call(path: Path):
    for level, module in imports(path):
        assert not (level == 0 and module.split(".")[0] in FORBIDDEN_MODULES), f"imports {module}"
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.Call):
            name = dotted(node.func)
            banned = FORBIDDEN_CALLS if "training" in path.parts else FORBIDDEN_CALLS | FORBIDDEN_OUTSIDE_TRAINING
            assert name not in banned, f"line {node.lineno}: {name}()"
            if isinstance(node.func, ast.Attribute):
                assert node.func.attr not in FORBIDDEN_METHODS, f"line {node.lineno}: .{node.func.attr}()"


@pytest.mark.parametrize("path", PACK, ids=path_id)
def test_files_are_short_and_say_what_they_are(path: Path):
    assert len(path.read_text(encoding="utf-8").splitlines()) <= MAX_LINES
    assert ast.get_docstring(tree(path)), "the first line of a file is a docstring that says what it is"


def test_the_package_can_be_imported_without_a_host():
    """`__init__.py` imports the nodes only when the host asks for them."""
    top_level = [node for node in tree(ROOT / "__init__.py").body if isinstance(node, ast.Import | ast.ImportFrom)]
    assert not top_level
