"""The state of one U-Net call: which rows have subjects, and their tokens for every layer."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from .budget import ALL, Budget
from .config import LayerSpec
from .expert import Projections
from .layer import Heard, RoutedLayer
from .losses import resize
from .subject import Places, place_tokens, places

Rows = Tensor | slice | None
"""Indices (R,) int64 of rows; a slice where they lie side by side, so that nothing is copied; None for all."""


def rows_of(chosen: Tensor, count: int) -> Rows:
    """(R,) ascending int64 on the CPU, of `count` rows."""
    first, last = int(chosen[0]), int(chosen[-1]) + 1
    if last - first != len(chosen):
        return chosen
    return None if len(chosen) == count else slice(first, last)


@dataclass(frozen=True)
class Step:
    """Prepared once per call by `MoAAdapter.begin`, read by every layer, changed by none."""

    rows: Rows
    """Which rows have a subject, R of them."""
    slots: Tensor
    """(R,M) int64, 0 for an ordinary token, s for subject s."""
    tokens: Tensor
    """(L,R,S,T) subject tokens (eq. 9)."""
    prior_bias: Tensor
    """() float32, added to the prior's logit."""
    shares: Tensor | None = None
    """(R,S,h,w) how much each subject may speak at most, strength included; None: anywhere, all it likes."""
    learned: bool = True
    """Whether the adapter's own routers decide, within the shares; else the shares are R_s."""
    apart: bool = False
    """Whether each subject speaks in a prompt of its own, at its own share, so that none has a say in another's place."""
    loudness: Mapping[str, float] = field(default_factory=dict)
    """Factors of the strength by layer name, where they are not 1 (ours)."""
    budget: Budget = ALL
    """For how many pixels of each layer the personalised branch is computed."""
    kept: Mapping[str, Heard] = field(default_factory=dict)
    """What cross-attention layers heard of the prompt's constant words, by layer name."""
    _resized: dict[tuple[int, int], Tensor] = field(default_factory=dict, init=False, compare=False)
    """Shares at the pixels of each grid that asked: many layers share a few grids."""
    _places: list[Places] = field(default_factory=list, init=False, compare=False)
    """Of all subjects together, or of each alone: the same for all layers."""

    def terms_for(self, spec: LayerSpec, grid: tuple[int, int]) -> dict[str, Any]:
        """How loudly subjects may speak in a layer and for how many pixels, by the names under which layers take it."""
        if self.shares is not None and grid not in self._resized:
            self._resized[grid] = resize(self.shares, grid).flatten(2)
        shares, loud = self._resized.get(grid), self.loudness.get(spec.name, 1.0)
        pixels = self.budget.pixels(spec.name, grid)
        if self.learned:
            bias = self.prior_bias if loud == 1 else self.prior_bias - math.log(loud)
            return {"prior_bias": bias, "within": shares, "pixels": pixels}
        return {"shares": shares if shares is None or loud == 1 else shares * loud, "pixels": pixels}

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

    def context_for(self, layer: RoutedLayer, hidden: Tensor, context: Tensor, base: Projections) -> Any:
        """C_1 of eq. 8 for a layer: z for self-attention, the multimodal prompt for cross-attention.

        What was heard of the prompt's constant words before is kept, and only subjects' tokens are projected.

        Args: hidden (R,N,D) and context (B,M,T).
        Returns: (R,N,D) or (R,M,T), (R,S,M,T) where subjects are kept apart, a prompt with each alone; or what the layer
            heard of it.
        """
        if not layer.spec.is_cross:
            return hidden
        tokens, kept = self.tokens[layer.spec.depth], self.kept.get(layer.spec.name)
        if kept is None:
            return self.place(self.select(context), tokens)
        heard = layer.listen(tokens, base)
        return Heard(self.place(kept.key, heard.key), self.place(kept.value, heard.value))

    def place(self, words: Tensor, subjects: Tensor) -> Tensor:
        """Subjects (R,S,C) in the place of their words (R,M,C): -> (R,M,C), or (R,S,M,C) each alone where they are apart."""
        if not self._places:
            count = subjects.shape[1] if self.apart else 1
            each = [self.slots * (self.slots == s + 1) for s in range(count)] if count > 1 else [self.slots]
            self._places.extend(map(places, each))
        prompts = [place_tokens(words, where, subjects) for where in self._places]
        return prompts[0] if len(prompts) == 1 else torch.stack(prompts, dim=1)

    def to_keep(self, context: Tensor) -> Any:
        """What `listen` of a cross-attention layer takes of the prompt that stays the same: (B,M,T) -> (R,M,T)."""
        return self.select(context)
