"""The validation sheet of a training run: subjects × prompts, prior only beside personalised, with the router's map.

Always the same noise, so that two sheets of a run differ by what was learned between them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import comfy.model_management
import torch
from torch import Tensor

from ..moa_attention.picture import heat_map, label, smooth_to
from ..moa_attention.reference import prepare_reference, square
from ..moa_attention.training.data.pictures import BadPicture, Picture, read_image, read_masks
from ..moa_attention.training.data.words import find_words
from ..moa_attention.training.objective import mixed_precision
from .encoders import HostEncoders
from .painter import Painter
from .sockets import Subject

CELL = 192
"""Pixels of a picture's side on the sheet."""
SEED = 42


@dataclass(frozen=True)
class Studio:
    """Whatever paints a sheet.

    Raises: ValueError at once when a prompt has no word that can be a subject.
    """

    painter: Painter
    prompts: tuple[str, ...]
    """Each with a word that can be a subject."""
    references: Tensor
    """(S,3,side,side) in [0,1], as the image encoder sees them, one for each subject."""
    encoders: HostEncoders
    words: tuple[str, ...]
    """Nouns that may be a subject."""

    def __post_init__(self) -> None:
        for prompt in self.prompts:
            self.word(prompt)

    def paint(self, adapter: Any | None, prompt: str, features: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """A picture (H,W,3) in [0,1] and the mean R_1 (h,w); without an adapter the base model's own."""
        subjects = [] if features is None else [Subject(self.word(prompt), 1, features, "")]
        device = self.painter.model.load_device
        # The adapter being trained is in float32 whatever the base is in.
        with mixed_precision(torch.empty(0, device=device), device.type != "cpu"):
            latent, spoke = self.painter.sample(prompt, subjects, SEED, adapter)
        return self.painter.decode(latent), spoke

    def word(self, prompt: str) -> str:
        """The first word of a prompt that may be a subject.

        Raises: ValueError when there is none.
        """
        ends = find_words(prompt, self.words)
        if not ends:
            raise ValueError(f"The validation prompt '{prompt}' has no word that may be a subject: {self.words}.")
        return prompt[: ends[0]].split()[-1]

    def look(self, adapter: Any) -> Tensor:
        """Features of the subjects through the adapter's own encoder or the CLIP vision model: -> (S,F)."""
        if adapter.model.encoder is None:
            return self.encoders.features(self.references)
        return adapter.model.encoder(self.references.to(adapter.load_device)).float().cpu()


def first_subjects(pictures: Sequence[Picture], side: int, count: int) -> Tensor:
    """Cut out of the first pictures of a training set: -> (count or fewer,3,side,side) in [0,1].

    Pictures that cannot be read are passed over.
    """
    found: list[Tensor] = []
    for picture in pictures:
        if len(found) == count:
            break
        try:
            image = read_image(picture.path)[:3].float() / 255
            masks = read_masks(picture, (image.shape[-2], image.shape[-1]))
        except BadPicture:
            continue
        found.append(prepare_reference(image.movedim(0, -1)[None], masks[:1], side)[0])
    return torch.stack(found)


@torch.no_grad()
def validation_sheet(studio: Studio, adapter: Any) -> Tensor:
    """A row for each prompt: the base model's picture, then for each subject the personalised one and its router map.

    Args: adapter: patcher of the adapter as it is now.
    Returns: (H,W,3) in [0,1].
    """
    comfy.model_management.load_models_gpu([adapter])
    features = studio.look(adapter)
    blank = torch.zeros(CELL, CELL, 3)
    heads = [blank, *(cell for r in studio.references for cell in (square(r, CELL).movedim(0, -1), blank))]
    rows = [torch.cat(heads, dim=1)]
    for prompt in studio.prompts:
        cells = [small(studio.paint(None, prompt, None)[0])]
        for feature in features:
            picture, routes = studio.paint(adapter, prompt, feature[None])
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
