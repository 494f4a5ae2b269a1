"""How MoA attaches to the host: the only file that touches ModelPatcher, wrappers and transformer_options.

Capture first, blend last. `attnN_patch` remembers the normed hidden state and the context before anybody changes them;
`attnN_output_patch` blends the personalised branch into whatever attention the host and other packs produced. Nothing is
replaced or monkey-patched, so dropping the cloned model removes everything.

Subjects ride on the CONDITIONING (nodes/text.py); the APPLY_MODEL wrapper makes them one immutable `Call` per U-Net call.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, cast

import comfy.model_management
import comfy.model_patcher
from comfy.ldm.modules.attention import attention_pytorch, optimized_attention
from comfy.patcher_extension import WrappersMP
from torch import Tensor, nn

from ..moa_attention.budget import ALL, AutomaticBudget, Budget
from ..moa_attention.memory import PromptMemory
from ..moa_attention.trace import Trace
from ..moa_attention.untrained import MaskRouter, UntrainedRouter
from .call import KEY, Call, How, Payload, RecordCall, open_call
from .layers import layer_paths
from .text import PAYLOAD, check_encoders, check_regions, complete_conditions

log = logging.getLogger(__name__)


def host_patcher(module: nn.Module, disable_dynamic: bool = False) -> comfy.model_patcher.ModelPatcher:
    """Hand a module's weights to the host: counted, loaded, offloaded and freed with the models.

    `disable_dynamic` asks for the plain patcher where the host streams weights by default; hosts before that have one kind.
    """
    plain = comfy.model_patcher.ModelPatcher
    kind = plain if disable_dynamic else getattr(comfy.model_patcher, "CoreModelPatcher", plain)
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
    router: UntrainedRouter | None = None,
    loudness: Mapping[str, float] | None = None,
    budget: Budget | AutomaticBudget = ALL,
    trace: Trace | None = None,
    record: RecordCall | None = None,
) -> comfy.model_patcher.ModelPatcher:
    """A clone of the model with MoA attached; a model that already has MoA gets this one instead.

    Args:
        encoder: identity of the image features the adapter understands (`nodes.sockets.Adapter.encoder`).
        prior_bias: added to the prior's logit in every router; `PRIOR_ONLY` leaves the base model exactly.
        start, end: the part of the sampling schedule in which the personalised branch speaks, 0..1.
        router: decides in the place of the adapter's own routers.
        loudness: factors of the strength by layer name; 0 leaves the prior alone.
        budget: for how many pixels of each layer the personalised branch is computed.
        trace: filled by each sampling run.
        record: observer of each U-Net call, for training; by default the trace's.
    Raises: ValueError when the adapter was made for another architecture.
    """
    paths = layer_paths(model.model, adapter.model.config)
    model = model.clone()
    detach(model)
    model.set_additional_models(KEY, [adapter])
    sampling = cast("Any", model.get_model_object("model_sampling"))
    window = None if (start, end) == (0.0, 1.0) else (sampling.percent_to_sigma(start), sampling.percent_to_sigma(end))
    record = record or (trace.record if trace is not None else None)
    how = How(paths, prior_bias, window, router, loudness or {}, budget, record, PromptMemory())

    model.add_wrapper_with_key(WrappersMP.OUTER_SAMPLE, KEY, partial(watch_run, encoder, how, trace))
    model.add_wrapper_with_key(WrappersMP.CALC_COND_BATCH, KEY, partial(complete_batch, how))
    model.add_wrapper_with_key(WrappersMP.APPLY_MODEL, KEY, partial(begin_call, how))
    model.set_model_attn1_patch(capture_attn1)
    model.set_model_attn2_patch(capture_attn2)
    model.set_model_attn1_output_patch(blend_attn1)
    model.set_model_attn2_output_patch(blend_attn2)
    return model


def detach(model: comfy.model_patcher.ModelPatcher) -> None:
    """Remove MoA from a clone, so that two ApplyMoA in a row mean the second."""
    for kind in (WrappersMP.OUTER_SAMPLE, WrappersMP.CALC_COND_BATCH, WrappersMP.APPLY_MODEL):
        model.remove_wrappers_with_key(kind, KEY)
    patches = model.model_options["transformer_options"].get("patches", {})
    for kind, ours in OURS.items():
        if kind in patches:
            patches[kind] = [p for p in patches[kind] if p is not ours]


def watch_run(encoder: str, how: How, trace: Trace | None, executor: Any, *args: Any, **kwargs: Any) -> Any:
    """OUTER_SAMPLE: refuse subjects made for another adapter before any model loads; begin all that remembers anew."""
    conds = [cond for conds in executor.class_obj.conds.values() for cond in conds]
    if not check_encoders(conds, encoder):
        log.warning("MoA: no subject on any conditioning of this run; the result is the base model's own.")
    if isinstance(how.router, MaskRouter):
        check_regions(conds)
    for remembers in (how.router, how.budget, trace):
        if remembers is not None:
            remembers.begin()
    try:
        return executor(*args, **kwargs)
    finally:
        how.memory.begin()
        if trace is not None:
            trace.finish()
        if isinstance(how.budget, AutomaticBudget):
            log.info("MoA: in the end subjects were computed for %.0f %% of the pixels.", 100 * how.budget.mean())


def complete_batch(how: How, executor: Any, model: Any, conds: list, *args: Any, **kwargs: Any) -> Any:
    """CALC_COND_BATCH: give every cond a payload of one shape, so that positive and negative stay one batched call."""
    return executor(model, complete_conditions(conds, how.memory.number), *args, **kwargs)


def begin_call(
    how: How,
    executor: Any,
    x: Tensor,
    t: Tensor,
    c_concat: Tensor | None = None,
    c_crossattn: Tensor | None = None,
    control: Any = None,
    transformer_options: dict | None = None,
    **kwargs: Any,
) -> Tensor:
    """APPLY_MODEL: turn the rows' payload into this call's state, once, and put it where the patches look."""
    payload = Payload(*(kwargs.pop(name, None) for name in PAYLOAD))
    options = transformer_options or {}
    call = open_call(how, executor.class_obj, payload, x, t, c_crossattn, options)
    if call is not None:
        options = {**options, KEY: call}
        options["patches"] = in_order(options["patches"])
    result = executor(x, t, c_concat, c_crossattn, control, options, **kwargs)
    if call is not None and call.watch is not None:
        call.watch.close()
    return result


def in_order(patches: dict[str, list]) -> dict[str, list]:
    """Patch lists with our captures first and our blends last.

    HyperTile and ToMe change the token grid between their two patches; we must stand outside of them.
    """
    ordered = dict(patches)
    for kind, ours in OURS.items():
        others = [p for p in patches.get(kind, ()) if p is not ours]
        ordered[kind] = others + [ours] if kind.endswith("output_patch") else [ours, *others]
    return ordered


def capture(which: str, hidden: Tensor, context: Tensor, value: Tensor, options: dict) -> tuple[Tensor, Tensor, Tensor]:
    """attnN_patch: remember z and the context in this block's own options; change nothing."""
    if KEY in options:
        options[f"{KEY}_{which}"] = (hidden, context)
    return hidden, context, value


