"""MoA Mini as a pipeline: batches of prompts with subjects to images and router maps, through the host's own sampler."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import comfy.model_management
import comfy.sample
import torch
from torch import Generator, Tensor

from ....moa_attention.adapters.moa import MoAAdapter
from ....moa_attention.run.strength import bias_from_strength
from ....moa_attention.run.trace import Trace, average_map
from ....moa_attention.subjects.reference import prepare_reference
from ....nodes.host.files.adapters import load_adapter_patcher
from ....nodes.host.files.mini_files import load_mini
from ....nodes.host.model.mini import MiniLatent
from ....nodes.host.model.patch import apply_adapter, host_patcher
from ....nodes.host.prompts.conditioning import encode_prompt, payload
from ....nodes.host.prompts.payload_names import FIRST
from ....nodes.host.prompts.subject_context import ENCODED, without_subjects
from ....nodes.sockets import Subject
from ..data.faces import WEIGHTS

STEPS, GUIDANCE, SAMPLER, SCHEDULE = 30, 2.5, "euler_ancestral", "sgm_uniform"
GRID = (16, 16)
BATCH = 20
STRENGTH, START = 0.25, 0.1
"""Of Apply MoA, as in the example workflow: the scene settles before the personalised branch begins."""
PRIOR_BIAS = bias_from_strength(STRENGTH)


@dataclass(frozen=True)
class ImageRequest:
    """One image to generate: a prompt, its subjects (word, image feature) and a seed."""

    prompt: str
    subjects: tuple[Subject, ...]
    seed: int


def batches(requests: Sequence[ImageRequest]) -> Iterator[Sequence[ImageRequest]]:
    """At most BATCH at once."""
    for start in range(0, len(requests), BATCH):
        yield requests[start : start + BATCH]


class MiniPipeline:
    """The bundled model with the bundled adapter, or with another one."""

    def __init__(self, adapter: MoAAdapter | None = None) -> None:
        self.model, self.clip, self.vae = load_mini(WEIGHTS)
        self.adapter = host_patcher(adapter) if adapter else load_adapter_patcher(WEIGHTS / "adapter.safetensors")
        self.encoder = self.adapter.model.identity
        comfy.model_management.load_models_gpu([self.adapter])

    @torch.no_grad()
    def encode_subject(self, reference: Tensor, word: str) -> Subject:
        """A subject with one reference picture (1,H,W,3)."""
        adapter = self.adapter.model
        pixels = prepare_reference(reference, None, adapter.encoder.picture)
        feature = adapter.encoder(pixels.to(self.adapter.load_device))
        return Subject(word, 1, feature.float().cpu(), self.encoder)

    def generate(
        self,
        requests: Sequence[ImageRequest],
        prior_bias: float | None = PRIOR_BIAS,
        start: float = START,
        last: int = STEPS,
        **options: Any,
    ) -> tuple[Tensor, Tensor]:
        """Images with their subjects.

        Args:
            last: the maps are means over so many steps at the end of the run.
            options: further ones of `apply_adapter`.

        Returns: (B,3,128,128) in [0,1], and the mean R_1 (B,16,16) over supervised layers and steps.
        """
        images, maps = [], []
        for batch in batches(requests):
            sampled, trace = self.sample(batch, prior_bias, start, **options)
            images.append(sampled)
            maps.append(mean_maps(trace, len(batch), last))
        return torch.cat(images), torch.cat(maps)

    def generate_prior(self, requests: Sequence[ImageRequest]) -> Tensor:
        """The base model's own images of the same prompts and seeds: (B,3,128,128) in [0,1]."""
        prompts = [replace(request, subjects=()) for request in requests]
        return torch.cat([self.sample(batch, None)[0] for batch in batches(prompts)])

    @torch.no_grad()
    def sample(
        self,
        requests: Sequence[ImageRequest],
        prior_bias: float | None = PRIOR_BIAS,
        start: float = START,
        **options: Any,
    ) -> tuple[Tensor, Trace]:
        """One batch. The noise that an ancestral sampler adds depends on the position in the batch.

        Args:
            prior_bias: of the routers; None leaves the adapter out.
            start: share of the schedule after which the personalised branch begins.
            options: further ones of `apply_adapter`.

        Returns: images (B,3,128,128) in [0,1], and the router's trace.
        """
        model, trace = self.model, Trace(self.adapter.model.config.layers)
        if prior_bias is not None:
            options |= {"encoder": self.encoder, "prior_bias": prior_bias, "start": start, "observers": [trace]}
            model = apply_adapter(model, self.adapter, **options)
        noise = torch.cat([initial_noise(request.seed) for request in requests])
        negative = self.clip.encode_from_tokens_scheduled(self.clip.tokenize(""))
        latent = comfy.sample.sample(
            model, noise, STEPS, GUIDANCE, SAMPLER, SCHEDULE, self.condition(requests), negative,
            torch.zeros_like(noise), seed=0, disable_pbar=True,
        )  # fmt: skip
        return self.vae.decode(latent).movedim(-1, 1).float().clamp(0, 1), trace

    def condition(self, requests: Sequence[ImageRequest]) -> list:
        """One CONDITIONING with a row for each request's prompt and subjects; all have the same number of subjects."""
        encoded = [encode_prompt(self.clip, request.prompt, request.subjects) for request in requests]
        entries = [conditioning[0] for conditioning, _ in encoded]
        context = torch.cat([without_subjects(context) for context, _ in entries])
        extra = {name: entry for name, entry in entries[0][1].items() if name != ENCODED}
        if requests[0].subjects:
            rows = [payload(bindings, context.shape[1]) for _, bindings in encoded]
            extra["model_conds"] = {k: type(v)(torch.cat([row[k].cond for row in rows])) for k, v in rows[0].items()}
            extra[FIRST.sources] = [*requests[0].subjects]  # their names stand for those of every row
        return [[context, extra]]


def initial_noise(seed: int) -> Tensor:
    """(1,32,16,16), the same wherever the request stands in its batch."""
    return torch.randn(1, MiniLatent.latent_channels, *GRID, generator=Generator().manual_seed(seed))


def mean_maps(trace: Trace, count: int, last: int) -> Tensor:
    """Mean R_1 over the supervised layers and the last steps, for each of `count` images: -> (count,16,16).

    Zero where the personalised branch was never computed, as at strength 0.
    """
    calls = [call for step in trace.steps()[-last:] for call in step]
    if not calls:
        return torch.zeros(count, *GRID)
    names = [spec.name for spec in trace.layers if spec.supervised]
    return torch.stack([average_map(calls, names, i, GRID) for i in range(count)])
