"""The state of one U-Net call with subjects, made once from what the rows carry; the patches only read it."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, NamedTuple, cast

import torch
from torch import Tensor, nn

from ....moa_attention.adapters.base import Adapter
from ....moa_attention.method.expert import Projections
from ....moa_attention.method.layer import Observe, RoutedLayer
from ....moa_attention.method.spec import LayerSpec
from ....moa_attention.routers.base import TrainingFreeRouter, present, subjects_of_rows
from ....moa_attention.routers.words import PlaceRouter
from ....moa_attention.run.budget import ALL, AutomaticBudget, Budget
from ....moa_attention.run.emphasis import Emphasis, Table, emphasise
from ....moa_attention.run.guidance import SubjectGuidance
from ....moa_attention.run.listener import CallInfo, RunListener
from ....moa_attention.run.prompt_cache import CachedPrompt, PromptCache
from ....moa_attention.run.schedule import Schedule
from ....moa_attention.run.step import Step, rows_of
from ....moa_attention.run.strength import PRIOR_ONLY
from ....moa_attention.run.view import View
from ..prompts.conditioning import PAYLOAD, PROMPT, strengths_at
from ..prompts.styles import frames_shown
from ..prompts.subject_regions import allowed_regions
from .attachment import KEY, Attachment
from .run_subjects import RunSubjects
from .shares import routed_shares, share_bounds, strengths_differ, token_weights
from .tiles import TiledCalls
from .views import PIXELS, RUN, views_of_call


@dataclass(frozen=True)
class ApplySettings:
    """How an adapter is applied: see `patch.apply_adapter`."""

    attachment: Attachment
    paths: Mapping[str, str]
    """Submodule paths of attention layers by name."""
    layers: Sequence[LayerSpec]
    """Those of the adapter."""
    prior_bias: float
    window: tuple[float, float] | None
    """The part of the sampling in which the personalised branch is active, from and to, in 0..1; None: all of it."""
    router: TrainingFreeRouter | None
    places: PlaceRouter | None
    """Divides the share of the adapter's own routers among subjects of different strengths; None where `router` does."""
    layer_strength: Mapping[str, float]
    """Factors of the strength by layer name, where they are not 1."""
    lora_strength: float
    """Of the LoRA in a FaceID file."""
    budget: Budget | AutomaticBudget
    prompt_cache: PromptCache
    schedule: Schedule
    tiles: TiledCalls
    subjects: RunSubjects
    guidance: SubjectGuidance | None
    observers: Sequence[RunListener]
    """The trace, or what records a training step."""
    notify: Callable[[str], None]
    """Receives the note on each run that ended."""

    def listeners(self) -> Iterator[RunListener]:
        """Everything that follows a run."""
        yield from self.observers
        yield from filter(None, (self.guidance, self.router, self.places))
        yield self.budget
        yield self.prompt_cache
        yield self.schedule
        yield self.tiles

    def inactive(self, t: Tensor, sampling: Any) -> bool:
        """Whether no subject has a share at a noise level (B,). A narrowed window costs one read of it a step."""
        if self.prior_bias >= PRIOR_ONLY or self.window is None:
            return self.prior_bias >= PRIOR_ONLY
        first, last = (self.schedule.noise_level(sampling, percent) for percent in self.window)
        return not last < float(t[0]) <= first


class Payload(NamedTuple):
    """What the rows of a call carry, all on the CPU: see `conditioning.PAYLOAD`, `conditioning.PROMPT` and `views.PIXELS`."""

    slots: Tensor | None
    features: Tensor | None
    terms: Tensor | None
    barred: Tensor | None
    prompts: Tensor | None
    pixels: Tensor | None
    run: Tensor | None

    @classmethod
    def take(cls, conds: dict[str, Any]) -> Payload:
        """The payload, removed from a call's other inputs."""
        return cls(*(conds.pop(name, None) for name in (*PAYLOAD, PROMPT, PIXELS, RUN)))

    def of(self, rows: Tensor) -> Payload:
        """That of some rows, (R,) int64."""
        return Payload(*(None if part is None else part[rows] for part in self))


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
    if payload.slots is None or payload.features is None or context is None or base.current_patcher is None:
        return None
    if settings.inactive(t, base.model_sampling):
        return None
    rows = rows_with_subjects(payload.slots, payload.terms)
    if not len(rows):
        return None
    patcher, mine = base.current_patcher, payload.of(rows)
    if not (adapters := patcher.get_additional_models_with_key(KEY)):
        return None  # a guider with two models calls the plain one with the other's wrappers, too
    context = context.to(x.device, base.get_dtype_inference())
    level = partial(settings.schedule.noise_level, base.model_sampling)
    strengths = None if mine.terms is None else strengths_at(mine.terms, t[:1], level)
    adapter, styles = cast("Adapter", adapters[0].model), settings.subjects.styles
    shown = views_of_call(mine.pixels, mine.run, rows, (x.shape[-2], x.shape[-1]), options)
    frames = frames_shown(shown[0])
    mine = mine._replace(barred=styles.barred_at(mine.barred, mine.terms, frames))
    if styles.by_frame(mine.terms):
        by_frame = styles.features(cast("Tensor", mine.features), mine.terms, frames)
        payload = payload._replace(features=payload.features.index_copy(0, rows, by_frame))
    step = begin_step(settings, adapter, base, payload, rows, context, t, strengths)
    info = call_info(settings, step, mine, shown, t)
    layers = {n: cast("RoutedLayer", m) for n, m in adapter.layers.items() if settings.layer_strength.get(n) != 0}
    unet = getattr(base.diffusion_model, "_orig_mod", base.diffusion_model)  # torch.compile wraps the U-Net
    call = CallState(info, step, layers, unet, settings, rows.tolist())
    settings.schedule.begin_call(info)
    allowed = allowed_regions(mine.barred, mine.pixels, mine.run, info, (x.shape[-2], x.shape[-1]))
    if allowed is not None and settings.router is not None and settings.router.reads_points and info.whole:
        allowed, step = None, replace(step, region_at=settings.subjects.regions_of(info))
    table = styles.table(mine.terms, frames, adapter.config.layers, context.device)
    if table is not None:
        step = replace(step, emphasis=emphasis_of(table, mine.terms, strengths, settings))
        strengths = None
    router = settings.router or (settings.places if strengths_differ(mine.slots, mine.terms) else None)
    if router is None:
        step = replace(step, shares=share_bounds(info, allowed, strengths, always=table is not None))
    else:
        observe_prior(call, router, evaluate)
        # With `places` a strength above 1 changes the subject's token, as in `share_bounds`.
        factors = strengths.clamp(max=1) if strengths is not None and router is settings.places else strengths
        bias = settings.prior_bias if table is None else 0.0
        step = replace(step, **routed_shares(router, info, allowed, factors, bias))
    budget = ALL if needs_every_pixel(settings, patcher, mine) else settings.budget
    listeners = (*settings.observers, *filter(None, (settings.guidance, router)), budget)
    observers = [observe for each in listeners if (observe := each.begin_call(info))]
    step = replace(step, layer_strength=settings.layer_strength, budget=budget.for_call(info))
    call = replace(call, step=step, observers=tuple(observers))
    # Hooks may change the base's weights between steps, and low-rank projections build on those.
    steady = patcher.current_hooks is None and not styles.by_frame(mine.terms)
    return with_cached_prompt(call, mine.prompts, context) if steady else call


