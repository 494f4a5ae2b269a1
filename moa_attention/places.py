"""Who stands where (ours): the foreground falls into as many parts as there are subjects, and each gets one.

Single pixels look at "man" and at "woman" nearly alike wherever a person is; a whole part tells them apart better. Where
even that is undecided, words are taken as prompts mostly mean them: from left to right.
"""

from __future__ import annotations

from functools import cache
from itertools import permutations

import torch
from torch import Tensor

ROUNDS = 8
"""Of moving the parts' centres."""
UPRIGHT = 0.5
"""How much less a distance upwards counts: people stand side by side and are higher than wide."""
READING = 0.05
"""How much more of the normalised maps a subject must have elsewhere to leave its place from left to right."""


def parts(foreground: Tensor, count: int) -> Tensor:
    """Weights (h,w) -> (count,h,w) of 0 and 1 that sum to one: the nearest centre of mass each, from left to right."""
    h, w = foreground.shape
    y, x = torch.meshgrid(
        torch.arange(h, device=foreground.device), torch.arange(w, device=foreground.device), indexing="ij"
    )
    where = torch.stack((UPRIGHT * y, x), dim=-1).flatten(0, 1).float()
    weight = foreground.flatten().clamp(min=1e-6)
    share = weight.view(h, w).sum(dim=0).cumsum(0) / weight.sum()
    wanted = (torch.arange(count, device=share.device) + 0.5) / count
    start = (share >= wanted[:, None]).float().argmax(dim=-1).float()
    centres = torch.stack(((weight @ where[:, 0] / weight.sum()).expand(count), start), dim=-1)
    for _ in range(ROUNDS):
        member = nearest(where, centres)
        mass = (member * weight).sum(dim=-1, keepdim=True)
        centres = torch.where(mass > 0, (member * weight) @ where / mass.clamp(min=1e-6), centres)
    return nearest(where, centres[centres[:, 1].argsort()]).unflatten(-1, (h, w))


def nearest(where: Tensor, centres: Tensor) -> Tensor:
    """(N,2) (count,2) -> (count,N) of 0 and 1."""
    distance = (where[None] - centres[:, None]).square().sum(dim=-1)
    return torch.nn.functional.one_hot(distance.argmin(dim=0), len(centres)).T.to(where.dtype)


@cache
def orders(count: int, device: torch.device) -> Tensor:
    """All ways to give `count` parts to as many subjects: (count!, count), as they are read first."""
    return torch.tensor(list(permutations(range(count))), device=device)


def settle(maps: Tensor, foreground: Tensor) -> Tensor:
    """Where each subject is: (S,h,w) normalised attention to their words, in the order of the prompt, and (h,w) -> (S,h,w).

    Each of 0 and 1; together they cover every pixel. The way with the most attention in the right parts is taken.
    """
    found = parts(foreground, len(maps))
    weight = (found * foreground).flatten(1)
    votes = maps.flatten(1) @ weight.T / weight.sum(dim=-1).clamp(min=1e-6)  # (subjects, parts)
    votes = votes + READING * torch.eye(len(maps), device=maps.device)
    ways = orders(len(maps), maps.device)
    total = votes[torch.arange(len(maps), device=maps.device), ways].sum(dim=-1)
    return found.index_select(0, ways[total.argmax()])
