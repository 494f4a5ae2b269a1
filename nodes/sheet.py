"""The validation sheet of a training run: subjects × prompts, prior only beside personalised, with the router's map.

Always the same noise, so that two sheets of a run differ by what was learned between them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import comfy.sample
import torch
from torch import Generator, Tensor

from ..moa_attention.picture import heat_map, label, smooth_to
from ..moa_attention.reference import square
from ..moa_attention.trace import Trace, average_map
from ..moa_attention.training.data.words import find_words
from .patch import apply_adapter
from .sockets import Subject
from .text import encode_prompt

CELL = 192
"""Pixels of a picture's side on the sheet."""
SEED = 42


@dataclass(frozen=True)
class Studio:
    """Whatever paints a sheet."""

    model: Any
    clip: Any
    vae: Any
    prompts: tuple[str, ...]
    """Each with a word that can be a subject."""
    references: tuple[Tensor, ...]
    """(3,H,W) in [0,1], one for each subject."""
    words: tuple[str, ...]
    """Nouns that may be a subject."""
    shape: tuple[int, int]
    """(h, w) of the latents."""
    channels: int
    steps: int
    guidance: float

    def paint(self, adapter: Any | None, prompt: str, features: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """A picture (H,W,3) in [0,1] and the mean R_1 (h,w); without an adapter the base model's own."""
        subjects = [] if features is None else [Subject(self.word(prompt), 1, features, "")]
        model, trace = self.model, None
        if adapter is not None:
            trace = Trace(adapter.model.config.layers)
            model = apply_adapter(model, adapter, encoder="", trace=trace)
        noise = torch.randn(1, self.channels, *self.shape, generator=Generator().manual_seed(SEED))
        positive, negative = (encode_prompt(self.clip, text, s)[0] for text, s in ((prompt, subjects), ("", [])))
        latent = comfy.sample.sample(
            model, noise, self.steps, self.guidance, "euler", "normal", positive, negative, torch.zeros_like(noise),
            seed=SEED, disable_pbar=True,
        )  # fmt: skip
        picture = self.vae.decode(latent)[0].float().cpu().clamp(0, 1)
        if trace is None:
            return picture, None
        names = [spec.name for spec in trace.layers if spec.supervised]
        return picture, average_map([call for step in trace.steps() for call in step], names, 0, self.shape)

    def word(self, prompt: str) -> str:
        """The first word of a prompt that may be a subject.

        Raises: ValueError when there is none.
        """
        ends = find_words(prompt, self.words)
        if not ends:
            raise ValueError(f"The validation prompt '{prompt}' has no word that may be a subject: {self.words}.")
        return prompt[: ends[0]].split()[-1]


@torch.no_grad()
def validation_sheet(studio: Studio, adapter: Any, features: Sequence[Tensor]) -> Tensor:
    """A row for each prompt: the base model's picture, then for each subject the personalised one and its router map.

    Args:
        adapter: patcher of the adapter as it is now.
        features: (1,F) of each subject.

    Returns: (H,W,3) in [0,1].
    """
    blank = torch.zeros(CELL, CELL, 3)
    heads = [blank, *(cell for r in studio.references for cell in (square(r, CELL).movedim(0, -1), blank))]
    rows = [torch.cat(heads, dim=1)]
    for prompt in studio.prompts:
        cells = [small(studio.paint(None, prompt, None)[0])]
        for feature in features:
            picture, routes = studio.paint(adapter, prompt, feature)
            assert routes is not None
            cells += [small(picture), heat_map(smooth_to(routes, (CELL, CELL)))]
        rows += [
            label(f"{prompt}: prior only, then each subject and where it speaks", CELL * len(cells)),
            torch.cat(cells, 1),
        ]
    return torch.cat(rows)


def small(picture: Tensor) -> Tensor:
    """(H,W,3) -> (CELL,CELL,3)"""
    return square(picture.movedim(-1, 0), CELL).movedim(0, -1)
