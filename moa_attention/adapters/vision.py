"""Image encoders inside adapter files: the last blocks of a CLIP vision model, or a small encoder of our own.

Module names of the CLIP blocks are those of the published files, so that these load strictly.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..method.attention import attend
from ..method.factory import PLAIN, Factory

WIDTHS = (32, 64, 128, 192)
"""Channels after each stage of the embedded encoder."""
HEAD = 64
"""Width of an attention head, in every size of OpenAI's CLIP."""
EXPANSION = 4
"""Width of the feed-forward's inside, in widths of the hidden state."""


class TailAttention(nn.Module):
    """Self-attention of all patches and the class token, with biases."""

    def __init__(self, width: int, factory: Factory):
        super().__init__()
        self.heads = width // HEAD
        self.q_proj, self.k_proj, self.v_proj, self.out_proj = (factory.linear(width, width) for _ in range(4))

    def forward(self, x: Tensor) -> Tensor:
        """(B,P,W) -> (B,P,W)"""
        return self.out_proj(attend(self.q_proj(x), self.k_proj(x), self.v_proj(x), self.heads))


class TailMLP(nn.Module):
    """W₂ g(W₁ x) with g(a) = a σ(1.702 a), the GELU of OpenAI's CLIP."""

    def __init__(self, width: int, factory: Factory):
        super().__init__()
        self.fc1 = factory.linear(width, EXPANSION * width)
        self.fc2 = factory.linear(EXPANSION * width, width)

    def forward(self, x: Tensor) -> Tensor:
        """(B,P,W) -> (B,P,W)"""
        inner = self.fc1(x)
        return self.fc2(inner * torch.sigmoid(1.702 * inner))


class TailBlock(nn.Module):
    """One block of the vision tower: attention, then feed-forward, each after a norm, with a residual connection."""

    def __init__(self, width: int, factory: Factory):
        super().__init__()
        self.layer_norm1, self.layer_norm2 = (factory.layer_norm(width) for _ in range(2))
        self.self_attn, self.mlp = TailAttention(width, factory), TailMLP(width, factory)

    def forward(self, x: Tensor) -> Tensor:
        """(B,P,W) -> (B,P,W)"""
        x = x + self.self_attn(self.layer_norm1(x))
        return x + self.mlp(self.layer_norm2(x))


class ClipTail(nn.Module):
    """The last `blocks` blocks, the norm of the class token and the projection (CLIP, arXiv 2103.00020)."""

    def __init__(self, blocks: int, width: int, image_width: int, factory: Factory):
        super().__init__()
        self.layers = nn.ModuleList(TailBlock(width, factory) for _ in range(blocks))
        self.post_layernorm = factory.layer_norm(width)
        self.visual_projection = factory.linear(width, image_width, bias=False)

    def forward(self, hidden: Tensor) -> Tensor:
        """The hidden state before these blocks, class token first, to the image feature: (B,P,W) -> (B,F)"""
        for block in self.layers:
            hidden = block(hidden)
        return self.visual_projection(self.post_layernorm(hidden[:, 0]))


class ImageEncoder(nn.Module):
    """Four strided convolution stages, then a linear projection: one global feature per picture (ours).

    For base models without a CLIP vision model.
    """

    picture = 96
    """Side of its square input, in pixels."""

    def __init__(self, image_width: int, factory: Factory = PLAIN):
        super().__init__()
        widths = (3, *WIDTHS)
        self.down = nn.ModuleList(factory.convolution(a, b, 4, stride=2) for a, b in zip(widths, WIDTHS, strict=False))
        self.refine = nn.ModuleList(factory.convolution(b, b, 3) for b in WIDTHS)
        self.norms = nn.ModuleList(factory.group_norm(8, b) for b in WIDTHS)
        self.project = factory.linear(WIDTHS[-1] * (self.picture // 2 ** len(WIDTHS)) ** 2, image_width)

    def forward(self, pictures: Tensor) -> Tensor:
        """(B,3,96,96) in [0,1] -> (B,F), each of mean 0 and variance 1."""
        x = pictures * 2 - 1
        for down, refine, norm in zip(self.down, self.refine, self.norms, strict=True):
            x = F.silu(norm(down(x)))
            x = x + F.silu(refine(x))
        x = self.project(x.flatten(1))
        return F.layer_norm(x, x.shape[-1:])
