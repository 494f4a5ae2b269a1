"""The effect of a reference on denoising: errors of the predicted noise, relative to the base model's own.

More sensitive than measures of generated images: people, noise and timesteps are the same for every adapter.
"""

from dataclasses import replace

import comfy.model_management
import torch

from ....moa_attention.adapters.moa import MoAAdapter
from ....moa_attention.training.held_out import squared_error
from ....moa_attention.training.lots import Lot, generator_for
from ....moa_attention.training.objective import draw_noise
from ....nodes.host.files.mini_files import load_mini
from ....nodes.host.model.patch import host_patcher
from ....nodes.host.training.trainer import HostBase
from ..data.faces import WEIGHTS
from ..model.adapter import Examples
from ..model.session import DEVICE

LEVELS, BATCH = 16, 16


def denoising_errors(adapter: MoAAdapter, prior_bias: float) -> dict[str, float]:
    """On pictures of the test split, `BATCH` at each of `LEVELS` timesteps; the prior's error is 1.

    Returns: `denoise_right` and `denoise_wrong` inside the subjects' masks, with their own references and with those of the
    next picture; `denoise_outside` outside, with their own.
    """
    model, clip, _ = load_mini(WEIGHTS)
    patcher = host_patcher(adapter.to(DEVICE))
    comfy.model_management.load_models_gpu([model, patcher])
    assert adapter.encoder is not None
    examples = Examples(clip, adapter.encoder.picture, "test")
    base = HostBase(model, patcher, prior_bias)
    inside, outside = torch.zeros(3), torch.zeros(3)  # of prior, right and wrong
    for level in range(LEVELS):
        generators = [generator_for("denoising", level, place) for place in range(BATCH)]
        batch = examples(Lot(level, range(BATCH), generators))
        wrong = replace(batch, references=batch.references.roll(1, 0))
        noise, share = draw_noise(generators, batch.latents), (level + 0.5) / LEVELS
        mask = batch.masks.sum(dim=1, keepdim=True).clamp(max=1)
        compared = ((None, batch), (adapter, batch), (adapter, wrong))
        errors = torch.stack([squared_error(base, with_it, given, noise, share)[0] for with_it, given in compared])
        inside += (errors * mask).sum(dim=(1, 2, 3, 4)).cpu()
        outside += (errors * (1 - mask)).sum(dim=(1, 2, 3, 4)).cpu()
    (_, right, wrong), (_, background, _) = (inside / inside[0]).tolist(), (outside / outside[0]).tolist()
    return {"denoise_right": right, "denoise_wrong": wrong, "denoise_outside": background}
