"""How MoA attaches to a ModelPatcher: the only file with the host's wrappers.

Subjects are part of the CONDITIONING (`conditioning.py`). The APPLY_MODEL wrapper turns them into one immutable `CallState` per
U-Net call, which the attachment's patches read. Nothing of the host is replaced, so dropping the cloned model removes all.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import comfy.model_management
import comfy.model_patcher
from comfy.ldm.modules.attention import attention_pytorch
from comfy.patcher_extension import WrapperExecutor, WrappersMP, get_all_wrappers, get_wrappers_with_key
from torch import Tensor, nn

from ....moa_attention.routers.base import TrainingFreeRouter
from ....moa_attention.routers.words import PlaceRouter
from ....moa_attention.run.base_run import BaseRun
from ....moa_attention.run.budget import ALL, AutomaticBudget, Budget
from ....moa_attention.run.guidance import SubjectGuidance
from ....moa_attention.run.listener import RunListener
from ....moa_attention.run.prompt_cache import PromptCache
from ....moa_attention.run.schedule import Schedule
from ..prompts.conditioning import complete_conditions
from ..prompts.negative_image import NO_NEGATIVE_IMAGE, NegativeImage
from .apply_settings import Applications, ApplySettings
from .attachment import KEY
from .call import CallState, open_call
from .file_lora import exchange_patches, lora_patches
from .layers import attachment_for, layer_paths
from .prior_rows import PAIR, Conds, bare_conds, numbered_alike, pairs_of, with_prior_rows
from .run_note import give_note, note_after, note_before
from .run_prompts import prepare_prompts
from .run_subjects import RunSubjects
from .subject_rows import take_payloads
from .two_runs import BASE_RUN, sample_twice
from .views import payload_of_run

LAYOUT = "moa_layout"
"""Name of the U-Net's argument that describes how a call is laid out."""
WRAPPED = (
    WrappersMP.OUTER_SAMPLE, WrappersMP.PREDICT_NOISE, WrappersMP.CALC_COND_BATCH, WrappersMP.APPLY_MODEL, WrappersMP.DIFFUSION_MODEL,
)  # fmt: skip


def host_patcher(module: nn.Module, disable_dynamic: bool = False) -> comfy.model_patcher.ModelPatcher:
    """Hand a module's weights to the host: counted, loaded, offloaded and freed with the models.

    `disable_dynamic` requests the plain patcher where the host streams weights by default.
    """
    kind = comfy.model_patcher.ModelPatcher if disable_dynamic else comfy.model_patcher.CoreModelPatcher
    return kind(
        module,
        load_device=comfy.model_management.get_torch_device(),
        offload_device=comfy.model_management.unet_offload_device(),
    )


def apply_adapter(
    model: comfy.model_patcher.ModelPatcher,
    adapter: comfy.model_patcher.ModelPatcher,
    *,
    encoder: str,
    prior_bias: float = 0.0,
    start: float = 0.0,
    end: float = 1.0,
    router: TrainingFreeRouter | None = None,
    layer_strength: Mapping[str, float] | None = None,
    lora_strength: float = 1.0,
    lora_on_model: float = 0.0,
    budget: Budget | AutomaticBudget = ALL,
    guidance: SubjectGuidance | None = None,
    negative_image: NegativeImage = NO_NEGATIVE_IMAGE,
    observers: Sequence[RunListener] = (),
    notify: Callable[[str], None] = lambda text: None,
) -> comfy.model_patcher.ModelPatcher:
    """A clone of the model with MoA attached.

    On a model that already has an adapter, the result with that adapter is the prior of this one. If both take the same subjects, this one
    replaces the earlier one.

    Args:
        encoder: identity of the adapter (`Adapter.identity`), which subjects must share.
        prior_bias: added to the prior's logit in every router; `PRIOR_ONLY` leaves the base model exactly.
        start, end: the part of the sampling schedule in which the personalised branch is active, 0..1.
        router: decides instead of the adapter's own routers.
        layer_strength: factors of the strength by layer name; 0 leaves the prior alone.
        lora_strength: of the LoRA in a FaceID file; 0 leaves it out.
        lora_on_model: strength of that LoRA on the weights of the model itself, for all prompts.
        budget: the number of pixels of each layer for which the personalised branch is computed.
        guidance: keeps the result of the prior where subjects have no share, for a run without subjects and one row more in every step.
        negative_image: what negative prompts get where the others have image prompts.
        observers: traces to fill, or what records a training step.
        notify: called after each run with a note for users: when subjects were active, or why they were not.
    Raises: ValueError when the adapter was made for another architecture, or as `Applications.followed_by`.
    """
    attachment = attachment_for(model.model)
    paths = layer_paths(model.model, adapter.model.config)
    window = None if (start, end) == (0.0, 1.0) else (start, end)
    places = PlaceRouter(at_once=True) if router is None else None
    settings = ApplySettings(
        encoder, negative_image, attachment, paths, adapter.model.config.layers, prior_bias, window, router, places, layer_strength or {},
        lora_strength, budget, PromptCache(), Schedule(), RunSubjects(), guidance, tuple(observers), notify,
        lora_patches(adapter.model.layers, paths) if lora_on_model else {},
    )  # fmt: skip
    earlier: Applications = model.get_attachment(KEY) or Applications()
    applied, model = earlier.followed_by(settings), model.clone()
    exchange_patches(
        model, [each.weights for each in earlier.every if each.encoder == encoder], settings.weights, lora_on_model
    )
    held = dict(zip(earlier.encoders, model.get_additional_models_with_key(KEY), strict=True))
    detach(model)
    model.set_additional_models(KEY, [{**held, encoder: adapter}[each] for each in applied.encoders])
    model.set_attachments(KEY, applied)
    bound = [partial(wrapper, applied) for wrapper in (wrap_run, begin_evaluation, complete_batch, begin_call)]
    for kind, wrapper in zip(WRAPPED, (*bound, read_layout), strict=True):
        model.add_wrapper_with_key(kind, KEY, wrapper)
    return model


