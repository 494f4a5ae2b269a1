"""What our patches need during one U-Net call: made once, from what the rows carry, changed by nobody."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, NamedTuple, cast

import torch
from torch import Tensor, nn

from ..moa_attention.adapter import MoAAdapter
from ..moa_attention.budget import ALL, AutomaticBudget, Budget
from ..moa_attention.config import LayerSpec
from ..moa_attention.expert import Projections
from ..moa_attention.image_prompt import ImagePromptAdapter
from ..moa_attention.layer import Observe, RoutedLayer, Routing
from ..moa_attention.memory import Kept, PromptMemory
from ..moa_attention.step import Step, rows_of
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
    budget: Budget | AutomaticBudget
    record: RecordCall | None
    memory: PromptMemory

    def silent(self, t: Tensor) -> bool:
        """Whether nobody may speak at a noise level (B,). A narrowed window costs one read of it a step."""
        outside = self.window is not None and not self.window[1] < float(t[0]) <= self.window[0]
        return self.prior_bias >= PRIOR_ONLY or outside


class Payload(NamedTuple):
    """What the rows of a call carry, all on the CPU: see `text.PAYLOAD` and `text.PROMPT`."""

    slots: Tensor | None
    features: Tensor | None
    terms: Tensor | None
    barred: Tensor | None
    prompts: Tensor | None

    def of(self, rows: Tensor) -> Payload:
        """That of some rows, (R,) int64."""
        return Payload(*(None if part is None else part[rows] for part in self))


@dataclass(frozen=True)
class Call:
    """One U-Net call with subjects."""

    step: Step
    layers: Mapping[str, RoutedLayer]
    """Those that have something to say, by name, on this call's device."""
    unet: nn.Module
    paths: dict[str, str]
    observe: Observe | None
    watch: Watch | None
    """Of an untrained router that looks on."""

    def layout(self) -> str:
        """Everything but the values of tensors: what a compiled U-Net has fixed."""
        step = self.step
        parts = (step.rows, step.slots, step.tokens, step.shares, *(h.key for h in step.kept.values()))
        shapes = [tuple(part.shape) if isinstance(part, Tensor) else part for part in parts]
        look = None if self.observe is None else self.observe.__qualname__
        return repr(
            (shapes, step.learned, step.apart, step.loudness, step.budget, [*self.layers], look, self.watch is None)
        )

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
    device, dtype, mine = x.device, base.get_dtype_inference(), payload.of(rows)
    context = context.to(device, dtype)
    weights = None if mine.terms is None else weights_now(mine.terms, t[:1], base.model_sampling)
    which = rows_of(rows, len(x))
    step = adapter.begin(
        context,
        base.model_sampling.timestep(t).float(),
        slots.squeeze(-1).long().to(device, non_blocking=True),
        features.to(device, dtype, non_blocking=True),
        which.to(device, non_blocking=True) if isinstance(which, Tensor) else which,
        torch.full((), how.prior_bias, device=device),
        weights if how.router is None else None,
    )
    batch = len(x) // max(1, len(options.get("cond_or_uncond", (0,))))
    who = [(str(options["uuids"][row // batch]), row % batch) for row in rows.tolist()] if how.router else []
    step, watch = share_out(how, step, mine, weights, who)
    compiled = "torch_compile_kwargs" in base.current_patcher.model_options  # where every new shape would cost minutes
    come_and_go = mine.terms is not None and bool(mine.terms[..., 1:].any())  # between two looks, perhaps
    dense = isinstance(how.budget, AutomaticBudget) and (compiled or come_and_go)
    budget, look = (ALL if dense else how.budget).open((*map(str, options.get("uuids", ())), x.shape))
    loud = {n: cast("RoutedLayer", layer) for n, layer in adapter.layers.items() if how.loudness.get(n) != 0}
    observers = [o for o in (how.record and how.record(t[0], rows % batch), look) if o]
    unet = getattr(base.diffusion_model, "_orig_mod", base.diffusion_model)  # torch.compile wraps the U-Net
    step = replace(step, loudness=how.loudness, budget=budget)
    call = Call(step, loud, unet, how.paths, together(observers), watch)
    # Hooks may change the base's weights between steps, and low-rank projections lean on those.
    steady = getattr(base.current_patcher, "current_hooks", None) is None
    return remember(how.memory, call, mine.prompts, context) if steady else call


def remember(memory: PromptMemory, call: Call, prompts: Tensor | None, context: Tensor) -> Call:
    """The call with what its layers heard of the constant words (B,M,T), now or before.

    Args: prompts: (R,1), numbers of the rows' prompts, 0 where one is not to be kept.
    """
    numbers = [0.0] if prompts is None else prompts.flatten().tolist()
    if 0 in numbers:
        return call

    def listen() -> Kept:
        constant = call.step.to_keep(context)
        cross = {name: layer for name, layer in call.layers.items() if layer.spec.is_cross}
        return {name: layer.listen(constant, call.projections(name)) for name, layer in cross.items()}

    kept = memory.recall((*numbers, context.shape, context.device, context.dtype), listen)
    return replace(call, step=replace(call.step, kept=kept))


def share_out(
    how: How, step: Step, payload: Payload, weights: Tensor | None, who: list[tuple[str, int]]
) -> tuple[Step, Watch | None]:
    """The step with what subjects may say where, and the untrained router's watch.

    Args: payload and weights (R,S) of the rows with a subject, and who these rows are.
    """
    allowed, slots = None, cast("Tensor", payload.slots)
    if payload.barred is not None and payload.barred.any():
        allowed = 1 - payload.barred.to(step.slots.device, non_blocking=True)
    subjects = cast("Tensor", payload.features).shape[1]
    if how.router is None:
        bounds = None if allowed is None else allowed * present(step.slots, subjects)[..., None, None]
        return replace(step, shares=bounds), None
    there = dict(zip(who, reading(slots.squeeze(-1).long()), strict=True))
    shares, watch = how.router.open(there, step.slots, subjects)
    decides = how.router.decides
    loud = (math.exp(-how.prior_bias) if decides else 1) * (1 if weights is None else weights[..., None, None])
    shares = confine(shares * loud, allowed)
    return replace(step, shares=shares, learned=not decides, apart=decides and how.router.apart), watch


def together(observers: list[Observe]) -> Observe | None:
    """One observer that tells all."""
    if len(observers) < 2:
        return observers[0] if observers else None

    def observe(spec: LayerSpec, routing: Routing) -> None:
        for each in observers:
            each(spec, routing)

    return observe
