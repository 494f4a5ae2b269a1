"""Attention itself (eq. 1), for use without a host, its probabilities, and the maps that are read off them."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor


def split_heads(x: Tensor, heads: int) -> Tensor:
    """(B,N,D) -> (B,H,N,D/H)"""
    return rearrange(x, "b n (h d) -> b h n d", h=heads)


def attend(q: Tensor, k: Tensor, v: Tensor, heads: int, mask: Tensor | None = None) -> Tensor:
    """softmax(QKᵀ/√d)V per head (eq. 1): (B,N,D) (B,M,D) (B,M,D) -> (B,N,D).

    Args: mask: added to every head's logits, (B,1,M).
    """
    q, k, v = (split_heads(x, heads) for x in (q, k, v))
    out = F.scaled_dot_product_attention(q, k, v, None if mask is None else mask[:, None])
    return rearrange(out, "b h n d -> b n (h d)")


def attention_probabilities(q: Tensor, k: Tensor, heads: int, mask: Tensor | None = None) -> Tensor:
    """softmax(QKᵀ/√d) of eq. 1, in float32: (B,N,D) (B,M,D) -> (B,H,N,M).

    Args: mask: as of `attend`.
    """
    q, k = split_heads(q.float(), heads), split_heads(k.float(), heads)
    logits = q @ k.transpose(-1, -2) * q.shape[-1] ** -0.5
    return torch.softmax(logits if mask is None else logits + mask[:, None].float(), dim=-1)


def subject_attention(
    query: Tensor, key: Tensor, slots: Tensor, subjects: int, heads: int, mask: Tensor | None = None
) -> Tensor:
    """A_s: the attention of each latent pixel to subject s's tokens, the sum over their copies in a repeated context.

    Args: query (B,N,D), key (B,M,D), slots (B,M) int64, 0 for an ordinary token, mask as of `attend`. Returns: (B,S,H,N).
    """
    probabilities = attention_probabilities(query, key, heads, mask)  # (B,H,N,M)
    owners = F.one_hot(slots.clamp(min=0), subjects + 1)[..., 1:].to(probabilities.dtype)  # (B,M,S)
    return torch.einsum("bhnm,bms->bshn", probabilities, owners)


def resize(maps: Tensor, grid: tuple[int, int]) -> Tensor:
    """Bilinear with antialiasing, so that a small mask keeps its area: (B,C,H,W) -> (B,C,h,w)."""
    return F.interpolate(maps, size=grid, mode="bilinear", align_corners=False, antialias=True)
