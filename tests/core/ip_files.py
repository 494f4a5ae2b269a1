"""IP-Adapter files as they are published: names and shapes of their tensors, filled by a function of the shape."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor

Make = Callable[..., Tensor]
Kind = Literal["base", "plus", "full", "faceid", "faceid portrait", "faceid plus", "instantid"]
FACE = 512
"""Width of a face embedding."""
WIDTHS = {
    "sd15": [320] * 2 + [640] * 2 + [1280] * 2 + [1280] * 3 + [640] * 3 + [320] * 3 + [1280],
    "sdxl": [640] * 4 + [1280] * 20 + [1280] * 30 + [640] * 6 + [1280] * 10,
}
"""Of the cross-attention layers in the order of the files: down, up, middle."""


def meta(*shape: int) -> Tensor:
    """Shapes without contents: full-size files in no memory."""
    return torch.empty(shape, device="meta")


def image_projection(
    kind: Kind, features: int, tokens: int, text: int, inner: int, depth: int, make: Make
) -> dict[str, Tensor]:
    """The tensors under `image_proj`."""
    if kind == "base":
        return {
            "proj.weight": make(tokens * text, features), "proj.bias": make(tokens * text),
            "norm.weight": make(text), "norm.bias": make(text),
        }  # fmt: skip
    if kind == "full":
        return {
            "proj.0.weight": make(inner, features), "proj.0.bias": make(inner), "proj.2.weight": make(text, inner),
            "proj.2.bias": make(text), "proj.3.weight": make(text), "proj.3.bias": make(text),
        }  # fmt: skip
    if kind == "instantid":
        return {"latents": make(1, tokens, inner), **reader(FACE, text, inner, depth, make)}
    if kind == "plus":
        return {"latents": make(1, tokens, inner), **reader(features, text, inner, depth, make)}
    face = {
        "proj.0.weight": make(2 * FACE, FACE), "proj.0.bias": make(2 * FACE), "proj.2.weight": make(tokens * text, 2 * FACE),
        "proj.2.bias": make(tokens * text), "norm.weight": make(text), "norm.bias": make(text),
    }  # fmt: skip
    if kind == "faceid plus":
        face |= {f"perceiver_resampler.{name}": t for name, t in reader(features, text, text, depth, make).items()}
    return face


def reader(features: int, text: int, inner: int, depth: int, make: Make) -> dict[str, Tensor]:
    """The tensors of queries that read patches."""
    found = {
        "proj_in.weight": make(inner, features), "proj_in.bias": make(inner),
        "proj_out.weight": make(text, inner), "proj_out.bias": make(text),
        "norm_out.weight": make(text), "norm_out.bias": make(text),
    }  # fmt: skip
    for n in range(depth):
        for norm in ("norm1", "norm2"):
            found |= {f"layers.{n}.0.{norm}.weight": make(inner), f"layers.{n}.0.{norm}.bias": make(inner)}
        found |= {
            f"layers.{n}.0.to_q.weight": make(inner, inner), f"layers.{n}.0.to_kv.weight": make(2 * inner, inner),
            f"layers.{n}.0.to_out.weight": make(inner, inner),
            f"layers.{n}.1.0.weight": make(inner), f"layers.{n}.1.0.bias": make(inner),
            f"layers.{n}.1.1.weight": make(4 * inner, inner), f"layers.{n}.1.3.weight": make(inner, 4 * inner),
        }  # fmt: skip
    return found


def tuned(number: int, width: int, context: int, rank: int, make: Make) -> dict[str, Tensor]:
    """The LoRA of one layer."""
    found = {}
    for to in ("to_q", "to_k", "to_v", "to_out"):
        inward = context if to in ("to_k", "to_v") else width
        found[f"{number}.{to}_lora.down.weight"] = make(rank, inward)
        found[f"{number}.{to}_lora.up.weight"] = make(width, rank)
    return found


def nested(
    kind: Kind, widths: list[int], features: int, text: int, *, tokens: int = 4, inner: int = 64, depth: int = 4,
    rank: int = 128, make: Make = meta,
) -> dict[str, dict[str, Tensor]]:  # fmt: skip
    """A whole file as .bin files hold it; every other number is a self-attention, which only FaceID files tune."""
    layers: dict[str, Tensor] = {}
    for n, width in enumerate(widths):
        layers |= {f"{2 * n + 1}.{half}.weight": make(width, text) for half in ("to_k_ip", "to_v_ip")}
        if kind in ("faceid", "faceid plus"):
            layers |= tuned(2 * n, width, width, rank, make) | tuned(2 * n + 1, width, text, rank, make)
    return {"image_proj": image_projection(kind, features, tokens, text, inner, depth, make), "ip_adapter": layers}
