"""Random workflows one after the other on one server, which is freed, interrupted and robbed of its files meanwhile."""

from __future__ import annotations

import os
import random
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
from workflows import MINI, TINY, Nodes, final_workflow, random_workflow
from world import World

from devtools import host as hosts
from devtools.host import ROOT
from devtools.server import PACK_FOLDER, Server, ServerError

EVERY = 25
"""Prompts between two measurements of memory."""
WARM = 200
"""Prompts until the first: until every kind of model, error and training has occurred, a process keeps ever more."""
GROWTH = 0.02
RAW = ("KeyError", "IndexError", "AttributeError", "TypeError", "RuntimeError", "AssertionError", "ZeroDivisionError")
"""Exceptions that are no refusals."""
HOST_READS = ("LoadImage",)
"""Nodes of ComfyUI that read files which are damaged here; their errors are ComfyUI's."""


@dataclass
class Result:
    """What a soak shows."""

    counted: Counter[str] = field(default_factory=Counter)
    disturbed: Counter[str] = field(default_factory=Counter)
    problems: list[str] = field(default_factory=list)
    mebibytes: list[float] = field(default_factory=list)
    """Of the server after `/free`, since it is warm."""
    seconds: float = 0

    @property
    def growth(self) -> float:
        """Of the memory since the first measurement, relative to it. A single reading may contain what is freed a moment later,
        which the smallest of the last three does not."""
        return min(self.mebibytes[-3:]) / self.mebibytes[0] - 1 if self.mebibytes else 0.0


@contextmanager
def started(base: Path) -> Iterator[Server]:
    """A server with this extension and the tiny models. Its memory goes back to the system as soon as it is free (glibc)."""
    thresholds = {"MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_TRIM_THRESHOLD_": "65536"}
    before = dict(os.environ)
    os.environ.update(thresholds)
    try:
        packs = [ROOT, ROOT / "tests" / "soak" / "tiny_base"]
        with Server(hosts.find(), Path(sys.executable), base, packs=packs, cpu=True) as server:
            yield server
    finally:
        os.environ.clear()
        os.environ.update(before)


def soak(prompts: int, seed: int, folder: Path) -> Result:
    """Run the prompts, then compare fixed workflows with a fresh server's."""
    result, begin = Result(), time.monotonic()
    world = World(folder / "soaked")
    with started(folder / "soaked") as server:
        for number in range(prompts):
            step(server, world, random.Random(f"{seed} {number}"), result, number)
            if (number + 1) % EVERY == 0:
                held = held_after_free(server)
                print(
                    f"{number + 1} prompts: {dict(result.counted)}, {held:.0f} MiB",
                    *result.problems,
                    sep="\n  ",
                    flush=True,
                )
                result.mebibytes += [held] if number + 1 >= WARM else []
        world.restore()
        ours = finals(server)
        world.copy(folder / "fresh")
        with started(folder / "fresh") as fresh:
            theirs = finals(fresh)
    if ours != theirs:
        result.problems.append("the last pictures differ from those of a fresh server")
    if result.growth > GROWTH:
        result.problems.append(f"the memory after /free grew by {result.growth:.1%}")
    result.seconds = time.monotonic() - begin
    return result


def step(server: Server, world: World, r: random.Random, result: Result, number: int) -> None:
    """One prompt, with a disturbance before or during it."""
    if world.away or r.random() < 0.2:
        world.restore()
    if r.random() < 0.15:
        result.disturbed[r.choice((world.replace, world.vanish))(r)] += 1
    nodes = random_workflow(r)
    try:
        prompt_id = server.submit(nodes)
    except ServerError:
        result.counted["refused by ComfyUI"] += 1
        settle(server)  # its other outputs may run
        return
    if r.random() < 0.3:
        time.sleep(r.random())
        kinds = (lambda: interrupt(server), lambda: free(server), lambda: world.replace(r), lambda: world.vanish(r))
        result.disturbed[r.choice(kinds)()] += 1
    outcome = judged(server.finished(prompt_id, timeout=600))
    known = ("made", "cancelled", "refused by a sentence", "refused by ComfyUI")
    result.counted[outcome if outcome in known else "problem"] += 1
    if outcome not in known:
        result.problems.append(f"prompt {number}: {outcome}")


def judged(history: dict[str, Any]) -> str:
    """How a prompt ended, or what is wrong with its error."""
    for kind, data in history["status"]["messages"]:
        if kind == "execution_interrupted":
            return "cancelled"
        if kind == "execution_error":
            return judged_error(data)
    return "made" if history["status"]["status_str"] == "success" else str(history["status"])


def judged_error(data: dict[str, Any]) -> str:
    """A refusal is raised in our code, is no raw exception, and is a sentence."""
    message, kind = data["exception_message"].strip(), data["exception_type"].rpartition(".")[2]
    if data["node_type"] in HOST_READS:
        return "refused by ComfyUI"
    ours = any(PACK_FOLDER in line for line in data["traceback"][-1:])
    if ours and kind not in RAW and message.endswith(".") and message.replace("\n", " ").isprintable():
        return "refused by a sentence"
    return f"{data['node_type']}: {kind}: {message} {data['traceback'][-1:]}"


def interrupt(server: Server) -> str:
    server.interrupt()
    return "/interrupt"


def free(server: Server) -> str:
    server.post("/free", {"unload_models": True, "free_memory": True})
    return "/free"


def settle(server: Server) -> None:
    """Until nothing runs and nothing waits."""
    while any(server.get("/queue").values()):
        time.sleep(0.05)


def held_after_free(server: Server) -> float:
    """The server's memory in MiB, without its record of finished prompts, once it has freed what it can.

    It may do so only between the next prompt and another. The record grows with every prompt, up to 10,000 of them.
    """
    server.post("/history", {"clear": True})
    free(server)
    picture = {"class_type": "EmptyImage", "inputs": {"width": 8, "height": 8, "batch_size": 1, "color": 0}}
    for _ in range(2):
        server.queue({"1": picture, "2": {"class_type": "PreviewImage", "inputs": {"images": ["1", 0]}}})
    return psutil.Process(server.pid).memory_info().rss / 2**20


def finals(server: Server) -> list[bytes]:
    """The files of the fixed workflows, without the workflow in them."""
    return [content for family in (MINI, TINY) for content in saved(server, final_workflow(family))]


def saved(server: Server, nodes: Nodes) -> list[bytes]:
    """The pictures or latents that a workflow saves, as their bytes."""
    history = server.queue(nodes)
    items = [
        item for output in history["outputs"].values() for item in output.get("images", []) + output.get("latents", [])
    ]
    return [server.image(item) for item in items]
