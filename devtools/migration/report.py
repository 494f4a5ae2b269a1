"""What became of each node, by its title, and what could not be carried over."""

from __future__ import annotations

from collections.abc import Iterable

from .graph import Graph


class Report:
    """Notes by node."""

    def __init__(self, graph: Graph):
        self.names = {node: f"'{graph.title(node)}' ({node})" for node in graph.ids()}
        self.new: dict[str, list[str]] = {}
        self.lost: dict[str, list[str]] = {}
        self.left: dict[str, str] = {}

    def became(self, node: str, *kinds: str) -> None:
        """The nodes that stand for it now."""
        found = self.new.setdefault(node, [])
        found += [kind for kind in kinds if kind not in found]

    def differs(self, node: str, notes: Iterable[str]) -> None:
        """Differences in the result."""
        found = self.lost.setdefault(node, [])
        found += [note for note in notes if note not in found]

    def stays(self, node: str, why: str) -> None:
        """The node is not migrated."""
        self.left[node] = why

    def lines(self) -> list[str]:
        """For users."""
        return [
            *(f"{self.names[node]} became {', '.join(kinds)}" for node, kinds in self.new.items()),
            *(f"different: {self.names[node]}: {how}" for node, notes in self.lost.items() for how in notes),
            *(f"not migrated: {self.names[node]}: {why}" for node, why in self.left.items()),
        ]
