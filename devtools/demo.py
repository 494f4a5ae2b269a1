"""The demo: a real server with this folder as a custom node, the example workflow, the results on disk.

`dev.py demo` runs it in `.venv`.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path
from typing import Any

from . import host
from .host import ROOT
from .server import Server, ServerError
from .workflow import to_prompt

BASE = ROOT / ".demo"
RESULTS = ROOT / "demo"
EXAMPLES = ROOT / "example_workflows"
WORKFLOW = EXAMPLES / "two_people_mini.json"


def main(arguments: list[str]) -> None:
    """Run the demo; with `--ui`, leave the server running until Ctrl-C and print its address."""
    parser = argparse.ArgumentParser(prog="dev.py demo")
    parser.add_argument("--ui", action="store_true")
    options = parser.parse_args(arguments)
    if not WORKFLOW.exists():
        sys.exit(f"The demo needs {WORKFLOW.relative_to(ROOT)}, which is missing in this folder.")
    print("Starting ComfyUI ...", flush=True)
    started = time.monotonic()
    with Server(host.find(), Path(sys.executable), BASE, packs=[ROOT], cpu=not has_accelerator()) as server:
        print(
            f"ComfyUI is ready at {server.address} after {time.monotonic() - started:.0f} s. Its log is {server.log}."
        )
        if options.ui:
            keep_open(server)
            return
        files = run(server, json.loads(WORKFLOW.read_text(encoding="utf-8")))
    print("Wrote:")
    for file in files:
        print(f"  {file}")


def has_accelerator() -> bool:
    """Whether torch can use a GPU here."""
    import torch  # here, because it takes seconds and the tests need only the paths of this file

    return torch.cuda.is_available() or torch.backends.mps.is_available()


def keep_open(server: Server) -> None:
    """Until Ctrl-C, or until the server ends by itself."""
    print(
        f"Open {server.address} and choose this extension's workflow under Templates. Ctrl-C stops the server.",
        flush=True,
    )
    try:
        server.wait()
    except KeyboardInterrupt:
        print("\nStopped.")


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


if __name__ == "__main__":
    try:
        main(sys.argv[1:])
    except ServerError as error:
        sys.exit(f"dev.py: {error}")
    except KeyboardInterrupt:
        sys.exit(130)
