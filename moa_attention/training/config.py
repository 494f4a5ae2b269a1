"""What a training run is told."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from ..losses import OBJECT_WEIGHT, ROUTER_WEIGHT


@dataclass(frozen=True)
class TrainConfig:
    """Defaults are the paper's where it states them; everything else is ours and says so."""

    steps: int
    """Optimiser steps. Not stated in the paper."""
    batch_size: int = 128
    """Pictures a step, over all processes."""
    micro_batch: int = 0
    """Pictures in memory at once, in each process; 0: all of a process's share. The losses are the same either way."""
    optimiser: Literal["adamw", "adamw-8bit", "adafactor"] = "adamw"
    """"adamw-8bit" needs the package bitsandbytes and an NVIDIA card."""
    learning_rate: float = 1e-5
    """Of AdamW, at its highest."""
    schedule: Literal["constant", "cosine"] = "constant"
    """What the learning rate does after the warm-up; "cosine" falls to a twentieth (ours)."""
    warmup: int = 0
    """Steps in which the learning rate rises from nothing (ours)."""
    weight_decay: float = 1e-2
    """Of AdamW (ours: FastComposer's)."""
    appearance: float = 0.9
    """How often a person of a picture is given as a subject (FastComposer's); at least one always is."""
    uncondition: float = 0.1
    """Share of pictures trained with an empty caption and no subject. Their mask is kept (ours: without it, the masked
    loss would teach nothing)."""
    unmasked: float = 0.0
    """Share of pictures whose reconstruction counts everywhere, not only on subjects (FastComposer: 0.5)."""
    noisiness: float = 1.0
    """Timesteps t are drawn with density ∝ t^(noisiness − 1): 1 draws them evenly, more prefers the noisy ones (ours).
    Who somebody is gets decided while a picture is mostly noise; below that a base model sees it for itself."""
    only_routers: bool = False
    """Train nothing but the routers, on top of experts that stay as they are, and without the object loss (ours)."""
    router_weight: float = ROUTER_WEIGHT
    """λ_r."""
    router_foreground: float = 0.0
    """How much the router loss also asks for the personalised branch on subjects (ours; the paper: 0). Without it a
    small adapter shrinks its share everywhere and speaks the louder in it, and the map no longer says where it speaks."""
    object_weight: float = OBJECT_WEIGHT
    """λ_o."""
    gradient_clip: float = 1.0
    """Largest gradient norm (ours: FastComposer's)."""
    ema_decay: float = 0.999
    """Of the averaged weights that are shipped (ours); 0 ships the last ones and saves their memory."""
    precision: Literal["float32", "bfloat16"] = "bfloat16"
    """Of the U-Net's and the adapter's arithmetic; weights, losses and optimiser are always float32."""
    checkpointing: bool = False
    """Compute activations again in the backward pass instead of keeping them: a third slower, far less memory."""
    seed: int = 0
    """Decides data order, noise and timesteps of every step, so that a resumed run repeats an unbroken one."""
    save_every: int = 100
    """Steps between resumable states."""
