"""Migrated workflows on a real server: they run, and give what their knobs say."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from devtools.migration.ours import LAYOUTS
from devtools.migration.run import migrate
from devtools.server import Server

sys.path.append(str(Path(__file__).resolve().parents[1] / "core"))
from image_prompt_files import write_files  # noqa: E402
from old_workflows import Out, Studio  # noqa: E402

SOCKETS = {"MODEL", "CONDITIONING", "IMAGE", "MASK", "CLIP_VISION"}
FOREIGN = {"IPAdapterInsightFaceLoader"}


@pytest.mark.parametrize("kind", sorted(LAYOUTS.keys() - FOREIGN))
def test_the_layouts_are_those_of_the_nodes(kind: str, server: Server):
    schema, layout = server.object_info()[kind], LAYOUTS[kind]
    entries = {**schema["input"].get("required", {}), **schema["input"].get("optional", {})}
    types = {name: "COMBO" if isinstance(entry[0], list) else entry[0] for name, entry in entries.items()}
    for name, of in layout.sockets.items():
        assert set(types[name].split(",")) == set(of.split(","))
        assert (name in schema["input"].get("optional", {})) == (name in layout.optional)
    drawn = [
        name
        for name in entries
        if types[name] not in SOCKETS and not types[name].startswith(("MOA_", "COMFY_AUTOGROW", "INSIGHT"))
    ]
    assert drawn[: len(layout.widgets)] == list(layout.widgets)
    assert all(types[name] == of for name, (of, _) in layout.widgets.items())
    assert dict(zip(schema["output_name"], schema["output"], strict=True)) == layout.outputs
    assert ("subjects" in entries) == bool(layout.grows)


def old_workflow(weight: float) -> Studio:
    """Two people, the second in a region."""
    old = Studio(checkpoint="TinyCheckpoint")
    loader = old.unified()
    mask = old.add("SolidMask", value=0.5, width=64, height=64)
    first = old.advanced(Out(loader.node, 0), loader, old.prepared(position="bottom"), weight=weight)
    old.sample(old.advanced(first, loader, old.picture("ben.png"), weight=weight, attn_mask=mask))
    return old


def sampled(server: Server, prompt: dict[str, Any]) -> Tensor:
    [saved] = [found["latents"][0] for found in server.queue(prompt)["outputs"].values() if "latents" in found]
    return load_file(server.base / "output" / saved["subfolder"] / saved["filename"])["latent_tensor"]


@pytest.mark.slow
def test_a_migrated_workflow_runs(server: Server):
    write_files(server.base)
    plain = Studio(checkpoint="TinyCheckpoint")
    plain.sample(plain.model)
    without = sampled(server, plain.api())
    results = {}
    for weight in (0.0, 0.4, 0.8):
        prompt = old_workflow(weight).api()
        migrate(prompt)
        assert not [n for n in prompt.values() if n["class_type"].startswith(("IPAdapter", "Prep"))]
        results[weight] = sampled(server, prompt)
    assert torch.equal(results[0.0], without)
    change = [float((results[weight] - without).abs().mean()) for weight in (0.4, 0.8)]
    assert change[1] > 1.5 * change[0] > 0
