"""The example workflows of IPAdapter_plus, where its checkout is given: run with its nodes, migrated, and run again. The comparison goes into
docs/from-ipadapter-plus.md.

    IPADAPTER_PLUS=<checkout> python dev.py test comfy -- -k real_examples
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
import subjects
import torch
from real_examples import SIMPLE, Run, install_insightface, noise
from test_real_pack import CHECKOUT, PAGE, kind

from devtools.migration.page_graph import PageGraph
from devtools.migration.run import migrate

sys.path.append(str(Path(__file__).resolve().parents[1] / "core"))
from old_workflows import Studio  # noqa: E402

START, END = "<!-- examples: written by tests/comfy/test_real_examples.py -->", "<!-- end of examples -->"
FILES = sorted(Path(CHECKOUT, "examples").glob("*.json"))
EXACT = 3e-5
NOT_RUN = {
    "ipadapter_cosxl_edit": "not run: samples with CosXL Edit",
    "ipadapter_clipvision_enhancer": "not run: needs image features of 32 × 32 numbers",
}
ROWS: dict[str, list[str]] = {}


@pytest.fixture(scope="module", autouse=True)
def written() -> Iterator[None]:
    """After all workflows the table is in the page."""
    install_insightface()
    yield
    kind.cache_clear()
    if len(ROWS) == len(FILES):
        lines = ["| workflow | migrated | effect there | difference |", "|---|---|---|---|"]
        lines += [f"| {name} | {' | '.join(row)} |" for name, row in sorted(ROWS.items())]
        before, rest = PAGE.read_text(encoding="utf-8").split(START)
        PAGE.write_text("\n".join([before + START, "", *lines, "", END]) + rest.split(END)[1], encoding="utf-8")


def base_of(content: dict[str, Any]) -> str:
    """By the folder of its checkpoint."""
    names = [node["widgets_values"][0] for node in content["nodes"] if node["type"] == "CheckpointLoaderSimple"]
    return "SDXL" if names and "xl" in names[0].split("/")[0].lower() else "SD1.5"


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_an_example(file: Path):
    old = json.loads(file.read_text(encoding="utf-8"))
    new = deepcopy(old)
    report = migrate(new)
    notes = [
        *{how for _, each in report.lost.items() for how in each},
        *{f"not migrated: {why}" for why in report.left.values()},
    ]
    carried = "; ".join(sorted(notes)) or "all of it"
    if not report.new or file.stem in NOT_RUN:
        ROWS[file.stem] = [carried, "", NOT_RUN.get(file.stem, "not run")]
        return
    base = base_of(old)
    plain = Run(PageGraph(old), base, plain=True).samples()
    there, here = Run(PageGraph(old), base).samples(), Run(PageGraph(new), base).samples()
    effect = max(subjects.rms_difference(a, b) for a, b in zip(there, plain, strict=True))
    difference = max(subjects.rms_difference(a, b) for a, b in zip(there, here, strict=True))
    ROWS[file.stem] = [carried, f"{effect:.0e}", f"{difference:.0e}"]
    if not report.left:
        assert difference < (effect if notes else min(EXACT, effect / 10))


@pytest.mark.parametrize("picture", ["upright", "wide"])
@pytest.mark.parametrize("position", ["top", "bottom", "left", "right", "center", "pad"])
def test_prepared_pictures(position: str, picture: str, monkeypatch: pytest.MonkeyPatch):
    """ComfyUI's own nodes cut the square of Prep Image For ClipVision."""
    pictures = {"upright": noise("upright", 1, 96, 72, 3), "wide": noise("wide", 2, 60, 84, 3)}
    monkeypatch.setitem(SIMPLE, "LoadImage", lambda *_: (pictures[picture], None))
    old = Studio()
    old.add("PreviewImage", images=old.prepared(position=position))
    page = old.page()
    before = Run(PageGraph(deepcopy(page)), "SD1.5")
    migrate(page)
    after = Run(PageGraph(page), "SD1.5")
    there, here = (run.inputs(str(len(old.nodes)))["images"] for run in (before, after))
    assert here.shape == there.shape == (len(pictures[picture]), 224, 224, 3)
    inner = slice(None) if position != "pad" else slice(40, -40)
    torch.testing.assert_close(here[:, inner, inner], there[:, inner, inner], rtol=0, atol=2 / 255)
