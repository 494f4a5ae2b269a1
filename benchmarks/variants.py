"""The compared variants: the stock model, MoA in its modes, and IP-Adapter-plus as it is commonly attached."""

from __future__ import annotations

from typing import Any, NamedTuple

from torch import nn

from ..moa_attention.method.layer import Observe
from ..moa_attention.routers import ROUTERS
from ..moa_attention.run.budget import ALL, Budget
from ..moa_attention.run.guidance import SubjectGuidance
from ..moa_attention.run.listener import CallInfo, RunListener
from ..moa_attention.run.strength import PRIOR_ONLY
from ..moa_attention.run.trace import Trace
from ..nodes.host.model.patch import apply_adapter
from .bases import ENCODER, Pair
from .ip_adapter import ImagePrompts, attach_image_prompts

SUBJECTS = (1, 2, 4)
SHARES = (0.5, 0.25, 0.1, 0.05)


class SamplingVariant(NamedTuple):
    """A way to sample."""

    mode: str
    routed: float | None = 1.0
    """Share of the pixels for which the added branch is computed; None where it does not apply."""
    subjects: int = 1

    @property
    def conditioned(self) -> int:
        """Subjects on the conditioning; an IP-Adapter's is attached to the model."""
        return 0 if self.mode == "ip-adapter-plus" else self.subjects

    @property
    def prior_row(self) -> bool:
        """Whether the prior computes the prompt without its subjects, too."""
        return self.mode == "keep background"


class Attached(NamedTuple):
    """A model with what a variant adds."""

    model: Any
    """The host's patcher."""
    weights: nn.Module
    """The added ones."""


STOCK = SamplingVariant("stock", None, 0)
NO_SUBJECT = SamplingVariant("no subject", None, 0)
ZERO_STRENGTH = SamplingVariant("strength 0", None, 1)
IP_ADAPTER = SamplingVariant("ip-adapter-plus")


def dense(subjects: int = 1) -> SamplingVariant:
    return SamplingVariant("dense", 1.0, subjects)


def sparse(routed: float, subjects: int = 1) -> SamplingVariant:
    return SamplingVariant("sparse", routed, subjects)


def routed_by(router: str, subjects: int = 1) -> SamplingVariant:
    """With a training-free router."""
    return SamplingVariant(router, 1.0, subjects)


def keep_background(routed: float = 1.0) -> SamplingVariant:
    return SamplingVariant("keep background", routed)


def counted_variants() -> list[SamplingVariant]:
    """All: counting takes no arithmetic."""
    ours = [[dense(n), *(sparse(share, n) for share in SHARES)] for n in SUBJECTS]
    return [*(variant for same in ours for variant in same), keep_background(), NO_SUBJECT, ZERO_STRENGTH, IP_ADAPTER]


def timed_variants(brief: bool) -> list[SamplingVariant]:
    """A selection; in brief one subject, compared with the stock model only."""
    ours = [dense(), sparse(0.25), sparse(0.1)]
    return ours if brief else [*ours, dense(4), NO_SUBJECT, IP_ADAPTER]


def attach(pair: Pair, variant: SamplingVariant) -> Attached:
    """A clone of the base model with what the variant adds."""
    if variant == STOCK:
        return Attached(pair.model, nn.Module())
    if variant == IP_ADAPTER:
        prompts = ImagePrompts(pair.model, pair.device, pair.dtype)
        return Attached(attach_image_prompts(pair.model, prompts), prompts)
    layers = pair.adapter.model.config.layers

    class OneCall(RunListener):
        """A trace as the node makes it, kept for one call only."""

        def begin_call(self, call: CallInfo) -> Observe | None:
            return Trace(layers).begin_call(call)

    patched = apply_adapter(
        pair.model,
        pair.adapter,
        encoder=ENCODER,
        prior_bias=PRIOR_ONLY if variant == ZERO_STRENGTH else 0.0,
        budget=ALL if variant.routed is None else Budget(variant.routed),
        router=ROUTERS[variant.mode]() if variant.mode in ROUTERS else None,
        guidance=SubjectGuidance(1.0, layers) if variant.prior_row else None,
        observers=[OneCall()],
    )
    return Attached(patched, pair.adapter.model)


def weight_bytes(module: nn.Module) -> int:
    return sum(p.numel() * p.element_size() for p in module.parameters())
