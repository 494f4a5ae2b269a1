"""Sampling with the host: a picture and its router map, for validation sheets and evaluations."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import comfy.sample
import torch
from torch import Generator, Tensor

from ....moa_attention.run.trace import Trace, average_map
from ...sockets import Subject
from ..model.patch import apply_adapter
from ..prompts.conditioning import encode_prompt

SAMPLER, SCHEDULE = "euler", "normal"


@dataclass(frozen=True)
class HostSampler:
    """The frozen models and the settings of the sampler."""

    model: Any
    clip: Any
    vae: Any
    shape: tuple[int, int]
    """(h, w) of the latents."""
    steps: int
    guidance: float

    def picture(
        self, prompt: str, subjects: Sequence[Subject], seed: int, **options: Any
    ) -> tuple[Tensor, Tensor | None]:
        """A picture (H,W,3) in [0,1], and the router map; arguments as of `sample`."""
        latent, router_map = self.sample(prompt, subjects, seed, **options)
        return self.decode(latent), router_map

    def sample(
        self,
        prompt: str,
        subjects: Sequence[Subject],
        seed: int,
        adapter: Any | None = None,
        prior_bias: float = 0.0,
        start: float = 0.0,
    ) -> tuple[Tensor, Tensor | None]:
        """Latents (1,C,h,w) and the mean R_1 (h,w) over supervised layers and the steps in which it was computed.

        Args:
            adapter: its patcher; without one the base model samples alone, and there is no map.
            prior_bias, start: as of `apply_adapter`. The map is 0 when the adapter was active in no step.
        """
        model, trace = self.model, None
        if adapter is not None:
            trace = Trace(adapter.model.config.layers)
            encoder = subjects[0].encoder if subjects else ""
            model = apply_adapter(
                model, adapter, encoder=encoder, prior_bias=prior_bias, start=start, observers=[trace]
            )
        channels = self.model.model.latent_format.latent_channels
        noise = torch.randn(1, channels, *self.shape, generator=Generator().manual_seed(seed))
        positive, negative = (encode_prompt(self.clip, text, s)[0] for text, s in ((prompt, subjects), ("", ())))
        latent = comfy.sample.sample(
            model, noise, self.steps, self.guidance, SAMPLER, SCHEDULE, positive, negative, torch.zeros_like(noise),
            seed=seed, disable_pbar=True,
        )  # fmt: skip
        return latent, None if trace is None else self.router_map(trace)

    def decode(self, latent: Tensor) -> Tensor:
        """(1,C,h,w) -> (H,W,3) in [0,1]."""
        return self.vae.decode(latent)[0].float().cpu().clamp(0, 1)

    def router_map(self, trace: Trace) -> Tensor:
        """The mean R_1 of a run: -> (h,w)."""
        calls = [call for step in trace.steps() for call in step]
        names = [spec.name for spec in trace.layers if spec.supervised]
        return average_map(calls, names, 0, self.shape) if calls else torch.zeros(self.shape)
