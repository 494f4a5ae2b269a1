"""The attachment to Stable Diffusion U-Nets: their layers found by a walk, patches that capture first and blend last.

`attnN_patch` keeps the normed hidden state and the context before any other pack changes them; `attnN_output_patch` blends the
personalised branch into the attention that the host and other packs produced. Nothing is replaced.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any, Literal, NamedTuple, cast

from comfy.ldm.modules.attention import SpatialTransformer, optimized_attention
from comfy.ldm.modules.diffusionmodules.openaimodel import UNetModel
from torch import Tensor, nn

from ....moa_attention.method.expert import Projections
from ....moa_attention.method.layer import RoutedLayer
from ....moa_attention.method.spec import LayerSpec
from ....moa_attention.run.listener import observe_all
from .attachment import KEY, AttentionLayer
from .call import CallState

ATTENTIONS: dict[str, Literal["self", "cross"]] = {"attn1": "self", "attn2": "cross"}
"""The host's names of a transformer block's two attentions."""


def unet_of(base: nn.Module) -> UNetModel:
    """The U-Net of a host model (`ModelPatcher.model`).

    Raises: ValueError for any other architecture.
    """
    unet = getattr(base, "diffusion_model", None)
    if not isinstance(unet, UNetModel):
        raise ValueError(
            f"MoA needs a Stable Diffusion U-Net (SD1.5, SDXL or MoA Mini), but this model is a {type(base).__name__} "
            f"({type(unet).__name__}). Transformer models such as Flux, SD3 or Qwen have no layers that MoA can attach to. "
            "Load an SD1.5 or SDXL checkpoint."
        )
    return unet


class Block(NamedTuple):
    """A transformer block of a U-Net."""

    stage: str
    """`input`, `middle` or `output`."""
    name: str
    path: str
    module: nn.Module


def transformer_blocks(unet: UNetModel) -> Iterator[Block]:
    """In execution order, read off the modules; no model family has a table."""
    stages: list[tuple[str, int, str, nn.Module]] = [
        ("input", i, f"input_blocks.{i}", block) for i, block in enumerate(cast("nn.ModuleList", unet.input_blocks))
    ]
    if unet.middle_block is not None:
        stages.append(("middle", 0, "middle_block", unet.middle_block))
    stages += [("output", i, f"output_blocks.{i}", block) for i, block in enumerate(unet.output_blocks)]
    for stage, number, path, layers in stages:
        for i, layer in enumerate(cast("nn.Sequential", layers)):
            if isinstance(layer, SpatialTransformer):
                for j, block in enumerate(layer.transformer_blocks):
                    yield Block(stage, f"{stage}_{number}_{j}", f"{path}.{i}.transformer_blocks.{j}", block)


def attention_layers(unet: UNetModel) -> Iterator[AttentionLayer]:
    """Every self- and cross-attention of the U-Net, named by its place."""
    outermost = None
    for depth, block in enumerate(transformer_blocks(unet)):
        for which, kind in ATTENTIONS.items():
            attention = getattr(block.module, which)
            hidden, context = attention.to_q.in_features, attention.to_k.in_features
            outermost = outermost or hidden
            # The router loss leaves out the outermost stage, known by its width (paper: first 2 and last 3 blocks of SD1.5).
            spec = LayerSpec(
                f"{block.name}_{which}", block.stage, kind, depth, hidden, context, attention.heads,
                supervised=hidden != outermost,
            )  # fmt: skip
            yield AttentionLayer(spec, f"{block.path}.{which}")


def capture(which: str, hidden: Tensor, context: Tensor, value: Tensor, options: dict) -> tuple[Tensor, Tensor, Tensor]:
    """attnN_patch: keep z and the context in this block's own options; change nothing."""
    if KEY in options:
        options[f"{KEY}_{which}"] = (hidden, context)
    return hidden, context, value


