"""One routed layer: the personalised expert and the router beside a given prior (eqs. 6–8)."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch
from einops import rearrange
from torch import Tensor, nn

from .attention import attend
from .expert import LowRank, Projections, project
from .factory import PLAIN, Factory
from .router import Router, max_share, mix
from .sparse import Chosen, strongest
from .spec import LayerSpec, MoAConfig

Attend = Callable[..., Tensor]
"""An attention kernel, `(q, k, v, heads, mask=None) -> (B,N,D)`; the mask as of `attend`."""
Pixels = int | Sequence[int] | None
"""The number of pixels of every row for which the personalised branch is computed, or of each row; None: all."""
PriorAttention = Callable[[], tuple[Tensor, Tensor]]
"""Computes the prior's own queries (R,N,D) and keys (R,M,D) of a layer, for the rows with a subject."""


class Routing(NamedTuple):
    """What an observer of a layer receives: the map that users are shown is the quantity that was trained."""

    personal: Tensor
    """(B,N), R_1; R_0 is the rest to one."""
    query: Tensor
    """(B,N,D), of the personalised branch; only of the chosen pixels where routing is sparse."""
    key: Tensor
    """(B,M,D), of the personalised branch."""
    grid: tuple[int, int]
    """(h, w) with h·w = N."""
    prior: PriorAttention | None = None
    """Given by an attachment, for cross-attention layers."""
    shares: Tensor | None = None
    """(B,S,N), R_s of every subject (ours), where these make up R_1."""
    chosen: Chosen | None = None
    """The pixels of `query` where routing is sparse."""
    joint: bool = False
    """Whether the keys are those of one prompt with all subjects."""
    mask: Tensor | None = None
    """Of `KeysValues`."""


Observe = Callable[[LayerSpec, Routing], None]


class KeysValues(NamedTuple):
    """Keys and values of the personalised branch."""

    key: Tensor
    """(B,M,D); (B,S,M,D) with each subject in a prompt of its own."""
    value: Tensor
    text: tuple[Tensor, Tensor] | None = None
    """Keys and values of the text, for branches that attend to it apart from the image tokens."""
    zero_output: Tensor | float = 0.0
    """(1,1,D), the output projection of zeros, for branches from whose output it is subtracted."""
    mask: Tensor | None = None
    """(B,1,M), or (B,S,1,M) with each subject in a prompt of its own: added to the logits; None: every token counts."""
    folded: int = 0
    """The number H of heads where W_q is in the keys and W_o in the values, both (B,S,H·M,D): z itself is then the query. Else 0."""


class Limits(NamedTuple):
    """What bounds or replaces the layer's own router (ours)."""

    prior_bias: Tensor | float = 0.0
    """Added to the prior's logit."""
    shares: Tensor | None = None
    """(B,S,N), the shares of a training-free router, which replace those of the layer's own."""
    bounds: Tensor | None = None
    """(B,S,N), each subject's largest part of the share that the layer's own router gives."""
    gate: Gate | None = None
    """That of `shares`, where it is known already."""


NO_LIMITS = Limits()


@dataclass(frozen=True)
class Gate:
    """The share of the personalised branch at every pixel."""

    personal: Tensor
    """(B,N), R_1."""
    shares: Tensor | None = None
    """(B,S,N), R_s of every subject (ours), where these make up R_1."""
    derived: dict[Any, Tensor] = field(default_factory=dict, init=False, compare=False, repr=False)
    """What several layers need of the shares, computed once."""

    def nowhere(self, precision: torch.dtype) -> Tensor:
        """(B,N,1) bool, where R_1 is 0 in a precision."""
        if precision not in self.derived:
            self.derived[precision] = (self.personal.to(precision) == 0)[..., None]
        return self.derived[precision]

    def by_subject_in(self, precision: torch.dtype) -> Tensor:
        """R_s in a precision, (B,S,N,1)."""
        if ("shares", precision) not in self.derived:
            self.derived["shares", precision] = self.by_subject()[..., None].to(precision)
        return self.derived["shares", precision]

    def by_subject(self) -> Tensor:
        """R_s, (B,S,N); (B,1,N) where all subjects have the same."""
        return self.personal[:, None] if self.shares is None else self.shares

    def at(self, chosen: Chosen) -> Gate:
        """The gate of some pixels."""
        return Gate(chosen.personal, None if self.shares is None else chosen.take(self.shares.mT).mT)


