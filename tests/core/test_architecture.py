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
HOST = sorted((ROOT / "nodes" / "host").rglob("*.py"))
RECIPES = sorted([*(ROOT / "recipes").rglob("*.py"), *(ROOT / "benchmarks").rglob("*.py")])
ATTACHING = [ROOT / "nodes" / "host" / "model" / name for name in ("patch.py", "unet.py")]
PACK = [ROOT / "__init__.py", *CORE, *NODES]
ROOMS: dict[str, set[str]] = {
    "method": set(),
    "run": {"method"},
    "routers": {"method", "run"},
    "adapters": {"method", "run"},
    "formats": {"method", "adapters"},
    "subjects": set(),
    "training": {"method", "run", "adapters", "formats", "subjects"},
}
"""What each room of the core may import."""
HOST_ROOMS: dict[str, set[str]] = {
    "prompts": set(),
    "model": {"prompts"},
    "files": {"prompts", "model"},
    "pictures": {"prompts", "model", "files"},
    "training": {"prompts", "model", "files", "pictures"},
}
"""What each room of `nodes/host` may import of the others."""
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


def project_imports(path: Path) -> Iterator[tuple[str, ...]]:
    """The modules of this project that a file imports, as parts of their names."""
    package = path.relative_to(ROOT).parts[:-1]
    for level, module in imports(path):
        if level:
            yield (*package[: len(package) - level + 1], *module.split("."))


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


def loads_tensors_only(call: ast.Call) -> bool:
    """Whether a call of `torch.load` refuses everything but tensors."""
    given = {keyword.arg: keyword.value for keyword in call.keywords}
    only = given.get("weights_only")
    return isinstance(only, ast.Constant) and only.value is True


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


@pytest.mark.parametrize("path", [p for p in CORE if p.parent != ROOT / "moa_attention"], ids=path_id)
def test_rooms_of_the_core_import_only_the_rooms_below(path: Path):
    room = path.relative_to(ROOT / "moa_attention").parts[0]
    for target in project_imports(path):
        other = target[1] if len(target) > 1 else ""
        assert other == room or other in ROOMS[room], f"{room} imports {'.'.join(target)}"


@pytest.mark.parametrize("path", [p for p in HOST if p.parent != ROOT / "nodes" / "host"], ids=path_id)
def test_rooms_of_the_host_import_only_the_rooms_below(path: Path):
    room = path.relative_to(ROOT / "nodes" / "host").parts[0]
    for target in project_imports(path):
        other = target[2] if target[:2] == ("nodes", "host") and len(target) > 2 else ""
        assert other in {"", room, *HOST_ROOMS[room]} or other not in HOST_ROOMS, f"{room} imports {'.'.join(target)}"


@pytest.mark.parametrize("path", NODES, ids=path_id)
def test_nodes_import_the_core_relatively(path: Path):
    for level, module in imports(path):
        assert not (level == 0 and module.split(".")[0] == "moa_attention"), (
            f"{module}: only relative imports inside the pack"
        )


@pytest.mark.parametrize("path", [*HOST, *RECIPES], ids=path_id)
def test_only_node_files_import_node_schemas(path: Path):
    for target in project_imports(path):
        if target[0] == "nodes":
            assert target[1] in {"host", "sockets"}, f"imports {'.'.join(target)}, which holds node schemas"


@pytest.mark.parametrize("path", [p for p in NODES if p not in ATTACHING], ids=path_id)
def test_only_the_attachment_touches_model_patching(path: Path):
    used = {module for level, module in imports(path) if level == 0}
    assert not used & PATCHING, "model patching belongs into nodes/host/model/patch.py"
    assert not names(path) & PATCHING_NAMES, "model patching belongs into nodes/host/model/patch.py"


@pytest.mark.parametrize("path", [p for p in NODES if p.name != "listing.py"], ids=path_id)
def test_lists_of_files_do_not_raise_while_a_folder_is_away(path: Path):
    assert "get_filename_list" not in names(path), "use file_names of nodes/host/files/listing.py"


@pytest.mark.parametrize("path", PACK, ids=path_id)
def test_no_forbidden_module_or_call(path: Path):
    for level, module in imports(path):
        assert not (level == 0 and module.split(".")[0] in FORBIDDEN_MODULES), f"imports {module}"
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.Call):
            name = dotted(node.func)
            banned = FORBIDDEN_CALLS if "training" in path.parts else FORBIDDEN_CALLS | FORBIDDEN_OUTSIDE_TRAINING
            safe = name == "torch.load" and loads_tensors_only(node)
            assert safe or name not in banned, f"line {node.lineno}: {name}()"
            if isinstance(node.func, ast.Attribute):
                assert node.func.attr not in FORBIDDEN_METHODS, f"line {node.lineno}: .{node.func.attr}()"


@pytest.mark.parametrize("path", PACK, ids=path_id)
def test_files_are_short_and_describe_themselves(path: Path):
    assert len(path.read_text(encoding="utf-8").splitlines()) <= MAX_LINES
    assert ast.get_docstring(tree(path)), "the first line of a file is a docstring that describes it"


def test_the_package_can_be_imported_without_a_host():
    """`__init__.py` imports the nodes only when the host requests them."""
    top_level = [node for node in tree(ROOT / "__init__.py").body if isinstance(node, ast.Import | ast.ImportFrom)]
    assert not top_level
