"""From what a CLIP vision model sees to image tokens, as IP-Adapter published it (arXiv 2308.06721 and its later kinds).

Module names are those of the published files, so that these load strictly.
"""

from __future__ import annotations

from types import ModuleType
from typing import NamedTuple, cast

import torch
from torch import Tensor, nn

HEAD = 64
"""Width of a head of the resampler's attention, in every published file."""


class Place(NamedTuple):
    """Where layers come from and where they lie."""

    operations: ModuleType | type = nn
    device: torch.device | str | None = None
    dtype: torch.dtype | None = None


class LinearProjection(nn.Module):
    """One global feature becomes a few tokens: "base" and "light" files."""

    def __init__(self, seen: int, tokens: int, width: int, place: Place):
        super().__init__()
        make, options = place.operations, {"device": place.device, "dtype": place.dtype}
        self.width = width
        self.proj = make.Linear(seen, tokens * width, **options)
        self.norm = make.LayerNorm(width, **options)

    def forward(self, seen: Tensor) -> Tensor:
        """(B,F) -> (B,K,T)"""
        return self.norm(self.proj(seen).unflatten(-1, (-1, self.width)))


class PatchProjection(nn.Module):
    """Every patch that the encoder saw becomes a token: "full" files."""

    def __init__(self, seen: int, inner: int, width: int, place: Place):
        super().__init__()
        make, options = place.operations, {"device": place.device, "dtype": place.dtype}
        self.proj = nn.Sequential(
            make.Linear(seen, inner, **options), nn.GELU(), make.Linear(inner, width, **options),
            make.LayerNorm(width, **options),
        )  # fmt: skip

    def forward(self, seen: Tensor) -> Tensor:
        """(B,P,F) -> (B,P,T)"""
        return self.proj(seen)


class PatchReader(nn.Module):
    """A few queries read what the encoder saw of every patch."""

    def __init__(self, seen: int, inner: int, depth: int, expansion: int, width: int, place: Place):
        super().__init__()
        make, options = place.operations, {"device": place.device, "dtype": place.dtype}
        self.proj_in = make.Linear(seen, inner, **options)
        self.layers = nn.ModuleList(
            nn.ModuleList([ReadingAttention(inner, place), feed_forward(inner, expansion, place)]) for _ in range(depth)
        )
        self.proj_out = make.Linear(inner, width, **options)
        self.norm_out = make.LayerNorm(width, **options)

    def read(self, queries: Tensor, seen: Tensor) -> Tensor:
        """(B,K,D) (B,P,F) -> (B,K,T)"""
        seen = self.proj_in(seen)
        for layer in self.layers:
            attention, feed = cast("nn.ModuleList", layer)
            queries = queries + attention(seen, queries)
            queries = queries + feed(queries)
        return self.norm_out(self.proj_out(queries))


class Resampler(PatchReader):
    """The queries are learned: "plus" and "plus face" files."""

    def __init__(self, seen: int, tokens: int, inner: int, depth: int, expansion: int, width: int, place: Place):
        super().__init__(seen, inner, depth, expansion, width, place)
        self.latents = nn.Parameter(torch.empty(1, tokens, inner, device=place.device, dtype=place.dtype))

    def forward(self, seen: Tensor) -> Tensor:
        """(B,P,F) -> (B,K,T)"""
        return self.read(self.latents.to(seen).expand(len(seen), -1, -1), seen)


class ReadingAttention(nn.Module):
    """Queries attend to the patches and to one another."""

    def __init__(self, inner: int, place: Place):
        super().__init__()
        make, options = place.operations, {"device": place.device, "dtype": place.dtype}
        self.norm1 = make.LayerNorm(inner, **options)
        self.norm2 = make.LayerNorm(inner, **options)
        self.to_q = make.Linear(inner, inner, bias=False, **options)
        self.to_kv = make.Linear(inner, 2 * inner, bias=False, **options)
        self.to_out = make.Linear(inner, inner, bias=False, **options)

    def forward(self, seen: Tensor, latents: Tensor) -> Tensor:
        """(B,P,D) (B,K,D) -> (B,K,D)"""
        seen, latents = self.norm1(seen), self.norm2(latents)
        key, value = self.to_kv(torch.cat((seen, latents), dim=1)).chunk(2, dim=-1)
        q, k, v = (x.unflatten(-1, (-1, HEAD)).transpose(1, 2) for x in (self.to_q(latents), key, value))
        read = nn.functional.scaled_dot_product_attention(q, k, v)
        return self.to_out(read.transpose(1, 2).flatten(2))


def feed_forward(inner: int, expansion: int, place: Place) -> nn.Sequential:
    make, options = place.operations, {"device": place.device, "dtype": place.dtype}
    wide = expansion * inner
    return nn.Sequential(
        make.LayerNorm(inner, **options), make.Linear(inner, wide, bias=False, **options), nn.GELU(),
        make.Linear(wide, inner, bias=False, **options),
    )  # fmt: skip
