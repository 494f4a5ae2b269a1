"""The host's own nodes that take and give a MODEL, with settings under which they have an effect on a tiny model."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import files
from scene import Inputs, Neighbour, Scene
from schemas import apply_node, declared, kind, model_nodes

Given = dict[str, Any] | Callable[[Scene], dict[str, Any]]


@dataclass(frozen=True)
class Setting:
    """How a node is run; what is not given is made from its schema."""

    given: Given = field(default_factory=dict)
    size: tuple[int, int, int] = (16, 16, 1)
    steps: int = 2


CACHE = {"reuse_threshold": 3.0, "start_percent": 0.0, "end_percent": 1.0}
"""EasyCache compares steps, which a model with random weights makes very different."""
SETTINGS: dict[str, Setting] = {
    "APG": Setting({"eta": 0.5, "momentum": -0.5}, steps=3),
    "CFGOverride": Setting({"cfg": 2.0}),
    "ContextWindowsManual": Setting(
        {"context_length": 2, "context_overlap": 1, "causal_window_fix": False}, size=(8, 8, 4)
    ),
    "EasyCache": Setting(CACHE, steps=6),
    "Epsilon Scaling": Setting({"scaling_factor": 1.05}),
    "FreSca": Setting({"freq_cutoff": 4}),
    "HypernetworkLoader": Setting(files.hypernetwork),
    "HyperTile": Setting({"tile_size": 32, "max_depth": 1}),
    "LatentApplyOperationCFG": Setting(lambda scene: {"operation": lambda latent, **_: latent.tanh()}),
    "LazyCache": Setting(CACHE, steps=6),
    "LoraLoader": Setting(files.lora),
    "LoraLoaderBypass": Setting(files.lora),
    "LoraLoaderBypassModelOnly": Setting(files.lora),
    "LoraLoaderModelOnly": Setting(files.lora),
    "LoraModelLoader": Setting(files.loaded_lora),
    "ModelComputeDtype": Setting({"dtype": "bf16"}),
    "ModelSamplingDiscrete": Setting({"sampling": "v_prediction", "zsnr": True}),
    "RenormCFG": Setting({"renorm_cfg": 0.5}),
    "UNetCrossAttentionMultiply": Setting({"q": 1.3, "v": 0.8}),
    "UNetSelfAttentionMultiply": Setting({"q": 1.3, "v": 0.8}),
    "VideoLinearCFGGuidance": Setting({"min_cfg": 1.5}, size=(8, 8, 3)),
    "VideoTriangleCFGGuidance": Setting({"min_cfg": 1.5}, size=(8, 8, 3)),
}


def on_models(nodes: Mapping[str, Any], settings: Mapping[str, Setting]) -> Iterator[Neighbour]:
    """Every one of some nodes that takes and gives a MODEL."""
    for name in model_nodes(nodes):
        setting = settings.get(name, Setting())
        apply = partial(apply_with, nodes[name], setting.given)
        yield Neighbour(name, apply, size=setting.size, options={"steps": setting.steps})


def apply_with(node: Any, given: Given, scene: Scene, inputs: Inputs) -> Inputs:
    """A node with its settings; merges are of halves."""
    chosen = given(scene) if callable(given) else given
    if node.__name__.startswith("ModelMerge"):
        chosen = {name: 0.5 for name, spec in declared(node).items() if kind(spec) == "FLOAT"} | chosen
    return apply_node(node, scene, inputs, chosen)
