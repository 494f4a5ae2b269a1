"""A user of IPAdapter_plus: an old workflow is migrated by the command, opened in the real page, and run."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Page

from devtools.migration.run import migrate
from devtools.server import Server

ROOT = Path(__file__).resolve().parents[2]
sys.path.append(str(ROOT / "tests" / "core"))
from image_prompt_files import write_files  # noqa: E402
from old_workflows import Out, Studio, tree  # noqa: E402


def old_workflow() -> Studio:
    """Two people on one model, the first prepared, and a negative picture."""
    old = Studio(checkpoint="TinyCheckpoint")
    loader = old.unified()
    first = old.advanced(Out(loader.node, 0), loader, old.prepared())
    old.sample(old.advanced(first, loader, old.picture("ben.png"), image_negative=old.picture("anna.png")))
    return old


@pytest.mark.slow
def test_a_migrated_workflow_loads_and_runs(page: Page, server: Server, run: Any, tmp_path: Path):
    write_files(server.base)
    source, target = tmp_path / "old.json", tmp_path / "new.json"
    source.write_text(json.dumps(old_workflow().page()), encoding="utf-8")
    subprocess.run(
        [sys.executable, str(ROOT / "dev.py"), "migrate", str(source), str(target)], check=True, capture_output=True
    )
    workflow = json.loads(target.read_text(encoding="utf-8"))
    ended = run(workflow)
    assert ended["name"] == "execution_success", ended["detail"]
    read = page.evaluate("window.app.graphToPrompt()")["output"]
    wanted = old_workflow().api()
    migrate(wanted)
    [sampler] = [node for node, found in wanted.items() if found["class_type"] == "KSampler"]
    assert tree(read, sampler) == tree(wanted, sampler)
