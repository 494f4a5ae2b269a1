"""The multimodal prompt: an image feature becomes the token of its word, anew for every layer and timestep (eq. 9)."""

from __future__ import annotations

import math
from types import ModuleType
from typing import NamedTuple

import torch
from torch import Tensor, nn

FREQUENCIES = 64
"""Sine and cosine pairs for each of t and l (ours; the paper leaves the encoding open)."""


def sinusoids(x: Tensor, longest: float) -> Tensor:
    """Sines and cosines of x at wavelengths spaced geometrically from 2π to `longest`: (...) -> (..., 2·FREQUENCIES)."""
    exponents = torch.arange(FREQUENCIES, device=x.device, dtype=torch.float32) / (FREQUENCIES - 1)
    angles = x.float()[..., None] * torch.exp(-math.log(longest / (2 * math.pi)) * exponents)
    return torch.cat((angles.sin(), angles.cos()), dim=-1)


class SpaceTimeEncoding(nn.Module):
    """PE(t, l) of eq. 9, R² -> R^width: sinusoids of the timestep and of the layer, then one learned projection."""

    def __init__(
        self,
        width: int,
        *,
        operations: ModuleType | type = nn,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ):
        super().__init__()
        self.project = operations.Linear(4 * FREQUENCIES, width, device=device, dtype=dtype)

    def forward(self, t: Tensor, depth: int) -> Tensor:
        """Timesteps (B,) in 0..999, fractions welcome, and the number of layers L -> (L,B,width)."""
        time = sinusoids(t, 10_000.0).expand(depth, -1, -1)
        # Layers are spread over 0..15, so that an encoding means the same place in a U-Net of any depth.
        places = torch.linspace(0, 15, depth, device=t.device)
        space = sinusoids(places, 100.0)[:, None].expand(-1, len(t), -1)
        return self.project(torch.cat((time, space), dim=-1))


class SubjectFusion(nn.Module):
    """s_{t,l} = MLP(LN(concat(f, t)) + LN(PE(t, l))) (eq. 9), shared by all layers.

    Ours: the text token is added to the MLP's output, whose last layer starts at zero, so that an untrained adapter
    speaks the plain word.
    """

    def __init__(
        self,
        image_width: int,
        text_width: int,
        *,
        operations: ModuleType | type = nn,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ):
        super().__init__()
        place = {"device": device, "dtype": dtype}
        width = image_width + text_width
        self.encode = SpaceTimeEncoding(width, operations=operations, **place)
        self.norm_prompt = operations.LayerNorm(width, **place)
        self.norm_place = operations.LayerNorm(width, **place)
        self.widen = operations.Linear(width, 2 * text_width, **place)
        self.narrow = operations.Linear(2 * text_width, text_width, **place)

    def zero(self) -> None:
        """Make the fused token equal the text token."""
        nn.init.zeros_(self.narrow.weight)
        nn.init.zeros_(self.narrow.bias)

    def forward(self, features: Tensor, tokens: Tensor, t: Tensor, depth: int) -> Tensor:
        """(B,S,F) image features, (B,S,T) text tokens, (B,) timesteps, L -> (L,B,S,T) subject tokens."""
        prompt = self.norm_prompt(torch.cat((features, tokens), dim=-1))
        place = self.norm_place(self.encode(t, depth).to(prompt.dtype))
        hidden = nn.functional.gelu(self.widen(prompt + place[:, :, None]))
        return tokens + self.narrow(hidden)


def gather_tokens(context: Tensor, slots: Tensor, subjects: int) -> Tensor:
    """The text token each subject is bound to: (B,M,T) context, (B,M) slots -> (B,S,T).

    A slot that no token carries yields the first token; `place_tokens` never places it.
    """
    wanted = torch.arange(1, subjects + 1, device=slots.device)
    first = (slots[:, None] == wanted[:, None]).int().argmax(dim=-1)  # (B,S)
    return context.gather(1, first[..., None].expand(-1, -1, context.shape[-1]))


class Places(NamedTuple):
    """Which tokens of a prompt are subjects'."""

    subject: Tensor
    """(B,M) int64, whose, counted from 0; 0 for an ordinary token, too."""
    taken: Tensor
    """(B,M) bool"""


def places(slots: Tensor) -> Places:
    """(B,M) int64, 0 for an ordinary token, s for subject s."""
    return Places((slots - 1).clamp(min=0), slots > 0)


def place_tokens(context: Tensor, where: Places, tokens: Tensor) -> Tensor:
    """Put subject tokens in the place of their words, every copy of them.

    Args: context (B,M,T) text embedding, tokens (B,S,T); or what a linear layer without bias has made of both.
    Returns: (B,M,T), the prompt of the personalised branch.
    """
    index = where.subject[..., None].expand(-1, -1, context.shape[-1])
    return torch.where(where.taken[..., None], tokens.to(context.dtype).gather(1, index), context)
