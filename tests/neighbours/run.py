"""Run MoA beside other nodes and write the results into docs/compatibility.md: `python dev.py neighbours --packs FOLDER`.

The host's own nodes always run. Other extensions run if their folders are in FOLDER, each in a process of its own. Nothing is
downloaded. What is not run keeps its earlier results.
"""

from __future__ import annotations

import argparse
import asyncio
import importlib
import json
import logging
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "tests" / "comfy"), str(ROOT / "tests" / "neighbours")]

import table  # noqa: E402

from devtools import host, in_process  # noqa: E402

BASES = {"sd15": "SD1.5", "sdxl": "SDXL"}


def main(argv: list[str]) -> int:
    """The exit code is 1 when MoA fails beside a neighbour."""
    options = parse(argv)
    if options.results:
        write_rows(options)
        return 0
    rows = [row for name in (table.HOST, *table.PACKS) for row in run_apart(name, options)]
    table.update(rows)
    faults = [row for row in rows if row["fault"]]
    print(
        f"{len(rows)} neighbours, {len(faults)} with a fault of MoA", *(f"  {row['name']}" for row in faults), sep="\n"
    )
    return bool(faults)


def parse(argv: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="neighbours", description=__doc__)
    parser.add_argument("--packs", type=Path, help="a folder whose subfolders are extensions of ComfyUI")
    parser.add_argument(
        "--only", nargs="*", default=[""], help="only the neighbours whose names contain one of these texts"
    )
    parser.add_argument("--group", help=argparse.SUPPRESS)
    parser.add_argument("--results", type=Path, help=argparse.SUPPRESS)
    return parser.parse_args(argv)


def run_apart(group: str, options: argparse.Namespace) -> list[table.Row]:
    """The rows of the host's nodes or of one extension, from a process of their own: some change the host for good."""
    if group != table.HOST and (options.packs is None or not (options.packs / group).is_dir()):
        print(f"{group}: not in {options.packs or 'a folder given with --packs'}", flush=True)
        return []
    with tempfile.TemporaryDirectory() as place:
        results = Path(place) / "rows.json"
        given = ["--group", group, "--results", str(results), "--only", *options.only]
        packs = ["--packs", str(options.packs)] if options.packs else []
        code = subprocess.run([sys.executable, __file__, *given, *packs]).returncode
        if code:
            print(f"{group}: its process ended with code {code}", flush=True)
        return json.loads(results.read_text(encoding="utf-8")) if results.exists() else []


def write_rows(options: argparse.Namespace) -> None:
    """In the process of a group: run its neighbours and keep each row as soon as it is there."""
    base = Path(tempfile.mkdtemp(prefix="moa-neighbours-"))
    in_process.import_host(host.find(), base=base)
    logging.disable(logging.INFO)  # what cannot be imported is shown
    loop = asyncio.new_event_loop()
    asyncio.set_event_loop(loop)
    nodes = loop.run_until_complete(load_nodes(loop, base, options))
    in_process.import_pack()
    logging.disable(logging.WARNING)
    rows = []
    for row in judged(nodes, options):
        rows.append(row)
        options.results.write_text(json.dumps(rows), encoding="utf-8")


class KeptMessages(logging.Handler):
    """Keeps what is logged: the host reports there why it cannot import an extension."""

    def __init__(self) -> None:
        super().__init__()
        self.texts: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.texts.append(record.getMessage())


async def load_nodes(loop: asyncio.AbstractEventLoop, base: Path, options: argparse.Namespace) -> dict[str, Any]:
    """The host's nodes, or those of the group's extension. Some register pages of the server when they are imported."""
    nodes, server = (importlib.import_module(name) for name in ("nodes", "server"))
    server.PromptServer(loop)
    every = nodes.NODE_CLASS_MAPPINGS
    if options.group == table.HOST:
        await nodes.init_builtin_extra_nodes()
        return dict(every)
    await nodes.load_custom_node(str(host.find() / "comfy_extras" / "nodes_hooks.py"), module_parent="comfy_extras")
    before = set(every)
    (base / "custom_nodes").mkdir(exist_ok=True)
    link = base / "custom_nodes" / options.group
    link.symlink_to((options.packs / options.group).resolve())
    sys.path.insert(0, str(base))  # some import themselves as custom_nodes.<folder>
    logging.getLogger().addHandler(kept := KeptMessages())
    if not await nodes.load_custom_node(str(link)):
        reason = kept.texts[-1].rpartition(": ")[2].replace(f"{host.find().parent}/", "")
        options.results.write_text(json.dumps([table.not_imported(options.group, reason)]), encoding="utf-8")
        raise SystemExit(f"{options.group} cannot be imported: {reason}")
    return {name: node for name, node in every.items() if name not in before}


def judged(nodes: dict[str, Any], options: argparse.Namespace) -> Iterator[table.Row]:
    """The rows of a group."""
    import comfy.utils
    from groups import neighbours_of
    from judging import judge
    from scene import make_scene

    comfy.utils.set_progress_bar_enabled(False)
    scenes = {base: make_scene(base) for base in BASES}
    for neighbour in neighbours_of(options.group, nodes):
        if any(text.lower() in f"{options.group} {neighbour.name}".lower() for text in options.only):
            cells = {base: judge(scene, neighbour) for base, scene in scenes.items()}
            row = table.row(options.group, neighbour.name, cells)
            print(options.group, neighbour.name, row["cells"], flush=True)
            yield row


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
