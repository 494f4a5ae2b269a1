"""The results as tables in docs/compatibility.md."""

from __future__ import annotations

import json
import textwrap
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parent / "results.json"
"""The rows of every neighbour, as they were last measured."""
PAGE = Path(__file__).resolve().parents[2] / "docs" / "compatibility.md"
START, END = "<!-- neighbours -->\n", "<!-- end -->"
HOST = "ComfyUI"
PACKS = (
    "cgem156-ComfyUI",
    "comfyui_jankhidiffusion",
    "ComfyUI_IPAdapter_plus",
    "ComfyUI_UltimateSDUpscale",
    "ComfyUI-Advanced-ControlNet",
    "ComfyUI-AnimateDiff-Evolved",
    "ComfyUI-GGUF",
    "ComfyUI-IC-Light-Native",
    "ComfyUI-Impact-Pack",
    "ComfyUI-Inspire-Pack",
    "ComfyUI-KJNodes",
    "ComfyUI-NAG",
    "ComfyUI-ppm",
    "comfyui-prompt-control",
    "ComfyUI-TiledDiffusion",
    "comfyui-tooling-nodes",
    "efficiency-nodes-comfyui",
    "sd-perturbed-attention",
)
"""Folders of the extensions that are run."""
NOTHING, NOT_AVAILABLE = "no effect", "n/a"
SAMPLER = "sampler "

Row = dict[str, Any]


def row(group: str, name: str, cells: dict[str, list[Any]]) -> Row:
    """A neighbour's cells by base model, one for each place that it has."""
    texts = {base: [cell.text for cell in each] for base, each in cells.items()}
    return {
        "group": group,
        "name": name,
        "cells": texts,
        "fault": any(c.fault for each in cells.values() for c in each),
    }


def not_imported(group: str, reason: str) -> Row:
    """The only row of an extension that cannot be imported."""
    return {"group": group, "name": reason, "cells": {}, "fault": False}


def update(rows: Sequence[Row]) -> None:
    """Replace these results among those that are kept, and the tables on the page."""
    known = json.loads(RESULTS.read_text(encoding="utf-8")) if RESULTS.exists() else []
    run = {each["group"] for each in rows}
    kept = [each for each in known if each["cells"] or each["group"] not in run]
    merged = {(each["group"], each["name"]): each for each in (*kept, *rows)}
    order = [HOST, *PACKS]
    every = sorted(merged.values(), key=lambda each: (order.index(each["group"]), each["name"].lower()))
    RESULTS.write_text("[\n" + ",\n".join(map(json.dumps, every)) + "\n]\n", encoding="utf-8")
    page = PAGE.read_text(encoding="utf-8")
    before, _, rest = page.partition(START)
    groups = {name: [each for each in every if each["group"] == name] for name in order}
    text = "\n".join(line for name, group in groups.items() if group for line in section(group, name))
    PAGE.write_text(f"{before}{START}{text}\n{END}{rest.partition(END)[2]}", encoding="utf-8")


def section(rows: Sequence[Row], group: str) -> Iterator[str]:
    """The lines of a group."""
    yield f"\n### {group}\n"
    if not any(each["cells"] for each in rows):
        yield f"Not run, because it cannot be imported: `{rows[-1]['name']}`."
        return
    rows = with_one_row_of_samplers([each for each in rows if each["cells"]])
    shown = [each for each in rows if any(not idle(text) for text in texts_of(each))]
    for count, head in ((2, "| node on the model | SD1.5, before | SD1.5, after | SDXL, before | SDXL, after |\n|---|---|---|---|---|"),
                        (1, "| on prompts, latents or the sampler | SD1.5 | SDXL |\n|---|---|---|")):  # fmt: skip
        lines = [line(each) for each in shown if len(next(iter(each["cells"].values()))) == count]
        if lines:
            yield from (head, *sorted(lines, key=str.lower), "")
    idle_rows = [each for each in rows if each not in shown]
    if names := [each["name"] for each in idle_rows if NOTHING in texts_of(each)]:
        yield paragraph(f"No effect on these models, with and without MoA: {', '.join(sorted(names, key=str.lower))}.")
    reasons: dict[str, list[str]] = {}
    for each in idle_rows:
        if NOTHING not in texts_of(each):
            reasons.setdefault(texts_of(each)[0].partition(": ")[2], []).append(each["name"])
    for reason, names in sorted(reasons.items()):
        yield paragraph(f"Cannot be run on these models, with and without MoA (`{reason}`): {', '.join(names)}.")


def paragraph(text: str) -> str:
    """In lines of the page's length."""
    return textwrap.fill(text, 150, break_long_words=False, break_on_hyphens=False) + "\n"


def with_one_row_of_samplers(rows: Sequence[Row]) -> list[Row]:
    """Samplers with the same cells in one row."""
    kept, samplers = [], {}
    for each in rows:
        if each["name"].startswith(SAMPLER):
            samplers.setdefault(str(each["cells"]), []).append(each)
        else:
            kept.append(each)
    several = sorted(samplers.values(), key=len)
    kept += [each for few in several[:-1] for each in few]
    if several:
        kept.append({**several[-1][0], "name": f"{len(several[-1])} samplers of KSampler"})
    return kept


def texts_of(each: Row) -> list[str]:
    return [text for texts in each["cells"].values() for text in texts]


def idle(text: str) -> bool:
    return text.startswith((NOTHING, NOT_AVAILABLE))


def line(each: Row) -> str:
    """A row of a table."""
    cells = [text.replace("|", "/") for text in texts_of(each)]
    return f"| {each['name'].replace('|', '/')} | {' | '.join(cells)} |"
