"""What our patches need during one U-Net call: made once, from what the rows carry, changed by nobody."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, NamedTuple, cast

import torch
from torch import Tensor, nn

from ..moa_attention.adapter import MoAAdapter
from ..moa_attention.expert import Projections
from ..moa_attention.image_prompt import ImagePromptAdapter, ImagePromptLayer
from ..moa_attention.layer import MoALayer, Observe
from ..moa_attention.step import Step
from ..moa_attention.tuned import TunedLayer
from ..moa_attention.untrained import UntrainedRouter, Watch, confine, present, reading
from .text import weights_now

KEY = "moa"
"""Under which our wrappers, models and per-call state are registered with the host."""
PRIOR_ONLY = 1e4
"""A prior bias at which R is exactly (1, 0) in float32."""

RecordCall = Callable[[Tensor, Tensor], Observe]
"""`(sigma (), images (R,)) -> observe`: opens the record of one U-Net call."""


class How(NamedTuple):
    """How an adapter was applied: see `patch.apply_adapter`."""

    paths: dict[str, str]
    """Submodule paths of attention layers by name."""
    prior_bias: float
    window: tuple[float, float] | None
    """Noise levels between which the personalised branch speaks, the higher one first; None: always."""
    router: UntrainedRouter | None
    loudness: Mapping[str, float]
    """Factors of the strength by layer name, where they are not 1."""
    record: RecordCall | None

    def silent(self, t: Tensor) -> bool:
        """Whether nobody may speak at a noise level (B,). A narrowed window costs one read of it a step."""
        outside = self.window is not None and not self.window[1] < float(t[0]) <= self.window[0]
        return self.prior_bias >= PRIOR_ONLY or outside


class Payload(NamedTuple):
    """What the rows of a call carry, all on the CPU: see `text.PAYLOAD`."""

    slots: Tensor | None
    features: Tensor | None
    terms: Tensor | None
    barred: Tensor | None


@dataclass(frozen=True)
class Call:
    """One U-Net call with subjects."""

    step: Step
    layers: nn.ModuleDict
    """The adapter's layers, on this call's device."""
    unet: nn.Module
    paths: dict[str, str]
    observe: Observe | None
    watch: Watch | None
    """Of an untrained router that looks on."""

    def layer(self, name: str) -> MoALayer | ImagePromptLayer | TunedLayer | None:
        """The adapter's layer of that name; None where it has none, or is to say nothing."""
        silent = name not in self.layers or self.step.loudness.get(name) == 0
        return None if silent else cast("MoALayer", self.layers[name])

    def projections(self, name: str) -> Projections:
        """The base model's own projections of a layer."""
        return Projections.of(self.unet.get_submodule(self.paths[name]))


def open_call(
    how: How, base: Any, payload: Payload, x: Tensor, t: Tensor, context: Tensor | None, options: dict
) -> Call | None:
    """The state of a call; None where nobody has anything to say.

    Args:
        base: the host's model. x (B,C,h,w), t (B,) noise level, context (B,M,T) and options are those of its call.
    """
    slots, features = payload.slots, payload.features
    if slots is None or features is None or context is None or base.current_patcher is None or how.silent(t):
        return None
    rows = slots.squeeze(-1).any(dim=1).nonzero().squeeze(-1)  # on the CPU, so that no device is waited for
    if not len(rows):
        return None
    adapter: MoAAdapter | ImagePromptAdapter = base.current_patcher.get_additional_models_with_key(KEY)[0].model
    device, dtype = x.device, base.get_dtype_inference()
    weights = None if payload.terms is None else weights_now(payload.terms[rows], t[:1], base.model_sampling)
    step = adapter.begin(
        context.to(device, dtype),
        base.model_sampling.timestep(t).float(),
        slots.squeeze(-1).long().to(device),
        features.to(device, dtype),
        None if len(rows) == len(x) else rows.to(device),
        torch.full((), how.prior_bias, device=device),
        weights if how.router is None else None,
    )
    step = replace(step, loudness=how.loudness)
    batch = len(x) // max(1, len(options.get("cond_or_uncond", (0,))))
    barred = None if payload.barred is None else payload.barred[rows]
    allowed = None if barred is None or not barred.any() else 1 - barred.to(device)
    if how.router is None:
        watch = None
        if allowed is not None:
            step = replace(step, shares=allowed * present(step.slots, features.shape[1])[..., None, None])
    else:
        who = [(str(options["uuids"][row // batch]), row % batch) for row in rows.tolist()]
        there = dict(zip(who, reading(slots[rows].squeeze(-1).long()), strict=True))
        shares, watch = how.router.open(there, step.slots, features.shape[1])
        decides = how.router.decides
        loud = (math.exp(-how.prior_bias) if decides else 1) * (1 if weights is None else weights[..., None, None])
        step = replace(
            step, shares=confine(shares * loud, allowed), learned=not decides, apart=decides and how.router.apart
        )
    observe = how.record(t[0], rows % batch) if how.record is not None else None
    unet = getattr(base.diffusion_model, "_orig_mod", base.diffusion_model)  # torch.compile wraps the U-Net
    return Call(step, adapter.layers, unet, how.paths, observe, watch)
