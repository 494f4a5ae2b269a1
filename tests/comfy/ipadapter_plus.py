"""What ComfyUI_IPAdapter_plus computes, written from the behaviour of its published code: the other side of the comparisons.

It replaces the attention of the layers that the extension reaches, with the queries that the host computed there.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn.functional as F
from comfy.ldm.modules.attention import optimized_attention
from comfyui_moa.nodes.host.model.unet import attention_layers, unet_of
from torch import Tensor

STYLE = {0, 1, 2, 3, 9, 10, 11, 12, 13, 14, 15}
STRONG = {"sd15": set(range(16)) - {4, 5}, "sdxl": set(range(11)) - {3}}
ONLY: dict[str, dict[str, dict[int, float]]] = {
    "style transfer": {"sd15": dict.fromkeys(STYLE, 1.0), "sdxl": {6: 1.0}},
    "composition": {"sd15": {4: 0.25, 5: 1.0}, "sdxl": {3: 1.0}},
    "strong style transfer": {base: dict.fromkeys(layers, 1.0) for base, layers in STRONG.items()},
    "style and composition": {"sd15": {**dict.fromkeys(STYLE, 1.0), 4: 0.25, 5: 1.0}, "sdxl": {3: 1.0, 6: 1.0}},
    "style transfer precise": {"sd15": {**dict.fromkeys(STYLE, 1.0), 4: 0.25, 5: 1.0}, "sdxl": {3: 1.0, 6: 1.0}},
    "composition precise": {
        "sd15": {**dict.fromkeys(STYLE, 1.0), 4: 0.25, 5: 1.0, 6: 0.1, 7: 0.1, 8: 0.1},
        "sdxl": {**dict.fromkeys(range(11), 0.1), 3: 1.0, 6: 1.0},
    },
}
"""Of the weight types that reach some layers only, their factors by the number of the layer's block."""
COMPOSITION = {"sd15": {4, 5}, "sdxl": {3}}
STAGES = {
    "weak input": {"input"},
    "weak middle": {"middle"},
    "weak output": {"output"},
    "strong middle": {"input", "output"},
}


def factor(base: str, weight_type: str, t: int, stage: str) -> float:
    """By which a weight type multiplies the weight in block t."""
    count = {"sd15": 16, "sdxl": 11}[base]
    curves: dict[str, Callable[[float], float]] = {
        "ease in": lambda x: 1 - x,
        "ease out": lambda x: x,
        "ease in-out": lambda x: 1 - abs(2 * x - 1),
        "reverse in-out": lambda x: abs(2 * x - 1),
    }
    if weight_type in curves:
        return 0.05 + 0.95 * curves[weight_type](t / count)
    if weight_type in STAGES:
        return 0.2 if stage in STAGES[weight_type] else 1.0
    return ONLY[weight_type][base].get(t, 0.0) if weight_type in ONLY else 1.0


def swapped(base: str, weight_type: str, t: int) -> bool:
    """Whether the negative prompt gets the picture in block t, and the prompt zeros."""
    composition = t in COMPOSITION[base]
    return (
        composition
        if weight_type == "style transfer precise"
        else weight_type == "composition precise" and not composition
    )


