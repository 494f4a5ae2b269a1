"""One MoA layer: the personalised expert and the router beside a given prior (eqs. 6–8)."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from types import ModuleType
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from .attention import attend
from .config import LayerSpec, MoAConfig
from .expert import LowRank, Projections, project
from .router import Router, loudest, mix
from .sparse import Winners, strongest


class Routing(NamedTuple):
    """What an observer of a layer sees. The picture a user looks at is the quantity that was trained."""

    personal: Tensor
    """(B,N), R_1; R_0 is the rest to one."""
    query: Tensor
    """(B,N,D), of the personalised branch; only the winners' where routing is sparse."""
    key: Tensor
    """(B,M,D), of the personalised branch."""
    grid: tuple[int, int]
    """(h, w) with h·w = N."""


class Heard(NamedTuple):
    """What the personalised branch attends to, projected."""

    key: Tensor
    """(B,M,D); (B,S,M,D) of each subject alone."""
    value: Tensor
    words: tuple[Tensor, Tensor] | None = None
    """Keys and values of the text, where an image prompt is heard beside it."""
    silence: Tensor | float = 0.0
    """(1,1,D) what the output projection makes of nothing, where that is not to count."""


class Said(NamedTuple):
    """Who speaks at every pixel."""

    personal: Tensor
    """(B,N), R_1."""
    shares: Tensor | None = None
    """(B,S,N), R_s of every subject (ours), where they come to R_1 together."""

    def each(self) -> Tensor:
        """R_s, (B,S,N); (B,1,N) where the same goes for all."""
        return self.personal[:, None] if self.shares is None else self.shares

    def at(self, won: Winners) -> Said:
        """That of some pixels."""
        return Said(won.personal, None if self.shares is None else won.take(self.shares.mT).mT)


Observe = Callable[[LayerSpec, Routing], None]
Attend = Callable[[Tensor, Tensor, Tensor, int], Tensor]


def attend_to_each(attend: Attend, query: Tensor, key: Tensor, value: Tensor, heads: int) -> Tensor:
    """What every pixel sees of each subject alone: (B,N,D), (B,S,M,D) twice -> (B,S,N,D)."""
    subjects = key.shape[1]
    each = query[:, None].expand(-1, subjects, -1, -1).flatten(0, 1)
    return attend(each, key.flatten(0, 1), value.flatten(0, 1), heads).unflatten(0, (-1, subjects))


class RoutedLayer(nn.Module):
    """Z' = R_0 ⊙ prior(z) + R_1 ⊙ personal(z) for one attention layer of the U-Net (eq. 6); kinds say what `personal` is.

    The prior is handed in, already computed by whoever owns the base model.
    """

    spec: LayerSpec
    router: Router | None

    def forward(
        self,
        hidden: Tensor,
        context: Any,
        prior: Tensor,
        base: Projections,
        grid: tuple[int, int],
        *,
        prior_bias: Tensor | float = 0.0,
        shares: Tensor | None = None,
        within: Tensor | None = None,
        pixels: int | None = None,
        attend: Attend = attend,
        observe: Observe | None = None,
    ) -> Tensor:
        """Mix the personalised branch into the prior.

        Args:
            hidden: (B,N,D) the normed hidden state z that the prior's attention saw too.
            context: what `listen` takes, or has made of it.
            prior: (B,N,D) what the base model's attention produced, after its output projection.
            base: the prior's own projections.
            grid: (h, w) of the latent pixels, passed on to `observe`.
            prior_bias: added to the prior's logit (ours).
            shares: (B,S,N), an untrained router's; without it the layer's own router decides (ours).
            within: (B,S,N), how much each subject may speak at most where the layer's own router decides (ours).
            pixels: for how many pixels of a row, those of the largest R_1, the branch is computed; None: for all (ours).
            attend: the attention kernel, `(q, k, v, heads) -> (B,N,D)`.
            observe: called with this layer's `Routing`.

        Returns: (B,N,D)
        Raises: ValueError when there are neither shares nor a router.
        """
        said = self.decide(hidden, prior_bias, shares, within)
        if pixels == 0:
            heard, query, mixed = Heard(hidden[:, :0], hidden[:, :0]), hidden[:, :0], prior
        else:
            heard = context if isinstance(context, Heard) else self.listen(context, base)
            won = None if pixels is None or pixels >= hidden.shape[1] else strongest(said.personal, pixels)
            query = self.ask(hidden if won is None else won.take(hidden), base)
            if won is None:
                mixed = self.speak(query, heard, prior, said, base, attend)
            else:
                mixed = won.put(prior, self.speak(query, heard, won.take(prior), said.at(won), base, attend))
        if observe is not None:
            key = heard.key if heard.key.ndim == 3 else heard.key.flatten(1, 2)
            observe(self.spec, Routing(said.personal, query, key, grid))
        return mixed

    def decide(
        self,
        hidden: Tensor,
        prior_bias: Tensor | float = 0.0,
        shares: Tensor | None = None,
        within: Tensor | None = None,
    ) -> Said:
        """By shares given from outside, else by the layer's own router where each may speak (eq. 5).

        Args as those of `forward`.
        Raises: ValueError when there are neither shares nor a router.
        """
        if shares is not None:
            return Said(loudest(shares), shares)
        if self.router is None:
            raise ValueError(
                f"Layer {self.spec.name} has no router of its own; it must be told the shares of subjects."
            )
        own = self.router(hidden, prior_bias)
        if within is None:
            return Said(own)
        bounded = own[:, None] * within
        return Said(loudest(bounded), bounded)

    @abstractmethod
    def ask(self, hidden: Tensor, base: Projections) -> Tensor:
        """The personalised branch's queries: (B,N,D) -> (B,N,D)."""

    @abstractmethod
    def listen(self, context: Any, base: Projections) -> Heard:
        """Its keys and values."""

    @abstractmethod
    def speak(
        self, query: Tensor, heard: Heard, prior: Tensor, said: Said, base: Projections, attend: Attend
    ) -> Tensor:
        """The mixture of both branches: queries and prior (B,N,D) -> (B,N,D)."""


class MoALayer(RoutedLayer):
    """The paper's layer.

    It owns W_q, W_k, W_v of the personalised expert (eq. 8), the router (eq. 7) and, only where the file says so, an
    output projection. Else the prior's W_o serves both: as R sums to one, mixing after W_o equals mixing before.
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

    def ask(self, hidden: Tensor, base: Projections) -> Tensor:
        return project(self.to_q, base.to_q, hidden)

    def listen(self, context: Tensor, base: Projections) -> Heard:
        """
        Args: context: (B,M,C) z itself for self-attention, the multimodal prompt for cross-attention (eq. 9); (B,S,M,C)
            a prompt with each subject alone, where shares of several are given.
        """
        return Heard(project(self.to_k, base.to_k, context), project(self.to_v, base.to_v, context))

    def speak(
        self, query: Tensor, heard: Heard, prior: Tensor, said: Said, base: Projections, attend: Attend
    ) -> Tensor:
        if heard.key.ndim == 4:
            shares = said.each()
            parts = (shares / shares.sum(dim=1, keepdim=True).clamp(min=1e-6)).to(query.dtype)
            each = attend_to_each(attend, query, heard.key, heard.value, self.spec.heads)
            seen = torch.einsum("bsn,bsnd->bnd", parts, each)
        else:
            seen = attend(query, heard.key, heard.value, self.spec.heads)
        return mix(prior, (self.to_out or base.to_out)(seen), said.personal)
