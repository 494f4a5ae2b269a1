"""Attention with low-rank differences to all four of the prior's projections: what FaceID files bring beside image tokens.

Published as a LoRA for the whole model; here it is part of the personalised branch, so that it changes a subject's pixels
only (ours).
"""

from __future__ import annotations

from functools import partial

from torch import Tensor, nn

from .config import LayerSpec
from .expert import LowRank, Projections
from .layer import Attend, Heard, RoutedLayer, Said
from .projection import Place
from .router import mix


class Tuned(nn.Module):
    """The differences of one layer."""

    def __init__(self, spec: LayerSpec, rank: int, place: Place):
        super().__init__()

        def difference(width: int) -> LowRank:
            operations, device, dtype = place
            return LowRank(width, spec.hidden, rank, operations=operations, device=device, dtype=dtype)

        self.to_q, self.to_out = difference(spec.hidden), difference(spec.hidden)
        self.to_k, self.to_v = difference(spec.context), difference(spec.context)

    def on(self, base: Projections) -> Projections:
        """The prior's projections with these differences."""
        return Projections(*(partial(getattr(self, name), prior=getattr(base, name)) for name in base._fields))


class TunedLayer(RoutedLayer):
    """A self-attention layer: R_0 prior(z) + R_1 tuned(z)."""

    def __init__(self, spec: LayerSpec, rank: int, place: Place):
        super().__init__()
        self.spec, self.tuned = spec, Tuned(spec, rank, place)
        self.router = None

    def ask(self, hidden: Tensor, base: Projections) -> Tensor:
        return self.tuned.on(base).to_q(hidden)

    def listen(self, context: Tensor, base: Projections) -> Heard:
        """
        Args: context: (B,N,D) z itself.
        """
        own = self.tuned.on(base)
        return Heard(own.to_k(context), own.to_v(context))

    def speak(
        self, query: Tensor, heard: Heard, prior: Tensor, said: Said, base: Projections, attend: Attend
    ) -> Tensor:
        seen = attend(query, heard.key, heard.value, self.spec.heads)
        return mix(prior, self.tuned.on(base).to_out(seen), said.personal)
