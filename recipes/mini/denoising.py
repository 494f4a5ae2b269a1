"""What a reference is worth while denoising: errors of the predicted noise, relative to the base model's own.

Sharper than pictures: every variant sees the same people, noise and timesteps, so small differences show.
"""

from dataclasses import replace

import comfy.model_management
import torch
from torch import Tensor

from ...moa_attention.adapter import MoAAdapter
from ...moa_attention.training.base import Batch
from ...moa_attention.training.lots import Lot, generator_for
from ...moa_attention.training.objective import LayerLosses, draw_noise, encode_references
from ...nodes.call import PRIOR_ONLY
from ...nodes.mini import load_mini
from ...nodes.patch import host_patcher
from ...nodes.training import HostBase
from .adapter import Examples
from .faces import WEIGHTS
from .session import DEVICE

LEVELS, BATCH = 16, 16


@torch.no_grad()
def squared_error(base: HostBase, adapter: MoAAdapter, batch: Batch, noise: Tensor, share: float) -> Tensor:
    """Of the predicted noise at a share of the schedule, (B,C,h,w)."""
    sigma = base.sigma_at(torch.full((len(noise),), share))
    noisy = base.add_noise(batch.latents, noise, sigma)
    features = encode_references(adapter, batch.references)
    denoised = base.denoise(noisy, sigma, batch, features, LayerLosses(batch, objects=False).record)
    return ((denoised - batch.latents) * base.error_weight(sigma)[:, None, None, None]).square()


def denoising_errors(adapter: MoAAdapter, prior_bias: float) -> dict[str, float]:
    """On pictures of the test split, `BATCH` at each of `LEVELS` timesteps; the prior's errors are 1.

    Returns: `denoise_right` and `denoise_wrong` where the subjects are, with their own references and with those of the
    next picture; `denoise_outside` on the rest, with their own.
    """
    model, clip, _ = load_mini(WEIGHTS)
    patcher = host_patcher(adapter.to(DEVICE))
    comfy.model_management.load_models_gpu([model, patcher])
    assert adapter.encoder is not None
    examples = Examples(clip, adapter.encoder.picture, "test")
    prior, ours = HostBase(model, patcher, PRIOR_ONLY), HostBase(model, patcher, prior_bias)
    inside, outside = torch.zeros(3), torch.zeros(3)  # of prior, right and wrong
    for level in range(LEVELS):
        generators = [generator_for("denoising", level, place) for place in range(BATCH)]
        batch = examples(Lot(level, range(BATCH), generators))
        wrong = replace(batch, references=batch.references.roll(1, 0))
        noise, share = draw_noise(generators, batch.latents), (level + 0.5) / LEVELS
        mask = batch.masks.sum(dim=1, keepdim=True).clamp(max=1)
        seen = ((prior, batch), (ours, batch), (ours, wrong))
        errors = torch.stack([squared_error(base, adapter, by, noise, share) for base, by in seen])
        inside += (errors * mask).sum(dim=(1, 2, 3, 4)).cpu()
        outside += (errors * (1 - mask)).sum(dim=(1, 2, 3, 4)).cpu()
    (_, right, wrong), (_, beside, _) = (inside / inside[0]).tolist(), (outside / outside[0]).tolist()
    return {"denoise_right": right, "denoise_wrong": wrong, "denoise_outside": beside}
