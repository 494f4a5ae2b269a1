"""The demo: a real server with this folder as a custom node, the example workflow, the results on disk."""

from __future__ import annotations

import json
import shutil
import sys
import time
from pathlib import Path
from typing import Any

from .environment import ROOT, has_accelerator, python
from .server import Server
from .workflow import to_prompt

BASE = ROOT / ".demo"
RESULTS = ROOT / "demo"
EXAMPLES = ROOT / "example_workflows"
WORKFLOW = EXAMPLES / "two_people_mini.json"
REFERENCES = EXAMPLES / "references"
"""Pictures that the example workflows name in their Load Image nodes."""


def main(host: Path, ui: bool) -> int:
    """Run the demo; with `ui`, leave the server running until Ctrl-C and print its address."""
    missing = [path for path in (WORKFLOW, REFERENCES) if not path.exists()]
    if missing:
        print(f"The demo needs {missing[0].relative_to(ROOT)}, which is not in this copy.")
        return 1
    print("Starting ComfyUI ...", flush=True)
    started = time.monotonic()
    with Server(host, python(), BASE, packs=[ROOT], cpu=not has_accelerator()) as server:
        print(f"ComfyUI answers at {server.address} after {time.monotonic() - started:.0f} s; its log is {server.log}")
        place_references(BASE)
        if ui:
            print(
                f"Open {server.address} and choose our workflow under Templates. Ctrl-C ends it.",
                flush=True,
            )
            try:
                server.wait()
            except KeyboardInterrupt:
                print("\nStopped.")
            return 0
        files = run(server, json.loads(WORKFLOW.read_text(encoding="utf-8")))
    print("Wrote:")
    for file in files:
        print(f"  {file}")
    return 0


def place_references(base: Path) -> None:
    """Put the reference pictures where Load Image finds them."""
    for picture in sorted(REFERENCES.glob("*")):
        shutil.copyfile(picture, base / "input" / picture.name)


def run(server: Server, workflow: dict[str, Any]) -> list[Path]:
    """Queue a UI-format workflow, show its progress, save every picture it shows; returns their paths."""
    prompt = to_prompt(workflow, server.object_info())
    names = {str(node["id"]): node.get("title") or node["type"] for node in workflow["nodes"]}
    started = time.monotonic()
    history = server.queue(prompt, progress=lambda node, step, steps: show(names.get(node, node), step, steps))
    print(f"\nDone in {time.monotonic() - started:.1f} s.")
    RESULTS.mkdir(exist_ok=True)
    files = []
    for node, output in sorted(history["outputs"].items(), key=lambda item: int(item[0])):
        for i, image in enumerate(output.get("images", [])):
            name = "".join(letter if letter.isalnum() else "_" for letter in names[node].lower())
            file = RESULTS / f"{name}_{node}_{i}{Path(image['filename']).suffix}"
            file.write_bytes(server.image(image))
            files.append(file)
    return files


def show(name: str, step: int, steps: int) -> None:
    """One line that rewrites itself on a terminal; where output is a file, only the last step."""
    if sys.stdout.isatty():
        bar = "#" * (24 * step // max(steps, 1))
        print(f"\r  {name:<28.28} [{bar:<24}] {step}/{steps}", end="\n" if step == steps else "", flush=True)
    elif step == steps:
        print(f"  {name}: {steps} steps", flush=True)