def without_adapters(model: comfy.model_patcher.ModelPatcher) -> comfy.model_patcher.ModelPatcher:
    """A clone of the model without any adapter, to train another one on."""
    applied: Applications = model.get_attachment(KEY) or Applications()
    model = model.clone()
    exchange_patches(model, [each.weights for each in applied.every], {}, 0.0)
    detach(model)
    return model


def detach(model: comfy.model_patcher.ModelPatcher) -> None:
    """Remove MoA from a clone."""
    for kind in WRAPPED:
        model.remove_wrappers_with_key(kind, KEY)
    model.remove_attachments(KEY)
    model.remove_additional_models(KEY)


def wrap_run(applied: Applications, executor: Any, *args: Any, **kwargs: Any) -> Any:
    """OUTER_SAMPLE: refuse subjects of another adapter before any model loads; notify the listeners of the run."""
    guider, noise = executor.class_obj, args[0] if args else kwargs["noise"]
    notes = prepare_prompts(applied, guider, noise.shape)
    alone = len(applied.every) == 1
    before = [note_before(each, own, alone) for each, own in zip(applied.every, notes, strict=True)]
    for each, note in zip(applied.every, before, strict=True):
        give_note(each, note)
    keeps = [each is applied.keeper and note is None for each, note in zip(applied.every, before, strict=True)]
    sample = executor
    if any(keeps):
        listeners, lines = [*applied.listeners()], notes[keeps.index(True)]
        sample = partial(sample_twice, without_moa(guider), executor, listeners, lines)
    for listener in applied.listeners():
        listener.begin_run()
    try:
        result = sample(*args, **kwargs)
    finally:
        for listener in applied.listeners():
            listener.end_run()
    for each, own, note in zip(applied.every, notes, before, strict=True):
        if note is None:
            give_note(each, note_after(each, own, alone))
    return result


def without_moa(guider: Any) -> Any:
    """The sampling of a guider with all its wrappers but MoA's.

    Those around MoA's are among them: what they prepare for a run serves one run only.
    """
    kind, options = WrappersMP.OUTER_SAMPLE, guider.model_options
    own = get_wrappers_with_key(kind, KEY, options, is_model_options=True)
    others = [each for each in get_all_wrappers(kind, options, is_model_options=True) if each not in own]
    return WrapperExecutor.new_class_executor(guider.outer_sample, guider, others)


def begin_evaluation(applied: Applications, executor: Any, *args: Any, **kwargs: Any) -> Any:
    """PREDICT_NOISE: count the sampler's evaluations, each of which may consist of several calls."""
    for each in applied.every:
        each.schedule.begin_evaluation()
    return executor(*args, **kwargs)


def complete_batch(
    applied: Applications,
    executor: Any,
    model: Any,
    conds: Conds,
    x: Tensor,
    t: Tensor,
    model_options: dict,
    *args: Any,
    **kwargs: Any,
) -> list[Tensor]:
    """CALC_COND_BATCH: give every cond a payload of one shape, so that positive and negative stay one batched call."""
    every, keeper, sources = conds, applied.keeper, {}
    run: BaseRun | None = model_options.get(BASE_RUN)
    if keeper is not None and keeper.guidance is not None:
        active = not (run is not None and run.recording) and not keeper.inactive(t, model.model_sampling)
        every, sources = with_prior_rows(conds, keeper.names) if active else (bare_conds(conds, keeper.names), {})
        keeper.guidance.begin_evaluation(sources)
    for each in applied.every:
        every = complete_conditions(every, each.prompt_cache.number, each.names)
    every = every if keeper is None else numbered_alike(every, keeper.names)
    options = applied.tiles.follow(model_options)
    predictions = executor(model, every, x, t, options, *args, **kwargs)
    return predictions[: len(conds)] if run is None else run.evaluated(t, predictions, sources)


