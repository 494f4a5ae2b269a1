"""The state of one U-Net call with subjects, made once from what the rows carry; the patches only read it."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, cast

import torch
from torch import Tensor, nn

from ....moa_attention.adapters.base import Adapter
from ....moa_attention.method.expert import Projections
from ....moa_attention.method.layer import Observe, RoutedLayer
from ....moa_attention.method.prompt import with_further_places
from ....moa_attention.routers.base import TrainingFreeRouter, subjects_of_rows
from ....moa_attention.run.budget import ALL, AutomaticBudget, Budget
from ....moa_attention.run.emphasis import Emphasis, Table, emphasise
from ....moa_attention.run.listener import CallInfo
from ....moa_attention.run.prompt_cache import CachedPrompt
from ....moa_attention.run.step import Step, rows_of
from ..prompts.subject_regions import allowed_regions
from .apply_settings import ApplySettings
from .attachment import KEY
from .shares import routed_shares, share_bounds, strengths_differ, token_weights
from .subject_rows import Payload, SubjectRows, read_subject_rows


@dataclass(frozen=True)
class CallState:
    """One U-Net call with subjects."""

    info: CallInfo
    step: Step
    layers: Mapping[str, RoutedLayer]
    """Those with a strength, by name, on this call's device."""
    unet: nn.Module
    settings: ApplySettings
    rows: Sequence[int]
    """Indices of the rows with a subject."""
    observers: tuple[Observe, ...] = ()

    def layout(self) -> str:
        """Everything but the values of tensors: what a compiled U-Net treats as constant."""
        step = self.step
        parts = (step.rows, step.slots, step.tokens, step.shares, *(kv.key for kv in step.cached.values()))
        shapes = [tuple(part.shape) if isinstance(part, Tensor) else part for part in parts]
        names = [observe.__qualname__ for observe in self.observers]
        return repr((shapes, step.learned, step.apart, step.layer_strength, step.budget, [*self.layers], names))

    def projections(self, name: str) -> Projections:
        """The base model's own projections of a layer."""
        found = self.settings.attachment.projections(self.unet.get_submodule(self.settings.paths[name]))
        return found._replace(difference=self.settings.lora_strength)


def open_call(
    settings: ApplySettings,
    base: Any,
    payload: Payload,
    x: Tensor,
    t: Tensor,
    context: Tensor | None,
    options: dict,
    evaluate: Callable[[CallState], Any],
) -> CallState | None:
    """The state of a call; None where no row has a subject with a share.

    Args:
        base: the host's model. x (B,C,h,w), t (B,) noise level, context (B,M,T) and options are those of its call.
        evaluate: computes the U-Net in a state, for `observe_prior`.
    """
    patcher, size = base.current_patcher, (x.shape[-2], x.shape[-1])
    if context is None or patcher is None or settings.inactive(t, base.model_sampling):
        return None
    adapters = patcher.get_additional_models_with_key(KEY)[settings.place :]
    if not adapters:
        return None  # a guider with two models calls the plain one with the other's wrappers, too
    rows = read_subject_rows(settings, base.model_sampling, payload, t, size, options)
    if rows is None:
        return None
    context = context.to(x.device, base.get_dtype_inference())
    call = begin_state(settings, adapters[0].model, base, rows, context, t)
    router = settings.router or (settings.places if strengths_differ(rows.payload.slots, rows.payload.terms) else None)
    call = with_shares(call, rows, router, size, evaluate)
    budget = ALL if needs_every_pixel(settings, patcher, rows) else settings.budget
    call = with_observers(call, router, budget)
    # Hooks may change the base's weights between steps, and low-rank projections build on those.
    steady = patcher.current_hooks is None and not rows.by_frame
    return with_cached_prompt(call, rows.payload.prompts, context) if steady else call


def begin_state(
    settings: ApplySettings, adapter: Adapter, base: Any, rows: SubjectRows, context: Tensor, t: Tensor
) -> CallState:
    """The subjects' tokens of a call, with everything on its device; nothing decides on shares yet.

    Args: base: the host's model; context (B,M,T) and t (B,).
    """
    device, which = context.device, rows_of(rows.index, len(context))
    which = which.to(device, non_blocking=True) if isinstance(which, Tensor) else which
    slots, blank = rows.slots.squeeze(-1).long(), False
    if adapter.further_tokens:  # on the CPU, where counting does not wait
        slots = with_further_places(slots, rows.features.shape[1], adapter.further_tokens)
        blank = not bool(slots[rows.index, context.shape[1] :].all())
    slots = slots.to(device, non_blocking=True)
    step = adapter.begin(
        context,
        base.model_sampling.timestep(t).float(),
        slots,
        rows.features.to(device, context.dtype, non_blocking=True),
        which,
        torch.full((), settings.prior_bias, device=device),
        token_weights(settings.router, slots if which is None else slots[which], rows.strengths),
    )
    if step.further is not None and blank:
        step = replace(step, further=replace(step.further, blank=True))
    info = call_info(settings, step, rows, t)
    settings.schedule.begin_call(info)
    layers = {n: cast("RoutedLayer", m) for n, m in adapter.layers.items() if settings.layer_strength.get(n) != 0}
    unet = getattr(base.diffusion_model, "_orig_mod", base.diffusion_model)  # torch.compile wraps the U-Net
    return CallState(info, step, layers, unet, settings, rows.index.tolist())


