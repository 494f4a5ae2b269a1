"""The evaluation's measures of generated images: identity, scene, router shares and background change."""

from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ..data.dataset import MASK_SIZE, paint
from ..data.faces import VARIANTS
from ..data.identities import Identities
from .cases import SCENE_NAMES, SceneCase, candidates
from .judges import load_judges, portrait
from .pipeline import GRID

RENDERS = 6
"""Drawn pictures of each candidate, with other clothes and expressions than the reference."""


class Evaluator:
    """The judge networks, and the men and women of a split from which they choose a person.

    Attributes:
        identities: all drawings.
        candidates: identities by noun.
        gallery: each candidate's mean embedding (E,) over drawn pictures.
    """

    @torch.no_grad()
    def __init__(self, split: str = "test") -> None:
        self.judges, self.identities = load_judges(), Identities()
        self.candidates = candidates(self.identities, split)
        self.gallery = {identity: self.enrol(identity) for ids in self.candidates.values() for identity in ids}

    def enrol(self, identity: int) -> Tensor:
        """(E,): from pictures that share nothing with the reference but the person."""
        rng = np.random.default_rng(identity)
        views = []
        for k in range(RENDERS):
            cutout = self.identities.cutout(identity, 1 + k % (VARIANTS - 1))
            image, masks = paint([cutout], int(rng.integers(len(SCENE_NAMES))), rng)
            mask = F.avg_pool2d(torch.from_numpy(masks[:1].astype(np.float32)) / 255, 128 // MASK_SIZE)[0]
            views.append(portrait(as_tensor(image), mask))
        return F.normalize(self.judges.embed(torch.stack(views)).mean(0), dim=0)

    def embed_people(self, image: Tensor, outline: Tensor, people: int) -> Tensor:
        """Embeddings of the people from left to right, each in an equal part: (3,128,128), (32,32) -> (people,E)."""
        width, views = MASK_SIZE // people, []
        for part in range(people):
            mask = torch.zeros_like(outline)
            mask[:, part * width : (part + 1) * width] = 1
            views.append(portrait(image, outline * mask))
        return self.judges.embed(torch.stack(views))

    def nearest(self, identity: int, embedding: Tensor) -> int:
        """The candidate of `identity`'s sex whose gallery embedding is nearest to (E,)."""
        ids = self.candidates[self.identities.noun(identity)]
        return ids[int((torch.stack([self.gallery[i] for i in ids]) @ embedding).argmax())]

    def recognised(self, images: Tensor, cases: Sequence[SceneCase]) -> Tensor:
        """(cases, people): 1 where the nearest candidate is the person requested at that position, else 0."""
        rows = []
        for image, outline, case in zip(images, self.judges.segment(images), cases, strict=True):
            found = self.embed_people(image, outline, len(case.people))
            rows.append([self.nearest(i, embedding) == i for i, embedding in zip(case.people, found, strict=True)])
        return torch.tensor(rows).float()

    def identity(self, images: Tensor, cases: Sequence[SceneCase]) -> float:
        """Share of images in which every person is recognised."""
        return self.recognised(images, cases).prod(1).mean().item()

    def ceiling(self, cases: Sequence[SceneCase]) -> float:
        """Share of *drawn* pictures in which every person is recognised: no model does better, as the judge itself errs."""
        return self.identity(torch.stack([self.drawn(case) for case in cases]), cases)

    def drawn(self, case: SceneCase) -> Tensor:
        """A drawn picture of a case, (3,128,128)."""
        cutouts = [self.identities.cutout(identity, 0) for identity in case.people]
        return as_tensor(paint(cutouts, case.scene, np.random.default_rng(case.seed))[0])

    def scene(self, images: Tensor, cases: Sequence[SceneCase]) -> float:
        """Share of images whose scene is recognised."""
        return (
            (self.judges.classify_scene(images) == torch.tensor([case.scene for case in cases])).float().mean().item()
        )

    def person_maps(self, images: Tensor) -> Tensor:
        """(B,16,16): soft masks of all people, on the grid of the router's maps."""
        return F.avg_pool2d(self.judges.segment(images), MASK_SIZE // GRID[0])

    def router_split(self, images: Tensor, maps: Tensor) -> tuple[float, float]:
        """Mean R_1 (B,16,16) inside and outside people."""
        inside = self.person_maps(images)
        within, without = (((maps * m).sum() / m.sum()).item() for m in (inside, 1 - inside))
        return within, without

    def background_change(self, images: Tensor, prior: Tensor) -> float:
        """Mean squared error where neither image shows people."""
        people = torch.maximum(self.judges.segment(images), self.judges.segment(prior))
        outside = (F.interpolate(people[:, None], size=images.shape[-2:], mode="bilinear") < 0.2).float()
        return (((images - prior) ** 2 * outside).sum() / (outside.sum() * 3)).item()


def as_tensor(image: np.ndarray) -> Tensor:
    """(H,W,3) uint8 -> (3,H,W) in [0,1]."""
    return torch.from_numpy(image.copy()).movedim(-1, 0).float() / 255
