"""Turns parts of the templates into subgraph blueprints: `.venv/bin/python -m devtools.draw_subgraphs`.

The real page makes each subgraph of its nodes. ComfyUI offers the files in `subgraphs/` in the node library.
"""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path
from typing import Any

from playwright.sync_api import Page, sync_playwright

from . import browser, demo, host
from .draw_workflow import open_page
from .host import ROOT
from .server import Server

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


def main() -> None:
    FOLDER.mkdir(exist_ok=True)
    with (
        tempfile.TemporaryDirectory() as folder,
        Server(host.find(), Path(sys.executable), Path(folder), packs=[ROOT], cpu=True) as server,
        sync_playwright() as playwright,
    ):
        chromium = playwright.chromium.launch(executable_path=str(browser.find()), args=["--no-sandbox"])
        for name in BLUEPRINTS:
            page = open_page(chromium, server.address)
            target = FOLDER / f"{name}.json"
            target.write_text(json.dumps(draw_blueprint(page, name), indent=1) + "\n", encoding="utf-8")
            page.close()
        chromium.close()


if __name__ == "__main__":
    main()
