"""A run of the base model alone, which a run with subjects repeats wherever no subject has had a share (ours).

`SubjectGuidance` takes the prior's prediction where subjects have no share, but of latents in which the subjects are already seen:
the prior paints the background that fits them, and its details change. Both runs have the same noise. Where the second one takes
the predictions of the first, its latents are therefore the same, to the last step.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor


class BaseRun:
    """The predictions of both runs, evaluation by evaluation.

    Args: shape: of the latents, (B,C,h,w). Predictions of another shape show windows of them, and are left as they are.
    """

    def __init__(self, shape: Sequence[int]) -> None:
        self.shape = tuple(shape)
        self.recording = True
        self.recorded: list[tuple[Tensor, list[Tensor]]] = []
        """Noise level (B,), and the predictions of every list of conds."""
        self.evaluation = 0
        self.changed: Tensor | bool = False
        """Where a subject has had a share so far, bool (B,1,h,w)."""
        self.apart: Tensor | bool = False
        """Whether an evaluation had no counterpart in the first run, as with a sampler that adapts its steps."""

    def repeat(self) -> None:
        """The first run has ended, and the second begins."""
        self.recording = False

    def evaluated(self, sigma: Tensor, predictions: Sequence[Tensor], sources: Mapping[int, int]) -> list[Tensor]:
        """An evaluation of either run.

        Args:
            sigma: noise level (B,).
            predictions: of all lists of conds, (B,C,h,w); those for the prior, which have no subjects, are the last.
            sources: of each list for the prior, by number, the list with the same prompts.
        Returns: the predictions for the sampler.
        """
        own = list(predictions[: len(predictions) - len(sources)])
        if self.recording:
            self.recorded.append((sigma, own))
            return own
        number, self.evaluation = self.evaluation, self.evaluation + 1
        if number >= len(self.recorded) or own[0].shape != self.shape:
            self.apart = True
            return own
        for prior, with_subjects in sources.items():
            self.changed = self.changed | (predictions[with_subjects] != predictions[prior]).any(dim=1, keepdim=True)
        return self.held(sigma, own, *self.recorded[number])

    def held(self, sigma: Tensor, own: Sequence[Tensor], level: Tensor, first: Sequence[Tensor]) -> list[Tensor]:
        """Predictions of the second run where a subject has had a share, elsewhere those of the first.

        A place where a subject once had a share stays free: it may have left, and the first run shows there what it replaced.
        """
        other = (level != sigma).view(-1, *[1] * (len(self.shape) - 1))
        self.apart = self.apart | other.any()
        free = other | self.changed
        return [torch.where(free, now, before) for now, before in zip(own, first, strict=True)]
