"""One step's losses: masked reconstruction + λ_r · router + λ_o · object."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Generator, Tensor, nn

from ..config import LayerSpec
from ..fitted import Expert
from ..layer import Observe, Routing
from ..losses import masked_reconstruction, object_loss, prior_map, router_loss
from .base import Base, Batch
from .config import TrainConfig


def encode_references(adapter: Expert, references: Tensor) -> Tensor:
    """(B,S,3,side,side) -> (B,S,F) by the adapter's own encoder; features made beforehand pass through."""
    if references.ndim == 3:
        return references
    if adapter.encoder is None:
        raise ValueError(f"references are pictures, but the adapter looks through '{adapter.config.image_encoder}'")
    return adapter.encoder(references.flatten(0, 1)).unflatten(0, references.shape[:2])


def draw_timesteps(generators: Sequence[Generator], config: TrainConfig) -> Tensor:
    """One for each example, as a share of the schedule in [0,1), with density ∝ share^(noisiness − 1) -> (B,)."""
    return torch.cat([torch.rand(1, generator=g) for g in generators]) ** (1 / config.noisiness)


def draw_noise(generators: Sequence[Generator], latents: Tensor) -> Tensor:
    """(B,C,h,w), like the latents."""
    return torch.stack([torch.randn(latents.shape[1:], generator=g) for g in generators]).to(latents)


def mixed_precision(like: Tensor, wanted: bool) -> AbstractContextManager[object]:
    """bfloat16 arithmetic, or none in spite of one around; tensors without contents know no such thing."""
    return nullcontext() if like.is_meta else torch.autocast(like.device.type, torch.bfloat16, enabled=wanted)


def mean_where(values: Tensor, mask: Tensor) -> Tensor:
    """The mean under the mask for each example, then over the batch: (B,1,h,w) (B,1,h,w) -> ()."""
    return ((values * mask).sum(dim=(1, 2, 3)) / mask.sum(dim=(1, 2, 3)).clamp(min=1e-6)).mean()


class LayerLosses:
    """What the losses need of every layer, taken while the layer speaks: keeping queries and keys would cost memory."""

    def __init__(self, batch: Batch, objects: bool):
        self.batch, self.wants_objects = batch, objects
        self.prior_maps: dict[str, Tensor] = {}
        self.objects: dict[str, Tensor] = {}

    def record(self, _sigma: Tensor, _images: Tensor) -> Observe:
        return self.observe

    def observe(self, spec: LayerSpec, routing: Routing) -> None:
        masks = self.batch.masks
        with mixed_precision(masks, False):
            if spec.supervised:
                self.prior_maps[spec.name] = prior_map(routing, (masks.shape[-2], masks.shape[-1]))
            if spec.is_cross and self.wants_objects:
                self.objects[spec.name] = object_loss(routing, spec.heads, self.batch.slots, masks)

    def average_prior(self) -> Tensor:
        """R̄, (B,1,h,w)."""
        return torch.stack(list(self.prior_maps.values())).mean(dim=0)

    def object(self) -> Tensor:
        if not self.objects:
            return torch.zeros((), device=self.batch.masks.device)
        return torch.stack(list(self.objects.values())).mean()


class Objective(nn.Module):
    """The loss of a batch as a module, so that several processes can wrap it and share its gradients."""

    def __init__(self, adapter: Expert, base: Base, config: TrainConfig):
        super().__init__()
        self.adapter, self.config = adapter, config
        self._base = (base,)  # in a tuple: the frozen base is no part of this module

    def forward(self, batch: Batch, generators: Sequence[Generator]) -> tuple[Tensor, dict[str, Tensor]]:
        """The loss, and its parts for the log (detached; R_0 outside and R_1 inside the subjects among them).

        Args: generators: one for each example of the batch, on the CPU.
        """
        (base,), config = self._base, self.config
        sigma = base.sigma_at(draw_timesteps(generators, config))
        noisy = base.add_noise(batch.latents, draw_noise(generators, batch.latents), sigma)
        layers = LayerLosses(batch, objects=not config.only_routers)
        with mixed_precision(noisy, config.precision == "bfloat16"):
            features = encode_references(self.adapter, batch.references).float()
            denoised = base.denoise(noisy, sigma, batch, features, layers.record).float()

        weight = base.error_weight(sigma)[:, None, None, None]
        union = batch.masks.sum(dim=1, keepdim=True).clamp(max=1)
        whole = torch.cat([torch.rand(1, generator=g) for g in generators]).to(union) < config.unmasked
        counted = torch.maximum(union, whole[:, None, None, None].float())
        prior = layers.average_prior()
        parts = {
            "reconstruction": masked_reconstruction(denoised * weight, batch.latents * weight, counted),
            "router": router_loss(prior, union, config.router_foreground),
            "object": layers.object(),
        }
        loss = parts["reconstruction"] + config.router_weight * parts["router"] + config.object_weight * parts["object"]
        with torch.no_grad():
            parts["prior_outside"] = mean_where(prior, 1 - union)
            parts["personal_inside"] = mean_where(1 - prior, union)
        return loss, {name: part.detach() for name, part in parts.items()}
