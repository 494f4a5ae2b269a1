"""The rooms of the code base and the imports between them, read off its syntax trees."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import networkx

from .host import ROOT

BUILDINGS = {"moa_attention": 2, "nodes": 2, "recipes": 1, "benchmarks": 1}
"""Top folders, and how many levels of folders in them are rooms of their own."""
ALONE = ("moa_attention/pictures.py", "nodes/sockets.py")
"""Files that are rooms of their own: their neighbours in the folder lie above them."""


def rooms() -> networkx.DiGraph:
    """Rooms as nodes, imports as edges.

    A node's attributes are `purpose`, the beginning of its docstring, and `host`, whether it imports ComfyUI.
    """
    graph = networkx.DiGraph()
    for building in BUILDINGS:
        for file in sorted((ROOT / building).rglob("*.py")):
            if file == ROOT / "moa_attention" / "__init__.py":
                continue  # the package's public names, from every room
            name, tree = room_of(file), ast.parse(file.read_text(encoding="utf-8"))
            graph.add_node(name)
            if file in (ROOT / name, ROOT / name / "__init__.py"):
                graph.nodes[name]["purpose"] = re.split(
                    r"[;.] |\.?$| \(|: `", ast.get_docstring(tree) or "", maxsplit=1
                )[0]
            graph.nodes[name]["host"] = graph.nodes[name].get("host", False) or imports_host(tree)
            graph.add_edges_from((name, other) for other in map(room_of, imported(file, tree)) if other != name)
    return graph


def room_of(file: Path) -> str:
    """The name of the room in which a file lies."""
    path = file.relative_to(ROOT)
    if path.as_posix() in ALONE:
        return path.as_posix()
    return "/".join(path.parts[:-1][: BUILDINGS[path.parts[0]]])


def imports_host(tree: ast.Module) -> bool:
    for node in ast.walk(tree):
        names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        if isinstance(node, ast.ImportFrom) and not node.level:
            names = [node.module or ""]
        if any(name.startswith("comfy") for name in names):
            return True
    return False


def imported(file: Path, tree: ast.Module) -> Iterator[Path]:
    """The files of this code base that a file imports; all its imports of them are relative."""
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.level:
            module = file.parents[node.level - 1].joinpath(*(node.module or "").split("."))
            for alias in node.names:
                choices = (module / f"{alias.name}.py", module / alias.name / "__init__.py", module.with_suffix(".py"))
                yield next((path for path in choices if path.is_file()), module / "__init__.py")


def levels(graph: networkx.DiGraph) -> tuple[list[list[str]], list[list[str]]]:
    """Rooms from top to bottom, so that every import points down, and the imports that do not follow from others.

    Returns: (rows, ways). A way is an import as a list of names, from upper to lower room; where it passes levels, there is
    a waypoint on each, which has a place in that row, too. In a row, names lie near those they are joined to.
    Raises:
        networkx.NetworkXUnfeasible: rooms import each other in a circle.
    """
    reduced = networkx.transitive_reduction(graph)
    level = {name: i for i, names in enumerate(networkx.topological_generations(reduced)) for name in names}
    ways = []
    for upper, lower in reduced.edges:
        passed = range(level[upper] + 1, level[lower])
        waypoints = {f"{upper} to {lower}, {i}": i for i in passed}
        level |= waypoints
        ways.append([upper, *waypoints, lower])
    rows = [sorted(name for name in level if level[name] == i) for i in range(max(level.values()) + 1)]
    return sort_rows(rows, ways), ways


def sort_rows(rows: list[list[str]], ways: list[list[str]], sweeps: int = 8) -> list[list[str]]:
    """Put each name at the mean position of those it is joined to, by turns of those above and below."""
    joined = networkx.DiGraph()
    for way in ways:
        networkx.add_path(joined, way)
    for _ in range(sweeps):
        for neighbours in (joined.predecessors, joined.successors):
            for i, row in enumerate(rows):
                at = {name: j - (len(other) - 1) / 2 for other in rows for j, name in enumerate(other)}
                near = {name: [at[other] for other in neighbours(name)] or [at[name]] for name in row}
                rows[i] = sorted(row, key=lambda name: sum(near[name]) / len(near[name]))
    return rows
