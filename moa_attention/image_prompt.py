"""Image prompts as the personalised branch: IP-Adapter's decoupled attention (arXiv 2308.06721), routed.

The personalised branch of a cross-attention layer is what the prior says plus an attention over a subject's image tokens:

    personal_s(z) = prior(z) + W_o Attention(z W_q, c_s W_k', c_s W_v')

Mixed with the prior, R_0 prior + Σ_s R_s personal_s = prior + Σ_s R_s W_o Attention_s, because R sums to one.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from .attention import attend
from .config import LayerSpec, MoAConfig
from .expert import Projections
from .layer import Attend, Observe, Routing
from .projection import Place
from .router import route_of
from .step import Step

Sees = Literal["embedding", "patches"]
"""A CLIP vision model's global embedding, or its patches before the last layer."""


class ImagePromptLayer(nn.Module):
    """W_k' and W_v' of one cross-attention layer; queries and W_o are the prior's."""

    def __init__(self, spec: LayerSpec, place: Place):
        super().__init__()
        options = {"bias": False, "device": place.device, "dtype": place.dtype}
        self.spec = spec
        self.to_k = place.operations.Linear(spec.context, spec.hidden, **options)
        self.to_v = place.operations.Linear(spec.context, spec.hidden, **options)

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
        """As `MoALayer.forward`, with image tokens (B,S,K,T) for context.

        Args:
            shares: (B,S,N), R_s of every subject.
            prior_bias: without effect; shares have their strength already.
        """
        subjects = context.shape[1]
        query, key, value = base.to_q(hidden), self.to_k(context), self.to_v(context)
        each = query[:, None].expand(-1, subjects, -1, -1).flatten(0, 1)
        seen = attend(each, key.flatten(0, 1), value.flatten(0, 1), self.spec.heads).unflatten(0, (-1, subjects))
        spoken = (shares[..., None].to(seen.dtype) * seen).sum(dim=1)
        if observe is not None:
            observe(self.spec, Routing(route_of(shares), query, key.flatten(1, 2), grid))
        # W_o without its bias, which is in the prior already; nothing at all where nobody speaks.
        return prior + (base.to_out(spoken) - base.to_out(torch.zeros_like(spoken[:1, :1])))


@dataclass(frozen=True)
class ImagePromptStep(Step):
    """Prepared once per call; `tokens` are (R,S,K,T), the same for every layer."""

    def context_for(self, spec: LayerSpec, hidden: Tensor, context: Tensor) -> Tensor:
        return self.tokens


class ImagePromptAdapter(nn.Module):
    """An image prompt adapter of one base model: every cross-attention layer's W_k' and W_v', and the way to image tokens.

    Args:
        config: only cross-attention layers; `image_width` is K·T, as a subject's feature are its image tokens.
        projection: from what the image encoder sees to image tokens (`projection.py`).
        sees, width: what that is, and how wide.
    """

    encoder = None
    has_routers = False

    def __init__(self, config: MoAConfig, projection: nn.Module, sees: Sees, width: int, place: Place):
        super().__init__()
        self.config, self.projection, self.sees, self.width = config, projection, sees, width
        self.layers = nn.ModuleDict({spec.name: ImagePromptLayer(spec, place) for spec in config.layers})

    def look(self, seen: Tensor) -> Tensor:
        """What the image encoder made of pictures, (B,F) or (B,P,F), to a subject's feature: -> (B,K·T)"""
        return self.projection(seen).flatten(1)

    def begin(
        self,
        context: Tensor,
        t: Tensor,
        slots: Tensor,
        features: Tensor,
        rows: Tensor | None,
        prior_bias: Tensor,
        weights: Tensor | None = None,
    ) -> Step:
        """As `MoAAdapter.begin`; neither text nor timestep has a say in the tokens, and weights are in the shares."""
        if rows is not None:
            slots, features = slots[rows], features[rows]
        return ImagePromptStep(rows, slots, features.unflatten(-1, (-1, self.config.text_width)), prior_bias)
