"""The place of each subject (ours): the foreground is divided into as many parts as there are subjects, one for each.

Single pixels attend to "man" and to "woman" nearly alike wherever a person is; a whole part distinguishes them better. Where
even that is undecided, words are taken as most prompts mean them: from left to right.
"""

from __future__ import annotations

from functools import cache

import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor

ROUNDS = 8
"""Iterations of the parts' centres."""
UPRIGHT = 0.5
"""How much less a distance upwards counts: people stand side by side and are taller than wide."""
READING = 0.05
"""By how much the normalised maps must favour another order than the one from left to right."""
EXACT_ON_DEVICE = 16
"""Subjects whose best order is found on the device; the memory doubles with each."""


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
def part_sets(count: int, device: torch.device) -> list[tuple[Tensor, Tensor]]:
    """All sets of n parts for n = 1 to `count`: their numbers (N,), a bit for each part, and their parts (N,n)."""
    numbers = torch.arange(1 << count)
    contained = (numbers[:, None] >> torch.arange(count)) & 1
    sizes = contained.sum(dim=-1)
    chosen = [(n, sizes == n) for n in range(1, count + 1)]
    return [(numbers[of].to(device), contained[of].nonzero()[:, 1].view(-1, n).to(device)) for n, of in chosen]


def best_order(votes: Tensor) -> Tensor:
    """The part of each subject at which the votes (subjects, parts) have the largest sum: -> (subjects,) int64.

    Up to `EXACT_ON_DEVICE` subjects by the recursion over sets of parts (Held and Karp 1962), because SciPy's solver would make
    the device wait in every step.
    """
    count = len(votes)
    if count > EXACT_ON_DEVICE:
        return torch.as_tensor(linear_sum_assignment(votes.cpu(), maximize=True)[1], device=votes.device)
    best = votes.new_zeros(1 << count)  # of the first n subjects in a set of n parts
    last = torch.zeros(1 << count, dtype=torch.long, device=votes.device)  # the part of the n-th
    for subject, (sets, parts_of) in zip(votes, part_sets(count, votes.device), strict=True):
        best[sets], index = (best[sets[:, None] ^ (1 << parts_of)] + subject[parts_of]).max(dim=-1)
        last[sets] = parts_of.gather(1, index[:, None])[:, 0]
    left, order = torch.full((1,), (1 << count) - 1, device=votes.device), []
    for _ in range(count):
        order.append(last[left])
        left = left ^ (1 << order[-1])
    return torch.cat(order[::-1])


def assign_places(maps: Tensor, foreground: Tensor) -> Tensor:
    """Masks of the subjects: (S,h,w) normalised attention to their words, in the order of the prompt, and (h,w) -> (S,h,w).

    Each holds 0 and 1; together they cover every pixel. The order with the most attention in the assigned parts is taken.
    """
    found = parts(foreground, len(maps))
    weight = (found * foreground).flatten(1)
    votes = maps.flatten(1) @ weight.T / weight.sum(dim=-1).clamp(min=1e-6)  # (subjects, parts)
    votes = votes + READING * torch.eye(len(maps), device=maps.device)
    return found.index_select(0, best_order(votes))
