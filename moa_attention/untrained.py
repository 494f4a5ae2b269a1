"""Routers without training (ours): what they are asked, and those that say the same all the time."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

import torch
from torch import Tensor

from .config import LayerSpec
from .losses import resize

Rows = Mapping[Any, Sequence[int]]
"""Who each row is, the same for the same picture and prompt in every call, and which subjects it has (`reading`)."""
Look = Callable[[], tuple[Tensor, Tensor]]
"""Gives the prior's own queries (R,N,D) and keys (R,M,D) of a layer, of the rows with a subject."""


class Watch(Protocol):
    """What a router sees of one U-Net call."""

    def see(self, spec: LayerSpec, grid: tuple[int, int], look: Look) -> None:
        """Called in every cross-attention layer."""
        ...

    def close(self) -> None:
        """The call is over."""
        ...


class UntrainedRouter(Protocol):
    """Decides the shares R_s of every subject, call by call of a sampling run."""

    @property
    def apart(self) -> bool:
        """Whether subjects get places of their own."""
        ...

    @property
    def decides(self) -> bool:
        """Whether its shares are R_s; else they only bound what the adapter's own routers decide."""
        ...

    def begin(self) -> None:
        """A new run: forget the one before."""
        ...

    def open(self, rows: Rows, slots: Tensor, subjects: int) -> tuple[Tensor, Watch | None]:
        """Shares for a call: (R,S,h,w) in [0,1], zero for subjects that a row does not have.

        Args: slots (R,M) int64.
        """
        ...


def reading(slots: Tensor) -> list[list[int]]:
    """Which subjects each row has, in the order of its prompt, counted from 0: (R,M) int64 on the CPU -> R lists."""
    return [list(dict.fromkeys(s - 1 for s in row if s > 0)) for row in slots.tolist()]


def present(slots: Tensor, subjects: int) -> Tensor:
    """Which subjects a row has: (R,M) int64 -> (R,S) bool."""
    return (slots[:, None] == torch.arange(1, subjects + 1, device=slots.device)[:, None]).any(dim=-1)


def confine(shares: Tensor, allowed: Tensor | None) -> Tensor:
    """Shares (R,S,h,w) cut down to where each subject may speak, (R,S,H,W) in [0,1]."""
    if allowed is None:
        return shares
    constant = shares.shape[-1] == 1
    return shares * (allowed if constant else resize(allowed, (shares.shape[-2], shares.shape[-1])))


class ConstantRouter:
    """Every subject speaks everywhere, as image prompts do by themselves."""

    apart = False
    decides = True

    def begin(self) -> None:
        """There is nothing to forget."""

    def open(self, rows: Rows, slots: Tensor, subjects: int) -> tuple[Tensor, None]:
        return present(slots, subjects).float()[..., None, None], None


class MaskRouter(ConstantRouter):
    """Every subject speaks in its region, which whoever calls cuts out with `confine`."""

    apart = True
