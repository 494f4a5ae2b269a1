"""A workflow as data: nodes in API format, in named groups, with a note for the reader."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, NamedTuple

Nodes = dict[str, dict[str, Any]]


class Output(NamedTuple):
    """An output of a node: as an input's value it is a link, in a group it is its node."""

    node: str
    index: int = 0


@dataclass
class Template:
    """One workflow.

    Attributes:
        nodes: in API format, by id.
        groups: columns of node ids from left to right, by the heading of their frame.
        note: in Markdown.
        thumbnail: the nodes whose pictures the thumbnail shows.
    """

    nodes: Nodes = field(default_factory=dict)
    groups: dict[str, list[list[str]]] = field(default_factory=dict)
    note: str = ""
    thumbnail: list[str] = field(default_factory=list)

    def add(self, kind: str, title: str, **inputs: Any) -> Output:
        """Add a node; returns its first output."""
        key = str(len(self.nodes) + 1)
        inputs = {name: list(value) if isinstance(value, Output) else value for name, value in inputs.items()}
        self.nodes[key] = {"class_type": kind, "inputs": inputs, "_meta": {"title": title}}
        return Output(key)

    def group(self, heading: str, *columns: list[Output]) -> None:
        """Draw a frame around columns of nodes."""
        self.groups[heading] = [[output.node for output in column] for column in columns]
