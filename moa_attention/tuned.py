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
from .router import Router, mix, route_of, share_out


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
        self.router: Router | None = None

    def forward(
        self,
        hidden: Tensor,
        context: Tensor,
        prior: Tensor,
        base: Projections,
        grid: tuple[int, int],
        *,
        prior_bias: Tensor | float = 0.0,
        shares: Tensor | None = None,
        within: Tensor | None = None,
        attend: Attend = attend,
        observe: Observe | None = None,
    ) -> Tensor:
        """As `MoALayer.forward`."""
        own, route = self.tuned.on(base), route_of(share_out(self.router, hidden, prior_bias, shares, within))
        query, key = own.to_q(hidden), own.to_k(context)
        personal = own.to_out(attend(query, key, own.to_v(context), self.spec.heads))
        if observe is not None:
            observe(self.spec, Routing(route, query, key, grid))
        return mix(prior, personal, route)
