"""Turns parts of the templates into subgraph blueprints: `.venv/bin/python -m devtools.draw_subgraphs`.

The real page makes each subgraph of its nodes. ComfyUI offers the files in `subgraphs/` in the node library.
"""

from __future__ import annotations

import json
import re
from typing import Any
from uuid import NAMESPACE_URL, uuid5

from playwright.sync_api import Page

from . import demo
from .draw_workflow import browser_on_server, open_page
from .host import ROOT

FOLDER = ROOT / "subgraphs"
BLUEPRINTS = {
    "MoA two people": ("two_people_mini", ["SubjectEncode", "MoATextEncode", "ApplyMoA"]),
    "MoA swap": ("swap_mini", ["CreateList", "SubjectEncode", "MoATextEncode", "ApplyMoA"]),
    "MoA story": ("story_mini", ["SubjectEncode", "CreateList", "MoATextEncode", "ApplyMoA"]),
}
"""The template, and the types of the nodes that become one."""
JOIN = """([name, types]) => {
    const graph = window.app.graph;
    const parts = graph._nodes.filter(node => types.includes(node.type));
    const { subgraph, node } = graph.convertToSubgraph(new Set(parts));
    subgraph.name = node.title = name;
    for (const other of [...graph._nodes]) if (other !== node) graph.remove(other);
    for (const group of [...graph._groups]) graph.remove(group);
    node.pos = [100, 100];
    return graph.serialize();
}"""


def draw_blueprint(page: Page, name: str) -> dict[str, Any]:
    """A workflow of one node, the subgraph."""
    template, types = BLUEPRINTS[name]
    workflow = json.loads((demo.EXAMPLES / f"{template}.json").read_text(encoding="utf-8"))
    page.evaluate("workflow => window.app.loadGraphData(workflow)", workflow)
    page.wait_for_timeout(1000)
    return page.evaluate(JOIN, [name, types])


def with_stable_ids(name: str, text: str) -> str:
    """The page gives new random ids each time; the same drawing shall give the same file."""
    found = dict.fromkeys(re.findall(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}", text))
    for number, random in enumerate(found):
        text = text.replace(random, str(uuid5(NAMESPACE_URL, f"{name}/{number}")))
    return text


def main() -> None:
    FOLDER.mkdir(exist_ok=True)
    with browser_on_server() as (chromium, address):
        for name in BLUEPRINTS:
            page = open_page(chromium, address)
            text = with_stable_ids(name, json.dumps(draw_blueprint(page, name), indent=1))
            (FOLDER / f"{name}.json").write_text(text + "\n", encoding="utf-8")
            page.close()


if __name__ == "__main__":
    main()
