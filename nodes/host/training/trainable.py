"""The adapter that a run starts from."""

from __future__ import annotations

import copy
from typing import Any, Literal, NamedTuple, TypeVar

import torch

from ....moa_attention.adapters.base import FACE_INPUTS, Adapter
from ....moa_attention.adapters.moa import MoAAdapter
from ....moa_attention.formats.adapter import load_adapter
from ....moa_attention.formats.routers import attach_routers, expert_name
from ....moa_attention.method.spec import EMBEDDED_ENCODER
from ...sockets import LoadedAdapter
from ..files.adapters import HOST
from ..files.folders import WEIGHTS
from ..model.layers import fresh_adapter, layer_paths
from ..model.mini import Mini
from .encoders import HostEncoders
from .trainer import freeze

AnyExpert = TypeVar("AnyExpert", bound=Adapter)


class LoadedModels(NamedTuple):
    """The models of a run."""

    encoders: HostEncoders
    """With the base model."""
    adapter: Adapter
    """The adapter that is trained, in float32."""
    expert: str
    """`expert_name` of a frozen expert whose routers alone are trained; empty otherwise."""


def models_for_routers(
    model: Any, clip: Any, vae: Any, clip_vision: Any, start: LoadedAdapter, kind: Literal["linear", "mlp"]
) -> LoadedModels:
    """For `only_routers`: the adapter in `start`, of any kind, with new routers.

    Raises: ValueError when its subjects cannot be encoded from pictures with what is given, or it belongs to another base.
    """
    module = start.patcher.model
    if module.requires.keys() & set(FACE_INPUTS):
        raise ValueError(f"'{start.name}' needs face embeddings, which a folder of pictures does not contain.")
    if module.encoder is None and clip_vision is None:
        raise ValueError(
            f"'{start.name}' encodes its subjects with {module.config.image_encoder}, and no CLIP vision model is given. Set "
            "models.clip_vision to that model, or connect it to 'clip_vision' of 'Train MoA Adapter'."
        )
    layer_paths(model.model, module.config)
    encoders = HostEncoders(model, clip, vae, clip_vision, None if module.encoder is not None else start)
    return LoadedModels(encoders, with_neutral_routers(module, kind), expert_name(module))


def with_neutral_routers(start: AnyExpert, kind: Literal["linear", "mlp"]) -> AnyExpert:
    """A copy of a loaded adapter with frozen experts and new routers in float32."""
    with torch.inference_mode(False):
        adapter = copy.deepcopy(start)
        freeze(adapter)
        attach_routers(adapter, kind, HOST)
        return adapter


def trainable_adapter(
    model: Any, encoders: HostEncoders, clip_vision_name: str, start: MoAAdapter | None, seed: int, **options: Any
) -> MoAAdapter:
    """The adapter a run starts from, in float32: a copy of `start`, else a fresh one for this model.

    Args:
        clip_vision_name: of the CLIP vision model in `encoders`, for users of the adapter.
        seed: of the random weights of a fresh adapter.
        options: of `fresh_adapter`.
    Raises: ValueError when no image encoder is given, or `start` has no routers to train or belongs to another base model.
    """
    if start is not None and not start.has_routers:
        raise ValueError(
            "The adapter in 'start' was converted and has no routers that can be trained. Leave 'start' empty, or fit routers "
            "to it with train.only_routers."
        )
    with torch.inference_mode(False), torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        if start is not None:
            layer_paths(model.model, start.config)
            adapter = MoAAdapter(start.config)
            adapter.load_state_dict(start.state_dict())
            return adapter
        if encoders.clip_vision is not None:
            width = encoders.features(torch.zeros(1, 3, encoders.side, encoders.side)).shape[-1]
            return fresh_adapter(model, clip_vision_name, width, **options)
        if not isinstance(model.model.model_config, Mini):
            raise ValueError(
                "The adapter encodes its subjects with a CLIP vision model, and none is given. Load one, for example "
                "clip-vit-large-patch14, from models/clip_vision."
            )
        bundled = load_adapter(WEIGHTS / "mini" / "adapter.safetensors")
        adapter = fresh_adapter(model, EMBEDDED_ENCODER, bundled.config.image_width, **options)
        assert adapter.encoder is not None and bundled.encoder is not None
        adapter.encoder.load_state_dict(bundled.encoder.state_dict())  # the bundled encoder is trained already
        return adapter
