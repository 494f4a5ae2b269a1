"""A training-free router (ours) that reads the place of a subject's word off the prior's own attention."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from torch import Tensor

from ..method.attention import resize, subject_attention
from ..method.layer import Observe, Routing
from ..method.spec import LayerSpec
from ..run.listener import CallInfo
from .base import TrainingFreeRouter, present
from .places import assign_places

NEWEST = 0.15
"""Weight of the newest call in the running mean: maps of single steps are noisy."""
THRESHOLD, SOFTNESS, HYSTERESIS = 0.57, 0.04, 0.03
"""Of the normalised map: where a subject begins, over how much it fades in, and by how much a pixel keeps its last value."""


@dataclass(frozen=True)
class RowMaps:
    """What is kept of a row between calls."""

    mean: Tensor
    """(S,h,w) running mean of the normalised maps."""
    shares: Tensor
    """(S,h,w) as last determined."""
    before: Tensor
    """(S,h,w) in the evaluation in which they were determined."""
    evaluation: int
    """That evaluation."""

    def shares_in(self, evaluation: int) -> Tensor:
        """The shares in an evaluation: all of its calls have the same."""
        return self.before if evaluation and evaluation == self.evaluation else self.shares


@dataclass
class WordRouter(TrainingFreeRouter):
    """A subject's share is where the prior attends to its word.

    Attention to the word is averaged over heads, layers and evaluations, smoothed and normalised. A threshold with hysteresis
    determines where any subject is, `places` which one. Before the first map all shares are 0.

    A row may show what no earlier call showed though the run is under way: tiles that move, or rows of which nothing is known. The
    router then takes a look: a call with the prior alone, whose maps are that row's first.
    """

    apart = True
    rows: dict[Hashable, RowMaps] = field(default_factory=dict)
    begun: dict[Hashable, int] = field(default_factory=dict)
    """The first evaluation of a picture with a prompt."""
    open_calls: dict[CallInfo, CallMaps] = field(default_factory=dict)

    def begin_run(self) -> None:
        self.rows, self.begun, self.open_calls = {}, {}, {}

    def end_run(self) -> None:
        self.begin_run()

    def shares(self, call: CallInfo) -> Tensor:
        shares = [self.shares_of(call, i, row) for i, row in enumerate(call.rows)]
        known = [each for each in shares if each is not None]
        blank = torch.zeros_like(known[0]) if known else call.slots.new_zeros(call.count, 1, 1, dtype=torch.float32)
        return torch.stack([blank if each is None else each for each in shares])

    def shares_of(self, call: CallInfo, index: int, row: Hashable) -> Tensor | None:
        """The shares (S,h,w) of a row, or of those that it follows; None where they are not known."""
        if not (followed := call.followed(index)):
            return self.rows[row].shares_in(call.evaluation) if row in self.rows else None
        sources = [(self.rows.get((prompt, call.views[index])), slot) for prompt, slot in followed]
        parts = [None if maps is None else maps.shares_in(call.evaluation)[slot] for maps, slot in sources]
        known = next((part for part in parts if part is not None), None)
        if known is None:
            return None
        parts += [None] * (call.count - len(parts))
        return torch.stack([torch.zeros_like(known) if part is None else part for part in parts])

    def unseen(self, call: CallInfo) -> set[int]:
        """The rows that an earlier call should have covered, and did not."""
        pictures = [view and (prompt, view.picture) for prompt, view in zip(call.prompts, call.views, strict=True)]
        started = [
            not picture or self.begun.setdefault(picture, call.evaluation) < call.evaluation for picture in pictures
        ]
        return {i for i in call.own_rows if started[i] and call.rows[i] not in self.rows}

    def begin_prior_call(self, call: CallInfo) -> Observe | None:
        unseen = self.unseen(call)
        if not unseen:
            return None
        self.open_calls[call] = CallMaps(call, first=unseen)
        return self.open_calls[call].observe

    def begin_call(self, call: CallInfo) -> Observe | None:
        if not call.own_rows:
            return None
        self.open_calls[call] = CallMaps(call)
        return self.open_calls[call].observe

    def end_call(self, call: CallInfo) -> None:
        if call not in self.open_calls:
            return
        maps = self.open_calls.pop(call)
        found = maps.mean()
        for i in call.own_rows:
            row, view = call.rows[i], call.views[i]
            if view is None and not maps.first:
                self.rows.pop(row, None)
            elif found is not None and (not maps.first or i in maps.first):
                self.update(row, found[i], call.subjects[i], call.evaluation, first=bool(maps.first))

    def update(self, row: Hashable, maps: Tensor, subjects: Sequence[int], evaluation: int, first: bool) -> None:
        """Add the maps (S,h,w) of one call; `subjects` are those that the row has, in the order of its prompt.

        Args: first: whether the shares are those of the same evaluation already.
        """
        before = self.rows.get(row)
        if before is not None and evaluation and before.evaluation == evaluation:
            return  # another call of the same evaluation showed it, too
        fits = before is not None and before.mean.shape == maps.shape
        mean = before.mean.lerp(maps, NEWEST) if before and fits else maps
        shares, last = torch.zeros_like(maps), before.shares if before and fits else torch.zeros_like(maps)
        if subjects:
            shares[subjects] = self.share(mean[subjects], last[subjects])
        self.rows[row] = RowMaps(mean, shares, shares if first else last, evaluation)

    def share(self, mean: Tensor, before: Tensor) -> Tensor:
        """Shares of the subjects of a picture, as `subject_shares`."""
        return subject_shares(mean, before)


@dataclass
class PlaceRouter(WordRouter):
    """Each subject's share is bounded by its own part of the picture: for routers that do not distinguish subjects.

    Attributes:
        at_once: whether the parts must be known in the first call, too, for which the router then takes a look.
    """

    decides = False
    at_once: bool = False

    def shares(self, call: CallInfo) -> Tensor:
        if call.count > 1:
            return super().shares(call)
        return present(call.slots, 1).float()[..., None, None]

    def unseen(self, call: CallInfo) -> set[int]:
        new = super().unseen(call)
        return {i for i, row in enumerate(call.rows) if row not in self.rows} if self.at_once else new

    def begin_prior_call(self, call: CallInfo) -> Observe | None:
        return super().begin_prior_call(call) if call.count > 1 else None

    def begin_call(self, call: CallInfo) -> Observe | None:
        return super().begin_call(call) if call.count > 1 else None

    def share(self, mean: Tensor, before: Tensor) -> Tensor:
        clear = normalise(smooth(mean))
        return assign_places(clear, clear.amax(dim=0)) if len(mean) > 1 else torch.ones_like(mean)


@dataclass
class CallMaps:
    """Collects one call's attention maps."""

    call: CallInfo
    first: set[int] = field(default_factory=set)
    """The rows for which a look is taken; none: it is no look."""
    maps: list[Tensor] = field(default_factory=list)
    smallest: int = 1 << 62
    """Pixels of the deepest layer."""

    def observe(self, spec: LayerSpec, routing: Routing) -> None:
        if not spec.is_cross:
            return
        self.smallest = min(self.smallest, routing.grid[0] * routing.grid[1])
        # The output stage locates things; the input stage and the outermost layers hardly do (measured).
        if spec.supervised and spec.stage == "output" and routing.prior is not None:
            query, key = routing.prior()
            slots = self.call.slots[:, : key.shape[1]]  # the prior's prompt has no places for further tokens
            words = subject_attention(query, key, slots, self.call.count, spec.heads)
            self.maps.append(words.mean(dim=2).unflatten(-1, routing.grid))

    def mean(self) -> Tensor | None:
        """(R,S,h,w), the mean of the normalised maps, without those of the deepest layers if there are others."""
        maps = [m for m in self.maps if m[0, 0].numel() > self.smallest] or self.maps
        if not maps:
            return None
        grid = max((m.shape[-2:] for m in maps), key=lambda shape: shape[0] * shape[1])
        return torch.stack([normalise(resize(m, (grid[0], grid[1]))) for m in maps]).mean(dim=0)


def normalise(maps: Tensor) -> Tensor:
    """Each map from 0 to 1: (...,h,w)."""
    low, high = maps.amin(dim=(-2, -1), keepdim=True), maps.amax(dim=(-2, -1), keepdim=True)
    return (maps - low) / (high - low).clamp(min=1e-6)


def smooth(maps: Tensor) -> Tensor:
    """A mean over 3 × 3 pixels: (S,h,w)."""
    return F.avg_pool2d(F.pad(maps[None], (1, 1, 1, 1), mode="replicate"), 3, stride=1)[0]


def subject_shares(mean: Tensor, before: Tensor) -> Tensor:
    """Shares of a picture's subjects from their mean maps, in the order of their words, and their shares before.

    (S,h,w) each -> (S,h,w). The foreground is where the prior attends to any subject's word; `places` divides it.
    """
    clear = normalise(smooth(mean))
    any_subject, last = clear.amax(dim=0), before.amax(dim=0)
    foreground = torch.sigmoid((any_subject - THRESHOLD + HYSTERESIS * (2 * last - 1)) / SOFTNESS)
    return foreground * (assign_places(clear, foreground) if len(mean) > 1 else 1)
