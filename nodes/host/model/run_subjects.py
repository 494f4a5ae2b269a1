"""The subjects of a sampling run: their names, and for users whether they took part, or why not."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor

from ....moa_attention.run.listener import CallInfo, RunListener
from ...sockets import Subject
from ..prompts.payload_names import FIRST, PayloadNames
from ..prompts.styles import NumberedStyles, frames_shown
from ..prompts.subject_regions import frames_of_region


class RunSubjects(RunListener):
    """Of one run, by the numbers of its prompts, see `views.RUN`."""

    def __init__(self) -> None:
        self.by_prompt: list[list[Subject]] = []
        self.names: dict[int, str] = {}
        """By identity of the subject."""
        self.follows: Mapping[int, Sequence[tuple[int, int]]] = {}
        """As of `negative_image.with_negative_images`."""
        self.masks: dict[tuple, Tensor] = {}
        """Regions on the grids of layers, by subject."""

        self.styles = NumberedStyles()

    def begin(
        self,
        conds: Mapping[str, list[dict]],
        follows: Mapping[int, Sequence[tuple[int, int]]],
        styles: NumberedStyles,
        names: PayloadNames = FIRST,
    ) -> None:
        """Read the subjects of an adapter in a run's conds, in the order in which these are numbered."""
        self.styles = styles
        self.follows, self.masks = follows, {}
        self.by_prompt = [cond.get(names.sources, []) for of_name in conds.values() for cond in of_name]
        self.names = names_of(self.every())

    def every(self) -> list[Subject]:
        """Each subject of the run once."""
        return list({id(s): s for of_prompt in self.by_prompt for s in of_prompt}.values())

    def by_slot(self, number: int) -> list[Subject]:
        """A prompt's subjects by slot, or those that it follows; none where the prompt is not known."""
        if number in self.follows:
            return [self.by_prompt[prompt][slot] for prompt, slot in self.follows[number]]
        return self.by_prompt[number] if number < len(self.by_prompt) else []

    def regions_of(self, call: CallInfo) -> Callable[[tuple[int, int]], Tensor]:
        """Of a call's rows on a grid, (R,S,h,w), as `region_at`."""
        rows = [self.by_slot(cast("int", prompt)) for prompt in call.prompts]
        each = [[*row[: call.count], *[None] * (call.count - len(row))] for row in rows]
        frames, device = frames_shown(call.views), call.slots.device

        def on(grid: tuple[int, int]) -> Tensor:
            shown = zip(each, frames, strict=True)
            return torch.stack(
                [torch.stack([self.region_at(s, frame, grid, device) for s in row]) for row, frame in shown]
            )

        return on

    def region_at(self, subject: Subject | None, frame: int, grid: tuple[int, int], device: torch.device) -> Tensor:
        """Where a subject may have a share in a frame on a grid, (h,w), read off its mask at the grid's points as IPAdapter_plus does."""
        region = None if subject is None else subject.settings.region
        frame = min(frame, frames_of_region(region) - 1)
        key = (id(region), frame, grid, device)
        if key not in self.masks:
            mask = torch.ones(1, 1) if region is None else region.float()
            mask = mask[frame] if mask.ndim == 3 else mask
            points = F.interpolate(mask[None, None], size=grid, mode="bilinear")[0, 0]
            self.masks[key] = points.to(device, non_blocking=True)
        return self.masks[key]

    def of_prompt(self, number: int) -> list[str]:
        """Names of a prompt's subjects by slot; none where the prompt is not known."""
        return [self.names[id(s)] for s in self.by_prompt[number]] if number < len(self.by_prompt) else []


def names_of(subjects: Sequence[Subject]) -> dict[int, str]:
    """Names by identity: the subject's word, with a number where several have the same word."""
    words, seen = Counter(s.word for s in subjects), Counter()
    names = {}
    for subject in subjects:
        seen[subject.word] += 1
        several = words[subject.word] > 1
        names[id(subject)] = f"{subject.word} ({seen[subject.word]})" if several else subject.word
    return names
