"""From a workflow as the page saves it to a prompt as the server runs it."""

from __future__ import annotations

from typing import Any

DISPLAY_ONLY = ("Note", "MarkdownNote")
MUTED, BYPASSED = 2, 4
UPLOAD_BUTTON = "IMAGEUPLOAD"


def to_prompt(workflow: dict[str, Any], object_info: dict[str, Any]) -> dict[str, Any]:
    """The API-format prompt of a UI-format workflow.

    Args:
        workflow: the parsed file; no subgraphs, no muted or bypassed nodes.
        object_info: the server's answer to `/object_info`; it lists the widgets that carry a second value.

    Raises:
        ValueError: the workflow uses a node the server lacks, or something this small converter does not know.
    """
    sources = {link[0]: [str(link[1]), link[2]] for link in workflow["links"]}
    prompt = {}
    for node in workflow["nodes"]:
        kind = node["type"]
        if kind in DISPLAY_ONLY:
            continue
        if kind not in object_info:
            raise ValueError(f"The server has no node {kind} (node {node['id']} of the workflow).")
        if node.get("mode", 0) in (MUTED, BYPASSED):
            raise ValueError(f"Node {node['id']} ({kind}) is muted or bypassed.")
        prompt[str(node["id"])] = {"class_type": kind, "inputs": _inputs(node, sources, _options(object_info[kind]))}
    return prompt


def _inputs(node: dict[str, Any], sources: dict[int, list[Any]], options: dict[str, dict[str, Any]]) -> dict[str, Any]:
    inputs: dict[str, Any] = {}
    values = iter(node.get("widgets_values") or [])
    for entry in node.get("inputs", []):
        name = entry["name"]
        if "widget" in entry:
            value = next(values)
            if options.get(name, {}).get("control_after_generate"):
                next(values)  # "fixed", "randomize", ...: the page's own
            if entry["type"] != UPLOAD_BUTTON:
                inputs[name] = value
        if entry.get("link") is not None:
            inputs[name] = sources[entry["link"]]
    return inputs


def _options(schema: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Of every input by its name: the options behind its type."""
    entries = {**schema["input"].get("required", {}), **schema["input"].get("optional", {})}
    return {name: entry[1] for name, entry in entries.items() if len(entry) > 1}
