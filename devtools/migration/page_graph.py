"""The format in which the page saves workflows: nodes with sockets, numbered links, and widgets by their order."""

from __future__ import annotations

from typing import Any

from .graph import Graph, Link, Use
from .ours import LAYOUTS, Layout
from .theirs import WIDGETS

ACTIVE = 0
"""The mode of a node that is neither muted nor bypassed."""
WIDTH, BESIDE = 270, (30, 40)
"""Of a new node; how far the next one at the same place is moved to the right and down."""


class PageGraph(Graph):
    """A file with lists of `nodes` and `links`, without the nodes inside its subgraphs."""

    def __init__(self, content: dict[str, Any]):
        self.content = content
        self.nodes: dict[str, dict[str, Any]] = {str(node["id"]): node for node in content["nodes"]}
        self.links: dict[int, list[Any]] = {link[0]: link for link in content["links"]}
        self.placed: dict[str, int] = {}
        """New nodes by the node that they are drawn beside."""

    def ids(self) -> list[str]:
        return list(self.nodes)

    def kind(self, node: str) -> str:
        return self.nodes[node]["type"] if node in self.nodes else ""

    def title(self, node: str) -> str:
        return self.nodes[node].get("title") or self.kind(node)

    def inputs(self, node: str) -> dict[str, Any]:
        found = self.nodes.get(node, {})
        values = found.get("widgets_values") or []
        named = (
            dict(zip(WIDGETS.get(self.kind(node), ()), values, strict=False))
            if isinstance(values, list)
            else dict(values)
        )
        linked = {
            entry["name"]: self.links[entry["link"]]
            for entry in found.get("inputs", [])
            if entry.get("link") in self.links
        }
        return named | {name: self.primitive(link) or Link(str(link[1]), link[2]) for name, link in linked.items()}

    def primitive(self, link: list[Any]) -> Any:
        """The value of a link from the page's own node of one widget; None for any other."""
        source = self.nodes.get(str(link[1]), {})
        return (source.get("widgets_values") or [None])[0] if source.get("type") == "PrimitiveNode" else None

    def values(self, node: str) -> list[Any]:
        values = self.nodes.get(node, {}).get("widgets_values") or []
        return values if isinstance(values, list) else list(values.values())

    def type_of(self, use: Use) -> str:
        return next((str(e["type"]) for e in self.nodes[use.node].get("inputs", []) if e["name"] == use.name), "")

    def active(self, node: str) -> bool:
        return self.nodes[node].get("mode", 0) == ACTIVE

    def add(self, kind: str, title: str, inputs: dict[str, Any], beside: str) -> str:
        layout, number = LAYOUTS[kind], 1 + max(self.content.get("last_node_id", 0), *(int(n) for n in self.nodes))
        self.content["last_node_id"] = number
        sockets = sockets_of(layout, inputs)
        node = {
            "id": number, "type": kind, "pos": self.place(beside), "size": [WIDTH, 40 + 26 * (len(sockets) + len(layout.widgets))],
            "flags": {}, "order": len(self.nodes), "mode": ACTIVE,
            "inputs": [*sockets, *(widget_entry(name, of) for name, (of, _) in layout.widgets.items())],
            "outputs": [{"name": name, "type": of, "links": None} for name, of in layout.outputs.items()], "title": title,
            "properties": {"Node name for S&R": kind},
            "widgets_values": [value if not isinstance(value := inputs.get(name, default), Link) else default
                               for name, (_, default) in layout.widgets.items()],
        }  # fmt: skip
        self.content["nodes"].append(node)
        self.nodes[str(number)] = node
        for name, value in inputs.items():
            if isinstance(value, Link):
                self.connect(Use(str(number), name), value)
        return str(number)

    def place(self, beside: str) -> list[float]:
        """Where the next new node beside another is drawn."""
        at = self.nodes[beside]["pos"]
        x, y = (at["0"], at["1"]) if isinstance(at, dict) else at
        step = self.placed.setdefault(beside, 0)
        self.placed[beside] += 1
        return [x + step * BESIDE[0], y + step * BESIDE[1]]

    def connect(self, use: Use, source: Link | None) -> None:
        slot, entry = next((i, e) for i, e in enumerate(self.nodes[use.node]["inputs"]) if e["name"] == use.name)
        if entry.get("link") is not None:
            self.cut(entry["link"])
        if source is None:
            return
        number = 1 + max(self.content.get("last_link_id", 0), *self.links, 0)
        self.content["last_link_id"] = entry["link"] = number
        output = self.nodes[source.node]["outputs"][source.slot]
        output["links"] = [*(output.get("links") or []), number]
        link = [number, int(source.node), source.slot, int(use.node), slot, output["type"]]
        self.content["links"].append(link)
        self.links[number] = link

    def cut(self, number: int) -> None:
        """Remove a link."""
        link = self.links.pop(number)
        self.content["links"].remove(link)
        for output in self.nodes.get(str(link[1]), {}).get("outputs", []):
            if number in (output.get("links") or []):
                output["links"].remove(number)
        for entry in self.nodes.get(str(link[3]), {}).get("inputs", []):
            if entry.get("link") == number:
                entry["link"] = None

    def remove(self, node: str) -> None:
        for number in [n for n, link in self.links.items() if node in (str(link[1]), str(link[3]))]:
            self.cut(number)
        self.content["nodes"].remove(self.nodes.pop(node))


def sockets_of(layout: Layout, inputs: dict[str, Any]) -> list[dict[str, Any]]:
    """The sockets of a new node; one that grows has an empty one at its end."""
    entries = [socket_entry(name, of, name in layout.optional) for name, of in layout.sockets.items()]
    if layout.grows:
        count = sum(name.startswith(layout.grows) for name in inputs)
        grown = [socket_entry(f"{layout.grows}{i}", "MOA_SUBJECT", True) for i in range(count + 1)]
        entries += [{**entry, "label": entry["name"].partition(".")[2]} for entry in grown]
    return entries


def socket_entry(name: str, of: str, optional: bool) -> dict[str, Any]:
    """An input that is connected by a link."""
    return {"name": name, "type": of, "link": None, **({"shape": 7} if optional else {})}


def widget_entry(name: str, of: str) -> dict[str, Any]:
    """An input that has a widget."""
    return {"name": name, "type": of, "widget": {"name": name}, "link": None}