def blend(which: str, prior: Tensor, options: dict) -> Tensor:
    """attnN_output_patch: mix the personalised branch into the rows that have a subject."""
    call: Call | None = options.get(KEY)
    stage, number = options["block"]
    layer = call.layers.get(f"{stage}_{number}_{options['block_index']}_{which}") if call is not None else None
    if call is None or layer is None:
        return prior
    hidden, context = options.pop(f"{KEY}_{which}")
    if hidden.shape[:2] != prior.shape[:2]:
        raise RuntimeError(
            f"Another node changed the number of rows or pixels at {layer.spec.name} and did not change it back: "
            f"{tuple(hidden.shape[:2])} before attention, {tuple(prior.shape[:2])} after it."
        )
    step, base = call.step, call.projections(layer.spec.name)
    grid: tuple[int, int] = tuple(options["activations_shape"][-2:])
    hidden = step.select(hidden)
    if call.watch is not None and layer.spec.is_cross:
        call.watch.see(layer.spec, grid, lambda: (base.to_q(hidden), base.to_k(step.select(context))))
    mixed = layer(
        hidden,
        step.context_for(layer, hidden, context, base),
        step.select(prior),
        base,
        grid,
        **step.terms_for(layer.spec, grid),
        attend=partial(host_attention, options),
        observe=call.observe,
    )
    return step.restore(prior, mixed)


def host_attention(options: dict, q: Tensor, k: Tensor, v: Tensor, heads: int) -> Tensor:
    """The attention kernel the user chose for the host, overrides included."""
    return optimized_attention(q, k, v, heads, attn_precision=options["attn_precision"], transformer_options=options)


def patch(function: Callable, which: str) -> Callable:
    """A plain closure: hosts may deep-copy callable objects, weights and all, but share functions."""

    def patched(*args: Any) -> Any:
        return function(which, *args)

    return patched


capture_attn1, capture_attn2 = patch(capture, "attn1"), patch(capture, "attn2")
blend_attn1, blend_attn2 = patch(blend, "attn1"), patch(blend, "attn2")
OURS = {
    "attn1_patch": capture_attn1,
    "attn2_patch": capture_attn2,
    "attn1_output_patch": blend_attn1,
    "attn2_output_patch": blend_attn2,
}


def call_with_subjects(
    patched: comfy.model_patcher.ModelPatcher,
    x: Tensor,
    sigma: Tensor,
    context: Tensor,
    pooled: Tensor | None,
    payload: dict[str, Any],
) -> Tensor:
    """One call of a U-Net from `apply_adapter`, through the same wrappers and patches as in sampling: for training.

    Args: x (B,C,h,w), sigma (B,), context (B,M,T), pooled (B,P); payload: what rows carry, see `text.PAYLOAD`.
    Returns: denoised latents (B,C,h,w).
    """
    base: Any = patched.model
    base.current_patcher = patched
    options = {**patched.model_options["transformer_options"], "wrappers": patched.wrappers}
    # The attention chosen for speed may have no gradient; PyTorch's has one.
    options["optimized_attention_override"] = lambda _chosen, *args, **kwargs: attention_pytorch(*args, **kwargs)
    if pooled is not None:
        height, width = (8 * side for side in x.shape[-2:])  # SDXL is told the picture's size
        y = base.encode_adm(pooled_output=pooled, height=height, width=width, device=x.device)
        payload = {**payload, "y": y.to(x.device)}
    return base.apply_model(x, sigma, c_crossattn=context, transformer_options=options, **payload)
