"""FastComposer's fusion of an image feature with its word (arXiv 2305.10431), instead of eq. 9.

Module names are those of the published file, so that it loads strictly.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ..method.factory import Factory


class FusionMLP(nn.Module):
    """MLP(x) = W₂ GELU(W₁ LN(x)), with the inner width of its output."""

    def __init__(self, width_in: int, width_out: int, factory: Factory):
        super().__init__()
        self.layernorm = factory.layer_norm(width_in)
        self.fc1 = factory.linear(width_in, width_out)
        self.fc2 = factory.linear(width_out, width_out)

    def forward(self, x: Tensor) -> Tensor:
        """(...,in) -> (...,out)"""
        return self.fc2(nn.functional.gelu(self.fc1(self.layernorm(x))))


class PostFusion(nn.Module):
    """s = LN(h + MLP₂(h)) with h = t + MLP₁(concat(t, f)): one token for all layers and timesteps (FastComposer)."""

    def __init__(self, image_width: int, text_width: int, factory: Factory):
        super().__init__()
        self.mlp1 = FusionMLP(text_width + image_width, text_width, factory)
        self.mlp2 = FusionMLP(text_width, text_width, factory)
        self.layer_norm = factory.layer_norm(text_width)

    def forward(self, features: Tensor, tokens: Tensor, t: Tensor, depth: int, starts: Tensor | None = None) -> Tensor:
        """As `SubjectFusion.forward`: (B,S,F), (B,S,T), (B,), L -> (L,B,S,T), L views of one token."""
        del starts
        hidden = tokens + self.mlp1(torch.cat((tokens, features), dim=-1))
        return self.layer_norm(hidden + self.mlp2(hidden)).expand(depth, -1, -1, -1)
