"""From image features to image tokens, as IP-Adapter published it (arXiv 2308.06721 and its later kinds).

Module names are those of the published files, so that these load strictly.
"""

from __future__ import annotations

from typing import cast

import torch
from einops import rearrange
from torch import Tensor, nn

from ..method.factory import Factory

HEAD = 64
"""Width of a head of the resampler's attention, in every published file."""


class LinearProjection(nn.Module):
    """One global feature becomes a few tokens: "base" and "light" files."""

    def __init__(self, features: int, tokens: int, width: int, factory: Factory):
        super().__init__()
        self.width = width
        self.proj = factory.linear(features, tokens * width)
        self.norm = factory.layer_norm(width)

    def forward(self, features: Tensor) -> Tensor:
        """(B,F) -> (B,K,T)"""
        return self.norm(self.proj(features).unflatten(-1, (-1, self.width)))


class PatchProjection(nn.Module):
    """Every patch of the encoder becomes a token: "full" files."""

    def __init__(self, features: int, inner: int, width: int, factory: Factory):
        super().__init__()
        self.proj = nn.Sequential(
            factory.linear(features, inner), nn.GELU(), factory.linear(inner, width),
            factory.layer_norm(width),
        )  # fmt: skip

    def forward(self, features: Tensor) -> Tensor:
        """(B,P,F) -> (B,P,T)"""
        return self.proj(features)


class Perceiver(nn.Module):
    """A few queries attend to the features of all patches."""

    def __init__(self, features: int, inner: int, depth: int, expansion: int, width: int, factory: Factory):
        super().__init__()
        self.proj_in = factory.linear(features, inner)
        self.layers = nn.ModuleList(
            nn.ModuleList([PerceiverAttention(inner, factory), feed_forward(inner, expansion, factory)])
            for _ in range(depth)
        )
        self.proj_out = factory.linear(inner, width)
        self.norm_out = factory.layer_norm(width)

    def attend(self, queries: Tensor, features: Tensor) -> Tensor:
        """(B,K,D) (B,P,F) -> (B,K,T)"""
        features = self.proj_in(features)
        for layer in self.layers:
            attention, feed = cast("nn.ModuleList", layer)
            queries = queries + attention(features, queries)
            queries = queries + feed(queries)
        return self.norm_out(self.proj_out(queries))


class Resampler(Perceiver):
    """The queries are learned: "plus" and "plus face" files."""

    def __init__(
        self, features: int, tokens: int, inner: int, depth: int, expansion: int, width: int, factory: Factory
    ):
        super().__init__(features, inner, depth, expansion, width, factory)
        self.latents = factory.parameter(1, tokens, inner)

    def forward(self, features: Tensor) -> Tensor:
        """(B,P,F) -> (B,K,T)"""
        return self.attend(self.latents.to(features).expand(len(features), -1, -1), features)


class FaceResampler(Resampler):
    """The queries read a face embedding as one patch: InstantID's files, and those of FaceID Portrait Unnorm."""

    def forward(self, face: Tensor) -> Tensor:
        """(B,F) -> (B,K,T)"""
        return super().forward(face[:, None])


class PerceiverAttention(nn.Module):
    """Queries attend to the patches and to one another."""

    def __init__(self, inner: int, factory: Factory):
        super().__init__()
        self.norm1 = factory.layer_norm(inner)
        self.norm2 = factory.layer_norm(inner)
        self.to_q = factory.linear(inner, inner, bias=False)
        self.to_kv = factory.linear(inner, 2 * inner, bias=False)
        self.to_out = factory.linear(inner, inner, bias=False)

    def forward(self, features: Tensor, latents: Tensor) -> Tensor:
        """(B,P,D) (B,K,D) -> (B,K,D)"""
        features, latents = self.norm1(features), self.norm2(latents)
        key, value = self.to_kv(torch.cat((features, latents), dim=1)).chunk(2, dim=-1)
        q, k, v = (rearrange(x, "b n (h d) -> b h n d", d=HEAD) for x in (self.to_q(latents), key, value))
        attended = nn.functional.scaled_dot_product_attention(q, k, v)
        return self.to_out(rearrange(attended, "b h n d -> b n (h d)"))


def feed_forward(inner: int, expansion: int, factory: Factory) -> nn.Sequential:
    wide = expansion * inner
    return nn.Sequential(
        factory.layer_norm(inner), factory.linear(inner, wide, bias=False), nn.GELU(),
        factory.linear(wide, inner, bias=False),
    )  # fmt: skip


class FaceProjection(nn.Module):
    """An embedding becomes a few tokens: "faceid" and "faceid portrait" files."""

    def __init__(self, face: int, inner: int, tokens: int, width: int, factory: Factory):
        super().__init__()
        self.width = width
        self.proj = nn.Sequential(factory.linear(face, inner), nn.GELU(), factory.linear(inner, tokens * width))
        self.norm = factory.layer_norm(width)

    def forward(self, face: Tensor) -> Tensor:
        """(B,F) -> (B,K,T)"""
        return self.norm(self.proj(face).unflatten(-1, (-1, self.width)))


class FacePlusProjection(FaceProjection):
    """These tokens then attend to the CLIP patches of the face: "faceid plus" files."""

    options = ("shortcut", "attended")

    def __init__(
        self,
        face: int,
        inner: int,
        features: int,
        depth: int,
        expansion: int,
        tokens: int,
        width: int,
        factory: Factory,
    ):
        super().__init__(face, inner, tokens, width, factory)
        self.perceiver_resampler = Perceiver(features, width, depth, expansion, width, factory)

    def forward(self, face: Tensor, patches: Tensor, shortcut: float = 1.0, attended: float = 1.0) -> Tensor:
        """(B,F) (B,P,G) -> (B,K,T)

        Args:
            shortcut: the weight of the face's own tokens beside the attended ones: 1 in version 2 of these files, 0 in version 1.
            attended: the weight of the attended tokens.
        """
        tokens = super().forward(face)
        return shortcut * tokens + attended * self.perceiver_resampler.attend(tokens, patches)
