"""The part of caching that the frozen models do: several pictures are encoded together."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from ..data.captions import long_caption
from ..data.encoders import Encoders
from ..data.pictures import BadPicture, Caption, TrainingPicture
from .entries import CacheSettings
from .preparing import PreparedPicture

Prepared = tuple[TrainingPicture, PreparedPicture | BadPicture]


class EncodedPicture(NamedTuple):
    """What training needs of a picture."""

    content: dict[str, Tensor]
    """By name: latents, masks; context, pooled and positions of each caption; features or cut-outs of each subject."""
    shape: tuple[int, int]
    """Of the framed picture, in pixels."""
    warnings: list[str]


@torch.no_grad()
def encode_chunk(
    chunk: Sequence[Prepared], encoders: Encoders, settings: CacheSettings, part: int
) -> list[EncodedPicture | BadPicture]:
    """Encode some pictures, those of one shape in one call. A picture that cannot be trained on is its error.

    Args: part: length of the context of one part of a caption.
    """
    good = {index: made for index, (_, made) in enumerate(chunk) if isinstance(made, PreparedPicture)}
    latents = encode_images({index: made.image for index, made in good.items()}, encoders)
    references = {index: made.references for index, made in good.items()}
    if settings.views:
        references = encode_views(references, encoders)
    found: list[EncodedPicture | BadPicture] = []
    for index, (picture, made) in enumerate(chunk):
        if isinstance(made, PreparedPicture):
            found.append(assemble(picture, made, latents[index], references[index], settings, encoders, part))
        else:
            found.append(made)
    return found


def encode_images(images: Mapping[int, Tensor], encoders: Encoders) -> dict[int, Tensor]:
    """(3,H,W) each -> latents (C,h,w) in 16 bits."""
    groups: dict[tuple[int, ...], list[int]] = {}
    for index, image in images.items():
        groups.setdefault(tuple(image.shape), []).append(index)
    found: dict[int, Tensor] = {}
    for indices in groups.values():
        latents = encoders.latents(torch.stack([images[index] for index in indices])).half()
        found |= dict(zip(indices, latents, strict=True))
    return found


def encode_views(views: Mapping[int, Sequence[Tensor]], encoders: Encoders) -> dict[int, list[Tensor]]:
    """The views (V,3,side,side) of every subject of each picture -> features (V,F) in 16 bits."""
    flat = [subject for subjects in views.values() for subject in subjects]
    if not flat:
        return {}
    encoded = iter(encoders.features(torch.cat(flat)).half().split([len(subject) for subject in flat]))
    return {index: [next(encoded) for _ in subjects] for index, subjects in views.items()}


def assemble(
    picture: TrainingPicture,
    made: PreparedPicture,
    latents: Tensor,
    references: Sequence[Tensor],
    settings: CacheSettings,
    encoders: Encoders,
    part: int,
) -> EncodedPicture | BadPicture:
    """The tensors of a picture with its captions; its error when a caption or a number cannot be used.

    Args: part: length of the context of one part of a caption.
    """
    kind = "features" if settings.views else "cutouts"
    content = {"latents": latents, "masks": made.masks}
    content |= {f"{kind}.{number}": tensor for number, tensor in enumerate(references)}
    try:
        for number, caption in enumerate(picture.captions):
            content |= {f"{name}.{number}": tensor for name, tensor in encode_caption(caption, encoders).items()}
        check_finite(content)
    except BadPicture as reason:
        return reason
    longest = max(len(content[f"context.{number}"]) for number in range(len(picture.captions)))
    parts = longest // part
    height, width = made.image.shape[1:]
    warnings = [*made.warnings, *([long_caption(parts)] if parts > 1 else [])]
    return EncodedPicture(content, (height, width), warnings)


def encode_caption(caption: Caption, encoders: Encoders) -> dict[str, Tensor]:
    """Context, pooled embedding and the positions of the subjects' tokens.

    Raises: BadPicture.
    """
    text = encoders.text(caption.text, caption.ends)
    return {"context": text.context.half(), "pooled": text.pooled.half(), "positions": torch.tensor(text.positions)}


def check_finite(content: Mapping[str, Tensor]) -> None:
    """Raises: BadPicture when an encoder, or the rounding to 16 bits, gives NaN or infinity."""
    for name, tensor in content.items():
        if not tensor.isfinite().all():
            kind = name.split(".")[0]
            raise BadPicture(f"non-finite {kind}: {name} of this picture contain NaN or infinity after encoding")
