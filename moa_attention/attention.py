"""Attention itself (eq. 1), for use without a host, and its probabilities, for the object loss."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def split_heads(x: Tensor, heads: int) -> Tensor:
    """(B,N,D) -> (B,H,N,D/H)"""
    return x.unflatten(-1, (heads, -1)).transpose(1, 2)


def attend(q: Tensor, k: Tensor, v: Tensor, heads: int) -> Tensor:
    """softmax(QKᵀ/√d)V per head (eq. 1): (B,N,D) (B,M,D) (B,M,D) -> (B,N,D)."""
    out = F.scaled_dot_product_attention(split_heads(q, heads), split_heads(k, heads), split_heads(v, heads))
    return out.transpose(1, 2).flatten(-2)


def attention_probabilities(q: Tensor, k: Tensor, heads: int) -> Tensor:
    """softmax(QKᵀ/√d) of eq. 1, in float32: (B,N,D) (B,M,D) -> (B,H,N,M)."""
    q, k = split_heads(q.float(), heads), split_heads(k.float(), heads)
    return torch.softmax(q @ k.transpose(-1, -2) * q.shape[-1] ** -0.5, dim=-1)
