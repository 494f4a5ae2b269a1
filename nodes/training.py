"""The host's U-Net as a base to train on: the very attention path used at inference."""

from __future__ import annotations

from typing import Any

import comfy.model_sampling
from torch import Tensor

from ..moa_attention.training.base import Batch, Record
from .patch import call_with_subjects


class HostBase:
    """`moa_attention.training.base.Base` over a ModelPatcher and the patcher of the adapter being trained."""

    def __init__(self, model: Any, adapter: Any):
        self.model = model
        self.adapter = adapter
        self.sampling = model.get_model_object("model_sampling")

    def sigma_at(self, share: Tensor) -> Tensor:
        sigmas = self.sampling.sigmas.to(self.model.load_device)
        return sigmas[(share.to(sigmas.device) * len(sigmas)).long().clamp(max=len(sigmas) - 1)]

    def add_noise(self, latents: Tensor, noise: Tensor, sigma: Tensor) -> Tensor:
        return self.sampling.noise_scaling(sigma[:, None, None, None], noise, latents)

    def error_weight(self, sigma: Tensor) -> Tensor:
        # x̂ = x/(σ²+1) − v·σ/√(σ²+1) for v-prediction, x̂ = x − σ·ε for noise and flow prediction.
        if isinstance(self.sampling, comfy.model_sampling.V_PREDICTION):
            return (sigma.square() + 1).sqrt() / sigma
        return 1 / sigma

    def denoise(self, noisy: Tensor, sigma: Tensor, batch: Batch, features: Tensor, record: Record) -> Tensor:
        return call_with_subjects(self.model, self.adapter, noisy, sigma, batch.context, batch.slots, features, record)
