"""The validation sheet of a training run: subjects × prompts, prior only beside personalised, with the router's map.

The noise is always the same, so that two sheets of a run differ only by what was learned between them.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product
from typing import Any

import comfy.model_management
import torch
from torch import Tensor

from ....moa_attention.adapters.base import Adapter
from ....moa_attention.pictures import heat_map, label, smooth_to
from ....moa_attention.subjects.reference import fit_to_square, prepare_reference
from ....moa_attention.training.config import SheetConfig
from ....moa_attention.training.data.captions import find_words
from ....moa_attention.training.data.images import read_image, read_masks
from ....moa_attention.training.data.pictures import TrainingPicture
from ....moa_attention.training.precision import mixed_precision
from ...sockets import Subject
from ..model.patch import host_patcher
from .encoders import HostEncoders
from .sampler import HostSampler

CELL = 192
"""Pixels of a picture's side on the sheet."""
SUBJECTS_SHOWN = 2
"""Subjects on the sheet when no references are named."""


class ValidationSheet:
    """Draws the sheet of an adapter that is being trained.

    Args:
        shape: (height, width) in pixels of the pictures.
        references: (S,3,side,side) in [0,1], one picture for each subject, ready for the image encoder.
        words: nouns that can be a subject.
    Raises: ValueError when a prompt has no word that can be a subject.
    """

    def __init__(
        self,
        encoders: HostEncoders,
        settings: SheetConfig,
        shape: tuple[int, int],
        references: Tensor,
        words: Sequence[str],
    ):
        height, width = (pixels // encoders.scale for pixels in shape)
        models = (encoders.model, encoders.clip, encoders.vae)
        self.sampler = HostSampler(*models, (height, width), settings.steps, settings.guidance)
        self.encoders, self.references, self.seeds = encoders, references, settings.seeds
        self.prompts = {prompt: subject_word(prompt, words) for prompt in settings.prompts}
        self._patcher: Any = None

    @torch.no_grad()
    def draw(self, adapter: Adapter) -> Tensor:
        """A row for each prompt and seed: the base model's picture, then for each subject the personalised one and its router map.

        Args: adapter: as it is now. The same object in every call, whose patcher is kept.
        Returns: (H,W,3) in [0,1].
        """
        patcher = self._patcher = self._patcher or host_patcher(adapter)
        comfy.model_management.load_models_gpu([patcher])
        features = self.encode(patcher)
        blank = torch.zeros(CELL, CELL, 3)
        heads = [blank, *(cell for r in self.references for cell in (fit_to_square(r, CELL).movedim(0, -1), blank))]
        rows = [torch.cat(heads, dim=1)]
        for prompt, seed in product(self.prompts, self.seeds):
            cells = [shrunk(self.picture(None, prompt, None, seed)[0])]
            for feature in features:
                picture, router_map = self.picture(patcher, prompt, feature[None], seed)
                assert router_map is not None
                cells += [shrunk(picture), heat_map(smooth_to(router_map, (CELL, CELL)))]
            rows += [
                label(f"{prompt}: prior only, then each subject and its router map", CELL * len(cells)),
                torch.cat(cells, 1),
            ]
        return torch.cat(rows)

    def picture(
        self, adapter: Any | None, prompt: str, features: Tensor | None, seed: int
    ) -> tuple[Tensor, Tensor | None]:
        """A picture (H,W,3) in [0,1] and the mean R_1 (h,w); without an adapter the base model's own."""
        subjects = [] if features is None else [Subject(self.prompts[prompt], 1, features, "")]
        device = self.sampler.model.load_device
        # The adapter being trained is in float32, whatever the base model's precision.
        with mixed_precision(device, device.type != "cpu"):
            latent, router_map = self.sampler.sample(prompt, subjects, seed, adapter)
        return self.sampler.decode(latent), router_map

    def encode(self, adapter: Any) -> Tensor:
        """Features of the subjects by the adapter's own encoder or the CLIP vision model: -> (S,F)."""
        if adapter.model.encoder is None:
            return self.encoders.features(self.references)
        return adapter.model.encoder(self.references.to(adapter.load_device)).float().cpu()


def subject_word(prompt: str, words: Sequence[str]) -> str:
    """The first word of a prompt that can be a subject.

    Raises: ValueError when there is none.
    """
    ends = find_words(prompt, words)
    if not ends:
        raise ValueError(
            f"The prompt '{prompt}' of the validation sheet has no word that can be a subject. Use one of: {', '.join(words)}."
        )
    return prompt[: ends[0]].split()[-1]


def first_subjects(pictures: Sequence[TrainingPicture], side: int, count: int = SUBJECTS_SHOWN) -> Tensor:
    """Cut out of the first pictures of a training set: -> (count or fewer,3,side,side) in [0,1].

    Pictures that cannot be read, or in which the subject is too small, are skipped.
    """
    found: list[Tensor] = []
    for picture in pictures:
        if len(found) == count:
            break
        try:
            image = read_image(picture.path)[:3].float() / 255
            masks = read_masks(picture, (image.shape[-2], image.shape[-1]))
            found.append(prepare_reference(image.movedim(0, -1)[None], masks[:1], side)[0])
        except ValueError:  # `BadPicture`, or a subject of a few pixels
            continue
    return torch.stack(found)


def shrunk(picture: Tensor) -> Tensor:
    """(H,W,3) -> (CELL,CELL,3)"""
    return fit_to_square(picture.movedim(-1, 0), CELL).movedim(0, -1)
