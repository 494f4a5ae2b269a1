"""The host's U-Net as a base model to train on, through the attention path of inference."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import comfy.model_sampling
import torch
from comfy.ldm.modules.attention import BasicTransformerBlock
from comfy.ldm.modules.diffusionmodules.openaimodel import Downsample, ResBlock, Upsample
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from ....moa_attention.method.attention import resize
from ....moa_attention.method.layer import Observe
from ....moa_attention.run.listener import CallInfo, RunListener
from ....moa_attention.training.base import Batch, Record
from ..model.attachment import KEY
from ..model.patch import apply_adapter, call_with_subjects
from ..model.unet import unet_of
from ..prompts.payload_names import FIRST
from ..prompts.subject_regions import REGION

RECOMPUTED = (BasicTransformerBlock, ResBlock, Downsample, Upsample)
"""The parts of a U-Net that are recomputed in the backward pass."""


class HostBase(RunListener):
    """`moa_attention.training.base.Base` over a ModelPatcher and the patcher of the adapter being trained.

    Args: prior_bias: as in `apply_adapter`; a very negative one trains the personalised branch alone.
    """

    def __init__(self, model: Any, adapter: Any, prior_bias: float = 0.0):
        self.patched = apply_adapter(model, adapter, encoder="", prior_bias=prior_bias, observers=[self])
        self.sampling = model.get_model_object("model_sampling")
        self.device = model.load_device
        self._record: Record | None = None

    def begin_call(self, call: CallInfo) -> Observe:
        assert self._record is not None
        pictures = [-1 if view is None else view.picture for view in call.views]
        return self._record(call.sigma, torch.tensor(pictures))

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

    def signal_to_noise(self, sigma: Tensor) -> Tensor:
        one, none = torch.ones_like(sigma), torch.zeros_like(sigma)
        signal = self.sampling.noise_scaling(sigma, none, one)
        return (signal / self.sampling.noise_scaling(sigma, one, none)).square()

    def denoise(self, noisy: Tensor, sigma: Tensor, batch: Batch, features: Tensor, record: Record) -> Tensor:
        self._record = record
        payload = {FIRST.slots: batch.slots[..., None].cpu(), FIRST.features: features}
        if not self.patched.get_additional_models_with_key(KEY)[0].model.separates_subjects:
            payload[FIRST.barred] = excluded_regions(batch.masks).flatten(2).cpu()
        return call_with_subjects(self.patched, noisy, sigma, batch.context, batch.pooled, payload)

    @torch.no_grad()
    def denoise_alone(self, noisy: Tensor, sigma: Tensor, batch: Batch) -> Tensor:
        return call_with_subjects(self.patched, noisy, sigma, batch.context, batch.pooled, {})


def excluded_regions(masks: Tensor) -> Tensor:
    """For each subject, the pixels of the other subjects, where it is inactive: (B,S,h,w) -> (B,S,REGION,REGION)."""
    others = (masks.sum(dim=1, keepdim=True) - masks).clamp(0, 1)
    return resize(others, (REGION, REGION)).clamp(0, 1)


@contextmanager
def checkpointed(base: nn.Module) -> Iterator[None]:
    """Inside, the U-Net's blocks keep no activations for the backward pass and recompute them there.

    A third slower, a fraction of the memory.
    """
    blocks = [m for m in unet_of(base).modules() if isinstance(m, RECOMPUTED)]
    for block in blocks:
        block.forward = partial(recomputed, block.forward)
    try:
        yield
    finally:
        for block in blocks:
            del block.forward


def recomputed(forward: Any, *args: Any, **kwargs: Any) -> Any:
    """A checkpointed call. The host changes the dicts it passes after the call, so the second pass gets copies."""
    frozen = {name: dict(value) if isinstance(value, dict) else value for name, value in kwargs.items()}
    return checkpoint(lambda *a: forward(*a, **{k: dict(v) if isinstance(v, dict) else v for k, v in frozen.items()}),
                      *args, use_reentrant=False)  # fmt: skip
