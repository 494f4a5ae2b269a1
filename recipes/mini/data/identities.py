"""The drawn people by identity: cut-outs, reference pictures and nouns."""

import numpy as np
import torch
from torch import Tensor

from .faces import VARIANTS, rasterise, read_archive

PAPER = np.array([236, 232, 224], np.float32)
"""Colour behind the people of reference pictures."""


class Identities:
    """Drawings of the archive, rasterised on first use."""

    def __init__(self) -> None:
        self.faces = read_archive()
        self.cutouts: dict[int, np.ndarray] = {}

    def cutout(self, identity: int, variant: int) -> np.ndarray:
        """(144,96,4) uint8."""
        drawing = identity * VARIANTS + variant
        if drawing not in self.cutouts:
            self.cutouts[drawing] = rasterise(self.faces[drawing].svg)
        return self.cutouts[drawing]

    def reference(self, identity: int, variant: int = 0) -> Tensor:
        """A person before a plain background: (1,144,96,3) in [0,1], as a LoadImage node outputs it."""
        rgba = self.cutout(identity, variant).astype(np.float32)
        alpha = rgba[..., 3:] / 255
        return torch.from_numpy((rgba[..., :3] * alpha + PAPER * (1 - alpha)) / 255)[None]

    def noun(self, identity: int) -> str:
        """ "man" or "woman"."""
        return self.faces[identity * VARIANTS].noun
