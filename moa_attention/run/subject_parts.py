"""The part of R_1 that each subject has at a pixel (ours): R_1 is the share of all subjects of a row together.

Where the subjects have one prompt together, the personalised branch's attention to their tokens divides R_1: the quantity that
the object loss trains. Where subjects have shares of their own, the parts are in the ratio of these, too.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ..method.attention import resize, subject_attention
from ..method.layer import Routing
from ..method.spec import LayerSpec
from .listener import CallInfo

LAYERS = 6
"""The number of layers that are read: the parts differ little between layers, and each one read costs time."""


def layers_to_read(layers: Sequence[LayerSpec]) -> frozenset[str]:
    """Names of at most `LAYERS` cross-attention layers, evenly spread over the output stage, which locates subjects best."""
    cross = [spec for spec in layers if spec.is_cross]
    trained = [spec for spec in cross if spec.supervised] or cross
    chosen = [spec for spec in trained if spec.stage == "output"] or trained
    return frozenset(chosen[i * len(chosen) // LAYERS].name for i in range(LAYERS)) if chosen else frozenset()


def weights_of(spec: LayerSpec, routing: Routing, call: CallInfo) -> Tensor | None:
    """The weights (R,S,h,w) of a layer by which R_1 is divided; None where it distinguishes no subjects."""
    weights = None
    if routing.joint:
        query, key, mask = routing.query, routing.key, routing.mask
        attention = subject_attention(query, key, call.slots, call.count, spec.heads, mask).mean(dim=2)
        if routing.chosen is not None:
            empty = attention.new_zeros(*routing.personal.shape, call.count)
            attention = routing.chosen.put(empty, attention.mT).mT
        weights = attention
    if routing.shares is not None and routing.shares.shape[1] == call.count:
        weights = routing.shares if weights is None else weights * routing.shares
    return None if weights is None else weights.unflatten(2, routing.grid)


class SubjectParts:
    """Of one call with several subjects, the mean over the layers that were read."""

    def __init__(self, call: CallInfo):
        self.call = call
        self.total: Tensor | None = None
        """(R,S,h,w), the sum over layers, on the finest of their grids; on the device until `fix`."""

    def observe(self, spec: LayerSpec, routing: Routing) -> None:
        """Add one layer."""
        weights = weights_of(spec, routing, self.call)
        if weights is None:
            return
        weights = weights.detach().float()
        if self.total is None:
            self.total = weights
        elif weights[0, 0].numel() > self.total[0, 0].numel():
            self.total = weights + resize(self.total, (weights.shape[-2], weights.shape[-1]))
        else:
            self.total = self.total + resize(weights, (self.total.shape[-2], self.total.shape[-1]))

    def fix(self) -> Tensor | None:
        """The parts on the CPU, (R,S,h,w) float16, of the rows that follow no others; their sum over a row's subjects is 1. None where no
        layer distinguished them.

        Where all weights are 0, a row's subjects have equal parts.
        """
        if self.total is None:
            return None
        total, equal = self.total.cpu(), torch.zeros(*self.total.shape[:2], 1, 1)
        for row, subjects in enumerate(self.call.subjects):
            equal[row, list(subjects)] = 1 / max(len(subjects), 1)
        whole = total.sum(dim=1, keepdim=True)
        parts = torch.where(whole > 0, total / torch.where(whole > 0, whole, 1), equal).half()
        return parts[self.call.own_rows]
