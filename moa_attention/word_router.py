"""A router without training (ours) that reads off the prior's own attention where a subject's word is."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from torch import Tensor

from .config import LayerSpec
from .losses import resize, subject_attention
from .places import settle
from .untrained import Look, Rows, Watch, present

MEMORY = 0.15
"""How much of the newest call goes into the running mean: maps of single steps are noisy."""
THRESHOLD, SOFTNESS, HYSTERESIS = 0.57, 0.04, 0.03
"""Of the normalised map: where a subject begins, over how much it fades in, and by how much a pixel stays what it was."""


@dataclass(frozen=True)
class Sight:
    """What is remembered of a row."""

    mean: Tensor
    """(S,h,w) running mean of the normalised maps."""
    shares: Tensor
    """(S,h,w) as last decided."""


@dataclass
class WordRouter:
    """A subject speaks where the prior looks for its word.

    Attention to the word is averaged over heads, layers and calls, smoothed and normalised; a threshold with hysteresis says
    where anybody is, `places` who. Until something was seen the prior speaks alone.
    """

    apart = True
    decides = True
    sights: dict[Hashable, Sight] = field(default_factory=dict)

    def begin(self) -> None:
        self.sights = {}

    def open(self, rows: Rows, slots: Tensor, subjects: int) -> tuple[Tensor, Watch | None]:
        watch = WordWatch(self, rows, slots, subjects)
        known = [self.sights[row].shares for row in rows if row in self.sights]
        blank = torch.zeros_like(known[0]) if known else slots.new_zeros(subjects, 1, 1, dtype=torch.float32)
        return torch.stack([self.sights[row].shares if row in self.sights else blank for row in rows]), watch

    def learn(self, row: Hashable, seen: Tensor, there: Sequence[int]) -> None:
        """Take in the maps (S,h,w) of one call; `there` are the subjects that the row has, in the order of its prompt."""
        before = self.sights.get(row)
        fits = before is not None and before.mean.shape == seen.shape
        mean = before.mean.lerp(seen, MEMORY) if before and fits else seen
        shares, had = torch.zeros_like(seen), before.shares if before and fits else torch.zeros_like(seen)
        if there:
            shares[there] = self.share(mean[there], had[there])
        self.sights[row] = Sight(mean, shares)

    def share(self, mean: Tensor, before: Tensor) -> Tensor:
        """Of the subjects of a picture, as `decide`."""
        return decide(mean, before)


@dataclass
class PlaceRouter(WordRouter):
    """Each subject may speak in its own part of the picture: for routers that tell nobody apart."""

    decides = False

    def open(self, rows: Rows, slots: Tensor, subjects: int) -> tuple[Tensor, Watch | None]:
        if subjects > 1:
            return super().open(rows, slots, subjects)
        return present(slots, 1).float()[..., None, None], None

    def share(self, mean: Tensor, before: Tensor) -> Tensor:
        clear = normalise(smooth(mean))
        return settle(clear, clear.amax(dim=0)) if len(mean) > 1 else torch.ones_like(mean)


@dataclass
class WordWatch:
    """Gathers one call's maps for a `WordRouter`."""

    router: WordRouter
    rows: Rows
    slots: Tensor
    subjects: int
    maps: list[Tensor] = field(default_factory=list)
    smallest: int = 1 << 62
    """Pixels of the deepest layer."""

    def see(self, spec: LayerSpec, grid: tuple[int, int], look: Look) -> None:
        self.smallest = min(self.smallest, grid[0] * grid[1])
        # On the way up a U-Net knows where things are; on the way down and in the outermost layers hardly (measured).
        if spec.supervised and spec.name.startswith("output"):
            query, key = look()
            words = subject_attention(query, key, self.slots, self.subjects, spec.heads)
            self.maps.append(words.mean(dim=2).unflatten(-1, grid))

    def close(self) -> None:
        maps = [m for m in self.maps if m[0, 0].numel() > self.smallest] or self.maps
        if not maps:
            return
        grid = max((m.shape[-2:] for m in maps), key=lambda shape: shape[0] * shape[1])
        seen = torch.stack([normalise(resize(m, (grid[0], grid[1]))) for m in maps]).mean(dim=0)
        for (row, there), map_ in zip(self.rows.items(), seen, strict=True):
            self.router.learn(row, map_, there)


def normalise(maps: Tensor) -> Tensor:
    """Each map from 0 to 1: (...,h,w)."""
    low, high = maps.amin(dim=(-2, -1), keepdim=True), maps.amax(dim=(-2, -1), keepdim=True)
    return (maps - low) / (high - low).clamp(min=1e-6)


def smooth(maps: Tensor) -> Tensor:
    """A mean over 3 × 3 pixels: (S,h,w)."""
    return F.avg_pool2d(F.pad(maps[None], (1, 1, 1, 1), mode="replicate"), 3, stride=1)[0]


def decide(mean: Tensor, before: Tensor) -> Tensor:
    """Shares of the subjects of a picture, from their mean maps in the order of their words and from what they had before.

    (S,h,w) each -> (S,h,w). Somebody speaks wherever the prior looks for anybody; who it is, places decide.
    """
    clear = normalise(smooth(mean))
    somebody, spoke = clear.amax(dim=0), before.amax(dim=0)
    foreground = torch.sigmoid((somebody - THRESHOLD + HYSTERESIS * (2 * spoke - 1)) / SOFTNESS)
    return foreground * (settle(clear, foreground) if len(mean) > 1 else 1)