@dataclass
class Prompt:
    """One of its nodes, applied."""

    tokens: Tensor
    """(n,K,T) image tokens: those of n pictures are joined, or one of each frame."""
    negative: Tensor
    """(1,K,T)"""
    weight: float | Sequence[float] = 1.0
    weight_type: str = "linear"
    scaling: str = "V only"
    mask: Tensor | None = None
    """(n,H,W) of n frames; the last holds for all further ones."""
    window: tuple[float, float] = (math.inf, 0.0)
    """Noise levels between which it is active."""
    per_frame: bool = False

    def rows(self, options: dict, batch: int, base: str, t: int) -> Tensor:
        """(B,K,T) of all rows of a call."""
        tokens, negative = self.tokens, self.negative
        if self.per_frame:
            tokens = torch.cat([tokens, tokens[-1:].expand(max(0, batch - len(tokens)), -1, -1)])[:batch]
        else:
            tokens = tokens.flatten(0, 1)[None].expand(batch, -1, -1)
        negative = negative.expand(batch, -1, -1)
        negative = torch.cat([negative] * (tokens.shape[1] // negative.shape[1]), dim=1)
        if swapped(base, self.weight_type, t):
            tokens, negative = 0 * tokens, tokens
        return torch.cat([(tokens, negative)[which] for which in options["cond_or_uncond"]])

    def strengths(self, prompts: int, batch: int) -> Tensor:
        """(B,1,1) of all rows of a call."""
        weights = list(self.weight) if isinstance(self.weight, Sequence) else [self.weight]
        weights += [weights[-1]] * (batch - len(weights))
        return torch.tensor(weights[:batch]).repeat(prompts)[:, None, None]

    def attention(self, q: Tensor, options: dict, base: str, to_k: Tensor, to_v: Tensor) -> Tensor:
        """(B,N,D), what it adds in a layer."""
        prompts, t = len(options["cond_or_uncond"]), options["transformer_index"]
        batch, heads = len(q) // prompts, options["n_heads"]
        if not self.window[1] <= float(options["sigmas"][0]) <= self.window[0]:
            return torch.zeros_like(q)
        weight = self.strengths(prompts, batch) * factor(base, self.weight_type, t, options["block"][0])
        rows = self.rows(options, batch, base, t)
        k, v = rows @ to_k.T, rows @ to_v.T
        weight = weight * (k.shape[2] / 1280 if self.scaling.endswith("C penalty") else 1)
        if self.scaling == "V only":
            added = weight * optimized_attention(q, k, v, heads)
        elif self.scaling.startswith("K+mean(V)"):
            mean = v.mean(dim=1, keepdim=True)
            added = optimized_attention(q, weight * k, v - mean + weight * mean, heads)
        else:
            added = optimized_attention(q, weight * k, weight * v, heads)
        return (
            added * (weight != 0)
            if self.mask is None
            else added * (weight != 0) * self.share(options, q.shape[1], prompts, batch)
        )

    def share(self, options: dict, pixels: int, prompts: int, batch: int) -> Tensor:
        """(B,N,1), its mask at the pixels of a layer."""
        assert self.mask is not None
        h, w = options["original_shape"][-2:]
        rows = round(h / math.sqrt(h * w / pixels))
        mask = F.interpolate(self.mask[:, None], size=(rows, pixels // rows), mode="bilinear")[:, 0]
        mask = torch.cat([mask, mask[-1:].expand(max(0, batch - len(mask)), -1, -1)])[:batch]
        return mask.repeat(prompts, 1, 1).flatten(1)[..., None]


@dataclass
class Extension:
    """Its nodes in a row on one model."""

    base: str
    layers: Mapping[str, Tensor]
    """The file's tensors under `ip_adapter`."""
    prompts: Sequence[Prompt]
    middle: bool = False
    """Whether it reaches the middle block, as on the hosts for which it was written."""
    lora: float = 0.0
    """Strength of the file's LoRA, which its loader applies to the model."""
    numbers: dict[str, int] = field(default_factory=dict)
    others: Sequence[Extension] = ()
    """With other files, on the same model."""

    def on(self, model: Any) -> Any:
        """A clone of the model with it."""
        model, unet = model.clone(), unet_of(model.model)
        found = [layer for layer in attention_layers(unet)]
        order = sorted(
            (a for a in found if a.spec.is_cross), key=lambda a: ("input", "output", "middle").index(a.spec.stage)
        )
        for n, layer in enumerate(order):
            stage, number, index, _ = layer.spec.name.split("_")
            if self.middle or stage != "middle":
                model.set_model_attn2_replace(self.replacement(2 * n + 1), stage, int(number), int(index))
            self.numbers |= {layer.spec.name: 2 * n + 1, layer.spec.name.replace("attn2", "attn1"): 2 * n}
        for each in (self, *self.others):
            each.numbers = self.numbers
            if each.lora:
                model.add_patches(dict(each.differences(found)), each.lora)
        return model

    def replacement(self, number: int) -> Callable[..., Tensor]:
        def attention(q: Tensor, k: Tensor, v: Tensor, options: dict) -> Tensor:
            out = optimized_attention(q, k, v, options["n_heads"])
            return out + sum(each.added(q, options, number) for each in (self, *self.others))

        return attention

    def added(self, q: Tensor, options: dict, number: int) -> Tensor | int:
        """What its file adds in a layer."""
        to_k, to_v = (self.layers[f"{number}.{half}_ip.weight"] for half in ("to_k", "to_v"))
        return sum(prompt.attention(q, options, self.base, to_k, to_v) for prompt in self.prompts)

    def differences(self, found: Sequence[Any]):
        """The LoRA as differences of weights."""
        for layer in found:
            for matrix, theirs in (("to_q", "to_q"), ("to_k", "to_k"), ("to_v", "to_v"), ("to_out.0", "to_out")):
                lora = f"{self.numbers[layer.spec.name]}.{theirs}_lora"
                difference = self.layers[f"{lora}.up.weight"] @ self.layers[f"{lora}.down.weight"]
                yield f"diffusion_model.{layer.path}.{matrix}.weight", ("diff", (difference,))
