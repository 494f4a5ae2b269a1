"""One step's losses: masked reconstruction + λ_r · router + λ_o · object."""

from __future__ import annotations

import torch
from torch import Generator, Tensor

from ..adapter import MoAAdapter
from ..config import LayerSpec
from ..layer import Observe, Routing
from ..losses import average_prior_route, masked_reconstruction, object_loss, router_loss
from .base import Base, Batch
from .config import TrainConfig


def encode_references(adapter: MoAAdapter, references: Tensor) -> Tensor:
    """(B,S,3,side,side) -> (B,S,F) by the adapter's own encoder; features made beforehand pass through."""
    if references.ndim == 3:
        return references
    if adapter.encoder is None:
        raise ValueError(f"references are pictures, but the adapter looks through '{adapter.config.image_encoder}'")
    return adapter.encoder(references.flatten(0, 1)).unflatten(0, references.shape[:2])


def draw_timesteps(count: int, config: TrainConfig, generator: Generator) -> Tensor:
    """Timesteps as shares of the schedule in [0,1), with density ∝ share^(noisiness − 1) -> (B,)."""
    return torch.rand(count, generator=generator) ** (1 / config.noisiness)


def objective(
    adapter: MoAAdapter, base: Base, batch: Batch, config: TrainConfig, generator: Generator
) -> tuple[Tensor, dict[str, Tensor]]:
    """The loss of one batch, and its parts for the log (detached; R_0 outside and R_1 inside the subjects among them)."""
    routings: dict[LayerSpec, Routing] = {}

    def record(_sigma: Tensor, _images: Tensor) -> Observe:
        return routings.__setitem__

    sigma = base.sigma_at(draw_timesteps(len(batch.latents), config, generator))
    noise = torch.randn(batch.latents.shape, generator=generator).to(batch.latents)
    noisy = base.add_noise(batch.latents, noise, sigma)
    with torch.autocast(noisy.device.type, torch.bfloat16, enabled=config.precision == "bfloat16"):
        features = encode_references(adapter, batch.references).float()
        denoised = base.denoise(noisy, sigma, batch, features, record)

    weight = base.error_weight(sigma)[:, None, None, None]
    union = batch.masks.sum(dim=1, keepdim=True).clamp(max=1)
    supervised = [r for spec, r in routings.items() if spec.supervised]
    crosses = [(r, spec.heads) for spec, r in routings.items() if spec.is_cross]
    parts = {
        "reconstruction": masked_reconstruction(denoised * weight, batch.latents * weight, union),
        "router": router_loss(supervised, union, config.router_foreground),
        "object": object_loss([r for r, _ in crosses], [h for _, h in crosses], batch.slots, batch.masks),
    }
    loss = parts["reconstruction"] + config.router_weight * parts["router"] + config.object_weight * parts["object"]
    with torch.no_grad():
        prior = average_prior_route(supervised, (union.shape[-2], union.shape[-1]))
        parts["prior_outside"] = (prior * (1 - union)).sum() / (1 - union).sum()
        parts["personal_inside"] = ((1 - prior) * union).sum() / union.sum().clamp(min=1)
    return loss, {name: part.detach() for name, part in parts.items()}