def begin_call(
    applied: Applications,
    executor: Any,
    x: Tensor,
    t: Tensor,
    c_concat: Tensor | None = None,
    c_crossattn: Tensor | None = None,
    control: Any = None,
    transformer_options: dict | None = None,
    **kwargs: Any,
) -> Tensor:
    """APPLY_MODEL: turn the rows' payload into this call's states, once, and put them where the patches find them."""
    payloads = take_payloads(kwargs, [each.names for each in applied.every])
    pairs, given, keeper = pairs_of(kwargs.pop(PAIR, None)), transformer_options or {}, applied.keeper
    guidance = None if keeper is None else keeper.guidance
    if guidance is not None and "cond_or_uncond" in given:
        given = {**given, "cond_or_uncond": guidance.original(given["cond_or_uncond"])}

    def evaluate(calls: Sequence[CallState]) -> Tensor:
        options = given
        if calls:
            patches = applied.every[0].attachment.enclosing(given.get("patches", {}))
            options = {**given, KEY: calls, "patches": patches}
        layout = "".join(call.layout() for call in calls)
        # The U-Net takes a ControlNet's outputs off their lists.
        outputs = {name: list(each) for name, each in control.items()} if isinstance(control, dict) else control
        return executor(x, t, c_concat, c_crossattn, outputs, options, **kwargs, **{LAYOUT: layout})

    def evaluate_after(before: Sequence[CallState], call: CallState) -> Tensor:
        return evaluate([*before, call])

    calls: list[CallState] = []
    for each, payload in zip(applied.every, payloads, strict=True):
        # What a router observes of its prior is that with the adapters before.
        before = [replace(call, observers=()) for call in calls]
        call = open_call(each, executor.class_obj, payload, x, t, c_crossattn, given, partial(evaluate_after, before))
        if call is not None:
            calls.append(call)
    result = evaluate(calls)
    if guidance is not None and pairs:
        kept = next((call for call in calls if call.settings is keeper), None)
        shares = {} if kept is None else guidance.shares(kept.info, kept.rows, (x.shape[-2], x.shape[-1]))
        others = [replace(call, observers=()) for call in calls if call is not kept]
        result = guidance.blend(result, pairs, shares, partial(evaluate, others))
    for call in calls:
        for listener in call.settings.listeners():
            listener.end_call(call.info)
    return result


def read_layout(executor: Any, *args: Any, **kwargs: Any) -> Tensor:
    """DIFFUSION_MODEL: read the call's layout, so that a compiled U-Net notices another one.

    The host compiles without guards on transformer_options: a value there keeps its first state. An argument is guarded, if
    it is read.
    """
    bool(kwargs.pop(LAYOUT))
    return executor(*args, **kwargs)


def call_with_subjects(
    patched: comfy.model_patcher.ModelPatcher,
    x: Tensor,
    sigma: Tensor,
    context: Tensor,
    pooled: Tensor | None,
    payload: dict[str, Any],
) -> Tensor:
    """One call of a U-Net from `apply_adapter`, through the same wrappers and patches as in sampling: for training.

    Args: x (B,C,h,w), sigma (B,), context (B,M,T), pooled (B,P); payload: what rows carry, see `PayloadNames`.
    Returns: denoised latents (B,C,h,w).
    """
    base: Any = patched.model
    base.current_patcher = patched
    options = {**patched.model_options["transformer_options"], "wrappers": patched.wrappers}
    # The attention chosen for speed may have no gradient; PyTorch's has one.
    options["optimized_attention_override"] = lambda _chosen, *args, **kwargs: attention_pytorch(*args, **kwargs)
    if pooled is not None:
        height, width = (8 * side for side in x.shape[-2:])  # SDXL takes the picture's size as conditioning
        y = base.encode_adm(pooled_output=pooled, height=height, width=width, device=x.device)
        payload = {**payload, "y": y.to(x.device)}
    whole = {name: part.expand(len(x), *part.shape[1:]) for name, part in payload_of_run(x.shape).items()}
    return base.apply_model(x, sigma, c_crossattn=context, transformer_options=options, **payload, **whole)