def without_unshared(each: Tensor, shares: Tensor) -> Tensor:
    """Outputs (B,S,N,D) of several subjects, 0 where a subject's share, (B,S,N), is 0: times 0, NaN would remain NaN."""
    return each if each.shape[1] == 1 else each.masked_fill((shares.to(each.dtype) == 0)[..., None], 0)


def keep_prior(mixed: Tensor, prior: Tensor, gate: Gate) -> Tensor:
    """`mixed` (B,N,D), but the prior itself (B,N,D) where R_1 is 0, whatever the branch computed there."""
    return torch.where(gate.nowhere(prior.dtype), prior, mixed)


def attend_to_each(
    attend: Attend, query: Tensor, key: Tensor, value: Tensor, heads: int, mask: Tensor | None = None
) -> Tensor:
    """Attention to each subject alone: (B,N,D), (B,S,M,D) twice -> (B,S,N,D); the mask as of `KeysValues`."""
    subjects = key.shape[1]
    each = query[:, None].expand(-1, subjects, -1, -1)
    q, k, v = (rearrange(x, "b s n d -> (b s) n d") for x in (each, key, value))
    attended = attend(q, k, v, heads, None if mask is None else mask.flatten(0, 1))
    return rearrange(attended, "(b s) n d -> b s n d", s=subjects)


class RoutedLayer(nn.Module):
    """Z' = R_0 ⊙ prior(z) + R_1 ⊙ personal(z) for one attention layer (eq. 6); subclasses define `personal`.

    The prior is an argument, computed by the base model's own attention.
    """

    spec: LayerSpec
    router: Router | None

    def forward(
        self,
        hidden: Tensor,
        prior: Tensor,
        base: Projections,
        gate: Gate,
        keys_values: KeysValues | None,
        grid: tuple[int, int],
        *,
        pixels: Pixels = None,
        attend: Attend = attend,
        observe: Observe | None = None,
    ) -> Tensor:
        """Mix the personalised branch into the prior.

        Args:
            hidden: (B,N,D) the normed hidden state z, input of the prior's attention, too.
            prior: (B,N,D) the base model's attention, after its output projection.
            base: the prior's own projections.
            gate: of `gate`.
            keys_values: of `keys_values`; None only where `pixels` is 0.
            grid: (h, w) of the latent pixels, passed on to `observe`.
            pixels: how many pixels, those of the largest R_1, the branch is computed for (ours).
            attend: the attention kernel.
            observe: called with this layer's `Routing`.

        Returns: (B,N,D)
        """
        chosen = None
        if keys_values is None:
            query = key = hidden[:, :0]
            mixed = prior
        else:
            key = keys_values.key if keys_values.key.ndim == 3 else rearrange(keys_values.key, "b s m d -> b (s m) d")
            if pixels is None or (isinstance(pixels, int) and pixels >= hidden.shape[1]):
                query = hidden if keys_values.folded else self.queries(hidden, base)
                mixed = keep_prior(self.mix(query, keys_values, prior, gate, base, attend), prior, gate)
            else:
                chosen = strongest(gate.personal, pixels)
                part, own_prior = chosen.take(hidden), chosen.take(prior)
                query = part if keys_values.folded else self.queries(part, base)
                own_gate = gate.at(chosen)
                part = self.mix(query, keys_values, own_prior, own_gate, base, attend)
                mixed = chosen.put(prior, keep_prior(part, own_prior, own_gate))
        if observe is not None:
            joint = keys_values is not None and keys_values.key.ndim == 3
            mask = keys_values.mask if keys_values is not None and joint else None
            observe(self.spec, Routing(gate.personal, query, key, grid, None, gate.shares, chosen, joint, mask))
        return mixed

    def gate(self, hidden: Tensor, limits: Limits = NO_LIMITS) -> Gate:
        """The shares of a training-free router, else those of the layer's own within the bounds (eq. 5): (B,N,D) -> Gate.

        Raises: ValueError when there are neither shares nor a router.
        """
        if limits.shares is not None:
            return limits.gate or Gate(max_share(limits.shares), limits.shares)
        if self.router is None:
            raise ValueError(f"Layer {self.spec.name} has no router of its own and needs the shares of subjects.")
        own = self.router(hidden, limits.prior_bias)
        if limits.bounds is None:
            return Gate(own)
        bounded = own[:, None] * limits.bounds
        return Gate(max_share(bounded), bounded)

    def changes_prior(self, base: Projections) -> bool:
        """Whether the branch is the prior's own attention, but with changed projections."""
        del base
        return False

    @abstractmethod
    def queries(self, hidden: Tensor, base: Projections) -> Tensor:
        """The personalised branch's queries: (B,N,D) -> (B,N,D)."""

    @abstractmethod
    def keys_values(self, context: Any, base: Projections) -> KeysValues:
        """Its keys and values.

        Args: context: (B,N,D) z for self-attention; for cross-attention the prompt, in the form its kind of adapter uses.
        """

    @abstractmethod
    def mix(
        self, query: Tensor, keys_values: KeysValues, prior: Tensor, gate: Gate, base: Projections, attend: Attend
    ) -> Tensor:
        """The mixture of both branches: queries and prior (B,N,D) -> (B,N,D). Its values where R_1 is 0 are not used."""


