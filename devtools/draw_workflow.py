"""Turns the templates into workflows as the page saves them: `.venv/bin/python -m devtools.draw_workflow [NAME ...]`.

The real page of a real server reads each prompt, so that sockets, widgets and sizes are its own; we only place the nodes,
draw a frame around each group and add the note. Writes `example_workflows/NAME.json` and a picture of the canvas.
"""

from __future__ import annotations

import json
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from playwright.sync_api import Browser, Page, ViewportSize, sync_playwright

from . import browser, demo, host
from .host import ROOT
from .server import Server
from .templates import TEMPLATES, Template, example

VIEW: ViewportSize = {"width": 1600, "height": 900}
"""The smallest window in which a template must be legible."""
READY = "window.app?.graph && window.app.extensions.length > 20"
SIZE = {
    "CheckpointLoaderSimple": (270, 100), "CLIPVisionLoader": (270, 60), "MoALoadMini": (270, 100),
    "LoadMoAAdapter": (270, 100), "LoadImage": (215, 290), "MoATextEncode": (270, 290), "CLIPTextEncode": (270, 120),
    "SaveImage": (250, 230), "RouterVisualize": (250, 415), "SaveAnimatedWEBP": (250, 330),
    "PrimitiveString": (270, 60), "PrimitiveStringMultiline": (270, 100),
}  # fmt: skip
"""Width and height of nodes whose own size does not show a file's name, a prompt or a picture."""
TEXT = {"ApplyMoA": 64, "MoATextEncode": 58}
"""Height of what nodes show after a run below their inputs."""
PLACE = """([groups, sizes, texts, note]) => {
    const graph = window.app.graph, gap = 24, head = 50, top = 100;
    let x = 40, lowest = 0, readMe;
    for (const [title, columns] of Object.entries(groups)) {
        const left = x;
        let bottom = 0;
        for (const ids of columns) {
            let y = top, width = 0;
            for (const id of ids) {
                const node = graph.getNodeById(id);
                for (const w of node.widgets ?? []) if (w.name === "control_after_generate") w.value = "fixed";
                const [w, own] = node.computeSize(), h = own + (texts[node.type] ?? 0);
                const filled = node.inputs?.some(input => input.widget && input.link != null);
                const [wide, high] = sizes[node.type] ?? [210, h];
                node.setSize([Math.max(w, wide), filled ? h : high]);
                node.pos = [x, y + 30];
                y += node.size[1] + 30 + gap;
                width = Math.max(width, node.size[0]);
            }
            bottom = Math.max(bottom, y);
            x += width + gap;
        }
        const frame = new window.LiteGraph.LGraphGroup(title);
        frame.font_size = 28;
        frame.pos = [left - gap / 2, top - head];
        frame.size = [x - left, bottom - top + head];
        graph.add(frame);
        if (left === 40) {
            const text = window.LiteGraph.createNode("MarkdownNote");
            text.title = "Read me";
            text.pos = [left, bottom + 50];
            text.setSize([x - left - gap, 360]);
            readMe = text;
            text.widgets[0].value = note;
            graph.add(text);
        }
        x += gap;
        lowest = Math.max(lowest, bottom, left === 40 ? bottom + 410 : 0);
    }
    readMe.setSize([readMe.size[0], lowest - gap - readMe.pos[1]]);
    const view = window.app.canvas.ds, [left, over] = [75, 125];  // the page's own bars
    view.scale = Math.min((innerWidth - left - 15) / (x - 40), (innerHeight - over - 25) / (lowest - top + head));
    view.offset = [left / view.scale - 25, over / view.scale - top + head];
    graph.setDirtyCanvas(true, true);
}"""


def draw(page: Page, made: Template, name: str) -> dict[str, Any]:
    """The UI-format workflow of a template, whole in view; leaves it on the page's canvas."""
    page.evaluate("([prompt, name]) => window.app.loadApiJson(prompt, name)", [made.nodes, name])
    page.wait_for_timeout(500)
    page.evaluate(PLACE, [made.groups, SIZE, TEXT, made.note])
    page.wait_for_timeout(1500)
    return page.evaluate("window.app.graph.serialize()")


def main(names: list[str]) -> None:
    with browser_on_server() as (chromium, address):
        for name in names or TEMPLATES:
            page = open_page(chromium, address)  # a page keeps the pictures of an earlier workflow's nodes
            workflow = draw(page, example(name), name)
            target = demo.EXAMPLES / f"{name}.json"
            target.write_text(json.dumps(workflow, indent=1) + "\n", encoding="utf-8")
            page.screenshot(path=str(demo.BASE / f"{name}.png"))
            print(f"Wrote {target}; zoom {page.evaluate('window.app.canvas.ds.scale'):.2f}", flush=True)
            page.close()


@contextmanager
def browser_on_server(pack: Path = ROOT) -> Iterator[tuple[Browser, str]]:
    """A browser, and the address of a server with the extension in a folder, whose page shows neither tutorial nor minimap."""
    with (
        tempfile.TemporaryDirectory() as folder,
        Server(host.find(), Path(sys.executable), Path(folder), packs=[pack], cpu=True) as server,
        sync_playwright() as playwright,
    ):
        server.post("/settings", {"Comfy.TutorialCompleted": True, "Comfy.Minimap.Visible": False})
        chromium = playwright.chromium.launch(executable_path=str(browser.find()), args=["--no-sandbox"])
        yield chromium, server.address
        chromium.close()


def open_page(chromium: Browser, address: str) -> Page:
    """The server's page, ready."""
    page = chromium.new_page(viewport=VIEW)
    page.set_default_timeout(180_000)
    page.goto(address, wait_until="domcontentloaded")
    page.wait_for_function(READY)
    page.wait_for_timeout(2000)
    return page


if __name__ == "__main__":
    main(sys.argv[1:])
