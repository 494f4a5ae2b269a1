"""The first steps of a new user in the real page, as a page of the documentation: text, screenshots, and what each must show."""

from __future__ import annotations

import io
from pathlib import Path

from PIL import Image
from playwright.sync_api import Page

WIDTH, LARGEST = 1200, 60_000
"""Pixels of a screenshot's width, and bytes of its file."""
EVENTS = """() => { window.ended = null; for (const name of ["execution_success", "execution_error"])
    window.app.api.addEventListener(name, event => { window.ended ??= {name, detail: event.detail}; }); }"""


class Walkthrough:
    """Acts in the page and writes down what a user sees.

    Args: folder: receives `first-steps.md` and its pictures.
    """

    def __init__(self, page: Page, folder: Path) -> None:
        self.page, self.folder, self.lines = page, folder, list[str]()
        self.pictures = folder / "images" / "first-steps"
        self.pictures.mkdir(parents=True, exist_ok=True)

    def write(self, text: str) -> None:
        """A paragraph or a heading."""
        self.lines += [text, ""]

    def show(self, name: str, text: str) -> None:
        """A screenshot with a sentence that describes it."""
        self.page.wait_for_timeout(700)  # the page moves its panels
        shot = Image.open(io.BytesIO(self.page.screenshot())).convert("RGB")
        small = shot.resize((WIDTH, round(WIDTH * shot.height / shot.width)), Image.Resampling.LANCZOS)
        (self.pictures / f"{name}.webp").write_bytes(small_webp(small))
        self.write(f"![{text}](images/first-steps/{name}.webp)")

    def run(self) -> dict[str, str]:
        """Press Run, wait for the end, and return the message of an error, `message`, and the texts on nodes, `notes`."""
        self.page.evaluate(EVENTS)
        self.page.get_by_test_id("queue-button").click()
        self.page.wait_for_function("window.ended")
        ended = self.page.evaluate("window.ended")
        self.page.wait_for_timeout(500)
        notes = self.page.evaluate(
            "window.app.graph._nodes.flatMap(node => node.widgets ?? []).filter(w => /text-preview/.test(w.name)).map(w => w.value)"
        )
        return {"message": ended["detail"].get("exception_message", "").strip(), "notes": "\n".join(map(str, notes))}

    def set(self, title: str, widget: str, value: object) -> None:
        """Change an input of the node with a title."""
        self.page.evaluate(
            """([title, name, value]) => { const node = window.app.graph._nodes.find(each => each.title === title);
               const widget = node.widgets.find(each => each.name === name); widget.value = value; widget.callback?.(value); }""",
            [title, widget, value],
        )

    def focus(self, title: str) -> None:
        """Bring the node with a title, in its own size, to the upper middle of the canvas."""
        self.page.evaluate(
            """title => { const canvas = window.app.canvas, node = window.app.graph._nodes.find(each => each.title === title);
               canvas.ds.scale = 1.2;
               canvas.ds.offset = [innerWidth / 2.4 - node.pos[0] - node.size[0] / 2, 120 - node.pos[1]];
               canvas.deselectAll(); canvas.setDirty(true, true); }""",
            title,
        )

    def details(self, message: str) -> None:
        """Open the details of an error, without its stack trace, which has the paths of this machine."""
        self.page.get_by_role("button", name="View details").click()
        panel = self.page.get_by_test_id("properties-panel")
        panel.get_by_text(message).first.wait_for()
        panel.evaluate(
            """panel => { for (const each of panel.querySelectorAll("*"))
               if (!each.childElementCount) each.textContent = each.textContent.split("## Stack Trace")[0]; }"""
        )

    def drop(self, title: str, file: Path) -> None:
        """Drop a picture onto the node with a title, as from a folder of the desktop."""
        self.page.evaluate(
            """async ([title, name, bytes]) => {
                const node = window.app.graph._nodes.find(each => each.title === title), canvas = window.app.canvas;
                const transfer = new DataTransfer();
                transfer.items.add(new File([Uint8Array.from(bytes)], name, { type: "image/png" }));
                const [x, y] = canvas.convertOffsetToCanvas([node.pos[0] + 60, node.pos[1] + 120]);
                const box = canvas.canvas.getBoundingClientRect();
                const at = { clientX: x + box.left, clientY: y + box.top, dataTransfer: transfer, bubbles: true, cancelable: true };
                canvas.canvas.dispatchEvent(new DragEvent("dragover", at));
                await new Promise(requestAnimationFrame);
                canvas.canvas.dispatchEvent(new DragEvent("drop", at));
            }""",
            [title, file.name, list(file.read_bytes())],
        )

    def save(self) -> str:
        """The page, which is also written."""
        text = "\n".join(self.lines).rstrip() + "\n"
        (self.folder / "first-steps.md").write_text(text, encoding="utf-8")
        return text


def small_webp(picture: Image.Image, quality: int = 80) -> bytes:
    """A WebP file of at most `LARGEST` bytes where a quality from 10 up to the given one allows that."""
    file = io.BytesIO()
    picture.save(file, "WEBP", quality=quality, method=6)
    return small_webp(picture, quality - 10) if file.tell() > LARGEST and quality > 10 else file.getvalue()
