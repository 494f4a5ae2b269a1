"""Errors on pictures that are not trained on, with the right and with a wrong reference, at fixed timesteps (ours).

An adapter that learned to use references has a lower error with the reference of the person in the picture than with
another person's. Pictures, noise and timesteps are the same in every measurement, so that small differences count.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from ..adapters.base import Adapter
from .base import Base, Batch
from .cache.entries import CacheEntry
from .cache.shards import name_hash
from .config import TrainConfig
from .data.examples import CachedExamples, Example
from .lots import generator_for
from .objective import LayerLosses, draw_noise, encode_references, mean_where
from .precision import mixed_precision

TIMESTEPS = (0.125, 0.375, 0.625, 0.875)
"""As fractions of the schedule, 1 being the noisiest."""
RIGHT, WRONG, PRIOR_OUTSIDE, PERSONAL_INSIDE = NUMBERS = ("right", "wrong", "prior_outside", "personal_inside")
PREFIX = "held_out/"


def hold_out(entries: Sequence[CacheEntry], count: int) -> tuple[list[CacheEntry], list[CacheEntry]]:
    """Divide pictures into those that are trained on and `count` that are not, by the hash of their names.

    A picture that is added later never moves another from the first to the second group.

    Raises: ValueError when nothing would be left to train on.
    """
    if count and count >= len(entries):
        raise ValueError(
            f"data.held_out is {count}, but only {len(entries)} pictures can be used. Hold out fewer, so that some are left "
            "to train on."
        )
    first = sorted(entries, key=lambda entry: 0 if entry.picture is None else name_hash(entry.picture))[:count]
    places = {(entry.file, entry.row) for entry in first}
    return [entry for entry in entries if (entry.file, entry.row) not in places], first


class HeldOutErrors:
    """Measures an adapter on held-out pictures.

    Args:
        pictures: of the held-out entries, with all subjects bound (`all_bound`); at least two.
        config: of the run, for its precision.
    """

    def __init__(self, pictures: CachedExamples, config: TrainConfig):
        self.stack, self.bfloat16 = pictures.stack, config.precision == "bfloat16"
        right = [pictures.draw(e, generator_for("held out", n)) for n, e in enumerate(pictures.entries)]
        self.pairs = list(zip(right, with_others_references(right), strict=True))
        self.unaided: dict[tuple[int, float], Tensor] = {}

    @torch.no_grad()
    def measure(self, adapter: Adapter, base: Base) -> dict[str, float]:
        """`held_out/…` for each of `NUMBERS`: its mean over `TIMESTEPS`, and its value at each (`held_out/right_0.125`).

        Errors are those of the predicted noise inside the subjects' masks, divided by the base model's own: 1 is no better
        than without an adapter.
        """
        found: dict[str, float] = {}
        for share in TIMESTEPS:
            sums = [self.numbers(n, share, adapter, base) for n in range(len(self.pairs))]
            alone, *others = torch.stack(sums).mean(dim=0).tolist()
            values = [others[0] / alone, others[1] / alone, *others[2:]]
            found |= {f"{name}_{share}": value for name, value in zip(NUMBERS, values, strict=True)}
        means = {name: sum(found[f"{name}_{share}"] for share in TIMESTEPS) / len(TIMESTEPS) for name in NUMBERS}
        return {f"{PREFIX}{name}": value for name, value in {**means, **found}.items()}

    def numbers(self, number: int, share: float, adapter: Adapter, base: Base) -> Tensor:
        """Of one picture: the errors of the base model, with the right and a wrong reference; R_0 outside, R_1 inside (5,)."""
        batch = self.stack(self.pairs[number])
        noise = draw_noise([generator_for("held out noise", number, share)], batch.latents[:1]).expand_as(batch.latents)
        union = batch.masks.sum(dim=1, keepdim=True).clamp(max=1)

        def inside(error: Tensor, row: int) -> Tensor:
            return mean_where(error[row : row + 1].mean(dim=1, keepdim=True), union[:1])

        if (number, share) not in self.unaided:
            alone, _ = squared_error(base, None, batch, noise, share, self.bfloat16)
            self.unaided[number, share] = inside(alone, 0)
        error, prior = squared_error(base, adapter, batch, noise, share, self.bfloat16)
        shares = mean_where(prior[:1], 1 - union[:1]), mean_where(1 - prior[:1], union[:1])
        return torch.stack([self.unaided[number, share], inside(error, 0), inside(error, 1), *shares]).cpu()


@torch.no_grad()
def squared_error(
    base: Base, adapter: Adapter | None, batch: Batch, noise: Tensor, share: float, bfloat16: bool = False
) -> tuple[Tensor, Tensor]:
    """Of the predicted noise at a share of the schedule (B,C,h,w), and the mean R_0 (B,1,h,w); without an adapter 1."""
    sigma = base.sigma_at(torch.full((len(noise),), share))
    noisy, layers = base.add_noise(batch.latents, noise, sigma), LayerLosses(batch, None)
    with mixed_precision(noisy.device, bfloat16):
        if adapter is None:
            denoised, prior = base.denoise_alone(noisy, sigma, batch), torch.ones_like(noisy[:, :1])
        else:
            features = encode_references(adapter, batch.references).float()
            denoised, prior = base.denoise(noisy, sigma, batch, features, layers.record), layers.average_prior()
    weight = base.error_weight(sigma)[:, None, None, None]
    return ((denoised.float() - batch.latents) * weight).square(), prior


def all_bound(config: TrainConfig) -> TrainConfig:
    """The settings under which every example has its caption and all of its subjects."""
    return replace(config, appearance=1.0, uncondition=0.0)


def with_others_references(examples: Sequence[Example]) -> list[Example]:
    """The same examples with the references of the next ones."""
    pool = torch.cat([example.references for example in examples])
    place, changed = 0, []
    for example in examples:
        place += len(example.references)
        others = [(place + n) % len(pool) for n in range(len(example.references))]
        changed.append(example._replace(references=pool[others]))
    return changed