def observe_prior(call: CallState, router: TrainingFreeRouter, evaluate: Callable[[CallState], Any]) -> None:
    """Run the prior once more for a router to observe, where the earlier calls do not cover the rows of this one."""
    observe = router.begin_prior_call(call.info)
    if observe is not None:
        prior = replace(call.step, shares=router.shares(call.info), learned=False, budget=Budget(0.0))
        evaluate(replace(call, step=prior, observers=(observe,)))
        router.end_call(call.info)


def rows_with_subjects(slots: Tensor, terms: Tensor | None) -> Tensor:
    """Indices (R,) of the rows with a subject of a strength above 0; on the CPU, so that no device is waited for.

    Args: slots (B,M,1) and terms (B,S,4), as in `conditioning.PAYLOAD`.
    """
    slots = slots.squeeze(-1)
    if terms is None:
        return slots.any(dim=1).nonzero().squeeze(-1)
    return (present(slots, terms.shape[1]) & (terms[..., 0] != -1)).any(dim=1).nonzero().squeeze(-1)


def begin_step(
    settings: ApplySettings,
    adapter: Adapter,
    base: Any,
    payload: Payload,
    rows: Tensor,
    context: Tensor,
    t: Tensor,
    strengths: Tensor | None,
) -> Step:
    """The subjects' tokens of a call, with everything on its device."""
    device, which, features = context.device, rows_of(rows, len(context)), cast("Tensor", payload.features)
    which = which.to(device, non_blocking=True) if isinstance(which, Tensor) else which
    slots = cast("Tensor", payload.slots).squeeze(-1).long().to(device, non_blocking=True)
    return adapter.begin(
        context,
        base.model_sampling.timestep(t).float(),
        slots,
        features.to(device, context.dtype, non_blocking=True),
        which,
        torch.full((), settings.prior_bias, device=device),
        token_weights(settings.router, slots if which is None else slots[which], strengths),
    )


def emphasis_of(table: Table, terms: Tensor | None, strengths: Tensor | None, settings: ApplySettings) -> Emphasis:
    """That of a call's subjects: their styles, strengths (R,S), and the strength in Apply MoA where it is no bias of routers."""
    own = torch.ones_like(table.factors[0]) if strengths is None else strengths
    decides = settings.router is not None and settings.router.decides
    negative = terms is not None and bool((terms[..., 0] < -1).any())
    return emphasise(table, own * math.exp(-settings.prior_bias) if decides else own, negative)


def call_info(
    settings: ApplySettings, step: Step, mine: Payload, shown: tuple[list[View | None], list[int]], t: Tensor
) -> CallInfo:
    """The call as listeners see it.

    Args: shown: of `views_of_call`.
    """
    views, prompts = shown
    slots, features = cast("Tensor", mine.slots), cast("Tensor", mine.features)
    subjects, evaluation = subjects_of_rows(slots.squeeze(-1).long()), settings.schedule.evaluation
    names = [settings.subjects.of_prompt(number) for number in prompts]
    follows = [settings.subjects.follows.get(number, ()) for number in prompts]
    return CallInfo(t[0], views, prompts, step.slots, subjects, features.shape[1], evaluation, names, follows)


def needs_every_pixel(settings: ApplySettings, patcher: Any, mine: Payload) -> bool:
    """Whether a measured budget does not serve: for compiled models, where every new shape costs minutes, and for subjects
    with a part of the sampling, which may begin between two measurements."""
    compiled = "torch_compile_kwargs" in patcher.model_options
    scheduled = mine.terms is not None and bool(mine.terms[..., 1:3].any())
    return isinstance(settings.budget, AutomaticBudget) and (compiled or scheduled)


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

    key = (*numbers, context.shape, context.device, context.dtype)
    cached = call.settings.prompt_cache.get_or_compute(key, compute)
    return replace(call, step=replace(call.step, cached=cached))
