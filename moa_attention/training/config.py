"""The settings of a training run, for config files and for the node alike.

The docstring of each field is its tooltip in the node and its line in the table of the documentation (`field_docs`). Its
metadata hold its range and whether a resumed run may change it (`rules`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from ..method.losses import OBJECT_WEIGHT, ROUTER_WEIGHT
from ..method.spec import MoAConfig
from .data.captions import PERSON_WORDS
from .rules import Ranged, setting

Augmentation = Literal["fastcomposer", "gentle"]
ObjectLayers = Literal["middle", "all"]


@dataclass(frozen=True)
class TrainConfig(Ranged):
    """Optimisation. Where the paper states a value, it is the default; all other defaults are ours and are marked
    so."""

    steps: int = setting(low=1, high=10_000_000)
    """Optimiser steps of the whole run. The paper does not state a number."""
    batch_size: int = setting(128, 1, 65536)
    """Pictures per optimiser step, over all processes."""
    micro_batch: int = setting(0, 0, 65536)
    """Pictures in memory at once, in each process: a divisor of batch_size, or 0 for all of a step. It saves memory and
    does not change the losses."""
    optimiser: Literal["adamw", "adamw-8bit", "adafactor", "lion", "lion-8bit", "prodigy", "schedule-free", "muon"] = (
        setting("adamw", fixed=True)
    )
    """The optimiser. Those of other packages are refused with the line that installs them: "adamw-8bit" and "lion-8bit"
    (bitsandbytes), "lion" (lion-pytorch), "prodigy" (prodigyopt), "schedule-free" (schedulefree). "muon" orthogonalises
    the updates of matrices; all other weights have AdamW."""
    learning_rate: float = setting(1e-5, 1e-9, 1.0)
    """Highest learning rate of the schedule. The paper trains whole matrices with 1e-5. Use about 1e-4 with a low
    rank, a third to a tenth of that with Lion, and 1 with Prodigy, which multiplies its own estimate by it."""
    schedule: Literal["constant", "cosine", "linear", "polynomial", "restarts"] = "constant"
    """Learning rate after the warm-up, by transformers. "cosine" lets it fall to a twentieth (ours), "linear" and
    "polynomial" to 0. "restarts" is a cosine that falls to 0 several times."""
    cycles: int = setting(3, 1, 1000)
    """Number of falls of the schedule "restarts"."""
    power: float = setting(2.0, 0.1, 10.0)
    """Exponent of the schedule "polynomial"."""
    warmup: int = setting(0, 0, 10_000_000)
    """Steps in which the learning rate rises linearly from 0 (ours)."""
    weight_decay: float = setting(1e-2, 0.0, 1.0)
    """Weight decay of the optimiser (ours: FastComposer's)."""
    appearance: float = setting(0.9, 0.0, 1.0)
    """Probability that a person of a picture is bound as a subject (FastComposer's). Each picture keeps at least
    one."""
    uncondition: float = setting(0.1, 0.0, 1.0)
    """Fraction of pictures that are trained with an empty caption and without a subject. Their masks are kept (ours),
    because the masked loss is zero with empty masks."""
    unmasked: float = setting(0.0, 0.0, 1.0)
    """Fraction of pictures whose reconstruction loss covers the whole picture, not only the subjects (FastComposer:
    0.5)."""
    noisiness: float = setting(1.0, 0.1, 10.0)
    """Timesteps t are drawn with density ∝ t^(noisiness − 1) (ours). 1 is uniform; larger values prefer noisy
    timesteps, which decide identity. At less noisy timesteps the noisy picture itself shows the identity."""
    timesteps: Literal["uniform", "logit-normal"] = "uniform"
    """Distribution of the timesteps before noisiness shifts it. "logit-normal" prefers the middle of the schedule, as
    Stable Diffusion 3 does."""
    noise_offset: float = setting(0.0, 0.0, 1.0)
    """Standard deviation of a constant that is added to the noise of every channel, for very dark or bright pictures. A
    base model that was trained without it is then shown noise that it does not know."""
    weighting: Literal["none", "min-snr", "debiased"] = "none"
    """Weight of the reconstruction by the signal-to-noise ratio of the timestep. "none" counts errors of the network's
    prediction as they are, "min-snr" (arXiv 2303.09556) limits the weight of timesteps with little noise, "debiased"
    (arXiv 2310.08442) divides by the square root of the ratio."""
    snr_limit: float = setting(5.0, 0.1, 1000.0)
    """The limit γ of "min-snr"."""
    only_routers: bool = setting(False, fixed=True)
    """Train only the routers, without the object loss (ours). All other weights of the adapter stay as they are."""
    router_weight: float = setting(ROUTER_WEIGHT, 0.0, 1e6)
    """Weight λ_r of the router loss, which leaves the background to the prior. The loss is scaled to 64² latent pixels at
    every resolution."""
    router_foreground: float = setting(0.0, 0.0, 1e6)
    """Weight of a term in the router loss that rewards the personalised branch on subjects (ours; the paper: 0). At 0
    a small adapter can reduce its share everywhere and compensate with larger outputs. The router's map is then
    meaningless."""
    object_weight: float = setting(OBJECT_WEIGHT, 0.0, 1e6)
    """Weight λ_o of the object loss, which binds each subject to its word."""
    object_layers: ObjectLayers = "middle"
    """Cross-attention layers with the object loss. "middle" leaves out those of the outermost resolution, as FastComposer
    does; "all" includes every layer (ours)."""
    consistency_weight: float = setting(0.0, 0.0, 1e6)
    """Weight of the prior consistency (ours; 0, as in the paper, switches it off). This loss keeps the prediction outside
    the subjects' masks close to the frozen base model's. It takes one additional forward pass per step."""
    gradient_clip: float = setting(1.0, 1e-6, 1e6)
    """Largest norm of the gradient (ours: FastComposer's)."""
    ema_decay: float = setting(0.999, 0.0, 0.999999)
    """Decay of the averaged weights, which are the result (ours). After n steps it is at most (1 + n) / (10 + n), so that
    a short run is averaged over its last part. 0 returns the last weights and saves memory."""
    precision: Literal["float32", "bfloat16"] = "bfloat16"
    """Precision of the arithmetic of the U-Net and the adapter. Weights of the adapter, losses and optimiser are always
    float32, and so is everything on a CPU without instructions for bfloat16."""
    checkpointing: bool = False
    """Recompute activations in the backward pass instead of storing them. It takes a third more time and far less
    memory."""
    seed: int = setting(0, 0, 2**53)
    """Decides the order of the pictures, and the noise and timesteps of every step. A run that is interrupted and continued
    gives the same result."""
    save_every: int = setting(100, 1, 10_000_000)
    """Steps between resumable states. The last two are kept."""
    keep_every: int = setting(0, 0, 10_000_000)
    """Steps between states that are kept permanently; 0 for none."""


@dataclass(frozen=True)
class PictureConfig(Ranged):
    """The pictures, as they are cached."""

    side: int = setting(512, 64, 2048, multiple=64)
    """Pictures are scaled and cropped to about side² pixels (1024 for SDXL)."""
    views: int = setting(8, 1, 1024)
    """Number of augmented references per subject that are encoded, for adapters that use a CLIP vision model."""
    augmentation: Augmentation = "fastcomposer"
    """Augmentation of the references. "gentle" changes only framing, tilt and brightness, for subjects with
    characteristic colours."""
    words: tuple[str, ...] = PERSON_WORDS
    """Words that can be a subject in captions without <|image|> marks."""


@dataclass(frozen=True)
class AdapterConfig(Ranged):
    """What is trained."""

    rank: int = setting(0, 0, 1024, fixed=True)
    """0 trains whole matrices W_q, W_k, W_v, as the paper does. A rank above 0 trains differences of that rank to the base
    model's matrices (ours)."""
    router: Literal["linear", "mlp"] = setting("linear", fixed=True)
    """The function f of eq. 5: one linear layer, or an MLP of two layers."""
    image_tokens: int = setting(1, 1, 16, fixed=True)
    """Tokens of a subject in the personalised branch. The paper has 1, in the place of the word. Further ones follow the
    prompt (ours)."""
    output_projection: Literal["shared", "own"] = setting("shared", fixed=True)
    """Output projection W_o of the personalised branch: the base model's, or its own. The paper's equations have
    none."""


@dataclass(frozen=True)
class SheetConfig(Ranged):
    """The validation sheet: base model, personalised pictures and router maps, from the same noise every time."""

    every: int = setting(500, 0, 10_000_000)
    """Steps between sheets; 0 for none."""
    at: tuple[int, ...] = ()
    """Additional steps with a sheet, for example early ones."""
    prompts: tuple[str, ...] = ("a photo of a man reading in a cafe", "a photo of a woman on a beach")
    """Prompts. In each, the first word that can be a subject becomes the subject."""
    steps: int = setting(20, 1, 1000)
    """Sampling steps."""
    guidance: float = setting(5.0, 0.0, 100.0)
    """Scale of classifier-free guidance."""
    seeds: tuple[int, ...] = (42,)
    """Seeds of the noise. The sheet has a row for each prompt and seed."""

    @property
    def active(self) -> bool:
        """Whether there are any sheets."""
        return bool(self.every or self.at)

    def due(self, step: int, last: int) -> bool:
        """Whether there is a sheet after a step of a run of `last` steps."""
        return step in self.at or bool(self.every) and (step % self.every == 0 or step == last)


def check_start(start: MoAConfig, wanted: AdapterConfig, names: Sequence[str]) -> None:
    """Whether an adapter whose training continues is of the kind that the settings state.

    Raises: ValueError naming the settings that differ.
    """
    differing = [name for name in names if getattr(start, name) != getattr(wanted, name)]
    if differing:
        listed = ", ".join(f"{name} {getattr(start, name)}, the settings {getattr(wanted, name)}" for name in differing)
        raise ValueError(
            f"The adapter whose training continues keeps its kind. It has {listed}: set "
            + " and ".join(f"{name} to {getattr(start, name)}" for name in differing)
            + ", or train without 'start'."
        )
