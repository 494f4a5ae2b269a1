"""The last blocks of a CLIP vision model, for adapters trained together with them: the rest is the stock model's.

Module names are those of the published CLIP files, so that these load strictly.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from .attention import attend
from .projection import Place

HEAD = 64
"""Width of an attention head, in every size of OpenAI's CLIP."""
EXPANSION = 4
"""Width of the feed-forward's inside, in widths of the hidden state."""


class TailAttention(nn.Module):
    """Self-attention of all patches and the class token, with biases."""

    def __init__(self, width: int, place: Place):
        super().__init__()
        make, options = place.operations, {"device": place.device, "dtype": place.dtype}
        self.heads = width // HEAD
        self.q_proj, self.k_proj, self.v_proj, self.out_proj = (make.Linear(width, width, **options) for _ in range(4))

    def forward(self, x: Tensor) -> Tensor:
        """(B,P,W) -> (B,P,W)"""
        return self.out_proj(attend(self.q_proj(x), self.k_proj(x), self.v_proj(x), self.heads))


class TailMLP(nn.Module):
    """W₂ g(W₁ x) with g(a) = a σ(1.702 a), the GELU of OpenAI's CLIP."""

    def __init__(self, width: int, place: Place):
        super().__init__()
        make, options = place.operations, {"device": place.device, "dtype": place.dtype}
        self.fc1 = make.Linear(width, EXPANSION * width, **options)
        self.fc2 = make.Linear(EXPANSION * width, width, **options)

    def forward(self, x: Tensor) -> Tensor:
        """(B,P,W) -> (B,P,W)"""
        inner = self.fc1(x)
        return self.fc2(inner * torch.sigmoid(1.702 * inner))


class TailBlock(nn.Module):
    """One block of the vision tower: attention, then feed-forward, each behind a norm and added to what came in."""

    def __init__(self, width: int, place: Place):
        super().__init__()
        make, options = place.operations, {"device": place.device, "dtype": place.dtype}
        self.layer_norm1, self.layer_norm2 = (make.LayerNorm(width, **options) for _ in range(2))
        self.self_attn, self.mlp = TailAttention(width, place), TailMLP(width, place)

    def forward(self, x: Tensor) -> Tensor:
        """(B,P,W) -> (B,P,W)"""
        x = x + self.self_attn(self.layer_norm1(x))
        return x + self.mlp(self.layer_norm2(x))


class ClipTail(nn.Module):
    """The last `blocks` blocks, the norm of the class token and the projection (CLIP, arXiv 2103.00020)."""

    def __init__(self, blocks: int, width: int, image_width: int, place: Place):
        super().__init__()
        make, options = place.operations, {"device": place.device, "dtype": place.dtype}
        self.layers = nn.ModuleList(TailBlock(width, place) for _ in range(blocks))
        self.post_layernorm = make.LayerNorm(width, **options)
        self.visual_projection = make.Linear(width, image_width, bias=False, **options)

    def forward(self, hidden: Tensor) -> Tensor:
        """The hidden state before these blocks, class token first, to the image feature: (B,P,W) -> (B,F)"""
        for block in self.layers:
            hidden = block(hidden)
        return self.visual_projection(self.post_layernorm(hidden[:, 0]))
