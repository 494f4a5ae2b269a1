"""How strongly each image prompt acts in each layer, and on what its strength acts: on the output, or on keys and values.

IPAdapter_plus calls the second choice embeds scaling. With w the strength in a layer of width D, and w' = w D / 1280:

    V only                     w Attention(Q, K, V)
    K+V                        Attention(Q, w K, w V)
    K+V w/ C penalty           Attention(Q, w' K, w' V)
    K+mean(V) w/ C penalty     Attention(Q, w' K, V − mean(V) + w' mean(V))
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from ..method.layer import KeysValues
from ..method.spec import LayerSpec
from .strength import LayerStrength
from .weight_types import LINEAR, WEIGHT_TYPES, type_factors

V_ONLY = "V only"


class Scaling(NamedTuple):
    """On what a strength acts."""

    keys: bool = False
    """Keys and values; else the output."""
    mean: bool = False
    """Of the values only their mean."""
    penalty: bool = False
    """With w' instead of w."""


SCALINGS = {
    V_ONLY: Scaling(),
    "K+V": Scaling(keys=True),
    "K+V w/ C penalty": Scaling(keys=True, penalty=True),
    "K+mean(V) w/ C penalty": Scaling(keys=True, mean=True, penalty=True),
}
WIDEST = 1280
"""D at which w' is w."""


@dataclass(frozen=True, eq=False)
class Style:
    """What one image prompt has beside its strength, window and region."""

    weight_type: str = LINEAR
    scaling: str = V_ONLY
    layer_strength: LayerStrength | None = None
    weights: tuple[float, ...] = ()
    """Factors of the strength by frame; the last holds for all further frames."""
    frames: Tensor | None = None
    """(P,F) features by frame; the last holds for all further frames."""
    swapped: bool = False
    """Whether it is the picture in a negative prompt, which acts in the swapped blocks of its weight type."""

    @property
    def has_swapped_blocks(self) -> bool:
        """Whether negative prompts get the picture in some blocks."""
        chosen = WEIGHT_TYPES[self.weight_type]
        return bool(chosen.swapped_sd15 or chosen.swapped_sdxl)

    def factors(self, layers: Sequence[LayerSpec], frame: int) -> list[float]:
        """Of the strength in every cross-attention layer, for a frame.

        Raises: ValueError as `type_factors`, and when `layer_strength` names a layer that the adapter does not have.
        """
        by_layer = type_factors(self.weight_type, layers, self.swapped)
        further = self.layer_strength.by_layer(layers) if self.layer_strength else {}
        weight = self.weights[min(frame, len(self.weights) - 1)] if self.weights else 1.0
        return [weight * factor * further.get(name, 1.0) for name, factor in by_layer.items()]


PLAIN_STYLE = Style()


class Table(NamedTuple):
    """What a call's rows have, before their strengths are known; on the call's device."""

    layers: Mapping[str, int]
    """Index of every cross-attention layer."""
    factors: Tensor
    """(L,R,S)"""
    penalties: Tensor
    """(L,R,S), D / 1280 or 1."""
    keys: Tensor
    """(R,S) bool, as in `Scaling`."""
    mean: Tensor
    plain: bool
    """Whether all have the scaling "V only" and factors of at least 0."""


def tabulate_styles(
    styles: Sequence[Sequence[Style]], frames: Sequence[int], layers: Sequence[LayerSpec], device: torch.device
) -> Table:
    """Of the rows' subjects (R lists of S), with the frame of each row."""
    cross = [spec for spec in sorted(layers, key=lambda spec: spec.depth) if spec.is_cross]
    scalings = [[SCALINGS[style.scaling] for style in row] for row in styles]
    factors = torch.tensor(
        [[style.factors(layers, frame) for style in row] for row, frame in zip(styles, frames, strict=True)]
    ).permute(2, 0, 1)
    widths = torch.tensor([spec.hidden / WIDEST for spec in cross])[:, None, None]
    penalised = torch.tensor([[scaling.penalty for scaling in row] for row in scalings])
    keys, mean = (
        torch.tensor([[part(s) for s in row] for row in scalings]) for part in (lambda s: s.keys, lambda s: s.mean)
    )
    plain = not bool(keys.any()) and bool((factors >= 0).all())
    places = {spec.name: i for i, spec in enumerate(cross)}
    penalties = torch.where(penalised, widths, 1.0)
    on_device = [x.contiguous().to(device, non_blocking=True) for x in (factors, penalties, keys, mean)]
    return Table(places, on_device[0], on_device[1], on_device[2], on_device[3], plain)


class Emphasis(NamedTuple):
    """Of one call; all (L,R,S)."""

    layers: Mapping[str, int]
    share: Tensor
    """Factor of each subject's share."""
    key: Tensor | None
    """Factors of the keys, of the values, and of their mean, which is added; None: 1, 1 and 0."""
    value: Tensor | None
    mean: Tensor | None

    def of_shares(self, name: str, shares: Tensor) -> Tensor:
        """A layer's shares (R,S,N) with their factors. Self-attention layers have the largest of all layers."""
        factor = self.share[self.layers[name]] if name in self.layers else self.share.amax(dim=0)
        return shares * factor[..., None]

    def scale(self, name: str, found: KeysValues) -> KeysValues:
        """A layer's keys and values (R,S,M,D) with their factors."""
        if self.key is None or self.value is None or self.mean is None:
            return found
        parts = (self.key, self.value, self.mean)
        key, value, mean = (part[self.layers[name], ..., None, None].to(found.key.dtype) for part in parts)
        by_head = found.value.unflatten(2, (found.folded or 1, -1))
        means = by_head.mean(dim=3, keepdim=True).expand_as(by_head).flatten(2, 3)
        return found._replace(key=key * found.key, value=value * found.value + mean * means)


def emphasise(table: Table, strengths: Tensor, negative: bool) -> Emphasis:
    """The factors at the strengths (R,S) of a call.

    Args: negative: whether any strength is below 0.
    """
    weights = strengths * table.factors
    share = torch.where(table.keys, (weights != 0).to(weights.dtype), weights.abs())
    if table.plain and not negative:
        return Emphasis(table.layers, share, None, None, None)
    scaled = weights * table.penalties
    ones = torch.ones_like(weights)
    key = torch.where(table.keys, scaled, ones)
    value = torch.where(table.mean, ones, torch.where(table.keys, scaled, weights.sign()))
    return Emphasis(table.layers, share, key, value, torch.where(table.mean, scaled - 1, 0 * ones))
