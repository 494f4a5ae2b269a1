"""The first batches of a run as contact sheets: every example with its crop, masks, references, caption and slots."""

from collections.abc import Iterator, Sequence

import torch
from PIL import Image, ImageOps
from torch import Tensor

from ....moa_attention.pictures import to_image
from ....moa_attention.training.cache.entries import CacheEntry, CacheSettings
from ....moa_attention.training.cache.preparing import draw_views
from ....moa_attention.training.config import PictureConfig, TrainConfig
from ....moa_attention.training.data.examples import CachedExamples, Example
from ....moa_attention.training.data.framing import load_picture
from ....moa_attention.training.lots import lots
from ....moa_attention.training.workers import Alone
from ....nodes.host.training.encoders import HostEncoders
from .contact import CELL, COLOURS, FAINT, INK, PAPER, Word, caption_lines, cell, tint, wrapped

ENOUGH = 20
"""Examples; whole batches are drawn until there are so many."""
REFERENCE, FRAME = 54, 3
"""Pixels of a reference's side, and of the frame in the colour of its subject."""


def draw_batches(
    examples: CachedExamples, encoders: HostEncoders, pictures: PictureConfig, config: TrainConfig, step: int
) -> Iterator[Image.Image]:
    """The examples of the batches after a step, one cell each, as the training draws them."""
    drawn = 0
    while drawn < ENOUGH:
        for lot in lots(step, config, Alone()):
            for entry, generator in zip(examples.entries_of(lot), lot.generators, strict=True):
                yield draw_example(entry, examples.draw(entry, generator), encoders, pictures, step + 1)
                drawn += 1
        step += 1


def draw_example(
    entry: CacheEntry, example: Example, encoders: HostEncoders, pictures: PictureConfig, step: int
) -> Image.Image:
    """The decoded latents under the masks, the references beside them, and what the text encoder's tokens are bound to."""
    picture = entry.picture
    assert picture is not None
    decoded = encoders.pictures(example.latents[None])[0]
    masks = torch.nn.functional.interpolate(example.masks[None], size=decoded.shape[:2], mode="nearest")[0]
    canvas = Image.new("RGB", (CELL, CELL), PAPER)
    shown = ImageOps.contain(to_image(tint(decoded, masks)), (CELL - REFERENCE - 3 * FRAME, CELL))
    canvas.paste(shown, (0, (CELL - shown.height) // 2))
    for number, reference in enumerate(references_of(entry, example, encoders, pictures)):
        framed = to_image(reference.movedim(0, -1)).resize((REFERENCE, REFERENCE))
        framed = ImageOps.expand(framed, FRAME, COLOURS[number % len(COLOURS)])
        canvas.paste(framed, (CELL - framed.width, number * (framed.height + FRAME)))
    return cell(canvas, picture.path, [*caption_of(entry, example), *slot_lines(entry, example, encoders, step)])


def references_of(
    entry: CacheEntry, example: Example, encoders: HostEncoders, pictures: PictureConfig
) -> Sequence[Tensor]:
    """The reference pictures: those of the example, or those of which it has the features; (3,side,side) each."""
    if example.references.ndim > 2:
        return list(example.references)
    assert entry.picture is not None
    loaded = load_picture(entry.picture, pictures.side)
    settings = CacheSettings(pictures.side, pictures.views, pictures.augmentation)
    bound = zip(example.choice.subjects, example.choice.views, strict=True)
    return [draw_views(entry.picture, loaded, subject, encoders.side, settings)[view] for subject, view in bound]


def caption_of(entry: CacheEntry, example: Example) -> list[list[Word]]:
    """The caption in lines; that of an example without a condition is empty."""
    assert entry.picture is not None
    if example.choice.dropped:
        return [[Word("empty caption, no subject's word", FAINT)]]
    return caption_lines(entry.picture.captions[example.choice.caption], example.choice.subjects)


def slot_lines(entry: CacheEntry, example: Example, encoders: HostEncoders, step: int) -> list[list[Word]]:
    """The step, and the token at each place of the slots with the number of its subject."""
    assert entry.picture is not None
    words = [Word(f"step {step}", FAINT)]
    caption = entry.picture.captions[example.choice.caption].text
    for place in [] if example.choice.dropped else example.slots.nonzero().flatten().tolist():
        subject = int(example.slots[place])
        colour = COLOURS[(subject - 1) % len(COLOURS)] if subject > 0 else INK
        words.append(Word(f"token {place} '{encoders.token(caption, place)}' is subject {subject}", colour))
    return wrapped(words)
