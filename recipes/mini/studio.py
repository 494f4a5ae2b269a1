"""MoA Mini at work, in batches, through the host's own sampler: for the evaluation and for the pictures of the README."""

from dataclasses import dataclass
from typing import Any

import comfy.model_management
import comfy.sample
import numpy as np
import torch
from torch import Generator, Tensor

from ...moa_attention.adapter import MoAAdapter
from ...moa_attention.reference import prepare_reference
from ...moa_attention.trace import Call, Trace, average_map
from ...nodes.adapter_files import load_adapter_patcher
from ...nodes.apply import bias_from_strength
from ...nodes.load import encoder_identity
from ...nodes.mini import MiniLatent, load_mini
from ...nodes.patch import apply_adapter, host_patcher
from ...nodes.sockets import Subject
from ...nodes.text import ENCODER, PAYLOAD, encode_prompt
from .faces import VARIANTS, WEIGHTS, rasterise, read_archive

STEPS, GUIDANCE, SAMPLER, SCHEDULE = 30, 2.5, "euler_ancestral", "sgm_uniform"
GRID = (16, 16)
STRENGTH, START = 0.5, 0.15
"""Of Apply MoA, as in the example workflow: the scene settles before the subjects speak."""
PAPER = np.array([236, 232, 224], np.float32)
"""Colour behind the people of reference pictures."""


BIAS = bias_from_strength(STRENGTH)


@dataclass(frozen=True)
class Order:
    """One picture to paint: a prompt, its subjects (word, reference feature) and a seed."""

    prompt: str
    subjects: tuple[Subject, ...]
    seed: int


class People:
    """Drawings of the archive, rasterised when asked for."""

    def __init__(self) -> None:
        self.faces = read_archive()
        self.drawn: dict[int, np.ndarray] = {}

    def cutout(self, identity: int, variant: int) -> np.ndarray:
        """(144,96,4) uint8."""
        drawing = identity * VARIANTS + variant
        if drawing not in self.drawn:
            self.drawn[drawing] = rasterise(self.faces[drawing].svg)
        return self.drawn[drawing]

    def reference(self, identity: int, variant: int = 0) -> Tensor:
        """A person before a plain background: (1,144,96,3) in [0,1], as a LoadImage node would give it."""
        rgba = self.cutout(identity, variant).astype(np.float32)
        alpha = rgba[..., 3:] / 255
        return torch.from_numpy((rgba[..., :3] * alpha + PAPER * (1 - alpha)) / 255)[None]

    def noun(self, identity: int) -> str:
        return self.faces[identity * VARIANTS].noun


class Studio:
    """The bundled model, and the bundled adapter or another one."""

    def __init__(self, adapter: MoAAdapter | None = None) -> None:
        self.model, self.clip, self.vae = load_mini(WEIGHTS)
        self.adapter = host_patcher(adapter) if adapter else load_adapter_patcher(WEIGHTS / "adapter.safetensors")
        self.encoder = encoder_identity(self.adapter.model)
        comfy.model_management.load_models_gpu([self.adapter])

    def subject(self, picture: Tensor, word: str) -> Subject:
        """Somebody of whom there is one picture (1,H,W,3)."""
        module = self.adapter.model
        feature = module.encoder(prepare_reference(picture, None, module.encoder.picture).to(self.adapter.load_device))
        return Subject(word, 1, feature.float().cpu(), self.encoder)

    def condition(self, orders: list[Order]) -> list:
        """One CONDITIONING whose rows are the orders' own prompts and subjects; all have as many subjects."""
        encoded = [encode_prompt(self.clip, order.prompt, order.subjects)[0][0] for order in orders]
        context, extra = torch.cat([c for c, _ in encoded]), dict(encoded[0][1])
        if "model_conds" in extra:
            conds = [e["model_conds"] for _, e in encoded]
            extra["model_conds"] = {k: type(conds[0][k])(torch.cat([c[k].cond for c in conds])) for k in PAYLOAD}
            extra[ENCODER] = self.encoder
        return [[context, extra]]

    def paint(
        self, orders: list[Order], prior_bias: float | None = BIAS, start: float = START
    ) -> tuple[Tensor, Tensor | None]:
        """Pictures of `sample`, and the mean R_1 (B,16,16) over layers and steps, None without adapter."""
        pictures, trace = self.sample(orders, prior_bias, start)
        calls = [call for step in trace.steps() for call in step]
        return pictures, mean_maps(trace, calls, len(orders)) if calls else None

    @torch.no_grad()
    def sample(
        self,
        orders: list[Order],
        prior_bias: float | None = BIAS,
        start: float = START,
        **options: Any,
    ) -> tuple[Tensor, Trace]:
        """Paint a batch. Noise that the sampler adds on its way depends on the place in the batch.

        Args:
            prior_bias: in the place of what STRENGTH means; None leaves the adapter out.
            start: in the place of START.
            options: others of `apply_adapter`.

        Returns: pictures (B,3,128,128) in [0,1], and what the router did.
        """
        trace = Trace(self.adapter.model.config.layers)
        model = self.model
        if prior_bias is not None:
            model = apply_adapter(
                model,
                self.adapter,
                encoder=self.encoder,
                prior_bias=prior_bias,
                start=start,
                trace=trace,
                **options,
            )
        noise = torch.cat(
            [
                torch.randn(1, MiniLatent.latent_channels, *GRID, generator=Generator().manual_seed(o.seed))
                for o in orders
            ]
        )
        negative = self.clip.encode_from_tokens_scheduled(self.clip.tokenize(""))
        latent = comfy.sample.sample(
            model, noise, STEPS, GUIDANCE, SAMPLER, SCHEDULE, self.condition(orders), negative, torch.zeros_like(noise),
            seed=0, disable_pbar=True,
        )  # fmt: skip
        return self.vae.decode(latent).movedim(-1, 1).float().clamp(0, 1), trace


def mean_maps(trace: Trace, calls: list[Call], count: int) -> Tensor:
    """Mean R_1 over these calls and all layers that count, for each of `count` pictures: -> (count,16,16)."""
    names = [spec.name for spec in trace.layers if spec.supervised]
    return torch.stack([average_map(calls, names, i, GRID) for i in range(count)])
