"""A workflow as nodes and links, whatever the format of its file."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, NamedTuple

from .ours import LAYOUTS

CONDITIONING_INPUTS = ("positive", "negative", "conditioning", "cond1", "cond2")


class Link(NamedTuple):
    """An output of a node, as the value of another's input."""

    node: str
    slot: int


class Use(NamedTuple):
    """An input of a node."""

    node: str
    name: str


class Graph(ABC):
    """The nodes of a workflow by their ids, and the few changes that a migration makes."""

    @abstractmethod
    def ids(self) -> list[str]: ...

    @abstractmethod
    def kind(self, node: str) -> str: ...

    @abstractmethod
    def title(self, node: str) -> str:
        """As the page shows it."""

    @abstractmethod
    def inputs(self, node: str) -> dict[str, Any]:
        """Links and values; inputs that are not connected are left out."""

    @abstractmethod
    def values(self, node: str) -> list[Any]:
        """Of its widgets, also of nodes that are not known; the page's format has no names for them."""

    @abstractmethod
    def type_of(self, use: Use) -> str:
        """MODEL, CONDITIONING, or anything else."""

    @abstractmethod
    def active(self, node: str) -> bool:
        """Whether it is neither muted nor bypassed."""

    @abstractmethod
    def add(self, kind: str, title: str, inputs: dict[str, Any], beside: str) -> str:
        """A new node, drawn near another one; returns its id."""

    @abstractmethod
    def connect(self, use: Use, source: Link | None) -> None:
        """Give an input another source, or none."""

    @abstractmethod
    def remove(self, node: str) -> None:
        """Remove a node and its links."""

    def users(self, source: Link) -> list[Use]:
        """The inputs that an output is connected to."""
        return [Use(node, name) for node in self.ids() for name, value in self.inputs(node).items() if value == source]

    def outputs_in_use(self, node: str) -> list[Use]:
        """The inputs that any output of a node is connected to."""
        return [
            Use(user, name)
            for user in self.ids()
            for name, value in self.inputs(user).items()
            if isinstance(value, Link) and value.node == node
        ]

    def redirect(self, old: Link, new: Link | None) -> None:
        """Give all users of an output another source."""
        for use in self.users(old):
            self.connect(use, new)


class ApiGraph(Graph):
    """The format of the API: `{id: {"class_type", "inputs"}}`."""

    def __init__(self, content: dict[str, Any]):
        self.content = content

    def ids(self) -> list[str]:
        return list(self.content)

    def kind(self, node: str) -> str:
        return self.content[node]["class_type"] if node in self.content else ""

    def title(self, node: str) -> str:
        return self.content[node].get("_meta", {}).get("title", self.kind(node))

    def inputs(self, node: str) -> dict[str, Any]:
        given = self.content.get(node, {}).get("inputs", {})
        return {name: Link(str(v[0]), v[1]) if is_link(v) else v for name, v in given.items()}

    def values(self, node: str) -> list[Any]:
        return [value for value in self.inputs(node).values() if not isinstance(value, Link)]

    def type_of(self, use: Use) -> str:
        if use.name.startswith("model"):
            return "MODEL"
        return "CONDITIONING" if use.name.startswith(CONDITIONING_INPUTS) else ""

    def active(self, node: str) -> bool:
        return True

    def add(self, kind: str, title: str, inputs: dict[str, Any], beside: str) -> str:
        node = str(max((int(key) for key in self.content if key.isdigit()), default=0) + 1)
        defaults = {name: default for name, (_, default) in LAYOUTS[kind].widgets.items()}
        filled = {name: list(v) if isinstance(v, Link) else v for name, v in {**defaults, **inputs}.items()}
        self.content[node] = {"class_type": kind, "inputs": filled, "_meta": {"title": title}}
        return node

    def connect(self, use: Use, source: Link | None) -> None:
        self.content[use.node]["inputs"].pop(use.name, None)
        if source is not None:
            self.content[use.node]["inputs"][use.name] = list(source)

    def remove(self, node: str) -> None:
        for use in self.outputs_in_use(node):
            self.connect(use, None)
        del self.content[node]


def is_link(value: Any) -> bool:
    """Whether a value of the API's format is `[node, slot]`."""
    return isinstance(value, list) and len(value) == 2 and isinstance(value[0], str) and isinstance(value[1], int)
