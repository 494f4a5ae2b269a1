"""Training-free routers (ours): what each of them provides, the two constant ones, and the registry of all."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from typing import ClassVar

import torch
from torch import Tensor

from ..method.attention import resize
from ..method.layer import Observe
from ..run.listener import CallInfo, RunListener


class TrainingFreeRouter(RunListener):
    """Determines the share R_s of every subject, call by call of a sampling run."""

    apart: ClassVar[bool]
    """Whether subjects get regions of their own."""
    decides: ClassVar[bool] = True
    """Whether its shares are R_s; otherwise they only bound the shares of the adapter's own routers."""
    needs_regions: ClassVar[bool] = False
    """Whether every subject must have a region."""
    reads_points: ClassVar[bool] = False
    """Whether regions are read at the points of each layer's grid, as IPAdapter_plus does, and not averaged."""
    needs_words: ClassVar[bool] = True
    """Whether every subject must have a word in the prompt."""

    def begin_prior_call(self, call: CallInfo) -> Observe | None:
        """The observer of an extra call of the prior alone, for rows that no earlier call covers; None: no extra call."""
        del call
        return None

    @abstractmethod
    def shares(self, call: CallInfo) -> Tensor:
        """Shares for a call: (R,S,h,w) in [0,1], zero for subjects that a row does not have."""


def subjects_of_rows(slots: Tensor) -> list[list[int]]:
    """Each row's subjects in the order of its prompt, from 0: (R,M) int64 on the CPU -> R lists."""
    return [list(dict.fromkeys(s - 1 for s in row if s > 0)) for row in slots.tolist()]


def present(slots: Tensor, subjects: int) -> Tensor:
    """Which subjects a row has: (R,M) int64 -> (R,S) bool."""
    return (slots[:, None] == torch.arange(1, subjects + 1, device=slots.device)[:, None]).any(dim=-1)


def confine(shares: Tensor, allowed: Tensor | None) -> Tensor:
    """Shares (R,S,h,w) times the region of each subject, (R,S,H,W) in [0,1]."""
    if allowed is None:
        return shares
    constant = shares.shape[-1] == 1
    return shares * (allowed if constant else resize(allowed, (shares.shape[-2], shares.shape[-1])))


class ConstantRouter(TrainingFreeRouter):
    """Every subject has the full share everywhere, as image prompts have by themselves."""

    apart, needs_words = False, False

    def shares(self, call: CallInfo) -> Tensor:
        return present(call.slots, call.count).float()[..., None, None]


class PublishedRouter(ConstantRouter):
    """As IPAdapter_plus places image prompts: everywhere, or where a mask is, read at the points of each layer's grid."""

    reads_points = True


class MaskRouter(ConstantRouter):
    """Every subject has the full share in its region, which the caller applies with `confine`."""

    apart = True
    needs_regions = True


ROUTERS: dict[str, Callable[[], TrainingFreeRouter]] = {}
"""Makers of routers by the name that users choose."""


def register_router(name: str, make: Callable[[], TrainingFreeRouter]) -> None:
    """Offer a router under a name in Apply MoA."""
    ROUTERS[name] = make
