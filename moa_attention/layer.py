"""One MoA layer: the personalised expert and the router beside a given prior (eqs. 6–8)."""

from __future__ import annotations

from collections.abc import Callable
from types import ModuleType
from typing import NamedTuple

import torch
from torch import Tensor, nn

from .attention import attend
from .config import LayerSpec, MoAConfig
from .expert import LowRank, Projections, project
from .router import PERSONAL, Router, mix, route_of


class Routing(NamedTuple):
    """What an observer of a layer sees. The picture a user looks at is the quantity that was trained."""

    route: Tensor
    """(B,N,2), R_0 prior and R_1 personalised."""
    query: Tensor
    """(B,N,D), of the personalised branch."""
    key: Tensor
    """(B,M,D), of the personalised branch."""
    grid: tuple[int, int]
    """(h, w) with h·w = N."""


Observe = Callable[[LayerSpec, Routing], None]
Attend = Callable[[Tensor, Tensor, Tensor, int], Tensor]


def attend_to_each(attend: Attend, query: Tensor, key: Tensor, value: Tensor, heads: int) -> Tensor:
    """What every pixel sees of each subject alone: (B,N,D), (B,S,M,D) twice -> (B,S,N,D)."""
    subjects = key.shape[1]
    each = query[:, None].expand(-1, subjects, -1, -1).flatten(0, 1)
    return attend(each, key.flatten(0, 1), value.flatten(0, 1), heads).unflatten(0, (-1, subjects))


class MoALayer(nn.Module):
    """Z' = R_0 ⊙ prior(z) + R_1 ⊙ personal(z) for one attention layer of the U-Net (eq. 6).

    It owns W_q, W_k, W_v of the personalised expert (eq. 8), the router (eq. 7) and, only where the file says so, an
    output projection. The prior is handed in, already computed by whoever owns the base model.
    """

    def __init__(
        self,
        spec: LayerSpec,
        config: MoAConfig,
        *,
        operations: ModuleType | type = nn,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ):
        super().__init__()
        place = {"device": device, "dtype": dtype}

        def projection(width: int) -> nn.Module:
            if config.rank:
                return LowRank(width, spec.hidden, config.rank, operations=operations, **place)
            return operations.Linear(width, spec.hidden, bias=False, **place)

        self.spec = spec
        self.to_q, self.to_k, self.to_v = projection(spec.hidden), projection(spec.context), projection(spec.context)
        own = config.output_projection == "own"
        self.to_out = operations.Linear(spec.hidden, spec.hidden, **place) if own else None
        self.router = None
        if config.router != "none":
            self.router = Router(spec.hidden, config.router, operations=operations, **place)

    def init_from(self, attention: nn.Module) -> None:
        """Start the expert as the prior (both experts start from the pretrained layer) and zero the router."""
        for name in ("to_q", "to_k", "to_v"):
            own = getattr(self, name)
            if isinstance(own, LowRank):
                own.zero()
            else:
                own.load_state_dict(attention.get_submodule(name).state_dict())
        if self.to_out is not None:
            self.to_out.load_state_dict(attention.get_submodule("to_out.0").state_dict())
        if self.router is not None:
            self.router.zero()

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
        """Mix the personalised branch into the prior.

        Args:
            hidden: (B,N,D) the normed hidden state z that the prior's attention saw too.
            context: (B,M,C) z itself for self-attention, the multimodal prompt for cross-attention (eq. 9); (B,S,M,C) with
                shares of several subjects, a prompt with each of them alone.
            prior: (B,N,D) what the base model's attention produced, after its output projection.
            base: the prior's own projections. Its W_o serves both: as R sums to one, mixing after W_o equals mixing before.
            grid: (h, w) of the latent pixels, passed on to `observe`.
            prior_bias: added to the prior's logit (ours).
            shares: (B,S,N), an untrained router's; without it the layer's own router decides (ours).
            within: (B,S,N), how much each subject may speak at most where the layer's own router decides (ours).
            attend: the attention kernel, `(q, k, v, heads) -> (B,N,D)`.
            observe: called with this layer's `Routing`.

        Returns: (B,N,D)
        Raises: ValueError when there are neither shares nor a router.
        """
        query, key = project(self.to_q, base.to_q, hidden), project(self.to_k, base.to_k, context)
        value = project(self.to_v, base.to_v, context)
        if context.ndim == 4 and shares is not None:
            parts = (shares / shares.sum(dim=1, keepdim=True).clamp(min=1e-6)).to(query.dtype)
            personal = torch.einsum("bsn,bsnd->bnd", parts, attend_to_each(attend, query, key, value, self.spec.heads))
            key = key.flatten(1, 2)
        else:
            personal = attend(query, key, value, self.spec.heads)
        personal = (self.to_out or base.to_out)(personal)
        route = self.decide(hidden, prior_bias) if shares is None else route_of(shares)
        if within is not None:
            route = route_of((within.amax(dim=1) * route[..., PERSONAL])[:, None])
        if observe is not None:
            observe(self.spec, Routing(route, query, key, grid))
        return mix(prior, personal, route)

    def decide(self, hidden: Tensor, prior_bias: Tensor | float = 0.0) -> Tensor:
        """R by the layer's own router: (B,N,D) -> (B,N,2).

        Raises: ValueError when there is none.
        """
        if self.router is None:
            raise ValueError(
                f"Layer {self.spec.name} has no router of its own; it must be told the shares of subjects."
            )
        return self.router(hidden, prior_bias)
