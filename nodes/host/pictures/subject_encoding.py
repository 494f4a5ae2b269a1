"""Reference pictures as a subject: one, or one in tiles."""

from __future__ import annotations

from dataclasses import replace
from typing import cast

import torch

from ....moa_attention.adapters.base import FACE_INPUTS
from ....moa_attention.subjects.mixing import CombineMode, combine
from ...sockets import LoadedAdapter, Subject, Tile
from .encoded import encode_once
from .tiles import cut_into_tiles
from .vision import CROP_CENTRE, TILES, Reference

FRAMES = "one per frame"
"""The choice beside those to combine several pictures."""


def subject_of(adapter: LoadedAdapter, reference: Reference, word: str, occurrence: int, how: str) -> Subject:
    """The subject of K pictures.

    Args: how: one of `COMBINE_MODES`, or `FRAMES`.
    Raises: ValueError as `encode_once`, and when the adapter does not allow this way to combine.
    """
    each, negative = encode_once(adapter, reference, word)
    made = Subject(word, occurrence, each[:1], adapter.encoder, tokens=tokens_in(adapter, each), negative=negative)
    if not made.tokens and how in ("concat", FRAMES):
        raise ValueError(
            f"'{how}' needs image tokens, and the adapter encodes '{word}' as one feature. In 'Encode Subject (MoA)', set 'combine' to "
            "'mean' or 'norm mean'."
        )
    if how == FRAMES:
        return made.with_features(each)
    return made.with_features(combine(list(each.split(1)), [1.0] * len(each), cast("CombineMode", how)))


def subject_in_tiles(adapter: LoadedAdapter, reference: Reference, word: str, occurrence: int, how: str) -> Subject:
    """The subject of K pictures of one size, cut into the same tiles.

    Raises: ValueError as `subject_of`, and when there is a mask or the adapter is no IP-Adapter that reads pictures alone.
    """
    module = adapter.patcher.model
    if not module.feature_is_tokens or module.requires.keys() & set(FACE_INPUTS) or reference.masks is not None:
        raise ValueError(
            f"'fit' of 'Encode Subject (MoA)' is '{TILES}', which needs an IP-Adapter without face embedding and no 'mask'. Choose another "
            "'fit', or disconnect 'mask'."
        )
    tiles = []
    for pictures, area in cut_into_tiles(reference.images):
        part = reference._replace(images=pictures, fit=CROP_CENTRE)
        tiles.append((subject_of(adapter, part, word, occurrence, how), area))
    return replace(tiles[0][0], tiles=tuple(Tile(subject.features, area) for subject, area in tiles))


def tokens_in(adapter: LoadedAdapter, features: torch.Tensor) -> int:
    """Image tokens of a feature (1,F); 0 where it is one feature."""
    module = adapter.patcher.model
    return features.shape[-1] // module.config.text_width if module.feature_is_tokens else 0
