"""Batches out of the cache: whose turn it is, which subjects are given, which references show them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors import safe_open
from torch import Generator, Tensor

from ..base import Batch
from ..config import TrainConfig
from ..lots import Lot, generator_for
from .augment import Strength, augment
from .cache import Entry
from .encoders import Text

MOST_SUBJECTS = 4
UNCONDITIONAL = -1
"""In `Batch.slots`: the row is personalised, but nobody is bound to a word."""


class Order:
    """Which picture stands where in which batch: every epoch shows each once, pictures of one shape together."""

    def __init__(self, entries: list[Entry], batch_size: int, seed: int):
        self.batch_size, self.seed, self.epoch = batch_size, seed, -1
        self.shapes: dict[tuple[int, int], list[int]] = {}
        for index, entry in enumerate(entries):
            self.shapes.setdefault(entry.shape, []).append(index)
        self.batches: list[list[int]] = []
        self.length = sum(-(-len(indices) // batch_size) for indices in self.shapes.values())

    def batch(self, step: int) -> list[int]:
        """Indices of the `batch_size` entries of a step; a shape's last batch is filled up from its beginning."""
        epoch, place = divmod(step, self.length)
        if epoch != self.epoch:
            self.epoch, self.batches = epoch, self.shuffle(generator_for(self.seed, "epoch", epoch))
        return self.batches[place]

    def shuffle(self, generator: Generator) -> list[list[int]]:
        batches, size = [], self.batch_size
        for indices in self.shapes.values():
            mixed = [indices[i] for i in torch.randperm(len(indices), generator=generator).tolist()]
            while len(mixed) % size:
                mixed += mixed[: size - len(mixed) % size]
            batches += [mixed[start : start + size] for start in range(0, len(mixed), size)]
        return [batches[i] for i in torch.randperm(len(batches), generator=generator).tolist()]


class Example(NamedTuple):
    """One picture, ready for a batch."""

    latents: Tensor
    context: Tensor
    pooled: Tensor
    slots: Tensor
    references: Tensor
    masks: Tensor


class CachedExamples:
    """Makes batches of cached pictures.

    Args:
        null: the empty caption.
        side: of the reference pictures, when the adapter looks at them itself; None: image features are cached.
    """

    def __init__(
        self,
        entries: list[Entry],
        null: Text,
        config: TrainConfig,
        augmentation: Strength,
        side: int | None,
        device: torch.device | str = "cpu",
    ):
        self.entries, self.null, self.config, self.device = entries, null, config, device
        self.augmentation: Strength = augmentation
        self.side = side
        self.order = Order(entries, config.batch_size, config.seed)
        self.files: dict[Path, Any] = {}

    def __call__(self, lot: Lot) -> Batch:
        indices = self.order.batch(lot.step)
        drawn = [self.draw(self.entries[indices[p]], g) for p, g in zip(lot.places, lot.generators, strict=True)]
        most = max(len(example.masks) for example in drawn)
        padded = [e._replace(references=pad(e.references, most), masks=pad(e.masks, most)) for e in drawn]
        latents, context, pooled, slots, references, masks = (
            torch.stack(column).to(self.device) for column in zip(*padded, strict=True)
        )
        return Batch(latents, context, slots, references, masks, pooled if pooled.shape[-1] else None)

    def draw(self, entry: Entry, generator: Generator) -> Example:
        """One example: subjects may stay away, now and then the whole condition is dropped while the mask stays."""
        get = self.reader(entry)
        places, masks = get("places"), get("masks").float() / 255
        given = torch.rand(len(places), generator=generator) < self.config.appearance
        given[int(torch.randint(len(places), (), generator=generator))] |= ~given.any()
        dropped = float(torch.rand((), generator=generator)) < self.config.uncondition
        context, pooled = (self.null.context, self.null.pooled) if dropped else (get("context"), get("pooled"))
        slots = torch.zeros(len(context), dtype=torch.long)
        kept = [int(i) for i in given.nonzero()][:MOST_SUBJECTS]
        references = torch.stack([self.reference(get, i, generator) for i in kept])
        if dropped:
            slots[0] = UNCONDITIONAL
        else:
            slots[places[kept]] = torch.arange(1, len(kept) + 1)
        return Example(get("latents").float(), context.float(), pooled.float(), slots, references, masks[kept])

    def reference(self, get: Callable[[str], Tensor], subject: int, generator: Generator) -> Tensor:
        """One of the views of a subject: an image feature (F,), or a picture drawn anew (3,side,side)."""
        views = get(f"{'cutouts' if self.side else 'features'}.{subject}")
        chosen = views[int(torch.randint(len(views), (), generator=generator))].float()
        return augment(chosen / 255, self.side, self.augmentation, generator) if self.side else chosen

    def reader(self, entry: Entry) -> Callable[[str], Tensor]:
        """Reads one tensor of an entry; files stay open, and only what is asked for is read."""
        if entry.file not in self.files:
            self.files[entry.file] = safe_open(entry.file, framework="pt")
        return lambda name: self.files[entry.file].get_tensor(f"{entry.row}.{name}")


def pad(x: Tensor, count: int) -> Tensor:
    """Empty subjects behind those that are there: (S,...) -> (count,...)."""
    return torch.cat([x, x.new_zeros(count - len(x), *x.shape[1:])])
