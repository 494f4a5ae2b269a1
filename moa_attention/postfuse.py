"""FastComposer's fusion of an image feature with its word (arXiv 2305.10431), in the place of eq. 9.

Module names are those of the published file, so that it loads strictly.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from .projection import Place


class FusionMLP(nn.Module):
    """MLP(x) = W₂ GELU(W₁ LN(x)), as wide inside as what it returns."""

    def __init__(self, width_in: int, width_out: int, place: Place):
        super().__init__()
        make, options = place.operations, {"device": place.device, "dtype": place.dtype}
        self.layernorm = make.LayerNorm(width_in, **options)
        self.fc1 = make.Linear(width_in, width_out, **options)
        self.fc2 = make.Linear(width_out, width_out, **options)

    def forward(self, x: Tensor) -> Tensor:
        """(...,in) -> (...,out)"""
        return self.fc2(nn.functional.gelu(self.fc1(self.layernorm(x))))


class PostFusion(nn.Module):
    """s = LN(h + MLP₂(h)) with h = t + MLP₁(concat(t, f)): one token for all layers and timesteps (FastComposer)."""

    def __init__(self, image_width: int, text_width: int, place: Place):
        super().__init__()
        self.mlp1 = FusionMLP(text_width + image_width, text_width, place)
        self.mlp2 = FusionMLP(text_width, text_width, place)
        self.layer_norm = place.operations.LayerNorm(text_width, device=place.device, dtype=place.dtype)

    def forward(self, features: Tensor, tokens: Tensor, t: Tensor, depth: int) -> Tensor:
        """As `SubjectFusion.forward`: (B,S,F), (B,S,T), (B,), L -> (L,B,S,T), L views of one token."""
        hidden = tokens + self.mlp1(torch.cat((tokens, features), dim=-1))
        return self.layer_norm(hidden + self.mlp2(hidden)).expand(depth, -1, -1, -1)
