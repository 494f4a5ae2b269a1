"""Turns API-format prompts into workflows as the page saves them.

`.venv/bin/python -m devtools.draw_workflow devtools/prompts/NAME.json`

The real page of a real server reads the prompt, so that sockets, widgets and sizes are its own; we only place the nodes
in columns, each one right of what it depends on. Writes `example_workflows/NAME.json` and a picture of the canvas.
"""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path
from typing import Any

from playwright.sync_api import Page, sync_playwright

from . import browser, demo, host
from .environment import ROOT
from .server import Server

GAP_X, GAP_Y = 60, 70
READY = "window.app?.graph && window.app.extensions.length > 20"
PLACE = """places => {
    const graph = window.app.graph;
    for (const [id, [column, row]] of Object.entries(places)) {
        const node = graph.getNodeById(id);
        for (const widget of node.widgets ?? []) if (widget.name === "control_after_generate") widget.value = "fixed";
        node.setSize(node.computeSize());
        if (["LoadImage", "SaveImage", "RouterVisualize"].includes(node.type)) node.setSize([300, 320]);
        Object.assign(node, {column, row});
    }
    const columns = Object.groupBy(graph._nodes, node => node.column);
    let x = 40;
    for (const column of Object.keys(columns).sort((a, b) => a - b)) {
        let y = 80, width = 0;
        for (const node of columns[column].sort((a, b) => a.row - b.row)) {
            node.pos = [x, y];
            y += node.size[1] + GAP_Y;
            width = Math.max(width, node.size[0]);
            delete node.column; delete node.row;
        }
        x += width + GAP_X;
    }
    graph.setDirtyCanvas(true, true);
}""".replace("GAP_X", str(GAP_X)).replace("GAP_Y", str(GAP_Y))


def columns(prompt: dict[str, Any]) -> dict[str, tuple[int, int]]:
    """(column, row) of every node: a column is the length of the longest way to the node."""

    def depth(key: str) -> int:
        inputs = [value[0] for value in prompt[key]["inputs"].values() if isinstance(value, list)]
        return max((1 + depth(source) for source in inputs), default=0)

    return {key: (depth(key), row) for row, key in enumerate(prompt)}


def draw(page: Page, prompt: dict[str, Any], name: str) -> dict[str, Any]:
    """The UI-format workflow of a prompt, whole in view; leaves it on the page's canvas."""
    page.evaluate("([prompt, name]) => window.app.loadApiJson(prompt, name)", [prompt, name])
    page.wait_for_timeout(500)
    page.evaluate(PLACE, columns(prompt))
    page.evaluate("window.app.extensionManager.command.execute('Comfy.Canvas.FitView')")
    page.wait_for_timeout(1500)
    return page.evaluate("window.app.graph.serialize()")


def main(files: list[str]) -> None:
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as playwright:
        base = Path(folder)
        with Server(host.find(), Path(sys.executable), base, packs=[ROOT], cpu=True) as server:
            demo.place_references(base)
            server.post("/settings", {"Comfy.TutorialCompleted": True})
            chromium = playwright.chromium.launch(executable_path=str(browser.find()), args=["--no-sandbox"])
            page = chromium.new_page(viewport={"width": 1900, "height": 1000})
            page.set_default_timeout(180_000)
            page.goto(server.address, wait_until="domcontentloaded")
            page.wait_for_function(READY)
            page.wait_for_timeout(2000)
            for file in map(Path, files):
                workflow = draw(page, json.loads(file.read_text(encoding="utf-8")), file.stem)
                target = demo.EXAMPLES / file.name
                target.write_text(json.dumps(workflow, indent=1) + "\n", encoding="utf-8")
                page.screenshot(path=str(demo.BASE / f"{file.stem}.png"))
                print(f"Wrote {target}")
            chromium.close()


if __name__ == "__main__":
    main(sys.argv[1:])
