"""What the judges say of pictures: who is in them, where they are, and what changed around the people."""

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from .cases import PLACES, Case, line_ups
from .dataset import MASK_SIZE, paint
from .faces import VARIANTS
from .judges import load_judges, portrait
from .studio import GRID, People

RENDERS = 6
"""Real pictures of each person of a line-up, with other clothes and expressions than the reference."""


class Jury:
    """The judges, and the men and women of a split among whom they recognise.

    Attributes:
        people: all drawings.
        line_up: identities by noun.
        gallery: each identity's mean embedding (E,) over real renders.
    """

    @torch.no_grad()
    def __init__(self, split: str = "test") -> None:
        self.judges, self.people = load_judges(), People()
        self.line_up = line_ups(self.people, split)
        self.gallery = {identity: self.known(identity) for ids in self.line_up.values() for identity in ids}

    def known(self, identity: int) -> Tensor:
        """(E,): from renders that share nothing with the reference but the person."""
        rng = np.random.default_rng(identity)
        views = []
        for k in range(RENDERS):
            cutout = self.people.cutout(identity, 1 + k % (VARIANTS - 1))
            image, masks = paint([cutout], int(rng.integers(len(PLACES))), rng)
            mask = F.avg_pool2d(torch.from_numpy(masks[:1].astype(np.float32)) / 255, 128 // MASK_SIZE)[0]
            views.append(portrait(torch.from_numpy(image.copy()).movedim(-1, 0).float() / 255, mask))
        return F.normalize(self.judges.embed(torch.stack(views)).mean(0), dim=0)

    def portraits(self, picture: Tensor, outline: Tensor, people: int) -> Tensor:
        """Embeddings of whoever stands in each place, from left to right: (3,128,128), (32,32) -> (people,E)."""
        width, views = MASK_SIZE // people, []
        for place in range(people):
            here = torch.zeros_like(outline)
            here[:, place * width : (place + 1) * width] = 1
            views.append(portrait(picture, outline * here))
        return self.judges.embed(torch.stack(views))

    def nearest(self, identity: int, seen: Tensor) -> int:
        """Who of `identity`'s sex an embedding (E,) looks most like."""
        ids = self.line_up[self.people.noun(identity)]
        return ids[int((torch.stack([self.gallery[i] for i in ids]) @ seen).argmax())]

    def recognised(self, pictures: Tensor, cases: list[Case]) -> Tensor:
        """(cases, people), 1 where the person is the nearest of the line-up to whoever stands in its place, else 0."""
        rows = []
        for picture, outline, case in zip(pictures, self.judges.people(pictures), cases, strict=True):
            standing = self.portraits(picture, outline, len(case.people))
            rows.append([self.nearest(i, seen) == i for i, seen in zip(case.people, standing, strict=True)])
        return torch.tensor(rows).float()

    def identity(self, pictures: Tensor, cases: list[Case]) -> float:
        """Share of pictures in which everybody is recognised."""
        return self.recognised(pictures, cases).prod(1).mean().item()

    def place(self, pictures: Tensor, cases: list[Case]) -> float:
        """Share of pictures whose scene is recognised."""
        return (self.judges.place(pictures) == torch.tensor([case.scene for case in cases])).float().mean().item()

    def inside(self, pictures: Tensor) -> Tensor:
        """(B,16,16): where people are, on the grid of the router's maps."""
        return F.avg_pool2d(self.judges.people(pictures), MASK_SIZE // GRID[0])

    def router_split(self, pictures: Tensor, routes: Tensor) -> tuple[float, float]:
        """Mean R_1 (B,16,16) inside and outside people."""
        inside = self.inside(pictures)
        within, without = (((routes * m).sum() / m.sum()).item() for m in (inside, 1 - inside))
        return within, without

    def background_change(self, pictures: Tensor, prior: Tensor) -> float:
        """Mean squared error where neither picture shows people."""
        people = torch.maximum(self.judges.people(pictures), self.judges.people(prior))
        outside = (F.interpolate(people[:, None], size=pictures.shape[-2:], mode="bilinear") < 0.2).float()
        return (((pictures - prior) ** 2 * outside).sum() / (outside.sum() * 3)).item()
