"""Attention with low-rank differences to all four of the prior's projections: what FaceID files bring beside image tokens.

Published as a LoRA for the whole model; here it is part of the personalised branch, so that it changes a subject's pixels
only (ours).
"""

from __future__ import annotations

from functools import partial

from torch import Tensor, nn

from .attention import attend
from .config import LayerSpec
from .expert import LowRank, Projections
from .layer import Attend, Observe, Routing
from .projection import Place
from .router import mix, route_of


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


class TunedLayer(nn.Module):
    """A self-attention layer: R_0 prior(z) + R_1 tuned(z)."""

    def __init__(self, spec: LayerSpec, rank: int, place: Place):
        super().__init__()
        self.spec, self.tuned = spec, Tuned(spec, rank, place)

    def forward(
        self,
        hidden: Tensor,
        context: Tensor,
        prior: Tensor,
        base: Projections,
        grid: tuple[int, int],
        *,
        shares: Tensor,
        prior_bias: Tensor | float = 0.0,
        attend: Attend = attend,
        observe: Observe | None = None,
    ) -> Tensor:
        """As `MoALayer.forward` where an untrained router decides."""
        own = self.tuned.on(base)
        query, key, route = own.to_q(hidden), own.to_k(context), route_of(shares)
        personal = own.to_out(attend(query, key, own.to_v(context), self.spec.heads))
        if observe is not None:
            observe(self.spec, Routing(route, query, key, grid))
        return mix(prior, personal, route)