def call_info(settings: ApplySettings, step: Step, rows: SubjectRows, t: Tensor) -> CallInfo:
    """The call as listeners see it."""
    subjects = subjects_of_rows(cast("Tensor", rows.payload.slots).squeeze(-1).long())
    names = [settings.subjects.of_prompt(number) for number in rows.prompts]
    follows = [settings.subjects.follows.get(number, ()) for number in rows.prompts]
    count, evaluation = rows.features.shape[1], settings.schedule.evaluation
    return CallInfo(t[0], rows.views, rows.prompts, step.slots, subjects, count, evaluation, names, follows)


def with_shares(
    call: CallState,
    rows: SubjectRows,
    router: TrainingFreeRouter | None,
    size: tuple[int, int],
    evaluate: Callable[[CallState], Any],
) -> CallState:
    """The call with what decides on its subjects' shares: their regions and styles, and a router instead of the adapter's own."""
    settings, step, info, mine, strengths = call.settings, call.step, call.info, rows.payload, rows.strengths
    allowed = allowed_regions(mine.barred, mine.pixels, mine.run, info, size)
    if allowed is not None and settings.router is not None and settings.router.reads_points and info.whole:
        allowed, step = None, replace(step, region_at=settings.subjects.regions_of(info))
    table = settings.subjects.styles.table(mine.terms, rows.frames, settings.layers, info.slots.device)
    if table is not None:
        step = replace(step, emphasis=emphasis_of(table, mine.terms, strengths, settings))
        strengths = None
    if router is None:
        return replace(
            call, step=replace(step, shares=share_bounds(info, allowed, strengths, always=table is not None))
        )
    observe_prior(call, router, evaluate)
    # With `places` a strength above 1 changes the subject's token, as in `share_bounds`.
    factors = strengths.clamp(max=1) if strengths is not None and router is settings.places else strengths
    bias = settings.prior_bias if table is None else 0.0
    return replace(call, step=replace(step, **routed_shares(router, info, allowed, factors, bias)))


def observe_prior(call: CallState, router: TrainingFreeRouter, evaluate: Callable[[CallState], Any]) -> None:
    """Run the prior once more for a router to observe, where the earlier calls do not cover the rows of this one."""
    observe = router.begin_prior_call(call.info)
    if observe is not None:
        prior = replace(call.step, shares=router.shares(call.info), learned=False, budget=Budget(0.0))
        evaluate(replace(call, step=prior, observers=(observe,)))
        router.end_call(call.info)


def emphasis_of(table: Table, terms: Tensor | None, strengths: Tensor | None, settings: ApplySettings) -> Emphasis:
    """That of a call's subjects: their styles, strengths (R,S), and the strength in Apply MoA where it is no bias of routers."""
    own = torch.ones_like(table.factors[0]) if strengths is None else strengths
    decides = settings.router is not None and settings.router.decides
    negative = terms is not None and bool((terms[..., 0] < -1).any())
    return emphasise(table, own * math.exp(-settings.prior_bias) if decides else own, negative)


def needs_every_pixel(settings: ApplySettings, patcher: Any, rows: SubjectRows) -> bool:
    """Whether a measured budget does not serve: for compiled models, where every new shape costs minutes, and for subjects
    with a part of the sampling, which may begin between two measurements."""
    compiled, terms = "torch_compile_kwargs" in patcher.model_options, rows.payload.terms
    scheduled = terms is not None and bool(terms[..., 1:3].any())
    return isinstance(settings.budget, AutomaticBudget) and (compiled or scheduled)


def with_observers(call: CallState, router: TrainingFreeRouter | None, budget: Budget | AutomaticBudget) -> CallState:
    """The call with the pixels that are computed, and with what follows the routing of its layers."""
    settings = call.settings
    listeners = (*settings.observers, *filter(None, (settings.guidance, router)), budget)
    observers = [observe for each in listeners if (observe := each.begin_call(call.info))]
    step = replace(call.step, budget=budget.for_call(call.info), layer_strength=settings.layer_strength)
    return replace(call, step=step, observers=tuple(observers))


def with_cached_prompt(call: CallState, prompts: Tensor | None, context: Tensor) -> CallState:
    """The call with its layers' projections of the constant words (B,M,T), from the cache or computed now.

    Args: prompts: (R,1), numbers of the rows' prompts, 0 for one that is not cached.
    """
    numbers = [0.0] if prompts is None else prompts.flatten().tolist()
    if 0 in numbers:
        return call

    def compute() -> CachedPrompt:
        constant = call.step.constant_context(context)
        cross = {name: layer for name, layer in call.layers.items() if layer.spec.is_cross}
        return {name: layer.keys_values(constant, call.projections(name)) for name, layer in cross.items()}

    key = (*numbers, call.step.slots.shape, context.shape, context.device, context.dtype)
    cached = call.settings.prompt_cache.get_or_compute(key, compute)
    return replace(call, step=replace(call.step, cached=cached))
