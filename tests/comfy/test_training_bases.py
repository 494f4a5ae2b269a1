"""Base models that predict noise, v, or v with a last timestep of pure noise: the loss is that of their own prediction."""

from __future__ import annotations

import importlib
from typing import Any

import comfy.model_sampling
import host
import pytest
import subjects
import torch
from comfyui_moa.moa_attention.training.base import Batch
from comfyui_moa.moa_attention.training.config import TrainConfig
from comfyui_moa.moa_attention.training.objective import error_factor
from comfyui_moa.nodes.host.training.trainer import HostBase, training_mode

KINDS = [("noise", False), ("v", False), ("v", True)]


def base_of(prediction: str, zero_snr: bool) -> tuple[Any, HostBase]:
    """SD1.5 in miniature, as `models.prediction` loads it."""
    models = importlib.import_module("comfyui_moa.recipes.adapter.models")
    settings = importlib.import_module("comfyui_moa.recipes.adapter.settings")
    wanted = settings.ModelSettings(checkpoint="x", prediction=prediction, zero_snr=zero_snr)
    model = models.predicting(host.sd15(), wanted)
    return model, HostBase(model, subjects.make_adapter(model, host.SD15_CONTEXT).patcher)


@pytest.mark.parametrize(("prediction", "zero_snr"), KINDS)
def test_the_error_is_that_of_the_networks_own_prediction(prediction: str, zero_snr: bool):
    model, base = base_of(prediction, zero_snr)
    latents, noise = torch.randn(3, 4, 16, 16), torch.randn(3, 4, 16, 16)
    seen: list[torch.Tensor] = []
    hook = model.model.diffusion_model.register_forward_hook(lambda _module, _inputs, output: seen.append(output))
    with training_mode(model, TrainConfig(steps=1)), torch.no_grad():
        sigma = base.sigma_at(torch.tensor([0.05, 0.5, 0.999]))
        batch = Batch(latents, torch.randn(3, 77, host.SD15_CONTEXT), torch.zeros(3, 77), torch.zeros(3, 1, 8), latents)
        denoised = base.denoise_alone(base.add_noise(latents, noise, sigma), sigma, batch)
    hook.remove()
    signal = (1 / (sigma.square() + 1).sqrt())[:, None, None, None]
    target = noise if prediction == "noise" else signal * noise - (1 - signal.square()).sqrt() * latents
    error = (latents - denoised) * base.error_weight(sigma)[:, None, None, None]
    torch.testing.assert_close(error.abs(), (seen[0].float() - target).abs(), rtol=2e-3, atol=2e-3)
    assert (sigma[-1] > 4000) == zero_snr
    torch.testing.assert_close(base.signal_to_noise(sigma), 1 / sigma.square())


def test_the_weights_of_v_prediction_stay_finite_at_pure_noise():
    _, base = base_of("v", True)
    sigma = base.sigma_at(torch.tensor([0.0, 0.999]))
    for weighting in ("none", "min-snr", "debiased"):
        factor = error_factor(base, sigma, TrainConfig(steps=1, weighting=weighting))
        assert factor.isfinite().all() and (factor > 0).all()
    snr = base.signal_to_noise(sigma)
    v_loss = (error_factor(base, sigma, TrainConfig(steps=1, weighting="min-snr")) / base.error_weight(sigma)).square()
    torch.testing.assert_close(v_loss, snr.clamp(max=5) / (snr + 1), msg="the weight of the v-loss, Salimans & Ho")


def test_a_flow_has_the_ratio_of_its_own_noise():
    """Of ComfyUI's flow models, x = (1 − σ)·x₀ + σ·ε."""
    model, _ = base_of("noise", False)
    flow = type("Flow", (comfy.model_sampling.ModelSamplingDiscreteFlow, comfy.model_sampling.CONST), {})
    model.add_object_patch("model_sampling", flow(model.model.model_config))
    base = HostBase(model, subjects.make_adapter(model, host.SD15_CONTEXT).patcher)
    sigma = torch.tensor([0.2, 0.9])
    torch.testing.assert_close(base.signal_to_noise(sigma), ((1 - sigma) / sigma).square())
    assert torch.equal(base.error_weight(sigma), 1 / sigma)
