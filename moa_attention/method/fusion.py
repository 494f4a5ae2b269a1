"""The multimodal prompt: an image feature becomes the token of its word, anew for every layer and timestep (eq. 9)."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from .factory import PLAIN, Factory

FREQUENCIES = 64
"""Sine and cosine pairs for each of t and l (ours; the paper leaves the encoding open)."""


def sinusoids(x: Tensor, longest: float) -> Tensor:
    """Sines and cosines of x at wavelengths spaced geometrically from 2π to `longest`: (...) -> (..., 2·FREQUENCIES)."""
    exponents = torch.arange(FREQUENCIES, device=x.device, dtype=torch.float32) / (FREQUENCIES - 1)
    angles = x.float()[..., None] * torch.exp(-math.log(longest / (2 * math.pi)) * exponents)
    return torch.cat((angles.sin(), angles.cos()), dim=-1)


class SpaceTimeEncoding(nn.Module):
    """PE(t, l) of eq. 9, R² -> R^width: sinusoids of the timestep and of the layer, then one learned projection."""

    def __init__(self, width: int, factory: Factory = PLAIN):
        super().__init__()
        self.project = factory.linear(4 * FREQUENCIES, width)

    def forward(self, t: Tensor, depth: int) -> Tensor:
        """Timesteps (B,) in 0..999, fractions included, and the number of layers L -> (L,B,width)."""
        time = sinusoids(t, 10_000.0).expand(depth, -1, -1)
        # Layers are spread over 0..15, so that an encoding means the same relative depth in a U-Net of any size.
        depths = torch.linspace(0, 15, depth, device=t.device)
        space = sinusoids(depths, 100.0)[:, None].expand(-1, len(t), -1)
        return self.project(torch.cat((time, space), dim=-1))


class SubjectFusion(nn.Module):
    """s_{t,l} = MLP(LN(concat(f, t)) + LN(PE(t, l))) (eq. 9), shared by all layers.

    Ours: the text token is added to the MLP's output, whose last layer starts at zero. The token of an untrained adapter is
    therefore the plain word's.

    Args: count: K, the tokens of a subject (ours; the paper has 1).
    """

    def __init__(self, image_width: int, text_width: int, factory: Factory = PLAIN, count: int = 1):
        super().__init__()
        width = image_width + text_width
        self.encode = SpaceTimeEncoding(width, factory)
        self.norm_prompt = factory.layer_norm(width)
        self.norm_place = factory.layer_norm(width)
        self.widen = factory.linear(width, 2 * text_width)
        self.narrow = factory.linear(2 * text_width, count * text_width)

    def zero(self) -> None:
        """Make the fused token equal the text token."""
        nn.init.zeros_(self.narrow.weight)
        nn.init.zeros_(self.narrow.bias)

    def forward(self, features: Tensor, tokens: Tensor, t: Tensor, depth: int, starts: Tensor | None = None) -> Tensor:
        """(B,S,F) image features, (B,S,T) text tokens, (B,) timesteps, L -> (L,B,S·K,T) subject tokens.

        Args: starts: (B,S·K,T), to what the MLP's output is added; None: the text tokens.
        """
        prompt = self.norm_prompt(torch.cat((features, tokens), dim=-1))
        place = self.norm_place(self.encode(t, depth).to(prompt.dtype))
        hidden = nn.functional.gelu(self.widen(prompt + place[:, :, None]))
        change = self.narrow(hidden).unflatten(-1, (-1, tokens.shape[-1])).flatten(2, 3)
        return (tokens if starts is None else starts) + change
