"""Batches out of the cache: the order of the pictures, the subjects that are bound, the references that show them."""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors import safe_open
from torch import Generator, Tensor

from ..base import Batch
from ..cache.entries import CacheEntry
from ..config import Augmentation, TrainConfig
from ..lots import Lot, generator_for
from .augment import augment
from .encoders import EncodedCaption

MOST_SUBJECTS = 4
UNCONDITIONAL = -1
"""In `Batch.slots`: the row is personalised, but no subject is bound to a word."""


class BatchOrder:
    """The pictures of each batch: each is shown `repeats` times in an epoch, and a batch holds pictures of one shape.

    The pictures of a shape stand in an endless row of epochs, each in an order of its own, which is cut into batches. What
    an epoch leaves over begins the next epoch's first batch, so that a shape of few pictures has a batch in few epochs.
    """

    def __init__(self, entries: list[CacheEntry], batch_size: int, seed: int):
        self.batch_size, self.seed, self.epoch = batch_size, seed, -1
        shapes: dict[tuple[int, int], list[int]] = {}
        for index, entry in enumerate(entries):
            repeats = 1 if entry.picture is None else entry.picture.repeats
            shapes.setdefault(entry.shape, []).extend([index] * repeats)
        self.indices = list(shapes.values())
        self.counts = [len(indices) for indices in self.indices]
        # Where a shape's row begins: otherwise all shapes with a rest would have their first batch late.
        draw = generator_for(seed, "offsets")
        self.offsets = [
            int(torch.randint(batch_size, (), generator=draw)) if n % batch_size else 0 for n in self.counts
        ]
        self.batches: list[list[int]] = []
        self.orders = lru_cache(maxsize=2)(self.draw_orders)

    def batch(self, step: int) -> list[int]:
        """Indices of the `batch_size` entries of a step."""
        most = (step + 1 + len(self.counts)) * self.batch_size // sum(self.counts) + 1  # a rest is less than a batch
        epoch = bisect_right(range(most), step, key=lambda e: self.begun(e + 1))
        if epoch != self.epoch:
            self.epoch, self.batches = epoch, self.batches_of(epoch)
        return self.batches[step - self.begun(epoch)]

    def begun(self, epoch: int) -> int:
        """The number of batches that end before an epoch."""
        return sum(self.cut(number, epoch) for number in range(len(self.offsets)))

    def cut(self, number: int, epoch: int) -> int:
        """The number of batches of a shape that end before an epoch."""
        return (epoch * self.counts[number] + self.offsets[number]) // self.batch_size

    def batches_of(self, epoch: int) -> list[list[int]]:
        """The batches that end in an epoch, mixed."""
        size, batches = self.batch_size, []
        for number, offset in enumerate(self.offsets):
            for place in range(self.cut(number, epoch), self.cut(number, epoch + 1)):
                row = range(place * size - offset, (place + 1) * size - offset)
                batches.append([self.entry(number, at) for at in row])
        return [batches[i] for i in self.orders(epoch)[-1]]

    def entry(self, number: int, at: int) -> int:
        """Index of the entry at a place of a shape's endless row."""
        epoch, place = divmod(at, self.counts[number])
        indices = self.indices[number]
        if len(indices) >= self.batch_size:
            return indices[self.orders(epoch)[number][place]]
        # A batch of a shape of few pictures spans many epochs, whose other orders are not needed.
        return indices[permutation(len(indices), generator_for(self.seed, "epoch", epoch, number))[place]]

    def draw_orders(self, epoch: int) -> list[list[int]]:
        """The order of each shape's pictures in an epoch, and last that of its batches."""
        generator = generator_for(self.seed, "epoch", epoch)
        count = self.begun(epoch + 1) - self.begun(epoch)
        return [permutation(n, generator) for n in (*self.counts, count)]


def permutation(count: int, generator: Generator) -> list[int]:
    """The numbers below `count` in a random order."""
    return torch.randperm(count, generator=generator).tolist()


class Choice(NamedTuple):
    """What was drawn for an example."""

    caption: int
    """Number of the picture's caption."""
    subjects: tuple[int, ...]
    """The picture's subjects that are bound, in the order of their slots."""
    views: tuple[int, ...]
    """The view of each that is its reference."""
    dropped: bool
    """Whether the example is without a caption and without a subject's word."""


class Example(NamedTuple):
    """One picture, ready for a batch."""

    latents: Tensor
    context: Tensor
    pooled: Tensor
    slots: Tensor
    references: Tensor
    masks: Tensor
    choice: Choice


