"""Projections that stay the same between the steps of a run: the prompt's constant words, computed once for all layers (ours)."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping

from torch import Tensor

from ..method.layer import KeysValues
from .listener import RunListener

CachedPrompt = Mapping[str, KeysValues]
"""Keys and values of the constant words in cross-attention layers, by layer name."""
PROMPTS, ENTRIES = 64, 8
"""How many prompts are distinguished, and for how many combinations of rows projections are held: schedules with a new prompt
in every step must not fill the memory."""


class PromptCache(RunListener):
    """Of one run."""

    def __init__(self) -> None:
        self.prompts: list[tuple[Tensor, Tensor]] = []
        self.entries: dict[Hashable, CachedPrompt] = {}

    def end_run(self) -> None:
        self.prompts, self.entries = [], {}

    def number(self, context: Tensor, features: Tensor) -> int:
        """A number from 1, the same for the same tensors; 0 for prompts that are not cached.

        Args: context and features of a prompt. A host that splits a batch may slice several rows of either, so that the same
            tensors do not mean the same rows: such prompts get 0.
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

    def get_or_compute(self, key: Hashable, compute: Callable[[], CachedPrompt]) -> CachedPrompt:
        """The projections under `key`, which names rows; the oldest entry makes room."""
        if key not in self.entries:
            if len(self.entries) == ENTRIES:
                del self.entries[next(iter(self.entries))]
            self.entries[key] = compute()
        return self.entries[key]