def blend_branch(which: str, prior: Tensor, options: dict) -> Tensor:
    """attnN_output_patch: mix the personalised branch of each adapter into the rows that have its subjects."""
    calls: Sequence[CallState] = options.get(KEY, ())
    stage, number = options["block"]
    name = f"{stage}_{number}_{options['block_index']}_{which}"
    calls = [call for call in calls if name in call.layers]
    if not calls:
        return prior
    hidden, context = options.pop(f"{KEY}_{which}")
    if hidden.shape[:2] != prior.shape[:2]:
        raise RuntimeError(
            f"Another node changed the number of rows or pixels at {name} and did not change it back: "
            f"{tuple(hidden.shape[:2])} before attention, {tuple(prior.shape[:2])} after it. Put that node before 'Apply MoA'."
        )
    mixed = prior
    for call in calls:
        layer = call.layers[name]
        if mixed is not prior and layer.changes_prior(call.projections(name)):
            # Its branch begins with the model's own attention; what the earlier adapters added to that remains.
            mixed = mixed + (mix_branch(call, layer, prior, hidden, context, options) - prior)
        else:
            mixed = mix_branch(call, layer, mixed, hidden, context, options)
    return mixed


def mix_branch(
    call: CallState, layer: RoutedLayer, prior: Tensor, hidden: Tensor, context: Tensor, options: dict
) -> Tensor:
    """The mixture of one layer: prior and hidden (B,N,D), context (B,M,T) -> (B,N,D)."""
    step, base, spec = call.step, call.projections(layer.spec.name), layer.spec
    grid: tuple[int, int] = tuple(options["activations_shape"][-2:])
    hidden, pixels = step.select(hidden), step.budget.pixels(spec.name, grid)
    mixed = layer(
        hidden,
        step.select(prior),
        base,
        layer.gate(hidden, step.limits(spec, grid)),
        None if pixels == 0 else step.keys_values(layer, hidden, context, base),
        grid,
        pixels=pixels,
        attend=partial(host_attention, options),
        observe=observer(call, spec, base, hidden, context),
    )
    return step.restore(prior, mixed)


def observer(
    call: CallState, spec: LayerSpec, base: Projections, hidden: Tensor, context: Tensor
) -> Callable[..., None] | None:
    """Passes a layer's routing to the call's observers, with the prior's own queries and keys on demand."""
    if not call.observers:
        return None

    def prior() -> tuple[Tensor, Tensor]:
        return base.to_q(hidden), base.to_k(call.step.select(context))

    return lambda spec, routing: observe_all(call.observers, spec, routing._replace(prior=prior))


def host_attention(options: dict, q: Tensor, k: Tensor, v: Tensor, heads: int, mask: Tensor | None = None) -> Tensor:
    """The attention kernel that the user chose for the host, overrides included. Nodes that compute blocks themselves give no precision."""
    precision = options.get("attn_precision")
    masked: dict[str, Any] = {} if mask is None else {"mask": mask}  # overrides of other packs may not take one
    return optimized_attention(q, k, v, heads, attn_precision=precision, transformer_options=options, **masked)


def patch(function: Callable, which: str) -> Callable:
    """A plain closure: hosts may deep-copy callable objects, weights and all, but share functions."""

    def patched(*args: Any) -> Any:
        return function(which, *args)

    return patched


CAPTURES = {f"{which}_patch": patch(capture, which) for which in ATTENTIONS}
BLENDS = {f"{which}_output_patch": patch(blend_branch, which) for which in ATTENTIONS}


class UNetAttachment:
    """`Attachment` for the host's `UNetModel`: SD1.5, SDXL and MoA Mini."""

    def layers(self, base: nn.Module) -> list[AttentionLayer]:
        return list(attention_layers(unet_of(base)))

    def projections(self, attention: nn.Module) -> Projections:
        return Projections.of(attention)

    def enclosing(self, patches: Mapping[str, list]) -> dict[str, list]:
        """HyperTile and ToMe change the token grid between their two patches; ours must enclose theirs."""
        enclosed = dict(patches)
        for name, ours in CAPTURES.items():
            enclosed[name] = [ours, *(p for p in patches.get(name, ()) if p is not ours)]
        for name, ours in BLENDS.items():
            enclosed[name] = [*(p for p in patches.get(name, ()) if p is not ours), ours]
        return enclosed
