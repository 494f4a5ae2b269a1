"""The state of one U-Net call: its rows with subjects, and the subjects' tokens for every layer."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from ..method.attention import resize
from ..method.expert import Projections
from ..method.layer import Gate, KeysValues, Limits, RoutedLayer
from ..method.prompt import TokenOwners, place_tokens, token_owners
from ..method.router import max_share
from ..method.spec import LayerSpec
from .budget import ALL, Budget
from .emphasis import Emphasis

Rows = Tensor | slice | None
"""Indices (R,) int64 of rows; a slice for neighbouring rows, which needs no copy; None for all."""


def rows_of(chosen: Tensor, count: int) -> Rows:
    """(R,) ascending int64 on the CPU, of `count` rows."""
    first, last = int(chosen[0]), int(chosen[-1]) + 1
    if last - first != len(chosen):
        return chosen
    return None if len(chosen) == count else slice(first, last)


@dataclass
class StepCache:
    """Intermediate results that the layers of a call share, filled on first use."""

    shares: dict[tuple[int, int], Tensor] = field(default_factory=dict)
    """The step's shares at the pixels of a grid, (R,S,N)."""
    gates: dict[tuple[int, int], Gate] = field(default_factory=dict)
    """Of these shares."""
    owners: list[TokenOwners] = field(default_factory=list)
    """Of all subjects together, or of each alone."""


@dataclass(frozen=True)
class Step:
    """Prepared once per call by `Adapter.begin`, read by every layer."""

    rows: Rows
    """The rows with a subject, R of them."""
    slots: Tensor
    """(R,M) int64, 0 for an ordinary token, s for subject s."""
    tokens: Tensor
    """(L,R,S,T) subject tokens (eq. 9)."""
    prior_bias: Tensor
    """() float32, added to the prior's logit."""
    shares: Tensor | None = None
    """(R,S,h,w) shares of a training-free router, strength included; with `learned` the bounds of each subject's share."""
    learned: bool = True
    """Whether the adapter's own routers decide, within the shares; else the shares are R_s."""
    apart: bool = False
    """Whether each subject has a prompt of its own, so that none influences pixels at which another has the share."""
    layer_strength: Mapping[str, float] = field(default_factory=dict)
    """Factors of the strength by layer name, where they are not 1 (ours)."""
    emphasis: Emphasis | None = None
    """How strongly each subject acts in each layer, where it is not alike (ours); strengths are then in none of the shares."""
    region_at: Callable[[tuple[int, int]], Tensor] | None = None
    """Where each subject may have a share on the grid of a layer, (R,S,h,w), if not in `shares`."""
    budget: Budget = ALL
    """The number of pixels of each layer for which the personalised branch is computed."""
    cached: Mapping[str, KeysValues] = field(default_factory=dict)
    """Keys and values of the prompt's constant words in cross-attention layers, by layer name."""
    cache: StepCache = field(default_factory=StepCache, init=False, compare=False)

    def limits(self, spec: LayerSpec, grid: tuple[int, int]) -> Limits:
        """What bounds or replaces a layer's router, at that layer's strength."""
        if self.shares is not None and grid not in self.cache.shares:
            shares = resize(self.shares, grid)
            self.cache.shares[grid] = (shares * self.region_at(grid) if self.region_at else shares).flatten(2)
        shares, strength = self.cache.shares.get(grid), self.layer_strength.get(spec.name, 1.0)
        if self.emphasis is not None and shares is not None:
            shares = self.emphasis.of_shares(spec.name, shares)
        if self.learned:
            bias = self.prior_bias if strength == 1 else self.prior_bias - math.log(strength)
            return Limits(prior_bias=bias, bounds=shares)
        if shares is None or strength != 1 or self.emphasis is not None:
            return Limits(shares=shares if shares is None or strength == 1 else shares * strength)
        if grid not in self.cache.gates:
            self.cache.gates[grid] = Gate(max_share(shares), shares)
        return Limits(shares=shares, gate=self.cache.gates[grid])

    def select(self, x: Tensor) -> Tensor:
        """The rows with a subject: (B,...) -> (R,...)."""
        return x if self.rows is None else x[self.rows]

    def restore(self, x: Tensor, chosen: Tensor) -> Tensor:
        """`x` (B,...) with its subject rows replaced by `chosen` (R,...); the other rows keep their bits."""
        if self.rows is None:
            return chosen
        if isinstance(self.rows, slice):
            return torch.cat((x[: self.rows.start], chosen, x[self.rows.stop :]))
        return x.index_copy(0, self.rows, chosen)

    def keys_values(self, layer: RoutedLayer, hidden: Tensor, context: Tensor, base: Projections) -> KeysValues:
        """The personalised branch's keys and values in a layer.

        With cached projections of the prompt's constant words only the subjects' tokens are projected.

        Args: hidden (R,N,D) and context (B,M,T).
        """
        if layer.spec.name not in self.cached:
            return layer.keys_values(self.context_for(layer.spec, hidden, context), base)
        return self.complete(self.cached[layer.spec.name], layer, base)

    def complete(self, cached: KeysValues, layer: RoutedLayer, base: Projections) -> KeysValues:
        """Cached projections of the constant words, completed by those of the subjects' tokens."""
        own = layer.keys_values(self.tokens[layer.spec.depth], base)
        return KeysValues(self.place(cached.key, own.key), self.place(cached.value, own.value))

    def context_for(self, spec: LayerSpec, hidden: Tensor, context: Tensor) -> Any:
        """C_1 of eq. 8 for a layer: z for self-attention, the multimodal prompt for cross-attention.

        Args: hidden (R,N,D) and context (B,M,T).
        Returns: (R,N,D) or (R,M,T); (R,S,M,T) where subjects are kept apart, a prompt with each alone.
        """
        return self.place(self.select(context), self.tokens[spec.depth]) if spec.is_cross else hidden

    def place(self, words: Tensor, subjects: Tensor) -> Tensor:
        """Subjects (R,S,C) put in the place of their words (R,M,C): -> (R,M,C), or (R,S,M,C) where they are apart."""
        owners = self.cache.owners
        if not owners:
            count = subjects.shape[1] if self.apart else 1
            each = [self.slots * (self.slots == s + 1) for s in range(count)] if count > 1 else [self.slots]
            owners.extend(map(token_owners, each))
        prompts = [place_tokens(words, of_each, subjects) for of_each in owners]
        return prompts[0] if len(prompts) == 1 else torch.stack(prompts, dim=1)

    def constant_context(self, context: Tensor) -> Any:
        """The part of a cross-attention layer's context that stays the same in a run: (B,M,T) -> (R,M,T)."""
        return self.select(context)
