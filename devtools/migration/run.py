"""One workflow from a file to a file."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from .chains import Chains
from .graph import ApiGraph, Graph, Link
from .helpers import replace_helpers, stays
from .page_graph import PageGraph
from .report import Report
from .theirs import HELPERS, LEFT, LOADERS, is_theirs

SUFFIX = ".moa.json"
"""Of the new file where none is named."""


ALONE = {"IPAdapterSaveEmbeds", "PrepImageForClipVision"}
"""Helpers that are of use without a chain."""


class MigrationError(ValueError):
    """A file is not a workflow that can be migrated."""


def main(arguments: list[str]) -> int:
    """`migrate FILE [OUT]`."""
    if not 1 <= len(arguments) <= 2 or arguments[0].startswith("-"):
        raise MigrationError(
            "'migrate' takes a workflow and perhaps the name of the new file: python dev.py migrate FILE [OUT]"
        )
    source = Path(arguments[0])
    target = Path(arguments[1]) if len(arguments) == 2 else source.with_suffix(SUFFIX)
    content = read(source)
    report = migrate(content)
    if not report.new:
        raise MigrationError("\n".join(["nothing could be migrated, so no file was written.", *report.lines()]))
    if target.exists():
        raise MigrationError(f"'{target}' exists. Name another file, or remove it.")
    target.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    print("\n".join([*report.lines(), f"Wrote {target}. The old file is unchanged."]))
    return 0


def read(path: Path) -> Any:
    """The JSON in a file.

    Raises: MigrationError.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise MigrationError(
            f"'{path}' cannot be read as a workflow ({error}). Save the workflow as .json in the page."
        ) from error


def migrate(content: Any) -> Report:
    """Change the workflow in place.

    Raises: MigrationError when it is in no known format, or has no node of IPAdapter_plus.
    """
    graph = graph_of(content)
    report = Report(graph)
    if not any(is_theirs(graph.kind(node)) for node in graph.ids()):
        raise MigrationError("The workflow has no node of IPAdapter_plus outside subgraphs, so nothing was written.")
    chains = Chains(graph, report)
    chains.run()
    replace_helpers(graph, report, chains)
    clean_up(graph, report, chains)
    return report


def graph_of(content: Any) -> Graph:
    """The nodes of a file in either format.

    Raises: MigrationError.
    """
    if isinstance(content, dict) and isinstance(content.get("nodes"), list) and isinstance(content.get("links"), list):
        if all(isinstance(link, list) for link in content["links"]):
            return PageGraph(content)
    elif (
        isinstance(content, dict)
        and content
        and all(isinstance(n, dict) and "class_type" in n for n in content.values())
    ):
        return ApiGraph(content)
    raise MigrationError(
        "The file is no workflow of ComfyUI: expected one with 'nodes' and 'links' (Save) or with 'class_type' of every node (Export API)."
    )


def clean_up(graph: Graph, report: Report, chains: Chains) -> None:
    """Remove migrated nodes that nothing needs, and list those that stay."""
    for loader in chains.subjects.models:
        if not needed(graph, chains, loader):
            for use in graph.users(Link(loader, 1)):
                if graph.kind(use.node) in LOADERS:  # only to load a file once
                    graph.connect(use, None)
            graph.redirect(Link(loader, 0), chains.subjects.source_of_model(graph.inputs(loader).get("model")))
    obsolete = replaced(graph, report, chains)
    while gone := [n for n in graph.ids() if n in obsolete and not graph.outputs_in_use(n)]:
        for node in gone:
            graph.remove(node)
    for node in graph.ids():
        if node in report.names and is_theirs(graph.kind(node)) and node not in report.left:
            why = LEFT.get(
                graph.kind(node), "it is muted or bypassed" if not graph.active(node) else "a node that stays needs it"
            )
            report.stays(node, why)


def needed(graph: Graph, chains: Chains, loader: str) -> bool:
    """Whether a node that stays has its adapter from a loader."""
    return any(stays(graph, chains, use.node) for use in graph.outputs_in_use(loader) if use.name == "ipadapter")


def replaced(graph: Graph, report: Report, chains: Chains) -> set[str]:
    """Nodes with a counterpart, and helpers of IPAdapter_plus that led to them."""
    helpers = {n for n in report.names if graph.kind(n) in {*LOADERS, *HELPERS} - ALONE}
    return {*report.new, *(helpers if chains.prompts else ())} - report.left.keys()
