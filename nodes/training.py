"""The host's U-Net as a base to train on: the very attention path used at inference."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from functools import partial
from typing import Any, Literal

import comfy.model_management
import comfy.model_sampling
import comfy.ops
import torch
from comfy.ldm.modules.attention import BasicTransformerBlock
from comfy.ldm.modules.diffusionmodules.openaimodel import ResBlock
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.checkpoint import checkpoint

from ..moa_attention.adapter import MoAAdapter
from ..moa_attention.checkpoint import load_adapter
from ..moa_attention.config import EMBEDDED_ENCODER
from ..moa_attention.fitted import Expert, put_on
from ..moa_attention.layer import Observe
from ..moa_attention.losses import resize
from ..moa_attention.training.base import Batch, Record
from ..moa_attention.training.config import TrainConfig
from .call import KEY
from .encoders import HostEncoders
from .folders import WEIGHTS
from .layers import fresh_adapter, unet_of
from .mini import Mini
from .patch import apply_adapter, call_with_subjects
from .text import BARRED, FEATURES, REGION, SLOTS


class HostBase:
    """`moa_attention.training.base.Base` over a ModelPatcher and the patcher of the adapter being trained.

    Args: prior_bias: as in `apply_adapter`; a very negative one trains the personalised branch alone.
    """

    def __init__(self, model: Any, adapter: Any, prior_bias: float = 0.0):
        self.patched = apply_adapter(model, adapter, encoder="", prior_bias=prior_bias, record=self._open)
        self.sampling = model.get_model_object("model_sampling")
        self.device = model.load_device
        self._record: Record | None = None

    def _open(self, sigma: Tensor, images: Tensor) -> Observe:
        assert self._record is not None
        return self._record(sigma, images)

    def sigma_at(self, share: Tensor) -> Tensor:
        sigmas = self.sampling.sigmas.to(self.device)
        return sigmas[(share.to(sigmas.device) * len(sigmas)).long().clamp(max=len(sigmas) - 1)]

    def add_noise(self, latents: Tensor, noise: Tensor, sigma: Tensor) -> Tensor:
        return self.sampling.noise_scaling(sigma[:, None, None, None], noise, latents)

    def error_weight(self, sigma: Tensor) -> Tensor:
        # x̂ = x/(σ²+1) − v·σ/√(σ²+1) for v-prediction, x̂ = x − σ·ε for noise and flow prediction.
        if isinstance(self.sampling, comfy.model_sampling.V_PREDICTION):
            return (sigma.square() + 1).sqrt() / sigma
        return 1 / sigma

    def denoise(self, noisy: Tensor, sigma: Tensor, batch: Batch, features: Tensor, record: Record) -> Tensor:
        self._record = record
        payload = {SLOTS: batch.slots[..., None].cpu(), FEATURES: features}
        if not self.patched.get_additional_models_with_key(KEY)[0].model.tells_apart:
            payload[BARRED] = barred_by_others(batch.masks).cpu()
        return call_with_subjects(self.patched, noisy, sigma, batch.context, batch.pooled, payload)


def barred_by_others(masks: Tensor) -> Tensor:
    """Where each subject must not speak because another one is there: (B,S,h,w) -> (B,S,REGION,REGION)."""
    others = (masks.sum(dim=1, keepdim=True) - masks).clamp(0, 1)
    return resize(others, (REGION, REGION)).clamp(0, 1)


@contextmanager
def checkpointed(base: nn.Module) -> Iterator[None]:
    """Inside, the U-Net's blocks keep no activations for the backward pass but compute them again: a third more time,
    a fraction of the memory."""
    blocks = [m for m in unet_of(base).modules() if isinstance(m, BasicTransformerBlock | ResBlock)]
    for block in blocks:
        block.forward = partial(compute_twice, block.forward)
    try:
        yield
    finally:
        for block in blocks:
            del block.forward


def compute_twice(forward: Any, *args: Any, **kwargs: Any) -> Any:
    """A checkpointed call. The host goes on writing into the dicts it passes, so the second pass gets them as they were."""
    frozen = {name: dict(value) if isinstance(value, dict) else value for name, value in kwargs.items()}
    return checkpoint(lambda *a: forward(*a, **{k: dict(v) if isinstance(v, dict) else v for k, v in frozen.items()}),
                      *args, use_reentrant=False)  # fmt: skip


@contextmanager
def training_mode(model: Any, config: TrainConfig) -> Iterator[None]:
    """The model in memory, frozen, and everything set so that gradients flow through it."""
    before = getattr(comfy.model_management, "in_training", False)
    comfy.model_management.in_training = True  # hosts that know it leave out shortcuts without a gradient
    # The fused attention's backward pass is slow on CPUs.
    kernel = sdpa_kernel(SDPBackend.MATH) if model.load_device.type == "cpu" else nullcontext()
    try:
        with torch.inference_mode(False), torch.enable_grad(), kernel:
            comfy.model_management.load_models_gpu([model], force_full_load=True)
            freeze(model.model)
            with checkpointed(model.model) if config.checkpointing else nullcontext():
                yield
    finally:
        comfy.model_management.in_training = before


def freeze(module: nn.Module) -> None:
    """No gradients for these weights; those made in inference mode, as nodes make them, become ordinary tensors."""
    for part in module.modules():
        for name, weight in part.named_parameters(recurse=False):
            if weight.is_inference():
                part.register_parameter(name, nn.Parameter(weight.clone(), requires_grad=False))
        for name, buffer in part.named_buffers(recurse=False):
            if buffer.is_inference():
                setattr(part, name, buffer.clone())
    module.requires_grad_(False)


def with_neutral_routers(start: Expert, kind: Literal["linear", "mlp"]) -> Expert:
    """A copy of a loaded adapter whose routers are new and in float32, and whose experts are to stay as they are."""
    with torch.inference_mode(False):
        adapter = copy.deepcopy(start)
        freeze(adapter)
        put_on(adapter, kind, comfy.ops.manual_cast)
        return adapter


def trainable_adapter(
    model: Any, encoders: HostEncoders, clip_vision_name: str, start: MoAAdapter | None, seed: int, **options: Any
) -> MoAAdapter:
    """The adapter a run begins with, in float32: a copy of `start`, else a fresh one for this model.

    Args:
        clip_vision_name: of the CLIP vision model in `encoders`, for whoever will use the adapter.
        seed: of what is random in a fresh one.
        options: of `fresh_adapter`.
    Raises: ValueError when nothing says how the adapter is to see, or `start` has no routers to train.
    """
    if start is not None and not start.has_routers:
        raise ValueError(
            "The adapter to start from has no routers that could be trained: it was converted. Start afresh."
        )
    with torch.inference_mode(False), torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        if start is not None:
            adapter = MoAAdapter(start.config)
            adapter.load_state_dict(start.state_dict())
            return adapter
        if encoders.clip_vision is not None:
            width = encoders.features(torch.zeros(1, 3, encoders.side, encoders.side)).shape[-1]
            return fresh_adapter(model, clip_vision_name, width, **options)
        if not isinstance(model.model.model_config, Mini):
            raise ValueError(
                "The adapter must see its subjects through a CLIP vision model, and none is given. Load one, for example "
                "clip-vit-large-patch14, from models/clip_vision."
            )
        bundled = load_adapter(WEIGHTS / "mini" / "adapter.safetensors")
        adapter = fresh_adapter(model, EMBEDDED_ENCODER, bundled.config.image_width, **options)
        assert adapter.encoder is not None and bundled.encoder is not None
        adapter.encoder.load_state_dict(bundled.encoder.state_dict())  # it has learned to see
        return adapter
