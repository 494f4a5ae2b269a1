"""Files that a migrated workflow loads: an IP-Adapter for the tiny checkpoint, its CLIP vision model, and pictures."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import ip_files
import numpy as np
import torch
from PIL import Image
from safetensors.torch import save_file
from torch import Tensor

WIDTH, EMBEDDING, LAYERS, PATCH, PATCHES = 1024, 768, 24, 14, 256
"""Of CLIP ViT-L, the smallest CLIP vision model that the host recognises."""
CONTEXT, TENTH = 64, 10
"""The tiny checkpoint's text width, and by how much its layers are narrower than SD1.5's."""


def write_files(base: Path) -> None:
    """Into the folders of a server."""
    for folder in ("models/ipadapter", "models/clip_vision", "input"):
        (base / folder).mkdir(parents=True, exist_ok=True)
    widths = [width // TENTH for width in ip_files.WIDTHS["sd15"]]
    file = ip_files.nested("base", widths, EMBEDDING, CONTEXT, make=random(3))
    torch.save(file, base / "models" / "ipadapter" / "tiny_sd15.bin")
    save_file(dict(vision_tensors(random(4))), base / "models" / "clip_vision" / "large.safetensors")
    for seed, name in enumerate(("anna", "ben")):
        picture = np.random.default_rng(seed).integers(0, 255, (8, 8, 3)).astype(np.uint8)
        Image.fromarray(picture).resize((64, 64), Image.Resampling.NEAREST).save(base / "input" / f"{name}.png")


def random(seed: int) -> ip_files.Make:
    generator = torch.Generator().manual_seed(seed)
    return lambda *shape: torch.randn(shape, generator=generator) / max(1, shape[-1]) ** 0.5


def vision_tensors(make: ip_files.Make) -> Iterator[tuple[str, Tensor]]:
    """CLIP ViT-L in half precision. Only its first layer does something: the class token reads the mean of all patches."""
    model = "vision_model."
    yield f"{model}embeddings.class_embedding", make(WIDTH).half()
    yield f"{model}embeddings.patch_embedding.weight", make(WIDTH, 3, PATCH, PATCH).half()
    yield f"{model}embeddings.position_embedding.weight", torch.zeros(PATCHES + 1, WIDTH, dtype=torch.float16)
    yield "visual_projection.weight", make(EMBEDDING, WIDTH).half()
    layers = [f"encoder.layers.{n}." for n in range(LAYERS)]
    for norm in ("pre_layrnorm", "post_layernorm", *(f"{layer}layer_norm{i}" for layer in layers for i in (1, 2))):
        yield f"{model}{norm}.weight", torch.ones(WIDTH, dtype=torch.float16)
        yield f"{model}{norm}.bias", torch.zeros(WIDTH, dtype=torch.float16)
    inner = {"mlp.fc1": (4 * WIDTH, WIDTH), "mlp.fc2": (WIDTH, 4 * WIDTH)}
    inner |= {f"self_attn.{part}_proj": (WIDTH, WIDTH) for part in ("q", "k", "v", "out")}
    for number, layer in enumerate(layers):
        for name, shape in inner.items():
            reads = number == 0 and name in ("self_attn.v_proj", "self_attn.out_proj")
            weight = torch.eye(WIDTH) if reads else torch.zeros(shape)
            yield f"{model}{layer}{name}.weight", weight.half()
            yield f"{model}{layer}{name}.bias", torch.zeros(shape[0], dtype=torch.float16)
