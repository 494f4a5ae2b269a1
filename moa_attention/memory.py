"""What does not change between the steps of a run: a prompt's constant words, projected once for all layers (ours)."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping

from torch import Tensor

from .layer import Heard

Kept = Mapping[str, Heard]
"""What cross-attention layers heard of the constant words, by layer name."""
PROMPTS, ROWS = 64, 8
"""How many prompts are told apart, and for how many combinations of rows projections are held: schedules that bring a new
prompt with every step must not fill the memory."""


class PromptMemory:
    """Of one run."""

    def __init__(self) -> None:
        self.begin()

    def begin(self) -> None:
        """A new run: forget the one before."""
        self.prompts: list[tuple[Tensor, Tensor]] = []
        self.kept: dict[Hashable, Kept] = {}

    def number(self, context: Tensor, features: Tensor) -> int:
        """The same number, from 1, for the same tensors; 0 where they are not to be kept.

        Args: context and features of a prompt. Several rows of either may be sliced by whoever splits a batch, so that
            the same tensors do not mean the same rows.
        """
        if len(context) > 1 or len(features) > 1:
            return 0
        for number, (known, subjects) in enumerate(self.prompts, start=1):
            if known is context and subjects is features:
                return number
        if len(self.prompts) == PROMPTS:
            return 0
        self.prompts.append((context, features))
        return len(self.prompts)

    def recall(self, who: Hashable, listen: Callable[[], Kept]) -> Kept:
        """What was heard, or is now, of the rows that `who` names."""
        if who not in self.kept:
            if len(self.kept) == ROWS:
                del self.kept[next(iter(self.kept))]
            self.kept[who] = listen()
        return self.kept[who]
