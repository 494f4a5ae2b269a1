"""One step's losses: masked reconstruction + λ_r · router + λ_o · object, and the prior consistency (ours)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Generator, Tensor, nn

from ..adapters.base import Adapter
from ..method.layer import Observe, Routing
from ..method.losses import masked_reconstruction, object_loss, prior_map, router_loss
from ..method.prompt import with_further_places
from ..method.spec import LayerSpec
from .base import Base, Batch
from .config import ObjectLayers, TrainConfig
from .precision import mixed_precision


def encode_references(adapter: Adapter, references: Tensor) -> Tensor:
    """(B,S,3,side,side) -> (B,S,F) by the adapter's own encoder; features computed beforehand are returned as they are."""
    if references.ndim == 3:
        return references
    if "pixels" not in adapter.requires:
        raise ValueError(
            f"The references are pictures, but the adapter expects features of '{adapter.config.image_encoder}'."
        )
    return adapter.encode({"pixels": references.flatten(0, 1)}).unflatten(0, references.shape[:2])


def draw_timesteps(generators: Sequence[Generator], config: TrainConfig) -> Tensor:
    """One timestep per example, as a fraction of the schedule in [0,1) -> (B,).

    Uniform or logit-normal draws u (Esser et al. 2024, section 3.1), shifted to u^(1 / noisiness).
    """
    if config.timesteps == "logit-normal":
        drawn = torch.cat([torch.randn(1, generator=g) for g in generators]).sigmoid()
    else:
        drawn = torch.cat([torch.rand(1, generator=g) for g in generators])
    return drawn ** (1 / config.noisiness)


def draw_noise(generators: Sequence[Generator], latents: Tensor, offset: float = 0.0) -> Tensor:
    """Gaussian noise of the latents' shape, (B,C,h,w), plus a constant of deviation `offset` in each channel."""
    noise = [torch.randn(latents.shape[1:], generator=g) for g in generators]
    if offset:
        noise = [n + offset * torch.randn(len(n), 1, 1, generator=g) for n, g in zip(noise, generators, strict=True)]
    return torch.stack(noise).to(latents)


def error_factor(base: Base, sigma: Tensor, config: TrainConfig) -> Tensor:
    """The factor of an error of the denoised latents before it is squared, by `config.weighting`: (B,) -> (B,).

    The square of an error of the denoised latents has the weight min(SNR, γ) with "min-snr" and √SNR with "debiased",
    whatever the network predicts. For a prediction of the noise, whose weight is SNR, these are the papers' formulas.
    """
    if config.weighting == "min-snr":
        return base.signal_to_noise(sigma).clamp(max=config.snr_limit).sqrt()
    if config.weighting == "debiased":
        return base.signal_to_noise(sigma) ** 0.25
    return base.error_weight(sigma)


def mean_where(values: Tensor, mask: Tensor) -> Tensor:
    """The mean under the mask for each example, then over the batch: (B,1,h,w) (B,1,h,w) -> ()."""
    return ((values * mask).sum(dim=(1, 2, 3)) / mask.sum(dim=(1, 2, 3)).clamp(min=1e-6)).mean()


class LayerLosses:
    """The losses' terms of every layer, computed inside the U-Net call, so that queries and keys need not be kept.

    Args:
        objects: the cross-attention layers with an object loss; None: no layer.
        further: as `Adapter.further_tokens`.
    """

    def __init__(self, batch: Batch, objects: ObjectLayers | None, further: int = 0):
        self.batch, self.object_layers, self.slots = batch, objects, batch.slots
        if further:
            self.slots = with_further_places(batch.slots, batch.masks.shape[1], further)
        self.prior_maps: dict[str, Tensor] = {}
        self.objects: dict[str, Tensor] = {}

    def record(self, _sigma: Tensor, _images: Tensor) -> Observe:
        """The observer of a U-Net call."""
        return self.observe

    def observe(self, spec: LayerSpec, routing: Routing) -> None:
        """Add the prior's map of a supervised layer and the object loss of a layer that has one.

        A block that is recomputed in the backward pass calls again. What it gives then is not kept: with it, the whole block
        of the second pass would stay in memory to the end of the step.
        """
        masks = self.batch.masks
        with mixed_precision(masks.device, False):
            if spec.supervised:
                self.prior_maps.setdefault(spec.name, prior_map(routing, (masks.shape[-2], masks.shape[-1])))
            if self.has_object_loss(spec):
                loss = object_loss(routing, spec.heads, self.slots, masks, self.batch.weights)
                self.objects.setdefault(spec.name, loss)

    def has_object_loss(self, spec: LayerSpec) -> bool:
        """Whether a layer is one of `objects`."""
        return spec.is_cross and (self.object_layers == "all" or (self.object_layers == "middle" and spec.supervised))

    def average_prior(self) -> Tensor:
        """R̄, the mean share of the prior over supervised layers: (B,1,h,w)."""
        return torch.stack(list(self.prior_maps.values())).mean(dim=0)

    def object(self) -> Tensor:
        """The object loss, mean over the layers that have one: ()."""
        if not self.objects:
            return torch.zeros((), device=self.batch.masks.device)
        return torch.stack(list(self.objects.values())).mean()


class Objective(nn.Module):
    """The loss of a batch as a module, so that several processes can wrap it and share its gradients."""

    def __init__(self, adapter: Adapter, base: Base, config: TrainConfig):
        super().__init__()
        self.adapter, self.config = adapter, config
        self._base = (base,)  # in a tuple: the frozen base is not a submodule

    def forward(self, batch: Batch, generators: Sequence[Generator]) -> tuple[Tensor, dict[str, Tensor]]:
        """The loss, and its parts for the log (detached; R_0 outside and R_1 inside the subjects among them).

        Args: generators: one for each example of the batch, on the CPU.
        """
        (base,), config = self._base, self.config
        sigma = base.sigma_at(draw_timesteps(generators, config))
        noisy = base.add_noise(batch.latents, draw_noise(generators, batch.latents, config.noise_offset), sigma)
        objects = None if config.only_routers else config.object_layers
        layers = LayerLosses(batch, objects, self.adapter.further_tokens)
        with mixed_precision(noisy.device, config.precision == "bfloat16"):
            features = encode_references(self.adapter, batch.references).float()
            denoised = base.denoise(noisy, sigma, batch, features, layers.record).float()
            alone = base.denoise_alone(noisy, sigma, batch).float() if config.consistency_weight else None

        weight = error_factor(base, sigma, config)[:, None, None, None]
        union = batch.masks.sum(dim=1, keepdim=True).clamp(max=1)
        whole = torch.cat([torch.rand(1, generator=g) for g in generators]).to(union) < config.unmasked
        counted = torch.maximum(union, whole[:, None, None, None].float())
        prior = layers.average_prior()
        parts = {
            "reconstruction": masked_reconstruction(denoised * weight, batch.latents * weight, counted, batch.weights),
            "router": router_loss(prior, union, config.router_foreground, batch.weights),
            "object": layers.object(),
        }
        loss = parts["reconstruction"] + config.router_weight * parts["router"] + config.object_weight * parts["object"]
        if alone is not None:
            parts["consistency"] = masked_reconstruction(denoised * weight, alone * weight, 1 - union, batch.weights)
            loss = loss + config.consistency_weight * parts["consistency"]
        with torch.no_grad():
            parts["prior_outside"] = mean_where(prior, 1 - union)
            parts["personal_inside"] = mean_where(1 - prior, union)
        return loss, {name: part.detach() for name, part in parts.items()}
