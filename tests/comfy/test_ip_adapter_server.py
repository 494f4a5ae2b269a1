"""Two people of an IP-Adapter, without masks, as a user makes them: files in models/, a workflow over HTTP, memory freed.

The checkpoint has SD1.5's real widths, the image encoder is CLIP ViT-L; all weights are random, so the pictures have no
content, but every file is read, every layer runs and every byte is counted.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import comfy.clip_model
import comfy.clip_vision
import host
import numpy as np
import psutil
import pytest
import subjects
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from test_image_prompts import ip_files, random
from torch import Tensor, nn

from devtools import demo
from devtools import host as hosts
from devtools.server import Server

CONFIGS = Path(comfy.clip_vision.__file__).parent
MIB = 2**20


def weights(module: nn.Module, prefix: str = "") -> dict[str, Tensor]:
    """Random ones in half precision, under the names of a file."""
    module = module.half()
    host.randomise(module)
    return {prefix + name: tensor for name, tensor in module.state_dict().items()}


def write_models(folder: Path) -> None:
    """A checkpoint, an image encoder and a "plus" file, with the names and shapes of the published ones."""
    for name in ("checkpoints", "clip_vision", "ipadapter"):
        (folder / name).mkdir(parents=True)
    unet = host.build(*host.real_width("sd15"), dtype=torch.float16).diffusion_model
    text = comfy.clip_model.CLIPTextModel(read(CONFIGS / "sd1_clip_config.json"), torch.float16, "cpu", nn)
    checkpoint = weights(unet, "model.diffusion_model.") | weights(text, "cond_stage_model.transformer.")
    save_file(checkpoint, folder / "checkpoints" / "sd15.safetensors")
    layout = read(CONFIGS / "clip_vision_config_vitl.json")
    vision = comfy.clip_model.CLIPVisionModelProjection(layout, torch.float16, "cpu", nn)
    save_file(weights(vision), folder / "clip_vision" / "clip-vit-large-patch14.safetensors")
    file = ip_files.nested("plus", ip_files.WIDTHS["sd15"], 1024, 768, tokens=16, inner=768, make=random(5))
    torch.save({part: {k: t.half() for k, t in tensors.items()} for part, tensors in file.items()},
               folder / "ipadapter" / "mine.bin")  # fmt: skip


def read(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def studio(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server of its own: its memory is counted."""
    folder = tmp_path_factory.mktemp("ip_server")
    write_models(folder / "models")
    (folder / "input").mkdir()
    for name, colour in (("anna", (200, 30, 60)), ("ben", (20, 90, 220))):
        picture = np.random.default_rng(len(name)).integers(0, 80, (64, 64, 3)) + np.array(colour) // 2
        Image.fromarray(picture.astype(np.uint8)).save(folder / "input" / f"{name}.png")
    # Freed memory goes back to the system at once, so that what a process holds is what it needs (glibc).
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("MALLOC_MMAP_THRESHOLD_", "65536")
        environment.setenv("MALLOC_TRIM_THRESHOLD_", "65536")
        with Server(hosts.find(), Path(sys.executable), folder, packs=[demo.ROOT], cpu=True) as running:
            yield running


def workflow(man: str, woman: str, *, woman_first: bool = False, seed: int = 1) -> dict[str, Any]:
    """API format: two pictures, two words, no mask."""
    nodes: dict[str, Any] = {
        "model": ("CheckpointLoaderSimple", {"ckpt_name": "sd15.safetensors"}),
        "vision": ("CLIPVisionLoader", {"clip_name": "clip-vit-large-patch14.safetensors"}),
        "adapter": ("LoadMoAAdapter", {"adapter_file": "ipadapter/mine.bin"}),
        "prompt": ("MoATextEncode", {"clip": ["model", 1], "text": "a man and a woman on a beach"}),
        "negative": ("CLIPTextEncode", {"clip": ["model", 1], "text": ""}),
        "moa": ("ApplyMoA", {"model": ["model", 0], "adapter": ["adapter", 0], "strength": 10.0, "start_percent": 0.0,
                             "end_percent": 1.0, "router": "automatic"}),
        "latent": ("EmptyLatentImage", {"width": 128, "height": 128, "batch_size": 1}),
        "sampler": ("KSampler", {"model": ["moa", 0], "positive": ["prompt", 0], "negative": ["negative", 0],
                                 "latent_image": ["latent", 0], "seed": seed, "steps": 4, "cfg": 2.0,
                                 "sampler_name": "euler", "scheduler": "normal", "denoise": 1.0}),
        "save": ("SaveLatent", {"samples": ["sampler", 0], "filename_prefix": f"{man}_{woman}"}),
    }  # fmt: skip
    pairs = [("man", man), ("woman", woman)]
    for number, (word, name) in enumerate(reversed(pairs) if woman_first else pairs):
        nodes[name] = ("LoadImage", {"image": f"{name}.png"})
        nodes[word] = ("SubjectEncode", {"adapter": ["adapter", 0], "images": [name, 0], "word": word,
                                         "clip_vision": ["vision", 0], "occurrence": 1})  # fmt: skip
        nodes["prompt"][1][f"subjects.subject_{number}"] = [word, 0]
    return {key: {"class_type": kind, "inputs": inputs} for key, (kind, inputs) in nodes.items()}


def sampled(server: Server, prompt: dict[str, Any]) -> Tensor:
    """The latent that a workflow saves."""
    [item] = server.queue(prompt)["outputs"]["save"]["latents"]
    return load_file(server.base / "output" / item["subfolder"] / item["filename"])["latent_tensor"]


@pytest.mark.slow
def test_two_people_without_masks_exchanged_and_exchanged_back(studio: Server):
    forth = sampled(studio, workflow("anna", "ben"))
    assert forth.isfinite().all() and forth.shape == (1, 4, 16, 16)
    assert subjects.difference(forth, sampled(studio, workflow("anna", "ben", woman_first=True))) < 3e-5
    crossed = sampled(studio, workflow("ben", "anna"))
    assert subjects.difference(forth, crossed) > 3e-4
    assert subjects.difference(crossed, sampled(studio, workflow("ben", "anna", woman_first=True))) < 3e-5


@pytest.mark.slow
def test_one_copy_for_two_people_and_nothing_after_free(studio: Server):
    process = psutil.Process(studio.pid)

    def held() -> float:
        return process.memory_info().rss / MIB

    def free() -> float:
        studio.post("/free", {"unload_models": True, "free_memory": True})
        # The server may act on it with its next prompt only.
        studio.queue({"e": {"class_type": "EmptyImage", "inputs": {"width": 8, "height": 8, "batch_size": 1, "color": 0}},
                      "p": {"class_type": "PreviewImage", "inputs": {"images": ["e", 0]}}})  # fmt: skip
        return held()

    sampled(studio, workflow("anna", "ben", seed=4))  # what a process keeps after its first run
    before = free()
    alone = workflow("anna", "ben", seed=2)
    del alone["woman"], alone["ben"], alone["prompt"]["inputs"]["subjects.subject_1"]
    sampled(studio, alone)
    one = held()
    sampled(studio, workflow("anna", "ben", seed=3))
    two = held()
    after = free()
    file = (studio.base / "models" / "ipadapter" / "mine.bin").stat().st_size / MIB
    report = (
        f"{before:.0f} MiB, {one:.0f} with one person, {two:.0f} with two, {after:.0f} after /free; file {file:.0f}"
    )
    assert two - one < file / 2, report
    assert after - before < file / 2, report
    assert one - before > 3000, report