class CachedExamples:
    """Makes batches of cached pictures.

    Args:
        null: the empty caption.
        side: of the reference pictures, when the adapter has its own encoder; None: image features are cached.
    """

    def __init__(
        self,
        entries: list[CacheEntry],
        null: EncodedCaption,
        config: TrainConfig,
        augmentation: Augmentation,
        side: int | None,
        device: torch.device | str = "cpu",
    ):
        self.entries, self.null, self.config, self.device = entries, null, config, device
        self.augmentation: Augmentation = augmentation
        self.side = side
        self.order = BatchOrder(entries, config.batch_size, config.seed)
        self.files: dict[Path, Any] = {}

    def __call__(self, lot: Lot) -> Batch:
        entries = self.entries_of(lot)
        batch = self.stack([self.draw(entry, g) for entry, g in zip(entries, lot.generators, strict=True)])
        weights = [1.0 if entry.picture is None else entry.picture.weight for entry in entries]
        return batch if set(weights) == {1.0} else replace(batch, weights=torch.tensor(weights).to(self.device))

    def entries_of(self, lot: Lot) -> list[CacheEntry]:
        """The pictures of a lot."""
        indices = self.order.batch(lot.step)
        return [self.entries[indices[place]] for place in lot.places]

    def stack(self, drawn: Sequence[Example]) -> Batch:
        """A batch of these examples, on the device."""
        columns = list(zip(*alike(drawn), strict=True))[:-1]
        latents, context, pooled, slots, references, masks = (torch.stack(c).to(self.device) for c in columns)
        return Batch(latents, context, slots, references, masks, pooled if pooled.shape[-1] else None)

    def draw(self, entry: CacheEntry, generator: Generator) -> Example:
        """One example with one of the picture's captions. Subjects are bound with probability `appearance`, at least one always; with probability
        `uncondition` the condition is dropped and the masks stay."""
        get = self.reader(entry)
        # Pictures with one caption draw nothing here, so that their other draws stay as they are.
        caption = int(torch.randint(entry.captions, (), generator=generator)) if entry.captions > 1 else 0
        positions, masks = get(f"positions.{caption}"), get("masks").float() / 255
        bound = torch.rand(len(positions), generator=generator) < self.config.appearance
        bound[int(torch.randint(len(positions), (), generator=generator))] |= ~bound.any()
        dropped = float(torch.rand((), generator=generator)) < self.config.uncondition
        text = (
            (self.null.context, self.null.pooled) if dropped else (get(f"context.{caption}"), get(f"pooled.{caption}"))
        )
        context, pooled = text
        slots = torch.zeros(len(context), dtype=torch.long)
        kept = [int(i) for i in bound.nonzero()][:MOST_SUBJECTS]
        references, views = zip(*(self.reference(get, i, generator) for i in kept), strict=True)
        if dropped:
            slots[0] = UNCONDITIONAL
        else:
            slots[positions[kept]] = torch.arange(1, len(kept) + 1)
        return Example(
            get("latents").float(), context.float(), pooled.float(), slots, torch.stack(references), masks[kept],
            Choice(caption, tuple(kept), views, dropped),
        )  # fmt: skip

    def reference(self, get: Callable[[str], Tensor], subject: int, generator: Generator) -> tuple[Tensor, int]:
        """One of the views of a subject, an image feature (F,) or a newly augmented picture (3,side,side), and its
        number."""
        views = get(f"{'cutouts' if self.side else 'features'}.{subject}")
        number = int(torch.randint(len(views), (), generator=generator))
        chosen = views[number].float()
        return augment(chosen / 255, self.side, self.augmentation, generator) if self.side else chosen, number

    def reader(self, entry: CacheEntry) -> Callable[[str], Tensor]:
        """Reads one tensor of an entry; files stay open, and only the requested tensor is read."""
        if entry.file not in self.files:
            self.files[entry.file] = safe_open(entry.file, framework="pt")
        return lambda name: self.files[entry.file].get_tensor(f"{entry.row}.{name}")


def alike(drawn: Sequence[Example]) -> list[Example]:
    """The examples with one number of subjects and one length of context, so that they can share a batch.

    Contexts and slots are repeated to the least common multiple of their lengths, as the sampler does: attention to a
    repeated context is the same.
    """
    most, length = max(len(e.masks) for e in drawn), math.lcm(*(len(e.context) for e in drawn))
    return [
        example._replace(
            context=example.context.repeat(length // len(example.context), 1),
            slots=example.slots.repeat(length // len(example.slots)),
            references=pad(example.references, most),
            masks=pad(example.masks, most),
        )
        for example in drawn
    ]


def pad(x: Tensor, count: int) -> Tensor:
    """Append empty subjects: (S,...) -> (count,...)."""
    return torch.cat([x, x.new_zeros(count - len(x), *x.shape[1:])])
