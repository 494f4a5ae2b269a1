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


@dataclass(frozen=True)
class FurtherTokens:
    """The places after the prompt, where subjects have several tokens (ours)."""

    image_tokens: int
    """K, the tokens of a subject."""
    words: int
    """M, the places of the prompt."""
    numbers: Tensor
    """(R,M') int64, which of all tokens each place has."""
    blank: bool = False
    """Whether a place of some row has no token."""


@dataclass
class StepCache:
    """Intermediate results that the layers of a call share, filled on first use."""

    shares: dict[tuple[int, int], Tensor] = field(default_factory=dict)
    """The step's shares at the pixels of a grid, (R,S,N)."""
    gates: dict[tuple[int, int], Gate] = field(default_factory=dict)
    """Of these shares."""
    owners: list[TokenOwners] = field(default_factory=list)
    """Of all subjects together, or of each alone."""
    masks: dict[torch.dtype, Tensor] = field(default_factory=dict)
    """Of `Step.mask`, in a precision."""


@dataclass(frozen=True)
class Step:
    """Prepared once per call by `Adapter.begin`, read by every layer."""

    rows: Rows
    """The rows with a subject, R of them."""
    slots: Tensor
    """(R,M) int64, 0 for an ordinary token, s for subject s; (R,M') with places for further tokens after the prompt."""
    tokens: Tensor
    """(L,R,S·K,T) subject tokens (eq. 9), a subject's together."""
    prior_bias: Tensor
    """() float32, added to the prior's logit."""
    further: FurtherTokens | None = None
    """Where subjects have several tokens."""
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
        if layer.spec.name in self.cached:
            found = self.complete(self.cached[layer.spec.name], layer, base)
        else:
            found = layer.keys_values(self.context_for(layer.spec, hidden, context), base)
        return found._replace(mask=self.mask(found.key)) if self.needs_mask and layer.spec.is_cross else found

    def complete(self, cached: KeysValues, layer: RoutedLayer, base: Projections) -> KeysValues:
        """Cached projections of the constant words, completed by those of the subjects' tokens."""
        own = layer.keys_values(self.tokens[layer.spec.depth], base)
        return KeysValues(self.place(cached.key, own.key), self.place(cached.value, own.value))

    @property
    def needs_mask(self) -> bool:
        """Whether a place after the prompt has no token, in some row or for a subject alone."""
        return self.further is not None and (self.further.blank or self.apart)

    def mask(self, key: Tensor) -> Tensor:
        """The mask of keys (R,M',D) or (R,S,M',D): places without a token of the prompt's subject do not count."""
        assert self.further is not None
        if key.dtype not in self.cache.masks:
            owned = torch.stack([owners.owned for owners in self.cache.owners], dim=1)
            further = torch.arange(owned.shape[-1], device=key.device) >= self.further.words
            mask = torch.zeros(owned.shape, dtype=key.dtype, device=key.device)
            mask = mask.masked_fill(further & ~owned, torch.finfo(key.dtype).min)
            self.cache.masks[key.dtype] = mask if key.ndim == 3 else mask[:, :, None]
        return self.cache.masks[key.dtype]

    def context_for(self, spec: LayerSpec, hidden: Tensor, context: Tensor) -> Any:
        """C_1 of eq. 8 for a layer: z for self-attention, the multimodal prompt for cross-attention.

        Args: hidden (R,N,D) and context (B,M,T).
        Returns: (R,N,D) or (R,M,T); (R,S,M,T) where subjects are kept apart, a prompt with each alone.
        """
        return self.place(self.with_places(context), self.tokens[spec.depth]) if spec.is_cross else hidden

    def with_places(self, context: Tensor) -> Tensor:
        """The prompt, and after it its last token at the places of further ones: (B,M,T) -> (R,M',T)."""
        words = self.select(context)
        further = self.slots.shape[1] - words.shape[1]
        return torch.cat((words, words[:, -1:].expand(-1, further, -1)), dim=1) if further else words

    def place(self, words: Tensor, subjects: Tensor) -> Tensor:
        """Tokens (R,S·K,C) put at their places (R,M,C): -> (R,M,C), or (R,S,M,C) where the subjects are apart."""
        owners = self.cache.owners
        if not owners:
            every, each = token_owners(self.slots), 1
            if self.further is not None:
                every, each = every._replace(token=self.further.numbers), self.further.image_tokens
            count = subjects.shape[1] // each
            owners.extend([every._replace(owned=self.slots == s + 1) for s in range(count)] if self.apart else [every])
        prompts = [place_tokens(words, of_each, subjects) for of_each in owners]
        return prompts[0] if len(prompts) == 1 else torch.stack(prompts, dim=1)

    def constant_context(self, context: Tensor) -> Any:
        """The part of a cross-attention layer's context that stays the same in a run: (B,M,T) -> (R,M,T)."""
        return self.with_places(context)
