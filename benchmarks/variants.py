"""What is compared: the stock model, MoA in its modes, and what people use today."""

from __future__ import annotations

from typing import Any, NamedTuple

from torch import Tensor, nn

from ..moa_attention.budget import ALL, Budget
from ..moa_attention.layer import Observe
from ..moa_attention.trace import Trace
from ..nodes.call import PRIOR_ONLY
from ..nodes.patch import apply_adapter
from .bases import ENCODER, Pair
from .ip_adapter import ImagePrompts, attach_image_prompts

SUBJECTS = (1, 2, 4)
SHARES = (0.5, 0.25, 0.1, 0.05)


class Variant(NamedTuple):
    """One way to sample."""

    mode: str
    routed: float | None = 1.0
    """Share of the pixels that the added branch computes; None where it does not apply."""
    subjects: int = 1

    @property
    def carried(self) -> int:
        """Subjects on the conditioning; an IP-Adapter's rides on the model."""
        return 0 if self.mode == "ip-adapter-plus" else self.subjects


class Attached(NamedTuple):
    """A model that is ready to be called."""

    model: Any
    """The host's patcher."""
    weights: nn.Module
    """What was added to the base's."""


STOCK = Variant("stock", None, 0)
NOBODY = Variant("no subject", None, 0)
SILENT = Variant("strength 0", None, 1)
PEER = Variant("ip-adapter-plus")


def dense(subjects: int = 1) -> Variant:
    return Variant("dense", 1.0, subjects)


def sparse(routed: float, subjects: int = 1) -> Variant:
    return Variant("sparse", routed, subjects)


def counted_variants() -> list[Variant]:
    """Everything that can be counted without arithmetic."""
    ours = [[dense(n), *(sparse(share, n) for share in SHARES)] for n in SUBJECTS]
    return [*(variant for same in ours for variant in same), NOBODY, SILENT, PEER]


def timed_variants(brief: bool) -> list[Variant]:
    """What is worth the time it takes; in brief one subject and no comparison but with the stock model."""
    ours = [dense(), sparse(0.25), sparse(0.1)]
    return ours if brief else [*ours, dense(4), NOBODY, PEER]


def attach(pair: Pair, variant: Variant) -> Attached:
    """A clone of the base with what the variant adds."""
    if variant == STOCK:
        return Attached(pair.model, nn.Module())
    if variant == PEER:
        prompts = ImagePrompts(pair.model, pair.device, pair.dtype)
        return Attached(attach_image_prompts(pair.model, prompts), prompts)
    layers = pair.adapter.model.config.layers

    def record(sigma: Tensor, images: Tensor) -> Observe:
        return Trace(layers).record(sigma, images)  # as the node does, but kept for one call only

    patched = apply_adapter(
        pair.model,
        pair.adapter,
        encoder=ENCODER,
        prior_bias=PRIOR_ONLY if variant == SILENT else 0.0,
        budget=ALL if variant.routed is None else Budget(variant.routed),
        record=record,
    )
    return Attached(patched, pair.adapter.model)


def weight_bytes(module: nn.Module) -> int:
    return sum(p.numel() * p.element_size() for p in module.parameters())
