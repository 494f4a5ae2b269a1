"""The example workflows for SD1.5 and SDXL run from end to end, on small random models in their families' shapes.

Only the loaders of the checkpoint, of the CLIP vision model and of the ControlNet are replaced, since ComfyUI recognises none of them at a small size.
The IP-Adapter and the LoRA are files of the published layout, under the names in the workflow.
"""

from __future__ import annotations

import io
import json
from itertools import combinations
from pathlib import Path
from typing import Any

import host
import numpy as np
import pytest
import subjects
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from test_image_prompts import file_order, ip_files, random
from torch import Tensor

from devtools import demo
from devtools.server import Server
from devtools.templates import TEMPLATES
from devtools.templates.families import FAMILIES
from devtools.workflow import to_prompt

NAMES = [name for name in TEMPLATES if not name.endswith("_mini")]
CHECKPOINTS = {"sd15": "TinyCheckpoint", "sdxl": "TinyCheckpointXL"}
CONTROL_NETS = {"sd15": "TinyControlNet", "sdxl": "TinyControlNetXL"}
SMALLER = {"EmptyLatentImage": {"width": 128, "height": 128}, "KSampler": {"steps": 4}}
"""Inputs that are replaced, so that a run takes seconds."""


@pytest.fixture(scope="module")
def families(server: Server) -> None:
    """The IP-Adapters that the workflows name, for the small models."""
    for folder in ("ipadapter", "loras"):
        (server.base / "models" / folder).mkdir(parents=True, exist_ok=True)
    for family, model, context in (("sd15", host.sd15(), host.SD15_CONTEXT), ("sdxl", host.sdxl(), host.SDXL_CONTEXT)):
        widths = [layer.spec.hidden for layer in file_order(model)]
        file = ip_files.nested("plus", widths, host.VISION, context, tokens=16, make=random(3))
        tensors = {f"{part}.{key}": t for part, tensors in file.items() for key, t in tensors.items()}
        save_file(tensors, server.base / "models" / "ipadapter" / Path(FAMILIES[family].adapter).name)
        save_file(style_of(model), server.base / "models" / "loras" / FAMILIES[family].lora)


def style_of(model: Any) -> dict[str, Tensor]:
    """A LoRA of rank 2 on the cross-attention's keys and values."""
    found = {}
    for name, weight in model.model.diffusion_model.state_dict().items():
        if name.endswith(("attn2.to_k.weight", "attn2.to_v.weight")):
            key = "lora_unet_" + name.removesuffix(".weight").replace(".", "_")
            found[f"{key}.lora_up.weight"] = torch.randn(len(weight), 2)
            found[f"{key}.lora_down.weight"] = torch.randn(2, weight.shape[1])
    return found


def prompt_of(workflow: dict[str, Any], family: str, server: Server) -> dict[str, Any]:
    """On the small models, with fewer pixels and steps."""
    prompt = to_prompt(workflow, server.object_info())
    for node in prompt.values():
        node["inputs"] |= SMALLER.get(node["class_type"], {})
        if node["class_type"] == "CheckpointLoaderSimple":
            node |= {"class_type": CHECKPOINTS[family], "inputs": {}}
        if node["class_type"] == "ControlNetLoader":
            node |= {"class_type": CONTROL_NETS[family], "inputs": {}}
        if node["class_type"] == "CLIPVisionLoader":
            node |= {"class_type": "TinyVision", "inputs": {}}
    sampled = [key for key, node in prompt.items() if node["class_type"] == "KSampler"]
    kept = {f"kept {key}": {"samples": [key, 0], "filename_prefix": "latents/tiny"} for key in sampled}
    return prompt | {key: {"class_type": "SaveLatent", "inputs": inputs} for key, inputs in kept.items()}


@pytest.mark.parametrize("name", NAMES)
def test_an_example_runs_from_end_to_end(name: str, server: Server, families: None):
    """Every node that shows pictures has some, and no two runs of a sampler give the same latents.

    Random decoders saturate, so that pictures are hardly a measure.
    """
    workflow = json.loads((demo.EXAMPLES / f"{name}.json").read_text(encoding="utf-8"))
    outputs = server.queue(prompt_of(workflow, name.rsplit("_", 1)[1], server))["outputs"]
    titles = {
        str(node["id"]): node["title"] for node in workflow["nodes"] if node["type"] in ("SaveImage", "RouterVisualize")
    }
    shown = {title: [pixels(server, item) for item in outputs[key]["images"]] for key, title in titles.items()}
    assert len(shown) == len(titles) and all(shown.values())
    assert all(picture.shape == (128, 128, 3) and picture.std() > 0 for each in shown.values() for picture in each)
    latents = [latent for key in outputs if key.startswith("kept") for latent in kept_latents(server, outputs[key])]
    assert len(latents) > 1
    assert all(subjects.difference(a, b) > 1e-3 for a, b in combinations(latents, 2) if a.shape == b.shape)


def kept_latents(server: Server, output: dict[str, Any]) -> list[Tensor]:
    """What a SaveLatent saved, one for each run."""
    files = [server.base / "output" / item["subfolder"] / item["filename"] for item in output["latents"]]
    return [load_file(file)["latent_tensor"] for file in files]


def pixels(server: Server, item: dict[str, str]) -> np.ndarray:
    return np.array(Image.open(io.BytesIO(server.image(item))).convert("RGB"))
