"""A kind of adapter and a router that exist only in the tests: each needs one class and one registration."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch
from comfyui_moa.moa_attention.adapters.base import Adapter, EncoderInput
from comfyui_moa.moa_attention.formats.plan import Header, Plan
from comfyui_moa.moa_attention.formats.tensors import StoredFile
from comfyui_moa.moa_attention.method.expert import Projections
from comfyui_moa.moa_attention.method.factory import Factory
from comfyui_moa.moa_attention.method.layer import Attend, Gate, KeysValues, RoutedLayer
from comfyui_moa.moa_attention.method.spec import LayerSpec, MoAConfig
from comfyui_moa.moa_attention.routers.base import TrainingFreeRouter, present
from comfyui_moa.moa_attention.run.listener import CallInfo
from comfyui_moa.moa_attention.run.step import Rows, Step
from torch import Tensor, nn

FORMAT = "toy-adapter"
SIDE = 16
LAYER = "output_11_0_attn2"


class TintLayer(RoutedLayer):
    """personal(z) = prior(z) + W f, the same at every pixel: f is the mean colour of the subject's picture."""

    def __init__(self, spec: LayerSpec, factory: Factory):
        super().__init__()
        self.spec, self.router = spec, None
        self.tint = factory.linear(3, spec.hidden, bias=False)

    def queries(self, hidden: Tensor, base: Projections) -> Tensor:
        return hidden

    def keys_values(self, context: Tensor, base: Projections) -> KeysValues:
        return KeysValues(context, self.tint(context[..., :3]))

    def mix(
        self, query: Tensor, keys_values: KeysValues, prior: Tensor, gate: Gate, base: Projections, attend: Attend
    ) -> Tensor:
        return prior + torch.einsum("bsn,bsd->bnd", gate.by_subject().to(prior.dtype), keys_values.value)


class TintStep(Step):
    """The context of its layer is the subjects' features."""

    def context_for(self, spec: LayerSpec, hidden: Tensor, context: Tensor) -> Tensor:
        return self.tokens

    def constant_context(self, context: Tensor) -> Tensor:
        return self.tokens

    def complete(self, cached: KeysValues, layer: RoutedLayer, base: Projections) -> KeysValues:
        return cached


class TintAdapter(Adapter):
    """One layer of a U-Net."""

    separates_subjects = False
    requires = {"pixels": SIDE}
    subject_modules = ()

    def __init__(self, config: MoAConfig, factory: Factory):
        super().__init__()
        self.config = config
        self.layers = nn.ModuleDict({spec.name: TintLayer(spec, factory) for spec in config.layers})

    def encode(self, inputs: Mapping[EncoderInput, Tensor]) -> Tensor:
        return inputs["pixels"].mean(dim=(2, 3))

    def begin(
        self,
        context: Tensor,
        t: Tensor,
        slots: Tensor,
        features: Tensor,
        rows: Rows,
        prior_bias: Tensor,
        weights: Any = None,
    ) -> Step:
        if rows is not None:
            slots, features = slots[rows], features[rows]
        return TintStep(rows, slots, features, prior_bias)


def recognises(stored: StoredFile) -> bool:
    return stored.header is not None and stored.header.get("format") == FORMAT


def plan(stored: StoredFile, factory: Factory) -> Plan:
    """Its file names the depth of its one layer."""
    header = stored.header or {}
    hidden, _ = stored.shape(f"layers.{LAYER}.tint.weight", 2)
    spec = LayerSpec(
        LAYER, "output", "cross", int(header["depth"]), hidden, int(header["text"]), int(header["heads"]), True
    )
    config = MoAConfig("sd15", (spec,), int(header["text"]), "its own eyes", 3, router="none")
    adapter = TintAdapter(config, replace(factory, device="meta"))
    return Plan(
        "a toy", adapter, {name: name for name in stored.tensors}, Header(config, "CC0-1.0", {"imported": "a toy"})
    )


class LeftRouter(TrainingFreeRouter):
    """Every subject has the full share in the left half of the picture."""

    apart = False

    def shares(self, call: CallInfo) -> Tensor:
        half = torch.zeros(8, 8, device=call.slots.device)
        half[:, :4] = 1
        return present(call.slots, call.count).float()[..., None, None] * half
