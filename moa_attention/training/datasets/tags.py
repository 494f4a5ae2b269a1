"""Captions of tags, the parts between commas, in other orders; every subject stays bound to its word."""

from __future__ import annotations

import re

import torch
from torch import Generator

from ..data.pictures import Caption

SEPARATOR = ", "


def shuffled(caption: Caption, kept: int, dropout: float, generator: Generator) -> Caption:
    """The caption with its tags in another order.

    Args:
        kept: how many tags stay in front.
        dropout: probability that a tag is left out. Those with a subject's word stay.
    """
    tags = [match.span() for match in re.finditer(r"[^,\s][^,]*", caption.text)]
    holders = [next(n for n, (_, stop) in enumerate(tags) if end <= stop) for end in caption.ends]
    chance = torch.rand(len(tags), generator=generator).tolist()
    order = torch.randperm(max(0, len(tags) - kept), generator=generator).tolist()
    front = list(range(min(kept, len(tags))))
    rest = [n + kept for n in order if n + kept in holders or chance[n + kept] >= dropout]
    starts: dict[int, int] = {}
    text = ""
    for tag in front + rest:
        text += SEPARATOR if text else ""
        starts[tag] = len(text)
        text += caption.text[slice(*tags[tag])].rstrip()
    ends = (starts[tag] + end - tags[tag][0] for tag, end in zip(holders, caption.ends, strict=True))
    return Caption(text, tuple(ends))
