"""The names of ComfyUI that the nodes use, read off their syntax trees, and the page that lists them.

.venv/bin/python -m devtools.interfaces     # brings the table of names in docs/host-interfaces.md up to date
"""

from __future__ import annotations

import ast
import re
from collections import defaultdict
from collections.abc import Iterator

from .host import ROOT

PAGE = ROOT / "docs" / "host-interfaces.md"
PACKAGES = ("comfy", "comfy_api", "comfy_execution", "folder_paths", "server")
NAMES = "names"
"""Of the table that this command writes; the page's other tables are written by hand."""

Row = tuple[str, ...]


def used() -> dict[tuple[str, str], list[str]]:
    """The files that use a name of the host, by (module, name)."""
    found = defaultdict(list)
    for file in sorted((ROOT / "nodes").rglob("*.py")):
        tree = ast.parse(file.read_text(encoding="utf-8"))
        for key in sorted(set(host_names(tree))):
            found[key].append(file.relative_to(ROOT / "nodes").as_posix())
    return dict(sorted(found.items()))


def host_names(tree: ast.Module) -> Iterator[tuple[str, str]]:
    """(module, name) of each use in a file; the name is dotted where it is an attribute of what the module has."""
    modules, aliases = host_imports(tree)
    inner = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute | ast.Name) and isinstance(node.ctx, ast.Load) and id(node) not in inner:
            root, dot, rest = ast.unparse(node).partition(".")
            chain = aliases.get(root, root) + dot + rest
            module = max((m for m in modules if chain.startswith(f"{m}.")), key=len, default=None)
            if module:
                yield module, chain.removeprefix(f"{module}.")


def host_imports(tree: ast.Module) -> tuple[set[str], dict[str, str]]:
    """The host's modules that a file imports, and the names it takes out of them by their name in the file."""
    modules, aliases = set(), {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            modules |= {alias.name for alias in node.names if alias.name.split(".")[0] in PACKAGES}
        elif isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] in PACKAGES:
            modules.add(node.module)
            aliases |= {alias.asname or alias.name: f"{node.module}.{alias.name}" for alias in node.names}
    return modules, aliases


def table(name: str) -> list[Row]:
    """The rows of one of the page's tables, without its head; backticks are left out."""
    text = re.search(rf"<!-- {name} -->\n(.*?)\n<!-- end -->", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    assert text is not None, f"{PAGE} has no table {name}"
    return [
        tuple(cell.strip() for cell in line.replace("`", "").strip("|").split("|")) for line in text[1].split("\n")[2:]
    ]


def main() -> None:
    """Write the table of names; what is known about a name's first version is kept, of a new name it is left open."""
    since = {(module, name): version for module, name, _, version in table(NAMES)}
    lines = [
        f"| `{module}` | `{name}` | {', '.join(files)} | {since.get((module, name), '')} |"
        for (module, name), files in used().items()
    ]
    page = PAGE.read_text(encoding="utf-8")
    head = "| module | name | used in `nodes/` | since |\n|---|---|---|---|\n"
    start, end = f"<!-- {NAMES} -->\n", "\n<!-- end -->"
    before, _, rest = page.partition(start)
    PAGE.write_text(before + start + head + "\n".join(lines) + end + rest.partition(end)[2], encoding="utf-8")


if __name__ == "__main__":
    main()