class MoALayer(RoutedLayer):
    """The paper's layer.

    It owns W_q, W_k, W_v of the personalised expert (eq. 8), the router (eq. 7) and, for files with
    `output_projection = own`, an output projection. Otherwise the prior's W_o serves both: as R sums to one, mixing after W_o
    equals mixing before.
    """

    def __init__(self, spec: LayerSpec, config: MoAConfig, factory: Factory = PLAIN):
        super().__init__()

        def projection(width: int) -> nn.Module:
            if config.rank:
                return LowRank(width, spec.hidden, config.rank, factory)
            return factory.linear(width, spec.hidden, bias=False)

        self.spec = spec
        self.to_q, self.to_k, self.to_v = projection(spec.hidden), projection(spec.context), projection(spec.context)
        self.to_out = factory.linear(spec.hidden, spec.hidden) if config.output_projection == "own" else None
        self.router = None if config.router == "none" else Router(spec.hidden, config.router, factory)

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

    def queries(self, hidden: Tensor, base: Projections) -> Tensor:
        return project(self.to_q, base.to_q, hidden)

    def keys_values(self, context: Tensor, base: Projections) -> KeysValues:
        """
        Args: context: (B,M,C) z for self-attention, the multimodal prompt for cross-attention (eq. 9); (B,S,M,C) a prompt
            for each subject alone, where several subjects have shares of their own.
        """
        return KeysValues(project(self.to_k, base.to_k, context), project(self.to_v, base.to_v, context))

    def mix(
        self, query: Tensor, keys_values: KeysValues, prior: Tensor, gate: Gate, base: Projections, attend: Attend
    ) -> Tensor:
        key, value, heads, mask = keys_values.key, keys_values.value, self.spec.heads, keys_values.mask
        if key.ndim == 4:
            shares = gate.by_subject()
            parts = (shares / shares.sum(dim=1, keepdim=True).clamp(min=1e-6)).to(query.dtype)
            each = without_unshared(attend_to_each(attend, query, key, value, heads, mask), parts)
            attended = torch.einsum("bsn,bsnd->bnd", parts, each)
        else:
            attended = attend(query, key, value, heads, mask)
        return mix(prior, (self.to_out or base.to_out)(attended), gate.personal)
