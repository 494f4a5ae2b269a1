"""What follows a sampling run: routers, budgets, traces and caches share one way of being notified."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from ..method.layer import Observe, Routing
from ..method.spec import LayerSpec
from .view import View


@dataclass(frozen=True, eq=False)
class CallInfo:
    """One U-Net call that has subjects. R is the number of its rows with a subject."""

    sigma: Tensor
    """() noise level."""
    views: Sequence[View | None]
    """What each row shows, if it is known."""
    prompts: Sequence[Hashable] = ()
    """Each row's prompt, by names that are the same in every call."""
    slots: Tensor = field(default_factory=lambda: torch.zeros(0, 0, dtype=torch.long))
    """(R,M) int64, 0 for an ordinary token, s for subject s."""
    subjects: Sequence[Sequence[int]] = ()
    """Each row's subjects in the order of its prompt, from 0."""
    count: int = 0
    """S, the number of subject slots."""
    evaluation: int = 0
    """Number of the sampler's evaluation of the model, from 1, which may consist of several calls; 0 where it is not known."""
    names: Sequence[Sequence[str]] = ()
    """Each row's subjects by slot, as users know them; empty where they are not known."""
    follows: Sequence[Sequence[tuple[Hashable, int]]] = ()
    """Of each row whose subjects are where those of other prompts are: by slot the prompt, and the slot there; empty for all others."""

    @property
    def rows(self) -> list[Hashable]:
        """R names: the same part of a picture with the same prompt has the same name in every call. A row that shows nothing known has
        a name of its own, so that nothing is remembered of another."""
        named = zip(self.prompts, self.views, strict=True)
        return [(prompt, view) if view is not None else (self, i) for i, (prompt, view) in enumerate(named)]

    @property
    def whole(self) -> bool:
        """Whether every row is known to show a whole picture."""
        return all(view is not None and view.whole for view in self.views)

    @property
    def own_rows(self) -> list[int]:
        """The rows that do not follow others."""
        return [i for i in range(len(self.views)) if not self.followed(i)]

    def followed(self, row: int) -> Sequence[tuple[Hashable, int]]:
        """What a row follows, as in `follows`."""
        return self.follows[row] if self.follows else ()

    @property
    def known(self) -> bool:
        """Whether it is known what all rows show."""
        return None not in self.views


class RunListener:
    """Notified of a run and its calls; every method may be left out."""

    def begin_run(self) -> None:
        """A new sampling run: discard what was kept of the one before."""

    def begin_call(self, call: CallInfo) -> Observe | None:
        """Before a U-Net call: the observer of its layers, if one is wanted."""

    def end_call(self, call: CallInfo) -> None:
        """After the U-Net call."""

    def end_run(self) -> None:
        """After the run, cancelled or not."""


def observe_all(observers: Sequence[Observe], spec: LayerSpec, routing: Routing) -> None:
    """Pass a layer's routing on to several observers."""
    for observe in observers:
        observe(spec, routing)
